"""One description of what to install."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import favor_lab

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = {"trl", "datasets", "matplotlib", "jupyter_core", "ipywidgets", "IPython", "tyro", "bitsandbytes", "gradio"}


def readme_command(name: str) -> str:
    """The fenced block after `<!-- command: name -->`, found as `.ci/run` finds it."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(rf"^<!-- command: {name} -->\n(?:.*\n)*?```.*\n((?:.*\n)*?)```$", text, re.MULTILINE)
    assert len(blocks) == 1, f"README.md must have one block after <!-- command: {name} -->"
    return blocks[0].strip()


def extras(requirement: str) -> set[str]:
    """The extras in `-e .[a,b]` or `-e ".[a,b]"`."""
    return set(re.search(r'-e "?\.\[([\w,]+)\]"?', requirement)[1].split(","))


def test_the_environment_file_installs_what_the_project_says():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    # Only Python and pip come from conda, and only this project from pip: no version can drift.
    assert packages == ["python" + PROJECT["requires-python"], "pip"]
    assert len(pip) == 1 and pip[0].startswith("-e .[")
    assert extras(pip[0]) == extras(readme_command("test")) <= PROJECT["optional-dependencies"].keys()
    assert conda["name"] == PROJECT["name"]


def test_the_readme_commands_install_and_run():
    assert extras(readme_command("demo")) == {"lab"}
    assert readme_command("demo").split("&&")[-1].split()[0] in PROJECT["scripts"]
    assert readme_command("test").endswith(" && python -m pytest -n 2 --dist loadscope")


def test_the_workflow_runs_the_same_script_from_the_oldest_python_on():
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    job, oldest = jobs["readme-commands"], jobs["oldest-versions"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert ">=" + job["strategy"]["matrix"]["python-version"][0] == PROJECT["requires-python"]
    installs = [step["run"] for step in oldest["steps"] if "--resolution lowest-direct" in step.get("run", "")]
    assert len(installs) == 1 and extras(installs[0]) == extras(readme_command("test"))


def test_the_workflow_covers_the_systems_and_pythons_that_the_project_claims():
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    claimed = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert jobs["readme-commands"]["strategy"]["matrix"]["python-version"] == claimed
    others = jobs["other-systems"]
    assert others["strategy"]["matrix"]["os"] == ["windows-latest", "macos-latest"]
    assert {"favor-lab doctor", "favor-lab demo --steps 2"} <= {step.get("run") for step in others["steps"]}


def test_the_version_stands_in_one_place():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == favor_lab.__version__


def test_the_console_script_points_at_a_function():
    module, function = PROJECT["scripts"]["favor-lab"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_importing_the_library_imports_no_optional_package():
    code = f"import sys, favor_lab; print(*sorted({OPTIONAL} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
