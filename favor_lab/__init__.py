"""favor_lab: few-shot activity recognition by reinforcement learning of a vision-language model, step by step.

Four wings: :mod:`favor_lab.activities` (what is seen), :mod:`favor_lab.vlm` (who looks), :mod:`favor_lab.grpo` (what
is learned) and :mod:`favor_lab.study` (what came of it). The public names are listed in `__init__.pyi`, with their
modules. A name is imported when it is first used, so `import favor_lab` is fast and loads nothing that is not needed.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from favor_lab.moved import accept_old_paths

__version__ = "0.1.0"


def _modules_of_public_names() -> dict[str, str]:
    """Public name -> the module that defines it, as the imports in the stub file `__init__.pyi` say."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [statement for statement in stub.body if isinstance(statement, ast.ImportFrom)]
    return {alias.name: str(statement.module) for statement in imports for alias in statement.names}


_MODULES = _modules_of_public_names()
__all__ = sorted(_MODULES)
accept_old_paths()


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'favor_lab' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
