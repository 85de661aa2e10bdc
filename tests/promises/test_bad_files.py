"""No bad file passes silently: each kind of `bad_files`, and what a run says about one before it trains."""

import pytest

import bad_files
from favor_lab.activities.checks import check_folder
from favor_lab.cli import main

HEADINGS = {kind.name: kind for kind in bad_files.KINDS}


@pytest.mark.parametrize("name", HEADINGS)
def test_a_kind_is_named_or_handled(name, tmp_path):
    good, came = bad_files.trial(HEADINGS[name], tmp_path)
    assert good, came


@pytest.mark.parametrize("data", bad_files.SETS)
def test_the_sets_are_good_before_they_are_spoilt(data, tmp_path):
    bad_files.SETS[data](tmp_path)
    if data == "folder":
        bad_files.picture(tmp_path / f"{bad_files.BAD}.png", 99)
    result = bad_files.read_as_training_does(data, tmp_path)
    assert not result.error and result.images


def test_a_run_stops_before_it_loads_a_policy_and_names_every_file(tmp_path, capsys):
    good, came = bad_files.met_by_a_run(tmp_path)
    assert good, came
    with pytest.raises(SystemExit, match="1"):
        main(["data", "folder", "--root", str(tmp_path / "images")])
    assert "10 faults that training would trip over" in capsys.readouterr().out


def test_a_kind_that_passes_silently_is_noticed(tmp_path):
    """The catalogue itself can fail: a good file that must be refused, a bad one that must be handled."""
    image = bad_files.encoded("PNG")
    for kind in (
        bad_files.Kind("good", bad_files.bad(".png", image), refused=("bad.png",)),
        bad_files.Kind("bad", bad_files.bad(".png", b""), handled=lambda result: True),
        bad_files.Kind("unnamed", bad_files.bad(".png", b""), refused=("other.png",)),
    ):
        assert not bad_files.trial(kind, tmp_path / kind.name)[0]


def test_the_check_names_bad_folders_and_bad_images_together(tmp_path):
    bad_files.bad_folders(bad_files.good_folder(tmp_path))
    for path in (tmp_path / "train/reading/a.png", tmp_path / "test/running/a.png"):
        path.write_bytes(b"")
    (tmp_path / "train/running/loop.png").symlink_to("loop.png")
    fatal = check_folder("folder", tmp_path).fatal
    assert [fault.kind for fault in fatal] == ["label"] * 5 + ["name"] + ["unreadable"] * 3
    assert fatal[-2].where == "train/running/loop.png" and "in a circle" in fatal[-2].what
