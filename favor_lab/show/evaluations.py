"""Evaluations as figures: confusion matrix, sheet of examples, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from favor_lab.show.layout import fade, for_figure, titled_figure
from favor_lab.show.style import BLUE, CYCLE, FAINT, GREY, INK, MARKERS, VERMILLION, WIDTH, house_style, new_figure
from favor_lab.show.text import LONGEST_TITLE, RIGHT_MARK, WRONG_MARK, drawn_name, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from favor_lab.activities.fewshot import Example
    from favor_lab.study.evaluation import Evaluation


@house_style()
def plot_confusion(evaluation: Evaluation, title: str = "") -> Figure:
    """Gold labels (rows) against greedy answers (columns): right ones blue, wrong ones vermillion, counts in the cells.

    The last column counts answers that are no label of the list, and empty ones.
    """
    counts = evaluation.confusion()  # (K, K + 1)
    size = len(evaluation.labels)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(size, size + 1, dtype=bool)
    side = min(max(0.34 * size, 2.0), 7.0)
    figure = new_figure(height=side + 1.5, width=side + 2.5)
    axes = figure.add_subplot()
    for mask, colour in ((diagonal, BLUE), (~diagonal, VERMILLION)):
        axes.imshow(np.ma.masked_array(share, ~mask), cmap=fade("white", colour), vmin=0, vmax=1)
    axes.axvline(size - 0.5, color=GREY, linewidth=1)
    names = [drawn_name(label) for label in evaluation.labels]
    axes.set_xticks(range(size + 1), [*names, "no valid answer"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    heading = title or f"{drawn_name(evaluation.policy)}: {evaluation.accuracy:.0%} of {len(evaluation)} right"
    axes.set(xlabel="answer", ylabel="gold label", title=printable(heading, LONGEST_TITLE))
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=FAINT)
    if size <= 24:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if share[row, column] > 0.55 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center_baseline", fontsize=8, color=ink)
    return figure


@house_style()
def plot_examples(
    examples: Sequence[Example], evaluation: Evaluation | None = None, columns: int = 6, title: str = ""
) -> Figure:
    """A sheet of images with their gold labels and, given an evaluation of them, the answers below (right or wrong)."""
    if not examples:
        raise ValueError("plot_examples needs at least one example")
    answers = {answer.source: answer for answer in evaluation.answers} if evaluation else {}
    missing = [example.source for example in examples if evaluation and example.source not in answers]
    if missing:
        raise ValueError(f"the evaluation has no answer for {missing[0]}: pass the examples that were evaluated")
    columns = min(columns, len(examples))
    rows = -(-len(examples) // columns)
    side = WIDTH / max(columns, 4)
    figure = new_figure(rows * (side + (0.38 if evaluation else 0.2)) + (0.4 if title else 0.1), columns * side)
    for axes, example in zip(figure.subplots(rows, columns, squeeze=False).flat, examples, strict=False):
        axes.imshow(for_figure(example.image))
        axes.set_xlabel(drawn_name(example.label), fontsize=9, labelpad=3)
        if answer := answers.get(example.source):
            mark, colour = (RIGHT_MARK, BLUE) if answer.correct else (WRONG_MARK, VERMILLION)
            wrong_answer = "" if answer.correct else drawn_name(answer.answer or "no answer")
            axes.set_xlabel(f"{axes.get_xlabel()}\n{mark} {wrong_answer}", color=colour)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    if title:
        figure.suptitle(printable(title), weight="bold", fontsize=11)
    return figure


@house_style()
def plot_before_after(evaluations: Mapping[str, Evaluation], title: str = "") -> Figure:
    """Evaluations side by side, in the order given: rates with the accuracy's 95 % interval, and accuracy by label.

    The labels are those that all the evaluations have.
    """
    if not evaluations:
        raise ValueError("plot_before_after needs at least one evaluation, for example {'zero-shot': evaluation}")
    by_label = [evaluation.label_accuracy() for evaluation in evaluations.values()]
    labels = [label for label in by_label[-1] if all(label in accuracy for accuracy in by_label)]
    labels.sort(key=lambda label: by_label[-1][label])
    figure = titled_figure(max(3.4, 0.21 * len(labels) + 1.2), title, room=0.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    colours = dict(zip(evaluations, ("#9aa5b1", *CYCLE), strict=False))
    _rate_bars(left, evaluations, colours)
    for i, (name, accuracy) in enumerate(zip(evaluations, by_label, strict=True)):
        # the first mark is hollow and larger, so that it is seen around an equal one
        size, face = (90, "white") if i == 0 else (40, colours[name])
        right.scatter(
            [100 * accuracy[label] for label in labels], range(len(labels)), s=size, facecolor=face,
            edgecolor=colours[name], linewidth=2, marker=MARKERS[i % len(MARKERS)], label=drawn_name(name), zorder=3,
        )  # fmt: skip
    for row, label in enumerate(labels):
        line = [100 * accuracy[label] for accuracy in by_label]
        right.plot([min(line), max(line)], [row, row], color=FAINT, linewidth=3, zorder=1)
    right.set_yticks(range(len(labels)), [drawn_name(label) for label in labels])
    right.set(xlim=(-4, 104), xlabel="accuracy by label, %")
    right.grid(axis="x")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(evaluations))
    return figure


def _rate_bars(axes: Axes, evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> None:
    """Accuracy, format rate and truth rate as grouped bars in percent."""
    width = 0.8 / len(evaluations)
    for i, (name, evaluation) in enumerate(evaluations.items()):
        rates = [evaluation.accuracy, evaluation.format_rate, evaluation.truth_rate]
        shift = (i - (len(evaluations) - 1) / 2) * width
        bars = [(x + shift, 100 * rate) for x, rate in enumerate(rates) if rate is not None]
        centres, heights = zip(*bars, strict=True)
        axes.bar(centres, heights, width * 0.92, color=colours[name])
        low, high = (100 * bound for bound in evaluation.interval)
        axes.plot([centres[0]] * 2, [low, high], color=INK, linewidth=1.4)
        for x, top, height in zip(centres, (high, *heights[1:]), heights, strict=True):
            axes.text(x, top + 1.5, f"{height:.0f}", ha="center", fontsize=9, weight="bold")
    chance = 100 / len(next(iter(evaluations.values())).labels)
    axes.plot([-0.45, 0.45], [chance, chance], color=INK, linewidth=1, linestyle=":")
    groups = 3 if any(evaluation.truth_rate is not None for evaluation in evaluations.values()) else 2
    axes.set_xticks(range(groups), ["accuracy", "well formed", "true\nstatements"][:groups])
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=(0, 110), yticks=range(0, 101, 25), ylabel="% (line: 95 % interval, dots: chance)")
