"""Is a folder of images fit for training? Everything that is wrong with it, at once and by name."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, product
from pathlib import Path
from typing import NamedTuple

from favor_lab.activities.data import Record
from favor_lab.activities.faults import Fault
from favor_lab.activities.folder import read_folder
from favor_lab.activities.images import FORMATS, HEIC_SUFFIXES, decode_image, fingerprint, image_header, pixel_box
from favor_lab.activities.listing import Listing
from favor_lab.activities.public.catalogue import PUBLIC
from favor_lab.activities.public.load import read_listing

# What each kind of fault means, in the order of a report.
KINDS = {
    "layout": "not the layout that is expected",
    "split": "which splits these are",
    "list": "wrong in a list",
    "path": "paths that lead elsewhere",
    "label": "labels that the set does not have, or that cannot be learnt",
    "name": "names that are not UTF-8",
    "missing": "listed, but not there",
    "unreadable": "images that cannot be read",
    "leak": "the same image in training and in validation or test",
    "contradiction": "the same image under two labels",
    "double": "the same image twice",
    "box": "person boxes",
    "suffix": "content and suffix differ",
    "count": "counts that differ from the published ones",
    "unlisted": "there, but not used",
}
# MPO: several pictures in one JPEG file, as some cameras write; HEIF: where pillow-heif is installed
SUFFIXES = FORMATS | {"MPO": FORMATS["JPEG"], "HEIF": HEIC_SUFFIXES}
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}  # what the last TAIL bytes of a complete file have
TAIL = 4096
BATCH = 256  # images that are submitted to the threads at a time


@dataclass(frozen=True)
class Report:
    """What `check_folder` found."""

    name: str
    root: Path
    counts: dict[str, tuple[int, int | None, int]]  # split -> images, published number (None: unknown), labels
    faults: list[Fault]  # everything wrong: with lists, single images, pairs of images, counts
    decoded: bool  # whether every image was decoded and compared by its pixels

    @property
    def fatal(self) -> list[Fault]:
        """The faults that training would fail on."""
        return [fault for fault in self.faults if fault.fatal]

    @property
    def exclude(self) -> list[str]:
        """Images to leave out so that faults of single images are gone, for `load_activities(..., exclude=...)`."""
        return sorted({path for fault in self.fatal for path in fault.cure})

    def summary(self) -> str:
        """One line: how many faults, how many notes, in how many images, and how deeply they were checked."""
        fatal, notes = len(self.fatal), len(self.faults) - len(self.fatal)
        images = sum(count for split, (count, _, _) in self.counts.items() if split != "together")
        depth = "every image decoded" if self.decoded else "headers and ends read, nothing decoded"
        faults = f"{fatal or 'no'} fault{'s' * (fatal > 1)} that training would trip over"
        return f"{self.name}: {faults}, {notes} note{'s' * (notes != 1)}, {images} images ({depth})"

    def lines(self) -> Iterator[str]:
        """The report: counts, then every fault and note under the heading of its kind."""
        yield f"{'split':<12}{'images':>8}{'published':>11}{'labels':>8}"
        for split, (count, published, labels) in self.counts.items():
            yield f"{split:<12}{count:>8}{'-' if published is None else published:>11}{labels:>8}"
        for (kind, meaning), fatal in product(KINDS.items(), (True, False)):
            if faults := [fault for fault in self.faults if fault.kind == kind and fault.fatal == fatal]:
                yield f"{'fault' if fatal else 'note'}, {meaning}: {len(faults)}"
                yield from (f"  {fault}" for fault in faults)


class Look(NamedTuple):
    """What was read of one image: a hash of its content, its stored size, and its faults."""

    content: bytes | None
    size: tuple[int, int] | None
    faults: list[Fault]


def check_folder(
    name: str,
    root: str | Path,
    *,
    decode: bool = False,
    person_crop: bool = False,
    exclude: Collection[str] = (),
    progress: Callable[[list[Record]], Iterable[Record]] = iter,
) -> Report:
    """Everything wrong with a public set, or with "folder", any images sorted by label, under `root`.

    Counts, lists, labels, names, missing and unused files, images that cannot be read, duplicates, suffixes, person
    boxes. Each file is read once: its content is hashed, its header parsed, its end checked. With `decode` every image
    is decoded as well, which takes several times as long, finds damage in the middle, and finds duplicates by their
    pixels, as `few_shot` does, instead of their bytes. With `person_crop` a person's box that is missing or wrong is a
    fault, otherwise a note. `progress` wraps the iteration over the images (tqdm fits). Nothing is changed and nothing
    downloaded.

    Raises ValueError for an unknown name and an `exclude` that names no image, FileNotFoundError or
    NotADirectoryError for the root.
    """
    root = Path(root)
    if name in PUBLIC:
        listing = read_listing(name, root, name == "stanford40", 0, exclude)
    elif name == "folder":
        listing = read_folder(root, exclude)
        if "train" in listing.splits:
            listing.find_untrained()
    else:
        raise ValueError(f"unknown set {name!r}; sets on disk are {', '.join(PUBLIC)} and folder")
    records = [(split, record) for split, records in listing.splits.items() for record in records]
    remaining = iter(progress([record for _, record in records]))
    looks: list[Look] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while batch := list(islice(remaining, BATCH)):  # batch by batch, so that Ctrl-C takes effect soon
            looks += pool.map(partial(_look_at, listing, decode), batch)
    faults = [fault if fault.kind != "box" else replace(fault, fatal=person_crop) for fault in listing.faults]
    for (_, record), look in zip(records, looks, strict=True):
        faults += look.faults + _check_box(listing, record, look, person_crop)
    faults += _duplicates(listing, records, looks, "pixels" if decode else "bytes")
    counts, differences = _count(listing)
    return Report(name, root, counts, faults + differences, decode)


def _look_at(listing: Listing, decode: bool, record: Record) -> Look:
    path = listing.path_of(record.source)
    try:
        data = listing.read_bytes(record.source)
        form, size = image_header(data, path)
        image = decode_image(data, path) if decode or ENDS.get(form, b"?") not in data[-TAIL:] else None
    except (OSError, ValueError) as fault:
        reason = str(fault).removeprefix(f"{record.source}: ").removeprefix(f"{path}: ")
        return Look(None, None, [Fault("unreadable", path, reason, cure=(path,))])
    content = fingerprint(image) if decode and image else hashlib.sha256(data).digest()
    if listing.packed or Path(record.source).suffix.lower() in SUFFIXES.get(form, ()):
        return Look(content, size, [])
    return Look(content, size, [Fault("suffix", path, f"is {form} inside; it is read all the same", fatal=False)])


def _check_box(listing: Listing, record: Record, look: Look, fatal: bool) -> list[Fault]:
    """Faults of a person's box, now that the size of the image is known."""
    if record.box is None or look.size is None:
        return []
    path, (width, height) = listing.path_of(record.source), look.size
    annotated_size = listing.sizes.get(path, look.size)
    try:
        if annotated_size != look.size:
            of = f"{annotated_size[0]} x {annotated_size[1]}"
            raise ValueError(f"the annotation is of an image of {of}, this is {width} x {height}")
        pixel_box(record.box, look.size)
    except ValueError as fault:
        return [Fault("box", path, str(fault), fatal, (path,))]
    return []


