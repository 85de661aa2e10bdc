"""Stage 2: teach the whole model to answer questions about what it sees, with names as imprecise as on the web.

What is asked is in `questions.py`, how loose the names are in `naming.py`. So the policy sees well, reads the question,
names imprecisely, and writes the format most of the time: reinforcement learning with a few labelled images can improve
that.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from questions import FIRST, LISTS, READING, SECOND, Form, Mix, Seen, conversation
from scenes import Scenes
from torch import Tensor, nn
from tower import batches, learning_rate, see
from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration

from favor_lab.activities.world import ACTIVITIES, NEW_PLANS, NOBODY, STATEMENTS, USES

KINDS = tuple(FIRST.shares)
UNNAMED = [STATEMENTS.index(USES[plan.use]) for plan in NEW_PLANS.values()]  # scenes with this are never named


@dataclass(frozen=True)
class LanguageSettings:
    steps: int = 2800
    mix: Mix = FIRST
    reasoning_weight: float = 1.0  # of a token of the reasoning, next to one of the answer
    forms: int = 3  # questions of so many forms in each step
    batch: int = 16  # of each form
    learning_rate: float = 1.2e-3
    tower_learning_rate: float = 3e-4
    weight_decay: float = 0.02
    warmup: int = 100
    enough: float = 0.0  # ends when the mean loss of 25 steps is below it; 0: after `steps`, the rates falling to 0
    seed: int = 0


def lesson(kind: str, enough: float, choices: int = 4) -> LanguageSettings:
    """A part of one kind of question alone, about images, with short and exact answers; the tower is frozen. When it is
    learnt differs much from run to run, so it ends when the loss is low enough."""
    mix = Mix({kind: 1.0}, 1.0, exact=True, choices=choices)
    return LanguageSettings(
        500, mix, forms=1, batch=64, learning_rate=1e-3, tower_learning_rate=0.0, warmup=30, enough=enough, seed=1
    )


# In the first part the policy learns to describe and to name. What compares the image with several phrases of the
# question stays at chance there, even after 13 000 questions among others; alone, each kind is learnt in about as many.
PARTS = {
    "first": LanguageSettings(),
    "better": lesson("better", 0.035),
    "choice of 2": lesson("choice", 0.035, choices=2),
    "choice of 4": lesson("choice", 0.06, choices=4),
    "yes or no": lesson("yes or no", 0.06),
    "false statement": lesson("false statement", 0.18),
    "together": LanguageSettings(
        1100, SECOND, 0.3, forms=2, batch=32, learning_rate=8e-4, tower_learning_rate=1e-4, warmup=50, seed=2
    ),
    "reading lists": LanguageSettings(
        220, READING, 0.3, forms=2, batch=32, learning_rate=1e-3, tower_learning_rate=0.0, warmup=30, seed=3
    ),
    "lists": LanguageSettings(
        350, LISTS, 0.3, forms=2, batch=32, learning_rate=4e-4, tower_learning_rate=0.0, warmup=30, seed=4
    ),
}


def corpus(scenes: Scenes, count: int = 4000) -> list[str]:
    """Texts to learn the tokenizer on."""
    r = Random(0)
    rows = rows_by_kind(scenes, 0)
    forms = [Form.draw(r, FIRST) for _ in range(count)]
    return [text for form in forms for text in conversation(form, facts(scenes, int(r.choice(rows[form.kind]))), r)]


def facts(scenes: Scenes, row: int) -> Seen:
    """The label and the true statements of a scene, in the order in which a scene gives them."""
    label = None if scenes.labels[row] < 0 else ACTIVITIES[scenes.labels[row]]
    return Seen(label, tuple(STATEMENTS[k] for k in np.flatnonzero(scenes.statements[row])))


def rows_by_kind(scenes: Scenes, held: int) -> dict[str, np.ndarray]:
    """The scenes from `held` on that each kind of question may be asked of."""
    named = scenes.labels >= 0
    empty = scenes.statements[:, STATEMENTS.index(NOBODY)]
    unnamed = scenes.statements[:, UNNAMED].any(1)
    every = np.ones(len(scenes), bool)
    fit = {"describe": every, "false statement": every, "open": named | empty}
    fit |= dict.fromkeys(("list", "choice"), named | empty | ~unnamed & (np.arange(len(scenes)) % 3 == 0))
    fit |= dict.fromkeys(("yes or no", "several", "better", "text"), named)
    return {kind: np.flatnonzero(fit[kind] & (np.arange(len(scenes)) >= held)) for kind in KINDS}


class Batcher:
    """Conversations as token ids: [image prompt][request][response], padded on the right (causal, so unseen). Questions
    about a text have no image."""

    def __init__(self, tokenizer: Qwen2Tokenizer, image_tokens: int) -> None:
        self.tokenizer, self.image_tokens = tokenizer, image_tokens
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.image = tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def request(self, text: str, with_image: bool) -> list[int]:
        """The user's turn, up to where the response begins."""
        image = [{"type": "image"}] if with_image else []
        turn = [{"role": "user", "content": [*image, {"type": "text", "text": text}]}]
        rendered_text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(rendered_text).input_ids
        if not with_image:
            return ids
        at = ids.index(self.image)
        return ids[:at] + [self.image] * self.image_tokens + ids[at + 1 :]

    def __call__(self, scenes: Scenes, rows: np.ndarray, form: Form, r: Random) -> tuple[Tensor, Tensor, Tensor]:
        """Three of (B, T): ids; targets, the next token where it belongs to a response, else -100; and weights, 0 where
        that token belongs to the reasoning before an answer, else 1."""
        pairs = [conversation(form, facts(scenes, int(row)), r) for row in rows]
        requests = [self.request(request, form.kind != "text") for request, _ in pairs]
        responses = [self.tokenizer(response).input_ids + [self.end] for _, response in pairs]
        width = max(len(a) + len(t) for a, t in zip(requests, responses, strict=True))
        ids = torch.full((len(rows), width), self.end)
        targets = torch.full((len(rows), width), -100)
        weights = torch.ones(len(rows), width)
        for k, (a, t) in enumerate(zip(requests, responses, strict=True)):
            ids[k, : len(a) + len(t)] = torch.tensor(a + t)
            targets[k, len(a) - 1 : len(a) + len(t) - 1] = torch.tensor(t)
            reasoning, _, answer = pairs[k][1].rpartition("</think>")
            if answer:
                weights[k, len(a) - 1 : len(a) - 1 + len(self.tokenizer(reasoning).input_ids)] = 0
        return ids, targets, weights


