"""Shell completion: the scripts are valid, and they know the options of every command."""

import shutil
import subprocess
import sys
from dataclasses import fields

import pytest

from favor_lab.cli import main
from favor_lab.cli.parser import COMMANDS, SHELLS, option_groups

COMPLETE = """
source "$0"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_tyro_favor_lab
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(params=SHELLS)
def script(request, capsys, tmp_path):
    assert main(["--print-completion", request.param]) == 0
    path = tmp_path / f"favor-lab.{request.param}"
    path.write_text(capsys.readouterr().out)
    return path


def test_the_script_has_every_command_with_every_option(script):
    text = script.read_text()
    for command in COMMANDS:
        assert f"'{command}': " in text
        for kind in option_groups(command).values():
            for item in fields(kind):
                assert f"--{item.name.replace('_', '-')}" in text or "Positional" in str(item.type), item.name
    shell = script.suffix[1:]
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True)


def complete(script, *words: str) -> list[str]:
    result = subprocess.run(["bash", "-c", COMPLETE, str(script), *words], capture_output=True, text=True, check=True)
    return [line.split("\t")[0].strip() for line in result.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_commands_options_and_choices(script):
    assert set(complete(script, "favor-lab", "")) >= COMMANDS.keys()
    assert complete(script, "favor-lab", "tra") == ["train"]
    assert complete(script, "favor-lab", "train", "--group-s") == ["--group-size"]
    assert set(complete(script, "favor-lab", "train", "--how", "")) == {"grpo", "bnpo", "dr_grpo", "dapo", "cispo"}
    assert "--group-size" not in complete(script, "favor-lab", "sft", "--")


@pytest.mark.parametrize("arguments", [["tcsh"], [], ["bash", "zsh"]])
def test_another_shell_is_refused_with_those_that_are_there(arguments, capsys):
    assert main(["--print-completion", *arguments]) == 2
    assert capsys.readouterr().err == "favor-lab: error: --print-completion takes one shell: bash, zsh, fish\n"


def test_an_equals_sign_will_do(capsys):
    assert main(["--print-completion=fish"]) == 0
    assert "# AUTOMATICALLY GENERATED" in capsys.readouterr().out
