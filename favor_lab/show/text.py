"""Text as figures draw it: which characters the fonts have, how wide words are, how names and numbers are written."""

from __future__ import annotations

import functools
from typing import Any

CJK_FONTS = ("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Microsoft YaHei", "PingFang SC", "Malgun Gothic")
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
LONGEST_NAME, LONGEST_TITLE = 32, 60  # characters
JOINING = dict.fromkeys([0x200C, 0x200D, 0xFE0E, 0xFE0F])  # zero-width joiners, variation selectors
RIGHT_MARK, WRONG_MARK, MINUS = "\N{CHECK MARK}", "\N{BALLOT X}", "\N{MINUS SIGN}"


@functools.cache
def font_families() -> list[str]:
    """The fonts of all figures: DejaVu Sans, which matplotlib brings, then the installed ones of CJK_FONTS."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in CJK_FONTS if name in installed)]


def utf8(text: str) -> str:
    r"""Text that can be saved and sent: what UTF-8 cannot write, such as a file's name in another encoding, becomes
    backslash escapes.

    >>> utf8("caf\udce9")
    'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


@functools.lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    from matplotlib import font_manager

    fonts = (font_manager.get_font(font_manager.findfont(family)) for family in font_families())
    return any(font.get_char_index(ord(character)) for font in fonts)


def printable(text: str, longest: int | None = None) -> str:
    """`text` on one line, with a replacement mark for every character that no installed font can draw; of more than
    `longest` characters the first ones, with an ellipsis. Characters that join or vary others have nothing to draw and
    are left out.

    >>> printable("می\u200cخواهم \u2615\ufe0f") == "میخواهم \u2615", printable("a\x1b[2J")
    (True, 'a�[2J')
    """
    flat = " ".join(str(text).translate(JOINING).split())
    flat = flat if longest is None or len(flat) <= longest else flat[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(c if c.isprintable() and _has_glyph(c) else "\N{REPLACEMENT CHARACTER}" for c in flat)


def drawn_name(name: str) -> str:
    """A name at a tick, in a title or in a legend: printable, of at most LONGEST_NAME characters, and never hidden, as
    matplotlib hides what begins with an underscore.

    >>> drawn_name("riding a bike"), drawn_name("riding a bike on a road that leads along a river")
    ('riding a bike', 'riding a bike on a road that le…')
    """
    text = printable(name, LONGEST_NAME)
    return f"\N{HAIR SPACE}{text}" if text.startswith("_") else text


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width in inches of `text` at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=font_families(), size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def short_name(name: str) -> str:
    """A reward's column head: `accuracy_reward` is printed as "accuracy"."""
    return name.removesuffix("_reward").replace("_", " ")


def signed(value: float, form: str = "+.2f") -> str:
    """A number with a typographic minus sign, and without a sign where it is rounded to zero.

    >>> signed(-0.5), signed(-1e-9)
    ('−0.50', '0.00')
    """
    text = f"{value:{form}}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)
