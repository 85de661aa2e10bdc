"""From arguments to a command: tyro turns the option groups of the command's function into flags and help."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import signal
import sys
import threading
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

import tyro

from favor_lab.arguments import ArgumentError, check_list
from favor_lab.cli.evaluating import evaluate
from favor_lab.cli.images import data
from favor_lab.cli.listing import recipes
from favor_lab.cli.measuring import doctor, profile, share, study
from favor_lab.cli.predicting import app, predict
from favor_lab.cli.training import demo, sft, train
from favor_lab.runs.config import config_arguments
from favor_lab.terminal import print_line

ABOUT = """Few-shot GRPO teaches a vision-language model to name activities in images.

Start with `favor-lab doctor`, then `favor-lab demo`. `favor-lab COMMAND --help` explains a command. Errors are one
line; add --debug to any command to see where they come from. `favor-lab --print-completion bash` (or zsh, fish) prints
a script that completes commands and options with the Tab key: write it to a file that your shell reads."""

SHELLS = ("bash", "zsh", "fish")

COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (demo, train, recipes, sft, evaluate, predict, app, share, study, profile, data, doctor)
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: `kill`, a machine that shuts down, a time limit that is over. It ends a command as Ctrl-C does."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """While the block runs, SIGTERM raises Terminated, unless the process ignores SIGTERM or has a handler for it."""

    def terminate(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: `timeout` sends it twice
        raise Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def complain(text: str) -> None:
    """Print a line about a problem on standard error."""
    print_line(f"favor-lab: {text}", sys.stderr)


def unchecked(kind: type) -> type:
    """Options whose values are not checked while they are parsed, so that the error is ours, in one line."""
    members = {"__post_init__": lambda self: None, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), members) if hasattr(kind, "__post_init__") else kind


def about_group(kind: type) -> Any:
    """A field for a group of options with its help: tyro would look for that in a source that there is not, slowly."""
    return dataclasses.field(metadata={"help": " ".join(str(kind.__doc__).split())})


def given_values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The name and the value of each option that is given; of values before the first option the name is "".

    >>> list(given_values(["photos", "--json", "--labels", "reading", "phoning", "--batch-size=2"]))
    [('', 'photos'), ('labels', 'reading'), ('labels', 'phoning'), ('batch_size', '2')]
    """
    name = ""
    for argument in arguments:
        value, equals = argument, "="
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            name = name.replace("-", "_")
        if equals:
            yield name, value


def check_arguments(arguments: Sequence[str], kinds: Mapping[str, Any]) -> None:
    """ArgumentError for an empty value, which an unset variable of the shell leaves, and for digits of other scripts.
    kinds: of the values of the options, by name."""
    for name, value in given_values(arguments):
        if value == "" and name != "recipe":
            raise ArgumentError(name, f"{name or 'a value'} is empty")
        if re.search(r"\b(int|float)\b", str(kinds.get(name))) and not value.isascii():
            raise ArgumentError(name, f"{name} is {value!r}, but a number is written in the digits 0 to 9")


def check_twice(values: Mapping[str, Any]) -> None:
    """ArgumentError for an option that has a value twice."""
    for name, value in values.items():
        if isinstance(value, tuple) and value and name != "reward_weights":
            check_list(name, value)


def typed_names(arguments: Sequence[str]) -> frozenset[str]:
    """The names of the options that were given, whatever their values.

    >>> sorted(typed_names(["train", "--steps", "3", "--learning_rate=1e-5", "--no-check"]))
    ['check', 'learning_rate', 'steps']
    """
    options = [argument[2:].split("=")[0] for argument in arguments if argument.startswith("--")]
    return frozenset(option.removeprefix("no-").replace("-", "_") for option in options)


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run their command. Only the options of the named command are looked at: its function's
    parameters, each a group of options; `typed`, if it has that, are the names of the options that were given."""
    if arguments and arguments[0].partition("=")[0] == "--print-completion":
        return print_completion([word for argument in arguments for word in argument.split("=")][1:])
    named = next((command for command in arguments[:1] if command in COMMANDS), None)
    groups, given = option_groups(named) if named else {}, list(arguments)
    parsed = parse(given, {named: groups})
    values = {name: value for group in groups for name, value in vars(getattr(parsed, group)).items()}
    check_arguments(given[1:], option_kinds(groups))
    if named and (config := values.pop("config", None)):
        from_file = config_arguments(config, named, values)
        check_arguments(from_file, option_kinds(groups))
        try:
            parse([named, *from_file], {named: groups})
        except SystemExit:
            raise ValueError(f"{config} has a value that its option cannot take: see above") from None
        given = [named, *from_file, *arguments[1:]]
        parsed = parse(given, {named: groups})
    command = COMMANDS[type(parsed).__name__]
    for group in groups:
        check_twice(vars(getattr(parsed, group)))
    more = {"typed": typed_names(given)} if "typed" in typing.get_type_hints(command) else {}
    command(**{name: kind(**vars(getattr(parsed, name))) for name, kind in groups.items()}, **more)


def option_groups(command: str) -> dict[str, type]:
    """The parameters of a command's function that are groups of options."""
    hints = typing.get_type_hints(COMMANDS[command])
    return {name: kind for name, kind in hints.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}


