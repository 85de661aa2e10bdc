"""The structure of the library: each row of rooms imports only rows below it, and no two files import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "favor_lab"
FILES = sorted(PACKAGE.rglob("*.py"))
ROWS = [  # from the top: a file imports its own room and the rows below
    {"__main__", "__init__"},
    {"cli", "trl_bridge"},
    {"runs"},
    {"show", "sharing"},
    {"recipes", "study"},
    {"budget", "responses"},
    {"grpo"},
    {"vlm"},
    {"activities"},
    {"progress"},
    {"arguments", "files", "moved", "terminal", "threads", "versions"},
]
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
# what a room never imports, by the start of the name
CLOSED = {
    "activities": ("torch", "transformers", "peft"),
    "vlm": ("favor_lab.activities.world", "matplotlib"),
    "grpo": ("matplotlib", "ipywidgets", "trl"),
    "budget": ("matplotlib", "ipywidgets", "trl"),
    "study": ("matplotlib", "favor_lab.grpo.training", "trl"),
    "sharing": ("matplotlib", "favor_lab.grpo.training", "trl"),
}
THE_FIVE = {"sampling", "rewards", "advantages", "losses", "training"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imported_names(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, wherever in the file: also in functions and for types alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(module: str) -> set[str]:
    """The modules of the library that a module imports."""
    modules = set()
    for name in imported_names(MODULES[module]):
        modules.add(name if name in MODULES else name.rpartition(".")[0])  # a module, or a name in one
    return modules & MODULES.keys() - {module, "favor_lab"}


ARROWS = {module: imported_modules(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_no_arrow_runs_up_or_sideways(module):
    room = room_of(module)
    for target in ARROWS[module]:
        other = room_of(target)
        allowed = other == room or ROW_OF[other] > ROW_OF[room]
        assert allowed, f"{module} imports {target}, which is not below it"
    for name in imported_names(MODULES[module]):
        for closed in CLOSED.get(room, ()):
            assert not f"{name}.".startswith(f"{closed}."), f"{module} imports {name}"


def test_support_is_below_the_five():
    """Inside grpo: the files that students read import support, and support imports none of them."""
    for module, targets in ARROWS.items():
        if module.startswith("favor_lab.grpo.support"):
            assert not {t.split(".")[2] for t in targets if t.startswith("favor_lab.grpo.")} & THE_FIVE, module
    folder = PACKAGE / "grpo"
    assert {path.stem for path in folder.glob("*.py")} == THE_FIVE | {"__init__"}


def test_there_is_no_import_circle():
    """Between files, a package's `__init__` included."""
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in finished:
            for target in sorted(ARROWS[module]):
                visit(target, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


def lines(paths) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def test_no_room_is_larger_than_a_fifth_and_no_file_longer_than_400_lines():
    total = lines(FILES)
    for folder in {path.parent for path in FILES}:  # activities/world, activities/public, vlm/fast are rooms themselves
        size = lines(path for path in FILES if path.parent == folder)
        assert size <= total / 5, f"{folder.relative_to(ROOT)} has {size} of {total} lines"
    longer = {path.name for path in FILES if lines([path]) > 400}
    assert longer <= {"training.py", "trl_bridge.py"}  # one job each: the loop with its context; every option of TRL
