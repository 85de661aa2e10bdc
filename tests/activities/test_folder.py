"""Labelled data: the drawn sets, folders of images with every trap that we could think of, and the export."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from favor_lab.activities import Record, export_folder, load_activities, world
from favor_lab.activities.checks import check_folder
from favor_lab.activities.images import open_image
from pictures import picture

# --------------------------------------------------------------- the drawn sets


@pytest.mark.parametrize("name", world.SETS)
def test_a_pocket_set_lists_its_scenes_and_draws_them_on_request(name):
    data = load_activities(name)
    assert data.labels == list(world.ACTIVITIES)
    assert {split: len(records) / 16 for split, records in data.splits.items()} == world.POCKET_POOLS
    for split, index in (("train", 0), ("validation", 5), ("test", 1234)):
        record = data.splits[split][index]
        scene, example = world.draw_scene(name, split, index), data.read(record)
        assert (example.label, example.source) == (scene.label, scene.source) == (record.label, record.source)
        assert example.image.tobytes() == scene.image.tobytes()


def test_an_unknown_set_lists_the_valid_names():
    with pytest.raises(
        ValueError,
        match="'imagenet'.*cartoon, sketch, thermal, cctv, cartoon-new, .*stanford40, har15, ucf101, ppmi, folder",
    ):
        load_activities("imagenet")


def test_root_belongs_to_folders_alone(tmp_path):
    with pytest.raises(ValueError, match="takes no root"):
        load_activities("sketch", tmp_path)
    with pytest.raises(ValueError, match="needs root"):
        load_activities("folder")


# --------------------------------------------------------------- folders


def test_a_plain_folder_is_sorted_and_its_labels_are_readable(tmp_path):
    for name in ("running/b.JPG", "running/a.jpeg", "rowing/x.gif"):
        picture(tmp_path / name)
    for name in ("2.Png", "10.tiff"):
        picture(tmp_path / "riding_a_bike" / name)
    data = load_activities("folder", tmp_path)
    assert data.labels == ["riding a bike", "rowing", "running"]
    assert data.folders == {"riding a bike": "riding_a_bike", "rowing": "rowing", "running": "running"}
    assert list(data.splits) == ["train"]
    assert data.splits["train"] == [
        Record("riding a bike", str(tmp_path / "riding_a_bike/10.tiff")),
        Record("riding a bike", str(tmp_path / "riding_a_bike/2.Png")),
        Record("rowing", str(tmp_path / "rowing/x.gif")),
        Record("running", str(tmp_path / "running/a.jpeg")),
        Record("running", str(tmp_path / "running/b.JPG")),
    ]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "PNG", "JpEg"])
def test_every_suffix_is_read(tmp_path, suffix):
    picture(tmp_path / f"reading/a.{suffix}")
    data = load_activities("folder", str(tmp_path))
    assert data.read(data.splits["train"][0]).image.size == (9, 7)


@pytest.mark.parametrize("named", ["validation", "val", "Val"])
def test_a_folder_with_splits(tmp_path, named):
    for split, seed in (("train", 0), (named, 1), ("test", 2)):
        picture(tmp_path / split / "reading/a.png", seed)
        picture(tmp_path / split / "running/a.png", seed + 9)
    data = load_activities("folder", tmp_path)
    assert list(data.splits) == ["train", "validation", "test"]
    assert [len(records) for records in data.splits.values()] == [2, 2, 2]
    assert data.splits["test"][1] == Record("running", str(tmp_path / "test/running/a.png"))


def test_a_label_may_be_called_train(tmp_path):
    picture(tmp_path / "train/a.png")
    picture(tmp_path / "bus/a.png")
    assert load_activities("folder", tmp_path).labels == ["bus", "train"]


def test_splits_without_train_are_refused(tmp_path):
    picture(tmp_path / "test/reading/a.png")
    with pytest.raises(ValueError, match="holds test but no train folder"):
        load_activities("folder", tmp_path)


def test_hidden_files_are_left_out_and_the_rest_is_named(tmp_path, recwarn):
    picture(tmp_path / "reading/a.png")
    picture(tmp_path / "reading/.hidden.png")
    picture(tmp_path / ".thumbnails/x.png")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "README.md").touch()
    assert len(load_activities("folder", tmp_path).splits["train"]) == 1
    assert not recwarn
    picture(tmp_path / "reading/deeper/b.png")
    (tmp_path / "reading/notes.txt").write_text("x")
    picture(tmp_path / "loose.png")
    with pytest.warns(UserWarning, match=r"3 not used.*: loose.png, reading/deeper, reading/notes.txt"):
        data = load_activities("folder", tmp_path)
    assert len(data.splits["train"]) == 1


def test_what_lies_beside_the_splits_is_named(tmp_path):
    picture(tmp_path / "train/reading/a.png")
    picture(tmp_path / "more/reading/a.png")
    with pytest.warns(UserWarning, match="1 not used.*: more"):
        load_activities("folder", tmp_path)


def test_what_is_called_an_image_and_is_no_file_is_refused_when_it_is_read(tmp_path, recwarn):
    for name in ("loop.png", "nowhere.png"):
        (picture(tmp_path / "reading/a.png").parent / name).symlink_to("loop.png")
    (tmp_path / "reading/folder.png").mkdir()
    os.mkfifo(tmp_path / "reading/pipe.png")
    data = load_activities("folder", tmp_path)
    assert not recwarn
    reasons = {"folder": "it is a folder", "loop": "in a circle", "nowhere": "leads nowhere", "pipe": "or a pipe"}
    for record, (name, reason) in zip(data.splits["train"][1:], reasons.items(), strict=True):
        with pytest.raises(ValueError, match=rf"reading/{name}\.png: cannot be read as an image: .*{reason}"):
            data.read(record)
    left = load_activities("folder", tmp_path, exclude=[f"reading/{name}.png" for name in reasons])
    assert [record.source for record in left.splits["train"]] == [str(tmp_path / "reading/a.png")]


def test_a_name_with_a_line_break_can_be_left_out_as_it_is_reported(tmp_path):
    picture(tmp_path / "reading/a.png")
    (tmp_path / "reading/b\n.png").touch()
    (fault,) = check_folder("folder", tmp_path).fatal
    assert fault.where == "reading/b\\n.png"
    assert len(load_activities("folder", tmp_path, exclude=fault.cure).splits["train"]) == 1


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere"):
        load_activities("folder", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no images in <label>/<image>.*found: nothing"):
        load_activities("folder", tmp_path)
    with pytest.raises(NotADirectoryError, match=r"not a folder: .*loose\.png"):
        load_activities("folder", picture(tmp_path / "loose.png"))
    with pytest.raises(ValueError, match=r"found: loose\.png"):
        load_activities("folder", tmp_path)
    (tmp_path / "jumping").mkdir()
    with pytest.raises(ValueError, match="found: jumping"):
        load_activities("folder", tmp_path)
    picture(tmp_path / "reading/a.png")
    with pytest.raises(ValueError, match="'jumping': no images in this folder; fill or remove"):
        load_activities("folder", tmp_path)


@pytest.mark.parametrize("twin", ["riding a bike", "Riding_a_bike", "riding-a-bike"])
def test_two_folders_that_read_as_one_label_are_refused(tmp_path, twin):
    picture(tmp_path / "riding_a_bike/a.png")
    picture(tmp_path / twin / "b.png")
    with pytest.raises(ValueError, match=f"'riding_a_bike'.*{twin}|{twin}.*'riding_a_bike'"):
        load_activities("folder", tmp_path)


# --------------------------------------------------------------- one image


@pytest.mark.parametrize("mode, suffix", [("RGBA", "png"), ("P", "gif"), ("L", "png"), ("CMYK", "jpg")])
def test_images_of_any_mode_are_read(tmp_path, mode, suffix):
    image = open_image(str(picture(tmp_path / f"a.{suffix}", mode=mode)))
    assert image.size == (9, 7) and image.mode == mode


def test_images_of_sixteen_bits_keep_them(tmp_path):
    depth = np.arange(63, dtype=np.uint16).reshape(7, 9) * 1000
    Image.fromarray(depth).save(tmp_path / "a.png")
    assert (np.asarray(open_image(str(tmp_path / "a.png"))) == depth).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_images_are_turned_upright(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to see it upright
    path = picture(tmp_path / f"a.{suffix}", exif=exif)
    image = open_image(str(path))
    assert image.size == (7, 9)
    assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tiff"])
def test_a_truncated_image_names_its_path(tmp_path, suffix):
    path = picture(tmp_path / f"half.{suffix}", size=(64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"half\.{suffix}: cannot be read as an image: "):
        open_image(str(path))


def test_files_that_are_no_images_name_their_path(tmp_path):
    empty, text = tmp_path / "empty.png", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("this is no picture")
    with pytest.raises(ValueError, match=r"empty\.png: .*empty \(0 bytes\)"):
        open_image(str(empty))
    with pytest.raises(ValueError, match=r"text\.jpg: cannot be read as an image: "):
        open_image(str(text))
    with pytest.raises(ValueError, match=r"gone\.png: "):
        open_image(str(tmp_path / "gone.png"))


def test_an_animated_image_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(str(tmp_path / "a.gif")).convert("RGB").getpixel((2, 2)) == (255, 0, 0)


# --------------------------------------------------------------- the export


def test_an_exported_set_reads_back_with_equal_pixels_and_labels(tmp_path):
    root = tmp_path / "cartoon"
    paths = export_folder("cartoon", root, per_label=2)
    assert len(paths) == 2 * 2 * 16 and paths[9] == root / "train/riding_a_bike/000.png"
    data = load_activities("folder", root)
    assert data.labels == sorted(world.ACTIVITIES)
    truth = [json.loads(line) for line in (root / "truth.jsonl").read_text().splitlines()]
    assert [root / line["file"] for line in truth] == paths
    read = {record.source: data.read(record) for records in data.splits.values() for record in records}
    assert len(read) == len(truth)
    for line in truth:
        scene, example = world.scene_from_source(line["source"]), read[str(root / line["file"])]
        assert example.label == line["label"] == scene.label
        assert example.image.tobytes() == scene.image.tobytes()
        assert line["statements"] == list(scene.truth.statements)
        assert line["file"].startswith(line["source"].split("/")[1] + "/")


def test_the_imagefolder_of_datasets_reads_an_export(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    root = tmp_path / "thermal"
    export_folder("thermal", root, per_label=1)
    table = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in table.items()} == {"train": 16, "test": 16}
    for split, rows in table.items():
        names = [name.replace("_", " ") for name in rows.features["label"].names]
        assert names == sorted(world.ACTIVITIES)
        for row in rows:
            scene = world.draw_scene("thermal", split, world.ACTIVITIES.index(names[row["label"]]))
            assert row["image"].tobytes() == scene.image.tobytes()


KILLED = """
import os, pathlib, signal, sys
from PIL import Image
from favor_lab.activities.world import export_folder

