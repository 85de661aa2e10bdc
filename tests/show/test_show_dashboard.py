"""The dashboard without a browser: what passes through it, what it holds and ends, what it shows, what that costs."""

import base64
import io
import json
import os
import signal
import threading
import time
from html.parser import HTMLParser

import nbformat
import pytest
import torch
from PIL import Image

from favor_lab.activities.fewshot import Example, FewShot
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.training import train
from favor_lab.show import dashboard as module
from favor_lab.show import frontend
from favor_lab.show.curves import record_curves
from favor_lab.show.dashboard import Dashboard, first_group, step_numbers
from favor_lab.show.frontend import VARIABLE, VIEW, answer_while_running, can_show_widgets
from favor_lab.show.markup import completion_html, curve_svg, group_html
from favor_lab.study.run_folder import RunFolder

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)><answer>"\'&</answer>\u202e'


def record(step, text="<think>on pedals</think><answer>riding a bike</answer>", **changes):
    samples = [
        {
            "source": f"cartoon/train/{step:06d}", "label": "riding a bike", "group": 0, "text": text,
            "reward": 2.0 - g,
            "rewards": {"accuracy_reward": 1.0 - g, "format_reward": 1.0}, "advantage": 0.7 - 1.4 * g,
            "origin": "sampled", "truncated": False,
        }
        for g in range(2)
    ]  # fmt: skip
    values = {
        "reward": 1 + step / 100, "rewards": {"accuracy_reward": step / 100, "format_reward": 1.0}, "kl": step / 1000,
        "seconds": {"sample": 0.1, "loss": 0.2}, "samples": samples,
    }  # fmt: skip
    return StepRecord(step=step, **values | changes)


def endless(records):
    """A run that would go on for ever; it appends what it makes, and says when it was closed."""
    try:
        while True:
            records.append(record(len(records) + 1))
            yield records[-1]
    finally:
        records.append("closed")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Tags(HTMLParser):
    """The elements of some markup, with their attributes, and its text."""

    def __init__(self, markup):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def wait_until(true):
    """For another thread: no deadline but the test run's own."""
    while not true():
        threading.Event().wait(0.01)


# ---------------------------------------------------------------------------------------------------- what passes


@pytest.mark.parametrize("interactive", [False, True])
def test_records_pass_through_unchanged_and_are_kept(interactive):
    records = [record(step) for step in (1, 2, 3)]
    dashboard = Dashboard(total=3, interactive=interactive)
    passed = list(dashboard.watch(iter(records)))
    assert all(a is b for a, b in zip(passed, records, strict=True)) and dashboard.records == records
    assert dashboard.status == "step 3 of 3" and not dashboard.running


def test_another_run_takes_the_place_of_the_one_before():
    dashboard = Dashboard([record(1), record(2)], interactive=False)
    list(dashboard.watch([record(3)]))  # goes on where the other ended
    assert len(dashboard.records) == 3
    list(dashboard.watch([record(1), record(2)]))
    assert [item.step for item in dashboard.records] == [1, 2]


def test_stop_ends_a_run_that_would_go_on_for_ever():
    produced = []
    dashboard = Dashboard(interactive=True)
    dashboard.widget()
    passed = []
    for item in dashboard.watch(endless(produced)):
        passed.append(item)
        if item.step == 5:
            dashboard._view.stop.click()
    assert produced[-1] == "closed" and passed == produced[:-1] == dashboard.records and len(passed) == 5
    assert dashboard.state == "stopped" and dashboard._view.stop.disabled and dashboard._view.hold.disabled
    assert "stopped after step 5; the records so far are kept" in dashboard._view.status.value


def test_a_dashboard_can_watch_again_after_it_was_stopped():
    dashboard = Dashboard(interactive=False)
    for _ in dashboard.watch([record(1), record(2)]):
        dashboard.stop()
    assert [item.step for item in dashboard.watch([record(2), record(3)])] == [2, 3]
    assert dashboard.state == "finished" and len(dashboard.records) == 3


