"""No bad file passes silently: each kind of `bad_files`, and what a run says of one before it trains."""

import pytest

import bad_files
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
    found = bad_files.read_as_training_does(data, tmp_path)
    assert not found.error and found.images


def test_a_run_stops_before_it_loads_a_policy_and_names_every_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("favor_lab.cli.open_policy", lambda *_: pytest.fail("the policy was loaded first"))
    bad_files.good_folder(tmp_path / "images")
    bad_files.ten_at_once(tmp_path / "images")
    asked = ["train", "--data", "folder", "--root", str(tmp_path / "images"), "--shots", "2", "--test", "2"]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "10 faults in 12 images" in said and said.count("cannot be read as an image") == 10
    with pytest.raises(SystemExit, match="1"):
        main(["data", "folder", "--root", str(tmp_path / "images")])
    assert "10 faults that training would trip over" in capsys.readouterr().out
