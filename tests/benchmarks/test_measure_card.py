"""One command measures a card: what runs, what is left out, what fails, what is sent; and what is taken in of it. The
scripts themselves are in test_on_a_card; here they are a few lines each."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import card_file
import measure_card
import render
from common import is_same_setup
from measure_card import Job

RESULTS = Path(__file__).parents[2] / "data" / "results" / "benchmarks"
HERE = Path(__file__).parent
WHERE = {
    "machine": "some-gpu", "gpu": "Some GPU", "gpu_memory_gb": 12.9, "gpu_capability": "8.9", "processor": "Some CPU",
    "threads": 4, "cores": 4, "system": "Linux x86_64", "python": "3.11.7", "date": "2026-11-29T12:00:00+00:00",
    "versions": {"torch": "2.13.0", "transformers": "5.24.0", "favor-lab": "0.1.0"},
}  # fmt: skip
#: a script that counts its runs and writes a result, and the beginnings of others
WRITES = """
import json, pathlib, sys
given = dict(zip(sys.argv[1:], sys.argv[2:]))
out, name = pathlib.Path(given["--out"]), pathlib.Path(sys.argv[0]).stem
with (out / f"{name}.runs").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
print("working", flush=True)
PLACE
result = {"environment": json.loads((out / "where").read_text()), "arguments": {"policy": "2b"}, "benchmark": name}
(out / f"{name}-2b-some-gpu.json").write_text(json.dumps(result | MORE))
"""
FAILS = 'raise ValueError(f"{pathlib.Path.home()}/mine.txt is wrong")'
LACKS = 'if "--only" not in sys.argv: print("usage\\nx.py: error: the comparison needs trl"); sys.exit(2)'
NO_ROOM = 'if "--less" not in sys.argv: raise RuntimeError("CUDA out of memory.")'


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Call it with the scripts, and how they begin; it returns the folder of the results."""
    monkeypatch.setattr(measure_card, "SCRIPTS", tmp_path / "scripts")
    monkeypatch.setattr(measure_card, "ask_the_card", lambda machine: WHERE)
    (tmp_path / "scripts").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "where").write_text(json.dumps(WHERE))

    def write(jobs, more="{}", **beginnings):
        monkeypatch.setattr(measure_card, "JOBS", jobs)
        for name, begin in beginnings.items():
            code = WRITES.replace("PLACE", begin).replace("MORE", more)
            (tmp_path / "scripts" / f"{name}.py").write_text(code)
        return out

    return write


def runs(out, name):
    path = out / f"{name}.runs"
    return path.read_text().splitlines() if path.is_file() else []


def content(out):
    return json.loads((out / "favor-lab-some-gpu.json").read_text())


SMALL = "--prompts 1 --group-size 2 --length 8 --image-size 56 --gradient-checkpointing"


def test_one_works_one_fails_one_is_left_out_and_all_is_in_one_file(scripts, capsys):
    jobs = [
        Job("peaks", (SMALL,), ()),
        Job("growth", (SMALL,), ()),
        Job("step", (f"{SMALL} --both", f"{SMALL} --only ours"), ()),
        Job("parts", (SMALL, f"{SMALL} --less"), ()),
        Job("run200", ("--micro-batch 32",), (), {"prompts": 16}),
    ]
    out = scripts(jobs, peaks="", growth=FAILS, step=LACKS, parts=NO_ROOM, run200="")
    assert measure_card.main(["--out", str(out)]) == 1, "one failed"
    said, entries = capsys.readouterr().out, content(out)["scripts"]
    assert [entry["state"] for entry in entries] == ["measured", "failed", "measured", "measured", "left out"]
    assert entries[1]["reason"] == "exit status 1" and entries[1]["last_lines"][-1] == "ValueError: ~/mine.txt is wrong"
    assert entries[2]["command"].endswith("--only ours") and entries[3]["command"].endswith("--less")
    assert entries[2]["reason"] == "in another way: the comparison needs trl"
    assert entries[3]["reason"] == "in another way: out of memory"
    assert "GiB of memory needed by estimate, the card has 12.0" in entries[4]["reason"] and not runs(out, "run200")
    assert list(content(out)["results"]) == ["peaks-2b-some-gpu", "step-2b-some-gpu", "parts-2b-some-gpu"]
    assert "[2/5] growth: failed" in said and "[5/5] run200: left out: " in said
    assert "favor-lab-some-gpu.json holds all of it" in said and "the project's issue tracker" in said
    assert str(Path.home()) not in (out / "favor-lab-some-gpu.json").read_text()


