"""The site: `python -m sphinx -c docs . build/site` renders the course, the results and the API reference.

The source folder is the repository itself, so that relative links between notebooks and pages hold here as they do in a
checkout. Notebooks are shown as they are stored; nothing is executed. No page asks the network for anything.
"""

import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

from favor_lab import __version__, share_cores  # noqa: E402

share_cores()  # the API reference imports torch
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "favor_lab"
author = PROJECT["authors"][0]["name"]
copyright = f"{author}, {PROJECT['license']}"
version = release = __version__
language = "en"

# Where the repository is published: project.urls in pyproject.toml or, in a workflow, what GitHub says. Empty where
# neither is known: there are no badges then, and links to files outside the site are plain text.
site_repository = PROJECT["urls"].get("Repository", "")
if not site_repository and "GITHUB_REPOSITORY" in os.environ:
    site_repository = f"https://github.com/{os.environ['GITHUB_REPOSITORY']}"
site_branch = os.environ.get("GITHUB_REF_NAME", "main")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
extensions += ["site_access", "site_api", "site_math", "site_sources"]  # docs/extensions

root_doc = "docs/index"
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
include_patterns = [
    "docs/**", "notebooks/*.ipynb", "notebooks/*.md", "notebooks/labs/wrong_answers.md", "notebooks/solutions/*.md",
    "notebooks/scaling/README.md", "data/pocket-*/README.md", "data/results/*.md", "favor_lab/README.md",
    "favor_lab/cli/README.md", "tests/*/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
]  # fmt: skip
# pieces that other pages quote: see data/results/quote.py
PAGES = [ROOT / "README.md", *ROOT.glob("data/results/*.md"), *ROOT.glob("data/pocket-*/README.md")]
QUOTED = {name for page in PAGES for name in re.findall(r"<!-- begin (\S+\.md) -->", page.read_text(encoding="utf-8"))}
exclude_patterns = [f"data/results/{name}" for name in sorted(QUOTED)]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
# two classes of different rooms are called Task: an annotation that names one is not linked
suppress_warnings = ["ref.python"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autosummary_generate = False
add_module_names = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "favor_lab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_extra_path = ["first"]  # index.html, which leads to the first page
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_last_updated_fmt = None
html_theme_options = {"top_of_page_buttons": []}
