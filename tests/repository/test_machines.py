"""What the code may not take for granted of the machine: its encoding, its operating system, the names that it allows.

How files are written there is tested in runs/test_files, how figures are drawn in show/test_show_settings.
"""

import ast
import re
import subprocess

import pytest

from test_security import ROOT, SOURCES, code_of

TEXT = {"open", "read_text", "write_text", "fdopen", "NamedTemporaryFile", "TemporaryFile", "TextIOWrapper"}
OTHERS = {"Image.open", "webbrowser.open", "RunFolder.open", "Dashboard.open", "gzip.open", "package.read_text"}
MODE = {"open": 0, "write_text": None, "read_text": None, "fdopen": 1}  # place of the mode, of a method
POSIX = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
LACKING = {  # on Windows
    "os": "chown fork forkpty getloadavg getpgid getuid geteuid killpg mkfifo sched_getaffinity setsid statvfs sysconf"
    " uname wait waitpid".split(),
    "signal": "SIGHUP SIGKILL SIGQUIT SIGALRM SIGUSR1 SIGUSR2 SIGPIPE SIGCHLD alarm setitimer".split(),
    "time": ["tzset"],
}
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)


def without_encoding(code):
    """The calls that open text, or run a program and read its text, in whatever encoding the machine has."""
    calls = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        name = ast.unparse(node.func)
        if {"text", "universal_newlines"} & keywords.keys() and name.startswith(("subprocess.", "Popen", "run")):
            calls += [name] * ("encoding" not in keywords)
        if name.split(".")[-1] not in TEXT or name in OTHERS or isinstance(keywords.get(None), ast.Name):
            continue
        place = int(isinstance(node.func, ast.Name)) + MODE.get(name.split(".")[-1], 0) if "open" in name else None
        mode = keywords.get("mode") or (node.args[place] if place is not None and len(node.args) > place else None)
        if name.endswith("read_text") and node.args and isinstance(node.args[0], ast.Constant):
            continue  # its encoding comes first
        binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
        constant_modes = mode is None or isinstance(mode, ast.Constant) and re.fullmatch(r"[rwxabt+]+", str(mode.value))
        if not binary and constant_modes and "encoding" not in keywords:
            calls.append(name)
    return calls


def lacking_on_windows(code):
    """Modules and functions that Windows has not, unless the program asks first whether they are there."""
    tree = ast.parse(code)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or alias.name for node in imports for alias in node.names]
    uses = [name for name in names if name in POSIX]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in LACKING.get(node.value.id, ()) and f'hasattr({node.value.id}, "{node.attr}")' not in code:
                uses.append(ast.unparse(node))
    return uses


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_has_its_encoding_and_nothing_needs_one_system(path):
    """Windows reads and writes text in a code page of the country, if it is not told otherwise."""
    assert without_encoding(code_of(path)) == []
    assert lacking_on_windows(code_of(path)) == []


@pytest.mark.parametrize(
    "code, count",
    [
        ("open(path)", 1), ("open(path, 'w')", 1), ("open(path, 'rb')", 0), ("open(path, encoding='utf-8')", 0),
        ("path.open('w')", 1), ("path.open('wb')", 0), ("path.read_text()", 1), ("path.write_text(text)", 1),
        ("path.read_text('utf-8')", 0), ("path.write_text(text, encoding='utf-8')", 0), ("Image.open(path)", 0),
        ("subprocess.run(command, text=True)", 1), ("subprocess.run(command, text=True, encoding='utf-8')", 0),
    ],
)  # fmt: skip
def test_what_counts_as_text_without_encoding(code, count):
    assert len(without_encoding(code)) == count


@pytest.mark.parametrize(
    "code, count",
    [
        ("import fcntl", 1), ("import os\nif os.name == 'posix':\n    import fcntl", 0), ("os.fork()", 1),
        ("signal.SIGHUP", 1), ('if hasattr(signal, "SIGHUP"):\n    signal.SIGHUP', 0), ("signal.SIGTERM", 0),
    ],
)  # fmt: skip
def test_what_windows_lacks(code, count):
    assert len(lacking_on_windows(code)) == count


def test_the_files_of_the_repository_can_be_checked_out_everywhere():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8")
    if listed.returncode:
        pytest.skip("not a checkout of git")
    names = listed.stdout.split("\0")[:-1]
    parts = {part for name in names for part in name.split("/")}
    assert not [part for part in parts if RESERVED.fullmatch(part) or re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part)]
    assert len({name.casefold() for name in names}) == len(names)
    assert max(map(len, names)) < 120