def test_a_script_that_lacks_something_in_every_way_is_left_out(scripts):
    out = scripts([Job("step", (SMALL, f"{SMALL} --seed 1"), ())], step=LACKS)
    assert measure_card.main(["--out", str(out)]) == 0
    (entry,) = content(out)["scripts"]
    assert entry["state"] == "left out" and entry["reason"] == "the comparison needs trl"


def test_the_same_command_goes_on(scripts, monkeypatch):
    jobs = [Job("peaks", (SMALL,), ()), Job("growth", (SMALL,), ())]
    out = scripts(jobs, peaks="", growth=FAILS)
    assert measure_card.main(["--out", str(out)]) == 1
    scripts(jobs, growth="")
    assert measure_card.main(["--out", str(out)]) == 0
    assert len(runs(out, "peaks")) == 1 and len(runs(out, "growth")) == 2
    assert [entry.get("reason") for entry in content(out)["scripts"]] == ["its result was there", None]
    assert measure_card.main(["--out", str(out), "--again", "--only", "growth"]) == 0
    assert len(runs(out, "peaks")) == 1 and len(runs(out, "growth")) == 3
    assert len(content(out)["results"]) == 2, "also what did not run now"
    other = WHERE | {"versions": WHERE["versions"] | {"torch": "2.14.0"}}
    (out / "where").write_text(json.dumps(other))
    monkeypatch.setattr(measure_card, "ask_the_card", lambda machine: other)
    assert measure_card.main(["--out", str(out)]) == 0
    assert len(runs(out, "peaks")) == 2 and len(runs(out, "growth")) == 4, "other versions are another measurement"


def test_a_result_with_open_cells_goes_on(scripts):
    out = scripts([Job("memory", (SMALL,), ())], more='{"open": 3}', memory="")
    for _ in range(2):
        assert measure_card.main(["--out", str(out)]) == 0
    assert len(runs(out, "memory")) == 2 and content(out)["results"]["memory-2b-some-gpu"]["open"] == 3


def test_a_result_that_was_cut_off_is_measured_again(scripts):
    out = scripts([Job("peaks", (SMALL,), ())], peaks="")
    (out / "peaks-2b-some-gpu.json").write_text('{"environment": ')
    assert measure_card.main(["--out", str(out)]) == 0 and len(runs(out, "peaks")) == 1


def test_a_script_that_writes_nothing_has_failed(scripts):
    out = scripts([Job("peaks", (SMALL,), ())], peaks="sys.exit(0)")
    assert measure_card.main(["--out", str(out)]) == 1
    assert content(out)["scripts"][0]["reason"] == "it wrote no result"


def test_what_a_script_is_told(scripts, monkeypatch):
    """The folder, the machine and, for the short version, a tag; a card without bfloat16 takes float16."""
    monkeypatch.setitem(WHERE, "gpu_capability", "7.5")
    out = scripts([Job("peaks", ("--seed 1",), (SMALL,))], peaks="")
    measure_card.main(["--out", str(out), "--quick"])
    told = f"{SMALL} --dtype float16 --out {out} --machine some-gpu --tag quick"
    assert runs(out, "peaks") == [told]
    assert (out / "favor-lab-quick-some-gpu.json").is_file()


def test_a_script_sees_one_card(monkeypatch):
    for seen, first in ((None, "0"), ("2,3", "2"), ("GPU-1a", "GPU-1a")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen) if seen else monkeypatch.delenv("CUDA_VISIBLE_DEVICES", False)
        assert measure_card.one_card()["CUDA_VISIBLE_DEVICES"] == first


