"""Rebuild the pocket policy from scratch: ``python data/pocket-qwen2-vl/rebuild``.

Draws the pre-training scenes, trains the tower on evidence, trains the whole model on loosely named descriptions, and
writes a checkpoint in the layout of the Hub, with its logs and curves. Safe to kill: the same command resumes.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from checkpoint import build_config, build_tokenizer, save_checkpoint
from curves import draw_curves
from language import PARTS, corpus, train_language
from scenes import draw
from tower import TowerSettings, fresh_tower, train_tower
from transformers import Qwen2VLForConditionalGeneration

from favor_lab.activities.world import IMAGE_SIZE

VOCABULARY = 720
HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="rebuild", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=HERE.parent, help="where the checkpoint goes (default: %(default)s)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=HERE / "unfinished",
        help="scenes and unfinished training (4 GB; default: %(default)s)",
    )
    parser.add_argument("--scenes", type=int, default=65536, help="scenes to draw (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=IMAGE_SIZE, help="pixels per side, a multiple of 28 (default: %(default)s)"
    )
    parser.add_argument("--tower-steps", type=int, default=TowerSettings.steps, help="stage 1 (default: %(default)s)")
    longest = max(settings.steps for settings in PARTS.values())
    parser.add_argument(
        "--language-steps", type=int, default=longest, help="stage 2, at most in each part (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.size % 28:
        parser.error(f"--size {options.size} is not a multiple of 28 (a 14-pixel patch, merged 2 x 2)")
    options.work.mkdir(parents=True, exist_ok=True)
    scenes = draw(options.work / "scenes", options.scenes, options.size)
    held = min(1024, len(scenes) // 4)
    tokenizer = build_tokenizer(corpus(scenes, min(4000, len(scenes))), vocab_size=VOCABULARY)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(build_config(tokenizer))
    model.model.visual.load_state_dict(fresh_tower().state_dict())
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(tokenizer)} tokens", flush=True)
    train_tower(model.model.visual, scenes, TowerSettings(steps=options.tower_steps), options.work, held)
    for part, settings in PARTS.items():
        settings = replace(settings, steps=min(settings.steps, options.language_steps))
        train_language(model, tokenizer, scenes, settings, options.work, held, part)
    save_checkpoint(options.out, model, tokenizer, image_size=options.size)
    logs = options.out / "pretraining"
    logs.mkdir(exist_ok=True)
    for name in ("tower.jsonl", "language.jsonl"):
        shutil.copy(options.work / name, logs / name)
    draw_curves(logs)
    print(f"saved {options.out}; measure it with: favor-lab evaluate --data cartoon")


if __name__ == "__main__":
    main()
