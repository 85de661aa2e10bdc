"""Config files: the options of a run as TOML, under the names that they have on the command line.

Every run writes `run.toml`; `favor-lab train --config run.toml` runs it again.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from favor_lab.files import write_whole


def write_config(path: Path, command: str, parts: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write the options of a run of the command, in titled parts. A missing option is None."""
    import tomli_w

    text = f"# favor-lab {command} --config run.toml runs it again; an option of the command line wins over this file\n"
    text += tomli_w.dumps({"command": command})
    for title, values in parts.items():
        options = {name.replace("_", "-"): plain(value) for name, value in values.items() if value is not None}
        no_text = [name for name, value in options.items() if str(value) != str(value).encode(errors="ignore").decode()]
        notes = [f"# {name} is no text in UTF-8: name it on the command line\n" for name in no_text]
        text += f"\n# {title}\n{''.join(notes)}"
        text += tomli_w.dumps({name: value for name, value in options.items() if name not in no_text})
    return write_whole(path, text)


def plain(value: Any) -> Any:
    """
    >>> plain(Path("photos")), plain({"gamma": 0.5, "view": None})
    ('photos', {'gamma': 0.5, 'view': 'None'})
    """
    if isinstance(value, Mapping):
        return {name: "None" if item is None else item for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def config_arguments(path: Path, command: str, options: Mapping[str, Any]) -> list[str]:
    """The options of a config file as arguments of the command. options: those that the command has, with a value.

    Raises FileNotFoundError for no such file, ValueError for one that is not TOML or is of another command, for an
    unknown option, with the name that comes closest, for one that is there twice (with - and with _), and for a text
    where true or false is meant.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--config: there is no file {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    if (own_command := values.pop("command", command)) != command:
        raise ValueError(f"{path} is for {own_command}: use `favor-lab {own_command} --config {path}`")
    names = {name.replace("_", "-") for name in options}
    arguments: list[str] = []
    for key, value in values.items():
        name = key.replace("_", "-")
        if name not in names:
            closest = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.0)[0]
            raise ValueError(f"{path}: favor-lab {command} has no option {key!r}; the closest is {closest!r}")
        if key.replace("-", "_") in values and "-" in key:
            raise ValueError(f"{path} has {key} twice, with - and with _")
        if isinstance(options[name.replace("-", "_")], bool) and not isinstance(value, bool):
            raise ValueError(f"{path}: {name} is {value!r}, but must be true or false")
        arguments += option_arguments(name, value)
    return arguments


def option_arguments(name: str, value: Any) -> list[str]:
    """
    >>> option_arguments("shots", 4), option_arguments("open-vocabulary", False)
    (['--shots=4'], ['--no-open-vocabulary'])
    >>> option_arguments("reward-weights", [1.0, 0.5]), option_arguments("coefficients", {"gamma": 0.02})
    (['--reward-weights', '1.0', '0.5'], ['--coefficients', 'gamma', '0.02'])
    """
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list | Mapping):
        items = [part for pair in value.items() for part in pair] if isinstance(value, Mapping) else value
        return [f"--{name}", *map(str, items)] if items else []
    return [f"--{name}={value}"]