def test_stopped_by_hand(scripts, monkeypatch, capsys):
    def stop(command, log):
        raise KeyboardInterrupt

    out = scripts([Job("peaks", (SMALL,), ())], peaks="")
    monkeypatch.setattr(measure_card, "run", stop)
    assert measure_card.main(["--out", str(out)]) == 130
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.slow
def test_without_a_card_there_is_nothing_to_measure(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit):
        measure_card.main(["--out", str(tmp_path / "new")])
    assert "torch sees no CUDA device here" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_every_card_has_its_ways():
    """By the estimate: all on one of 48 GB; on one of 8 GB a smaller step, and the grid, which finds out by itself."""

    def ways(gb, quick=False):
        where = {"gpu_memory_gb": gb * 2**30 / 1e9}
        return {
            job.script: next((way for way in listed if not measure_card.too_little_memory(job, way, where)), None)
            for job in measure_card.JOBS
            for listed in [job.quick if quick else job.ways]
        }

    assert ways(48) == {job.script: job.ways[0] for job in measure_card.JOBS}
    assert all(ways(12).values()) and all(ways(8).values()) and all(ways(8, quick=True).values())
    assert ways(12)["step"].endswith("--micro-batch 8"), "with TRL"
    assert ways(8)["step"].endswith("--only ours") and ways(8)["memory"] == "--workers 1"
    assert ways(4) == dict.fromkeys(ways(4)) | {"memory": "--workers 1"}


def test_the_page_lists_what_is_run():
    page = (HERE / "README.md").read_text()
    listed = re.findall(r"^python tests/benchmarks/(\w+\.py .*?)(?: +#.*)?$", page, re.MULTILINE)
    wanted = [f"{job.script}.py {job.ways[0]}" for job in measure_card.JOBS]
    assert [line for line in listed if line in wanted] == wanted


# ---------------------------------------------------------------------------------------------------------- taken in


def good(tmp_path) -> dict:
    """A file of three committed results, as if a card had them."""
    results = {}
    for name in ("step-pocket-l32", "growth-pocket", "peaks-pocket"):
        result = json.loads((RESULTS / f"{name}.json").read_text())
        result["environment"] = WHERE | {"versions": dict(WHERE["versions"])}
        result["arguments"] |= {"device": "cuda"}
        result |= {"kind": "gpu"} if "kind" in result else {}
        results[f"{name}-some-gpu"] = result
    scripts = [{"command": "step.py", "state": "failed", "reason": "exit \x1b[2J status 1", "last_lines": []}]
    return {"format": card_file.FORMAT, "environment": WHERE, "scripts": scripts, "results": results}


@pytest.mark.slow
def test_a_file_is_added_and_rendered(tmp_path, capsys):
    path, folder = tmp_path / "card.json", tmp_path / "benchmarks"
    folder.mkdir()
    path.write_text(json.dumps(good(tmp_path)))
    command = ["--results", str(folder), "--out", str(tmp_path), "--add", str(path)]
    render.main(command)
    said = capsys.readouterr().out
    assert r"step.py: failed: exit \x1b[2J status 1" in said and "\x1b" not in said
    assert {file.stem for file in folder.iterdir()} == set(good(tmp_path)["results"])
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.count("Some GPU; Python 3.11.7") == 3 and (tmp_path / "figures" / "benchmarks.png").is_file()
    before = (folder / "growth-pocket-some-gpu.json").read_text()
    with pytest.raises(SystemExit):
        render.main(command)
    assert "has step-pocket-l32-some-gpu.json, " in capsys.readouterr().err, "no file is replaced"
    assert (folder / "growth-pocket-some-gpu.json").read_text() == before
    render.main([*command, "--machine", "Other GPU"])
    assert (folder / "growth-pocket-other-gpu.json").is_file() and len(list(folder.iterdir())) == 6


def test_a_link_is_not_followed(tmp_path):
    path, folder, aim = tmp_path / "card.json", tmp_path / "benchmarks", tmp_path / "aim.json"
    folder.mkdir()
    (folder / "growth-pocket-some-gpu.json").symlink_to(aim)
    path.write_text(json.dumps(good(tmp_path)))
    with pytest.raises(ValueError, match="already"):
        card_file.unpack(path, folder)
    assert not aim.exists() and len(list(folder.iterdir())) == 1