def test_pause_holds_between_steps_and_resume_goes_on():
    made = []
    dashboard = Dashboard(interactive=True)
    dashboard.widget()
    worker = threading.Thread(target=lambda: list(dashboard.watch(endless(made))), daemon=True)
    worker.start()
    wait_until(lambda: len(made) >= 3)
    dashboard._view.hold.click()
    wait_until(lambda: dashboard.state == "paused")
    held = len(made)
    assert dashboard._view.hold.description == "Resume" and f"step {held}, paused" in dashboard._view.status.value
    dashboard._view.slider.value = 1  # looking back while the run is held
    assert dashboard.step == 1 and dashboard.state == "paused" and len(made) == held
    dashboard._view.hold.click()
    wait_until(lambda: len(made) > held)
    assert dashboard._view.hold.description == "Pause" and dashboard.step == 1, "a slider that was moved stays"
    dashboard._view.stop.click()
    worker.join(timeout=60)
    assert not worker.is_alive() and made[-1] == "closed" and dashboard.records == made[:-1]


def test_a_run_that_is_held_can_be_stopped():
    made = []
    dashboard = Dashboard(interactive=False)
    worker = threading.Thread(target=lambda: list(dashboard.watch(endless(made))), daemon=True)
    worker.start()
    wait_until(lambda: made)
    dashboard.pause()
    wait_until(lambda: dashboard.state == "paused")
    dashboard.stop()
    worker.join(timeout=60)
    assert not worker.is_alive() and dashboard.state == "stopped"


@pytest.mark.usefixtures("ctrl_c_raises")
def test_an_interrupt_ends_the_run_like_stop(capsys):
    def run():
        yield record(1)
        signal.raise_signal(signal.SIGINT)
        yield record(2)

    dashboard = Dashboard(total=9, interactive=False)
    assert [item.step for item in dashboard.watch(run())] == [1]
    assert capsys.readouterr().out == "interrupted after step 1 of 9; the records so far are kept\n"


@pytest.mark.usefixtures("ctrl_c_raises")
def test_an_interrupt_while_a_record_is_shown_loses_nothing(monkeypatch):
    dashboard, made = Dashboard(interactive=True), []
    dashboard.widget()
    draw, interrupts = dashboard._view.draw, [signal.SIGINT]
    once = lambda: interrupts and signal.raise_signal(interrupts.pop())  # noqa: E731
    monkeypatch.setattr(dashboard._view, "draw", lambda: (draw(), once()))
    assert list(dashboard.watch(endless(made))) == made[:-1] == dashboard.records and len(made) == 2
    assert dashboard.state == "interrupted"


@pytest.mark.usefixtures("ctrl_c_raises")
def test_an_interrupt_ends_a_run_that_is_held():
    made, dashboard = [], Dashboard(interactive=False)

    def interrupt():
        wait_until(lambda: dashboard.state == "paused")
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    for _ in dashboard.watch(endless(made)):
        dashboard.pause()
    helper.join()
    assert dashboard.state == "interrupted" and made[1:] == ["closed"]


def test_an_interrupt_that_the_process_ignores_is_ignored(ctrl_c_raises):
    def run():
        signal.raise_signal(signal.SIGINT)
        yield record(1)
        yield record(2)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dashboard = Dashboard(interactive=True)
    dashboard.widget()
    dashboard._redraw_if_due = lambda: signal.raise_signal(signal.SIGINT)
    assert [item.step for item in dashboard.watch(run())] == [1, 2] and dashboard.state == "finished"


def test_an_error_of_the_run_passes_through_after_it_was_noted():
    def run():
        yield record(1)
        raise FloatingPointError("step 2, phase loss: the loss is nan")

    dashboard = Dashboard(interactive=True)
    with pytest.raises(FloatingPointError, match="phase loss"):
        list(dashboard.watch(run()))
    assert len(dashboard.records) == 1 and dashboard.status.startswith("ended by FloatingPointError after step 1")


def test_leaving_the_loop_closes_the_run():
    made, dashboard = [], Dashboard(interactive=False)
    for _ in dashboard.watch(endless(made)):
        break
    assert made[1:] == ["closed"] and dashboard.status == "the loop was left after step 1; the records so far are kept"


