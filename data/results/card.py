"""What the pocket policy can do before any GRPO: each kind of question, on each set, on images it has not seen.

``python data/results/card.py`` writes ``card.json`` and the tables ``card_*.md`` that the policy's own page quotes.
``--policy FOLDER`` measures another checkpoint, ``--images`` sets how many images each number rests on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from favor_lab import Example, Policy, extract_answer, load_policy
from favor_lab.activities.world import ACTIVITIES, NAMES, NONE_OF_THESE, NOTHING, SETS, STATEMENTS, draw_scene
from favor_lab.grpo.rewards import format_reward
from favor_lab.grpo.sampling import sample_groups
from favor_lab.responses import judge_reasoning
from favor_lab.study.answering import label_probabilities
from favor_lab.study.evaluation import greedy_rollout, wilson_interval
from favor_lab.study.rounding import percent
from favor_lab.vlm.processing import ask_without_image, encode_texts
from favor_lab.vlm.prompts import (
    ask_better,
    ask_choice,
    ask_false_statement,
    ask_several,
    ask_yes_no,
    build_prompt,
    describe_first,
)

HERE = Path(__file__).resolve().parent
UNFAMILIAR = (  # activities of Stanford 40 of which neither the policy nor its tokenizer has met the name
    "brushing teeth", "cooking", "cutting trees", "feeding a horse", "fixing a car", "gardening", "playing violin",
    "pouring liquid", "rowing a boat", "smoking", "washing dishes", "watching TV",
)  # fmt: skip
TOKENS, BATCH, SAMPLES = 64, 40, 8
Right = Callable[[str], bool]


@dataclass(frozen=True)
class Asked:
    """One question about one image, which answers are right, and the list that an answer should come from."""

    example: Example
    text: str
    right: Right
    style: str = "think"
    names: Sequence[str] = ()


def examples(set_name: str, count: int) -> list[Example]:
    """The first test images of a set."""
    scenes = [draw_scene(set_name, "test", index) for index in range(count)]
    return [Example(scene.image, scene.label or "nobody", scene.source) for scene in scenes]


def true_statements(example: Example) -> list[str]:
    """What is true of the person and the thing in use."""
    set_name, split, index = example.source.split("/")
    statements = draw_scene(set_name, split, int(index), 28).truth.statements
    return [s for s in statements if not s.endswith(("nearby", "in a hand"))]


def some_labels(label: str, count: int, r: Random) -> list[str]:
    """A label among others, in any order."""
    return r.sample([label, *r.sample([other for other in ACTIVITIES if other != label], count - 1)], count)


def open_question(e: Example, r: Random, style: str) -> Asked:
    return Asked(e, build_prompt(None, style), lambda a: a in NAMES[e.label], style)


def all_labels(e: Example, r: Random, style: str) -> Asked:
    return Asked(e, build_prompt(ACTIVITIES, style), lambda a: a == e.label, style, ACTIVITIES)


def short_list(size: int, unfamiliar: int = 0) -> Callable[[Example, Random, str], Asked]:
    """A list of some labels, the right one among them, and of some names that the policy has never met."""

    def ask(e: Example, r: Random, style: str) -> Asked:
        names = [*some_labels(e.label, size - unfamiliar, r), *r.sample(UNFAMILIAR, unfamiliar)]
        r.shuffle(names)
        return Asked(e, build_prompt(names, style), lambda a: a == e.label, style, tuple(names))

    return ask


def other_names(e: Example, r: Random, style: str) -> Asked:
    """All activities by one of their other names."""
    names = {activity: r.choice(NAMES[activity][1:]) for activity in r.sample(ACTIVITIES, len(ACTIVITIES))}
    return Asked(e, build_prompt(list(names.values()), style), lambda a: a == names[e.label], style, [*names.values()])


def choice(e: Example, r: Random, style: str) -> Asked:
    names = some_labels(e.label, 4, r)
    letters = "ABCD"
    return Asked(e, ask_choice(names, style), lambda a: a == letters[names.index(e.label)], style, letters)


def yes_no(e: Example, r: Random, style: str) -> Asked:
    name, right = (e.label, "yes") if r.random() < 0.5 else (r.choice([a for a in ACTIVITIES if a != e.label]), "no")
    return Asked(e, ask_yes_no(name, style), lambda a: a == right, style, ("yes", "no"))


def several(e: Example, r: Random, style: str) -> Asked:
    return Asked(e, ask_several(ACTIVITIES, style), lambda a: e.label in a.split(", ")[:3], style)


def false_statement(e: Example, r: Random, style: str) -> Asked:
    true = true_statements(e)
    wrong = r.choice([s for s in STATEMENTS if s not in true])
    statements = r.sample([wrong, *true], 1 + len(true))
    return Asked(e, ask_false_statement(statements, style), lambda a: a == wrong, style, statements)


def better(e: Example, r: Random, style: str) -> Asked:
    evidence, other = ", ".join(true_statements(e)), r.choice([a for a in ACTIVITIES if a != e.label])
    responses = [f"{evidence}, {e.label}", f"{evidence}, {other}"]
    right = r.randrange(2)
    text = ask_better(*(responses if right == 0 else responses[::-1]), style)
    return Asked(e, text, lambda a: a == str(right + 1), style, ("1", "2"))


def none_of_these(e: Example, r: Random, style: str) -> Asked:
    """A list without the activity, which offers to say so."""
    names = [*r.sample([a for a in ACTIVITIES if a != e.label], 5), NONE_OF_THESE]
    r.shuffle(names)
    return Asked(e, build_prompt(names, style), lambda a: a == NONE_OF_THESE, style, names)


QUESTIONS: dict[str, Callable[[Example, Random, str], Asked]] = {
    "all 16 labels": all_labels,
    "open": open_question,
    "16 other names": other_names,
    "2 labels": short_list(2),
    "4 labels": short_list(4),
    "8 labels": short_list(8),
    "3 labels, 1 unfamiliar name": short_list(4, 1),
    "6 labels, 2 unfamiliar names": short_list(8, 2),
    "letter of 4": choice,
    "yes or no": yes_no,
    "up to three of 16": several,
    "none of these": none_of_these,
    "false statement": false_statement,
    "better of two": better,
}


@torch.no_grad()
def responses(policy: Policy, asked: Sequence[Asked]) -> list[str]:
    """Greedy responses, with the image."""
    texts = []
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        prompts = encode_texts(policy, [one.example for one in part], [one.text for one in part], TOKENS)
        texts += greedy_rollout(policy, prompts, TOKENS).texts
    return texts


@torch.no_grad()
def responses_to_text(policy: Policy, asked: Sequence[Asked]) -> list[str]:
    """Greedy responses to the texts alone."""
    texts = []
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        prompts = encode_texts(policy, [one.example for one in part], [one.text for one in part], TOKENS)
        blind = ask_without_image(policy, prompts, [one.text for one in part], TOKENS)
        texts += greedy_rollout(policy, blind, TOKENS).texts
    return texts


def tally(asked: Sequence[Asked], texts: Sequence[str]) -> dict[str, Any]:
    """Shares: right, well formed, and of the answers those that come from the list."""
    answers = [extract_answer(text) for text in texts]
    right = sum(answer is not None and one.right(answer) for one, answer in zip(asked, answers, strict=True))
    given = [(one, answer) for one, answer in zip(asked, answers, strict=True) if answer is not None]
    listed = [answer in one.names for one, answer in given if one.names]
    formed = [format_reward([text], style=one.style)[0] for one, text in zip(asked, texts, strict=True)]
    return {
        "images": len(asked), "right": right / len(asked), "interval": list(wilson_interval(right, len(asked))),
        "well_formed": float(np.mean(formed)), "in_list": float(np.mean(listed)) if listed else None,
    }  # fmt: skip


def truth(asked: Sequence[Asked], texts: Sequence[str]) -> float:
    """Share of the statements that are true of their image."""
    verdicts = [
        s.verdict for one, text in zip(asked, texts, strict=True) for s in judge_reasoning(text, one.example.source)
    ]
    return float(np.mean([verdict == "true" for verdict in verdicts]))


def of_text(policy: Policy, seen: Sequence[Example], style: str) -> dict[str, Any]:
    """All labels, asked about a true description in place of the image."""
    texts = [describe_first(", ".join(true_statements(e)), build_prompt(ACTIVITIES, style)) for e in seen]
    asked = [
        Asked(e, text, lambda a, e=e: a == e.label, style, ACTIVITIES) for e, text in zip(seen, texts, strict=True)
    ]
    return tally(asked, responses_to_text(policy, asked))


def order(policy: Policy, seen: Sequence[Example]) -> dict[str, Any]:
    """The same eight labels in four orders: how often all answers agree, and how often an answer stands first."""
    r, asked = Random(2), []
    for e in seen:
        names = some_labels(e.label, 8, r)
        asked += [Asked(e, build_prompt(r.sample(names, 8), "answer"), str, "answer") for _ in range(4)]
    texts = responses(policy, asked)
    groups = [texts[k : k + 4] for k in range(0, len(texts), 4)]
    first = [f": {extract_answer(text)}," in one.text for one, text in zip(asked, texts, strict=True)]
    return {"same": float(np.mean([len(set(group)) == 1 for group in groups])), "first": float(np.mean(first))}


def calibration(policy: Policy, seen: Sequence[Example]) -> list[dict[str, float]]:
    """Probability of the answer among all labels against how often it is right, in fifths."""
    probability, right = [], []
    for first in range(0, len(seen), BATCH):
        part = seen[first : first + BATCH]
        prompts = encode_texts(policy, part, [build_prompt(ACTIVITIES)] * len(part), TOKENS)
        shares = label_probabilities(policy, prompts, greedy_rollout(policy, prompts, TOKENS).texts, ACTIVITIES)
        for e, share in zip(part, shares, strict=True):
            if share:
                best = max(share, key=lambda name: share[name])
                probability.append(share[best])
                right.append(best == e.label)
    bins = np.minimum((np.array(probability) * 5).astype(int), 4)
    return [
        {
            "from": k / 5, "images": int((bins == k).sum()), "said": float(np.array(probability)[bins == k].mean()),
            "right": float(np.array(right)[bins == k].mean()),
        }
        for k in range(5) if (bins == k).any()
    ]  # fmt: skip


@torch.no_grad()
def chances(policy: Policy, seen: Sequence[Example]) -> dict[str, list[list[float]]]:
    """Label -> for each of its images: whether the greedy answer is right, and the share of `SAMPLES` that are."""
    by_label: dict[str, list[list[float]]] = {}
    for first in range(0, len(seen), BATCH):
        part = seen[first : first + BATCH]
        prompts = encode_texts(policy, part, [build_prompt(ACTIVITIES)] * len(part), TOKENS)
        greedy = greedy_rollout(policy, prompts, TOKENS).texts
        sampled = sample_groups(policy, prompts, SAMPLES, TOKENS, seed=first).texts
        for k, e in enumerate(part):
            right = [extract_answer(text) == e.label for text in sampled[k * SAMPLES : (k + 1) * SAMPLES]]
            pair = [float(extract_answer(greedy[k]) == e.label), sum(right) / SAMPLES]
            by_label.setdefault(e.label, []).append(pair)
    return by_label


def photographs(count: int) -> list[Example]:
    """Crops of the photographs that matplotlib and scikit-learn install; fewer if scikit-learn is not there."""
    from matplotlib import cbook

    pictures = [Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")]
    try:
        from sklearn.datasets import load_sample_images

        pictures += [Image.fromarray(pixels) for pixels in load_sample_images().images]
    except ImportError:
        pass
    r, crops = Random(3), []
    for k in range(count):
        picture = pictures[k % len(pictures)]
        side = r.randint(140, min(picture.size))
        left, top = r.randint(0, picture.width - side), r.randint(0, picture.height - side)
        crops.append(
            Example(picture.crop((left, top, left + side, top + side)).resize((140, 140)), "nobody", f"photograph {k}")
        )
    return crops


def declined(policy: Policy, seen: Sequence[Example]) -> dict[str, float]:
    """How often the policy says that there is nothing to see, asked with all labels and with an open vocabulary."""
    shares = {}
    for name, labels in (("all 16 labels", ACTIVITIES), ("open", None)):
        asked = [Asked(e, build_prompt(labels), lambda a: a == NOTHING) for e in seen]
        shares[name] = tally(asked, responses(policy, asked))["right"]
    return shares


def empty(kind: str, count: int) -> list[Example]:
    """Images that show nobody, of all looks."""
    scenes = [draw_scene(SETS[k % 4], kind, k) for k in range(count)]
    return [Example(scene.image, "nobody", scene.source) for scene in scenes]


def measure(policy: Policy, images: int) -> dict[str, Any]:
    """Everything about one policy."""
    card: dict[str, Any] = {
        "questions": {},
        "text alone": {},
        "truth": {},
        "order": {},
        "calibration": {},
        "chances": {},
        "declined": {},
    }
    for name in tqdm(SETS, desc="sets"):
        seen = examples(name, images)
        for kind, build in QUESTIONS.items():
            for style in ("think", "answer"):
                r = Random(f"{name} {kind}")
                asked = [build(e, r, style) for e in seen]
                texts = responses(policy, asked)
                card["questions"].setdefault(kind, {}).setdefault(style, {})[name] = tally(asked, texts)
                if kind == "all 16 labels" and style == "think":
                    card["truth"][name] = truth(asked, texts)
        card["order"][name] = order(policy, seen)
        card["calibration"][name] = calibration(policy, seen)
        card["chances"][name] = chances(policy, seen)
    for style in ("think", "answer"):
        card["text alone"][style] = of_text(policy, examples("cartoon", images), style)
    for kind, pictures in {
        "noise": empty("noise", images), "meaningless shapes": empty("shapes", images),
        "empty places": empty("place", images), "photographs": photographs(images),
    }.items():  # fmt: skip
        card["declined"][kind] = declined(policy, pictures)
    return card


def tables(card: dict[str, Any]) -> dict[str, str]:
    """File name -> Markdown table."""
    lines = ["| question | right | well formed | answers from the list | right, answer only |", "| --- " * 5 + "|"]
    for kind, styles in card["questions"].items():
        sets = list(styles["think"].values())
        low, high = (percent(f(cell["right"] for cell in sets)) for f in (min, max))
        columns = [percent(float(np.mean([cell["right"] for cell in sets]))) + f" ({low} to {high})"]
        columns.append(percent(float(np.mean([cell["well_formed"] for cell in sets]))))
        listed = [cell["in_list"] for cell in sets if cell["in_list"] is not None]
        columns.append(percent(float(np.mean(listed))) if listed else "")
        columns.append(percent(float(np.mean([cell["right"] for cell in styles["answer"].values()]))))
        lines.append(f"| {kind} | {' | '.join(columns)} |")
    text = card["text alone"]
    shares = [*(text["think"][rate] for rate in ("right", "well_formed", "in_list")), text["answer"]["right"]]
    lines.append(f"| all 16 labels, of a text alone | {' | '.join(map(percent, shares))} |")
    away = ["| shown | declined, all 16 labels | declined, open |", "| --- | --- | --- |"]
    away += [
        f"| {kind} | {percent(s['all 16 labels'])} | {percent(s['open'])} |" for kind, s in card["declined"].items()
    ]
    rows = ["| label | greedy | sampled | right in one of 8 |", "| --- | --- | --- | --- |"]
    for label in ACTIVITIES:
        pairs = np.array([pair for by_label in card["chances"].values() for pair in by_label[label]])  # (images, 2)
        shares = [*pairs.mean(axis=0).tolist(), float((pairs[:, 1] > 0).mean())]
        rows.append(f"| {label} | {' | '.join(map(percent, shares))} |")
    said = [cell for cells in card["calibration"].values() for cell in cells]
    sure = ["| probability of the answer | images | right |", "| --- | --- | --- |"]
    for low in sorted({cell["from"] for cell in said}):
        cells = [cell for cell in said if cell["from"] == low]
        images = [cell["images"] for cell in cells]
        right = float(np.average([cell["right"] for cell in cells], weights=images))
        sure.append(f"| {percent(low)} to {percent(low + 0.2)} | {sum(images)} | {percent(right)} |")
    written = {"questions": lines, "declined": away, "chances": rows, "calibration": sure}
    return {f"card_{name}.md": "\n".join(table) + "\n" for name, table in written.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="pocket", help="a checkpoint (default: %(default)s)")
    parser.add_argument("--images", type=int, default=160, help="images per number and set (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results (default: beside this script)")
    options = parser.parse_args()
    card = measure(load_policy(options.policy), options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    for name, table in tables(card).items():
        (options.out / name).write_text(table, encoding="utf-8")
        print(table)
    print("true statements:", {name: round(share, 3) for name, share in card["truth"].items()})
    print("order:", card["order"])


if __name__ == "__main__":
    main()