def _duplicates(listing: Listing, records: list[tuple[str, Record]], looks: list[Look], what: str) -> Iterator[Fault]:
    """A fault for each duplicate of another image. The cure leaves out the copy in train where another is in test or
    validation, and every copy of an image with two labels."""
    groups: dict[bytes | None, list[tuple[str, Record]]] = {}
    for item, look in zip(records, looks, strict=True):
        groups.setdefault(look.content, []).append(item)
    groups.pop(None, None)  # images that could not be read
    order = ("test", "validation", "train")  # the first one stays
    for group in groups.values():
        (split, first), *others = sorted(group, key=lambda item: order.index(item[0]))
        twin = listing.path_of(first.source)
        for other_split, record in others:
            path = listing.path_of(record.source)
            message = f"({other_split}, {record.label!r}) has the {what} of {twin} ({split}, {first.label!r})"
            if record.label != first.label:
                yield Fault("contradiction", path, message, cure=(path, twin))
            else:
                yield Fault("double" if split == other_split else "leak", path, message, cure=(path,))


def _count(listing: Listing) -> tuple[dict[str, tuple[int, int | None, int]], list[Fault]]:
    """Number of images by split and the published number, and a note for each split and label where they differ."""
    facts, pools = PUBLIC.get(listing.name), dict(listing.splits)
    published = dict(facts.counts) if facts else {}
    each = dict(facts.per_label) if facts else {}
    if facts and listing.carved:  # the published counts are those before a test set was set aside
        each = {"together": each["train"]} if len(published) == 1 else {}
        published = {"together": sum(published.values())}
        pools["together"] = list(chain.from_iterable(listing.splits.values()))
    notes = []
    for split, count in published.items():
        records = pools.setdefault(split, [])
        if len(records) != count:
            notes.append(Fault("count", split, f"{len(records)} images, published are {count}", False))
        present = Counter(record.label for record in records)
        differences: dict[str, list[str]] = {}
        for label in listing.labels.values() if records else ():
            if split in each and present[label] != each[split]:
                differences.setdefault(f"{present[label]} images instead of {each[split]}", []).append(label)
            elif not present[label]:
                differences.setdefault("no image", []).append(label)
        notes += [Fault("count", split, f"{what}: {', '.join(labels)}", False) for what, labels in differences.items()]
    labels_in = {split: {record.label for record in records} for split, records in pools.items()}
    return {split: (len(pools[split]), published.get(split), len(labels_in[split])) for split in pools}, notes
