"""The model card of a run: Markdown with the Hub's YAML front matter, written from what `sharing.read_run` has read.

Nothing that a policy, a folder or a label says acts in it: text is escaped, responses stand in code blocks.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from favor_lab.activities.catalogue import PUBLIC
from favor_lab.activities.pocket import SETS
from favor_lab.grpo.support.settings import GRPOSettings, TrainSettings
from favor_lab.study.comparison import compare, sign_test
from favor_lab.study.rounding import percent, rounded

if TYPE_CHECKING:
    from favor_lab.study.sharing import Shared

# Settings that supervised fine-tuning does not use.
UNUSED_BY_SFT = {item.name for item in fields(GRPOSettings)} - {item.name for item in fields(TrainSettings)}
LONGEST = 600  # characters of a response that are shown
EVALUATIONS = ("before", "after")
LOADING = ("revision", "quantize", "min_pixels", "max_pixels")  # what an adapter's answers depend on, besides its base
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


# ------------------------------------------------------------------------------------------------------------ Markdown


def visible(text: str) -> str:
    r"""Text whose control and direction characters are spelt out, so that they act on no reader's screen.

    >>> visible("a\u202eb\nc")
    'a\\u202eb\nc'
    """
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "".join(
        f"\\u{ord(sign):04x}" if unicodedata.category(sign) in hidden and sign not in "\n\t" else sign for sign in text
    )


def inline(text: Any) -> str:
    r"""Text that stands in a line or a table as it is: no Markdown and no HTML in it acts.

    >>> inline("a|b <i>`x`</i>\n*y*")
    'a\\|b &lt;i&gt;\\`x\\`&lt;/i&gt; \\*y\\*'
    """
    joined = " ".join(visible(str(text)).split())
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(joined, quote=False))


def fenced(text: str, kind: str = "text") -> str:
    """Text as a code block, whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{visible(text)}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; everything in it is escaped."""
    lines = [head, ["---"] * len(head), *([inline(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(items: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {item}" for item in items)


# ------------------------------------------------------------------------------------------------------ the model card


def write_card(shared: Shared, name: str | None, license: str | None, dtype: str | None = None) -> str:
    """The card of what `read_run` read; see `model_card`."""
    sections = {
        "Data": _data(shared),
        "Training": _training(shared),
        "Results": _results(shared),
        "What it writes": _examples(shared),
        "Intended use": _intended_use(shared),
        "Limits": bullets(list(_limits(shared))),
        "How to load it": _how_to_load(shared, name or "FOLDER"),
        "Licence": _licence(shared, license),
        "Citation": CITATION,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    front = _front_matter(shared, name, license)
    return f"---\n{front}\n---\n\n# {inline(shared.title)}\n\n{_what_it_is(shared, dtype)}\n\n{body}\n"


def _front_matter(shared: Shared, name: str | None, license: str | None) -> str:
    """YAML for the Hub; the accuracy after training goes into its model index, with its interval in the name."""
    from huggingface_hub import EvalResult, ModelCardData

    results, after = [], shared.evaluations.get("after")
    if after is not None:
        low, high = after.interval
        interval = f"95 % interval {rounded(100 * low)} to {percent(high)}, {after.correct} of {len(after)} test images"
        results.append(
            EvalResult(
                task_type="image-text-to-text",
                task_name=f"activity recognition, {len(after.labels)} labels",
                dataset_type=re.sub(r"[^\w.-]+", "-", shared.set_name),
                dataset_name=visible(shared.set_name),
                metric_type="accuracy",
                metric_name=f"accuracy ({interval})",
                metric_value=after.accuracy,
            )
        )
    adapter = shared.form == "adapter"
    relation = "adapter" if adapter else "finetune"
    card = ModelCardData(
        base_model=shared.base if shared.on_hub else None,
        license=license,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["favor_lab", shared.method.lower(), "few-shot", "activity-recognition", *["lora"] * bool(shared.adapter)],
        model_name=visible(name or shared.title) if results else None,
        eval_results=results or None,
        base_model_relation=relation if shared.on_hub else None,
    )
    return card.to_yaml().strip()


def _what_it_is(shared: Shared, dtype: str | None) -> str:
    base = f"**{inline(shared.base)}**"
    adapter = shared.adapter or {}
    lora = f"LoRA adapter (rank {inline(adapter.get('r', '?'))}, alpha {inline(adapter.get('lora_alpha', '?'))})"
    rounded = "" if dtype is None else f", weights in {inline(dtype)}"
    what = {
        "adapter": f"A {lora} on the language model of {base}",
        "merged": f"A whole checkpoint{rounded}: {base} with a {lora} merged into its language model (the adapter by "
        "itself is in `adapter/`)",
        "whole": f"A whole checkpoint: {base}, whose language model was trained without an adapter",
    }[shared.form]
    how = {
        "GRPO": "group relative policy optimisation (GRPO): the policy answers each training image several times, and "
        "the responses that are right and well formed become likelier",
        "SFT": "supervised fine-tuning (SFT) on the labels alone, without reasoning",
    }[shared.method]
    version = shared.part("versions").get("favor-lab")
    wrote = (
        f"favor_lab{f' {inline(version)}' if version else ''} wrote this card from the files of the run; each number"
    )
    return (
        f"{what}. It was trained to name the activity of a person in an image, from a few labelled images, by {how}. "
        f"The vision tower is that of the base, unchanged.\n\n{wrote} is in them or computed from them."
    )


def _data(shared: Shared) -> str:
    data, name, count = shared.part("data"), shared.part("data").get("data"), len(shared.labels)
    if name in SETS:
        kind = f"`{name}`, scenes drawn by favor_lab. No photograph, no real person."
    elif name in PUBLIC:
        known = PUBLIC[name]
        kind = f"{inline(known.title)}. {inline(known.source)}\n- Terms of the images: {inline(known.terms)}"
    else:
        kind = (
            f"images of whoever trained this, from a folder called {inline(shared.set_name)}. The images are not part "
            "of this repository; rights in them, and the consent of people they show, are not known to favor_lab."
        )
    asked = "named in the prompt" if not shared.part("settings").get("open_vocabulary") else "not named in the prompt"
    items = [f"Set: {kind}"]
    if count:
        items.append(f"Labels ({count}, {asked}): {', '.join(map(inline, shared.labels))}.")
    else:
        items.append("Labels: the run folder does not say, since nothing was tested.")
    if data.get("shots") is not None:
        each, total = data["shots"], f", {data['shots'] * count} in all" if count else ""
        items.append(f"Training images: {each} of each label{total}.")
    tested = {len(evaluation) for evaluation in shared.evaluations.values()}
    seen = f"{max(tested)}, none of them trained on." if tested else "none, so nothing was measured."
    items.append(f"Test images: {seen}")
    if data.get("person_crop") is not None:
        items.append(f"Each image was cropped to its annotated person, widened by {data['person_crop']} of the box.")
    if data.get("exclude"):
        items.append(f"Some images were left out, by a list ({inline(data['exclude'])}).")
    return bullets(items)


def _training(shared: Shared) -> str:
    settings, records = dict(shared.part("settings")), shared.records
    if shared.method == "SFT":
        settings = {name: value for name, value in settings.items() if name not in UNUSED_BY_SFT}
    seconds = sum(sum((record.get("seconds") or {}).values()) for record in records)
    items = [f"{len(records)} optimiser steps, {seconds:.0f} s in all."] if records else []
    rewards = [record["reward"] for record in records if record.get("reward") is not None]
    if rewards:
        tenth = max(1, len(rewards) // 10)
        first, last = sum(rewards[:tenth]) / tenth, sum(rewards[-tenth:]) / tenth
        items.append(f"Mean reward of a completion: {first:.2f} at the beginning, {last:.2f} at the end.")
    start = shared.part("policy").get("adapter")
    if start:
        items.append(f"It went on from an earlier adapter ({inline(start)}), whose training this card says nothing of.")
    policy = {name: value for name, value in shared.part("policy").items() if name not in ("policy", "adapter")}
    rows = [(name, "-" if value is None else value) for name, value in {**settings, **policy}.items()]
    versions = [(name, value) for name, value in shared.part("versions").items()]
    parts = [bullets(items), table(("setting", "value"), rows) if rows else ""]
    parts += ["It ran on and with:\n\n" + table(("part", "version"), versions)] if versions else []
    return "\n\n".join(part for part in parts if part)


def _results(shared: Shared) -> str:
    if not shared.evaluations:
        return "Nothing was measured: the run kept no test images. Test it on labelled images of yours before any use."
    rows = []
    for when, e in shared.evaluations.items():
        low, high = e.interval
        rates = [percent(e.accuracy), f"{percent(low)} to {percent(high)}", f"{e.correct} of {len(e)}"]
        rows.append([shared.names[when], *rates, percent(e.format_rate), percent(e.truth_rate)])
    head = ["", "accuracy", "95 % interval", "right", "well formed", "true statements"]
    if all(e.truth_rate is None for e in shared.evaluations.values()):
        head, rows = head[:-1], [row[:-1] for row in rows]
    style = next(iter(shared.evaluations.values())).style
    asked = {"think": "reasoning, then the answer", "answer": "the answer alone"}.get(style, inline(style))
    parts = [
        f"Greedy answers to the test images; asked for: {asked}. Wilson intervals, over images.",
        table(head, rows),
        _difference(shared),
        _by_label(shared),
    ]
    return "\n\n".join(part for part in parts if part)


def _difference(shared: Shared) -> str:
    """What training changed, image by image, or why that cannot be said."""
    missing = [shared.names[when] for when in EVALUATIONS if when not in shared.evaluations]
    if missing:
        return f"Not measured: {inline(missing[0])}. So what training changed is not known."
    before, after = (shared.evaluations[when] for when in EVALUATIONS)
    if [a.source for a in before.answers] != [a.source for a in after.answers]:
        return "The two were tested on different images, so their difference has no paired interval."
    found = compare(before, after)
    low, high = found.interval
    sentence = (
        f"**Difference on the same images:** {found.summary()}; exact sign test p = "
        f"{sign_test(round(found.gained), round(found.lost)):.2g}. "
    )
    if low <= 0 <= high:
        sentence += "The interval contains 0: this run does not show that training changed the accuracy. "
    elif high < 0:
        sentence += "Training made it worse. "
    return sentence + "It is one run with one seed: the interval says how far the test images carry, not other runs."


def _by_label(shared: Shared) -> str:
    """Right answers by gold label."""
    rows = []
    for label in shared.labels:
        sides = [[a for a in e.answers if a.label == label] for e in shared.evaluations.values()]
        rows.append([label, *(f"{sum(a.correct for a in side)} of {len(side)}" for side in sides)])
    return table(["label", *(shared.names[when] for when in shared.evaluations)], rows)


def _examples(shared: Shared) -> str:
    """The first response of each kind, the policy's own words untouched."""
    after = shared.evaluations.get("after")
    if after is None:
        return ""
    shown = {
        "Right": next((a for a in after.answers if a.correct), None),
        "Wrong": next((a for a in after.answers if not a.correct and a.well_formed), None),
        "Not well formed": next((a for a in after.answers if not a.well_formed), None),
    }
    parts = ["After training; the first test image of each kind, not chosen."]
    for kind, answer in shown.items():
        if answer is not None:
            cut = " (cut)" if len(answer.text) > LONGEST else ""
            parts.append(f"{kind}, gold label {inline(answer.label)}{cut}:\n\n{fenced(answer.text[:LONGEST])}")
    return "\n\n".join(parts)


