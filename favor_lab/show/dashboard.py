"""The dashboard of a running or saved run: numbers, curves, the group of each step, and a slider through past steps.

The dashboard consumes step records and yields them on; the training loop does not know it. It is redrawn a few times
per second at most, and redrawing takes at most a fiftieth of the time.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from favor_lab.grpo.support.interrupts import uninterrupted
from favor_lab.show.curves import plot_curves, record_curves, record_fields
from favor_lab.show.frontend import Place, Shown, answer_while_running, can_show_widgets, stack, styled_box
from favor_lab.show.groups import plot_samples
from favor_lab.show.markup import cards_html, curve_svg, element, group_html, image_html
from favor_lab.show.text import short_name
from favor_lab.study.run_folder import RunFolder

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import FewShot

Record = TypeVar("Record")

PERIOD = 0.25  # least seconds from one redraw of the widgets to the next
PICTURE_PERIOD = 10.0  # the same for a picture, which takes half a second
SHARE = 0.02  # share of the time that redrawing may take: after a slow redraw the next one comes later


class Dashboard(Shown):
    """A view of step records: widgets or, where the front end cannot show them, a picture.

    records: of a finished run (StepRecords, or dictionaries). A run in progress is passed to `watch`:

        dashboard = Dashboard(shots=shots, total=settings.steps)
        for record in dashboard.watch(train(policy, shots, settings)):
            ...

    shots: the images of the groups, looked up by their source; drawn scenes and image files are found without.
    total: steps of the whole run. interactive: see `favor_lab.show.frontend.can_show_widgets`.

    Pause holds the run between two steps. Stop, or an interrupt of the kernel, ends `watch` as if the run were
    finished: all records so far are in `records`, and the policy is in the state after the last of them.

    >>> dashboard = Dashboard([{"step": 1, "reward": 0.5}, {"step": 2, "reward": 1.5}], total=80, interactive=False)
    >>> dashboard, dashboard.status, dashboard.step
    (Dashboard of 80 steps, 'step 2 of 80', 2)
    """

    def __init__(
        self,
        records: Iterable[Any] = (),
        shots: FewShot | None = None,
        total: int | None = None,
        *,
        title: str = "",
        interactive: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.shots, self.total, self.title = shots, total, title
        self.interactive = can_show_widgets(interactive)
        self.records: list[Any] = []
        self.state = ""  # of the run that is watched; empty before and without one
        self.following = True  # the newest step is shown, until the slider is moved
        self._at = 0  # otherwise, where the slider stands
        self._rows: list[dict[str, Any]] = []  # the records as dictionaries
        self._place = Place()
        self._lock = threading.RLock()  # a slider that is moved during a run draws from another thread
        self._going, self._stopping = threading.Event(), False
        self._clock, self._drawn_at, self._cost = clock, -math.inf, 0.0
        for record in records:
            self._keep(record)

    @classmethod
    def open(
        cls,
        path: str | Path,
        shots: FewShot | None = None,
        *,
        follow: bool = False,
        patience: float = 600.0,
        **options: Any,
    ) -> Dashboard:
        """The dashboard of a saved run, from its folder. FileNotFoundError unless it is a run folder.

        follow: watch a run that another process is writing, such as one of the command line, up to its last step; Stop
        ends the watching, not the run. patience: seconds without anything new after which the run counts as over.

            dashboard = Dashboard.open("runs/train-folder", follow=True)
        """
        folder = RunFolder.open(path)
        options = {"total": folder.steps, "title": str(path)} | options
        if not follow:
            return cls(folder.records(), shots, **options)
        dashboard = cls((), shots, **options)
        for _ in dashboard.watch(folder.follow(patience, stopped=lambda: dashboard._stopping)):
            pass
        return dashboard

    # ------------------------------------------------------------------------------------------------------- a run

    def watch(self, run: Iterable[Record]) -> Iterator[Record]:
        """Show the records of a run as they arrive, and yield them on. In a notebook the dashboard displays itself.

        An error of the run is raised again, after the dashboard has shown it.
        """
        records, outcome = iter(run), "left"
        self._stopping, self._drawn_at = False, self._clock()
        self.resume()
        if self.interactive:
            self._place.put(self)
        try:
            while self._may_go_on():
                try:
                    record = next(records)
                except StopIteration:
                    outcome = "finished"
                    return
                with uninterrupted() as raise_delayed:  # a record that has arrived is handed on, whatever happens
                    self._keep(record)
                    self._redraw_if_due()
                yield record
                raise_delayed()
            outcome = "stopped"
        except KeyboardInterrupt:
            outcome = "interrupted"
        except Exception as error:
            outcome = f"ended by {type(error).__name__}"
            raise
        finally:
            if hasattr(records, "close"):
                records.close()
            self._end(outcome)

    def pause(self) -> None:
        """Hold the run before its next step."""
        self._say("pausing")
        self._going.clear()

    def resume(self) -> None:
        """Continue a run that is held."""
        self._say("running")
        self._going.set()

    def stop(self) -> None:
        """End the run before its next step."""
        self._say("stopping")
        self._stopping = True
        self._going.set()

    @property
    def running(self) -> bool:
        """Whether `watch` is active, held or not."""
        return self.state in ("running", "pausing", "paused", "stopping")

    def _may_go_on(self) -> bool:
        """Wait while the run is held; False as soon as it is to stop."""
        if not self._going.is_set():
            self.redraw()
            self._say("paused")
            while not self._going.wait(timeout=0.2):  # a limit, so that an interrupt is noticed on every system
                pass
            self._say("running")
        return not self._stopping

    def _end(self, outcome: str) -> None:
        self._say(outcome)
        if self._view:
            self.redraw()
        if self._rows:
            self._place.put(self)  # once more, so that the saved notebook holds the last picture
        if outcome == "interrupted" and not self.interactive:
            print(self.status)

    def _keep(self, record: Any) -> None:
        row = record_fields(record)
        with self._lock:
            if self._rows and row["step"] <= self._rows[-1]["step"]:  # another run starts
                self.records.clear()
                self._rows.clear()
            self.records.append(record)
            self._rows.append(row)

    def _say(self, state: str) -> None:
        self.state = state
        if self._view:
            self._view.tell()

    # ----------------------------------------------------------------------------------------------- what is shown

    @property
    def step(self) -> int | None:
        """The step that is shown; None before the first."""
        return self._rows[self._shown()]["step"] if self._rows else None

    @property
    def status(self) -> str:
        """The step that the run has reached and its state, in words."""
        progress = f"step {self._rows[-1]['step']}" if self._rows else "no step yet"
        progress += f" of {self.total}" if self.total else ""
        if self.running or self.state in ("", "finished"):
            return f"{progress}, {self.state}" if self.running else progress
        how = "the loop was left" if self.state == "left" else self.state
        return f"{how} after {progress}; the records so far are kept"

    def show(self, step: int) -> None:
        """Show a past step; with the newest step (or a later one), follow the run from now on."""
        with self._lock:
            self._at, self.following = step, not self._rows or step >= self._rows[-1]["step"]
            if self._view:
                self._view.draw()

    def _shown(self) -> int:
        """Index of the record that is shown: the newest, or the last one up to where the slider stands."""
        if self.following:
            return len(self._rows) - 1
        return max(bisect_right(self._rows, self._at, key=lambda row: row["step"]) - 1, 0)

    def redraw(self) -> None:
        """Update what is displayed, and measure how long it takes."""
        start = self._clock()
        if self._view:
            with self._lock:
                self._view.draw()
        elif self._rows and not self.interactive:
            self._place.put(self)
        self._drawn_at = self._clock()
        self._cost = self._drawn_at - start

    def _redraw_if_due(self) -> None:
        """Redraw the widgets for the first record, then only as often as PERIOD and SHARE allow."""
        period = PERIOD if self.interactive else PICTURE_PERIOD
        first = self.interactive and len(self._rows) == 1
        if first or self._clock() - self._drawn_at >= max(period, self._cost / SHARE):
            self.redraw()

    def _new_view(self) -> _DashboardView:
        return _DashboardView(self)

    def picture(self) -> Image.Image | None:
        """The curves, and the group of the step that is shown; None before the first record."""
        if not self._rows:
            return None
        row = self._rows[self._shown()]
        title = ": ".join(filter(None, [self.title, self.status]))
        figures = [plot_curves(record_curves(self._rows), [row["step"] for row in self._rows], title)]
        if group := first_group(row):
            source = group[0]["source"]
            image = self.image(source) or Image.new("RGB", (8, 8), "#eef1f4")
            figures.append(plot_samples(image, group, f"step {row['step']}: {source}"))
        return stack(*figures)

    def image(self, source: str) -> Image.Image | None:
        """The image that a source names, among the shots, in the drawn world or as a file; None if there is none."""
        from favor_lab.activities.images import open_image
        from favor_lab.activities.world import is_pocket_source, scene_from_source

        shots = self.shots
        for example in (*shots.train, *shots.validation, *shots.test) if shots else ():
            if example.source == source:
                return example.image
        if is_pocket_source(source):
            return scene_from_source(source).image
        try:
            return open_image(source) if Path(source).is_file() else None
        except (OSError, ValueError):  # moved, damaged, or no name that a file can have
            return None

    def __repr__(self) -> str:
        """The same at every step, because a saved notebook stores it beside the picture and is compared strictly."""
        return f"Dashboard of {self.total} steps" if self.total else "Dashboard"


def first_group(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The completions of the first group of a record, as far as the record keeps them.

    >>> first_group({"samples": [{"group": 3, "text": "a"}, {"group": 3, "text": "b"}, {"group": 4, "text": "c"}]})
    [{'group': 3, 'text': 'a'}, {'group': 3, 'text': 'b'}]
    """
    samples = row.get("samples") or []
    return [sample for sample in samples if sample["group"] == samples[0]["group"]]


