"""The model card of a finished run: the text of `model_card.md.jinja` under the Hub's metadata.

Responses, labels, folder names and settings are escaped, so that no Markdown, HTML or address in them takes effect. The
card makes three statements for the base "pocket" alone: that it knows drawn scenes only, where it lies and its licence.
"""

from __future__ import annotations

import functools
import html
import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from favor_lab.activities.public.catalogue import PUBLIC
from favor_lab.activities.world.catalogue import DRAWN_SETS
from favor_lab.grpo.support.settings import TrainSettings
from favor_lab.sharing.finished import HUB_NAME, FinishedRun, read_run
from favor_lab.study.comparison import compare, sign_test
from favor_lab.study.outcome import never_right
from favor_lab.study.rounding import percent, rounded
from favor_lab.study.run_folder import RunFolder
from favor_lab.vlm.prompts import build_prompt

RESULT_HEAD = ("", "accuracy", "95 % interval", "right", "well formed", "true statements")
LONGEST_RESPONSE = 600  # characters of a response that are shown
LOADING = ("revision", "quantize", "min_pixels", "max_pixels")  # settings that an adapter's answers depend on
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode categories that print nothing or change the direction


# ------------------------------------------------------------------------------------------------------------ escaping


class Markdown(str):
    """Text that is Markdown already; the template escapes every other value."""


def visible(text: str) -> str:
    r"""Text with control and direction characters written as escapes, so that they have no effect on the screen.

    >>> visible("a\u202eb\nc")
    'a\\u202eb\nc'
    """
    hidden = {sign for sign in text if unicodedata.category(sign) in HIDDEN and sign not in "\n\t"}
    codes = {sign: f"\\u{ord(sign):04x}" if sign <= "\uffff" else f"\\U{ord(sign):08x}" for sign in hidden}
    return "".join(codes.get(sign, sign) for sign in text)


def one_line(text: str) -> str:
    """Visible text with each run of white space as one space."""
    return " ".join(visible(text).split())


def inline(value: Any, links: bool = False) -> Markdown:
    r"""A value as literal text in a line or table cell: no Markdown and no HTML in it takes effect, and no bare address
    becomes a link (unless `links`): an empty comment stands inside it, since some readers look for addresses in the
    text that is left when the escapes are gone.

    >>> print(inline("a|b <i>`x`</i>\n*y* http://z"))
    a\|b &lt;i&gt;\`x\`&lt;/i&gt; \*y\* http:<!-- -->//z
    """
    if isinstance(value, Markdown):
        return value
    text = html.escape(one_line(str(value)), quote=False)
    text = re.sub(r"[\\`*_\[\]|~$^]|=(?==)", r"\\\g<0>", text)
    return Markdown(text if links else re.sub(r":(?=//)|www(?=\.)|@", r"\g<0><!-- -->", text, flags=re.IGNORECASE))


