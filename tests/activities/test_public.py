"""The public sets, on small trees in their exact layouts: every trap and every kind of broken file is refused by name.

First a valid tree of each set, then the possible faults of lists, boxes, tables and images. `refused` asserts
that loading and checking both name every planted fault, and that loading names all of them in one error.
"""

import io
import json
import os
import random
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from favor_lab.activities import few_shot, load_activities
from favor_lab.activities.checks import KINDS, check_folder
from favor_lab.activities.images import open_image, pixel_box
from favor_lab.activities.labels import normalise_label
from favor_lab.activities.public.catalogue import PUBLIC
from favor_lab.activities.public.load import CARVED_SHARE, readable_labels
from pictures import picture
from trees import edit_lines, edit_split, photo, write

pytestmark = pytest.mark.filterwarnings("ignore:.*labels have no image:UserWarning")

LAYOUTS = {
    "stanford40": trees.stanford40,
    "har15": trees.har15_kaggle,
    "har15 hub": trees.har15_hub,
    "ucf101": trees.ucf101,
    "ppmi": trees.ppmi,
}


def made(layout: str, root: Path) -> str:
    """Makes the tree and returns the name of its set."""
    if layout == "har15 hub":
        pytest.importorskip("pyarrow")
    LAYOUTS[layout](root)
    return layout.split()[0]


def refused(name: str, root: Path, *fragments: str, person_crop: float | None = None) -> str:
    """Loading fails with every fragment, each in a line of its own, and the check has the same lines as faults."""
    with pytest.raises(ValueError) as error:
        load_activities(name, root, person_crop=person_crop)
    header, *lines = str(error.value).splitlines()
    assert f"{name} in {root}: " in header
    fatal = check_folder(name, root, person_crop=person_crop is not None).fatal
    assert sorted(line.strip() for line in lines) == sorted(str(fault) for fault in fatal if fault.kind != "unreadable")
    for fragment in fragments:
        assert sum(fragment in line for line in lines) == 1, f"{fragment!r} is not once in\n{error.value}"
    assert len(lines) == len(fragments), error.value
    return str(error.value)


def notes(name: str, root: Path, kind: str, **options) -> list[str]:
    """Notes of a kind; the folder has no fault."""
    report = check_folder(name, root, **options)
    assert not report.fatal, report.fatal
    return [str(fault) for fault in report.faults if fault.kind == kind]


def files(data, split: str) -> list[str]:
    return [Path(record.source).name for record in data.splits[split]]


