"""The report of a run: its figures, and one HTML page that holds all of it, without network or scripts."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.files import jsonable, write_whole
from favor_lab.show.curves import plot_coverage, plot_records
from favor_lab.show.evaluations import plot_before_after, plot_confusion, plot_examples
from favor_lab.show.groups import plot_group
from favor_lab.show.markup import data_html, image_html
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from favor_lab.activities.fewshot import Example
    from favor_lab.study.evaluation import Evaluation


def draw_figures(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    examples: Sequence[Example] = (),
    records: Sequence[Any] = (),
    groups: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Path]:
    """Draw evaluations, step records and sampled groups into a new folder: caption -> PNG file.

    groups: "before" and "after" -> a `JudgedGroup` as a dictionary; those whose image is in `examples` are drawn.
    """
    by_source = {example.source: example for example in examples}
    figures: dict[str, tuple[str, Figure]] = {}
    if len(evaluations) > 1:
        figures["before and after, on the test images"] = "before_after", plot_before_after(evaluations)
    for when, group in (groups or {}).items():
        if group["source"] in by_source:
            parts = {name: group[name] for name in ("label", "texts", "rewards", "advantages")}
            figure = plot_group(by_source[group["source"]].image, **parts, title=f"One group {when} training")
            figures[f"one group, sampled {when} training: {group['source']}"] = f"group_{when}", figure
    if records:
        figures["what was measured at each step"] = "records", plot_records(records)
        if any(record["labels"] for record in records):
            figures["when the right answer was sampled"] = "coverage", plot_coverage(records)
    for name, stem in file_stems(evaluations).items():
        evaluation = evaluations[name]
        figures[f"{name}: what was taken for what"] = f"confusion_{stem}", plot_confusion(evaluation, name)
        if examples:
            sheet = plot_examples(examples[:12], evaluation, title=f"{name}: the first test images")
            figures[f"{name}: gold labels and answers"] = f"examples_{stem}", sheet
    paths = {caption: folder / f"{stem}.png" for caption, (stem, _) in figures.items()}
    for caption, (_, figure) in figures.items():
        folder.mkdir(exist_ok=True)
        figure.savefig(paths[caption])
    return paths


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """Names as parts of names of files, on every system: short, without signs, and no two alike in any case of letters.

    >>> file_stems(["zero-shot", "Zero shot", "4-shot GRPO"])
    {'zero-shot': 'zero_shot', 'Zero shot': 'Zero_shot_2', '4-shot GRPO': '4_shot_GRPO'}
    """
    stems: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^a-zA-Z0-9]+", "_", name)[:40]
        taken = {other.lower() for other in stems.values()}
        tries = (f"{stem}_{i}" if i > 1 else stem for i in itertools.count(1))
        stems[name] = next(one for one in tries if one.lower() not in taken)
    return stems


def write_report(
    path: str | Path,
    title: str,
    evaluations: Mapping[str, Evaluation],
    figures: Mapping[str, Path],
    settings: Mapping[str, Any],
    examples: Sequence[Example] = (),
    notes: Sequence[str] = (),
) -> Path:
    """One HTML page: notes, rates, figures (caption -> PNG file), every answer with its text, settings and versions.

    Figures are embedded and all text is escaped (a policy can write anything); `examples` adds images to the table.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    pictures = [
        (caption, data_html(base64.b64encode(Path(file).read_bytes()).decode(), "png", caption))
        for caption, file in figures.items()
    ]
    page = environment.get_template("report.html.jinja").render(
        title=title, notes=notes, evaluations=evaluations, figures=pictures, rows=_answer_rows(evaluations, examples),
        settings=list(_flat(jsonable(settings))), percent=lambda share, digits=0: f"{rounded(100 * share, digits)}%",
    )  # fmt: skip
    return write_whole(path, page)


def _answer_rows(evaluations: Mapping[str, Evaluation], examples: Sequence[Example]) -> Iterator[tuple]:
    """For each test image: source, gold label, picture, and the answers of the evaluations that have it."""
    pictured = {example.source: example for example in examples}
    by_source = [{answer.source: answer for answer in evaluation.answers} for evaluation in evaluations.values()]
    for source, answer in (by_source[0] if by_source else {}).items():
        picture = image_html(pictured[source].image, answer.label, 224, width=112) if source in pictured else ""
        yield source, answer.label, picture, [answers[source] for answers in by_source if source in answers]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as pairs of a dotted name and a value."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
