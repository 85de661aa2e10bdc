"""From the name of a set to its labelled images. Nothing is read or drawn before it is needed: `ActivityData.read`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path

from favor_lab.activities.data import ActivityData
from favor_lab.activities.folder import load_folder
from favor_lab.activities.public.catalogue import PUBLIC
from favor_lab.activities.public.load import load_public
from favor_lab.activities.world.catalogue import DRAWN_SETS
from favor_lab.activities.world.sets import load_pocket

# Sets of your own by name, each a function of the root (None where none is given). After `OWN_SETS["birds"] = birds`
# in a script, `load_activities("birds", root)` finds it, and so does `favor_lab.cli.main()` for `--data birds`.
OWN_SETS: dict[str, Callable[[Path | None], ActivityData]] = {}


def load_activities(
    name: str,
    root: str | Path | None = None,
    *,
    person_crop: float | None = None,
    carve_seed: int = 0,
    exclude: Collection[str] = (),
) -> ActivityData:
    """The labelled data called `name`: a pocket set, a public set under `root`, or "folder", any images under `root`.

    A folder is `<root>/<label>/<image>` or `<root>/{train,validation,test}/<label>/<image>` (`data.SPLIT_NAMES` has
    the other names of splits, such as valid and testing); suffixes in any case, hidden files and what operating systems
    leave behind left out. A label is its folder's name with spaces for underscores; `folders` of the result maps it
    back. One warning names files with another suffix and deeper folders. An entry with an image's suffix counts as an
    image: a broken link, a folder or a pipe of such a name is refused when it is read.

    The public sets are "stanford40", "har15", "ucf101" and "ppmi", in the layouts that `public.catalogue` describes;
    nothing is ever downloaded. A set of your own is named in `OWN_SETS`. For public sets:

    person_crop  stanford40: crop to the annotated person, widened on each side by this share of the box's width and
                 height and clipped to the image; None: the full image
    carve_seed   decides which images of "train" become the test set where there is no official one (har15)
    exclude      images to leave out, by their paths relative to `root`, as `favor-lab data` names them

    Raises FileNotFoundError, NotADirectoryError or ValueError (unknown name; at once everything in the folder's layout,
    lists, names and labels that training would fail on: labels without images, folders that read as one label, paths
    that leave the root ...). `few_shot` reports what is wrong with the images that it draws, again at once; `favor-lab
    data NAME --root ROOT` reports it for all images.

    >>> load_activities("cartoon").splits["test"][9]
    Record(label='riding a bike', source='cartoon/test/000009')
    """
    names = (*DRAWN_SETS, *PUBLIC, "folder", *OWN_SETS)
    if name not in names:
        raise ValueError(f"unknown set {name!r}; valid names: {', '.join(names)}")
    if person_crop is not None and name != "stanford40":
        raise ValueError(f"{name!r} has no person boxes, so person_crop must be None; 'stanford40' has them")
    if person_crop is not None and not 0 <= person_crop < math.inf:
        raise ValueError(f"person_crop is a share of the box's size and must be at least 0, not {person_crop}")
    if name in OWN_SETS:
        if exclude:
            where = "leave the images out in its function"
            raise ValueError(f"{name!r} is a set of your own and takes no exclude: {where}")
        return OWN_SETS[name](None if root is None else Path(root))
    if name in DRAWN_SETS:
        if root is not None or exclude:
            raise ValueError(f"{name!r} is drawn and takes no root and no exclude; images on disk are the set 'folder'")
        return load_pocket(name)
    if root is None:
        where = f"see `favor-lab data {name}`" if name in PUBLIC else "the directory of <label>/<image> or train/..."
        raise ValueError(f"{name!r} needs root, the folder that it lies in: {where}")
    if name in PUBLIC:
        return load_public(name, Path(root), person_crop, carve_seed, exclude)
    return load_folder(Path(root), exclude)
