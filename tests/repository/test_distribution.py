"""What is installed from a wheel, away from the checkout, is the whole product."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution of this checkout, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def run(distributions, tmp_path_factory):
    """run("favor-lab", ...) in an empty folder and an environment into which the wheel alone was installed; what the
    wheel depends on is lent by this environment."""
    place = tmp_path_factory.mktemp("stranger")
    venv.create(place / "env")
    python = place / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", str(distributions[1])]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run(install, check=True, capture_output=True, env=clean)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / "empty").mkdir()

    def run(command, *arguments):
        program = python if command == "python" else python.with_name(command)
        return subprocess.run(
            [program, *arguments], cwd=place / "empty", env=clean, check=True, capture_output=True, text=True
        ).stdout

    run.folder = place / "empty"
    return run


def test_the_wheel_holds_code_policy_and_results_and_nothing_else(distributions):
    names = zipfile.ZipFile(distributions[1]).namelist()
    for needed in (
        "favor_lab/py.typed",
        "favor_lab/__init__.pyi",
        "favor_lab/sharing/model_card.md.jinja",
        "favor_lab/data/pocket-qwen2-vl/model.safetensors",
        "favor_lab/data/pocket-qwen2-vl/preprocessor_config.json",
        "favor_lab/data/results/study/cells.csv",
    ):
        assert needed in names
    assert {name.split("/")[0] for name in names} == {"favor_lab", names[-1].split("/")[0]}
    assert not [name for name in names if "rebuild" in name or "pretraining/" in name or name.endswith(".png")]


def test_the_source_distribution_holds_tests_notebooks_and_data(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    parts = [
        "favor_lab/**/*.*",
        "tests/**/*.py",
        "notebooks/*.*",
        "notebooks/labs/source/*/*",
        "data/**/*.*",
        "*.*",
        ".ci/*",
    ]
    present = {path.relative_to(ROOT).as_posix() for part in parts for path in ROOT.glob(part) if path.is_file()}
    made = re.compile(r"__pycache__|unfinished/|\.egg-info|\.coverage|\.db$|\.log$|\.ipynb_checkpoints")
    assert not {name for name in present - names if not made.search(name)}


def test_a_stranger_runs_the_demo_in_an_empty_folder(run):
    assert "favor-lab 0." in run("favor-lab", "--version")
    code = "import favor_lab; print(favor_lab.__file__); print(favor_lab.load_policy().name)"
    where, name = run("python", "-c", code).splitlines()
    assert Path(where).is_relative_to(run.folder.parent / "env") and name == "pocket"
    assert "pocket" in run("favor-lab", "doctor")
    assert "demo" in run("favor-lab", "--help")
    out = run("favor-lab", "demo", "--steps", "2", "--shots", "1")
    assert "report       runs/demo-cartoon/report.html" in out
    assert (run.folder / "runs/demo-cartoon/adapter/adapter_model.safetensors").is_file()
