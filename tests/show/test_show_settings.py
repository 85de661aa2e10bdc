"""A person's own matplotlib settings change and break no picture of the library, and stay as they are."""

import os
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image

import favor_lab.show
import forks
from favor_lab.activities.world.scenes import draw_scene
from favor_lab.budget.shapes import shape_of
from favor_lab.cli import main
from favor_lab.grpo.support.records import StepRecord
from favor_lab.show.anatomy import plot_anatomy, plot_shared_prompt
from favor_lab.show.answers import plot_responses
from favor_lab.show.charts import plot_changes, plot_moves, plot_shots, plot_transfer
from favor_lab.show.curves import plot_coverage, plot_curves, plot_records, record_curves
from favor_lab.show.evaluations import plot_before_after, plot_confusion, plot_examples
from favor_lab.show.explanations import plot_explanation, plot_truth
from favor_lab.show.groups import plot_group, plot_samples
from favor_lab.show.intervals import plot_changed_sides, plot_interval
from favor_lab.show.loop import plot_loop
from favor_lab.show.methods import plot_methods_map
from favor_lab.show.profile import plot_profile
from favor_lab.show.rows import plot_rows
from favor_lab.show.style import house_style, new_figure, render
from favor_lab.show.tokens import plot_tokens
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.explanations import explain
from favor_lab.study.measures import Measured
from favor_lab.study.tokens import Token
from favor_lab.versions import need
from pictures import png
from tiny import LABELS, make_examples

# what people have in their matplotlibrc: LaTeX for a thesis, a dark style, fonts and sizes of a journal
PAPER = """
text.usetex: True
font.family: serif
font.serif: A Font That Is Not There
axes.unicode_minus: False
axes.formatter.use_mathtext: True
axes.formatter.use_locale: True
pdf.fonttype: 42
"""
DARK = """
axes.facecolor: black
axes.grid: True
axes.prop_cycle: cycler('color', ['w'])
axes.autolimit_mode: round_numbers
axes.xmargin: 0.4
figure.autolayout: True
figure.subplot.left: 0.4
font.style: italic
hatch.linewidth: 9
image.cmap: gray
image.origin: lower
image.interpolation: bicubic
legend.loc: upper right
lines.linewidth: 7
lines.marker: x
lines.solid_capstyle: butt
patch.force_edgecolor: True
patch.linewidth: 5
path.sketch: 5, 100, 2
savefig.bbox: tight
savefig.dpi: 33
savefig.format: svg
savefig.transparent: True
timezone: Pacific/Chatham
xtick.direction: in
xtick.minor.visible: True
ytick.right: True
"""


def records(count=6):
    labels = {"reading": {"completions": 4, "right": 2, "right_so_far": 2}}
    numbers = {"reward": 1.5, "rewards": {"accuracy_reward": 0.5}, "kl": 0.001, "entropy": 1.0, "labels": labels}
    return [StepRecord(step=step, loss=-0.1 * step, **numbers) for step in range(1, count + 1)]


def evaluation():
    answers = [
        Answered(f"cartoon/test/{i:05d}", "reading", answer, answer == "reading", True, 3, 2, "text")
        for i, answer in enumerate(["reading", "phoning", None])
    ]
    return Evaluation("pocket", "think", ["reading", "phoning"], answers, 1.0)


PHASES = {name: {"seconds": 0.2, "bound": 0.1} for name in ("sample", "update")}
IMAGE = Image.fromarray(np.arange(28 * 28 * 3, dtype=np.uint8).reshape(28, 28, 3))
SAMPLES = [
    {"text": f"<answer>{i}</answer>", "label": "1", "rewards": {"accuracy_reward": i}, "advantage": 2.0 * i - 1}
    for i in (0, 1)
]
SHARES = {"right": Measured(0.4, 0.3, 0.5)}
PICTURES = {
    plot_shots: lambda _: plot_shots({"cartoon": {"grpo": {1: SHARES["right"], 4: Measured(0.6, 0.5, 0.7)}}}),
    plot_transfer: lambda _: plot_transfer({"grpo": {("a", "b"): 0.5, ("a", "a"): 1.0}}, ["a", "b"]),
    plot_moves: lambda _: plot_moves({"all": {"grpo": {"right": (SHARES["right"],) * 2}}}, {"right": "right"}),
    plot_changes: lambda _: plot_changes({"no-kl": SHARES}, {"right": "right"}, "changes"),
    plot_records: lambda _: plot_records(records()),
    plot_coverage: lambda _: plot_coverage(records()),
    plot_curves: lambda _: plot_curves(record_curves([r.to_dict() for r in records()]), range(1, 7), "curves"),
    plot_confusion: lambda _: plot_confusion(evaluation()),
    plot_before_after: lambda _: plot_before_after({"before": evaluation(), "after": evaluation()}),
    plot_examples: lambda _: plot_examples([draw_scene("cartoon", "test", 0)] * 2, title="images"),
    plot_explanation: lambda policy: plot_explanation(explain(policy, make_examples()[0], LABELS, response="x")),
    plot_truth: lambda _: plot_truth(draw_scene("cartoon", "test", 0)),
    plot_rows: lambda _: plot_rows([["a", "b"], ["c"]], [[1.3, 0.9], [0.5, 1.0]], [1.0, -1.0], clip=0.2),
    plot_interval: lambda _: plot_interval(7, 10),
    plot_changed_sides: lambda _: plot_changed_sides([True, False], [True, True]),
    plot_responses: lambda _: plot_responses(IMAGE, "1", {"before": "<answer>1</answer>", "after": "x"}, "answer"),
    plot_methods_map: lambda _: plot_methods_map(),
    plot_anatomy: lambda policy: plot_anatomy(IMAGE, shape_of(policy), (2, 2), (5, 9)),
    plot_shared_prompt: lambda policy: plot_shared_prompt(shape_of(policy), (5, 9), 4, [["a", "end"], ["end"]]),
    plot_group: lambda _: plot_group(IMAGE, "1", ["a", "b"], {"accuracy_reward": [0, 1]}, [-1.0, 1.0]),
    plot_samples: lambda _: plot_samples(IMAGE, SAMPLES),
    plot_loop: lambda _: plot_loop(),
    plot_profile: lambda _: plot_profile(SimpleNamespace(to_dict=lambda: {"phases": PHASES}), "profile"),
    plot_tokens: lambda _: plot_tokens([Token("a", -0.5, 1.2, 0.1, 0.2, 0.3, True, False)], title="tokens"),
}


