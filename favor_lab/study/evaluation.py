"""Evaluation: greedy answers to a list of examples, each kept with its text, and the rates computed from them."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from favor_lab.arguments import check_count
from favor_lab.files import write_json
from favor_lab.progress import progress_bar
from favor_lab.study.rounding import rounded

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.grpo.sampling import Rollout
    from favor_lab.vlm.policy import Policy
    from favor_lab.vlm.processing import PromptBatch


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927; Brown, Cai and DasGupta, 2001, equation 4). Unlike the
    textbook (Wald) interval it stays inside [0, 1] and keeps its coverage for few trials and for 0 or all successes.

    >>> [round(bound, 3) for bound in wilson_interval(8, 10)]
    [0.49, 0.943]
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"need 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    z, share = NormalDist().inv_cdf(0.5 + confidence / 2), successes / trials
    centre = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class Answered:
    """The answer to one example: the text and its verdicts."""

    source: str  #: file name or generator key of the image
    label: str  #: gold label
    answer: str | None  #: text between the answer tags, in the spelling of the label that it matches, if any
    correct: bool
    well_formed: bool
    statements: int  #: statements of evidence in the reasoning; 0 where their truth is not known
    true_statements: int
    text: str  #: the whole completion
    sampled: tuple[str | None, ...] = ()  #: the answers of further completions, drawn at random; spelt like `answer`

    @property
    def sampled_right(self) -> float:
        """Share of the sampled answers that are right; 0 without samples."""
        return self.sampled.count(self.label) / max(len(self.sampled), 1)

    def pass_at(self, count: int) -> float:
        """Chance that one of `count` of the sampled answers is right (pass@k, the unbiased estimate of Chen et al.,
        2021, arXiv 2107.03374). ValueError for more than were sampled.

        >>> sampled = ("reading", None, "phoning", "phoning")
        >>> answer = Answered("a.png", "reading", "phoning", False, True, 0, 0, "", sampled)
        >>> answer.pass_at(1), answer.pass_at(2), answer.pass_at(4), answer.majority_right
        (0.25, 0.5, 1.0, 0.0)
        """
        drawn, wrong = len(self.sampled), len(self.sampled) - self.sampled.count(self.label)
        if not 1 <= count <= drawn:
            raise ValueError(f"pass_at({count}) of {drawn} sampled answers: evaluate(..., samples={max(count, 1)})")
        return 1 - math.comb(wrong, count) / math.comb(drawn, count)

    @property
    def votes(self) -> Counter[str]:
        """How often each answer was sampled; completions without an answer do not vote."""
        return Counter(answer for answer in self.sampled if answer is not None)

    @property
    def agreement(self) -> float:
        """Share of the samples that gave the most frequent answer: how sure the policy is; 0 without samples."""
        return max(self.votes.values(), default=0) / max(len(self.sampled), 1)

    @property
    def majority_right(self) -> float:
        """Chance that the most frequent sampled answer is right: 1 or 0, or a share where several are equally frequent.
        Completions without an answer do not vote."""
        votes = self.votes
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        return winners.count(self.label) / max(len(winners), 1)


@dataclass(frozen=True)
class Evaluation:
    """Greedy answers of one policy on one list of examples, in the order of the examples, and sampled ones if asked."""

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

    @property
    def samples(self) -> int:
        """Sampled answers per example; 0 where only the greedy one was asked for."""
        return min(len(answer.sampled) for answer in self.answers)

    @property
    def sampled_accuracy(self) -> float | None:
        """Share of the sampled answers that are right; None without samples."""
        return sum(answer.sampled_right for answer in self.answers) / len(self) if self.samples else None

    @property
    def majority_accuracy(self) -> float | None:
        """Share of the examples whose most frequent sampled answer is right; None without samples."""
        return sum(answer.majority_right for answer in self.answers) / len(self) if self.samples else None

    def pass_at(self, count: int) -> float:
        """Chance that one of `count` sampled answers is right, mean of the examples."""
        return sum(answer.pass_at(count) for answer in self.answers) / len(self)

    def label_accuracy(self) -> dict[str, float]:
        """Accuracy by gold label, for the labels that occur."""
        right = {label: [a.correct for a in self.answers if a.label == label] for label in self.labels}
        return {label: float(np.mean(verdicts)) for label, verdicts in right.items() if verdicts}

    def confusion(self) -> np.ndarray:
        """Counts (K, K + 1): rows are gold labels, columns are answers, the last column is "no valid answer"."""
        size, column = len(self.labels), {label: i for i, label in enumerate(self.labels)}
        counts = np.zeros((size, size + 1), dtype=int)
        for answer in self.answers:
            counts[column[answer.label], column.get(answer.answer or "", size)] += 1
        return counts

    def summary(self) -> str:
        """The rates in one line."""
        share, low, high = (rounded(100 * part) for part in (self.accuracy, *self.interval))
        right = f"accuracy {share}% (95 % interval {low}% to {high}%, {self.correct} of {len(self)})"
        true = "" if self.truth_rate is None else f", true statements {rounded(100 * self.truth_rate, 0)}%"
        line = f"{right}, well formed {rounded(100 * self.format_rate, 0)}%{true}"
        if not self.samples:
            return line
        sampled, reached, voted = (rounded(100 * rate) for rate in self.sampled_rates().values())
        return f"{line}; sampled {self.samples} times: accuracy {sampled}%, one of them right {reached}%, vote {voted}%"

    def sampled_rates(self) -> dict[str, float]:
        """Accuracy of the sampled answers, pass@k for all of them, and accuracy of their majority; {} without."""
        if self.sampled_accuracy is None or self.majority_accuracy is None:
            return {}
        reached = {f"pass_at_{self.samples}": self.pass_at(self.samples)}
        return {"sampled_accuracy": self.sampled_accuracy, **reached, "majority_accuracy": self.majority_accuracy}

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON: the answers, and the computed rates, so that the file can be read without this library."""
        rates = {"accuracy": self.accuracy, "interval_95": list(self.interval), "format_rate": self.format_rate}
        return {**rates, "truth_rate": self.truth_rate, **self.sampled_rates(), **asdict(self)}

    def rates(self) -> dict[str, Any]:
        """Data for JSON: the rates without the answers, and the accuracy by label."""
        data = self.to_dict()
        del data["answers"], data["labels"]
        return {**data, "images": len(self), "correct": self.correct, "label_accuracy": self.label_accuracy()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evaluation:
        """What `to_dict` described. Raises ValueError for anything else, such as an evaluation without answers."""
        try:
            rows = [{**answer, "sampled": tuple(answer.get("sampled", ()))} for answer in data["answers"]]
            answers = [Answered(**row) for row in rows]
            evaluation = cls(data["policy"], data["style"], list(data["labels"]), answers, data["seconds"])
            if not answers or not all(map(evaluation.could_hold, answers)):
                raise ValueError("its answers are not as they were written, or there are none")
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"it is no evaluation: {error!r}") from error
        return evaluation

    def could_hold(self, answer: Answered) -> bool:
        """Whether an answer has a label of the list, and all its fields have their types."""
        texts, verdicts = (answer.source, answer.text), (answer.correct, answer.well_formed)
        counts = (answer.statements, answer.true_statements)
        return (
            all(isinstance(value, str) for value in texts)
            and all(value in (True, False) for value in verdicts)
            and all(isinstance(value, int) for value in counts)
            and all(isinstance(value, str | None) for value in (answer.answer, *answer.sampled))
            and answer.label in self.labels
        )

    def save(self, path: str | Path) -> Path:
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """What `save` wrote. Raises ValueError, with the file and what to do, for anything else."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or no evaluation ({error}): delete it to measure again") from error


def greedy_rollout(policy: Policy, prompts: PromptBatch, max_new_tokens: int = 128) -> Rollout:
    """Greedy decoding, the likeliest token at every position, for all prompts at once: a Rollout of B rows. It is
    `sample_groups` with top_k = 1: the same shared prefix, forbidden ids and end tokens as in training, and nothing
    from the checkpoint's generation_config."""
    from favor_lab.grpo.sampling import sample_groups

    return sample_groups(policy, prompts, group_size=1, max_new_tokens=max_new_tokens, seed=0, top_k=1)


