"""The command about images: data."""

from __future__ import annotations

import io
from collections.abc import Collection
from functools import partial
from pathlib import Path

from favor_lab.arguments import ArgumentError
from favor_lab.cli.options import DrawOptions
from favor_lab.files import write_whole
from favor_lab.progress import progress_bar
from favor_lab.runs.options import check_outside, open_set, read_exclude
from favor_lab.runs.run import tell
from favor_lab.versions import need

OF_IMAGES: tuple[str, ...] = ("sheet", "out", "decode", "write_exclude", "exclude", "person_crop", "per_label", "split")


def data(draw: DrawOptions, typed: Collection[str]) -> None:
    """Where to get a public set and what it is; check a folder of images; list, show or draw a set.

    favor-lab data stanford40

    favor-lab data stanford40 --root my_stanford40 --person-crop 0.1

    favor-lab data folder --root my_photos --sheet sheet.png

    favor-lab data cartoon --out my_cartoon --per-label 8

    A folder is checked first, and nothing is downloaded; the exit status is 1 if training would trip over something.
    """
    from favor_lab.activities import export_folder
    from favor_lab.activities.public.catalogue import FOLDER_GUIDE, PUBLIC

    refuse_ignored(draw, typed)
    check_outside(draw.sheet, draw.root, "sheet")
    if draw.root is None and draw.data in (*PUBLIC, "folder"):
        return tell(PUBLIC[draw.data].guide(draw.data) if draw.data in PUBLIC else FOLDER_GUIDE)
    if draw.root is not None and not check(draw, draw.root):
        raise SystemExit(1)
    images = open_set(draw)
    tell(f"{images.name}: {len(images.labels)} labels ({', '.join(images.labels)})")
    for split, records in images.splits.items():
        tell(f"{split:<12}{len(records)} images")
    if draw.split not in images.splits and draw.sheet is not None:
        message = f"{images.name} has no split {draw.split!r}; it has {', '.join(images.splits)}"
        raise ArgumentError("split", message)
    if draw.out is not None:
        tell(f"{len(export_folder(draw.data, draw.out, per_label=draw.per_label))} images written to {draw.out}")
    if draw.sheet is not None:  # one picture of the first images of each label
        need("matplotlib", "a sheet of images")
        from favor_lab.show.evaluations import plot_examples

        by_label = [[r for r in images.splits[draw.split] if r.label == label] for label in images.labels]
        pictures = [images.read(record) for records in by_label for record in records[: draw.per_label]]
        sheet = io.BytesIO()
        plot_examples(pictures, columns=8).savefig(sheet, format=draw.sheet.suffix[1:] or "png")
        write_whole(draw.sheet, sheet.getvalue())
        tell(f"sheet written to {draw.sheet}")


def refuse_ignored(draw: DrawOptions, typed: Collection[str]) -> None:
    """ArgumentError for an option that would have no effect with the others."""
    from favor_lab.activities.public.catalogue import PUBLIC
    from favor_lab.activities.world import DRAWN_SETS

    if draw.root is None and draw.data in (*PUBLIC, "folder"):
        ignored, why = OF_IMAGES, f"it needs --root, the folder of {draw.data}"
    elif draw.data in DRAWN_SETS:
        ignored, why = ("decode", "write_exclude"), f"{draw.data} is drawn, so there is nothing to check"
    else:
        ignored, why = ("out",), "it writes a drawn set as files, and these images are files"
    for name in ignored:
        if name in typed:
            raise ArgumentError(name, f"{name} would have no effect: {why}")
    if "per_label" in typed and draw.sheet is None and draw.out is None:
        raise ArgumentError("per_label", "per_label would have no effect: it needs --sheet or --out")
    if "split" in typed and draw.sheet is None:
        raise ArgumentError("split", "split would have no effect: it is the part on a --sheet")


def check(draw: DrawOptions, root: Path) -> bool:
    """Say everything that is wrong with the folder of a set; whether training would go through."""
    from favor_lab.activities.checks import check_folder
    from favor_lab.activities.public.catalogue import PUBLIC

    if draw.data not in (*PUBLIC, "folder"):
        return True  # loading it says that a drawn set takes no root
    exclude, cropped = read_exclude(draw.exclude), draw.person_crop is not None
    progress = partial(progress_bar, desc="check", unit="image", leave=False)
    report = check_folder(draw.data, root, decode=draw.decode, person_crop=cropped, exclude=exclude, progress=progress)
    tell("\n".join([*report.lines(), report.summary()]))
    if draw.write_exclude is not None:
        lines = [*exclude, *report.exclude]
        write_whole(draw.write_exclude, "".join(f"{line}\n" for line in lines))
        tell(f"{len(lines)} images to leave out written to {draw.write_exclude}")
    elif 0 < len(report.exclude) < sum(images for images, _, _ in report.counts.values()):  # or nothing would be left
        advice = "mend or remove them, or leave them out: --write-exclude FILE, and then --exclude FILE"
        tell(f"{len(report.exclude)} images are in doubt: {advice}")
    return not report.fatal