def test_every_function_that_draws_is_here():
    folder = Path(favor_lab.show.__file__).parent
    modules = [import_module(f"favor_lab.show.{path.stem}") for path in folder.glob("[!_]*.py")]
    assert {vars(m)[name] for m in modules for name in vars(m) if name.startswith("plot_")} == {*PICTURES}


@pytest.fixture
def my_settings(tmp_path):
    """Puts settings into effect as matplotlib does with those of a matplotlibrc."""

    def put(text):
        file = tmp_path / "matplotlibrc"
        file.write_text(text, encoding="utf-8")
        return matplotlib.rc_context(fname=file)

    return put


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_pictures_are_the_same_under_anybodys_settings(draw, my_settings, tiny_policy):
    with matplotlib.rc_context(matplotlib.rcParamsDefault.copy() | {"backend": "agg"}):
        expected = png(PICTURES[draw](tiny_policy)).tobytes()
    for settings in (PAPER, DARK):
        with my_settings(settings):
            before = matplotlib.rcParams.copy()
            assert png(PICTURES[draw](tiny_policy)).tobytes() == expected
            assert matplotlib.rcParams == before


def test_what_a_notebook_draws_on_a_new_figure_is_in_the_house_style_too(my_settings):
    def drawn():
        figure = new_figure(2.5)
        left, right = figure.subplots(1, 2)
        left.plot([-1, 1], label="one")
        left.scatter([0], [0])
        left.set(title="a title", xlabel="x", xticks=[0, 0.5, 1])
        left.legend()
        left.grid(axis="y")
        right.bar(["a", "b"], [1, 2])
        right.text(0, 1, "$5 & 3%")
        right.annotate("here", (0, 1), xytext=(0.5, 1.5), arrowprops={"arrowstyle": "->"})
        right.set_xticks([0, 1], ["a_1", "b_2"])
        figure.colorbar(right.imshow([[0.0, 1.0]], extent=(0, 1, 0, 1)))
        figure.suptitle("all")
        figure.text(0.5, 0.5, "50 %")
        return png(figure).tobytes(), render(figure).tobytes()

    expected = drawn()
    for settings in (PAPER, DARK):
        with my_settings(settings):
            assert drawn() == expected


def test_settings_that_draw_nothing_stay_a_persons_own(my_settings):
    with my_settings(PAPER), house_style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42 and not matplotlib.rcParams["text.usetex"]


def test_the_style_is_put_into_effect_once_for_a_picture(monkeypatch):
    """It takes a millisecond or two, and a picture has hundreds of texts."""
    contexts, rc_context = [], matplotlib.rc_context
    monkeypatch.setattr(matplotlib, "rc_context", lambda settings: contexts.append(1) or rc_context(settings))
    with house_style():
        for _ in range(3):
            with house_style():
                assert contexts == [1]


DRAW = """
import sys
from favor_lab import plot_loop
assert "matplotlib" not in sys.modules
plot_loop().savefig("loop.png")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["", "module://a_backend_that_is_not_there", "TkAgg", "pgf"])
def test_a_picture_needs_no_backend_and_no_latex(backend, tmp_path):
    (tmp_path / "matplotlibrc").write_text(PAPER, encoding="utf-8")
    environment = {**os.environ, "PATH": "", "MPLBACKEND": backend}
    drawn = forks.run(forks.run_code, DRAW, cwd=tmp_path, environment=environment)
    assert drawn.status == 0, drawn.errors
    with Image.open(tmp_path / "loop.png") as image:
        assert image.width == 1080


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, backend", [(b"", "nosuch"), (b"figure.dpi: 100  # caf\xe9\n", "")], ids=["backend", "encoding"]
)
def test_settings_that_matplotlib_refuses_are_told_before_a_run(settings, backend, tmp_path):
    """Not after its training, where figures are drawn."""
    (tmp_path / "matplotlibrc").write_bytes(settings)
    environment = {**os.environ, "MPLBACKEND": backend}
    done = forks.run(main, ["demo", "--steps", "1", "--out", "run"], cwd=tmp_path, environment=environment)
    last = done.errors.splitlines()[-1]
    assert done.status == 2 and last.startswith("favor-lab: error: the figures of a run need matplotlib, which is")
    assert not (tmp_path / "run").exists()


def test_a_broken_package_is_named_with_its_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_tracker.py").write_text("raise RuntimeError('needs\\nlibcuda.so')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    wanted = r"--tracker x needs broken_tracker, .* cannot be imported \(RuntimeError: needs libcuda.so\)"
    with pytest.raises(ImportError, match=wanted):
        need("broken_tracker", "--tracker x")
    with pytest.raises(ImportError, match=r"pip install 'favor-lab\[lab\]'"):
        need("a_package_that_is_not_there", "the figures")
