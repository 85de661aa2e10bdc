"""The API reference: the modules of a room in one page, from their docstrings.

Docstrings of this library are plain text with Markdown's backticks and tables. They are rewritten as
reStructuredText, which autodoc expects.
"""

from __future__ import annotations

import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FIRST = {"grpo": ["sampling", "rewards", "advantages", "losses", "training"], "recipes": ["recipe"]}  # to be read first
ROLE = re.compile(r":(?:mod|func|class|meth|data):(?=`)")
CODE = re.compile(r"(`[^`]+`)")
ITEM = re.compile(r"(?P<names>\w+(?:, \w+)*|\"\w+\")(?P<gap>: |  +)(?P<text>\S.*)")  # `name: text` or `name   text`
NUMBER = re.compile(r"\d+\. ")


def inline(text: str) -> str:
    """Text in which `code` is code and every other mark stands for itself.

    >>> print(inline("the `mask` of a * b and x_"))
    the ``mask`` of a \\* b and x\\_
    """
    parts = CODE.split(ROLE.sub("", " ".join(text.split())))
    return "".join(
        f"``{part[1:-1]}``" if CODE.fullmatch(part) else re.sub(r"([\\*_|`@])", r"\\\1", part) for part in parts
    )


def items(lines: list[str]) -> list[str]:
    """A block whose lines begin with names, as list entries; prose between them as paragraphs."""
    out: list[list[str]] = []
    inside = False  # an item
    for line in lines:
        match = ITEM.fullmatch(line)
        if match:
            out.append([match["names"], match["text"]])
            inside = True
        elif out and inside and (line.startswith(" ") or not out[-1][-1].endswith((".", ";", ")"))):
            out[-1].append(line)
        else:
            if not out or out[-1][0]:
                out.append([""])
            out[-1].append(line)
            inside = False
    rows: list[str] = []
    for names, *texts in out:
        text = inline(" ".join(texts))
        name = f"**{names}**" if names[:1].isupper() else f"``{names}``"  # "Source", or a parameter
        rows += [f"- {name}: {text}" if names else text, ""]
    return rows


def numbered(lines: list[str]) -> list[str]:
    """A block with lines such as "1. text", each going on in indented lines; a line before them stands apart."""
    out: list[str] = []
    for line in lines:
        if NUMBER.match(line) or not out or (not line.startswith(" ") and NUMBER.match(out[-1])):
            out.append(line)
        else:
            out[-1] += f" {line.strip()}"
    return [row for line in out for row in (inline(line), "")]


def table(lines: list[str]) -> list[str]:
    """A Markdown table."""
    rows = [[inline(cell) for cell in line.strip().strip("|").split("|")] for line in lines]
    out = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows[:1] + rows[2:]:
        out += [f"   {'* -' if column == 0 else '  -'} {cell or chr(160)}" for column, cell in enumerate(row)]
    return [*out, ""]


def rewritten(docstring: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(docstring).strip("\n")):
        lines = block.split("\n")
        if lines[0].lstrip().startswith(">>>"):
            out += [".. code-block:: pycon", "", *textwrap.indent(textwrap.dedent(block), "   ").split("\n"), ""]
        elif lines[0].startswith("|") and lines[1:] and lines[1].startswith("| ---"):
            out += table(lines)
        elif all(line.startswith("    ") for line in lines):
            out += [".. code-block:: text", "", *textwrap.indent(textwrap.dedent(block), "   ").split("\n"), ""]
        elif any(NUMBER.match(line) for line in lines):
            out += numbered(lines)
        elif any(ITEM.fullmatch(line) for line in lines) and not prose(lines):
            out += items(lines)
        else:
            out += [inline(block), ""]
    return out


def prose(lines: list[str]) -> bool:
    """Whether a colon in these lines belongs to a sentence: in a line such as a title, or where no line is indented
    and the first one names nothing."""
    if len(lines) == 1 and lines[0][:1].isupper():
        return True
    return not ITEM.fullmatch(lines[0]) and not any(line.startswith(" ") for line in lines)


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = rewritten(lines)


def modules(room: str) -> list[str]:
    """The modules of a package without those below it: first those to read first, then by name."""
    package = import_module(room)
    names = sorted(path.stem for path in Path(package.__path__[0]).glob("*.py") if not path.stem.startswith("__"))
    first = FIRST.get(room.rpartition(".")[2], [])
    return [f"{room}.{name}" for name in [*first, *(name for name in names if name not in first)]]


def sections(names: list[str]) -> list[str]:
    """A section with all documented members of each of these modules."""
    text: list[str] = []
    for module in names:
        title = f"``{module.removeprefix('favor_lab.')}``"
        text += [title, "-" * len(title), "", f".. automodule:: {module}", "   :members:", "   :ignore-module-all:", ""]
    return text


class Room(SphinxDirective):
    """`.. room:: favor_lab.grpo`: its docstring, and a section for each of its modules."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        room = self.arguments[0]
        text = [f".. automodule:: {room}", "   :members:", "   :ignore-module-all:", ""]
        return self.parse_text_to_nodes("\n".join(text + sections(modules(room))), allow_section_headings=True)


class Modules(SphinxDirective):
    """`.. module-sections:: favor_lab.files favor_lab.threads`: a section for each of these modules."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(sections(self.arguments[0].split())), allow_section_headings=True)


class PublicNames(SphinxDirective):
    """`.. public-names::`: the names of favor_lab, room by room, as `__init__.pyi` lists them."""

    def run(self) -> list[nodes.Node]:
        import favor_lab

        rooms: dict[str, list[str]] = {}
        for name, module in favor_lab._modules_of_public_names().items():
            value = getattr(favor_lab, name)  # functions and classes know where they are defined, constants do not
            rooms.setdefault(module.split(".")[1], []).append(f"{getattr(value, '__module__', '')}.{name}")
        text: list[str] = []
        for room, names in rooms.items():
            text += [room, "-" * len(room), "", ".. autosummary::", "   :nosignatures:", ""]
            text += [*(f"   ~{name}" for name in names if not name.startswith(".")), ""]
            constants = [f"``{name[1:]}``" for name in names if name.startswith(".")]
            text += [f"Constants: {', '.join(constants)}.", ""] if constants else []
        return self.parse_text_to_nodes("\n".join(text), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("room", Room)
    app.add_directive("module-sections", Modules)
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
