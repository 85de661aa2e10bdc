import io
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from favor_lab.activities.fewshot import Example
from favor_lab.activities.world.catalogue import ACTIVITIES
from favor_lab.activities.world.scenes import draw_scene
from favor_lab.grpo.support.records import StepRecord
from favor_lab.show.curves import plot_coverage, plot_records
from favor_lab.show.evaluations import plot_before_after, plot_confusion, plot_examples
from favor_lab.show.explanations import plot_truth
from favor_lab.show.groups import plot_group
from favor_lab.show.loop import plot_loop
from favor_lab.show.style import new_figure
from favor_lab.study.evaluation import Answered, Evaluation
from pictures import png, texts_of

IMAGE = Image.new("RGB", (28, 28), "teal")
LABELS = ["reading", "phoning", "fishing"]


def records(count=30, **more):
    all_records = []
    for step in range(1, count + 1):
        labels = {
            "reading": {"completions": 4, "right": 2, "right_so_far": 2 * step},
            "phoning": {"completions": 4, "right": 0, "right_so_far": 0},
        }
        fields = dict(
            step=step, loss=0.1, reward=1.5, rewards={"accuracy_reward": step / count, "format_reward": 1.0},
            reward_spread=0.5, flat_groups=0.25, kl=0.01 * step, entropy=1.0, length_mean=20.0, length_min=10,
            length_max=30, labels=labels,
        )  # fmt: skip
        all_records.append(StepRecord(**fields | more))
    return all_records


def evaluation(name="pocket", right=(True, False, True, False), truth=(3, 2)):
    golds = ["reading", "reading", "phoning", "fishing"]
    answers = [
        Answered(f"cartoon/test/{i:05d}", gold, gold if ok else None, ok, ok, *truth, "text")
        for i, (gold, ok) in enumerate(zip(golds, right, strict=True))
    ]
    return Evaluation(name, "think", LABELS, answers, 1.0)


def examples(count=4):
    return [Example(IMAGE, evaluation().answers[i % 4].label, f"cartoon/test/{i:05d}") for i in range(count)]


def test_curves_hold_the_recorded_numbers_and_name_their_units():
    figure = plot_records(records())
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["mean reward", "labels ever answered right", "spread inside the groups", "KL to the reference",
                      "entropy when sampling", "length of completions"]  # fmt: skip
    raw = figure.axes[0].lines[0]
    assert raw.get_xdata().tolist() == list(range(1, 31))
    assert raw.get_ydata().tolist() == pytest.approx([step / 30 for step in range(1, 31)])
    assert [line.get_label() for line in figure.axes[0].lines[1::2]] == ["accuracy", "format"]
    assert all(
        axes.get_xlabel() == "optimiser step" and axes.get_ylabel() for axes in figure.axes if axes.get_visible()
    )
    assert figure.axes[3].get_ylabel() == "nats per token (k3 estimate)"
    assert png(figure).size == (1080, int(figure.get_figheight() * 120))


def test_live_and_saved_records_give_the_same_picture():
    live = records(5)
    assert png(plot_records(live)).tobytes() == png(plot_records([r.to_dict() for r in live])).tobytes()
    assert png(plot_coverage(live)).tobytes() == png(plot_coverage([asdict(r) for r in live])).tobytes()


