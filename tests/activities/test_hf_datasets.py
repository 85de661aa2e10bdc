"""Hugging Face datasets in and out: any table with images and labels becomes a set, and a set becomes a table."""

import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from favor_lab import ActivityData, Example, FewShot, few_shot, from_datasets, load_activities, to_datasets
from pictures import picture

datasets = pytest.importorskip("datasets")
LABELS = ["walking_the_dog", "reading"]


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (40 * seed, 0, 0)).save(file, "PNG")
    return file.getvalue()


def table(labels, images=None, feature=None):
    rows = {"image": images or [{"bytes": png(i), "path": None} for i in range(len(labels))], "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": feature or datasets.ClassLabel(names=LABELS)})
    return datasets.Dataset.from_dict(rows, features=features)


def test_class_labels_keep_their_order_and_images_their_pixels():
    data = from_datasets(datasets.DatasetDict(train=table([1, 0, 1]), test=table([0, 0])), name="mine")
    assert isinstance(data, ActivityData) and data.labels == ["walking the dog", "reading"]
    assert data.original("walking the dog") == "walking_the_dog" and list(data.splits) == ["train", "test"]
    record = data.splits["train"][2]
    assert (record.label, record.source) == ("reading", "mine/train#2")
    assert data.read(record).image.getpixel((0, 0)) == (80, 0, 0)
    assert pickle.loads(pickle.dumps(data)).read(record) == data.read(record), "worker processes are sent it"


def test_shots_are_drawn_from_a_dataset():
    tables = datasets.DatasetDict(train=table([0, 1, 0, 1]), validation=table([0, 1]).select([1]))
    shots = few_shot(from_datasets(tables), 1, validation=0, test=1)
    assert [example.label for example in shots.train] == ["walking the dog", "reading"] == shots.labels


def test_strings_are_sorted_and_columns_may_have_other_names():
    rows = table(["b_b", "a"], feature=datasets.Value("string")).rename_columns({"image": "photo", "label": "verb"})
    data = from_datasets(rows.add_column("photographer", ["x", "y"]), image_column="photo", label_column="verb")
    assert data.labels == ["a", "b b"] and data.splits["train"][0].source == "datasets/train#0"


def test_shuffled_filtered_and_formatted_tables_are_read_by_their_own_rows():
    rows = table([0, 1, 0, 1]).select([3, 0]).with_format("numpy")
    data = from_datasets(rows)
    assert [record.label for record in data.splits["train"]] == ["reading", "walking the dog"]
    assert data.read(data.splits["train"][0]).image.getpixel((0, 0)) == (120, 0, 0)


def test_an_imagefolder_reads_as_our_own_folder(tmp_path):
    for number, label in enumerate(LABELS):
        picture(tmp_path / "set" / label / "a.png", number)
    rows = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    theirs, ours = from_datasets(rows), load_activities("folder", tmp_path / "set")
    assert theirs.labels == ours.labels and theirs.folders == ours.folders
    pixels = [[data.read(record).image.tobytes() for record in data.splits["train"]] for data in (theirs, ours)]
    assert pixels[0] == pixels[1]


def test_broken_images_name_their_row():
    images = [{"bytes": png(0)[:40], "path": None}, None, {"bytes": None, "path": "gone.png"}]
    data = from_datasets(table([0, 0, 1], images))
    reasons = "train#0: cannot be read", "train#1: .*0 bytes", "gone.png: cannot be read"
    for record, reason in zip(data.splits["train"], reasons, strict=True):
        with pytest.raises(ValueError, match=reason):
            data.read(record)


@pytest.mark.parametrize(
    "make, kind, reason",
    [
        (lambda: [1, 2], TypeError, "need a datasets.Dataset or DatasetDict, not list"),
        (lambda: table([0]).to_iterable_dataset(), TypeError, "IterableDataset .no streaming"),
        (lambda: datasets.DatasetDict(test=table([0])), ValueError, "has the splits test; need train"),
        (lambda: datasets.DatasetDict(train=table([0]), unseen=table([0])), ValueError, "splits train, unseen; need"),
        (lambda: datasets.DatasetDict({n: table([0]) for n in ("train", "val", "validation")}), ValueError, "splits"),
        (lambda: table([0]).rename_column("image", "img"), ValueError, "'image' but img, label.*image_column"),
        (lambda: table([0]).rename_column("label", "y"), ValueError, "'label' but image, y.*label_column"),
        (lambda: datasets.Dataset.from_dict({"image": [1.5], "label": ["a"]}), ValueError, "'image' holds no images"),
        (lambda: table([0, None, 1]), ValueError, "datasets/train#1: the column 'label' has no label here, but None"),
        (lambda: table([3], feature=datasets.Value("int64")), ValueError, "has no label here, but 3"),
        (lambda: table(["a_b", "A b"], feature=datasets.Value("string")), ValueError, "'a_b' reads as one label with"),
        (lambda: table(["--"], feature=datasets.Value("string")), ValueError, "neither a letter nor a digit"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused_with_column_and_row(make, kind, reason):
    with pytest.raises(kind, match=reason):
        from_datasets(make())


def test_there_and_back_again():
    shots = few_shot(load_activities("sketch"), 1, validation=0, test=2)
    tables = to_datasets(shots)
    assert list(tables) == ["train", "test"] and tables["train"].column_names == ["image", "label", "source"]
    assert tables["test"]["source"][:] == [example.source for example in shots.test]
    data = from_datasets(tables)
    assert data.labels == shots.labels
    for record, example in zip(data.splits["test"], shots.test, strict=True):
        again = data.read(record)
        assert again.label == example.label and again.image.tobytes() == example.image.tobytes()


def test_a_list_of_examples_and_a_folder_become_tables(tmp_path):
    grey = Example(Image.fromarray(np.full((4, 4), 7, dtype=np.uint8)), "reading", "grey.png")
    rows = to_datasets([grey], labels=["running", "reading"])
    assert rows[0]["label"] == 1 and rows[0]["image"].getpixel((0, 0)) == (7, 7, 7)
    assert to_datasets(iter([grey])).features["label"].names == ["reading"]
    with pytest.raises(ValueError, match="no examples"):
        to_datasets([])
    with pytest.raises(ValueError, match="grey.png has the label 'reading', which is none of"):
        to_datasets([grey], labels=["running"])
    picture(tmp_path / "reading/a.jpg")
    (example,) = to_datasets(load_activities("folder", tmp_path))["train"]
    assert example["source"] == str(tmp_path / "reading/a.jpg")
    assert list(to_datasets(FewShot([grey], [], [], ["reading"]))) == ["train"]


def test_without_datasets_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for call in (from_datasets, to_datasets):
        with pytest.raises(ImportError, match=r"pip install 'favor-lab\[lab\]'"):
            call([])
