"""Import paths of favor_lab 0.1.0 that still work: each warns and gives what the modules named beside it hold now."""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# a module that is gone -> the modules that hold its names now
MOVED = {
    "activities.annotations": ["activities.public.stanford40"],
    "activities.catalogue": ["activities.public.catalogue"],
    "activities.figures": ["activities.world.figures", "activities.world.shapes"],
    "activities.looks": ["activities.world.looks"],
    "activities.pocket": ["activities.world.catalogue", "activities.world.scenes", "activities.world.composition"],
    "activities.poses": ["activities.world.poses"],
    "activities.sources": ["activities.images", "activities.data", "activities.load", "activities.world.sets"],
    "activities.surroundings": ["activities.world.surroundings"],
    "activities.things": ["activities.world.things"],
    "doctor": ["budget.doctor"],
    "experiments": ["runs.experiments", "runs.cells", "runs.tables"],
    "grpo.checkpoints": ["grpo.support.checkpoints"],
    "grpo.costs": ["budget.flops", "budget.memory", "budget.shapes", "budget.machine"],
    "grpo.fits": ["budget.fits", "budget.cards"],
    "grpo.mechanics": ["grpo.support.schedule", "grpo.support.clock", "grpo.support.interrupts"],
    "grpo.memory": ["budget.memory", "budget.fits"],
    "grpo.records": ["grpo.support.records", "grpo.support.settings"],
    "grpo.summary": ["grpo.support.summary", "runs.notes"],
    "study.baselines": ["study.sft"],
    "study.cards": ["sharing.card"],
    "study.charts": ["show.charts"],
    "study.dashboard": ["show.dashboard", "show.curves"],
    "study.frontend": ["show.frontend"],
    "study.markup": ["show.markup"],
    "study.plots": ["show.evaluations", "show.curves", "show.explanations", "show.groups", "show.loop", "show.profile"],
    "study.profiling": ["budget.profiling"],
    "study.report": ["study.run_folder", "show.report"],
    "study.sharing": ["sharing.export", "sharing.finished", "sharing.card"],
    "study.widgets": ["show.widgets"],
    "vlm.decoding": ["vlm.fast.decoding"],
    "vlm.layers": ["vlm.fast.layers"],
    "vlm.packed": ["vlm.fast.packed"],
}
# a name of the old module -> the name today
RENAMED = {"Shared": "FinishedRun", "troubles": "notes_on", "write_card": "render_card"}


def find_name(old: str, modules: list[str], name: str) -> Any:
    """The object `name` of the old module `old`, from the first of `modules` that has it.

    AttributeError: none of them has it.
    """
    for module in modules if not name.startswith("__") else []:  # Python itself asks each module for its __path__
        try:
            value = getattr(import_module(f"favor_lab.{module}"), RENAMED.get(name, name))
        except AttributeError:
            continue
        now = f"favor_lab.{module}.{RENAMED.get(name, name)}"
        warnings.warn(f"favor_lab.{old}.{name} is now {now}; the old path will go", DeprecationWarning, 3)
        return value
    raise AttributeError(f"favor_lab.{old} has moved to {', '.join(modules)}, where {name!r} is not found")


class OldPaths(MetaPathFinder, Loader):
    """Imports a module that is gone as an empty one, which looks each name up where it is now."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """Only for modules of :data:`MOVED`; Python asks here after it has looked everywhere else."""
        return ModuleSpec(fullname, self) if fullname.removeprefix("favor_lab.") in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the empty module a function that is called for each name that it lacks (PEP 562)."""
        old = module.__name__.removeprefix("favor_lab.")
        module.__dict__["__getattr__"] = lambda name: find_name(old, MOVED[old], name)


def accept_old_paths() -> None:
    """Let Python find the modules of :data:`MOVED`, once per process."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(OldPaths())