def generate_greedy(policy: Policy, prompts: PromptBatch, max_new_tokens: int = 128) -> list[str]:
    """The texts of `greedy_rollout`: B completions without special tokens."""
    return greedy_rollout(policy, prompts, max_new_tokens).texts


def batches(examples: Sequence[Example], batch_size: int, verb: str) -> list[slice]:
    """Slices of at most `batch_size` examples. ValueError for no examples (to `verb`), and for a batch_size below 1."""
    if not examples:
        raise ValueError(f"no examples to {verb}")
    check_count("batch_size", batch_size, least=1)
    return [slice(first, first + batch_size) for first in range(0, len(examples), batch_size)]


def evaluate(
    policy: Policy,
    examples: Sequence[Example],
    labels: Sequence[str] | None,
    style: str = "think",
    max_new_tokens: int = 128,
    batch_size: int = 32,
    progress: str | None = None,
    *,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
) -> Evaluation:
    """Greedy answers to every example, judged by the same functions as the rewards.

    labels: the closed list named in the prompt, or None for an open vocabulary. progress: title of a progress bar, or
    None for no bar. samples: also this many completions of each example, drawn at this temperature with this seed, of
    which the answers are kept; a pass then has batch_size * samples rows. Raises ValueError for no examples, and for a
    gold label that is not in the list.
    """
    import torch

    from favor_lab.activities.labels import check_labels, normalise_label
    from favor_lab.grpo.sampling import sample_groups
    from favor_lab.vlm.processing import encode_prompts

    check_count("max_new_tokens", max_new_tokens, least=1)
    check_count("samples", samples)
    slices = batches(examples, batch_size, "evaluate")
    names = list(dict.fromkeys(example.label for example in examples)) if labels is None else labels
    check_labels(names)
    for example in examples:
        if example.label not in names:
            twin = next((name for name in names if normalise_label(name) == normalise_label(example.label)), None)
            signs = f" ({ascii(example.label)} is not {ascii(twin)})" if twin else ""
            missing = f"which is not in the list: {list(names)}{signs}"
            raise ValueError(f"{example.source} has the label {example.label!r}, {missing}")
    start, answers = time.perf_counter(), list[Answered]()
    generator = torch.Generator(policy.device).manual_seed(seed)
    with progress_bar(total=len(examples), desc=progress, unit="image", show=progress is not None) as bar:
        for part in slices:
            prompts = encode_prompts(policy, examples[part], labels, style, completion_tokens=max_new_tokens)
            pairs = zip(generate_greedy(policy, prompts, max_new_tokens), examples[part], strict=True)
            judged = [judge_answer(text, example, names, style) for text, example in pairs]
            if samples:
                rollout = sample_groups(policy, prompts, samples, max_new_tokens, temperature, generator=generator)
                drawn = [answer_of(text, names, style) for text in rollout.texts]  # N = B * samples, prompt-major
                rows = [tuple(drawn[samples * b : samples * (b + 1)]) for b in range(len(prompts))]
                judged = [replace(answer, sampled=row) for answer, row in zip(judged, rows, strict=True)]
            answers += judged
            bar.update(len(prompts))
    return Evaluation(policy.name, style, list(names), answers, time.perf_counter() - start)


def judge_answer(text: str, example: Example, labels: Sequence[str], style: str) -> Answered:
    """One completion with its verdicts; an answer that matches a label is kept in that label's spelling."""
    from favor_lab.grpo.rewards import format_reward, is_right
    from favor_lab.responses import judge_statements

    source, gold, answer = example.source, example.label, answer_of(text, labels, style)
    well_formed = bool(format_reward([text], style=style)[0])
    return Answered(
        source, gold, answer, is_right(text, gold, style), well_formed, *judge_statements(text, source), text
    )


def answer_of(text: str, labels: Sequence[str], style: str) -> str | None:
    """The answer in a completion, in the spelling of the label that it matches, if any; None without an answer."""
    from favor_lab.grpo.rewards import extract_answer, normalise_label

    answer = extract_answer(text, style)
    if answer is None:
        return None
    return {normalise_label(label): label for label in labels}.get(normalise_label(answer), answer)
