"""Stage 1: teach the vision tower to see evidence, from the ground truth that the generator has for every scene.

Each merged image token predicts which joints and things are in its 28 x 28 cell and where; the tokens together predict
which statements are true. No activity name is used. The heads are discarded afterwards.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from checkpoint import CLIP_MEAN, CLIP_STD, build_config, build_tokenizer
from scenes import Scenes
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from favor_lab.activities.world import JOINTS, STATEMENTS, THINGS

KINDS = tuple(
    dict.fromkeys(name.split("_")[0] for name in JOINTS)
)  # head, neck, shoulder, elbow, hand, hip, knee, foot


@dataclass(frozen=True)
class TowerSettings:
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup: int = 150
    seed: int = 0


def fresh_tower() -> nn.Module:
    """The untrained tower; it does not depend on the texts."""
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(build_config(build_tokenizer(["a"], 280))).model.visual


def patches_of(pixels: Tensor, patch: int = 14, merge: int = 2) -> Tensor:
    """(B, S, S, 3) uint8 -> (B * patches, 3 * patch * patch): the layout of the image processor for one frame."""
    b, size = pixels.shape[0], pixels.shape[1]
    cells = size // (patch * merge)
    x = (pixels.float() / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    x = x.view(
        b, cells, merge, patch, cells, merge, patch, 3
    )  # rows, row in cell, y, columns, column in cell, x, channel
    return x.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(b * (cells * merge) ** 2, 3 * patch * patch)


def see(visual: nn.Module, pixels: Tensor) -> Tensor:
    """Image tokens (B, I, D) of equally large images: the tower's own modules, with attention batched over images."""
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
    from transformers.vision_utils import get_vision_position_ids

    b, side = pixels.shape[0], pixels.shape[1] // 14
    weight = visual.patch_embed.proj.weight.sum(2).flatten(1)  # the two frames of a still image are the same
    x = F.linear(patches_of(pixels), weight).view(b, side * side, -1)  # (B, patches, D)
    grid = torch.tensor([[1, side, side]])
    cos, sin = visual.rotary_pos_emb(x, get_vision_position_ids(grid, 2))
    for block in visual.blocks:
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(x)).view(b, side * side, 3, heads, -1).unbind(2)  # (B, patches, heads, d)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        attended = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        x = x + block.attn.proj(attended.transpose(1, 2).flatten(2))
        x = x + fast_mlp(block.mlp, block.norm2(x))
    return visual.merger(x.flatten(0, 1)).view(b, side * side // 4, -1)


def fast_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    """The block's MLP with quick_gelu(h) = h * sigmoid(1.702 h) written as silu(1.702 h) / 1.702: one fused kernel."""
    h = F.silu(F.linear(x, 1.702 * mlp.fc1.weight, 1.702 * mlp.fc1.bias))
    return F.linear(h, mlp.fc2.weight / 1.702, mlp.fc2.bias)


def cell_targets(scenes: Scenes, rows: np.ndarray, cells: int) -> tuple[Tensor, Tensor]:
    """(B, I, kinds + things) presence and (B, I, kinds, 2) place of each kind of joint inside the cell."""
    joints = scenes.joints[rows]  # (B, J, 2)
    b = len(rows)
    there = ~np.isnan(joints[..., 0])  # (B, J)
    at = np.clip((np.nan_to_num(joints) * cells).astype(int), 0, cells - 1)
    presence = np.zeros((b, cells * cells, len(KINDS) + len(THINGS)), np.float32)
    place = np.zeros((b, cells * cells, len(KINDS), 2), np.float32)
    which = np.arange(b)
    for j, name in enumerate(JOINTS):
        kind = KINDS.index(name.split("_")[0])
        somebody = there[:, j]
        cell = (at[:, j, 1] * cells + at[:, j, 0])[somebody]
        presence[which[somebody], cell, kind] = 1
        place[which[somebody], cell, kind] = (joints[:, j] * cells - at[:, j])[somebody]
    low = np.arange(cells) / cells
    boxes = scenes.boxes[rows][:, :, None, :]  # (B, T, 1, 4)
    with np.errstate(invalid="ignore"):
        wide = np.clip(
            np.minimum(boxes[..., 2], low + 1 / cells) - np.maximum(boxes[..., 0], low), 0, None
        )  # (B, T, cells)
        high = np.clip(np.minimum(boxes[..., 3], low + 1 / cells) - np.maximum(boxes[..., 1], low), 0, None)
    area = high[..., :, None] * wide[..., None, :] * cells * cells  # (B, T, cells, cells)
    presence[:, :, len(KINDS) :] = (np.nan_to_num(area) > 0.08).reshape(b, len(THINGS), -1).transpose(0, 2, 1)
    return torch.from_numpy(presence), torch.from_numpy(place)


class Heads(nn.Module):
    """The heads, discarded after stage 1: a linear reading of each cell and a pooled reading of the statements."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.presence = nn.Linear(width, len(KINDS) + len(THINGS))
        self.place = nn.Linear(width, 2 * len(KINDS))
        self.query = nn.Linear(width, 4)
        self.statements = nn.Sequential(nn.Linear(4 * width, 256), nn.GELU(), nn.Linear(256, len(STATEMENTS)))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.norm(tokens)  # (B, I, D)
        pooled = torch.einsum("bik,bid->bkd", self.query(x).softmax(1), x).flatten(1)  # (B, 4 * D)
        return self.presence(x), self.place(x), self.statements(pooled)


def tower_loss(heads: Heads, tokens: Tensor, scenes: Scenes, rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
    cells = round(tokens.shape[1] ** 0.5)
    presence, place = cell_targets(scenes, rows, cells)
    truth = torch.from_numpy(scenes.statements[rows]).float()
    presence_logits, place_guess, statement_logits = heads(tokens)
    weight = torch.where(presence > 0, 4.0, 1.0)
    cell = F.binary_cross_entropy_with_logits(presence_logits, presence, weight)
    here = presence[..., : len(KINDS), None]
    offset = (here * (place_guess.view_as(place) - place).abs()).sum() / here.sum().clamp(min=1) / 2
    statement = F.binary_cross_entropy_with_logits(statement_logits, truth)
    with torch.no_grad():
        hits = ((statement_logits > 0) & (truth > 0)).sum().item()
        f1 = 2 * hits / max(1.0, (statement_logits > 0).sum().item() + truth.sum().item())
    return cell + 0.3 * offset + 2 * statement, {
        "cell": cell.item(),
        "offset": offset.item(),
        "statement": statement.item(),
        "f1": f1,
    }


def batches(rows: np.ndarray, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of these rows, shuffled anew in each round."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(rows)
        for k in range(0, len(order) - batch + 1, batch):
            yield order[k : k + batch]


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


@torch.no_grad()
def held_out(visual: nn.Module, heads: Heads, scenes: Scenes, rows: np.ndarray) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in np.array_split(rows, max(1, len(rows) // 128)):
        _, values = tower_loss(heads, see(visual, torch.from_numpy(scenes.pixels[part])), scenes, part)
        for name, value in values.items():
            total[name] = total.get(name, 0.0) + value * len(part) / len(rows)
    return total


def train_tower(
    visual: nn.Module, scenes: Scenes, settings: TowerSettings, directory: Path, held: int = 1024, seconds: float = 1e9
) -> None:
    """Train in place; the state is saved every 250 steps, so that a second call resumes where the first stopped."""
    torch.manual_seed(settings.seed)
    heads = Heads(visual.merger.mlp[-1].out_features)
    weights = [*visual.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(
        weights, settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: learning_rate(k, settings.steps, settings.warmup))
    state, log = directory / "tower.pt", directory / "tower.jsonl"
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        visual.load_state_dict(saved["visual"])
        heads.load_state_dict(saved["heads"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["step"]
    rows = batches(np.arange(held, len(scenes)), settings.batch, settings.seed)
    for _ in range(first):
        next(rows)
    started = time.time()
    for step in range(first, settings.steps):
        picked = next(rows)
        loss, values = tower_loss(heads, see(visual, torch.from_numpy(scenes.pixels[picked])), scenes, picked)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        steps_done = step + 1
        if steps_done % 50 == 0 or steps_done == settings.steps:
            line = {
                "step": steps_done,
                "images": steps_done * settings.batch,
                "minutes": round((time.time() - started) / 60, 2),
                **values,
            }
            if steps_done % 250 == 0 or steps_done == settings.steps:
                line["held_out"] = held_out(visual, heads, scenes, np.arange(held))
                torch.save(
                    {
                        "visual": visual.state_dict(),
                        "heads": heads.state_dict(),
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
        if time.time() - started > seconds:
            return
