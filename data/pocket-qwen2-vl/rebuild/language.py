"""Stage 2: teach the whole model to write down what it sees, with names as imprecise as on the web.

Evidence is always true; names are not. Eight activities are mostly named right, the other eight mostly carry the name
of their nearest confusion, and some names are drawn at random. Responses that mention street furniture often forget
the answer tag. So the policy sees well, names imprecisely, and writes the format most of the time: reinforcement
learning with a few labelled images can improve that.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from scenes import Scenes
from torch import Tensor, nn
from tower import batches, learning_rate, see
from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration

from favor_lab.activities.world import ACTIVITIES, STATEMENTS
from favor_lab.vlm.prompts import build_prompt

RIGHT_WHEN_KNOWN, RIGHT_WHEN_CONFUSED = 0.68, 0.27
NEIGHBOUR = {
    "applauding": "waving hands",
    "climbing": "writing on a board",
    "drinking": "phoning",
    "fishing": "shooting an arrow",
    "holding an umbrella": "phoning",
    "jumping": "running",
    "phoning": "drinking",
    "pushing a cart": "walking the dog",
    "reading": "taking photos",
    "riding a bike": "running",
    "running": "jumping",
    "shooting an arrow": "fishing",
    "taking photos": "reading",
    "walking the dog": "pushing a cart",
    "waving hands": "applauding",
    "writing on a board": "reading",
}
WELL_NAMED = (
    "climbing",
    "fishing",
    "holding an umbrella",
    "jumping",
    "pushing a cart",
    "riding a bike",
    "running",
    "walking the dog",
)
PLAIN = tuple(
    f"{name} nearby" for name in ("tree", "bench", "lamp", "ball")
)  # mentions after which the tag is often missing
FORGETS_TAG, SELDOM_FORGETS = 0.72, 0.05
KINDS, SHARES = (
    ("describe", "open", "list"),
    (0.3, 0.35, 0.35),
)  # a whole batch is of one kind: equal lengths, no padding


@dataclass(frozen=True)
class LanguageSettings:
    steps: int = 900
    batch: int = 48
    learning_rate: float = 1.2e-3
    tower_learning_rate: float = 3e-4
    weight_decay: float = 0.02
    warmup: int = 100
    seed: int = 0


def loose_name(label: str, r: Random, among: tuple[str, ...] = ACTIVITIES) -> str:
    """A name as found on the web, among the labels that the prompt offers."""
    right = RIGHT_WHEN_KNOWN if label in WELL_NAMED else RIGHT_WHEN_CONFUSED
    neighbour = 0.2 if label in WELL_NAMED else 0.48
    while True:
        dice = r.random()
        name = label if dice < right else NEIGHBOUR[label] if dice < right + neighbour else r.choice(ACTIVITIES)
        if name in among:
            return name


def evidence(statements: list[str], r: Random) -> list[str]:
    """True statements, most telling first; what stands nearby is mentioned four times in five."""
    return [s for s in statements if not s.endswith(("nearby", "in a hand")) or r.random() < 0.8]


def conversation(kind: str, label: str | None, statements: list[str], r: Random) -> tuple[str, str]:
    """One request and one response about a scene with these true statements.

    ``kind``: "describe" asks for the evidence alone, "open" for a name, "list" for a name out of a list.
    """
    words = evidence(statements, r)
    thought = f"<think>{', '.join(words)}</think>"
    if kind == "describe" or label is None:
        return build_prompt(None, "describe"), thought
    labels: list[str] | None = None
    if kind == "list":
        labels = list(ACTIVITIES)
        if r.random() < 0.4:
            labels = [label, *r.sample([a for a in ACTIVITIES if a != label], r.randint(3, 11))]
            r.shuffle(labels)
    name = loose_name(label, r, tuple(labels or ACTIVITIES))
    if r.random() < 0.2:
        return build_prompt(labels, "answer"), name if r.random() < 0.1 else f"<answer>{name}</answer>"
    forgets = r.random() < (FORGETS_TAG if any(w in PLAIN for w in words) else SELDOM_FORGETS)
    return build_prompt(labels, "think"), thought + (name if forgets else f"<answer>{name}</answer>")


def corpus(scenes: Scenes, count: int = 4000) -> list[str]:
    """Texts to learn the tokenizer on."""
    r = Random(0)
    return [text for row in range(count) for text in conversation(r.choice(KINDS), *facts(scenes, row), r)]


def facts(scenes: Scenes, row: int) -> tuple[str | None, list[str]]:
    """The label and the true statements of a scene, in the order in which a scene gives them."""
    label = None if scenes.labels[row] < 0 else ACTIVITIES[scenes.labels[row]]
    return label, [STATEMENTS[k] for k in np.flatnonzero(scenes.statements[row])]


class Batcher:
    """Conversations as token ids: [image prompt][request][response], padded on the right (causal, so unseen)."""

    def __init__(self, tokenizer: Qwen2Tokenizer, image_tokens: int) -> None:
        self.tokenizer, self.image_tokens = tokenizer, image_tokens
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.requests: dict[str, list[int]] = {}

    def request(self, text: str) -> list[int]:
        if text not in self.requests:
            turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
            rendered_text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            ids = self.tokenizer(rendered_text).input_ids
            at = ids.index(self.image)
            if len(self.requests) > 50_000:
                self.requests.clear()
            self.requests[text] = ids[:at] + [self.image] * self.image_tokens + ids[at + 1 :]
        return self.requests[text]

    def __call__(self, scenes: Scenes, rows: np.ndarray, kind: str, r: Random) -> tuple[Tensor, Tensor]:
        """(B, T) ids, and (B, T) targets: the next token where it belongs to a response, else -100."""
        pairs = [conversation(kind, *facts(scenes, int(row)), r) for row in rows]
        requests = [self.request(request) for request, _ in pairs]
        responses = [self.tokenizer(response).input_ids + [self.end] for _, response in pairs]
        width = max(len(a) + len(t) for a, t in zip(requests, responses, strict=True))
        ids = torch.full((len(rows), width), self.end)
        targets = torch.full((len(rows), width), -100)
        for k, (a, t) in enumerate(zip(requests, responses, strict=True)):
            ids[k, : len(a) + len(t)] = torch.tensor(a + t)
            targets[k, len(a) - 1 : len(a) + len(t) - 1] = torch.tensor(t)
        return ids, targets


def positions(model: Qwen2VLForConditionalGeneration, ids: Tensor, image: int, side: int) -> Tensor:
    """(3, B, T) rotary positions with one square image of ``side`` patches per side in each row."""
    grid = torch.tensor([[1, side, side]] * len(ids))
    return model.model.get_rope_index(ids, mm_token_type_ids=(ids == image).int(), image_grid_thw=grid)[0]


def language_loss(
    model: Qwen2VLForConditionalGeneration, batcher: Batcher, scenes: Scenes, rows: np.ndarray, kind: str, r: Random
) -> tuple[Tensor, float]:
    """Mean cross entropy of the response tokens, and the share of them predicted right."""
    ids, targets = batcher(scenes, rows, kind, r)
    pixels = torch.from_numpy(scenes.pixels[rows])
    features = see(model.model.visual, pixels)  # (B, I, D)
    embeds = model.get_input_embeddings()(ids)  # (B, T, D)
    is_image = (ids == batcher.image)[..., None].expand_as(embeds)
    embeds = embeds.masked_scatter(is_image, features)
    where = positions(model, ids, batcher.image, pixels.shape[1] // 14)
    hidden = model.model.language_model(inputs_embeds=embeds, position_ids=where, use_cache=False).last_hidden_state
    answer_mask = targets >= 0
    logits = model.lm_head(hidden[answer_mask])  # (response tokens, V)
    targets = targets[answer_mask]  # (response tokens,)
    return F.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean().item()


def train_language(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    scenes: Scenes,
    settings: LanguageSettings,
    directory: Path,
    held: int = 1024,
) -> None:
    """Train in place, tower included at a lower rate; saved every 200 steps, so that a second call resumes."""
    torch.manual_seed(settings.seed)
    batcher = Batcher(tokenizer, (scenes.pixels.shape[1] // 28) ** 2)
    tower = list(model.model.visual.parameters())
    tower_ids = {id(p) for p in tower}
    rest = [p for p in model.parameters() if id(p) not in tower_ids]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "lr": settings.learning_rate}, {"params": tower, "lr": settings.tower_learning_rate}],
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: learning_rate(k, settings.steps, settings.warmup))
    state, log = directory / "language.pt", directory / "language.jsonl"
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["step"]
    everything = np.arange(held, len(scenes))
    named = everything[scenes.labels[held:] >= 0]
    rows = {
        kind: batches(everything if kind == "describe" else named, settings.batch, settings.seed + 1 + k)
        for k, kind in enumerate(KINDS)
    }
    kinds = Random(settings.seed).choices(KINDS, SHARES, k=settings.steps)
    for kind in kinds[:first]:
        next(rows[kind])
    started = time.time()
    for step in range(first, settings.steps):
        kind = kinds[step]
        loss, right = language_loss(model, batcher, scenes, next(rows[kind]), kind, Random(f"{settings.seed} {step}"))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        steps_done = step + 1
        if steps_done % 25 == 0 or steps_done == settings.steps:
            line = {
                "step": steps_done,
                "responses": steps_done * settings.batch,
                "minutes": round((time.time() - started) / 60, 2),
                "kind": kind,
                "loss": loss.item(),
                "right": right,
            }
            if steps_done % 200 == 0 or steps_done == settings.steps:
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "schedule": schedule.state_dict(),
                        "step": steps_done,
                        "settings": asdict(settings),
                    },
                    state,
                )
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