# -------------------------------------------------------------------------------------------------- what is true of all


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_good_tree_loads_is_clean_and_gives_shots(layout, tmp_path):
    name = made(layout, tmp_path)
    report = check_folder(name, tmp_path, decode=True)
    assert not report.fatal and {fault.kind for fault in report.faults} <= {"count", "split"}
    data = load_activities(name, tmp_path)
    assert data.name == name and list(data.splits) == [s for s in ("train", "validation", "test") if s in data.splits]
    everything = [record.source for records in data.splits.values() for record in records]
    total = sum(count for split, (count, _, _) in report.counts.items() if split != "together")
    assert len(set(everything)) == len(everything) == total
    shots = few_shot(data, shots=1, validation=0, test=1)
    assert [example.label for example in shots.train] == data.labels == shots.labels
    assert len({example.image.size for example in few_shot(data, 2, validation=0, test=1).train}) > 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_image_is_read_before_it_is_asked_for(layout, tmp_path, monkeypatch):
    name = made(layout, tmp_path)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was read"))
    data = load_activities(name, tmp_path)
    assert len(data.splits["train"]) > 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_downloaded_and_nothing_is_changed(layout, tmp_path, monkeypatch):
    name = made(layout, tmp_path)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network was asked for"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    check_folder(name, tmp_path, decode=True)
    few_shot(load_activities(name, tmp_path), shots=1, validation=0, test=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_map_to_the_sets_own_names_and_back(layout, tmp_path):
    data = load_activities(made(layout, tmp_path), tmp_path)
    assert list(data.folders) == data.labels
    for label in data.labels:
        assert "_" not in label and "/" not in label
        assert data.label_of(data.original(label)) == label == data.label_of(label.upper())
    with pytest.raises(ValueError, match="no label 'skating'"):
        data.original("skating")
    with pytest.raises(ValueError, match="'skating' is none of its names"):
        data.label_of("skating")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_roots(layout, tmp_path):
    name = layout.split()[0]
    with pytest.raises(ValueError, match=f"needs root.*favor-lab data {name}"):
        load_activities(name)
    for ask in (load_activities, check_folder):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ask(name, tmp_path / "nowhere")
        with pytest.raises(NotADirectoryError, match="file"):
            ask(name, write(tmp_path / "file", "x"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_is_one_fault_about_the_layout(layout, tmp_path):
    name = layout.split()[0]
    (fault, *more) = check_folder(name, tmp_path).fatal
    assert fault.kind == "layout" and len(more) == (name == "ucf101")  # the list and the folder
    with pytest.raises(ValueError, match="no such|neither|No such"):
        load_activities(name, tmp_path)


def test_the_catalogue_agrees_with_what_is_published():
    sizes = {name: (len(entry.names), sum(entry.counts.values())) for name, entry in PUBLIC.items()}
    assert sizes == {"stanford40": (40, 9532), "har15": (15, 12600), "ucf101": (101, 13320), "ppmi": (24, 4800)}
    for entry in PUBLIC.values():
        labels = readable_labels(entry)
        assert len({normalise_label(label) for label in labels.values()}) == len(entry.names)
        for split, each in entry.per_label.items():
            assert each * len(entry.names) == entry.counts[split]


def test_two_names_that_read_as_one_label_are_refused():
    from dataclasses import replace

    entry = replace(PUBLIC["har15"], names=("using_laptop", "Using-Laptop"))
    with pytest.raises(ValueError, match="'Using-Laptop' reads as one label with 'using_laptop'"):
        readable_labels(entry)


def test_a_name_that_could_be_two_labels_is_refused(tmp_path):
    from dataclasses import replace

    data = replace(load_activities(made("ucf101", tmp_path), tmp_path), folders={"diving": "Push_Ups"})
    with pytest.raises(ValueError, match="'Push_Ups' could be 'diving' or 'push ups'"):
        data.label_of("Push_Ups")


# ---------------------------------------------------------------------------------------------------------- stanford 40


def test_stanford40_official_splits_and_labels(tmp_path):
    trees.stanford40(tmp_path)
    data = load_activities("stanford40", tmp_path)
    assert data.labels == ["reading", "riding a bike", "throwing frisbee"]
    assert (
        data.folders["throwing frisbee"] == "throwing_frisby" and data.label_of("throwing_frisby") == "throwing frisbee"
    )
    assert files(data, "train")[:3] == ["reading_001.jpg", "reading_002.jpg", "riding_a_bike_001.jpg"]
    assert {record.label for record in data.splits["test"] if "riding_a_bike_" in record.source} == {"riding a bike"}
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 6, "test": 9}


def test_stanford40_splits_come_from_the_lists_not_from_the_numbers(tmp_path):
    trees.stanford40(tmp_path)
    for split, number in (("train", "005"), ("test", "001")):
        names = [f"{action}_{number}.jpg" for action in ("reading", "riding_a_bike", "throwing_frisby")]
        write(tmp_path / f"ImageSplits/{split}.txt", "\n".join(names))
    for path in tmp_path.glob("ImageSplits/*_t*.txt"):
        path.unlink()
    data = load_activities("stanford40", tmp_path)
    assert {name[-7:-4] for name in files(data, "train")} == {"005"} and {n[-7:-4] for n in files(data, "test")} == {
        "001"
    }


def test_the_header_and_the_tabs_of_actions_txt_are_no_action(tmp_path):
    trees.stanford40(tmp_path)
    path = tmp_path / "ImageSplits/actions.txt"
    assert "action_name\tnumber_of_images" in path.read_text() and "reading\t\t5" in path.read_text()
    assert notes("stanford40", tmp_path, "label") == notes("stanford40", tmp_path, "list") == []
    edit_lines(path, lambda lines: [line.replace("bike\t\t5", "bike\t\t6") for line in lines] + ["sneezing\t3"])
    (count,) = [note for note in notes("stanford40", tmp_path, "count") if "actions.txt" in note]
    assert count == "ImageSplits/actions.txt line 3: riding_a_bike has 6 images here, 5 in the lists"
    assert notes("stanford40", tmp_path, "label") == [
        "ImageSplits/actions.txt line 5: 'sneezing' is no label of stanford40"
    ]


def test_actions_txt_without_a_header_keeps_its_first_action(tmp_path):
    trees.stanford40(tmp_path)
    change = lambda lines: ["reading\t99", "riding_a_bike    98", *lines[3:]]  # noqa: E731
    edit_lines(tmp_path / "ImageSplits/actions.txt", change)
    count_notes = str(notes("stanford40", tmp_path, "count"))
    assert "reading has 99 images here, 5 in" in count_notes and "riding_a_bike has 98 images here, 5 in" in count_notes


def test_auxiliary_lists_are_notes(tmp_path):
    trees.stanford40(tmp_path)
    write(tmp_path / "ImageSplits/actions.txt", b"reading\xff\t5\n")
    edit_lines(tmp_path / "ImageSplits/riding_a_bike_test.txt", lambda lines: lines[1:])
    (differs, unreadable) = sorted(notes("stanford40", tmp_path, "list"), key=lambda note: "actions" in note)
    assert "riding_a_bike_test.txt: differs from ImageSplits/test.txt" in differs and "riding_a_bike_003.jpg" in differs
    assert unreadable.startswith("ImageSplits/actions.txt line 1: is not UTF-8")
    assert len(load_activities("stanford40", tmp_path).splits["test"]) == 9


def test_without_the_whole_list_those_of_the_actions_are_used(tmp_path):
    trees.stanford40(tmp_path)
    (tmp_path / "ImageSplits/train.txt").unlink()
    assert len(load_activities("stanford40", tmp_path).splits["train"]) == 6
    assert "lists of the single actions are used" in str(notes("stanford40", tmp_path, "list"))
    for path in (tmp_path / "ImageSplits").glob("*_train.txt"):
        path.unlink()
    refused("stanford40", tmp_path, "ImageSplits/train.txt: cannot be read: No such file")
    assert not [fault for fault in check_folder("stanford40", tmp_path).faults if fault.kind == "unlisted"]


def test_a_mirror_without_image_splits_is_carved_and_says_so(tmp_path):
    trees.stanford40(tmp_path, train=4, test=5)
    for path in (tmp_path / "ImageSplits").iterdir():
        path.unlink()
    (tmp_path / "ImageSplits").rmdir()
    with pytest.warns(UserWarning, match="ImageSplits is missing.*not the official splits"):
        data = load_activities("stanford40", tmp_path)
    assert data.name == "stanford40 (carved test set)"
    assert [sum(r.label == label for r in data.splits["test"]) for label in data.labels] == [9 // CARVED_SHARE] * 3
    assert len(data.splits["train"]) + len(data.splits["test"]) == 27
    assert not set(files(data, "train")) & set(files(data, "test"))
    assert "not the official splits" in str(notes("stanford40", tmp_path, "split"))
    report = check_folder("stanford40", tmp_path)
    assert report.counts["together"] == (27, 9532, 3)
    photo(tmp_path / "JPEGImages/holiday.jpg")
    with pytest.raises(ValueError, match=r"'holiday.jpg' \(JPEGImages/holiday.jpg\) is no label of stanford40"):
        load_activities("stanford40", tmp_path)
    assert len(load_activities("stanford40", tmp_path, exclude=["JPEGImages/holiday.jpg"]).splits["train"]) == 21


def test_lists_with_byte_order_mark_windows_line_ends_and_blank_lines(tmp_path):
    trees.stanford40(tmp_path)
    path = tmp_path / "ImageSplits/train.txt"
    write(path, b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \r\n\r\n"))
    assert len(load_activities("stanford40", tmp_path).splits["train"]) == 6


def test_every_fault_of_a_list_is_named_at_once(tmp_path):
    trees.stanford40(tmp_path)
    (tmp_path / "JPEGImages/reading_002.jpg").unlink()
    (tmp_path / "JPEGImages/riding_a_bike_002.jpg").rename(tmp_path / "JPEGImages/riding_a_bike_002.JPG")
    more = ["../../secret_001.jpg", "/etc/passwd_001.jpg", "deeper/reading_001.jpg", "throwing_frisbee_001.jpg",
            "reading_001.jpg", "reading_003.jpg", "notes.txt"]  # fmt: skip
    edit_lines(tmp_path / "ImageSplits/train.txt", lambda lines: lines + more)
    refused(
        "stanford40",
        tmp_path,
        "JPEGImages/reading_002.jpg: listed in ImageSplits/train.txt line 2, but there is no such file",
        "the file's name is written otherwise: JPEGImages/riding_a_bike_002.JPG",
        "train.txt line 7: 'JPEGImages/../../secret_001.jpg' is no path of the form",
        "train.txt line 8: 'JPEGImages//etc/passwd_001.jpg' is no path of the form",
        "train.txt line 9: 'JPEGImages/deeper/reading_001.jpg' is no path of the form",
        "line 10: 'throwing_frisbee' (JPEGImages/throwing_frisbee_001.jpg) is no label of stanford40; is it 'throw",
        "line 11: JPEGImages/reading_001.jpg is listed again; ImageSplits/train.txt line 1 has it in train",
        "'notes.txt' (JPEGImages/notes.txt) is no label",
        "test.txt line 1: JPEGImages/reading_003.jpg is listed in test as 'reading'; ImageSplits/train.txt line 12",
    )


def test_a_list_that_is_not_utf8_names_its_line(tmp_path):
    trees.stanford40(tmp_path)
    write(tmp_path / "ImageSplits/train.txt", b"reading_001.jpg\nreading_\xe9_002.jpg\n")
    refused("stanford40", tmp_path, "train.txt line 2: is not UTF-8")


def test_many_faults_are_cut_short_in_the_error_and_whole_in_the_check(tmp_path):
    trees.stanford40(tmp_path, train=9)
    for path in tmp_path.glob("JPEGImages/*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match=r"36 faults .*\n(.*\n)*  \.\.\. and 16 more$") as error:
        load_activities("stanford40", tmp_path)
    assert len(str(error.value).splitlines()) == 22
    assert len(check_folder("stanford40", tmp_path).fatal) == 36


def test_a_root_one_folder_too_high_and_one_still_packed(tmp_path):
    trees.stanford40(tmp_path / "a/Stanford40")
    refused("stanford40", tmp_path / "a", f"{tmp_path}/a/Stanford40 has it: is that the root?")
    write(tmp_path / "b/Stanford40_JPEGImages.zip", b"PK")
    refused("stanford40", tmp_path / "b", "unpack Stanford40_JPEGImages.zip first")


def test_links_that_lead_nowhere_in_a_circle_or_to_a_folder(tmp_path):
    trees.stanford40(tmp_path / "set")
    images = tmp_path / "set/JPEGImages"
    for name, target in (("reading_001", "gone"), ("reading_002", "reading_002.jpg"), ("riding_a_bike_001", ".")):
        (images / f"{name}.jpg").unlink()
        (images / f"{name}.jpg").symlink_to(target)
    refused(
        "stanford40",
        tmp_path / "set",
        "reading_001.jpg: listed in ImageSplits/train.txt line 1, but it is a link that leads nowhere or in a circle",
        "reading_002.jpg: listed in ImageSplits/train.txt line 2, but it is a link that leads nowhere or in a circle",
        "riding_a_bike_001.jpg: listed in ImageSplits/train.txt line 3, but it is a folder",
        "'reading' has images here, but none in train",
    )


def test_a_circle_instead_of_the_image_folder(tmp_path):
    trees.write(tmp_path / "ImageSplits/train.txt", "reading_001.jpg")
    (tmp_path / "JPEGImages").symlink_to("JPEGImages")
    refused("stanford40", tmp_path, "JPEGImages: there is no such folder")


def test_links_to_images_kept_elsewhere_are_followed(tmp_path):
    trees.stanford40(tmp_path / "set")
    (tmp_path / "set/JPEGImages").rename(tmp_path / "elsewhere")
    (tmp_path / "set/JPEGImages").symlink_to(tmp_path / "elsewhere")
    data = load_activities("stanford40", tmp_path / "set")
    assert data.read(data.splits["train"][0]).image.size


def test_hidden_files_are_left_out_and_others_are_noted(tmp_path):
    trees.stanford40(tmp_path)
    for name in (".reading_009.jpg", "._reading_001.jpg", "Thumbs.db", "reading_010.jpg", "notes.txt"):
        write(tmp_path / "JPEGImages" / name, b"x")
    assert notes("stanford40", tmp_path, "unlisted") == [
        "JPEGImages/notes.txt: lies there, but no list names it",
        "JPEGImages/reading_010.jpg: lies there, but no list names it",
    ]


def test_a_label_without_training_images(tmp_path):
    trees.stanford40(tmp_path)
    edit_lines(tmp_path / "ImageSplits/train.txt", lambda lines: [line for line in lines if "bike" not in line])
    refused("stanford40", tmp_path, "test: 'riding a bike' has images here, but none in train")


def test_labels_without_any_image_are_a_warning(tmp_path, recwarn):
    trees.stanford40(tmp_path)
    with pytest.warns(UserWarning, match="37 of 40 labels have no image: applauding, .*writing on a book"):
        load_activities("stanford40", tmp_path)


# ---------------------------------------------------------------------------------------------------------------- boxes


def one_photo(root: Path, box=(5, 4, 15, 12), **options) -> Image.Image:
    """A tree whose reading_001.jpg is 24 x 18 with this box; the image."""
    trees.stanford40(root)
    path = photo(root / "JPEGImages/reading_001.jpg", mode="RGB", size=(24, 18), **options)
    write(root / "XMLAnnotations/reading_001.xml", trees.annotation("reading", path.name, box))
    return open_image(str(path))


def crop_of(root: Path, margin: float) -> Image.Image:
    data = load_activities("stanford40", root, person_crop=margin)
    return data.read(data.splits["train"][0]).image


def test_a_person_is_cropped_by_the_names_of_the_corners(tmp_path):
    image = one_photo(tmp_path)
    assert load_activities("stanford40", tmp_path).splits["train"][0].box is None
    assert load_activities("stanford40", tmp_path, person_crop=0).splits["train"][0].box == (5, 4, 15, 12)
    assert np.array_equal(crop_of(tmp_path, 0), np.asarray(image)[4:12, 5:15])
    assert np.array_equal(crop_of(tmp_path, 0.25), np.asarray(image)[2:14, 2:18])
    assert np.array_equal(crop_of(tmp_path, 9), np.asarray(image))


def test_a_box_over_the_edge_is_clipped(tmp_path):
    image = one_photo(tmp_path, box=(-3, 10, 17.5, 40))
    assert np.array_equal(crop_of(tmp_path, 0), np.asarray(image)[10:18, 0:18])


def test_a_box_is_of_the_stored_image_not_of_the_one_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    one_photo(tmp_path, exif=exif)
    with Image.open(tmp_path / "JPEGImages/reading_001.jpg") as image:
        expected = image.crop((5, 4, 15, 12)).rotate(-90, expand=True)
    assert np.array_equal(crop_of(tmp_path, 0), expected)


def test_of_several_people_the_one_who_does_it_and_of_those_the_largest(tmp_path):
    one_photo(tmp_path)
    people = (("running", (0, 0, 24, 18)), ("reading", (1, 1, 4, 4)), ("Reading", (5, 5, 12, 13)), ("", (0, 0, 1, 1)))
    parts = [trees.annotation(action, "x", box).split("<object>")[1].split("</object>")[0] for action, box in people]
    text = "".join(f"<object>{part}</object>" for part in parts)
    write(tmp_path / "XMLAnnotations/reading_001.xml", f"<annotation>{text}</annotation>")
    assert load_activities("stanford40", tmp_path, person_crop=0).splits["train"][0].box == (5, 5, 12, 13)


SECRET = "only in a file outside of the set"
GOOD = trees.annotation("reading", "reading_001.jpg")
BOXES = {
    "no XML: no element found": "",
    "no XML: mismatched tag": GOOD.replace("</object>", "</thing>"),
    "no XML: not well-formed": b"\x00" + GOOD.encode(),
    "has no <object>, so no person": "<annotation></annotation>",
    "is about 'running', not 'reading'": GOOD.replace("reading</action>", "running</action>"),
    "has '' as <xmin>, not a number": GOOD.replace("<xmin>2</xmin>", ""),
    "has 'two' as <xmin>, not a number": GOOD.replace("<xmin>2", "<xmin>two"),
    "has 'nan' as <ymax>, not a number": GOOD.replace("<ymax>9", "<ymax>nan"),
    "has '1e999' as <ymax>, not a number": GOOD.replace("<ymax>9", "<ymax>1e999"),
    "has '' as <width>, not a number": GOOD.replace("<width>24</width>", ""),
    "has an empty box: x from 2 to 2, y from 3 to 9": GOOD.replace("<xmax>8", "<xmax>2"),
    "has an empty box: x from 2 to 8, y from 30 to 9": GOOD.replace("<ymin>3", "<ymin>30"),
    "the box (30.0, 3.0, 38.0, 9.0) lies outside the image of 24 x 18": GOOD.replace("<xmax>8", "<xmax>38").replace(
        "<xmin>2", "<xmin>30"
    ),
    "is larger than 1 MB": GOOD + " " * 1_000_000,
    "declares a document type (a)": f'<!DOCTYPE a [<!ENTITY x SYSTEM "SECRET_FILE">]>{GOOD.replace(">2<", ">&x;<")}',
    "declares a document type (b)": '<!DOCTYPE b SYSTEM "http://localhost/x.dtd">' + GOOD,
    "declares a document type (c)": '<!DOCTYPE c [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 1000
    + '">]>'
    + GOOD.replace(">2<", ">" + "&b;" * 1000 + "<"),
}


@pytest.mark.parametrize("reason", BOXES)
def test_an_unusable_annotation_is_named_with_its_reason(reason, tmp_path, monkeypatch):
    text = BOXES[reason]
    secret = write(tmp_path / "secret.txt", SECRET)
    one_photo(tmp_path / "set")
    if isinstance(text, str):
        text = text.replace("SECRET_FILE", secret.as_uri())
    write(tmp_path / "set/XMLAnnotations/reading_001.xml", text)
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network was asked for"))
    where = "XMLAnnotations/reading_001.xml"
    message = refused("stanford40", tmp_path / "set", f"{where}: ", person_crop=0.1)
    assert reason in message and SECRET not in message
    assert reason in str(notes("stanford40", tmp_path / "set", "box"))  # whole images need no box
    data = load_activities("stanford40", tmp_path / "set", person_crop=0.1, exclude=["JPEGImages/reading_001.jpg"])
    assert len(data.splits["train"]) == 5


def test_all_missing_and_broken_annotations_are_named_at_once(tmp_path):
    trees.stanford40(tmp_path)
    (tmp_path / "XMLAnnotations/reading_001.xml").unlink()
    (tmp_path / "XMLAnnotations/throwing_frisby_005.xml").unlink()
    write(tmp_path / "XMLAnnotations/riding_a_bike_002.xml", "<a")
    refused(
        "stanford40",
        tmp_path,
        "reading_001.xml: is missing: no person's box for JPEGImages/reading_001.jpg",
        "riding_a_bike_002.xml: is no XML",
        "throwing_frisby_005.xml: is missing",
        person_crop=0.1,
    )


def test_no_annotations_at_all(tmp_path):
    trees.stanford40(tmp_path)
    (tmp_path / "XMLAnnotations").rename(tmp_path / "boxes")
    refused("stanford40", tmp_path, "XMLAnnotations: there is no such folder", person_crop=0.1)
    assert len(notes("stanford40", tmp_path, "box")) == 1
    assert len(load_activities("stanford40", tmp_path).splits["train"]) == 6


def test_the_check_compares_a_box_with_the_image_itself(tmp_path):
    one_photo(tmp_path)
    path = tmp_path / "XMLAnnotations/reading_001.xml"
    write(path, trees.annotation("reading", "x", box=(5, 4, 15, 12), size=(640, 480)))
    (note,) = notes("stanford40", tmp_path, "box")
    assert note == "JPEGImages/reading_001.jpg: the annotation is of an image of 640 x 480, this is 24 x 18"
    write(path, trees.annotation("reading", "x", box=(30, 4, 45, 12)).split("<size>")[0] + "</annotation>")
    (fault,) = check_folder("stanford40", tmp_path, person_crop=True).fatal
    assert "lies outside the image of 24 x 18" in str(fault) and fault.cure == ("JPEGImages/reading_001.jpg",)
    data = load_activities("stanford40", tmp_path, person_crop=0.1)
    with pytest.raises(ValueError, match=r"reading_001\.jpg: .*outside the image of 24 x 18"):
        data.read(data.splits["train"][0])


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_makes_no_sense(share, tmp_path):
    with pytest.raises(ValueError, match="person_crop is a share"):
        load_activities("stanford40", tmp_path, person_crop=share)


@pytest.mark.parametrize("name", ["har15", "ucf101", "ppmi", "folder", "cartoon"])
def test_only_stanford40_has_boxes(name, tmp_path):
    with pytest.raises(ValueError, match="has no person boxes"):
        load_activities(name, tmp_path, person_crop=0.1)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 4, 5), (20, 0, 25, 5), (-9, 0, 0, 5), (0, -9, 5, 0)])
def test_a_box_without_a_pixel(box):
    with pytest.raises(ValueError, match="outside the image of 20 x 10"):
        pixel_box(box, (20, 10), margin=5)


# --------------------------------------------------------------------------------------------------------------- har 15


def test_har15_carves_a_balanced_test_set_out_of_train(tmp_path):
    trees.har15_kaggle(tmp_path, train=9)
    data = load_activities("har15", tmp_path)
    assert data.labels == ["calling", "listening to music", "using laptop"]
    assert [sum(r.label == label for r in data.splits["test"]) for label in data.labels] == [9 // CARVED_SHARE] * 3
    assert [sum(r.label == label for r in data.splits["train"]) for label in data.labels] == [7] * 3
    sources = files(data, "train") + files(data, "test")
    assert sorted(sources) == sorted(file for file, _ in trees.rows(tmp_path / "Training_set.csv")[1:])
    labels = dict(trees.rows(tmp_path / "Training_set.csv")[1:])
    for records in data.splits.values():
        assert all(data.original(r.label) == labels[Path(r.source).name] for r in records)


def test_the_carved_set_is_balanced_whatever_the_labels_have(tmp_path):
    trees.har15_kaggle(tmp_path, train=12)
    edit_lines(
        tmp_path / "Training_set.csv", lambda lines: [line for line in lines if "calling" not in line or "1" in line]
    )
    fewest = sum(label == "calling" for _, label in trees.rows(tmp_path / "Training_set.csv"))
    assert 12 // CARVED_SHARE > fewest // CARVED_SHARE > 0
    data = load_activities("har15", tmp_path)
    counts = [sum(r.label == label for r in data.splits["test"]) for label in data.labels]
    assert counts == [fewest // CARVED_SHARE] * 3


def test_the_carved_set_depends_on_the_seed_and_the_names_alone(tmp_path):
    trees.har15_kaggle(tmp_path, train=40)
    first = load_activities("har15", tmp_path)
    again, other = load_activities("har15", tmp_path), load_activities("har15", tmp_path, carve_seed=1)
    assert files(again, "test") == files(first, "test") and set(files(other, "test")) != set(files(first, "test"))
    assert files(first, "test")[:10] != sorted(files(first, "test") + files(first, "train"))[:10]
    shuffled = lambda lines: lines[:1] + random.Random(0).sample(lines[1:], len(lines) - 1)  # noqa: E731
    edit_lines(tmp_path / "Training_set.csv", shuffled)
    assert set(files(load_activities("har15", tmp_path), "test")) == set(files(first, "test"))
    left = [path for path in files(first, "train") if path == files(first, "train")[0]]
    without = load_activities("har15", tmp_path, exclude=[f"train/{left[0]}"])
    common = set(files(without, "test")) & set(files(first, "test"))
    assert len(common) >= len(without.splits["test"]) - 3 and left[0] not in files(without, "train")


def test_the_published_test_images_are_never_used(tmp_path):
    trees.har15_kaggle(tmp_path, test=6)
    csv_of_the_hub = "filename,label\n" + "".join(f"Image_{i + 1}.jpg,calling\n" for i in range(6))
    for text in (csv_of_the_hub, "filename\n", b"\xff\xfe nonsense"):
        write(tmp_path / "Testing_set.csv", text)
        data = load_activities("har15", tmp_path)
        everything = [record.source for records in data.splits.values() for record in records]
        assert len(everything) == 24 and not [source for source in everything if "/test/" in source]
    assert "are not real and are not used; a test set is carved" in str(notes("har15", tmp_path, "split"))
    expected = "together: 8 images instead of 840: calling, listening to music, using laptop"
    assert (
        expected in notes("har15", tmp_path, "count") and ", 24 images (" in check_folder("har15", tmp_path).summary()
    )
    assert check_folder("har15", tmp_path).counts["together"] == (24, 12600, 3)


def test_a_table_with_byte_order_mark_other_columns_and_quotes(tmp_path):
    trees.har15_kaggle(tmp_path)
    path = tmp_path / "Training_set.csv"
    table = trees.rows(path)[1:]
    text = "".join(f'{i},"{label}" ,{file}\r\n' for i, (file, label) in enumerate(table)).replace('" ,', '",')
    write(path, b"\xef\xbb\xbf" + ("Index, Label ,FileName\r\n" + text).encode())
    assert len(load_activities("har15", tmp_path).splits["train"]) == 18


def test_every_fault_of_a_table_is_named_at_once(tmp_path):
    trees.har15_kaggle(tmp_path)
    more = ["Image_1.jpg,calling", "Image_2.jpg,calling", "Image_99.jpg,calling", "../test/Image_1.jpg,calling",
            ",calling", "Image_7.jpg", "a.jpg,calling,x", "b.jpg,skating", "", "c.jpg,"]  # fmt: skip
    edit_lines(tmp_path / "Training_set.csv", lambda lines: lines + more)
    refused(
        "har15",
        tmp_path,
        "line 26: train/Image_1.jpg is listed again; Training_set.csv line 2 has it in train as 'calling'",
        "line 27: train/Image_2.jpg is listed in train as 'calling'; Training_set.csv line 3 has it in train as",
        "train/Image_99.jpg: listed in Training_set.csv line 28, but there is no such file",
        "line 29: 'train/../test/Image_1.jpg' is no path of the form train/<file>",
        "line 30: 'train/' is no path of the form",
        "line 31: has 1 columns, the first line 2",
        "line 32: has 3 columns, the first line 2",
        "line 33: 'skating' (train/b.jpg) is no label of har15",
        "line 35: '' (train/c.jpg) is no label of har15",
    )


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "line 1: lacks the column filename and label; its first line is ''"),
        (b"file,label\na.jpg,calling\n", "line 1: lacks the column filename; its first line is 'file,label'"),
        (b"filename;label\na.jpg;calling\n", "lacks the column filename and label; its first line is 'filename;label'"),
        (b"filename\nImage_1.jpg\n", "lacks the column label"),
        (b'filename,label\n"Image_1.jpg,calling\n', "is no CSV: unexpected end of data"),
        (b"filename,label\nImage_1.jpg,calling\nbild_\xfc.jpg,calling\n", "line 3: is not UTF-8"),
        (b"filename,label\n", ".: there are no training images"),
    ],
)
def test_a_table_that_is_none(content, reason, tmp_path):
    trees.har15_kaggle(tmp_path)
    write(tmp_path / "Training_set.csv", content)
    refused("har15", tmp_path, reason)


def test_one_image_of_a_label_cannot_train_and_test(tmp_path):
    trees.har15_kaggle(tmp_path)
    keep = lambda lines: [line for line in lines if "calling" not in line or line.startswith("Image_1.")]  # noqa: E731
    edit_lines(tmp_path / "Training_set.csv", keep)
    refused("har15", tmp_path, "train: one image is too few to train and to test: 'calling'")


def test_neither_layout_of_har15(tmp_path):
    trees.har15_kaggle(tmp_path / "Human Action Recognition")
    refused("har15", tmp_path, "neither this (Kaggle) nor data/train-*.parquet (Hub) is in")
    assert "Human Action Recognition has it: is that the root?" in str(check_folder("har15", tmp_path).fatal[0])
    (tmp_path / "Human Action Recognition/train").rename(tmp_path / "elsewhere")
    refused("har15", tmp_path / "Human Action Recognition", "train: there is no such folder")


# -------------------------------------------------------------------------------------------------- har 15 from the Hub


@pytest.fixture
def hub(tmp_path) -> Path:
    pytest.importorskip("pyarrow")
    return trees.har15_hub(tmp_path)


def table_of(path: Path) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def test_the_rows_of_the_hub_are_the_images(hub):
    data = load_activities("har15", hub)
    rows = table_of(hub / "data/train-00000-of-00001.parquet")
    assert len(rows) == 24 and len(data.splits["train"]) == 18 and len(data.splits["test"]) == 6
    everything = [record for records in data.splits.values() for record in records]
    random.Random(0).shuffle(everything)  # rows of other groups in between
    for record in everything:
        path, _, row = record.source.rpartition("#")
        assert path == str(hub / "data/train-00000-of-00001.parquet")
        with Image.open(io.BytesIO(rows[int(row)]["image"]["bytes"])) as image:
            assert data.read(record).image.tobytes() == image.tobytes()
        assert record.label == {0: "calling", 9: "listening to music", 14: "using laptop"}[rows[int(row)]["labels"]]


def test_the_zeros_of_the_hubs_test_rows_are_never_used(hub):
    assert {row["labels"] for row in table_of(hub / "data/test-00000-of-00001.parquet")} == {0}
    data = load_activities("har15", hub)
    assert not [r for records in data.splits.values() for r in records if "/test-" in r.source]
    assert sum(r.label == "calling" for records in data.splits.values() for r in records) == 8
    assert "test-00000-of-00001.parquet: the published test labels are not real" in str(notes("har15", hub, "split"))
    assert check_folder("har15", hub).counts["together"] == (24, 12600, 3)


@pytest.mark.parametrize("to", ["default/{0}/0000.parquet", "{0}-00000-of-00001.parquet"])
def test_other_places_of_the_parquet_files(hub, to):
    for split in ("train", "test"):
        path = hub / to.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        (hub / f"data/{split}-00000-of-00001.parquet").rename(path)
    assert len(load_activities("har15", hub).splits["train"]) == 18


def blobs(count: int = 6) -> list[bytes]:
    made = []
    for seed in range(count):
        file = io.BytesIO()
        Image.new("RGB", (9, 9), (40 * seed, 0, 0)).save(file, "PNG")
        made.append(file.getvalue())
    return made


def rewrite(root: Path, labels, images=None, **options) -> Path:
    path = root / "data/train-00000-of-00001.parquet"
    path.unlink()
    trees.parquet(path, images or blobs(len(labels)), labels, **options)
    return path


def test_the_order_of_the_labels_is_that_of_the_file(hub):
    rewrite(hub, [0, 1, 0, 1], names=["texting", "eating"])
    assert load_activities("har15", hub).labels == ["eating", "texting"]
    rewrite(hub, [0, 1, 0, 1], names=None)
    assert load_activities("har15", hub).labels == ["calling", "clapping"]
    rewrite(hub, ["eating", "texting"] * 2, names=None, column="label")
    assert load_activities("har15", hub).labels == ["eating", "texting"]


def test_numbers_that_are_no_label(hub):
    rewrite(hub, [0, 1, 0, 1, 15, -1, None])
    refused(
        "har15",
        hub,
        "parquet row 4: 'number 15' (data/train-00000-of-00001.parquet#4) is no label",
        "row 5: 'number -1'",
        "row 6: 'number None'",
    )


def test_a_name_that_is_no_label_of_the_set(hub):
    rewrite(hub, [0, 1, 0, 1, 2], names=["texting", "eating", "skating"])
    refused("har15", hub, "row 4: 'skating'")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "cannot be read as parquet"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n",
            "a Git LFS pointer, not the file itself",
        ),
        (b"PAR1" + bytes(500), "cannot be read as parquet"),
        (None, "cannot be read as parquet"),
    ],
)
def test_files_that_are_no_parquet(content, reason, hub):
    path = hub / "data/train-00000-of-00001.parquet"
    write(path, path.read_bytes()[:-300] if content is None else content)
    refused("har15", hub, reason)


