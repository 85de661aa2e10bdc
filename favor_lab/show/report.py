"""The report of a run: its figures, and one HTML page that holds all of it, without network or scripts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.files import jsonable, write_whole
from favor_lab.show.curves import plot_coverage, plot_records
from favor_lab.show.evaluations import plot_before_after, plot_confusion, plot_examples
from favor_lab.show.groups import plot_group
from favor_lab.show.markup import data_html, image_html
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from favor_lab.activities.fewshot import Example
    from favor_lab.study.evaluation import Evaluation


def draw_figures(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    examples: Sequence[Example] = (),
    records: Sequence[Any] = (),
    groups: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Path]:
    """Draw evaluations, step records and sampled groups into a new folder: caption -> PNG file.

    groups: "before" and "after" -> a `JudgedGroup` as a dictionary; those whose image is in `examples` are drawn.
    """
    images = {example.source: example.image for example in examples}
    figures: dict[str, tuple[str, Figure]] = {}
    if len(evaluations) > 1:
        figures["before and after, on the test images"] = "before_after", plot_before_after(evaluations)
    for when, group in (groups or {}).items():
        if group["source"] in images:
            parts = {name: group[name] for name in ("label", "texts", "rewards", "advantages")}
            figure = plot_group(images[group["source"]], **parts, title=f"One group {when} training")
            figures[f"one group, sampled {when} training: {group['source']}"] = f"group_{when}", figure
    if records:
        figures["what was measured at each step"] = "records", plot_records(records)
        if any(record["labels"] for record in records):
            figures["when the right answer was sampled"] = "coverage", plot_coverage(records)
    for name, evaluation in evaluations.items():
        stem = re.sub(r"\W+", "_", name)
        figures[f"{name}: what was taken for what"] = f"confusion_{stem}", plot_confusion(evaluation, name)
        if examples:
            sheet = plot_examples(examples[:12], evaluation, title=f"{name}: the first test images")
            figures[f"{name}: gold labels and answers"] = f"examples_{stem}", sheet
    paths = {caption: folder / f"{stem}.png" for caption, (stem, _) in figures.items()}
    for caption, (_, figure) in figures.items():
        folder.mkdir(exist_ok=True)
        figure.savefig(paths[caption])
    return paths


# -------------------------------------------------------------------------------------------------------- report.html

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 70rem; margin: 2rem auto;
       padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.card { border: 1px solid #d9dee4; border-radius: .5rem; padding: .8rem 1.2rem; }
.card b { font-size: 1.8rem; display: block; } .card small, figcaption, .source { color: #66727f; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
td, th { border-top: 1px solid #d9dee4; padding: .45rem .6rem; text-align: left; vertical-align: top; }
td.text { overflow-wrap: anywhere; white-space: pre-wrap; } .right { color: #0072B2; } .wrong { color: #D55E00; }
.source { font-size: .75rem; overflow-wrap: anywhere; } .settings { width: auto; font-family: monospace; }
</style></head><body>
<h1>{{ title }}</h1>
<div class="cards">
{% for name, e in evaluations.items() %}
<div class="card">{{ name }}<b>{{ percent(e.accuracy, 1) }}</b><small>
95 % interval {{ percent(e.interval[0], 1) }} to {{ percent(e.interval[1], 1) }}<br>
{{ e.correct }} of {{ e|length }} right, well formed {{ percent(e.format_rate) }}
{%- if e.truth_rate is not none %}, true statements {{ percent(e.truth_rate) }}{% endif %}</small></div>
{% endfor %}
</div>
{% for caption, picture in figures %}
<figure>{{ picture|safe }}<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% if evaluations %}
<h2>Every answer</h2>
<table><tr><th>image</th><th>gold label</th>
{%- for name in evaluations %}<th>{{ name }}</th><th>what it wrote</th>{% endfor %}</tr>
{% for source, label, picture, answers in rows %}
<tr><td>{{ picture|safe }}<div class="source">{{ source }}</div></td><td>{{ label }}</td>
{%- for a in answers %}
<td class="{{ 'right' if a.correct else 'wrong' }}">{{ '&#10003;'|safe if a.correct else '&#10007;'|safe }} {{
 a.answer or 'no valid answer' }}</td><td class="text">{{ a.text }}</td>
{%- endfor %}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Settings and versions</h2>
<table class="settings">
{% for name, value in settings %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>
</body></html>
"""


def write_report(
    path: str | Path,
    title: str,
    evaluations: Mapping[str, Evaluation],
    figures: Mapping[str, Path],
    settings: Mapping[str, Any],
    examples: Sequence[Example] = (),
) -> Path:
    """One HTML page: rates, figures (caption -> PNG file), every answer with its text, settings and versions.

    Figures are embedded and all text is escaped (a policy can write anything); `examples` adds images to the table.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    pictures = [
        (caption, data_html(base64.b64encode(Path(file).read_bytes()).decode(), "png", caption))
        for caption, file in figures.items()
    ]
    page = template.render(
        title=title, evaluations=evaluations, figures=pictures, rows=_answer_rows(evaluations, examples),
        settings=list(_flat(jsonable(settings))), percent=lambda share, digits=0: f"{rounded(100 * share, digits)}%",
    )  # fmt: skip
    return write_whole(path, page)


def _answer_rows(evaluations: Mapping[str, Evaluation], examples: Sequence[Example]) -> Iterator[tuple]:
    """For each test image: source, gold label, picture, and the answers of the evaluations that have it."""
    images = {example.source: example.image for example in examples}
    by_source = [{answer.source: answer for answer in evaluation.answers} for evaluation in evaluations.values()]
    for source, answer in (by_source[0] if by_source else {}).items():
        picture = image_html(images[source], answer.label, 224, width=112) if source in images else ""
        yield source, answer.label, picture, [answers[source] for answers in by_source if source in answers]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as pairs of a dotted name and a value."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