GROWTH = ("results", "growth-pocket-some-gpu")
BAD = {
    "no file of a card": ((), "format", "another"),
    "no results": ((), "results", []),
    "a result that is a list": (("results",), GROWTH[1], []),
    "a state of its own": (("scripts", 0), "state", "<b>"),
    "a reason that is a list": (("scripts", 0), "reason", ["a"]),
    "a name that leaves the folder": (("results",), "../growth-pocket-some-gpu", None),
    "a name of another folder": (("results",), "/tmp/growth-pocket-some-gpu", None),
    "a name on Windows": (("results",), "growth-pocket-..\\..\\x-some-gpu", None),
    "a name of another benchmark": (("results",), "step-pocket-some-gpu", None),
    "a machine that leaves the folder": ((*GROWTH, "environment"), "machine", "../some-gpu"),
    "a machine that is a list": ((*GROWTH, "environment"), "machine", ["some-gpu"]),
    "an unknown benchmark": (GROWTH, "benchmark", "other"),
    "a benchmark that is a list": (GROWTH, "benchmark", ["growth"]),
    "an unknown policy": ((*GROWTH, "arguments"), "policy", "mine"),
    "a policy that is a dict": ((*GROWTH, "arguments"), "policy", {}),
    "no arguments": (GROWTH, "arguments", None),
    "a link": ((*GROWTH, "environment"), "gpu", "[GPU](//x.org)"),
    "an address": ((*GROWTH, "environment"), "gpu", "GPU https://x.org"),
    "markup": ((*GROWTH, "environment"), "processor", "<img src=x>"),
    "a line break": ((*GROWTH, "environment"), "processor", "CPU\n# Head"),
    "a column": ((*GROWTH, "environment"), "python", "3.11 | x"),
    "code": ((*GROWTH, "environment"), "system", "`Linux`"),
    "somebody's name": ((*GROWTH, "environment"), "system", "@somebody"),
    "a date that is none": ((*GROWTH, "environment"), "date", "today"),
    "a long text": ((*GROWTH, "environment"), "gpu", "G" * 200),
    "an unknown package": ((*GROWTH, "environment", "versions"), "evil", "1"),
    "versions in a list": ((*GROWTH, "environment"), "versions", ["torch"]),
    "a text for a number": ((*GROWTH, "sweeps", "group", 0, "seconds"), "median", "3.0"),
    "a text in a list": ((*GROWTH, "sweeps", "group", 0, "seconds"), "values", ["x"]),
    "a text of its own": (GROWTH, "remark", "hello"),
    "a key of its own": ((*GROWTH, "sweeps", "group", 0, "phases"), "<script>", 1.0),
    "a warning that acts": (GROWTH, "warnings", ["\x1b[2J"]),
    "a dtype of its own": ((*GROWTH, "arguments"), "dtype", "<b>"),
    "a number that is a list": ((*GROWTH, "arguments"), "prompts", [4]),
    "a part of a prompt": ((*GROWTH, "arguments"), "prompts", 4.5),
    "a huge number": ((*GROWTH, "sweeps", "group", 0, "seconds"), "median", 1e300),
    "a number that cannot be divided by": ((*GROWTH, "sweeps", "group", 0, "bound"), "step", 0.0),
    "no sweeps": (GROWTH, "sweeps", {}),
    "sweeps that are a list": (GROWTH, "sweeps", [1]),
    "a point without seconds": ((*GROWTH, "sweeps", "group", 0), "seconds", None),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_and_nothing_is_written(tmp_path, what):
    places, key, value = BAD[what]
    content = good(tmp_path)
    part = content
    for place in places:
        part = part[place]
    part[key] = part.pop(GROWTH[1]) if value is None and places == ("results",) else value
    path, folder = tmp_path / "card.json", tmp_path / "benchmarks"
    folder.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
        card_file.unpack(path, folder)
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)
    assert not list(folder.iterdir()) and {file.name for file in tmp_path.iterdir()} == {"card.json", "benchmarks"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', '{"a": 1, "a": 2}', '{"a":' * 10**5, "\ud800"])
def test_a_file_that_is_no_json_is_refused(tmp_path, text, capsys):
    path = tmp_path / "card.json"
    path.write_text(text, errors="surrogatepass")
    with pytest.raises(SystemExit):
        render.main(["--results", str(tmp_path), "--out", str(tmp_path), "--add", str(path)])
    assert "nothing was added" in capsys.readouterr().err


def test_levels_of_brackets_end():
    deep = 1.0
    for _ in range(50):
        deep = [deep]
    with pytest.raises(ValueError, match="more than a number"):
        card_file.check_value(deep, "x", "values")


def test_what_is_one_setup():
    assert is_same_setup(WHERE, WHERE | {"date": "later"})
    assert not is_same_setup(WHERE, WHERE | {"gpu": "Other GPU"})
    assert not is_same_setup(WHERE, WHERE | {"versions": {}})