def test_parquet_that_is_spoilt_in_the_middle(hub):
    path = hub / "data/train-00000-of-00001.parquet"
    content = path.read_bytes()
    write(path, content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    refused("har15", hub, "train-00000-of-00001.parquet: cannot be read as parquet: ")


def test_labels_that_are_spoilt_in_the_file(hub, monkeypatch):
    import pyarrow.parquet

    def broken_file(*_, **__):
        raise OSError("Couldn't deserialize thrift:\nInvalid data")

    monkeypatch.setattr(pyarrow.parquet, "read_table", broken_file)
    refused("har15", hub, "parquet: cannot be read as parquet: Couldn't deserialize thrift: Invalid data")


@pytest.mark.parametrize("features", ["[]", "{", '{"info": null}', '{"info": {"features": {"labels": {"names": 3}}}}'])
def test_metadata_that_is_not_as_datasets_writes_it(features, hub):
    import pyarrow
    import pyarrow.parquet

    path = rewrite(hub, [0, 1, 0, 1], names=None)
    table = pyarrow.parquet.read_table(path).replace_schema_metadata({"huggingface": features})
    pyarrow.parquet.write_table(table, path)
    assert load_activities("har15", hub).labels == ["calling", "clapping"]


def test_parquet_without_the_columns(hub):
    rewrite(hub, [0, 1, 0, 1], column="category")
    refused("har15", hub, "must have the columns image and labels; it has image, category")


def test_rows_without_an_image_and_with_a_broken_one(hub):
    cells = blobs(8)
    rewrite(hub, [0, 1] * 4, [*cells[:5], None, b"", cells[7][:40]])
    faults = {fault.where[-2:]: fault for fault in check_folder("har15", hub).fatal}
    assert set(faults) == {"#5", "#6", "#7"} and {fault.kind for fault in faults.values()} == {"unreadable"}
    assert faults["#5"].what == "the row holds no image" and "0 bytes" in faults["#6"].what
    data = load_activities("har15", hub)
    bad_records = [r for records in data.splits.values() for r in records if r.source.endswith("#5")]
    with pytest.raises(ValueError, match=r"parquet#5: the row holds no image"):
        data.read(bad_records[0])
    healed = check_folder("har15", hub, exclude=check_folder("har15", hub).exclude)
    assert not healed.fatal and healed.counts["together"][0] == 5


def test_without_pyarrow_the_error_says_what_to_install(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'favor-lab\[lab\]'"):
        load_activities("har15", hub)


# -------------------------------------------------------------------------------------------------------------- ucf 101


def test_ucf101_has_three_official_splits(tmp_path):
    trees.ucf101(tmp_path)
    data = load_activities("ucf101", tmp_path)
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 15, "validation": 5, "test": 10}
    assert data.labels == ["apply eye makeup", "cliff diving", "diving", "handstand pushups", "push ups"]
    assert len(few_shot(data, 2, validation=1, test=2).validation) == 5


def test_labels_that_contain_each_other_are_kept_apart(tmp_path):
    trees.ucf101(tmp_path)
    data = load_activities("ucf101", tmp_path)
    for records in data.splits.values():
        for record in records:
            assert Path(record.source).parent.name == data.original(record.label)
    assert [data.label_of(name) for name in ("Diving", "Cliff_Diving", "Push_Ups")] == [
        "diving",
        "cliff diving",
        "push ups",
    ]
    for part in ("Cliff", "Pushups", "Div", "Makeup"):
        with pytest.raises(ValueError, match="is none of its names"):
            data.label_of(part)


def test_the_folder_and_the_class_of_an_entry_must_be_the_same(tmp_path):
    trees.ucf101(tmp_path)
    edit_split(tmp_path, lambda table: table["train"][3].__setitem__(2, "Diving"))  # the path is in Cliff_Diving/
    refused(
        "ucf101",
        tmp_path,
        "train[3]: 'Cliff_Diving/v_CliffDiving_g01_c01.jpg' must lie in the folder of its class, Diving/",
    )
    wrong = "UCF-101-midframes/Cliff_Diving/v_CliffDiving_g01_c01.jpg"
    assert check_folder("ucf101", tmp_path).exclude == [wrong]
    assert len(load_activities("ucf101", tmp_path, exclude=[wrong]).splits["train"]) == 14


def test_every_fault_of_a_split_file_is_named_at_once(tmp_path):
    trees.ucf101(tmp_path)

    def spoil(table):
        table["val"] += [["Diving/x.jpg", "25", "Diving"], ["Diving/x.jpg", 25], "Diving/x.jpg", [None, 25, "Diving"],
                         ["Diving/x.jpg", True, "Diving"], None, ["Diving/\ud800.jpg", 25, "Diving"]]  # fmt: skip
        table["test"] += [
            ["../../secret.jpg", 25, "Diving"],
            ["Diving/v_Diving_g01_c01.jpg", 25, "Diving"],
            ["Diving/gone.jpg", 25, "Diving"],
            ["Sneezing/a.jpg", 101, "Sneezing"],
            ["/etc/Diving.jpg", 25, "Diving"],
            ["Diving.jpg", 25, "Diving"],
            ["Diving/v_Diving_g06_c01.jpg", 21, "Diving"],
        ]
        table["test"] = [entry for entry in table["test"][:-1] if "Diving_g06" not in str(entry)] + table["test"][-1:]

    edit_split(tmp_path, spoil)
    refused(
        "ucf101",
        tmp_path,
        'split_zhou_UCF101.json val[5]: is ["Diving/x.jpg", "25", "Diving"], not [path, index, name]',
        'val[6]: is ["Diving/x.jpg", 25], not',
        'val[7]: is "Diving/x.jpg", not',
        'val[8]: is [null, 25, "Diving"], not',
        'val[9]: is ["Diving/x.jpg", true, "Diving"], not',
        "val[10]: is null, not [path, index, name]",
        r'val[11]: is ["Diving/\ud800.jpg", 25, "Diving"], not',
        "'UCF-101-midframes/../../secret.jpg' is no path of the form UCF-101-midframes/<Class_Name>/<file>",
        "Diving/v_Diving_g01_c01.jpg is listed in test as 'Diving'; split_zhou_UCF101.json train[6] has it in train",
        "UCF-101-midframes/Diving/gone.jpg: listed in split_zhou_UCF101.json test[",
        "'Sneezing' (UCF-101-midframes/Sneezing/a.jpg) is no label of ucf101",
        "'UCF-101-midframes//etc/Diving.jpg' is no path of the form",
        "'UCF-101-midframes/Diving.jpg' is no path of the form",
        "[21, 'Diving'] contradicts an earlier entry",
    )


def test_two_classes_with_one_index(tmp_path):
    trees.ucf101(tmp_path, train=1, val=0, test=1)

    def spoil(table):
        for entry in table["train"] + table["test"]:
            entry[1] = 25 if entry[2] == "Push_Ups" else entry[1]

    edit_split(tmp_path, spoil)
    refused("ucf101", tmp_path, "train[4]: [25, 'Push_Ups'] contradicts", "test[4]: [25, 'Push_Ups'] contradicts")


@pytest.mark.parametrize(
    "text, reasons",
    [
        ("", ["is no JSON"]),
        ('{"train": [', ["is no JSON"]),
        ("[" * 100_000, ["is no JSON"]),
        (b'{"train": "\xff"}', ["line 1: is not UTF-8"]),
        ("[]", [f'must be an object with a list "{key}"' for key in ("train", "val", "test")]),
        ('{"train": [], "val": []}', ['must be an object with a list "test"']),
        ('{"train": {}, "val": [], "test": []}', ['must be an object with a list "train"']),
        ('{"train": [], "val": [], "test": []}', ["there are no training images"]),
    ],
)
def test_a_split_file_that_is_none(text, reasons, tmp_path):
    trees.ucf101(tmp_path)
    write(tmp_path / "split_zhou_UCF101.json", text)
    refused("ucf101", tmp_path, *reasons)


def test_a_split_file_with_a_byte_order_mark(tmp_path):
    trees.ucf101(tmp_path)
    path = tmp_path / "split_zhou_UCF101.json"
    write(path, b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_activities("ucf101", tmp_path).splits["train"]) == 15


def test_ucf101_frames_and_classes_that_no_list_names(tmp_path):
    trees.ucf101(tmp_path)
    photo(tmp_path / "UCF-101-midframes/Diving/v_Diving_g99_c01.jpg")
    photo(tmp_path / "UCF-101-midframes/Archery/v_Archery_g01_c01.jpg")
    photo(tmp_path / "UCF-101-midframes/.cache/v_Archery_g01_c01.jpg")
    write(tmp_path / "UCF-101-midframes/notes.txt", "x")
    assert sorted(note.split(":")[0] for note in notes("ucf101", tmp_path, "unlisted")) == [
        "UCF-101-midframes/Archery/v_Archery_g01_c01.jpg",
        "UCF-101-midframes/Diving/v_Diving_g99_c01.jpg",
        "UCF-101-midframes/notes.txt",
    ]
    (tmp_path / "split_zhou_UCF101.json").unlink()
    refused("ucf101", tmp_path, "split_zhou_UCF101.json: cannot be read: No such file")


# ----------------------------------------------------------------------------------------------------------------- ppmi


def test_ppmi_has_two_verbs_for_an_instrument(tmp_path):
    trees.ppmi(tmp_path)
    data = load_activities("ppmi", tmp_path)
    assert data.labels == ["playing French horn", "playing violin", "holding French horn", "holding violin"]
    assert data.folders["holding French horn"] == "with_instrument/frenchhorn"
    assert data.label_of("play_instrument/violin") == "playing violin" != data.label_of("with_instrument/violin")
    for split, records in data.splits.items():
        assert len(records) == 8
        for record in records:
            verb, instrument = data.original(record.label).split("/")
            assert f"/norm_image/{verb}/{instrument}/{split}/" in record.source


@pytest.mark.parametrize("folder", ["french_horn", "French Horn", "FrenchHorn"])
def test_other_spellings_of_the_french_horn(folder, tmp_path):
    trees.ppmi(tmp_path, instruments=(folder, "violin"))
    assert "playing French horn" in load_activities("ppmi", tmp_path).labels


def test_ppmi_leaves_hidden_files_out_and_takes_suffixes_in_any_case(tmp_path):
    trees.ppmi(tmp_path)
    folder = tmp_path / "norm_image/play_instrument/violin/train"
    (folder / "0000.jpg").rename(folder / "0000.JpG")
    for name in (".0003.jpg", ".DS_Store", "Thumbs.db", "list.txt"):
        write(folder / name, b"x")
    photo(folder / "deeper/0009.jpg")
    (folder / "loop").symlink_to("loop")
    write(tmp_path / "norm_image/play_instrument/notes.txt", "x")
    photo(tmp_path / "norm_image/play_instrument/violin/val/0001.jpg")
    data = load_activities("ppmi", tmp_path)
    assert [name for name in files(data, "train") if "J" in name] == ["0000.JpG"] and len(data.splits["train"]) == 8
    assert [note.split("play_instrument/")[1] for note in notes("ppmi", tmp_path, "unlisted")] == [
        "notes.txt: lies beside the folders and is not used",
        "violin/val: is neither train nor test and is not used",
        "violin/train/deeper: is no image file and is not used",
        "violin/train/list.txt: is no image file and is not used",
        "violin/train/loop: is no image file and is not used",
    ]


def test_an_instrument_that_the_set_does_not_have(tmp_path):
    trees.ppmi(tmp_path, instruments=("violin", "piano"), train=1, test=0)
    refused("ppmi", tmp_path, "'play_instrument/piano' (norm_", "'with_instrument/piano' (norm_")


def test_ppmi_with_one_verb_only(tmp_path):
    trees.ppmi(tmp_path)
    (tmp_path / "norm_image/with_instrument").rename(tmp_path / "elsewhere")
    refused("ppmi", tmp_path, "norm_image/with_instrument: there is no such folder")


@pytest.fixture
def bytes_in_names(tmp_path):
    try:
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/try_\xe9")), b"x").unlink()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 names alone")