def at(number, function):
    calls = []

    def counted(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(result)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted

directory, place, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
owner = Image.Image if place == "save" else pathlib.Path
setattr(owner, place, at(number, getattr(owner, place)))
export_folder("cartoon", directory, per_label=1)
"""


@pytest.mark.parametrize("where", [("save", 1), ("save", 17), ("save", 32), ("rename", 1), ("rename", 2)])
def test_an_export_that_was_killed_is_no_set(tmp_path, where):
    """Also not the images that were drawn, which would be a smaller set; the next export there is told why."""
    root = tmp_path / "mine"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root), where[0], str(where[1])], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(ValueError, match="no images in|holds test but no train folder"):
        load_activities("folder", root)
    with pytest.raises(FileExistsError, match=r"holds \.unfinished \(an export that was killed"):
        export_folder("cartoon", root, per_label=1)


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("the disk is full")))
        export_folder("cartoon", tmp_path / "a" / "new")
    assert not (tmp_path / "a" / "new").exists()
    assert len(export_folder("cartoon", ".", per_label=1)) == 32, "an empty folder that one is in is a place, too"
    assert sorted(path.name for path in Path().iterdir()) == ["test", "train", "truth.jsonl"]


def test_an_export_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ValueError, match="unknown set 'folder'.*cartoon"):
        export_folder("folder", tmp_path / "new")
    with pytest.raises(ValueError, match="unknown split 'pretrain'.*train, validation, test"):
        export_folder("cartoon", tmp_path / "new", splits=["pretrain"])
    for count in (0, world.POCKET_POOLS["test"] + 1):
        with pytest.raises(ValueError, match=f"per_label .*not {count}"):
            export_folder("cartoon", tmp_path / "new", splits=["test"], per_label=count)
    (tmp_path / "kept.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        export_folder("cartoon", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("name", world.SETS)
def test_the_shipped_images_are_what_the_generator_draws(name):
    root = Path(__file__).parents[2] / "data" / "pocket-activities" / name
    truth = [json.loads(line) for line in (root / "truth.jsonl").read_text().splitlines()]
    assert {root / line["file"] for line in truth} == set(root.rglob("*.png"))
    assert {line["label"] for line in truth} == set(world.ACTIVITIES)
    for line in truth:
        scene, image = world.scene_from_source(line["source"]), open_image(str(root / line["file"]))
        assert line["label"] == scene.label and line["statements"] == list(scene.truth.statements)
        # Another version of the drawing library may round a pixel at an edge differently.
        assert np.abs(np.asarray(image, float) - np.asarray(scene.image, float)).mean() < 1


def test_a_set_of_ones_own_has_a_name(monkeypatch):
    from favor_lab.activities.load import OWN_SETS

    monkeypatch.setitem(OWN_SETS, "birds", lambda root: load_activities("thermal") if root is None else root)
    assert load_activities("birds").name == "thermal"
    assert load_activities("birds", "my_birds") == Path("my_birds")
    with pytest.raises(ValueError, match="takes no exclude"):
        load_activities("birds", exclude=["a.png"])
    with pytest.raises(ValueError, match="folder, birds"):
        load_activities("bird")
