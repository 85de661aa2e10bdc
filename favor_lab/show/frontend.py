"""Widgets where a front end can show them, a picture everywhere else.

A notebook that is executed by nbconvert or nbval, shown on GitHub or read without ipywidgets must contain a picture and
no widget, which would not work there. `can_show_widgets` decides; `interactive` and FAVOR_LAB_WIDGETS override it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from PIL import Image

from favor_lab.show.markup import CSS
from favor_lab.show.style import ipython_shell, render, small_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLE = "FAVOR_LAB_WIDGETS"  # 1: widgets, 0: pictures, unset: what the front end can show
VIEW = "application/vnd.jupyter.widget-view+json"


def can_show_widgets(interactive: bool | None = None) -> bool:
    """Whether to show widgets: `interactive` if it is not None, else FAVOR_LAB_WIDGETS (0 or 1), else detected.

    Detected means that ipywidgets is installed and the front end names the cell that it runs: JupyterLab and Notebook
    do; nbconvert, nbval and a console do not. Raises ImportError if widgets are requested and ipywidgets is missing,
    ValueError for another value of FAVOR_LAB_WIDGETS.

    >>> can_show_widgets(False), can_show_widgets()  # a doctest is not a notebook
    (False, False)
    """
    setting = os.environ.get(VARIABLE, "")
    if interactive is None and setting:
        if setting not in ("0", "1"):
            raise ValueError(f"{VARIABLE} is {setting!r}; valid: 0 (pictures), 1 (widgets), or unset")
        interactive = setting == "1"
    installed = find_spec("ipywidgets") is not None
    if interactive and not installed:
        raise ImportError('widgets need ipywidgets: pip install "favor-lab[lab]"')
    if interactive is None:
        return installed and bool((current_request().get("metadata") or {}).get("cellId"))
    return interactive


def current_kernel() -> Any:
    """The kernel that this code runs in, or None outside of a notebook."""
    return getattr(ipython_shell(), "kernel", None)


def current_request() -> Mapping[str, Any]:
    """The message by which the front end requested the running cell; empty outside of a notebook."""
    kernel = current_kernel()
    return kernel.get_parent() if hasattr(kernel, "get_parent") else {}


def answer_while_running(*controls: Any) -> None:
    """Let these widgets' messages be handled while a cell runs, in a thread of the kernel (a subshell).

    JupyterLab 4.4 and later sends a widget's messages to a subshell of ipykernel 7. But ipykernel 7.4 hands those of a
    widget that a cell has made to the main thread, where they wait for the end of the cell, as without subshells.
    """
    for control in controls:
        if hasattr(control.comm, "_reply_subshell_for"):
            control.comm._reply_subshell_for = None  # handled where the front end sent it


def stack(*figures: Figure) -> Image.Image:
    """Figures one below the other, as one image."""
    parts = [render(figure) for figure in figures]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


class Place:
    """An output of a notebook that can be updated; outside of a notebook nothing is shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def put(self, thing: Any) -> None:
        if current_kernel() is None:
            return
        from IPython.display import display

        if self._handle is None:
            self._handle = display(thing, display_id=True)
        else:
            self._handle.update(thing)


class Shown:
    """What can be shown in two ways: as `widget()`, where the front end can show it, and as `picture()`, everywhere.

    A notebook displays it by itself. The picture is stored beside the widget, for readers of the saved notebook.
    """

    interactive: bool
    _view: Any = None  # the widgets, in its `box`, once they are made

    def widget(self) -> Any:
        """The widgets, made on first use."""
        if self._view is None:
            self._view = self._new_view()
        return self._view.box

    def _new_view(self) -> Any:
        raise NotImplementedError

    def picture(self) -> Image.Image | None:
        """The static picture, or None while there is nothing to show."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """text/plain, image/png, and the widget's view only where widgets are shown."""
        picture = self.picture()
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if picture is not None:
            bundle["image/png"] = small_png(picture)
        if self.interactive:
            bundle[VIEW] = self.widget()._repr_mimebundle_()[VIEW]
        return bundle


def styled_box(name: str, *parts: Any) -> Any:
    """Widgets one below the other, with the style sheet of their HTML; name: class of the box."""
    import ipywidgets

    box = ipywidgets.VBox([ipywidgets.HTML(CSS, layout={"display": "none"}), *parts])
    box.add_class(name)
    return box
