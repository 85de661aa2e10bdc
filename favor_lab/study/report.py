"""A run folder: everything that one run said and made, in files that outlive the process.

settings.json            what was asked for, and the versions of what ran it
records.jsonl            one step record per line, written as they arrive
checkpoint/, adapter/    the state to continue from, the adapter to load
evaluation_*.json        answers before and after, with every text
figures/*.png            the pictures
report.html              all of it on one page that needs no network and runs no script
"""

from __future__ import annotations

import base64
import html
import importlib.metadata
import io
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.files import write_whole
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from favor_lab.activities.fewshot import Example
    from favor_lab.study.evaluation import Answered, Evaluation

PACKAGES = ("favor-lab", "torch", "transformers", "peft", "numpy", "pillow", "matplotlib")


def versions(device: torch.device | None = None) -> dict[str, str]:
    """What decides the last digits of what a run computes: versions of Python and of the packages ("missing" where one
    is absent), threads, and the device, if one is given."""
    import torch

    found = {"python": platform.python_version(), "platform": platform.platform()}
    found["threads"] = str(torch.get_num_threads())
    if device is not None:
        found["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def plain(value: Any) -> Any:
    """Dataclasses, paths, arrays and tensors as what JSON has; a float that is not finite becomes None.

    >>> plain({"loss": float("nan"), "where": Path("runs")})
    {'loss': None, 'where': 'runs'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    if isinstance(value, float):
        return None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


class RunFolder:
    """The files of one run; made by `create` or, to continue a run, by `open`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """Make the folder and see that it can be written to, before any work is done.

        Raises FileExistsError for a folder that holds something, and OSError (NotADirectoryError, PermissionError) with
        the reason for a place that cannot be written to.
        """
        folder = cls(path)
        try:
            if folder.path.is_dir() and any(folder.path.iterdir()):
                raise FileExistsError(f"the run folder {path} is not empty: name another one, or continue that run")
            folder.path.mkdir(parents=True, exist_ok=True)
            (folder.path / "settings.json").touch()
            (folder.path / "settings.json").unlink()
        except OSError as error:
            if error.errno is None:
                raise
            raise type(error)(f"cannot write to the run folder {path} ({error.strerror}): name another one") from error
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A run folder that exists. Raises FileNotFoundError for anything else."""
        if not (Path(path) / "settings.json").is_file():
            raise FileNotFoundError(f"{path} is not a run folder: it has no settings.json")
        return cls(path)

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was asked for, with the versions of what ran it."""
        return self.load("settings.json")

    def save_settings(self, settings: Mapping[str, Any], device: torch.device | None = None) -> None:
        self.save("settings.json", {**settings, "versions": versions(device)})

    def save(self, name: str, data: Any) -> None:
        """Write plain data (or dataclasses of it) as JSON."""
        text = json.dumps(plain(data), indent=1, ensure_ascii=False)
        write_whole(self.path / name, text + "\n")

    def load(self, name: str, default: Any = None) -> Any:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    def append(self, record: Any) -> None:
        """Add one step record to `records.jsonl`; it is on disk when this returns."""
        with open(self.path / "records.jsonl", "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(plain(record), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """The step records so far; a last line that was cut off (a machine that died) is left out."""
        path = self.path / "records.jsonl"
        records = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    def rewind(self, step: int) -> None:
        """Drop the records after `step`: those a run that continues from a checkpoint will make again."""
        kept = [json.dumps(record, ensure_ascii=False) for record in self.records() if record["step"] <= step]
        write_whole(self.path / "records.jsonl", "".join(line + "\n" for line in kept))

    def save_figure(self, name: str, figure: Figure) -> Path:
        path = self.path / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path)
        return path


def draw_figures(
    folder: RunFolder, evaluations: Mapping[str, Evaluation], examples: Sequence[Example] = ()
) -> dict[str, Path]:
    """Draw what the folder holds (records, groups) and the evaluations into `figures`: caption -> PNG file."""
    from favor_lab.study import plots

    records, groups = folder.records(), folder.load("groups.json", {})
    images = {example.source: example.image for example in examples}
    figures: dict[str, tuple[str, Figure]] = {}
    if len(evaluations) > 1:
        figures["before and after, on the test images"] = "before_after", plots.plot_before_after(evaluations)
    for when, group in groups.items():
        if group["source"] in images:
            parts = [group[name] for name in ("label", "texts", "rewards", "advantages")]
            figure = plots.plot_group(images[group["source"]], *parts, title=f"One group {when} training")
            figures[f"one group, sampled {when} training: {group['source']}"] = f"group_{when}", figure
    if records:
        figures["what was measured at each step"] = "records", plots.plot_records(records)
        if any(record["labels"] for record in records):
            figures["when the right answer was sampled"] = "coverage", plots.plot_coverage(records)
    for name, evaluation in evaluations.items():
        stem = re.sub(r"\W+", "_", name)
        figures[f"{name}: what was taken for what"] = f"confusion_{stem}", plots.plot_confusion(evaluation, name)
        if examples:
            sheet = plots.plot_examples(examples[:12], evaluation, title=f"{name}: the first test images")
            figures[f"{name}: gold labels and answers"] = f"examples_{stem}", sheet
    return {caption: folder.save_figure(stem, figure) for caption, (stem, figure) in figures.items()}


# -------------------------------------------------------------------------------------------------------- report.html

_CSS = """
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
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>{css}</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def _image(data: bytes, kind: str, alt: str, width: int | None = None) -> str:
    size = f' width="{width}"' if width else ""
    return f'<img{size} alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _thumbnail(image: Image, alt: str) -> str:
    small = image.convert("RGB")
    small.thumbnail((224, 224))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return _image(buffer.getvalue(), "jpeg", alt, width=112)


def _card(name: str, evaluation: Evaluation) -> str:
    share, low, high = (rounded(100 * part) for part in (evaluation.accuracy, *evaluation.interval))
    truth = "" if evaluation.truth_rate is None else f", true statements {rounded(100 * evaluation.truth_rate, 0)}%"
    return (
        f'<div class="card">{html.escape(name)}<b>{share}%</b>'
        f"<small>95 % interval {low}% to {high}%<br>{evaluation.correct} of {len(evaluation)} right, "
        f"well formed {rounded(100 * evaluation.format_rate, 0)}%{truth}</small></div>"
    )


def _answer_cells(answer: Answered) -> str:
    style, mark = ("right", "&#10003;") if answer.correct else ("wrong", "&#10007;")
    said = html.escape(answer.answer or "no valid answer")
    return f'<td class="{style}">{mark} {said}</td><td class="text">{html.escape(answer.text)}</td>'


def _answers_table(evaluations: Mapping[str, Evaluation], examples: Sequence[Example]) -> str:
    images = {example.source: example.image for example in examples}
    by_source = [{answer.source: answer for answer in evaluation.answers} for evaluation in evaluations.values()]
    head = "".join(f"<th>{html.escape(name)}</th><th>what it wrote</th>" for name in evaluations)
    rows = []
    for first in next(iter(evaluations.values())).answers:
        picture = _thumbnail(images[first.source], first.label) if first.source in images else ""
        cells = "".join(_answer_cells(answers[first.source]) for answers in by_source if first.source in answers)
        rows.append(
            f'<tr><td>{picture}<div class="source">{html.escape(first.source)}</div></td>'
            f"<td>{html.escape(first.label)}</td>{cells}</tr>"
        )
    return f"<table><tr><th>image</th><th>gold label</th>{head}</tr>{''.join(rows)}</table>"


def _settings_table(settings: Mapping[str, Any], prefix: str = "") -> str:
    rows = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows.append(_settings_table(value, f"{prefix}{key}."))
        else:
            rows.append(f"<tr><td>{html.escape(prefix + key)}</td><td>{html.escape(str(value))}</td></tr>")
    return "".join(rows)


def write_report(
    path: str | Path,
    title: str,
    evaluations: Mapping[str, Evaluation],
    figures: Mapping[str, Path],
    settings: Mapping[str, Any],
    examples: Sequence[Example] = (),
) -> Path:
    """One HTML page: rates, pictures (caption -> PNG file), every answer with its text, settings and versions.

    Pictures are embedded and all text is escaped (a policy can write anything); `examples` adds images to the table.
    """
    parts = [f'<div class="cards">{"".join(_card(name, e) for name, e in evaluations.items())}</div>']
    for caption, file in figures.items():
        picture = _image(Path(file).read_bytes(), "png", caption)
        parts.append(f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>")
    if evaluations:
        parts += ["<h2>Every answer</h2>", _answers_table(evaluations, examples)]
    parts += ["<h2>Settings and versions</h2>", f'<table class="settings">{_settings_table(plain(settings))}</table>']
    page = _PAGE.format(title=html.escape(title), css=_CSS, body="\n".join(parts))
    return write_whole(path, page)