def step_numbers(row: Mapping[str, Any], total: int | None = None) -> dict[str, str]:
    """The most informative numbers of a record, as text by name; missing ones are left out.

    >>> step_numbers({"step": 3, "reward": 1.25, "rewards": {"accuracy_reward": 0.5}, "kl": 0.0123}, total=80)
    {'step': '3 of 80', 'reward': '1.25', 'accuracy': '0.50', 'KL, nats per token': '0.012'}
    """
    numbers: list[tuple[str, Any, str]] = [("reward", row.get("reward"), ".2f")]
    numbers += [(short_name(name), value, ".2f") for name, value in (row.get("rewards") or {}).items()]
    numbers += [
        ("KL, nats per token", row.get("kl"), ".3f"),
        ("entropy, nats per token", row.get("entropy"), ".3f"),
        ("flat groups", row.get("flat_groups"), ".0%"),
        ("tokens per completion", row.get("length_mean"), ".1f"),
        ("cut off", row.get("truncated") or None, ".0%"),
        ("tokens clipped", row.get("clip_share") or None, ".1%"),
        ("loss", None if row.get("rewards") else row.get("loss"), ".3f"),
        ("seconds", sum((row.get("seconds") or {}).values()) or None, ".2f"),
    ]
    step = f"{row['step']} of {total}" if total else str(row["step"])
    return {"step": step} | {name: format(value, form) for name, value, form in numbers if value is not None}


