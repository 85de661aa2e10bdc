"""What the folder of a set holds, before any image is opened; and how lists and folders in it are read.

`load_activities` refuses a `Listing` when training would fail on something in it, `checks.check_folder` reports all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from favor_lab.activities.data import Record
from favor_lab.activities.faults import Fault, all_at_once, shown, utf8
from favor_lab.activities.images import IMAGE_SUFFIXES, file_bytes, open_image

COMPANION = re.compile(r"readme|licen[cs]e|thumbs\.db|desktop\.ini|__macosx", re.IGNORECASE)
ARCHIVES = {".zip", ".tar", ".gz", ".rar"}


class Row(NamedTuple):
    """An image that a public set claims to have: `path` relative to the root, `name` its label as the set writes it."""

    split: str
    path: str
    name: str
    where: str


@dataclass
class Listing:
    """What the folder `root` of the set `name` holds; `title` is what errors call it."""

    name: str
    root: Path
    title: str
    labels: dict[str, str] = field(default_factory=dict)  # the set's own name -> label, in the set's order
    splits: dict[str, list[Record]] = field(default_factory=dict)  # as in `ActivityData`
    faults: list[Fault] = field(default_factory=list)  # everything wrong so far
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # image -> (width, height) in its annotation
    carved: bool = False  # whether a test set was set aside from train, since there is no official one
    note: str = ""  # how the splits differ from the official ones; empty: they are those
    open: Callable[..., Image.Image] = open_image  # source -> image
    read_bytes: Callable[[str], bytes] = file_bytes  # source -> content of its file
    # what readers of public sets say about their layout
    folders: set[str] = field(default_factory=set)  # that hold images
    form: str = ""  # of an image's path
    listed: bool = True  # whether the set has lists; otherwise every image in a folder belongs to it
    packed: bool = False  # whether images lie in files of many

    def __post_init__(self) -> None:
        if not self.root.exists():
            raise FileNotFoundError(f"no such folder: {self.root}")
        if not self.root.is_dir():
            raise NotADirectoryError(f"not a folder: {self.root}")

    def fault(self, kind: str, where: object, what: str, fatal: bool = True, cure: tuple[str, ...] = ()) -> None:
        """Add a fault."""
        self.faults.append(Fault(kind, shown(where), what, fatal, tuple(map(shown, cure))))

    def note_fault(self, kind: str, where: object, what: str) -> None:
        """Add a fault that does not keep anybody from training."""
        self.fault(kind, where, what, fatal=False)

    def places(self, kind: str) -> list[str]:
        """Where the faults of a kind are."""
        return [fault.where for fault in self.faults if fault.kind == kind]

    def refuse(self) -> None:
        """ValueError with all faults that training would fail on."""
        if fatal := [fault for fault in self.faults if fault.fatal]:
            advice = f" (`favor-lab data {self.name} --root {self.root}` lists all)"
            raise ValueError(all_at_once(self.title, fatal, advice))

    def check_exclude(self, exclude: Collection[str], images: set[str]) -> set[str]:
        """`exclude` as `images` are written; ValueError for names of no image: a typing error must not keep one in."""
        shown_exclude = set(map(shown, exclude))
        if unknown := sorted(shown_exclude - images):
            names = ", ".join(map(repr, unknown))
            raise ValueError(f"{self.title} has no image {names} to exclude (paths relative to its root)")
        return shown_exclude

    def find_untrained(self) -> None:
        """A fault for each label of a split that has no image in "train"."""
        trained = {record.label for record in self.splits.get("train", [])}
        for split, records in self.splits.items():
            for label in dict.fromkeys(record.label for record in records if record.label not in trained):
                self.fault("label", split, f"{label!r} has images here, but none in train")

    def path_of(self, source: str) -> str:
        """A record's source as people read it: relative to the root."""
        return shown(Path(source).relative_to(self.root).as_posix())

    def has_folder(self, name: str) -> bool:
        """Whether the root has this folder; a fault with a hint if it has not."""
        if (self.root / name).is_dir():
            return True
        self.fault("layout", name, f"there is no such folder in {self.root}{self.hint(name)}")
        return False

    def hint(self, name: str) -> str:
        """Where something that is missing may be: one folder further in, or in an archive."""
        entries = sorted(self.root.iterdir())
        if inside := [path for path in entries if (path / name).exists()]:
            return f"; {inside[0]} has it: is that the root?"
        archives = [path.name for path in entries if path.suffix.lower() in ARCHIVES]
        return f"; unpack {', '.join(archives)} first" if archives else ""

    def text(self, path: str, fatal: bool = True) -> str | None:
        """A list's text without byte order mark; None and a fault where it cannot be read as UTF-8."""
        kind = "layout" if fatal else "list"
        try:
            data = file_bytes(self.root / path)
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as fault:
            line = data[: fault.start].count(b"\n") + 1
            self.fault(kind, f"{path} line {line}", "is not UTF-8 text; save the list as UTF-8", fatal)
        except OSError as fault:
            self.fault(kind, path, f"cannot be read: {fault.strerror or fault}{self.hint(path)}", fatal)
        return None

    def lines(self, path: str, fatal: bool = True) -> Iterator[tuple[str, str]]:
        """(line, "path line N") for each line of a list that is not blank."""
        for number, line in enumerate((self.text(path, fatal) or "").splitlines(), start=1):
            if line.strip():
                yield line.strip(), f"{path} line {number}"

    def subfolders(self, path: str) -> list[str]:
        """Visible folders in a folder, by name; files beside them become notes."""
        folders = []
        for entry in visible(self.root / path):
            if COMPANION.match(entry.name):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            else:
                self.note_fault("unlisted", f"{path}/{entry.name}", "lies beside the folders and is not used")
        return folders

    def entries(self, folders: Collection[str]) -> dict[str, bool]:
        """Paths of the visible entries of these folders, by name -> whether each is a file (a link to one is)."""
        return {
            f"{folder}/{entry.name}": os.path.isfile(entry)
            for folder in sorted(folders)
            if (self.root / folder).is_dir()
            for entry in visible(self.root / folder)
            if not COMPANION.match(entry.name)
        }

    def image_files(self, folder: str) -> list[str]:
        """Paths in a folder with the suffix of an image, by name, without those whose names are not UTF-8."""
        return [path for path in self.entries([folder]) if utf8(path) and has_image_suffix(path)]


def visible(folder: Path) -> list[Path]:
    """The folder's entries by name, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def has_image_suffix(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def climbs(path: str) -> bool:
    """Whether a path that a list gives could lead out of the folder that it is relative to.

    >>> [climbs(path) for path in ("a/b.jpg", "../b.jpg", "/etc/b.jpg", "a/../../b.jpg", "C:/b.jpg", "a\\\\b.jpg", "")]
    [False, True, True, True, True, True, True]
    """
    return not {"", ".", ".."}.isdisjoint(path.split("/")) or not set("\\:\0").isdisjoint(path)