def test_names_that_are_not_utf8(tmp_path, bytes_in_names):
    trees.ppmi(tmp_path)
    folder = os.fsencode(tmp_path / "norm_image/play_instrument/violin/train")
    for name in (b"caf\xe9.jpg", b"caf\xe9.txt"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(photo(tmp_path / "x/x.jpg").read_bytes())
    message = refused("ppmi", tmp_path, "train/caf\\udce9.jpg: the name is not UTF-8; rename the file")
    message.encode()
    assert [str(f) for f in check_folder("ppmi", tmp_path).faults if f.kind == "name" and not f.fatal] == [
        "norm_image/play_instrument/violin/train/caf\\udce9.txt: is not used; its name is not UTF-8"
    ]


def test_names_that_are_not_utf8_beside_a_list_are_notes(tmp_path, bytes_in_names):
    trees.stanford40(tmp_path)
    with open(os.fsencode(tmp_path) + b"/JPEGImages/caf\xe9_001.jpg", "wb") as file:
        file.write(b"x")
    assert notes("stanford40", tmp_path, "name") == [
        "JPEGImages/caf\\udce9_001.jpg: the name is not UTF-8; rename the file"
    ]


def test_names_that_are_not_utf8_in_a_folder_of_ones_own(tmp_path, bytes_in_names):
    photo(tmp_path / "reading/a.jpg")
    os.rename(tmp_path / "reading/a.jpg", os.fsencode(tmp_path) + b"/reading/caf\xe9.jpg")
    with pytest.raises(ValueError, match=r"reading/caf\\udce9\.jpg: the name is not UTF-8; rename it"):
        load_activities("folder", tmp_path)
    assert [fault.kind for fault in check_folder("folder", tmp_path).fatal] == ["name"]


# --------------------------------------------------------------------------------------------------------------- images


def broken(path: Path, how: str) -> None:
    """Spoils an image file in one of many ways."""
    whole = path.read_bytes()
    png = io.BytesIO()
    Image.new("RGB", (60, 60), "red").save(png, "PNG")
    tiff = io.BytesIO()
    Image.new("RGB", (60, 60), "red").save(tiff, "TIFF")
    write(
        path,
        {
            "zero bytes": b"",
            "text": "<html><body>404 not found</body></html>",
            "a Git LFS pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "the first half": whole[: len(whole) // 2],
            "the first 20 bytes": whole[:20],
            "half of a PNG": png.getvalue()[: len(png.getvalue()) // 2],
            "half of a TIFF": tiff.getvalue()[:5000],
            "zeros": bytes(2000),
            "a web page of a JPEG's first bytes": b"\xff\xd8\xff\xe0" + b"text" * 99,
        }[how],
    )


HOWS = ["zero bytes", "text", "a Git LFS pointer", "the first half", "the first 20 bytes", "half of a PNG",
        "half of a TIFF", "zeros", "a web page of a JPEG's first bytes"]  # fmt: skip


@pytest.mark.parametrize("decode", [False, True])
def test_every_broken_image_is_named_with_and_without_decoding(decode, tmp_path):
    trees.stanford40(tmp_path, train=9, test=2)
    faults = {f"JPEGImages/reading_{i + 1:03d}.jpg": how for i, how in enumerate(HOWS)}
    for path, how in faults.items():
        broken(tmp_path / path, how)
    report = check_folder("stanford40", tmp_path, decode=decode)
    assert [fault.where for fault in report.fatal] == list(faults) == report.exclude
    assert {fault.kind for fault in report.fatal} == {"unreadable"}
    assert "empty (0 bytes)" in report.fatal[0].what and "git lfs pull" in report.fatal[2].what
    data = load_activities("stanford40", tmp_path)  # no image is read before it is requested
    for record in data.splits["train"][:9]:
        with pytest.raises(ValueError, match=Path(record.source).name):
            data.read(record)


def test_damage_in_the_middle_is_found_by_decoding(tmp_path):
    """And that of a PNG, which has checksums, without."""
    trees.ppmi(tmp_path)
    for suffix, options, decode in (("tif", {"compression": "tiff_deflate"}, True), ("png", {}, False)):
        path = tmp_path / f"norm_image/play_instrument/violin/train/0000.{suffix}"
        content = bytearray(picture(path, size=(60, 60), **options).read_bytes())
        content[len(content) // 2] ^= 0xFF
        write(path, bytes(content))
        (fault,) = check_folder("ppmi", tmp_path, decode=decode).fatal
        assert fault.kind == "unreadable" and fault.where.endswith(f"0000.{suffix}")
        path.unlink()


def test_a_file_with_something_after_its_end_is_whole(tmp_path):
    trees.stanford40(tmp_path)
    for number, tail in ((1, b"x" * 100), (2, b"x" * 9000)):
        path = tmp_path / f"JPEGImages/reading_{number:03d}.jpg"
        write(path, path.read_bytes() + tail)
    assert not check_folder("stanford40", tmp_path).fatal


def test_without_decoding_bytes_are_compared_with_bytes(tmp_path):
    trees.stanford40(tmp_path)
    image = (tmp_path / "JPEGImages/reading_001.jpg").read_bytes()
    for number, tail in (
        (1, b"x" * 9000),
        (2, b"y" * 9000),
    ):  # longer than the part that is searched for the end marker
        write(tmp_path / f"JPEGImages/reading_{number:03d}.jpg", image + tail)
    assert not check_folder("stanford40", tmp_path).fatal
    (fault,) = check_folder("stanford40", tmp_path, decode=True).fatal
    assert fault.kind == "double" and "has the pixels of" in fault.what


def test_a_wrong_suffix_is_a_note_and_read_all_the_same(tmp_path):
    trees.stanford40(tmp_path)
    path = picture(tmp_path / "x.png", mode="RGBA", size=(30, 20))
    path.rename(tmp_path / "JPEGImages/reading_001.jpg")
    assert notes("stanford40", tmp_path, "suffix") == [
        "JPEGImages/reading_001.jpg: is PNG inside; it is read all the same"
    ]
    data = load_activities("stanford40", tmp_path)
    assert data.read(data.splits["train"][0]).image.mode == "RGBA"


@pytest.mark.parametrize(
    "kind, one, two",
    [
        ("leak", "reading_001", "reading_004"),
        ("double", "reading_001", "reading_002"),
        ("double", "reading_003", "reading_004"),
        ("contradiction", "reading_001", "riding_a_bike_001"),
        ("contradiction", "reading_001", "riding_a_bike_004"),
    ],
)
def test_the_same_bytes_twice(kind, one, two, tmp_path):
    trees.stanford40(tmp_path)
    write(tmp_path / f"JPEGImages/{two}.jpg", (tmp_path / f"JPEGImages/{one}.jpg").read_bytes())
    (fault,) = check_folder("stanford40", tmp_path).fatal
    assert fault.kind == kind and "has the bytes of" in fault.what
    assert f"JPEGImages/{one}.jpg" in str(fault) and f"JPEGImages/{two}.jpg" in str(fault)
    if kind == "leak":  # the official test set stays complete
        assert fault.cure == (f"JPEGImages/{one}.jpg",)
    assert len(fault.cure) == (2 if kind == "contradiction" else 1)
    with pytest.raises(ValueError, match="the same image (twice|under two labels)"):
        few_shot(load_activities("stanford40", tmp_path), shots=2, validation=0, test=3)


def test_the_same_pixels_in_other_bytes_are_found_by_decoding(tmp_path):
    trees.ppmi(tmp_path)
    folder = tmp_path / "norm_image/with_instrument/violin"
    image = Image.open(picture(folder / "train/0005.png", seed=5))
    image.save(folder / "test/0006.bmp")
    assert not check_folder("ppmi", tmp_path).fatal
    (fault,) = check_folder("ppmi", tmp_path, decode=True).fatal
    assert fault.kind == "leak" and fault.where.endswith("train/0005.png") and "has the pixels of" in fault.what


def test_three_copies_are_two_faults(tmp_path):
    trees.stanford40(tmp_path)
    for name in ("reading_002", "reading_004"):
        write(tmp_path / f"JPEGImages/{name}.jpg", (tmp_path / "JPEGImages/reading_001.jpg").read_bytes())
    report = check_folder("stanford40", tmp_path)
    assert report.exclude == ["JPEGImages/reading_001.jpg", "JPEGImages/reading_002.jpg"]
    assert [fault.kind for fault in report.fatal] == ["leak", "leak"]


def spoil_everything(root: Path) -> None:
    """One of nearly every fault, in a tree of Stanford 40."""
    images = root / "JPEGImages"
    broken(images / "reading_001.jpg", "the first half")
    (images / "reading_002.jpg").unlink()
    write(images / "reading_003.jpg", (images / "riding_a_bike_008.jpg").read_bytes())
    write(images / "throwing_frisby_001.jpg", (images / "throwing_frisby_009.jpg").read_bytes())
    edit_lines(root / "ImageSplits/train.txt", lambda lines: [*lines, "sneezing_001.jpg", "../x_001.jpg"])
    photo(images / "reading_077.jpg")


def test_what_is_named_can_be_left_out_and_then_training_goes_through(tmp_path):
    trees.stanford40(tmp_path, train=6, test=4)
    spoil_everything(tmp_path)
    report = check_folder("stanford40", tmp_path)
    kinds = {"unreadable", "missing", "contradiction", "leak", "label", "path"}
    assert {fault.kind for fault in report.fatal} == kinds
    assert len(report.exclude) == 7
    healed = check_folder("stanford40", tmp_path, exclude=report.exclude)
    assert not healed.fatal
    assert [f.where for f in healed.faults if f.kind == "unlisted"] == ["JPEGImages/reading_077.jpg"]
    data = load_activities("stanford40", tmp_path, exclude=report.exclude)
    shots = few_shot(data, shots=3, validation=0, test=3)
    sources = {Path(example.source).name for example in shots.train + shots.test}
    assert not sources & {Path(path).name for path in report.exclude}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_typing_error_in_what_to_leave_out_is_refused(layout, tmp_path):
    name = made(layout, tmp_path)
    for ask in (load_activities, check_folder):
        with pytest.raises(ValueError, match="has no image 'JPEGImages/raeding_001.jpg' to exclude"):
            ask(name, tmp_path, exclude=["JPEGImages/raeding_001.jpg"])


def test_a_drawn_set_has_nothing_to_leave_out():
    with pytest.raises(ValueError, match="takes no root and no exclude"):
        load_activities("cartoon", exclude=["x"])


# ------------------------------------------------------------------------------------------------- reports, own folders


def test_counts_are_compared_by_split_and_label(tmp_path):
    trees.ppmi(tmp_path, train=3)
    photo(tmp_path / "norm_image/play_instrument/violin/train/0077.jpg")
    report = check_folder("ppmi", tmp_path)
    assert report.counts == {"train": (13, 2400, 4), "test": (8, 2400, 4)}
    count_notes = notes("ppmi", tmp_path, "count")
    assert "train: 13 images, published are 2400" in count_notes
    assert "train: 4 images instead of 100: playing violin" in count_notes
    assert "train: 3 images instead of 100: playing French horn, holding French horn, holding violin" in count_notes
    assert any(note.startswith("test: 0 images instead of 100: playing bassoon, ") for note in count_notes)


def test_labels_without_an_image_in_a_split_are_noted(tmp_path):
    trees.ucf101(tmp_path)
    edit_split(tmp_path, lambda table: table["val"].pop())
    count_notes = notes("ucf101", tmp_path, "count")
    assert [note for note in count_notes if "push ups" in note and "validation: no image: apply lipstick" in note]
    assert not [note for note in count_notes if "push ups" in note and not note.startswith("validation")]


def test_counts_that_agree_are_no_notes(tmp_path, monkeypatch):
    from dataclasses import replace

    trees.ppmi(tmp_path, instruments=("violin",))
    small = replace(PUBLIC["ppmi"], names=("play_instrument/violin", "with_instrument/violin"),
                    counts={"train": 4, "test": 4}, per_label={"train": 2, "test": 2})  # fmt: skip
    monkeypatch.setitem(PUBLIC, "ppmi", small)
    assert check_folder("ppmi", tmp_path).faults == []


def test_a_report_has_every_fault_under_its_heading_and_a_summary(tmp_path):
    trees.stanford40(tmp_path, train=6, test=4)
    spoil_everything(tmp_path)
    report = check_folder("stanford40", tmp_path)
    lines = list(report.lines())
    assert lines[1].split() == ["train", "17", "4000", "3"]
    for fault in report.faults:
        heading = f"{'fault' if fault.fatal else 'note'}, {KINDS[fault.kind]}: "
        assert sum(line.startswith(heading) for line in lines) == 1 and f"  {fault}" in lines
    assert len(lines) == 3 + len(report.faults) + len({(fault.kind, fault.fatal) for fault in report.faults})
    assert report.summary().startswith("stanford40: 6 faults that training would trip over, ")
    assert "29 images (headers and ends read, nothing decoded)" in report.summary()


def test_a_folder_of_ones_own_is_checked_like_the_others(tmp_path):
    for i in range(4):
        photo(tmp_path / f"train/reading/{i}.jpg")
        photo(tmp_path / f"train/riding_a_bike/{i}.PNG", mode="RGB")
    write(tmp_path / "test/reading/copy.jpg", (tmp_path / "train/reading/0.jpg").read_bytes())
    write(tmp_path / "train/reading/1.jpg", b"")
    write(tmp_path / "train/reading/notes.doc", b"x")
    photo(tmp_path / "test/running/0.jpg")
    report = check_folder("folder", tmp_path)
    assert sorted((fault.kind, fault.where) for fault in report.faults) == [
        ("label", "test"),
        ("leak", "train/reading/0.jpg"),
        ("unlisted", "train/reading/notes.doc"),
        ("unreadable", "train/reading/1.jpg"),
    ]
    assert "'running' has images here, but none in train" in str(report.faults)
    assert report.counts == {"train": (8, None, 2), "test": (2, None, 2)}
    healed = check_folder("folder", tmp_path, exclude=report.exclude)
    assert {fault.kind for fault in healed.fatal} == {"label"}
    with pytest.warns(UserWarning, match="notes.doc"):
        data = load_activities("folder", tmp_path, exclude=report.exclude)
    assert files(data, "train")[:2] == ["2.jpg", "3.jpg"]


def test_a_folder_without_usable_layout_is_a_fault(tmp_path):
    (tmp_path / "jumping").mkdir()
    (fault,) = check_folder("folder", tmp_path).fatal
    assert fault.kind == "layout" and "no images in" in fault.what
    photo(tmp_path / "reading/a.jpg")
    with pytest.raises(ValueError, match="has no image 'reading/b.jpg' to exclude"):
        check_folder("folder", tmp_path, exclude=["reading/b.jpg"])


def test_only_what_lies_on_disk_can_be_checked(tmp_path):
    with pytest.raises(ValueError, match="unknown set 'cartoon'; sets on disk are stanford40, .*and folder"):
        check_folder("cartoon", tmp_path)


def test_progress_sees_every_image_in_order(tmp_path):
    trees.ucf101(tmp_path)
    calls = []

    def progress(records):
        for record in records:
            calls.append(record.source)
            yield record

    check_folder("ucf101", tmp_path, progress=progress)
    data = load_activities("ucf101", tmp_path)
    assert calls == [record.source for records in data.splits.values() for record in records]


def test_the_guide_says_where_which_terms_and_which_folder():
    for name, entry in PUBLIC.items():
        guide = entry.guide(name)
        assert "http" in guide.split("Where")[1].split("Terms")[0] and "ROOT/" in guide.split("Folder")[1]
        assert "not known" in entry.terms or "No licence is known" in entry.terms
        assert guide.endswith(f"favor-lab data {name} --root ROOT") and max(map(len, guide.splitlines())) <= 122
        assert json.dumps(guide)
