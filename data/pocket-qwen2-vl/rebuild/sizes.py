"""How the image size was chosen: ``python data/pocket-qwen2-vl/rebuild/sizes.py``.

For each size the tower trains from scratch for the same number of minutes, on the same scenes, alone on the machine;
its score on held-out scenes is compared with the image tokens that every prompt then needs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scenes import Scenes, draw
from tower import Heads, TowerSettings, fresh_tower, held_out, see, tower_loss, train_tower

HERE = Path(__file__).resolve().parent
HELD = 1024


def steps_in(seconds: float, scenes: Scenes, batch: int) -> int:
    """Training steps that fit into the time, estimated from ten steps that are discarded."""
    visual = fresh_tower()
    heads, rows = Heads(visual.merger.mlp[-1].out_features), np.arange(batch)
    started = time.time()
    for _ in range(10):
        tower_loss(heads, see(visual, torch.from_numpy(scenes.pixels[rows])), scenes, rows)[0].backward()
    return max(50, round(10 * seconds / (time.time() - started)))


def measure(size: int, minutes: float, count: int, work: Path) -> dict[str, Any]:
    """Train the tower at one size; statements seen on held-out scenes, and what it cost."""
    scenes, batch = draw(work / "scenes", count, size), TowerSettings.batch
    steps = steps_in(60 * minutes, scenes, batch)
    visual = fresh_tower()
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        train_tower(visual, scenes, TowerSettings(steps=steps), Path(folder), HELD)
        spent = time.time() - started
        heads = Heads(visual.merger.mlp[-1].out_features)
        heads.load_state_dict(torch.load(Path(folder) / "tower.pt", weights_only=True)["heads"])
    scores = held_out(visual, heads, scenes, np.arange(HELD))
    return {
        "size": size,
        "image_tokens": (size // 28) ** 2,
        "minutes": round(spent / 60, 2),
        "images": steps * batch,
        "statement_f1": round(scores["f1"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 140, 168, 224])
    parser.add_argument("--minutes", type=float, default=3.0, help="training time per size (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=16384, help="scenes to draw a size (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=HERE / "unfinished", help="where scenes go (default: %(default)s)")
    options = parser.parse_args()
    rows = [measure(size, options.minutes, options.scenes, options.work) for size in options.sizes]
    target = HERE.parent / "pretraining" / "sizes.json"
    target.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