def test_a_run_that_was_stopped_leaves_a_policy_to_go_on_with(tiny_policy, tiny_examples):
    shots = FewShot(tiny_examples, [], tiny_examples, [example.label for example in tiny_examples])
    settings = GRPOSettings(steps=50, prompts_per_step=2, group_size=2, max_new_tokens=4)
    dashboard = Dashboard(shots=shots, total=50, interactive=True)
    weights = {name: weight.clone() for name, weight in tiny_policy.trainable_parameters()}
    for item in dashboard.watch(train(tiny_policy, shots, settings, rewards={"length": lengths})):
        if item.step == 2:
            dashboard.stop()
    assert [item.step for item in dashboard.records] == [1, 2] and dashboard.step == 2
    assert any(not torch.equal(weight, weights[name]) for name, weight in tiny_policy.trainable_parameters())
    assert [item.step for item in train(tiny_policy, shots, GRPOSettings(steps=1, group_size=2, max_new_tokens=4))] == [
        1
    ]


def lengths(completions, **columns):
    return [float(len(text)) for text in completions]


# --------------------------------------------------------------------------------------------------- what is shown


def test_the_newest_step_is_followed_until_the_slider_is_moved():
    dashboard = Dashboard(total=9, interactive=True)
    dashboard.widget()
    slider = dashboard._view.slider
    steps = []
    for item in dashboard.watch(record(step) for step in range(1, 9)):
        dashboard.redraw()
        steps.append((dashboard.step, slider.value))
        if item.step == 3:
            slider.value = 2
        if item.step == 6:
            slider.value = 6
    assert steps == [(1, 1), (2, 2), (3, 3), (2, 2), (2, 2), (2, 2), (7, 7), (8, 8)]


def test_the_slider_shows_a_past_step():
    dashboard = Dashboard([record(1), record(4), record(9)], interactive=True)
    dashboard.widget()
    dashboard._view.slider.value = 1
    assert "cartoon/train/000001" in dashboard._view.view.value
    dashboard._view.slider.value = 8  # no such step: the last one before
    assert dashboard.step == 4 and "cartoon/train/000004" in dashboard._view.view.value
    assert "cartoon/train/000001" not in dashboard._view.view.value