def option_kinds(groups: Mapping[str, type]) -> dict[str, Any]:
    """The kinds of the values of all options, as they are written."""
    return {item.name: item.type for kind in groups.values() for item in dataclasses.fields(kind)}


def named_option(error: BaseException, arguments: Sequence[str]) -> str:
    """The option that an error is about, as it is typed, to stand before the message: the one that it names, or else
    the first whose text or path is in the message; "" if there is none, or the message names it."""
    kinds = option_kinds(option_groups(arguments[0])) if {*arguments[:1]} & COMMANDS.keys() else {}
    if isinstance(error, ImportError):  # about a package
        return ""
    names = [error.name] if isinstance(error, ArgumentError) else []
    text, file = str(error), str(getattr(error, "filename", None))  # where a folder cannot be made: one above it
    for name, value in given_values(arguments):
        is_place = "Path" in str(kinds.get(name)) or name in ("policy", "model")
        is_word = value.isalpha()  # such as "run", which stands in messages with other meanings too
        before = r"(?:^|['\"`]|\b(?:folder|in|to|of|from|is|no) )" if is_word else r"(?<![\w/.-])"
        quoted = rf"{before}{re.escape(value)}(?![\w-])" if is_place else re.escape(repr(value))
        begins = "str" in str(kinds.get(name)) and text.startswith(f"{value} ")
        if "--" not in text and (begins or re.search(quoted, text) or (is_place and value.startswith(file + "/"))):
            names.append(name)
    options = [f"--{name.replace('_', '-')}" for name in names if name in kinds]
    return f"{options[0]}: " if options and options[0] not in str(error) else ""


def print_completion(shells: Sequence[str]) -> None:
    """Print the script that makes a shell complete all commands with their options."""
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise ValueError(f"--print-completion takes one shell: {', '.join(SHELLS)}")
    with suppress(SystemExit):  # tyro ends the process once it has printed it
        parse(["--tyro-print-completion", *shells], {command: option_groups(command) for command in COMMANDS})


def parse(arguments: Sequence[str], groups: Mapping[str | None, Mapping[str, type]]) -> Any:
    """The options of the command that the arguments name, one attribute per group; SystemExit for help and for what
    cannot be parsed. groups: by command, of those whose options are looked at."""

    def options(command: str) -> type:
        own_groups = [(name, unchecked(kind), about_group(kind)) for name, kind in groups.get(command, {}).items()]
        made, about = dataclasses.make_dataclass(command, own_groups), str(COMMANDS[command].__doc__)
        made.__doc__ = about if own_groups else about.split("\n")[0]
        return made

    with wide_enough(), errors_shown():
        return tyro.extras.subcommand_cli_from_dict(
            {command: options(command) for command in COMMANDS},
            prog="favor-lab",
            description=ABOUT,
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )


@contextmanager
def errors_shown() -> Iterator[None]:
    """While the block runs, what is written to standard error is held back, and printed afterwards as `print_line`
    does: tyro repeats values as they are, also those of a config file."""
    try:
        with redirect_stderr(io.StringIO()) as messages:
            yield
    finally:
        if text := messages.getvalue():
            print_line(text.rstrip("\n"), sys.stderr)


@contextmanager
def wide_enough() -> Iterator[None]:
    """While the block runs, the terminal has 40 columns at least: in one column tyro breaks its lines without end."""
    before, width = os.environ.get("COLUMNS"), shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(max(40, width))
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 2 for an error that was explained, 1 for one that nobody foresaw, 130 after Ctrl-C, 143
    after SIGTERM."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        with termination_raised(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: complain(f"note: {message}")
            run([argument for argument in given if argument != "--debug"])
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "stopped")
        return 143 if isinstance(interrupt, Terminated) else 130
    except (ValueError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError) as error:
        if debug:
            raise
        complain(f"error: {named_option(error, given)}{error}")
        return 2
    except Exception as error:
        if debug:
            raise
        complain(f"error: nobody foresaw this: {type(error).__name__}: {error} (--debug shows where it comes from)")
        return 1
    return 0
