"""Hugging Face `datasets` in and out: tables with a column of images and a column of labels.

The library is imported only where it is used: `pip install 'favor-lab[lab]'` brings it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from favor_lab.activities.data import SPLITS, SPLITS_ARE_CALLED, ActivityData, Record, spaced
from favor_lab.activities.faults import all_at_once
from favor_lab.activities.fewshot import FewShot
from favor_lab.activities.images import Example, decode_image, open_image, prepare_image
from favor_lab.activities.labels import check_labels, label_faults

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


def from_datasets(
    dataset: Dataset | DatasetDict, image_column: str = "image", label_column: str = "label", name: str = "datasets"
) -> ActivityData:
    """A `datasets.Dataset` or `DatasetDict` with an image and a label column, as `load_activities` gives a set.

    The splits of a DatasetDict are "train", "validation" and "test" (or other names, as in `data.SPLIT_NAMES`); a
    Dataset alone is "train". Labels are
    a ClassLabel column, in its order, or strings, in alphabetical order; a label is its name with spaces for
    underscores. Images are decoded when they are read, by `open_image` and under its limits. A record's source is
    "name/split#row".

    Raises ImportError without `datasets`, TypeError for something else than a dataset, and ValueError for other splits,
    a missing or unusable column and, all at once, rows without a label or names that read as one label.

    >>> import datasets
    >>> red = {"bytes": None, "path": "red.png"}
    >>> table = datasets.Dataset.from_dict({"picture": [red, red], "verb": ["riding_a_bike", "reading"]})
    >>> data = from_datasets(table, image_column="picture", label_column="verb", name="mine")
    >>> data.labels, data.splits["train"][0]
    (['reading', 'riding a bike'], Record(label='riding a bike', source='mine/train#0'))
    """
    library = _import_datasets()
    parts: Any = {"train": dataset} if isinstance(dataset, library.Dataset) else dataset
    if not isinstance(parts, dict):
        raise TypeError(f"need a datasets.Dataset or DatasetDict, not {type(parts).__name__} (no streaming)")
    known = [SPLITS.get(split.lower(), "") for split in parts]
    if "train" not in known or not all(known) or len(set(known)) < len(known):
        may = "need train, and may have validation and test, each once"
        raise ValueError(f"{name} has the splits {', '.join(parts)}; {may} ({SPLITS_ARE_CALLED})")
    tables = {
        SPLITS[split.lower()]: _columns(table, image_column, label_column, name) for split, table in parts.items()
    }
    order: list[str] = getattr(tables["train"].features[label_column], "names", None) or []
    rows = [  # split, row, the data's own name of its label
        (split, row, order[v] if isinstance(v, int) and 0 <= v < len(order) else v)
        for split, table in tables.items()
        for row, v in enumerate(table[label_column])
    ]
    missing = f"the column {label_column!r} has no label here, but"
    if faults := [f"{name}/{split}#{row}: {missing} {own!r}" for split, row, own in rows if not isinstance(own, str)]:
        advice = " (labels are strings, or numbers after cast_column(..., ClassLabel(names=[...])); filter other rows)"
        raise ValueError(all_at_once(name, faults, advice))
    present = {own for _, _, own in rows}
    labels = {own: spaced(own) for own in [*order, *sorted(present)] if own in present}
    if wrong := label_faults(labels):
        raise ValueError(all_at_once(name, [f"the label {own!r} {what}" for own, what in wrong.items()]))
    splits: dict[str, list[Record]] = {split: [] for split in tables}
    for split, row, own in rows:
        splits[split].append(Record(labels[own], f"{name}/{split}#{row}"))

    folders = {label: own for own, label in labels.items()}
    return ActivityData(name, list(folders), splits, Rows(name, tables, image_column).open, folders)


@dataclass(frozen=True)
class Rows:
    """The tables of a set, whose cells are opened as images. Worker processes can be sent it."""

    name: str
    tables: dict[str, Any]  # by split
    image_column: str

    def open(self, source: str) -> Image.Image:
        split, _, row = source.removeprefix(f"{self.name}/").partition("#")
        cell = self.tables[split][int(row)][self.image_column] or {}
        if cell.get("bytes") is None and cell.get("path"):
            return open_image(cell["path"])
        return decode_image(cell.get("bytes") or b"", source)


def _columns(table: Any, image_column: str, label_column: str, name: str) -> Any:
    """The table with its images not decoded: cells are {"bytes": ..., "path": ...}. ValueError for missing columns."""
    for column, option in ((image_column, "image_column"), (label_column, "label_column")):
        if column not in table.column_names:
            present = ", ".join(table.column_names)
            raise ValueError(f"{name} has no column {column!r} but {present}: name it by {option}")
    try:
        return table.with_format(None).cast_column(image_column, _import_datasets().Image(decode=False))
    except Exception as fault:  # pyarrow's kinds
        kind = table.features[image_column]
        raise ValueError(f"{name}: the column {image_column!r} holds no images, but {kind}") from fault


def to_datasets(
    data: ActivityData | FewShot | Iterable[Example], labels: Sequence[str] | None = None
) -> Dataset | DatasetDict:
    """Images as a DatasetDict by split, or of a list of examples as a Dataset, held in memory.

    Columns: `image` (upright RGB, as PNG), `label` (a ClassLabel over `labels`; None: the data's own labels, or those
    of the examples in order of appearance) and `source`. Raises ImportError without `datasets` and ValueError for an
    image that cannot be used and for a label that is not in `labels`.

    >>> from favor_lab import few_shot, load_activities
    >>> tables = to_datasets(few_shot(load_activities("cartoon"), shots=1, validation=0, test=2))
    >>> tables["test"].num_rows, tables["test"].features["label"].int2str(tables["test"][1]["label"])
    (32, 'climbing')
    """
    library = _import_datasets()
    splits: Mapping[str, Iterable[Example]]
    if isinstance(data, ActivityData):
        splits = {part: map(data.read, records) for part, records in data.splits.items()}
    elif isinstance(data, FewShot):
        splits = {"train": data.train, "validation": data.validation, "test": data.test}
    else:
        splits = {"": (data := list(data))}
    if labels is None:
        label_names = data.labels if isinstance(data, ActivityData | FewShot) else [example.label for example in data]
        labels = list(dict.fromkeys(label_names))
    if labels:
        check_labels(labels)
    label_type, text = library.ClassLabel(names=list(labels)), library.Value("string")
    features = library.Features({"image": library.Image(), "label": label_type, "source": text})
    tables = {}
    for split, examples in splits.items():
        rows = []
        for example in examples:
            if example.label not in labels:
                raise ValueError(f"{example.source} has the label {example.label!r}, which is none of {labels}")
            image = library.Image().encode_example(prepare_image(example))
            rows.append({"image": image, "label": example.label, "source": example.source})
        if rows:
            tables[split] = library.Dataset.from_list(rows, features=features)
    if not tables:
        raise ValueError("no examples to make a dataset of")
    return tables.get("") or library.DatasetDict(tables)


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as fault:
        raise ImportError("tables of images need the library datasets: pip install 'favor-lab[lab]'") from fault
    return datasets
