"""What a policy gets right: greedy answers, each kept with its text, and the rates computed from them."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.files import write_whole
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.grpo.support.settings import GRPOSettings
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch

THOUGHT = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927; Brown, Cai and DasGupta, 2001, equation 4).

    Unlike the textbook interval it stays inside [0, 1] and is honest for few trials and for 0 or all successes.

    >>> [round(bound, 3) for bound in wilson_interval(8, 10)]
    [0.49, 0.943]
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"need 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class Answered:
    """One example, answered: what was written and how it was judged."""

    source: str  #: file name or generator key of the image
    label: str  #: gold label
    answer: str | None  #: text between the answer tags, as the matching label of the list where there is one
    correct: bool
    well_formed: bool
    statements: int  #: statements of evidence in the text; 0 where their truth is not known
    true_statements: int
    text: str  #: the whole completion


@dataclass(frozen=True)
class Evaluation:
    """Greedy answers of one policy on one list of examples, in the order of the examples."""

    policy: str
    style: str
    labels: list[str]
    answers: list[Answered]
    seconds: float

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def correct(self) -> int:
        return sum(answer.correct for answer in self.answers)

    @property
    def accuracy(self) -> float:
        return self.correct / len(self)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, len(self))

    @property
    def format_rate(self) -> float:
        return sum(answer.well_formed for answer in self.answers) / len(self)

    @property
    def truth_rate(self) -> float | None:
        """Share of the statements of evidence that are true of their image; None where no truth is known."""
        stated = sum(answer.statements for answer in self.answers)
        return sum(answer.true_statements for answer in self.answers) / stated if stated else None

    def label_accuracy(self) -> dict[str, float]:
        """Accuracy by gold label, for the labels that occur."""
        return {
            label: float(np.mean([a.correct for a in self.answers if a.label == label]))
            for label in self.labels
            if any(a.label == label for a in self.answers)
        }

    def confusion(self) -> np.ndarray:
        """Counts (K, K + 1): rows are gold labels, columns are answers, the last column is "no valid answer"."""
        column = {label: i for i, label in enumerate(self.labels)}
        counts = np.zeros((len(self.labels), len(self.labels) + 1), dtype=int)
        for answer in self.answers:
            counts[column[answer.label], column.get(answer.answer or "", len(self.labels))] += 1
        return counts

    def summary(self) -> str:
        """The rates in one line."""
        share, low, high = (rounded(100 * part) for part in (self.accuracy, *self.interval))
        parts = [f"accuracy {share}% (95 % interval {low}% to {high}%, {self.correct} of {len(self)})"]
        parts.append(f"well formed {rounded(100 * self.format_rate, 0)}%")
        if self.truth_rate is not None:
            parts.append(f"true statements {rounded(100 * self.truth_rate, 0)}%")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the computed rates beside the answers so that the file can be read by itself."""
        low, high = self.interval
        rates = {"accuracy": self.accuracy, "interval_95": [low, high], "format_rate": self.format_rate}
        return {**rates, "truth_rate": self.truth_rate, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evaluation:
        answers = [Answered(**answer) for answer in data["answers"]]
        return cls(data["policy"], data["style"], list(data["labels"]), answers, data["seconds"])

    def save(self, path: str | Path) -> Path:
        return write_whole(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def generate_greedy(policy: Policy, prompts: PromptBatch, max_new_tokens: int = 128) -> list[str]:
    """The likeliest token at every position, for all prompts at once: B texts without special tokens.

    Greedy decoding is sampling from the one likeliest token, so this is `sample_groups` with top_k = 1: the same
    shared prefix, forbidden ids and end tokens as in training, and nothing from the checkpoint's generation_config.
    """
    from favor_lab.grpo.sampling import sample_groups

    return sample_groups(policy, prompts, group_size=1, max_new_tokens=max_new_tokens, seed=0, top_k=1).texts


def evaluate(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    max_new_tokens: int = 128,
    batch_size: int = 32,
    progress: str | None = None,
) -> Evaluation:
    """Ask the policy about every example, greedily, and judge the answers as the rewards do.

    labels: the closed list named in the prompt, or None for an open vocabulary. progress: title of a progress bar, or
    None for no bar. Raises ValueError for no examples, and for a gold label that is not in the list.
    """
    from tqdm.auto import tqdm

    from favor_lab.vlm.processing import encode_prompts

    if not examples:
        raise ValueError("no examples to evaluate")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    known = list(dict.fromkeys(example.label for example in examples)) if labels is None else list(labels)
    for example in examples:
        if example.label not in known:
            raise ValueError(f"{example.source} has the label {example.label!r}, which is not in the list: {known}")
    start, answers = time.perf_counter(), []
    with tqdm(total=len(examples), desc=progress, unit="image", disable=progress is None) as bar:
        for first in range(0, len(examples), batch_size):
            batch = examples[first : first + batch_size]
            prompts = encode_prompts(policy, batch, labels, style, completion_tokens=max_new_tokens)
            texts = generate_greedy(policy, prompts, max_new_tokens)
            answers += [judge(text, example, known, style) for text, example in zip(texts, batch, strict=True)]
            bar.update(len(batch))
    return Evaluation(policy.name, style, known, answers, time.perf_counter() - start)


def judge(text: str, example: Example, labels: Sequence[str], style: str) -> Answered:
    """One completion with its verdicts; an answer that matches a label is kept in that label's spelling."""
    from favor_lab.grpo.rewards import extract_answer, format_reward, is_right, normalise_label

    spelling = {normalise_label(label): label for label in labels}
    answer = extract_answer(text)
    if answer is not None:
        answer = spelling.get(normalise_label(answer), answer)
    stated, true = judge_statements(text, example.source)
    well_formed = bool(format_reward([text], style=style)[0])
    return Answered(
        example.source, example.label, answer, is_right(text, example.label), well_formed, stated, true, text
    )


@dataclass(frozen=True)
class JudgedGroup:
    """One image answered G times by sampling: what a step of training sees of it."""

    source: str
    label: str
    texts: list[str]
    rewards: dict[str, list[float]]  #: by name, G each
    advantages: list[float]

    @property
    def spread(self) -> float:
        """Standard deviation (n) of the summed rewards."""
        return float(np.std([sum(values) for values in zip(*self.rewards.values(), strict=True)]))

    def summary(self) -> str:
        """The answers with their numbers, the most frequent first.

        >>> JudgedGroup("a.png", "reading", ["<answer>reading</answer>"] * 3 + ["?"], {}, []).summary()
        '3 x reading, 1 x no answer'
        """
        from favor_lab.grpo.rewards import extract_answer, normalise_label

        answers = (extract_answer(text) for text in self.texts)
        counts = Counter("no answer" if answer is None else normalise_label(answer) for answer in answers)
        return ", ".join(f"{count} x {answer}" for answer, count in counts.most_common())


def sample_judged_groups(
    policy: Policy, examples: Sequence[Example], labels: Sequence[str] | None, settings: GRPOSettings
) -> list[JudgedGroup]:
    """Sample a group for each example and judge it with the default rewards and advantages; nothing is learnt."""
    import torch

    from favor_lab.grpo.advantages import group_advantages
    from favor_lab.grpo.rewards import accuracy_reward, format_reward
    from favor_lab.grpo.sampling import sample_groups
    from favor_lab.vlm.processing import encode_prompts

    size, tokens = settings.group_size, settings.max_new_tokens
    prompts = encode_prompts(policy, examples, labels, settings.style, completion_tokens=tokens)
    rollout = sample_groups(policy, prompts, size, tokens, settings.temperature, seed=settings.seed)
    groups = []
    for b, example in enumerate(examples):
        texts = rollout.texts[b * size : (b + 1) * size]
        rewards = {
            "accuracy_reward": accuracy_reward(texts, label=example.label),
            "format_reward": format_reward(texts, style=settings.style),
        }
        totals = torch.tensor(list(rewards.values())).sum(dim=0, keepdim=True)  # (1, G)
        advantages = group_advantages(totals, settings.scale, settings.eps, settings.unbiased)[0].tolist()
        groups.append(JudgedGroup(example.source, example.label, texts, rewards, advantages))
    return groups


def reasoning_statements(text: str) -> list[str]:
    """What the reasoning of a response says, in its order: cut at full stops, commas and semicolons, in lower case;
    what is said twice counts once. Empty for a response without reasoning; a `<think>` left open reaches to the end.

    >>> reasoning_statements("<think>Standing, hands together. standing</think><answer>applauding</answer>")
    ['standing', 'hands together']
    """
    thought = THOUGHT.search(text)
    pieces = re.split(r"[.,;\n]", thought[1]) if thought else []
    return [piece for piece in dict.fromkeys(piece.strip().casefold() for piece in pieces) if piece]


def judge_statements(text: str, source: str) -> tuple[int, int]:
    """How many statements the reasoning makes about a drawn scene, and how many of them are true: (stated, true).

    The statements are those of `reasoning_statements`; what the scene's language has no statement for counts as stated
    and not true. (0, 0) for images whose truth is not known.

    >>> judge_statements("<think>phone at the ear. dancing.</think><answer>phoning</answer>", "cartoon/test/00006")
    (2, 1)
    """
    from favor_lab.activities.pocket import is_pocket_source, scene_from_source

    stated = reasoning_statements(text)
    if not stated or not is_pocket_source(source):
        return 0, 0
    return len(stated), len(set(stated) & set(scene_from_source(source).truth.statements))
