"""Formulas as MathML, made when the site is built: browsers draw it and screen readers read it, without a script."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def mathml(latex: str, display: str) -> str:
    """A formula; display: "inline" or "block". What cannot be converted is shown as it was written, with a warning."""
    return convert(latex.strip(), display=display)


def visit(self, node: nodes.Element, display: str) -> None:
    latex = node.astext()
    try:
        formula = mathml(latex, display)
    except Exception as error:  # the converter has many; one formula must not hide the page
        LOGGER.warning("formula %r: %s", latex, error, location=node, type="math", subtype="mathml")
        formula = f"<code>{self.encode(latex)}</code>"
    tag = "div" if display == "block" else "span"
    focus = ' tabindex="0" role="group" aria-label="formula"' if display == "block" else ""
    self.body.append(f'<{tag} class="math"{focus}>{formula}</{tag}>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer(
        "mathml", (lambda self, node: visit(self, node, "inline"), None), (lambda self, node: visit(self, node, "block"), None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