def test_a_saved_run_looks_like_the_run_did(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.save_settings({"settings": {"steps": 5}})
    live = Dashboard(total=5, interactive=True)
    live.widget()
    for item in live.watch(record(step) for step in range(1, 6)):
        folder.append(item)
    saved = Dashboard.open(tmp_path / "run", interactive=True)
    saved.widget()
    assert saved._view.view.value == live._view.view.value and saved.status == live.status == "step 5 of 5"
    with pytest.raises(FileNotFoundError, match=r"no settings\.json"):
        Dashboard.open(tmp_path)


@pytest.fixture
def growing(tmp_path) -> RunFolder:
    """The folder of a run that has just started."""
    folder = RunFolder.create(tmp_path / "run")
    folder.save_settings({"settings": {"steps": 6}})
    return folder


def write_slowly(folder, items):
    def write():
        for item in items:
            time.sleep(0.05)
            folder.append(item)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_run_of_another_process_is_followed_to_its_last_step(growing):
    writer = write_slowly(growing, [record(step) for step in range(1, 7)])
    dashboard = Dashboard.open(growing.path, follow=True, interactive=True)
    writer.join()
    assert [row["step"] for row in dashboard.records] == [1, 2, 3, 4, 5, 6]
    assert dashboard.records == growing.records() and dashboard.status == "step 6 of 6"
    assert Dashboard.open(growing.path, follow=True, interactive=False).status == "step 6 of 6"  # it is over: at once


def test_a_line_that_is_half_written_is_shown_once_it_is_whole(growing):
    growing.append(record(1))
    with (growing.path / "records.jsonl").open("a") as file:
        whole = json.dumps(record(2).to_dict()) + "\n"
        file.write(whole[:40])
        file.flush()
        followed = growing.follow(period=0.01)
        assert next(followed)["step"] == 1
        file.write(whole[40:])
        file.flush()
        assert next(followed) == record(2).to_dict()


def test_steps_that_a_resumed_run_repeats_are_given_once(growing):
    for step in (1, 2, 3):
        growing.append(record(step))
    followed = growing.follow(period=0.01)
    assert [next(followed)["step"] for _ in range(3)] == [1, 2, 3]
    growing.rewind(1)
    growing.save_settings({"settings": {"steps": 4}})
    writer = write_slowly(growing, [record(step) for step in (2, 3, 4)])
    assert [row["step"] for row in followed] == [4]
    writer.join()


def test_following_ends_with_stop_or_when_nothing_new_comes(growing, monkeypatch):
    growing.append(record(1))
    assert len(Dashboard.open(growing.path, follow=True, patience=0.2, interactive=False).records) == 1
    (growing.path / "records.jsonl").unlink()
    assert Dashboard.open(growing.path, follow=True, patience=0.2, interactive=False).records == []
    growing.append(record(1))
    keep, asked = Dashboard._keep, []

    def stop_at_the_first(self, item):
        keep(self, item)
        asked.append(self)
        self.stop()

    monkeypatch.setattr(Dashboard, "_keep", stop_at_the_first)
    stopped = Dashboard.open(growing.path, follow=True, interactive=False)
    assert asked == [stopped] and stopped.status == "stopped after step 1 of 6; the records so far are kept"


def test_stop_is_heard_while_no_step_arrives(growing, monkeypatch):
    timer = threading.Timer(0.3, lambda: dashboards[0].stop())
    dashboards, begin = [], Dashboard.watch

    def watch(self, run):
        dashboards.append(self)
        timer.start()
        return begin(self, run)

    monkeypatch.setattr(Dashboard, "watch", watch)
    assert Dashboard.open(growing.path, follow=True, interactive=False).records == []
    timer.join()


def test_a_completion_with_a_line_separator_hides_no_record(growing):
    """U+2028 and U+0085 end a line for `str.splitlines`, and stand unescaped in a string of JSON."""
    for step in (1, 2):
        growing.append(record(step, text="one\u2028two\x85three"))
    assert [row["step"] for row in growing.records()] == [1, 2]
    growing.rewind(2)
    assert growing.records()[1]["samples"][0]["text"] == "one\u2028two\x85three"


def test_the_image_is_found_by_its_source(tmp_path):
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    shots = FewShot([], [], [Example(Image.new("RGB", (7, 7), "green"), "reading", "mine/1")], ["reading"])
    dashboard = Dashboard(shots=shots, interactive=False)
    assert dashboard.image("mine/1").size == (7, 7)
    assert dashboard.image("cartoon/train/000004").size == (140, 140)
    assert dashboard.image(str(tmp_path / "a.png")).getpixel((0, 0)) == (255, 0, 0)
    assert dashboard.image("somewhere/else") is None


def test_only_the_first_group_of_a_record_is_shown():
    row = {"samples": [{"group": g, "text": t} for g, t in ((2, "a"), (2, "b"), (0, "c"))]}
    assert [sample["text"] for sample in first_group(row)] == ["a", "b"]
    assert first_group({"samples": []}) == first_group({}) == []


def test_numbers_that_a_record_lacks_are_left_out():
    numbers = step_numbers({"step": 2, "loss": 0.25, "rewards": {}, "kl": None, "seconds": {}})
    assert numbers == {"step": "2", "loss": "0.250"}


def test_supervised_records_show_their_loss():
    rows = [{"step": 1, "loss": 2.0, "rewards": {}}, {"step": 2, "loss": None, "rewards": {}}]
    assert [(curve.name, curve.values) for curve in record_curves(rows)] == [("loss", [2.0, None])]
    dashboard = Dashboard(rows, interactive=True)
    dashboard.widget()
    assert "keeps no completions" in dashboard._view.view.value and dashboard.picture().width == 1080


def test_curves_stay_small_and_inside_their_frame():
    rows = [{"step": step, "reward": (-1.0) ** step * step, "rewards": {}} for step in range(1, 20_001)]
    (curve,) = record_curves(rows)
    markup = curve_svg(curve, [row["step"] for row in rows], shown=10_000)
    points = [point.split(",") for tag, at in Tags(markup).found if tag == "polyline" for point in at["points"].split()]
    assert 300 < len(points) <= 600 and len(markup) < 12_000
    assert all(40 <= float(x) <= 234 and 24 <= float(y) <= 112 for x, y in points)


def test_one_value_and_none_at_all_can_be_drawn():
    assert "<circle" in curve_svg(record_curves([{"step": 1, "reward": 0.0}])[0], [1])
    assert record_curves([{"step": 1, "reward": None, "kl": None, "loss": None}]) == []


# ------------------------------------------------------------------------------------------------- a stranger's text


def test_what_a_policy_wrote_is_text_and_nothing_else():
    item = record(1, text=HOSTILE)
    for sample in item.samples:
        sample |= {"label": HOSTILE, "source": HOSTILE, "origin": HOSTILE, "rewards": {HOSTILE: 1.0}}
    item.rewards = {HOSTILE: 0.5}
    dashboard = Dashboard([item], title=HOSTILE, interactive=True)
    dashboard.widget()
    page = Tags(dashboard._view.view.value + dashboard._view.status.value)
    allowed = {
        "div", "span", "b", "i", "s", "br", "p", "table", "tr", "th", "td", "figure", "figcaption",
        "svg", "g", "line", "polyline", "circle", "text",
    }  # fmt: skip
    assert {tag for tag, _ in page.found} <= allowed
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on") or name == "src"]
    assert page.text.count('<script>alert("1")</script>') >= 2
    assert dashboard.picture().width == 1080


def test_parts_of_a_completion_are_told_apart():
    page = Tags(completion_html("hm<think>seen</think><answer>reading</answer>"))
    assert [attributes["class"] for _, attributes in page.found] == [
        "fl-outside", "fl-tag", "fl-think", "fl-tag", "fl-tag", "fl-answer", "fl-tag",
    ]  # fmt: skip
    assert "(nothing written)" in completion_html("")
    assert "[300 more characters]" in completion_html("a" * 1500) and "a" * 1201 not in completion_html("a" * 1500)


def test_a_group_is_ordered_by_advantage_and_says_when_it_is_flat():
    samples = record(1).samples[::-1]
    page = Tags(group_html(samples)).text
    assert page.index("+0.70") < page.index("\N{MINUS SIGN}0.70") and "No spread" not in page
    assert "No spread" in group_html([sample | {"advantage": 0.0} for sample in samples])
    odd = Tags(group_html([samples[0] | {"origin": "injected", "truncated": True}])).text
    assert "cut off, injected" in odd


# -------------------------------------------------------------------------------------------------- what it costs


def test_redraws_are_few_however_many_steps_there_are():
    clock = Clock()
    dashboard = Dashboard(interactive=True, clock=clock)
    dashboard.widget()
    redraws = []
    dashboard._view.draw = lambda: redraws.append(clock.now)
    for _ in dashboard.watch(record(step) for step in range(1, 1001)):
        clock.now += 0.01
    assert 30 <= len(redraws) <= 10.0 / module.PERIOD + 2, "ten seconds"
    assert redraws[0] == 100.0, "the first record is shown at once"


def test_slow_drawing_takes_a_fiftieth_of_the_time_at_most():
    clock = Clock()
    dashboard = Dashboard(interactive=True, clock=clock)
    dashboard.widget()
    redraws = []

    def draw():
        redraws.append(clock.now)
        clock.now += 0.5

    dashboard._view.draw = draw
    for _ in dashboard.watch(record(step) for step in range(1, 2001)):
        clock.now += 0.2
    assert len(redraws) * 0.5 <= 0.02 * (clock.now - 100) + 2 * 0.5, "and the first and the last one"
    assert len(redraws) > 10


def test_without_widgets_a_picture_is_drawn_rarely(monkeypatch):
    clock, put = Clock(), []
    dashboard = Dashboard(interactive=False, clock=clock)
    monkeypatch.setattr(dashboard._place, "put", lambda thing: put.append(len(thing.records)))
    for _ in dashboard.watch(record(step) for step in range(1, 101)):
        clock.now += 0.3
    assert len(put) <= 30 / module.PICTURE_PERIOD + 1 and put[-1] == 100
    assert dashboard._view is None, "no widget is made"


def test_following_the_newest_step_draws_once_a_redraw(monkeypatch):
    dashboard = Dashboard([record(1)], interactive=True)
    dashboard.widget()
    redraws, view = [], dashboard._view.view_of
    monkeypatch.setattr(dashboard._view, "view_of", lambda *parts: redraws.append(1) or view(*parts))
    for step in (2, 3, 4):
        dashboard._keep(record(step))
        dashboard.redraw()
    assert len(redraws) == 3, "a slider that the dashboard moves asks for nothing"


def test_an_image_is_encoded_once(monkeypatch):
    dashboard = Dashboard([record(1), record(2)], interactive=True)
    encodings = []
    image = dashboard.image
    monkeypatch.setattr(dashboard, "image", lambda source: encodings.append(source) or image(source))
    dashboard.widget()
    for _ in range(5):
        dashboard.redraw()
    assert encodings == ["cartoon/train/000002"]


# -------------------------------------------------------------------------------------------- widgets or a picture


def test_the_bundle_holds_a_widget_only_where_one_can_be_shown():
    records = [record(1), record(2)]
    still = Dashboard(records, interactive=False)._repr_mimebundle_()
    assert set(still) == {"text/plain", "image/png"} and still["text/plain"] == "Dashboard"
    picture = Image.open(io.BytesIO(base64.b64decode(still["image/png"])))
    assert picture.width == 1080 and picture.height > 400
    assert set(Dashboard(interactive=False)._repr_mimebundle_()) == {"text/plain"}
    shown = Dashboard(records, interactive=True)._repr_mimebundle_()
    assert set(shown) == {"text/plain", "image/png", VIEW} and shown[VIEW]["model_id"]


def test_who_decides_about_widgets(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    jupyterlab, nbconvert = {"metadata": {"cellId": "a1"}}, {"metadata": {}, "header": {"msg_type": "execute_request"}}
    for request, shows in ((jupyterlab, True), (nbconvert, False), ({}, False), ({"metadata": None}, False)):
        monkeypatch.setattr(frontend, "current_request", lambda request=request: request)
        assert can_show_widgets() is shows
        assert can_show_widgets(True) is True and can_show_widgets(False) is False
        monkeypatch.setenv(VARIABLE, "0")
        assert can_show_widgets() is False and can_show_widgets(True) is True
        monkeypatch.setenv(VARIABLE, "1")
        assert can_show_widgets() is True and can_show_widgets(False) is False
        monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ValueError, match="FAVOR_LAB_WIDGETS is 'yes'; valid: 0"):
        can_show_widgets()


def test_without_ipywidgets_there_is_a_picture(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(frontend, "find_spec", lambda name: None)
    monkeypatch.setattr(frontend, "current_request", lambda: {"metadata": {"cellId": "a1"}})
    assert Dashboard([record(1)]).interactive is False
    with pytest.raises(ImportError, match=r"favor-lab\[lab\]"):
        Dashboard([record(1)], interactive=True)


def test_controls_are_not_bound_to_the_thread_that_made_them():
    class Comm:
        def _reply_subshell_for(self, data, default):
            return None  # as ipykernel 7.4: the main thread, which is busy

    class Control:
        comm = Comm()

    class Older:
        comm = object()

    answer_while_running(Control, Older)
    assert Control.comm._reply_subshell_for is None and not hasattr(Older.comm, "_reply_subshell_for")


def test_the_text_beside_the_picture_is_the_same_at_every_step():
    """nbval compares the text that was stored last with the text that is displayed first."""
    dashboard = Dashboard(total=3, interactive=False)
    assert {repr(dashboard) for _ in dashboard.watch(map(record, (1, 2, 3)))} == {repr(dashboard)}


@pytest.mark.slow
@pytest.mark.parametrize("widgets", ["", "1"])
def test_a_notebook_that_nbconvert_runs_holds_no_widget_unless_it_is_asked_for(monkeypatch, tmp_path, widgets):
    """How the committed notebooks are made: a picture that is updated in place, and no widget state."""
    from nbclient import NotebookClient

    monkeypatch.setenv(VARIABLE, widgets)
    source = (
        "from favor_lab import Dashboard\n"
        "rows = [{'step': i, 'reward': 0.1 * i, 'rewards': {'accuracy_reward': 0.5}} for i in (1, 2, 3)]\n"
        "records = list(Dashboard(total=3).watch(rows))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert output["data"]["text/plain"] == "Dashboard of 3 steps" and "image/png" in output["data"]
    assert (VIEW in output["data"]) == ("widgets" in notebook.metadata) == bool(widgets)
