"""Draw the pre-training scenes once into flat arrays, so that no epoch has to draw them again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from favor_lab.activities.world import ACTIVITIES, EMPTY_KINDS, JOINTS, SETS, STATEMENTS, THINGS, Scene, draw_scene

CHUNK = 512
EMPTY = 12  # one scene in so many shows nobody
EMPTY_FROM = 1_000_000  # the empty images below are kept for measuring


@dataclass
class Scenes:
    """``n`` scenes: pixels, and everything that is true of them."""

    pixels: np.ndarray  # (n, size, size, 3) uint8
    statements: np.ndarray  # (n, len(STATEMENTS)) bool
    joints: np.ndarray  # (n, len(JOINTS), 2) float32, picture units, NaN where nobody is
    boxes: np.ndarray  # (n, len(THINGS), 4) float32, NaN where the thing is absent
    labels: np.ndarray  # (n,) int64, -1 for scenes without an activity
    looks: np.ndarray  # (n,) int64, index into SETS

    def __len__(self) -> int:
        return len(self.labels)


def pretraining_scene(set_name: str, split: str, index: int, size: int) -> Scene:
    """Scene `index` of a set as pre-training sees it; some show nobody."""
    if index % EMPTY < EMPTY - 1:
        return draw_scene(set_name, split, index, size)
    return draw_scene(set_name, EMPTY_KINDS[index // EMPTY % len(EMPTY_KINDS)], EMPTY_FROM + index, size)


def draw_chunk(chunk: int, directory: Path, split: str, size: int) -> None:
    """Draw scenes ``chunk * CHUNK ...``; the set alternates with the index, so that every chunk has all four."""
    target = directory / f"{split}-{size}-{chunk:05d}.npz"
    if target.exists():
        return
    columns: dict[str, list] = {"pixels": [], "statements": [], "joints": [], "boxes": [], "labels": [], "looks": []}
    for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        look = index % len(SETS)
        scene = pretraining_scene(SETS[look], split, index // len(SETS), size)
        columns["pixels"].append(np.asarray(scene.image))
        columns["statements"].append([s in scene.truth.statements for s in STATEMENTS])
        columns["joints"].append([scene.truth.joints.get(name, (np.nan,) * 2) for name in JOINTS])
        columns["boxes"].append([scene.truth.objects.get(name, (np.nan,) * 4) for name in THINGS])
        columns["labels"].append(-1 if scene.label is None else ACTIVITIES.index(scene.label))
        columns["looks"].append(look)
    partial_file = target.with_suffix(".tmp.npz")
    np.savez(partial_file, **{name: np.asarray(rows) for name, rows in columns.items()})
    partial_file.rename(target)


def draw(directory: Path, count: int, size: int, split: str = "pretrain", workers: int = 2) -> Scenes:
    """Draw ``count`` scenes (rounded up to whole chunks) or load them if they are already drawn."""
    directory.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-count // CHUNK))
    job = partial(draw_chunk, directory=directory, split=split, size=size)
    with Pool(workers) as pool:
        for _ in tqdm(pool.imap_unordered(job, chunks), total=len(chunks), desc=f"drawing {split} at {size} px"):
            pass
    files = [np.load(directory / f"{split}-{size}-{chunk:05d}.npz") for chunk in chunks]
    pixels = np.empty((len(files) * CHUNK, size, size, 3), np.uint8)
    for k, file in enumerate(files):
        pixels[k * CHUNK : (k + 1) * CHUNK] = file["pixels"]
    rest = {
        name: np.concatenate([file[name] for file in files])
        for name in ("statements", "joints", "boxes", "labels", "looks")
    }
    return Scenes(
        pixels,
        rest["statements"],
        rest["joints"].astype(np.float32),
        rest["boxes"].astype(np.float32),
        rest["labels"].astype(np.int64),
        rest["looks"].astype(np.int64),
    )
