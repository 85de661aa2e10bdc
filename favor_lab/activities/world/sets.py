"""The four drawn sets as labelled data, and as folders of image files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from favor_lab.activities.data import ActivityData, Record
from favor_lab.activities.world.catalogue import ACTIVITIES, SETS
from favor_lab.activities.world.scenes import scene_from_source

# Scenes per label that each split of a pocket set offers. A scene costs nothing until it is drawn.
POCKET_POOLS = {"train": 256, "validation": 64, "test": 256}


def load_pocket(name: str) -> ActivityData:
    """The pocket set called `name`; scenes are drawn when they are read."""
    splits = {
        split: [Record(label, f"{name}/{split}/{i:06d}") for i, label in enumerate(ACTIVITIES * pool)]
        for split, pool in POCKET_POOLS.items()
    }
    return ActivityData(name, list(ACTIVITIES), splits, open=lambda source: scene_from_source(source).image)


def export_folder(
    set_name: str, directory: str | Path, splits: Sequence[str] = ("train", "test"), per_label: int = 4
) -> list[Path]:
    """Draw the first `per_label` scenes of each label into `<directory>/<split>/<label>/NNN.png`.

    `load_activities("folder", directory)` and the imagefolder of `datasets` read the result. `truth.jsonl` beside the
    splits has for each file its label, its generator key and the statements that are true of it. Returns the images'
    paths. Raises ValueError for an unknown set or split and for a count that the pool does not hold, FileExistsError
    for a directory that is not empty.
    """
    directory = Path(directory)
    if set_name not in SETS:
        raise ValueError(f"unknown set {set_name!r}; valid names: {', '.join(SETS)}")
    for split in splits:
        if split not in POCKET_POOLS:
            raise ValueError(f"unknown split {split!r}; valid names: {', '.join(POCKET_POOLS)}")
        if not 1 <= per_label <= POCKET_POOLS[split]:
            raise ValueError(f"per_label must be 1 to {POCKET_POOLS[split]} for {split}, not {per_label}")
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty; name a new folder or remove what it holds")
    paths, lines, data = [], [], load_pocket(set_name)
    for split in splits:
        for index, record in enumerate(data.splits[split][: per_label * len(ACTIVITIES)]):
            scene = scene_from_source(record.source)
            path = directory / split / record.label.replace(" ", "_") / f"{index // len(ACTIVITIES):03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene.image.save(path, optimize=True)
            paths.append(path)
            file, statements = path.relative_to(directory).as_posix(), scene.truth.statements
            facts = {"file": file, "label": record.label, "source": record.source, "statements": statements}
            lines.append(json.dumps(facts) + "\n")
    (directory / "truth.jsonl").write_text("".join(lines), encoding="utf-8")
    return paths
