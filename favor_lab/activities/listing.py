"""What the folder of a set holds, before any image is opened; and how lists and folders in it are read.

`load_activities` refuses a `Listing` when training would fail on something in it, `checks.check_folder` reports all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from favor_lab.activities.data import SPLITS, Record
from favor_lab.activities.faults import Fault, all_at_once, shown, some, utf8
from favor_lab.activities.images import IMAGE_SUFFIXES, LFS_POINTER, conversion, file_bytes, open_image
from favor_lab.activities.labels import refuse_string

COMPANION = re.compile(r"readme|licen[cs]e", re.IGNORECASE)
# What macOS, Windows and network drives leave in folders and archives; hidden files, as `._a.jpg` and `.DS_Store`, too.
LEFTOVER = re.compile(r"\.|__macosx$|(eh)?thumbs\.db|desktop\.ini|icon\r|@eadir$|\$recycle\.bin$", re.IGNORECASE)
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
        refuse_string("exclude", exclude)
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
        """Where something that is missing may be: up to three folders further in, or in an archive; or which other set
        the root holds."""
        for level in folders_below(self.root):
            if inside := [path for path in level if (path / name).exists()]:
                return f"; {inside[0]} has it: is that the root?"
        if archives := packed_in(self.root):
            return archives
        other = set_in(self.root)
        return f"; the root holds what `--data {other}` reads" if other not in ("", self.name) else ""

    def note_unused(self, where: str, what: str) -> None:
        """Note a file that is not used: what it is and what converts it or, of no known kind, `what`."""
        kind = conversion(where)
        self.note_fault("unlisted", where, f"is not used: it is {kind}" if kind else what)

    def unused(self, reasons: str) -> str:
        """One line about all that is not used, with each advice once; empty if there is nothing."""
        notes = [fault for fault in self.faults if fault.kind == "unlisted"]
        if not notes:
            return ""
        advice = {note.what.partition(": ")[2]: note for note in reversed(notes) if ": " in note.what}
        lines = [f"{note.where} {note.what}" for note in reversed(advice.values())]
        return "; ".join([f"{len(notes)} not used ({reasons}): {some([note.where for note in notes])}", *lines])

    def text(self, path: str, fatal: bool = True) -> str | None:
        """A list's text without byte order mark; None and a fault where it cannot be read as UTF-8."""
        kind = "layout" if fatal else "list"
        try:
            data = file_bytes(self.root / path)
            if data.startswith(LFS_POINTER):
                what = "is a Git LFS pointer, not the list; `git lfs pull` brings it"
                self.fault(kind, path, what, fatal)
                return None
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
    """The folder's entries by name, without hidden ones and what operating systems leave behind."""
    return sorted(path for path in folder.iterdir() if not LEFTOVER.match(path.name))


def has_image_suffix(path: str) -> bool:
    """Whether a name ends as those of images that are read here."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def subfolders_of(folder: Path) -> list[Path]:
    """The visible folders in a folder; none in one that may not be read."""
    with suppress(OSError):
        return [path for path in visible(folder) if path.is_dir()]
    return []


def holds_images(folder: Path) -> bool:
    """Whether files with an image's suffix lie directly in the folder."""
    with suppress(OSError):
        return any(has_image_suffix(path.name) and not LEFTOVER.match(path.name) for path in folder.iterdir())
    return False


def packed_in(root: Path) -> str:
    """Advice to unpack the archives in a folder; empty if there are none."""
    archives = [path.name for path in visible(root) if path.suffix.lower() in ARCHIVES]
    return f"; unpack {', '.join(map(shown, archives))} first" if archives else ""


def folders_below(root: Path, depth: int = 3, most: int = 1000) -> Iterator[list[Path]]:
    """The folders one, two, ... `depth` levels below the root, at most `most` of each level."""
    level = [root]
    for _ in range(depth):
        level = list(islice((inside for folder in level for inside in subfolders_of(folder)), most))
        yield level


def set_in(root: Path) -> str:
    """The set whose layout this folder has, as far as its first two levels say: a public one, "folder", or ""."""
    marks = {
        "stanford40": (root / "JPEGImages").is_dir()
        and ((root / "ImageSplits").is_dir() or (root / "XMLAnnotations").is_dir()),
        "har15": (root / "Training_set.csv").is_file() or any(root.glob("data/train-*.parquet")),
        "ucf101": (root / "split_zhou_UCF101.json").is_file() or (root / "UCF-101-midframes").is_dir(),
        "ppmi": (root / "norm_image").is_dir(),
        "folder": any(
            any(map(holds_images, subfolders_of(folder))) if folder.name.lower() in SPLITS else holds_images(folder)
            for folder in subfolders_of(root)
        ),
    }
    return next((name for name, holds in marks.items() if holds), "")


def climbs(path: str) -> bool:
    """Whether a path that a list gives could lead out of the folder that it is relative to.

    >>> [climbs(path) for path in ("a/b.jpg", "../b.jpg", "/etc/b.jpg", "a/../../b.jpg", "C:/b.jpg", "a\\\\b.jpg", "")]
    [False, True, True, True, True, True, True]
    """
    return not {"", ".", ".."}.isdisjoint(path.split("/")) or not set("\\:\0").isdisjoint(path)