def code(text: str, language: str = "text") -> Markdown:
    """Text as a code block, whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Markdown(f"{fence}{language}\n{visible(text)}\n{fence}")


def table(rows: Sequence[Sequence[Any]], *head: str) -> Markdown:
    """A Markdown table; every cell is escaped."""
    lines = [head, [Markdown("---")] * len(head), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(inline, line))} |" for line in lines))


# ------------------------------------------------------------------------------------------------------ the model card


def model_card(
    run: RunFolder | str | Path,
    *,
    merged: bool = False,
    name: str | None = None,
    base_model: str | None = None,
    license: str | None = None,
    dtype: str | None = None,
) -> str:
    """The model card of a finished run: Markdown with the Hub's YAML metadata, from the files of the run alone. Parts
    for which the run has nothing are left out or say so. Raises as `read_run` does.

    merged      the card of a merged export, whose weights have `dtype`
    name        what to load, in the examples: a Hub name or a folder
    base_model  Hub name of the base, for a run that loaded it from a folder
    license     the Hub's identifier of the licence; None: the card says that none was chosen
    """
    return render_card(read_run(run, base_model, merged), name, license, dtype)


def render_card(run: FinishedRun, name: str | None, license: str | None, dtype: str | None = None) -> str:
    """The card of a run that `read_run` has read; see `model_card`."""
    layout: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, finalize=inline, **layout)  # `inline`: as autoescape for HTML
    with_links = functools.partial(inline, links=True)
    environment.filters |= {"code": code, "table": table, "linked": with_links, "as_it_is": Markdown}
    facts = {"run": run, "license": license, "dtype": dtype, "longest_response": LONGEST_RESPONSE}
    facts |= {**_facts(run), **_results(run), **_code_to_load(run, name or "FOLDER")}
    text = environment.get_template("model_card.md.jinja").render(facts)
    return str(ModelCard(f"---\n{_metadata(run, name, license).to_yaml()}\n---\n\n{text.strip()}\n"))


def _metadata(run: FinishedRun, name: str | None, license: str | None) -> ModelCardData:
    """What the Hub reads; the accuracy after training goes into its model index, with its interval in the name."""
    results, after = [], run.evaluations.get("after")
    if after is not None:
        low, high = after.interval
        interval = f"95 % interval {rounded(100 * low)} to {percent(high)}, {after.correct} of {len(after)} test images"
        results.append(EvalResult(
            task_type="image-text-to-text", task_name=f"activity recognition, {len(after.labels)} labels",
            dataset_type=re.sub(r"[^\w.-]+", "-", run.set_name), dataset_name=one_line(run.set_name),
            metric_type="accuracy", metric_name=f"accuracy ({interval})", metric_value=after.accuracy,
        ))  # fmt: skip
    relation, library = ("adapter", "peft") if run.form == "adapter" else ("finetune", "transformers")
    return ModelCardData(
        base_model=run.base if run.on_hub else None, base_model_relation=relation if run.on_hub else None,
        license=license and one_line(license), pipeline_tag="image-text-to-text", library_name=library,
        tags=["favor_lab", run.method.lower(), "few-shot", "activity-recognition", *["lora"] * bool(run.adapter)],
        model_name=one_line(name or run.title) if results else None, eval_results=results or None,
    )  # fmt: skip


def _facts(run: FinishedRun) -> dict[str, Any]:
    """What the template needs of the data and the training beyond the run's own attributes."""
    data, adapter, settings = run.part("data"), run.adapter or {}, run.part("settings")
    if run.method == "SFT":
        settings = {name: value for name, value in settings.items() if name in TrainSettings.__dataclass_fields__}
    settings |= {name: value for name, value in run.part("policy").items() if name not in ("policy", "adapter")}
    recipe = run.settings.get("recipe") or None
    settings = ({"recipe": recipe} if recipe else {}) | settings
    rewards = [record["reward"] for record in run.records if record.get("reward") is not None]
    tenth = max(1, len(rewards) // 10)
    flat_shares = [record["flat_groups"] for record in run.records if record.get("flat_groups") is not None]
    return {
        "drawn": data.get("data") in DRAWN_SETS,
        "recipe": recipe,
        "public_set": PUBLIC.get(str(data.get("data"))),
        "total_shots": data["shots"] * len(run.labels) if isinstance(data.get("shots"), int) else None,
        "tested": max((len(evaluation) for evaluation in run.evaluations.values()), default=0),
        "lora": f"LoRA adapter (rank {adapter.get('r', '?')}, alpha {adapter.get('lora_alpha', '?')})",
        "seconds": sum(sum((record.get("seconds") or {}).values()) for record in run.records),
        "rewards": [rounded(sum(part) / tenth, 2) for part in (rewards[:tenth], rewards[-tenth:])] if rewards else None,
        "never_right": never_right(run.records, run.evaluations.get("after")),
        "nothing_learnt": bool(flat_shares) and min(flat_shares) == 1,
        "setting_rows": [(name, "-" if value is None else value) for name, value in settings.items()],
        "version_rows": list(run.part("versions").items()),
    }


def _results(run: FinishedRun) -> dict[str, Any]:
    """The results before and after training, and their difference if both were measured on the same images."""
    stages = {run.stage_names[when]: evaluation for when, evaluation in run.evaluations.items()}
    truth_measured = any(e.truth_rate is not None for e in stages.values())
    columns = len(RESULT_HEAD) - (not truth_measured)
    rows = []
    for stage, e in stages.items():
        interval, right = " to ".join(map(percent, e.interval)), f"{e.correct} of {len(e)}"
        rows.append((stage, percent(e.accuracy), interval, right, percent(e.format_rate), percent(e.truth_rate)))
    label_rows = []
    for label in run.labels:
        verdicts = [[a.correct for a in e.answers if a.label == label] for e in stages.values()]
        label_rows.append([label, *(f"{sum(right)} of {len(right)}" for right in verdicts)])
    before, after = (run.evaluations.get(when) for when in ("before", "after"))
    comparison = None
    if before and after and [a.source for a in before.answers] == [a.source for a in after.answers]:
        comparison = compare(before, after)
    return {
        "truth_measured": truth_measured,
        "style": next((e.style for e in stages.values()), None),
        "result_head": RESULT_HEAD[:columns],
        "result_rows": [row[:columns] for row in rows],
        "label_head": ["label", *stages],
        "label_rows": label_rows,
        "comparison": comparison,
        "p_value": sign_test(round(comparison.gained), round(comparison.lost)) if comparison else None,
        "unknown_answers": sum(a.answer not in (None, *after.labels) for a in after.answers) if after else 0,
    }


def _code_to_load(run: FinishedRun, name: str) -> dict[str, Any]:
    """What the code that loads and asks the export is made of, and the prompt that was used; name: on the Hub, or a
    folder."""
    place, base = (Markdown(json.dumps(text, ensure_ascii=False)) for text in (name, run.base))
    values = {option: run.part("policy").get(option) for option in LOADING}
    options = [f", {option}={json.dumps(value)}" for option, value in values.items() if value is not None]
    settings = run.part("settings")
    labels = None if settings.get("open_vocabulary") else run.labels
    style = "answer" if run.method == "SFT" else settings.get("style", "think")
    prompt = build_prompt(labels, style) if labels is None or labels else None
    facts = {"place": place, "base": base, "loading": Markdown("".join(options)), "prompt": prompt}
    facts |= {"argument": shlex.quote(name)}  # of a command line
    facts["labels_code"] = Markdown("None" if labels is None else json.dumps(labels, ensure_ascii=False))
    asking = {"style": style, "max_new_tokens": settings.get("max_new_tokens")}
    facts["asking"] = Markdown("".join(f", {name}={json.dumps(value)}" for name, value in asking.items() if value))
    return facts | {"name_on_hub": HUB_NAME.fullmatch(name) is not None}
