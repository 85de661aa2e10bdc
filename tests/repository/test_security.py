"""What the library must never do with what it is given: run it, unpickle it, show it as markup, or ask a network.

That reports, cards and widgets escape a model's output is tested where they are written (test_study_report,
_dashboard, _widgets, share/test_sharing); that checkpoints and adapters are safetensors alone, in test_grpo_checkpoints
and vlm/test_hub.
"""

import ast
import re
import socket
from pathlib import Path

import nbformat
import pytest

from favor_lab.cli import main

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
SOURCES = sorted([*(ROOT / "favor_lab").rglob("*.py"), *(ROOT / "data").rglob("*.py"), *NOTEBOOKS])
RUNNING = {"eval", "exec", "compile", "__import__"}  # by these names alone: re.compile and model.eval are others
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
OPENING = {"torch.load", "os.system", "os.popen", "yaml.load"}
SWITCHES = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "use_safetensors": False}
ACTIVE = re.compile(r"<\s*(script|iframe|object|embed|link|base|form)\b|\bon[a-z]+\s*=|javascript:|srcdoc", re.I)


def dangers(code: str) -> list[str]:
    """The calls, imports and switches in a program that could run what it reads."""
    uses = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in RUNNING:
                uses.append(node.func.id)
            if ast.unparse(node.func) in OPENING and "weights_only=True" not in map(ast.unparse, node.keywords):
                uses.append(ast.unparse(node.func))
            for keyword in node.keywords:
                if isinstance(keyword.value, ast.Constant) and keyword.arg in SWITCHES:
                    uses += [keyword.arg] * (keyword.value.value is SWITCHES[keyword.arg])
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            uses += [name for name in modules if name.split(".")[0] in UNPICKLING]
    return uses


def code_of(path: Path) -> str:
    """A program, or the code cells of a notebook without the lines that only Jupyter can read."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return "\n".join(line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!")))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_run_or_unpickled(path):
    assert not dangers(code_of(path))


@pytest.mark.parametrize(
    "code, name",
    [
        ("import pickle", "pickle"),
        ("from dill import loads", "dill"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("model = load(x, trust_remote_code=True)", "trust_remote_code"),
        ("run(command, shell=True)", "shell"),
        ("eval(text)", "eval"),
        ("if x:\n    exec(text)", "exec"),
    ],
)
def test_the_search_finds_what_it_looks_for(code, name):
    assert dangers(code) == [name]
    harmless = "torch.load(path, weights_only=True); model.eval(); re.compile('a'); load(x, trust_remote_code=False)"
    assert not dangers(harmless)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_brings_no_active_output(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert set(data) <= {"text/plain", "text/html", "text/markdown", "image/png", "image/jpeg"}, cell.id
            assert not ACTIVE.search("".join(data.get("text/html", ""))), f"{cell.id}: active markup"
        assert not (cell.cell_type == "markdown" and ACTIVE.search(cell.source)), cell.id


def test_active_markup_is_recognised():
    for text in ("<script>", "< SCRIPT src=x>", '<img src=x onerror="a()">', "<a href='javascript:a()'>", "<iframe>"):
        assert ACTIVE.search(text)
    assert not ACTIVE.search('<table style="color: red"><td>only one = 1</td></table>'.replace("one =", "one:"))


@pytest.mark.slow
def test_no_network_unless_asked(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    def refuse(*arguments, **options):
        pytest.fail("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    run = ["--data", "cartoon", "--shots", "1", "--test", "2", "--steps", "1", "--policy", str(tiny_checkpoint)]
    assert main(["train", *run, "--group-size", "2", "--max-new-tokens", "4", "--out", "run"]) == 0
    assert main(["sft", *run, "--out", "taught"]) == 0
    assert main(["evaluate", "--data", "sketch", "--test", "2", "--policy", str(tiny_checkpoint)]) == 0
    assert main(["data", "stanford40"]) == 0
    assert main(["doctor"]) == 0
