"""Leakage: which images a run was trained on, known by their pixels, so that no test asks about one of them.

A run folder keeps a fingerprint of each training image in `training_images.json`; where an older run has none, its
checkpoint has checksums. What `favor-lab share` writes has the fingerprints without names, so that nobody tests an
adapter on its own training images. They tell whoever has one of these very images that it was trained on, and nothing
else; without the file, the adapter works as well.

An image is known again in any file that holds the same pixels (`activities.images.fingerprint`): not after it was
compressed with loss, scaled or cropped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from favor_lab.files import write_json
from favor_lab.grpo.support.checkpoints import checkpoints, fingerprints, newest

if TYPE_CHECKING:
    from favor_lab.activities.fewshot import Example
    from favor_lab.study.run_folder import RunFolder

FILE = "training_images.json"


def checksums(images: Mapping[str, str]) -> set[str]:
    """Size and checksum of the pixels of each image, without the label that a checkpoint has before them.

    >>> checksums({"a.png": "holding a cup, sitting, 90 x 60, 0badcafe"})
    {'90 x 60, 0badcafe'}
    """
    return {", ".join(text.rsplit(", ", 2)[1:]) for text in images.values()}


def save_training_images(folder: RunFolder, examples: Sequence[Example], earlier: Collection[str] = ()) -> None:
    """Write the fingerprints of the images that a run trains on, and of those that its start was trained on."""
    images = {example.source: example.content.hex() for example in examples}
    folder.save(FILE, {"fingerprints": images, "earlier": sorted(earlier)})


def share_training_images(run: RunFolder, directory: Path) -> None:
    """Write the fingerprints of all that a run and its start were trained on into a folder that is shared, without
    names of files; nothing if they are not known."""
    if (known := training_images(run.path)) is not None:
        write_json(directory / FILE, {"fingerprints": {}, "earlier": sorted(known)})


def training_images(place: str | Path) -> set[str] | None:
    """Fingerprints (or checksums) of all images that a run was trained on, and the adapter that it started from; None
    if that is not known. place: the run folder, or its folder of an adapter or a checkpoint. ValueError for a damaged
    `training_images.json`."""
    for home in (Path(place), Path(place).absolute().parent):
        if (home / FILE).is_file():
            try:
                saved = json.loads((home / FILE).read_text(encoding="utf-8"))
                return {*saved["fingerprints"].values(), *saved["earlier"]}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{home / FILE} is damaged and cannot be read: {error!r}") from error
        if checkpoints(home / "checkpoint"):
            with suppress(ValueError):  # all damaged
                return checksums(newest(home / "checkpoint")[1]["images"])
    return None


def images_of(starts: Iterable[Path]) -> set[str] | None:
    """As `training_images`, of a policy whose weights come from several folders; None if none of them knows."""
    known = [images for images in map(training_images, starts) if images is not None]
    return set().union(*known) if known else None


def earlier_images(folder: RunFolder, *starts: Path) -> set[str] | None:
    """Of the images that the start of a run was trained on, as `images_of`: what the run noted when it began, or what
    lies beside its adapter and its checkpoint."""
    if (noted := folder.load(FILE)) is not None:
        return set(noted["earlier"]) or None
    return images_of(starts)


def without_training_images(examples: Sequence[Example], trained_on: Collection[str]) -> list[Example]:
    """The examples whose pixels are not among those of `training_images`, in order."""
    known = set(trained_on)
    by_checksum = any(", " in one for one in known)
    return [
        e for e in examples if not known & {e.content.hex(), *(checksums(fingerprints([e])) if by_checksum else ())}
    ]
