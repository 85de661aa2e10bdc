"""The pages of words and of methods: in order, and what they point to is there."""

import json
import re
from pathlib import Path

import pytest

from favor_lab.recipes import RECIPES

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
GLOSSARY, MAP = ((NOTEBOOKS / name).read_text(encoding="utf-8") for name in ("glossary.md", "map.md"))
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", GLOSSARY, re.MULTILINE)
PLACES = re.findall(
    r"\[(\d\d)(?: · (\d+))?\]\((\d\d_\w+\.ipynb)\)(?:, section (\d+)| · (\d+(?:, \d+)*))?", GLOSSARY + MAP
)


def sections(notebook: str) -> set[str]:
    cells = json.loads((NOTEBOOKS / notebook).read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return set(re.findall(r"^## (\d+) · ", prose, re.MULTILINE))


def test_the_words_are_in_alphabetical_order_and_each_is_there_once():
    names = [re.sub(r"[^a-z0-9 ]", "", name.casefold()) for name, _ in ENTRIES]
    assert names == sorted(set(names)) and f"The {len(names)} words" in GLOSSARY
    assert len(names) == GLOSSARY.count("\n- ")


def test_a_word_has_a_sentence_or_two_and_says_where_it_is_taught():
    for name, text in ENTRIES:
        assert "](" in text or text.startswith("See *"), name
        assert len(re.sub(r",? \[[^]]+\]\([^)]+\)", "", text)) < 260, name


@pytest.mark.parametrize("notebook", sorted({place[2] for place in PLACES}))
def test_the_sections_that_are_named_exist(notebook):
    for number, section, _, other, more in (place for place in PLACES if place[2] == notebook):
        assert notebook.startswith(number)
        for one in filter(None, (section, other, *more.split(", "))):
            assert one in sections(notebook), f"{notebook} has no section {one}"


def test_every_recipe_is_on_the_map_once():
    table = MAP.partition("| what they change |")[2]
    rows = [row.split(" | ")[1].split(", ") for row in table.splitlines() if row.startswith("| ") and "---" not in row]
    names = [name for row in rows for name in row if name in RECIPES]
    assert sorted(names) == sorted(RECIPES)
