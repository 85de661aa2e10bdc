"""Formulas as MathML, made when the site is built: browsers draw it and screen readers read it, without a script."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
WITH_BASE = {"msub", "msup", "msubsup", "munder", "munderover"}
ROWS = {"math", "mrow", "mtd", "mstyle"}  # whose children stand in a line
ARROWS, CLOSING = {"\u27fa", "\u21d4", "\u27f9", "\u21d2"}, {")", "]", "}"}
THIN, THICK = "0.167em", "0.278em"


def braced(latex: str) -> str:
    r"""LaTeX in the forms that the converter knows: braces around a single letter, names of several letters as one,
    lines that are aligned by another name.

    >>> print(braced(r"\mathbb E[\mathrm{KL}], \texttt{clip\_low}"))
    \mathbb{E}[\operatorname{KL}], \texttt{clip_low}
    >>> print(braced(r"\begin{aligned} a &= b \end{aligned}"))
    \begin{align*} a &= b \end{align*}
    """
    latex = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", latex)
    latex = re.sub(r"\\(mathbb|mathrm) (\w)", r"\\\1{\2}", latex)
    latex = re.sub(r"\\mathrm(?=\{[A-Za-z]{2,}\})", r"\\operatorname", latex)
    return re.sub(r"\\(text|texttt)\{[^{}]*\}", lambda match: match[0].replace(r"\_", "_"), latex)


def mathml(latex: str, display: str) -> str:
    """A formula as MathML; display: "inline" or "block".

    The converter sets no space beside the name of a function: "A log x" would read "Alogx".
    """
    ElementTree.register_namespace("", NAMESPACE.strip("{}"))
    formula = ElementTree.fromstring(convert(braced(latex.strip()), display=display))
    for element in formula.iter(f"{NAMESPACE}mo"):
        text = (element.text or "").strip()
        if len(text) > 1 and text.isalpha():
            element.tag = f"{NAMESPACE}mi"  # an operator would have space on both sides, also before a bracket
        elif text in ARROWS:
            element.set("lspace", THICK)
            element.set("rspace", THICK)
    for parent in formula.iter():
        if kind(parent) in ROWS:
            for place, (left, right) in reversed([*enumerate(zip(parent, list(parent)[1:], strict=False))]):
                apart = is_function(left) and kind(right) != "mo"
                if apart or (is_function(right) and (kind(left) != "mo" or (left.text or "") in CLOSING)):
                    parent.insert(place + 1, ElementTree.Element(f"{NAMESPACE}mspace", width=THIN))
    return ElementTree.tostring(formula, encoding="unicode")


def kind(element: Any) -> str:
    return element.tag.removeprefix(NAMESPACE)


def is_function(element: Any) -> bool:
    """Whether an element is the name of a function, or such a name with something below or above it."""
    if kind(element) in WITH_BASE:
        element = element[0]
    return kind(element) == "mi" and len(element.text or "") > 1 and (element.text or "").isalpha()


def visit(self: Any, node: nodes.Element, display: str) -> None:
    """Write a formula. One that cannot be converted is shown as it was written, with a warning."""
    latex = node.astext()
    try:
        formula = mathml(latex, display)
    except Exception as error:  # the converter has many; one formula must not hide its page
        LOGGER.warning("formula %r: %s", latex, error, location=node, type="math", subtype="mathml")
        formula = f"<code>{self.encode(latex)}</code>"
    tag = "div" if display == "block" else "span"
    self.body.append(f'<{tag} class="math">{formula}</{tag}>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    inline = (lambda self, node: visit(self, node, "inline"), None)
    block = (lambda self, node: visit(self, node, "block"), None)
    app.add_html_math_renderer("mathml", inline, block)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