NOTE = "If the buttons do nothing while a cell runs, interrupt the kernel: it stops the run just the same."


class _DashboardView:
    """The widgets of a dashboard. `draw` and `tell` update them; using them calls the dashboard's methods."""

    def __init__(self, dashboard: Dashboard):
        import ipywidgets

        self.dashboard = dashboard
        self.drawing = False  # whether the dashboard itself is moving the slider, not a person
        self.pictures: dict[str, str] = {}
        self.hold = ipywidgets.Button(description="Pause", icon="pause", layout={"width": "96px"})
        self.stop = ipywidgets.Button(description="Stop", icon="stop", layout={"width": "96px"}, tooltip=NOTE)
        wide = {"flex": "1 1 auto"}
        self.slider = ipywidgets.IntSlider(description="step", min=1, max=dashboard.total or 2, value=1, layout=wide)
        self.status, self.view = ipywidgets.HTML(), ipywidgets.HTML()
        self.hold.on_click(self._on_hold)
        self.stop.on_click(lambda _: dashboard.stop())
        self.slider.observe(self._on_move, "value")
        bar = ipywidgets.HBox([self.hold, self.stop, self.slider], layout={"align_items": "center"})
        self.box = styled_box("fl-dashboard", bar, self.status, self.view)
        answer_while_running(self.hold, self.stop, self.slider)
        self.draw()

    def _on_hold(self, _: Any) -> None:
        paused = self.dashboard.state in ("pausing", "paused")
        (self.dashboard.resume if paused else self.dashboard.pause)()

    def _on_move(self, change: Any) -> None:
        if not self.drawing:
            self.dashboard.show(change["new"])

    def tell(self) -> None:
        """Update buttons and status."""
        running, paused = self.dashboard.running, self.dashboard.state in ("pausing", "paused")
        self.hold.description, self.hold.icon = ("Resume", "play") if paused else ("Pause", "pause")
        self.hold.disabled = self.stop.disabled = not running or self.dashboard.state == "stopping"
        status = element("b", self.dashboard.status, class_="fl-status")
        note = element("span", NOTE if running else "", class_="fl-note")
        self.status.value = element("div", status, note, class_="fl-line")

    def draw(self) -> None:
        """Update the view to the step that the dashboard shows."""
        self.tell()
        rows, total = self.dashboard._rows, self.dashboard.total
        self.slider.disabled = len(rows) < 2
        if not rows:
            self.view.value = element("div", "The first step is on its way.", class_="fl-paper fl-note")
            return
        at, newest = rows[self.dashboard._shown()], rows[-1]["step"]
        self.drawing = True
        try:
            self.slider.max = max(total or 0, newest, 2)
            self.slider.value = at["step"]
        finally:
            self.drawing = False
        self.view.value = self.view_of(rows, at, total)

    def view_of(self, rows: Sequence[Mapping[str, Any]], at: Mapping[str, Any], total: int | None) -> str:
        """The page: numbers, curves, one group."""
        steps, group = [row["step"] for row in rows], first_group(at)
        curves = [curve_svg(curve, steps, at["step"]) for curve in record_curves(rows)]
        shown_group = group_html(group, self.picture(group[0]["source"]) if group else "")
        parts = cards_html(step_numbers(at, total)), element("div", *curves, class_="fl-curves"), shown_group
        return element("div", *parts, class_="fl-paper")

    def picture(self, source: str) -> str:
        """The image of a source as an <img> element; cached."""
        if source not in self.pictures:
            image = self.dashboard.image(source)
            self.pictures[source] = "" if image is None else image_html(image, source)
        return self.pictures[source]
