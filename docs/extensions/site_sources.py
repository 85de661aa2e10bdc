"""What notebooks and Markdown pages need before Sphinx reads them: alternative texts, and links that lead somewhere."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")


def linked(text: str, folder: Path, app: Sphinx) -> str:
    """Markdown whose relative links lead to pages of the site, or to files in the repository if its address is known.

    A link to any other file becomes plain text. One that leads nowhere stays, for Sphinx to complain about.
    """
    root, repository = Path(app.srcdir), app.config.site_repository

    def replaced(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = (folder / target).resolve()
        if re.match(r"[a-z]+:", target) or not path.exists() or not path.is_relative_to(root):
            return match[0]
        if path in (root / "README.md", root):  # the repository's first page is not the site's
            return f"[{words}]({os.path.relpath(root / 'docs' / 'index.md', folder)})"
        name = path.relative_to(root).as_posix()
        if path.is_dir() and app.project.path2doc(str(path / "README.md")) in app.project.docnames:
            return f"[{words}]({os.path.relpath(path / 'README.md', folder)}{anchor})"
        if app.project.path2doc(str(path)) in app.project.docnames:
            return match[0]
        if repository:
            kind = "tree" if path.is_dir() else "blob"
            return f"[{words}]({repository}/{kind}/{app.config.site_branch}/{name}{anchor})"
        return f"`{name}`" if words.strip("`") in (name, target, path.name) else f"{words} (`{name}`)"

    return LINK.sub(replaced, text)


def plain(markdown: str) -> str:
    """A heading as a sentence for an alternative text.

    >>> plain("The `mask`, and **why** $x$")
    'The mask, and why x'
    """
    return re.sub(r"[`*$]", "", markdown).strip()


def notebook(text: str, path: Path, app: Sphinx) -> str:
    """A stored notebook with its links mended, and with an alternative text for every image among its outputs.

    The text is the cell's `metadata["alt"]`; without it, the last heading before the cell.
    """
    stored: dict[str, Any] = json.loads(text)
    colab = elsewhere(app, path.relative_to(app.srcdir).as_posix()).get("Google Colab")
    if colab and stored["cells"][0]["cell_type"] == "markdown":
        stored["cells"][0]["source"] = [*stored["cells"][0]["source"], f"\n\n[Open in Google Colab]({colab})"]
    heading = ""
    for cell in stored["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = linked(source, path.parent, app)
            heading = next(iter(HEADING.findall(source)[::-1]), heading)
        elif any(kind in output.get("data", {}) for output in cell.get("outputs", ()) for kind in IMAGES):
            alt = cell["metadata"].get("alt") or f"Figure: {plain(heading)}"
            cell["metadata"]["mystnb"] = {"image": {"alt": alt}} | cell["metadata"].get("mystnb", {})
    return json.dumps(stored)


def citation(root: Path) -> str:
    """CITATION.cff as BibTeX."""
    import yaml

    cff = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    authors = " and ".join(
        f"{author['family-names']}, {author.get('given-names', '')}".rstrip(", ")
        if "family-names" in author
        else f"{{{author['name']}}}"
        for author in cff["authors"]
    )
    fields = {"title": f"{{{cff['title']}}}", "author": authors, "version": str(cff["version"])}
    fields["year"] = str(cff.get("date-released", ""))[:4]
    fields["url"] = str(cff.get("repository-code", cff.get("url", "")))
    fields["note"] = f"License: {cff['license']}"
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join(["@software{favor_lab,", *lines, "}"])


def elsewhere(app: Sphinx, path: str) -> dict[str, str]:
    """Where a notebook can be opened without installing anything: name -> address; empty without the repository's."""
    name, branch = app.config.site_repository.removeprefix("https://github.com/"), app.config.site_branch
    if not name or name == app.config.site_repository:
        return {}
    return {
        "Google Colab": f"https://colab.research.google.com/github/{name}/blob/{branch}/{path}",
        "Binder": f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{path}",
        "Codespaces": f"https://codespaces.new/{name}",
    }


def badges(app: Sphinx) -> str:
    """Links that open the first notebook elsewhere, and what Colab needs."""
    links = [f"- [{name}]({url})" for name, url in elsewhere(app, "notebooks/00_start_here.ipynb").items()]
    if not links:
        return ""
    needs = ["On Colab run this in a first cell, then restart the session:", "", "```text"]
    needs += [f'!pip install -q "favor-lab[lab,trl] @ git+{app.config.site_repository}"', "```", ""]
    needs += ["Binder and Codespaces install everything before they open, which takes some minutes."]
    return "\n".join(["Without installing anything, the first notebook opens on", "", *links, "", *needs])


def read(app: Sphinx, docname: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb":
        content[0] = notebook(content[0], path, app)
    elif path.suffix == ".md":
        text = content[0].replace("<!-- the citation -->", f"```bibtex\n{citation(Path(app.srcdir))}\n```")
        content[0] = linked(text.replace("<!-- badges -->", badges(app)), path.parent, app)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("site_repository", "", "env")
    app.add_config_value("site_branch", "main", "env")
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
