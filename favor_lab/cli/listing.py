"""The command that explains recipes."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from favor_lab.cli.options import RecipeListOptions
from favor_lab.runs.run import tell

if TYPE_CHECKING:
    from favor_lab.recipes import Recipe


def recipes(recipe: RecipeListOptions) -> None:
    """Published variants of GRPO, for `favor-lab train --recipe NAME`: all in a table, or one explained.

    favor-lab recipes

    favor-lab recipes papo

    favor-lab recipes papo+noisy-rollout

    One recipe is explained by the header of its file (source, equation, what was chosen otherwise), its coefficients,
    which `favor-lab train --set NAME=VALUE` changes, and the settings that it changes.
    """
    from favor_lab.recipes import RECIPES, find_recipe, header

    if recipe.name:
        chosen = find_recipe(recipe.name)
        tell("\n\n".join(header(RECIPES[name]) for name in chosen.name.split("+")))
        return tell(f"\n{explained(chosen)}")
    rows = [(name, slots(one), one.about, one.cost) for name, one in RECIPES.items()]
    tell(table(rows, ("recipe", "slots", "what it does", "extra cost of a step")))


def slots(recipe: Recipe) -> str:
    """What a recipe fills: slots of the loop, and settings."""
    return ", ".join([*recipe.steps, *["settings"] * bool(recipe.settings)])


def explained(recipe: Recipe) -> str:
    """What a recipe fills and changes, as lines."""
    lines = [f"Slots: {slots(recipe)}", f"Extra cost of a step: {recipe.cost}"]
    lines += [f"Setting: {name} = {value!r}" for name, value in recipe.settings.items()]
    for name, value in recipe.options().items():
        switch = " (0: off)" if name in recipe.coefficients else ""
        undecided = f"must be given: {recipe.undecided[name]}" if name in recipe.undecided else ""
        lines.append(f"Coefficient: {name} = {undecided or str(value) + switch}")
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Rows as a table as wide as the terminal; all columns but the first are broken into lines.

    >>> print(table([("papo", "loss", "one masked pass", "a pass")], ("recipe", "slots", "what", "cost")))
    recipe  slots  what             cost
    papo    loss   one masked pass  a pass
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    widths[-3] = min(widths[-3], 12)
    room = max(32, shutil.get_terminal_size().columns - sum(widths[:-2]) - 2 * (len(head) - 1))
    widths[-1] = min(widths[-1], max(16, room // 3))
    widths[-2] = min(widths[-2], max(16, room - widths[-1]))
    lines = []
    for row in (head, *rows):
        cells = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)
