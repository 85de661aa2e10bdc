"""What the folder of a public set holds, before any image is opened; and how lists and folders in it are read.

A reader turns its layout into rows (split, path, the set's own label name, where that is written) and faults. A
`Listing` has everything, right and wrong: `load_public` refuses it when training would fail on something,
`checks.check_folder` reports all of it.
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
from favor_lab.activities.faults import Fault, shown, utf8
from favor_lab.activities.images import IMAGE_SUFFIXES, file_bytes, open_image

COMPANION = re.compile(r"readme|licen[cs]e|thumbs\.db|desktop\.ini|__macosx", re.IGNORECASE)
ARCHIVES = {".zip", ".tar", ".gz", ".rar"}


class Row(NamedTuple):
    """One image that a set claims to have: `path` relative to the root, `name` its label as the set writes it."""

    split: str
    path: str
    name: str
    where: str


@dataclass
class Listing:
    """What a folder holds.

    labels  the set's own name -> label, in the set's order
    splits  split -> records, as in `ActivityData`
    faults  everything wrong so far
    sizes   path of an image -> (width, height) that its annotation gives, where it gives one
    carved  whether a test set was set aside from train, since there is no official one
    note    how the splits differ from the official ones; empty: they are those
    open, read_bytes   source -> image, source -> content of its file

    What readers say about their layout: the `folders` that hold images, the `form` of an image's path, whether the set
    has lists (otherwise every image in a folder belongs to it), and whether rows are `packed` in files of many.
    """

    name: str
    root: Path
    labels: dict[str, str]
    splits: dict[str, list[Record]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    carved: bool = False
    note: str = ""
    open: Callable[..., Image.Image] = open_image
    read_bytes: Callable[[str], bytes] = file_bytes
    folders: set[str] = field(default_factory=set)
    form: str = ""
    listed: bool = True
    packed: bool = False

    def fault(self, kind: str, where: object, what: str, fatal: bool = True, cure: tuple[str, ...] = ()) -> None:
        """Add a fault."""
        self.faults.append(Fault(kind, shown(where), what, fatal, tuple(map(shown, cure))))

    def note_fault(self, kind: str, where: object, what: str) -> None:
        """Add a fault that does not keep anybody from training."""
        self.fault(kind, where, what, fatal=False)

    def has_layout_fault(self) -> bool:
        return any(fault.kind == "layout" for fault in self.faults)

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
        inside = [path for path in entries if (path / name).exists()]
        if inside:
            return f"; {inside[0]} has it: is that the root?"
        packed = [path.name for path in entries if path.suffix.lower() in ARCHIVES]
        return f"; unpack {', '.join(packed)} first" if packed else ""

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
        for entry in sorted(os.scandir(self.root / path), key=lambda entry: entry.name):
            if entry.name.startswith(".") or COMPANION.match(entry.name):
                continue
            if (self.root / path / entry.name).is_dir():
                folders.append(entry.name)
            else:
                self.note_fault("unlisted", f"{path}/{entry.name}", "lies beside the folders and is not used")
        return folders

    def entries(self, folders: Collection[str]) -> dict[str, bool]:
        """Paths of the visible entries of these folders -> whether each is a file (a link to one is)."""
        entries: dict[str, bool] = {}
        for folder in sorted(folders):
            if not (self.root / folder).is_dir():
                continue
            for entry in os.scandir(self.root / folder):
                if not entry.name.startswith(".") and not COMPANION.match(entry.name):
                    entries[f"{folder}/{entry.name}"] = os.path.isfile(entry.path)
        return entries

    def image_files(self, folder: str) -> list[str]:
        """Paths in a folder with the suffix of an image, by name, without those whose names are not UTF-8."""
        return [path for path in sorted(self.entries([folder])) if utf8(path) and has_image_suffix(path)]


def has_image_suffix(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def climbs(path: str) -> bool:
    """Whether a path that a list gives could lead out of the folder that it is relative to.

    >>> [climbs(path) for path in ("a/b.jpg", "../b.jpg", "/etc/b.jpg", "a/../../b.jpg", "C:/b.jpg", "a\\\\b.jpg", "")]
    [False, True, True, True, True, True, True]
    """
    parts = path.split("/")
    return any(part in ("", ".", "..") for part in parts) or any(letter in path for letter in "\\:\0")
