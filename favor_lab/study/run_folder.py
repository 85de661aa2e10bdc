"""A run folder: everything that one run leaves on the disk.

settings.json            the options of the run, and the versions of the packages that it used
run.toml                 the same options for `favor-lab train --config run.toml`
training_images.json     fingerprints of the images that it trained on, see `favor_lab.study.leakage`
records.jsonl            one step record per line, written as they arrive
checkpoint/, adapter/    the state to resume from, the adapter to load
evaluation_*.json        answers before and after training, each with its text; before: those of the base
manifest.json            the step that all this belongs to; digests of each result, the base's files, the test images
figures/*.png            the figures
report.html              all of it on one page, without network or scripts
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.files import LOCK, append_json_line, check_name, digest, read_json_lines, write_json, write_whole
from favor_lab.versions import versions

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
#: what of a run folder must be of one step: patterns of names
RESULTS = ("records.jsonl", "training_images.json", "evaluation_*.json", "adapter/adapter_*", "policy/*.safetensors")


class RunFolder:
    """The files of one run; made by `create` or, to resume or read a run, by `open`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoint, self.adapter, self.figures = (
            self.path / name for name in ("checkpoint", "adapter", "figures")
        )

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """Make the folder and check that it is writable, before any work is done. Raises FileExistsError for a folder
        that is not empty, OSError (NotADirectoryError, PermissionError) for a place that is not writable, and
        ValueError for a name that not every file can have."""
        check_name(path)
        folder = cls(path)
        try:
            if folder.path.is_dir() and any(path.name != LOCK for path in folder.path.iterdir()):
                raise FileExistsError(f"the run folder {path} is not empty: name another one, or continue that run")
            folder.path.mkdir(parents=True, exist_ok=True)
            # as long as the longest name inside: where that is too long for the system, nothing is begun
            probe = folder.path / f"checkpoint.step-000000.safetensors.{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            if error.errno is None:
                raise
            raise type(error)(f"cannot write to the run folder {path} ({error.strerror}): name another one") from error
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run folder. Raises FileNotFoundError for a folder without settings.json."""
        if not (Path(path) / "settings.json").is_file():
            raise FileNotFoundError(f"{path} is not a run folder: it has no settings.json")
        return cls(path)

    @property
    def settings(self) -> dict[str, Any]:
        """The options of the run, with the versions of the packages that it used."""
        return self.load("settings.json")

    def save_settings(self, settings: Mapping[str, Any], device: torch.device | None = None) -> None:
        self.save("settings.json", {**settings, "versions": versions(device)})

    def save(self, name: str, data: Any) -> None:
        """Write plain data (or dataclasses of it) as JSON, atomically."""
        write_json(self.path / name, data)

    def load(self, name: str, default: Any = None) -> Any:
        """The data of a JSON file, the default if there is none. ValueError, with the file, for a damaged one."""
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged and cannot be read: {error}") from error

    def append(self, record: Any) -> None:
        """Append one step record to `records.jsonl`; it is on the disk when this returns."""
        append_json_line(self.path / "records.jsonl", record)

    def records(self) -> list[dict[str, Any]]:
        """The step records so far, without an incomplete last line (left by a machine that died). ValueError, with the
        line, for other damage."""
        return read_json_lines(self.path / "records.jsonl")

    def follow(
        self, patience: float = 600.0, period: float = 0.5, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[dict[str, Any]]:
        """The step records so far, then those that a run in another process appends, up to its last step.

        It also ends when nothing was written for `patience` seconds, or when `stopped()` is true; it looks every
        `period` seconds. A run that is resumed repeats some steps: they are given once.
        """
        path, step, version = self.path / "records.jsonl", 0, None
        last = time.monotonic()  # when something was written, by a clock that nobody sets
        while True:
            newest = (path if path.exists() else self.path / "settings.json").stat()
            if version != (newest.st_ino, newest.st_size, newest.st_mtime_ns):
                age = max(time.time() - newest.st_mtime, 0.0) if version is None else 0.0
                last = time.monotonic() - age
                version = newest.st_ino, newest.st_size, newest.st_mtime_ns
                for record in self.records():
                    if record["step"] > step:
                        step = record["step"]
                        yield record
            is_over = step >= (self.steps or 0) > 0 or time.monotonic() - last > patience
            if is_over or stopped():
                return
            time.sleep(period)

    def results(self) -> dict[str, str]:
        """The digest of each file of results, by name."""
        paths = sorted(path for pattern in RESULTS for path in self.path.glob(pattern) if path.is_file())
        return {path.relative_to(self.path).as_posix(): digest(path) for path in paths}

    def save_manifest(
        self, step: int, base: Mapping[str, str], test: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Write down that the results, as they are now, are those of this step, of this base (digests by file) and of
        these test images (label and fingerprint by source)."""
        self.save(MANIFEST, {"step": step, "base": base, "test": test or {}, "results": self.results()})

    def check_results(self) -> None:
        """ValueError, with the files, unless all results are those of one step: a run that was resumed and killed has
        newer weights than answers. A run of an earlier version has no manifest: nothing is checked."""
        manifest = self.load(MANIFEST)
        if manifest is None:
            return
        if not isinstance(manifest, dict) or not isinstance(manifest.get("results"), dict) or "step" not in manifest:
            raise ValueError(f"{self.path / MANIFEST} is damaged: delete it and go on with --resume {self.path}")
        then, now = manifest["results"], self.results()
        if changed := [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]:
            raise ValueError(
                f"the results in {self.path} are not of one step: since they were complete (step {manifest['step']}), "
                f"{', '.join(changed)} changed: go on with --resume {self.path}, which measures anew"
            )

    @property
    def steps(self) -> int | None:
        """The number of steps of the whole run; None if it is not a run of training."""
        return (self.settings.get("settings") or {}).get("steps")

    def rewind(self, step: int) -> None:
        """Drop the records after `step`, which a run that resumes from a checkpoint will compute again."""
        lines = [json.dumps(record, ensure_ascii=False) for record in self.records() if record["step"] <= step]
        write_whole(self.path / "records.jsonl", "".join(line + "\n" for line in lines))