def _intended_use(shared: Shared) -> str:
    where = "drawn scenes like those" if shared.part("data").get("data") in SETS else "images like those"
    return bullets([
        f"Study and teaching of few-shot reinforcement learning, and naming one of the labels above on {where} it was "
        "tested on, after a test on labelled images of your own.",
        "Not for watching people, for finding out who somebody is, or for decisions about a person (work, police, "
        "health, insurance, school), and not where an error can hurt somebody.",
        "Not for images of people who do not know of it and have not agreed, where the law or decency asks for that.",
    ])  # fmt: skip


def _limits(shared: Shared) -> Iterator[str]:
    """What the numbers do not say: first what is peculiar to this run, then what holds for all of them."""
    groups = [record["flat_groups"] for record in shared.records if record.get("flat_groups") is not None]
    if groups and min(groups) == 1:
        yield "**No group of completions ever differed in its rewards, so nothing was learnt.**"
    if shared.base == "pocket":
        yield (
            "The base is a teaching instrument of a few million parameters that knows drawn scenes only. What was "
            "measured says nothing about photographs."
        )
    yield from _limits_of_the_data(shared)
    if shared.part("policy").get("quantize"):
        yield "It was trained and tested beside frozen weights in 4 bits; beside others it was not tested."
    if shared.method == "GRPO" and shared.part("settings").get("style") != "answer":
        known = any(e.truth_rate is not None for e in shared.evaluations.values())
        kept = "checked against the drawn scenes, but not rewarded" if known else "neither rewarded nor checked"
        yield f"The truth of its reasoning was {kept}: a right answer can stand beside a false reason."
    yield (
        "People were not described in the data, so it was not measured whether it errs more often with some of them "
        "(age, skin, dress, body, disability), and it may."
    )
    yield (
        "Not measured: other cameras, places and times than those of the images above; several people in one image; "
        "video; confidence; attacks by text or pictures in the image; what else it unlearnt."
    )
    yield "What the base model has learnt wrongly is still there."