def test_only_panels_with_numbers_are_drawn():
    figure = plot_records([StepRecord(step=1, loss=2.0), StepRecord(step=2, loss=1.0)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss"]
    without_kl = plot_records(records(kl=None, entropy=float("nan")))
    titles = [axes.get_title(loc="left") for axes in without_kl.axes if axes.get_visible()]
    assert "KL to the reference" not in titles
    png(without_kl)


def test_a_single_step_is_visible():
    figure = plot_records(records(1))
    assert figure.axes[0].lines[0].get_marker() == "o"
    png(figure)


def test_no_records_is_an_error():
    with pytest.raises(ValueError, match="no step records"):
        plot_records([])
    with pytest.raises(ValueError, match="by label"):
        plot_coverage([StepRecord(step=1, loss=1.0)])


def test_coverage_shows_what_was_never_sampled():
    figure = plot_coverage(records(7))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["phoning", "reading"]
    assert [text.get_text() for text in axes.texts] == ["0 of 28", "14 of 28"]
    misses, hits = axes.collections
    assert misses.get_offsets().tolist() == [[step, 0] for step in range(1, 8)]
    assert hits.get_offsets().tolist() == [[step, 1] for step in range(1, 8)]
    png(figure)


def group(**more):
    texts = ["<think>a page</think><answer>reading</answer>", "<answer>phoning</answer>", "", "$\\frac{1}{ _x^$ <b>"]
    arguments = dict(
        image=IMAGE, label="reading", texts=texts,
        rewards={"accuracy_reward": [1, 0, 0, 0], "format_reward": [1, 0, 0, 0]},
        advantages=[1.5, -0.5, -0.5, -0.5],
    )  # fmt: skip
    return plot_group(**arguments | more)


def test_a_group_shows_image_texts_rewards_and_advantages():
    figure = group()
    texts = texts_of(figure)
    assert {"G = 4 completions", "accuracy", "format", "advantage", "gold label", "+1.50"} <= set(texts)
    assert texts.count("\N{MINUS SIGN}0.50") == 3 and texts.count("1") == 2 and texts.count("0") == 6
    assert texts.count("\N{CHECK MARK}") == 1 and texts.count("\N{BALLOT X}") == 3
    assert {"<think>", "a", "page", "</think>", "reading", "(nothing", "written)"} & set(texts)
    bars = [patch.get_width() for patch in figure.axes[0].patches]
    assert np.sign(bars).tolist() == [1, -1, -1, -1] and bars[0] == pytest.approx(-3 * bars[1])
    assert figure.axes[1].images[0].get_array().shape == (28, 28, 3)
    png(figure)


def test_a_group_takes_tensors_and_sorts_by_advantage():
    figure = group(advantages=torch.tensor([-0.5, 1.5, -0.5, -0.5]), rewards={"accuracy_reward": torch.zeros(4)})
    assert [patch.get_width() > 0 for patch in figure.axes[0].patches] == [True, False, False, False]
    unsorted = group(advantages=torch.tensor([-0.5, 1.5, -0.5, -0.5]), sort=False)
    assert [patch.get_width() > 0 for patch in unsorted.axes[0].patches] == [False, True, False, False]


def test_a_group_without_spread_says_so():
    assert any("no spread" in text for text in texts_of(group(advantages=[0.0] * 4)))
    assert not any("no spread" in text for text in texts_of(group()))


def test_a_group_with_missing_numbers_is_an_error():
    with pytest.raises(ValueError, match="4 completions, but {'accuracy': 3, 'advantages': 4}"):
        group(rewards={"accuracy_reward": [1, 0, 0]})


@pytest.mark.parametrize("text", ["\x00\ud800 \uffff", "中文 日本語 ‮ 🚲", "word " * 400, "x" * 3000, "$", "a\n\n\tb"])
def test_any_text_can_be_drawn(text):
    png(group(texts=[text] * 4, label=text[:40] or "x", title=text[:20]))


def test_confusion_cells_carry_the_counts():
    figure = plot_confusion(evaluation())
    (axes,) = figure.axes
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == [*LABELS, "no valid answer"]
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "1", (0, 3): "1", (1, 1): "1", (2, 3): "1"}
    png(figure)


def test_an_example_sheet_shows_gold_and_answer():
    figure = plot_examples(examples(), evaluation(), columns=3)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[:2] == ["reading\n\N{CHECK MARK} ", "reading\n\N{BALLOT X} no answer"]
    assert len(figure.axes) == 6 and not figure.axes[5].images
    png(figure)
    with pytest.raises(ValueError, match="cartoon/test/00004"):
        plot_examples(examples(5), evaluation())
    with pytest.raises(ValueError, match="at least one"):
        plot_examples([])


def test_before_and_after_bars_are_the_rates_with_the_interval():
    before, after = evaluation(right=(False,) * 4, truth=(0, 0)), evaluation(right=(True,) * 4)
    figure = plot_before_after({"zero-shot": before, "4-shot GRPO": after})
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [0, 0, 100, 100, pytest.approx(200 / 3)]
    low, high = (100 * bound for bound in after.interval)
    assert any(line.get_ydata() == pytest.approx([low, high]) for line in left.lines)
    assert [collection.get_offsets()[:, 0].tolist() for collection in right.collections] == [[0] * 3, [100] * 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["zero-shot", "4-shot GRPO"]
    png(figure)
    with pytest.raises(ValueError, match="zero-shot"):
        plot_before_after({})


def test_the_loop_picture_uses_the_library_s_advantages():
    texts = texts_of(plot_loop(IMAGE))
    assert {"sample", "judge", "compare", "learn", "sample_groups", "group_advantages", "grpo_loss"} <= set(texts)
    assert texts.count("+0.78") == 2 and "\N{MINUS SIGN}1.31" in texts
    png(plot_loop())


def test_the_loop_picture_marks_the_step_that_a_page_is_about():
    assert "you are here" not in texts_of(plot_loop())
    for step in ("sample", "judge", "compare", "learn"):
        assert texts_of(plot_loop(step=step)).count("you are here") == 1
    with pytest.raises(ValueError, match="unknown step 'reward' of the loop; the steps are sample, judge, compare"):
        plot_loop(step="reward")


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(pyplot.rcParams)
    group()
    assert dict(pyplot.rcParams) == before and pyplot.get_fignums() == []


def test_a_figure_displays_itself_in_a_notebook():
    figure = plot_records(records())
    assert figure._repr_mimebundle_()["image/png"].startswith("iVBORw0KGgo")
    assert repr(figure).startswith("<Figure size ")


def test_a_sheet_of_pictures_is_displayed_as_a_small_jpeg():
    sheet = plot_examples([Example(draw_scene("cctv", "train", i).image, "?", str(i)) for i in range(6)])
    buffer = io.BytesIO()
    sheet.savefig(buffer, format="png")
    (kind, data), *rest = sheet._repr_mimebundle_().items()
    assert kind == "image/jpeg" and not rest and len(data) < buffer.tell() / 2


def test_the_truth_of_a_scene_is_drawn_where_it_is():
    scene = draw_scene("sketch", "test", ACTIVITIES.index("walking the dog"))
    figure = plot_truth(scene)
    marked = figure.axes[1]
    points = marked.collections[0].get_offsets() / scene.image.width
    assert points.tolist() == [list(point) for point in scene.truth.joints.values()]
    assert {text.get_text() for text in marked.texts} == set(scene.truth.objects)
    assert {"walking the dog", *(f"\N{BULLET} {s}" for s in scene.truth.statements)} == {
        text.get_text() for text in figure.axes[2].texts
    }


def test_a_new_figure_is_in_the_house_style_without_changing_anybody_elses():
    import matplotlib

    before = matplotlib.rcParams.copy()
    axes = new_figure(2.5).subplots(1, 2)[1]
    axes.plot([0, 1], label="one")
    axes.set(title="accuracy")
    assert axes.get_title(loc="left") == "accuracy" and not axes.legend().get_frame_on()
    assert not axes.spines["top"].get_visible()
    assert matplotlib.rcParams == before


def test_a_figure_in_a_notebook_stays_small_after_pyplot_was_imported(tmp_path):
    """pyplot registers a PNG of full colour for every Figure in IPython; ours comes first."""
    code = """
from matplotlib_inline.backend_inline import configure_inline_support
configure_inline_support(get_ipython(), "module://matplotlib_inline.backend_inline")
get_ipython().display_formatter.formatters["image/png"].enabled = True  # as in a notebook
from favor_lab import new_figure
axes = new_figure(2).subplots()
axes.imshow([[0.0, 1.0], [2.0, 3.0]], interpolation="bicubic")
data, _ = get_ipython().display_formatter.format(axes.figure)
import base64, io
from PIL import Image
png = data["image/png"]
print("MODE", Image.open(io.BytesIO(png if isinstance(png, bytes) else base64.b64decode(png))).mode)
"""
    command = [sys.executable, "-m", "IPython", "--quick", "--no-banner", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "IPYTHONDIR": str(tmp_path)})
    assert "MODE P" in result.stdout, result.stdout + result.stderr
