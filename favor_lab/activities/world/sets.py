"""The drawn sets as labelled data, and as folders of image files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from favor_lab.activities.data import ActivityData, Record
from favor_lab.activities.world.catalogue import DRAWN_SETS, plans_of
from favor_lab.activities.world.scenes import scene_from_source
from favor_lab.files import flush, patiently

# Scenes per label that each split of a pocket set offers. A scene costs nothing until it is drawn.
POCKET_POOLS = {"train": 256, "validation": 64, "test": 256}
UNFINISHED = ".unfinished"  # folder of an export that is being written, or was killed; no reader looks into it


def load_pocket(name: str) -> ActivityData:
    """The pocket set called `name`; scenes are drawn when they are read."""
    labels = list(plans_of(name))
    splits = {
        split: [Record(label, f"{name}/{split}/{i:06d}") for i, label in enumerate(labels * pool)]
        for split, pool in POCKET_POOLS.items()
    }
    return ActivityData(name, labels, splits, draw)


def draw(source: str) -> Image.Image:
    """The image of a generator key; a function of the module, so that worker processes can be sent a set."""
    return scene_from_source(source).image


def export_folder(
    set_name: str, directory: str | Path, splits: Sequence[str] = ("train", "test"), per_label: int = 4
) -> list[Path]:
    """Draw the first `per_label` scenes of each label into `<directory>/<split>/<label>/NNN.png`.

    `load_activities("folder", directory)` and the imagefolder of `datasets` read the result. `truth.jsonl` beside the
    splits has for each file its label, its generator key and the statements that are true of it. Returns the images'
    paths. An export that is killed leaves its files in `<directory>/.unfinished`, where nothing reads them. Raises
    ValueError for an unknown set or split and for a count that the pool does not hold, FileExistsError for a directory
    that is not empty.
    """
    directory = Path(directory)
    if set_name not in DRAWN_SETS:
        raise ValueError(f"unknown set {set_name!r}; valid names: {', '.join(DRAWN_SETS)}")
    for split in splits:
        if split not in POCKET_POOLS:
            raise ValueError(f"unknown split {split!r}; valid names: {', '.join(POCKET_POOLS)}")
        if not 1 <= per_label <= POCKET_POOLS[split]:
            raise ValueError(f"per_label must be 1 to {POCKET_POOLS[split]} for {split}, not {per_label}")
    if directory.exists() and (inside := sorted(path.name for path in directory.iterdir())):
        killed = " (an export that was killed, or is still being written)" if UNFINISHED in inside else ""
        raise FileExistsError(
            f"{directory} is not empty, it holds {inside[0]}{killed}; name a new folder or remove what it holds"
        )
    unfinished, is_new = directory / UNFINISHED, not directory.exists()
    unfinished.mkdir(parents=True)
    try:
        files = _draw_files(set_name, unfinished, splits, per_label)
        for path in unfinished.rglob("*"):
            flush(path)
        for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "train"):
            patiently(path.rename, directory / path.name)  # "train" last: without it this is no set that anything reads
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()
    flush(directory)
    return [directory / file for file in files]


def _draw_files(set_name: str, place: Path, splits: Sequence[str], per_label: int) -> list[str]:
    """Draw the images and write their truth; the images' paths relative to `place`."""
    files, lines, data = [], [], load_pocket(set_name)
    for split in splits:
        for index, record in enumerate(data.splits[split][: per_label * len(data.labels)]):
            scene = scene_from_source(record.source)
            file = f"{split}/{record.label.replace(' ', '_')}/{index // len(data.labels):03d}.png"
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            scene.image.save(place / file, optimize=True)
            facts = {"file": file, "label": record.label, "source": record.source}
            lines.append(json.dumps({**facts, "statements": scene.truth.statements}) + "\n")
            files.append(file)
    (place / "truth.jsonl").write_text("".join(lines), encoding="utf-8")
    return files