def _limits_of_the_data(shared: Shared) -> Iterator[str]:
    after, shots = shared.evaluations.get("after"), shared.part("data").get("shots")
    if shared.part("data").get("data") in SETS:
        yield "The scenes were drawn by a program. A photograph differs in everything but the activity's name."
    elif shared.evaluations:
        yield (
            "Whether the same people, places or clips are among the training and the test images is not known here. "
            "Where they are, the accuracy above is too high."
        )
    if shots is not None:
        yield f"{shots} training image{'s' * (shots != 1)} a label: other choices of images give other results."
    if not shared.part("settings").get("open_vocabulary"):
        yield "It was asked to choose from a closed list, and never taught to say that none fits or nobody is there."
        strange = sum(a.answer is not None and a.answer not in after.labels for a in after.answers) if after else 0
        if after and strange:
            yield f"{strange} of {len(after)} answers after training were none of the labels of that list."


def _how_to_load(shared: Shared, name: str) -> str:
    """Code that loads it, with favor_lab and without; `name` is a Hub name or a folder."""
    place, base = json.dumps(name, ensure_ascii=False), json.dumps(shared.base, ensure_ascii=False)
    lines = ["from favor_lab import load_policy", ""]
    folder = place
    if HUB_NAME.fullmatch(name):
        lines, folder = ["from huggingface_hub import snapshot_download", "", *lines], f"snapshot_download({place})"
    if shared.form == "adapter":
        source = '"data/pocket-qwen2-vl"' if shared.base == "pocket" else base
        kept = {name: shared.part("policy").get(name) for name in LOADING}
        options = [f"{name}={json.dumps(value)}" for name, value in kept.items() if value is not None]
        lines.append(f"policy = load_policy({', '.join([base, f'adapter={folder}', *options])})")
        other = [
            "from peft import PeftModel",
            "from transformers import Qwen2VLForConditionalGeneration",
            "",
            f"base = Qwen2VLForConditionalGeneration.from_pretrained({source})",
            f"model = PeftModel.from_pretrained(base, {place})",
        ]
    else:
        lines.append(f"policy = load_policy({folder}, lora_rank=0)")
        other = [
            "from transformers import Qwen2VLForConditionalGeneration",
            "",
            f"model = Qwen2VLForConditionalGeneration.from_pretrained({place})",
        ]
    without = "peft" if shared.form == "adapter" else "transformers"
    parts = ["With favor_lab:", fenced("\n".join(lines), "python")]
    parts += [f"With {without} alone:", fenced("\n".join(other), "python"), _where_the_base_is(shared), _prompt(shared)]
    return "\n\n".join(part for part in parts if part)