def positions(model: Qwen2VLForConditionalGeneration, ids: Tensor, image: int, side: int) -> Tensor:
    """(3, B, T) rotary positions with at most one square image of `side` patches per side in each row."""
    is_image = (ids == image).int()
    grid = torch.tensor([[1, side, side]] * len(ids)) if is_image.any() else None
    return model.model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=grid)[0]


def language_loss(
    model: Qwen2VLForConditionalGeneration,
    ids: Tensor,
    targets: Tensor,
    pixels: Tensor,
    image: int,
    weights: Tensor | None = None,
) -> Tensor:
    """Weighted mean cross entropy of the response tokens. `image` is the id of an image token; `pixels` (B, S, S, 3)
    are left out if there is none."""
    embeds = model.get_input_embeddings()(ids)  # (B, T, D)
    if (ids == image).any():
        features = see(model.model.visual, pixels)  # (B, I, D)
        is_image = (ids == image)[..., None].expand_as(embeds)
        embeds = embeds.masked_scatter(is_image, features)
    where = positions(model, ids, image, pixels.shape[1] // 14)
    hidden = model.model.language_model(inputs_embeds=embeds, position_ids=where, use_cache=False).last_hidden_state
    answer_mask = targets >= 0
    logits = model.lm_head(hidden[answer_mask])  # (response tokens, V)
    losses = F.cross_entropy(logits, targets[answer_mask], reduction="none")  # (response tokens,)
    return losses.mean() if weights is None else (losses * weights[answer_mask]).sum() / weights[answer_mask].sum()


def train_language(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    scenes: Scenes,
    settings: LanguageSettings,
    directory: Path,
    held: int = 1024,
    part: str = "first",
) -> None:
    """Train in place, tower included at a lower rate; saved every 200 steps, so that a second call resumes. `part`
    names the file of the unfinished training and the lines of the log ``language.jsonl``."""
    torch.manual_seed(settings.seed)
    batcher = Batcher(tokenizer, (scenes.pixels.shape[1] // 28) ** 2)
    tower = list(model.model.visual.parameters())
    model.model.visual.requires_grad_(settings.tower_learning_rate > 0)
    tower_ids = {id(p) for p in tower}
    rest = [p for p in model.parameters() if id(p) not in tower_ids]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "lr": settings.learning_rate}, {"params": tower, "lr": settings.tower_learning_rate}],
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
    )
    whole = 10**9 if settings.enough else settings.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: learning_rate(k, whole, settings.warmup))
    state, log = directory / f"{part.replace(' ', '-')}.pt", directory / "language.jsonl"
    first, learnt = 0, False
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first, learnt = saved["step"], saved["learnt"]
    fit = rows_by_kind(scenes, held)
    if settings.mix.exact:
        fit = {kind: picked[scenes.labels[picked] >= 0] for kind, picked in fit.items()}
    rows = {
        kind: batches(picked, settings.batch, settings.seed + 1 + k) for k, (kind, picked) in enumerate(fit.items())
    }
    dice = Random(settings.seed)
    forms = [[Form.draw(dice, settings.mix) for _ in range(settings.forms)] for _ in range(settings.steps)]
    for form in chain.from_iterable(forms[:first]):
        next(rows[form.kind])
    started = time.time()
    losses: dict[str, list[float]] = {}  # by kind, since the last line of the log
    for step in range(settings.steps if learnt else first, settings.steps):
        optimiser.zero_grad(set_to_none=True)
        for form in forms[step]:
            picked = next(rows[form.kind])
            ids, targets, weights = batcher(scenes, picked, form, Random(f"{settings.seed} {step} {form}"))
            weights = weights.where(weights == 1, settings.reasoning_weight)
            pixels = torch.from_numpy(scenes.pixels[picked])
            loss = language_loss(model, ids, targets, pixels, batcher.image, weights)
            (loss / settings.forms).backward()
            losses.setdefault(form.kind, []).append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        steps_done = step + 1
        if steps_done % 25 == 0 or steps_done == settings.steps:
            line = {
                "part": part,
                "step": steps_done,
                "responses": steps_done * settings.batch * settings.forms,
                "minutes": round((time.time() - started) / 60, 2),
                "loss": {kind: round(sum(values) / len(values), 4) for kind, values in losses.items()},
            }
            losses, mean = {}, sum(line["loss"].values()) / len(line["loss"])
            learnt = mean < settings.enough
            if steps_done % 200 == 0 or steps_done == settings.steps or learnt:
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "schedule": schedule.state_dict(),
                        "step": steps_done,
                        "learnt": learnt,
                        "settings": asdict(settings),
                    },
                    state,
                )
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
            if learnt:
                return
