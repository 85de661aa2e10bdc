"""Folders, lists and archives as people have them: read as they are, or refused with the cure."""

import io
import pickle
import shutil
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trees
from favor_lab.activities import few_shot, formats, images, load_activities
from favor_lab.activities.checks import check_folder
from favor_lab.activities.data import SPLIT_NAMES, ActivityData, Record
from favor_lab.activities.images import decode_image, open_image
from favor_lab.cli import main
from pictures import picture

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:e1c27a2e\nsize 93500\n"


def sorted_photos(root: Path, splits=("train", "test"), labels=("axe throwing", "barrel racing"), count=2) -> Path:
    """`count` photographs in each <split>/<label>/."""
    for split in splits:
        for label in labels:
            for number in range(count):
                trees.photo(root / split / label / f"{number:03d}.jpg")
    return root


def refusal(name: str, root: Path) -> str:
    """The one fault for which a set is refused, by the loader and by the check alike."""
    with pytest.raises(ValueError) as error:
        load_activities(name, root)
    (fault,) = check_folder(name, root).fatal
    assert str(error.value).endswith(f"\n  {fault}")
    return str(fault)


def status(*arguments: str) -> int:
    """The exit status of a command."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code)


# ------------------------------------------------------------------------------------------------- the names of splits


@pytest.mark.parametrize("split", SPLIT_NAMES)
@pytest.mark.parametrize("write", [str, str.upper, str.title])
def test_splits_have_the_names_that_other_tools_give_them(tmp_path, recwarn, split, write):
    for name in SPLIT_NAMES[split]:
        root = sorted_photos(tmp_path / name, [write(SPLIT_NAMES[other][0]) for other in SPLIT_NAMES if other != split])
        sorted_photos(root, [write(name)], count=3)
        data = load_activities("folder", root)
        assert list(data.splits) == ["train", "validation", "test"] and len(data.splits[split]) == 6
    assert not recwarn


def test_names_of_splits_are_those_of_imagefolder():
    names = pytest.importorskip("datasets.data_files")
    keywords = {str(split): list(words) for split, words in names.SPLIT_KEYWORDS.items()}
    assert {split: sorted(words) for split, words in keywords.items()} == {
        split: sorted(words) for split, words in SPLIT_NAMES.items()
    }


def test_a_folder_with_another_name_beside_splits_is_said_with_the_names_that_are_known(tmp_path):
    sorted_photos(tmp_path, ("train", "holdout"))
    with pytest.warns(UserWarning, match="1 not used.*: holdout; holdout is not used: splits are called train or trai"):
        load_activities("folder", tmp_path)


def test_test_images_without_labels_are_said(tmp_path):
    sorted_photos(tmp_path, ("train",))
    trees.photo(tmp_path / "test/1.jpg")
    with pytest.warns(UserWarning, match="1 not used.*: test; test is not used: .* they have no label"):
        assert list(load_activities("folder", tmp_path).splits) == ["train"]


def test_splits_of_unknown_names_alone_are_refused_with_the_known_ones(tmp_path):
    sorted_photos(tmp_path, ("holdin", "holdout"))
    fault = refusal("folder", tmp_path)
    assert "holdin, holdout have images in <label>/" in fault and "validation or valid or val or dev" in fault


def test_splits_of_unknown_names_and_depths_are_all_named(tmp_path):
    sorted_photos(tmp_path, ("seg_train/seg_train", "seg_test/seg_test"))
    trees.photo(tmp_path / "seg_pred/seg_pred/1.jpg")
    assert "; seg_pred, seg_test/seg_test, seg_train/seg_train have images in <label>/" in refusal("folder", tmp_path)


def test_a_label_that_is_called_like_a_split_stays_a_label_beside_others(tmp_path):
    for name in ("training/a.jpg", "training/edited/b.jpg", "running/a.jpg", "running/b.jpg"):
        trees.photo(tmp_path / name)
    with pytest.warns(UserWarning, match="1 not used.*: training/edited"):
        assert load_activities("folder", tmp_path).labels == ["running", "training"]


def test_a_loose_image_in_a_split_makes_it_no_label(tmp_path):
    sorted_photos(tmp_path)
    trees.photo(tmp_path / "train/loose.jpg")
    trees.photo(tmp_path / "samples/a.jpg")
    with pytest.warns(UserWarning, match="2 not used.*: samples, train/loose.jpg"):
        assert list(load_activities("folder", tmp_path).splits) == ["train", "test"]


def test_a_label_spelt_as_on_a_mac_and_as_elsewhere_is_one(tmp_path, recwarn):
    sorted_photos(tmp_path, ("train",), ("caf\u00e9", "bar"))
    sorted_photos(tmp_path, ("test",), ("cafe\u0301", "bar"))
    data = load_activities("folder", tmp_path)
    assert data.labels == ["bar", "caf\u00e9"] and not recwarn and not check_folder("folder", tmp_path).faults
    assert len(few_shot(data, 2, validation=0, test=2).test) == 4


@pytest.mark.parametrize("label", ["age <30", "a>b"])
def test_a_label_that_no_prompt_may_have_is_named_before_training(tmp_path, label):
    sorted_photos(tmp_path, [""], (label, "reading"))
    assert refusal("folder", tmp_path).startswith(f"{label!r}: contains '<' or '>'")


# ---------------------------------------------------------------------------------------------------- another root


@pytest.mark.parametrize("place", ["DATASET", "archive/DATASET"])
@pytest.mark.parametrize("splits", [("TRAIN", "TEST"), ("",)])
def test_a_root_that_is_too_high(tmp_path, place, splits):
    sorted_photos(tmp_path / place, splits)
    trees.write(tmp_path / "__MACOSX" / place / "._a.jpg", b"x")
    assert f"{tmp_path / place} has it: is that the root?" in refusal("folder", tmp_path)


@pytest.mark.parametrize("name", ["stanford40", "har15", "ucf101", "ppmi"])
def test_a_public_set_under_a_root_that_is_two_folders_too_high(tmp_path, name):
    makers = {"stanford40": trees.stanford40, "har15": trees.har15_kaggle, "ucf101": trees.ucf101, "ppmi": trees.ppmi}
    makers[name](tmp_path / "download/set")
    shutil.copytree(tmp_path / "download/set", tmp_path / "__MACOSX/set")
    with pytest.raises(ValueError, match=f"{tmp_path / 'download/set'} has it: is that the root"):
        load_activities(name, tmp_path)
    assert f"`--data {name}`" in refusal("folder", tmp_path)


@pytest.mark.parametrize("name", ["stanford40", "har15", "har15_hub", "ucf101", "ppmi"])
def test_the_root_of_a_public_set_given_to_the_loader_of_folders(tmp_path, name):
    makers = {"stanford40": trees.stanford40, "har15": trees.har15_kaggle, "ucf101": trees.ucf101, "ppmi": trees.ppmi}
    (makers | {"har15_hub": trees.har15_hub})[name](tmp_path)
    assert f"`--data {name.removesuffix('_hub')}` reads" in refusal("folder", tmp_path)


@pytest.mark.parametrize("loader", ["stanford40", "har15", "ucf101", "ppmi"])
@pytest.mark.parametrize("name", ["stanford40", "har15", "ucf101", "ppmi", "folder"])
def test_a_root_given_to_the_loader_of_another_public_set(tmp_path, loader, name):
    makers = {"stanford40": trees.stanford40, "har15": trees.har15_kaggle, "ucf101": trees.ucf101, "ppmi": trees.ppmi}
    (makers | {"folder": sorted_photos})[name](tmp_path)
    if loader != name:
        with pytest.raises(ValueError, match=f"the root holds what `--data {name}` reads"):
            load_activities(loader, tmp_path)


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "valid", "test"), ("Training", "Testing")])
def test_images_directly_in_the_folders_of_splits_have_no_labels(tmp_path, splits):
    for split in splits:
        for number in range(3):
            trees.photo(tmp_path / split / f"{number}.jpg")
    trees.write(tmp_path / "labels.csv", "id,class\n")
    fault = refusal("folder", tmp_path)
    assert "which says no label; labels are in a list (labels.csv)? `--data har15`" in fault
    assert all(split in fault for split in splits)


def test_an_archive_that_is_not_unpacked_and_images_without_folders(tmp_path):
    trees.write(tmp_path / "archive.zip", b"PK")
    assert refusal("folder", tmp_path).endswith("; unpack archive.zip first")
    trees.photo(tmp_path / "1.jpg")
    assert "images lie directly in it: sort them into a folder per label" in refusal("folder", tmp_path)


def test_images_one_folder_below_their_label(tmp_path):
    sorted_photos(tmp_path, ("train",))
    trees.photo(tmp_path / "train/reading/2021/a.jpg")
    assert "images lie deeper, in train/reading/2021: move them up" in refusal("folder", tmp_path)


# ------------------------------------------------------------------------------------------ what systems leave behind

LEFT_BEHIND = ["__MACOSX/{0}/._1.jpg", "{0}/._1.jpg", "{0}/.DS_Store", ".DS_Store", "{0}/Thumbs.db", "{0}/ehthumbs.db"]
LEFT_BEHIND += [
    "README.roboflow.txt",
    "README",
    "LICENSE.txt",
    "{0}/desktop.ini",
    "{0}/Icon\r",
    "@eaDir/{0}/1.jpg",
    "$RECYCLE.BIN/1.jpg",
]


@pytest.mark.parametrize("folder", ["", "train/"])
def test_what_systems_leave_in_folders_is_ignored(tmp_path, recwarn, folder):
    sorted_photos(tmp_path, [folder])
    for name in LEFT_BEHIND:
        trees.write(tmp_path / folder / name.format("axe throwing"), b"x")
    data = load_activities("folder", tmp_path)
    assert data.labels == ["axe throwing", "barrel racing"] and len(data.splits["train"]) == 4
    assert not recwarn and not check_folder("folder", tmp_path).faults


@pytest.mark.parametrize("name", ["ppmi", "ucf101"])
def test_what_systems_leave_in_public_sets_is_ignored(tmp_path, name):
    {"ppmi": trees.ppmi, "ucf101": trees.ucf101}[name](tmp_path)
    before = check_folder(name, tmp_path).faults
    inside = "norm_image/play_instrument" if name == "ppmi" else "UCF-101-midframes"
    for left in ("__MACOSX/violin/._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
        trees.write(tmp_path / left, b"x")
        trees.write(tmp_path / inside / left, b"x")
    assert check_folder(name, tmp_path).faults == before


# -------------------------------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("suffix", ["jfif", "JFIF", "jpe"])
def test_other_suffixes_of_jpeg(tmp_path, suffix):
    Image.new("RGB", (9, 7)).save(trees.write(tmp_path / f"reading/a.{suffix}", b""), "JPEG")
    data = load_activities("folder", tmp_path)
    assert data.read(data.splits["train"][0]).image.size == (9, 7)
    assert not check_folder("folder", tmp_path).faults


def media(brand: bytes, *compatible: bytes) -> bytes:
    """How HEIC, AVIF and MP4 files begin."""
    size = 16 + 4 * len(compatible)
    return size.to_bytes(4, "big") + b"ftyp" + brand + bytes(4) + b"".join(compatible) + bytes(40)


FOREIGN = {
    "AVIF": (media(b"avif", b"mif1", b"miaf"), "magick mogrify -format png"),
    "AVIF that names it second": (media(b"mif1", b"avif"), "it is AVIF"),
    "a video": (media(b"isom", b"mp41"), "ffmpeg -i FILE"),
    "QuickTime": (media(b"qt  "), "a video: `ffmpeg"),
    "Matroska": (b"\x1aE\xdf\xa3" + bytes(40), "a video: `ffmpeg"),
    "JPEG XL": (b"\xff\x0a" + bytes(40), "JPEG XL: `magick"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", ["jpg", "mov"])
def test_what_is_inside_a_file_is_named_with_what_converts_it(tmp_path, kind, suffix):
    content, advice = FOREIGN[kind]
    path = trees.write(tmp_path / f"a.{suffix}", content)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: cannot be read as an image: it is ") as error:
        open_image(str(path))
    assert advice in str(error.value)


HEIC = [media(b"heic", b"mif1"), media(b"mif1", b"heic"), media(b"heix"), media(b"msf1", b"hevc")]


@pytest.mark.parametrize("content", HEIC)
def test_heic_without_its_decoder_is_named_with_both_cures(content, monkeypatch):
    monkeypatch.setattr(images, "IMAGE_SUFFIXES", images.IMAGE_SUFFIXES - set(images.HEIC_SUFFIXES))
    with pytest.raises(ValueError, match=r"IMG_1.jpg: .* it is HEIC.*favor-lab\[heic\]'` reads it, or `magick mogrify"):
        decode_image(content, "IMG_1.jpg")


@pytest.fixture
def heic(tmp_path):
    """A function that writes a photograph as iPhones do."""
    pillow_heif = pytest.importorskip("pillow_heif")

    def write(path: Path, seed: int, size=(64, 40)) -> Path:
        pillow_heif.from_pillow(Image.open(picture(tmp_path / "as.png", seed, size=size))).save(path)
        (tmp_path / "as.png").unlink()
        return path

    return write


def test_heic_is_read_where_its_decoder_is_installed(tmp_path, heic, recwarn):
    for seed, label in ((0, "reading"), (10, "running")):
        (tmp_path / label).mkdir()
        for number, suffix in enumerate(("heic", "HEIC", "heif", "jpg")):
            heic(tmp_path / label / f"{number}.{suffix}", seed + number)
    data = load_activities("folder", tmp_path)
    shots = few_shot(data, 2, validation=1, test=1)
    assert {example.image.size for example in shots.train + shots.validation + shots.test} == {(64, 40)}
    report = check_folder("folder", tmp_path, decode=True)
    assert not recwarn and [fault.where for fault in report.faults] == ["reading/3.jpg", "running/3.jpg"]


def test_damaged_heic_is_named(tmp_path, heic):
    path = heic(tmp_path / "a.heic", 1)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match="a.heic: cannot be read as an image: "):
        open_image(str(path))


def png(pixels: np.ndarray, interlaced: bool, share: float = 1.0) -> bytes:
    """A PNG of RGB pixels (height, width, 3), without filters; a share of its bytes is there, checksums are right."""
    passes = formats.ADAM7 if interlaced else [(0, 0, 1, 1)]
    parts = [pixels[top::step_y, left::step_x] for left, top, step_x, step_y in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, int(interlaced))
    body = zlib.compress(rows[: int(share * len(rows))])
    chunks = [(b"IHDR", header), (b"IDAT", body[:50]), (b"IDAT", body[50:]), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 9), (40, 33)])
def test_a_png_whose_rows_end_early_is_refused_though_its_checksums_are_right(interlaced, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert (np.asarray(decode_image(png(pixels, interlaced), "a.png")) == pixels).all()
    for share in (0.5, 0.99):
        with pytest.raises(ValueError, match=r"a\.png: .* of \d+ bytes of its pixels are there|a\.png: .*truncated"):
            decode_image(png(pixels, interlaced, share), "a.png")


@pytest.mark.parametrize("options", [{"mode": "1"}, {"mode": "L"}, {"mode": "LA"}, {"mode": "P"}, {"mode": "RGBA"}])
@pytest.mark.parametrize("size", [(1, 1), (9, 3), (17, 8)])
def test_every_kind_of_png_is_complete(tmp_path, options, size):
    assert open_image(str(picture(tmp_path / "a.png", size=size, **options))).size == size


def test_a_progressive_jpeg_of_a_thousand_scans_is_refused_at_once(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (3000, 3000), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert decode_image(data, "a.jpg").size == (3000, 3000)
    last = data[data.rfind(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match=r"a\.jpg: .* 1006 scans of 3000 x 3000 pixels; save it as a usual JPEG"):
        decode_image(data[:-2] + last * 1000 + data[-2:], "a.jpg")


def test_files_to_convert_are_in_the_warning_and_in_the_faults(tmp_path, monkeypatch):
    from favor_lab.activities import listing

    suffixes = images.IMAGE_SUFFIXES - set(images.HEIC_SUFFIXES)
    monkeypatch.setattr(images, "IMAGE_SUFFIXES", suffixes)
    monkeypatch.setattr(listing, "IMAGE_SUFFIXES", suffixes)
    sorted_photos(tmp_path, [""])
    for name in ("IMG_1.HEIC", "IMG_2.HEIC", "b.avif", "c.MOV", "d.dng", "e.txt"):
        trees.write(tmp_path / "axe throwing" / name, b"x")
    with pytest.warns(UserWarning, match="6 not used") as caught:
        load_activities("folder", tmp_path)
    message = str(caught[0].message)
    assert message.count("HEIC, as iPhones write it") == 1, "once for all files of a kind"
    for advice in ("'favor-lab[heic]'", "AVIF: `magick", "a video: `ffmpeg", "raw data: `magick"):
        assert advice in message
    trees.write(tmp_path / "reading/a.heic", b"x")
    assert "'reading': no images in this folder; fill or remove it; reading/a.heic is HEIC" in refusal(
        "folder", tmp_path
    )
    for label in ("axe throwing", "barrel racing"):
        shutil.rmtree(tmp_path / label)
    assert "found: reading; reading/a.heic is HEIC, as iPhones write it: `pip" in refusal("folder", tmp_path)


def test_the_guide_names_the_formats(capsys):
    main(["data", "folder"])
    guide = capsys.readouterr().out
    assert all(form.lower() in guide.lower() for form in images.FORMATS)
    assert all(suffix in guide for suffix in images.FORMATS["JPEG"] + images.FORMATS["TIFF"])


# ------------------------------------------------------------------------------------------------ pointers of Git LFS


def test_pointers_in_place_of_text_lists_are_one_fault_each(tmp_path):
    root = trees.stanford40(tmp_path)
    for name in ("train", "test", "reading_train", "actions"):
        trees.write(root / f"ImageSplits/{name}.txt", POINTER)
    report = check_folder("stanford40", root)
    what = "is a Git LFS pointer, not the list; `git lfs pull` brings it"
    assert [str(fault) for fault in report.fatal] == [f"ImageSplits/{name}.txt: {what}" for name in ("train", "test")]
    assert {fault.kind for fault in report.faults if not fault.fatal} <= {"count"} and not report.exclude


def test_pointers_in_place_of_auxiliary_lists_are_notes(tmp_path):
    root = trees.stanford40(tmp_path)
    for name in ("reading_train", "actions"):
        trees.write(root / f"ImageSplits/{name}.txt", POINTER)
    report = check_folder("stanford40", root)
    notes = [fault.where for fault in report.faults if fault.kind == "list"]
    assert notes == ["ImageSplits/reading_train.txt", "ImageSplits/actions.txt"] and not report.fatal


def test_pointers_in_place_of_annotations(tmp_path):
    root = trees.stanford40(tmp_path)
    trees.write(root / "XMLAnnotations/reading_001.xml", POINTER)
    with pytest.raises(
        ValueError, match=r"1 fault.*\n.*reading_001.xml: is a Git LFS pointer, not the annotation; `git"
    ):
        load_activities("stanford40", root, person_crop=0.1)


@pytest.mark.parametrize("name", ["har15", "ucf101"])
def test_a_pointer_in_place_of_a_table(tmp_path, name):
    maker, table = {
        "har15": (trees.har15_kaggle, "Training_set.csv"), "ucf101": (trees.ucf101, "split_zhou_UCF101.json"),
    }[name]  # fmt: skip
    trees.write(maker(tmp_path) / table, POINTER)
    assert refusal(name, tmp_path) == f"{table}: is a Git LFS pointer, not the list; `git lfs pull` brings it"
    assert not [fault for fault in check_folder(name, tmp_path).faults if fault.kind == "unlisted"]


# ------------------------------------------------------------------------------------- lists of another computer

FOLDERS = ["C:/Users/student/har/train/", "C:\\Users\\student\\har\\train\\", "/home/student/har/train/", "train/"]
FOLDERS += ["\\\\server\\har\\train\\", "file:///home/student/train/", "../train/", "har/train/", "train\\"]


@pytest.mark.parametrize("folders", FOLDERS)
def test_a_table_with_folders_in_its_names_is_one_fault(tmp_path, folders, capsys):
    root = trees.har15_kaggle(tmp_path)
    trees.edit_lines(root / "Training_set.csv", lambda rows: [rows[0], *(folders + row for row in rows[1:])])
    fault = refusal("har15", root)
    kind = (
        "have folders that do not belong there" if folders in ("train/", "../train/", "har/train/", "train\\") else ""
    )
    assert fault.startswith(
        f"Training_set.csv: 24 names {kind or 'are absolute paths'}, as in Training_set.csv line 2: "
    )
    assert "train/Image_1.jpg is there: strip the folders, so that this row names 'Image_1.jpg'" in fault
    assert not check_folder("har15", root).exclude
    assert status("data", "har15", "--root", str(root)) == 1
    assert "--write-exclude" not in capsys.readouterr().out


def test_other_lists_with_folders_in_their_names(tmp_path):
    root = trees.stanford40(tmp_path / "stanford40")
    trees.edit_lines(root / "ImageSplits/train.txt", lambda rows: [f"/data/JPEGImages/{row}" for row in rows])
    assert "ImageSplits/train.txt: 6 names are absolute paths" in str(check_folder("stanford40", root).fatal[0])
    root = trees.ucf101(tmp_path / "ucf101")
    trees.edit_split(root, lambda table: [row.__setitem__(0, f"D:/midframes/{row[0]}") for row in table["val"]])
    fault = refusal("ucf101", root) if len(check_folder("ucf101", root).fatal) == 1 else ""
    assert "5 names are absolute paths" in fault and "so that this row names 'Apply_Eye_Makeup/v_" in fault


def test_absolute_paths_of_images_that_are_not_there(tmp_path):
    root = trees.har15_kaggle(tmp_path)
    trees.edit_lines(root / "Training_set.csv", lambda rows: [rows[0], *(f"/home/a/x{row}" for row in rows[1:])])
    assert "24 names are absolute paths" in (fault := refusal("har15", root)) and "is not there either" in fault


def test_nothing_is_advised_that_leaves_nothing(tmp_path, capsys):
    root = trees.har15_kaggle(tmp_path)
    for path in (root / "train").iterdir():
        path.rename(path.with_suffix(".png"))
    assert status("data", "har15", "--root", str(root)) == 1
    assert "--write-exclude" not in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------- duplicates


def har15_with_twins(root: Path, twins: int = 12, train: int = 16) -> Path:
    """HAR-15 as on Kaggle, in which later images repeat earlier ones of their label byte for byte."""
    trees.har15_kaggle(root, labels=trees.HAR15, train=train)
    for number in range(1, twins + 1):
        shutil.copy(root / f"train/Image_{number}.jpg", root / f"train/Image_{number + 15 * (train // 2)}.jpg")
    return root


def contents(examples) -> list[bytes]:
    return [Path(example.source).read_bytes() for example in examples]


@pytest.mark.parametrize("seed", range(4))
def test_har15_with_duplicates_gives_shots_without_them(tmp_path, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        data = load_activities("har15", har15_with_twins(tmp_path))
        shots, again = (few_shot(data, 8, seed, validation=1, test=4) for _ in range(2))
        fewer = few_shot(data, 3, seed, validation=1, test=4)
        other_seed = few_shot(data, 3, seed + 1, validation=1, test=4)
    drawn = shots.train + shots.validation + shots.test
    assert len(set(contents(drawn))) == len(drawn) == 13 * 15
    assert [example.label for example in shots.train] == data.labels * 8
    assert [e.source for e in shots.train] == [e.source for e in again.train]
    assert [e.source for e in shots.train][: 3 * 15] == [e.source for e in fewer.train], "more shots contain the fewer"
    assert [e.source for e in shots.test] == [e.source for e in fewer.test] == [e.source for e in other_seed.test]


HAR15_TWINS = {("train", "train"): 56, ("test", "test"): 8, ("train", "test"): 47}  # of the genuine set


def test_no_draw_of_a_set_like_har15_stops_for_its_111_duplicates():
    """12 600 images of 15 labels, a quarter set aside as a test set, 111 of them twice, most of them "sleeping"."""
    pools = {"train": 630, "test": 210}
    splits = {split: [Record(label, f"{split} {label} {i}") for label in trees.HAR15 for i in range(count)]
              for split, count in pools.items()}  # fmt: skip
    numbers = {record.source: i for i, record in enumerate(record for pool in splits.values() for record in pool)}
    twins = 0
    for (one, other), count in HAR15_TWINS.items():
        for k in range(count):  # by label: its images from the front repeat those from the back
            label = "sleeping" if k % 4 else trees.HAR15[k % 15]
            numbers[f"{one} {label} {k}"] = numbers[f"{other} {label} {pools[other] - 1 - k}"]
            twins += 1

    def draw(source: str) -> Image.Image:
        return Image.frombytes("RGB", (1, 1), numbers[source].to_bytes(3, "big"))

    data, passed_over = ActivityData("like har15", list(trees.HAR15), splits, draw), 0
    assert twins == 111
    for number in range(40):
        shots = (1, 2, 4, 8, 16)[number % 5]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drawn = few_shot(data, shots, seed=number, validation=0, test=(8, 40)[number % 2])
        passed_over += bool(caught)
        contents = [example.content for example in drawn.train + drawn.test]
        assert len(set(contents)) == len(contents), "an image is trained on and tested, or twice in one part"
    assert passed_over


@pytest.mark.parametrize("name", ["folder", "stanford40", "ucf101", "ppmi"])
@pytest.mark.filterwarnings("ignore:.*labels have no image", "ignore:.*passed over")
def test_no_loader_lets_a_test_image_be_trained_on_in_another_file(tmp_path, name):
    if name == "folder":
        for split in ("train", "test"):
            for number in range(4):
                label = ("reading", "running")[number % 2]
                picture(tmp_path / split / label / f"{number // 2}.png", number + 10 * (split == "test"))
    else:
        getattr(trees, name)(tmp_path, **({"train": 3} if name == "stanford40" else {}))
    data = load_activities(name, tmp_path)
    (learnt, *_), (tested, *_) = (
        [record for record in data.splits[split] if record.label == data.splits["train"][0].label]
        for split in ("train", "test")
    )
    with Image.open(tested.source) as image:
        image.convert("RGBA").save(learnt.source, format="PNG")  # other bytes, an alpha channel, any suffix
    (leak,) = [fault for fault in check_folder(name, tmp_path, decode=True).fatal if fault.kind == "leak"]
    assert Path(learnt.source).name in leak.where and Path(tested.source).name in leak.what
    fewest = min(Counter(record.label for record in data.splits["train"]).values())
    counts = {"validation": 0, "test": min(Counter(record.label for record in data.splits["test"]).values())}
    shots = few_shot(data, fewest - 1, **counts)
    assert not {example.content for example in shots.train} & {example.content for example in shots.test}
    with pytest.raises(ValueError, match="without duplicates too few images are left") as error:
        few_shot(data, fewest, **counts)
    assert learnt.source in str(error.value) and tested.source in str(error.value)


def two_labels(root: Path, count: int = 4) -> Path:
    for seed in range(2 * count):
        picture(root / ("reading", "running")[seed % 2] / f"{seed // 2}.png", seed)
    return root


def test_passing_over_a_duplicate_is_said_with_both_names_and_the_cure(tmp_path):
    two_labels(tmp_path)
    shutil.copy(tmp_path / "reading/1.png", tmp_path / "reading/twin.png")
    with pytest.warns(UserWarning, match="1 duplicate passed over") as caught:
        shots = few_shot(load_activities("folder", tmp_path), 4, validation=0, test=0)
    message = str(caught[0].message)
    assert all(part in message for part in ("1.png", "twin.png", "--write-exclude FILE", "--exclude FILE"))
    assert len(set(contents(shots.train))) == 8


def test_an_image_under_two_labels_is_a_fault_that_names_both(tmp_path):
    two_labels(tmp_path, 6)
    for number in (1, 2, 3):
        shutil.copy(tmp_path / f"reading/{number}.png", tmp_path / f"running/twin_{number}.png")
    with pytest.raises(ValueError, match="the same image under two labels: .*find out which is right") as error:
        few_shot(load_activities("folder", tmp_path), 6, validation=0, test=0)
    message = str(error.value)
    faults = [line for line in message.splitlines() if "under two labels" in line]
    assert faults and all("/reading/" in line and "/running/twin_" in line for line in faults)
    assert "--write-exclude FILE" in message.splitlines()[0] and "too few" not in message
    wrong = [f"running/twin_{number}.png" for number in (1, 2, 3)]
    few_shot(load_activities("folder", tmp_path, exclude=wrong), 6, validation=0, test=0)


def test_a_selection_changes_only_where_a_duplicate_would_stand(tmp_path):
    data = load_activities("folder", two_labels(tmp_path, 6))
    before = [example.source for example in few_shot(data, 2, validation=1, test=2).train]
    unused = {str(path) for path in (tmp_path / "reading").iterdir()} - set(before)
    shots = few_shot(data, 2, validation=1, test=2)
    used = {example.source for example in shots.train + shots.validation + shots.test}
    spare = sorted(unused - used)[0]
    shutil.copy(before[0], spare)  # a twin that is not drawn
    assert [example.source for example in few_shot(data, 2, validation=1, test=2).train] == before


def test_too_few_images_without_duplicates_name_both_and_the_cure(tmp_path):
    two_labels(tmp_path)
    shutil.copy(tmp_path / "reading/1.png", tmp_path / "reading/2.png")
    with pytest.raises(ValueError, match="the same image twice: .*; keep one of them") as error:
        few_shot(load_activities("folder", tmp_path), 4, validation=0, test=0)
    message = str(error.value)
    assert all(part in message for part in ("reading/1.png", "reading/2.png", "--write-exclude FILE", "--exclude FILE"))
    assert "running" not in message


def test_the_check_names_the_cure_of_duplicates_and_it_works(tmp_path, capsys):
    root, listed = two_labels(tmp_path / "photos"), tmp_path / "doubtful.txt"
    shutil.copy(root / "reading/1.png", root / "reading/twin.png")
    arguments = ["data", "folder", "--root", str(root)]
    assert status(*arguments) == 1
    assert "--write-exclude FILE, and then --exclude FILE" in capsys.readouterr().out
    assert status(*arguments, "--write-exclude", str(listed)) == 1
    assert status(*arguments, "--exclude", str(listed)) == 0


# ------------------------------------------------------------------------------------------------------ in and out


@pytest.mark.parametrize(
    "name", ["cartoon", "folder", "stanford40", "crop", "ucf101", "ppmi", "har15_kaggle", "har15_hub"]
)
@pytest.mark.filterwarnings("ignore:.*labels have no image")
def test_a_set_can_be_sent_to_a_worker_process(tmp_path, name):
    """Spawned processes (Windows, macOS) get their data by pickle."""
    loader, options = name.split("_")[0], {}
    if name == "crop":
        loader, options = "stanford40", {"person_crop": 0.1}
    if name == "folder":
        two_labels(tmp_path)
    elif loader != "cartoon":
        getattr(trees, {"crop": "stanford40"}.get(name, name))(tmp_path)
    data = load_activities(loader, None if loader == "cartoon" else tmp_path, **options)
    sent = pickle.loads(pickle.dumps(data))
    assert sent.splits == data.splits and sent.labels == data.labels
    for split in data.splits:
        assert sent.read(sent.splits[split][0]) == data.read(data.splits[split][0])


def test_tables_of_datasets_with_other_names_of_splits():
    datasets = pytest.importorskip("datasets")
    from favor_lab import from_datasets

    buffer = io.BytesIO()
    Image.new("RGB", (9, 7)).save(buffer, "PNG")
    rows = {"image": [{"bytes": buffer.getvalue(), "path": None}], "label": ["reading"]}
    table = datasets.Dataset.from_dict(
        rows, features=datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    )
    data = from_datasets(datasets.DatasetDict(training=table, dev=table, testing=table))
    assert list(data.splits) == ["train", "validation", "test"]
    assert data.read(data.splits["validation"][0]).image.size == (9, 7)
    with pytest.raises(ValueError, match="has the splits train, val, dev; need train"):
        from_datasets(datasets.DatasetDict(train=table, val=table, dev=table))