def _where_the_base_is(shared: Shared) -> str:
    if shared.form != "adapter" or shared.on_hub:
        return ""
    if shared.base == "pocket":
        return "The base, `pocket`, is in favor_lab's repository, in `data/pocket-qwen2-vl`."
    return f"The base was loaded from a folder called {inline(shared.base)}: name the place where you have it instead."


def _prompt(shared: Shared) -> str:
    """The question that it was trained and tested on."""
    from favor_lab.vlm.prompts import build_prompt

    settings = shared.part("settings")
    style = "answer" if shared.method == "SFT" else settings.get("style", "think")
    if not shared.labels and not settings.get("open_vocabulary"):
        return ""
    text = build_prompt(None if settings.get("open_vocabulary") else shared.labels, style)
    return (
        f"It was asked, after the image in the same turn (`do_sample=False` for the answers above):\n\n{fenced(text)}"
    )


def _licence(shared: Shared, license: str | None) -> str:
    if license is not None:
        said = f"{inline(license)}, as chosen by whoever shares this."
    else:
        said = (
            "**None is chosen yet.** Whoever shares this decides it: write `license:` into the first lines of this "
            "file. Until then others may look at it and have no permission to use it."
        )
    base = "Apache-2.0 for `pocket`" if shared.base == "pocket" else "see its own card"
    return f"{said} The licence of the base model ({base}) and the terms of the images bind it as well."


CITATION = """The method follows FAVOR: Zheng and Arakawa, *few-shot activity recognition by MLLM-based visual
reinforcement learning*, 2025, [arXiv 2508.10371](https://arxiv.org/abs/2508.10371). **This is not the authors' code,
and no number here is theirs**: favor_lab was written from the abstract and from published methods
([GRPO](https://arxiv.org/abs/2402.03300)), with prompts, rewards and settings of its own."""
