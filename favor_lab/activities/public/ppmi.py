"""People Playing Musical Instrument: no lists, the folders say it all."""

from __future__ import annotations

import re

from favor_lab.activities.listing import Listing, Row


def read(listing: Listing) -> list[Row]:
    """One row per image file in norm_image/<verb>_instrument/<instrument>/{train,test}."""
    listing.listed, listing.form = False, "norm_image/<verb>_instrument/<instrument>/<split>/<file>"
    rows: list[Row] = []
    if not listing.has_folder("norm_image"):
        return rows
    for verb in ("play_instrument", "with_instrument"):
        base = f"norm_image/{verb}"
        for instrument in listing.subfolders(base) if listing.has_folder(base) else ():
            spelling = re.sub(r"[\s_-]+", "", instrument).casefold()  # frenchhorn, french_horn, French Horn
            name = f"{verb}/{spelling if f'{verb}/{spelling}' in listing.labels else instrument}"
            for split in listing.subfolders(f"{base}/{instrument}"):
                folder = f"{base}/{instrument}/{split}"
                if split not in ("train", "test"):
                    listing.note_fault("unlisted", folder, "is neither train nor test and is not used")
                    continue
                listing.folders.add(folder)
                rows += [Row(split, path, name, folder) for path in listing.image_files(folder)]
    return rows
