"""Plants faults in the four steps and the shared prefix, one at a time, and counts those that the tests notice.

    python tests/promises/mutants.py                                     # every mutant of all modules
    python tests/promises/mutants.py --module losses --sample 40         # a sample, for a quick look
    python tests/promises/mutants.py --module losses --only "ratio_max"  # the mutants whose change has this text

A mutant is a module with one small fault: another operator, number or name, or without an argument, a call or a
statement. Each runs against its module's doctests and test file in a process and a copy of the tree of its own; one
that no test notices survives, one that takes too long is killed. Results are kept until the module or its tests change,
so that an interrupted run resumes.

Why not an existing tool: mutmut 3 skips decorated functions and defaults of a module or a class, hence
`sample_groups`, which is decorated with `torch.no_grad`, and the fields of `Rollout`; cosmic-ray starts a Python for
each mutant, and importing torch and transformers takes several times as long as the tests. Here each mutant is a fork.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
MODULES = {  # the modules, and the test files that, besides the doctests, must notice
    "sampling": ("favor_lab/grpo/sampling.py", ["tests/grpo/test_sampling.py", "tests/grpo/test_steps.py"]),
    "rollout": ("favor_lab/grpo/support/rollout.py", ["tests/grpo/test_rollout.py", "tests/grpo/test_sampling.py"]),
    "rewards": ("favor_lab/grpo/rewards.py", ["tests/grpo/test_rewards.py", "tests/promises/test_attacks.py"]),
    "labels": ("favor_lab/activities/labels.py", ["tests/activities/test_labels.py", "tests/promises/test_attacks.py"]),
    "advantages": ("favor_lab/grpo/advantages.py", ["tests/grpo/test_advantages.py"]),
    "losses": ("favor_lab/grpo/losses.py", ["tests/grpo/test_losses.py"]),
    "prefix": ("favor_lab/vlm/prefix.py", ["tests/vlm/test_vlm_prefix.py"]),
}
LEAST = 95.0  # per cent of a module's mutants that must be killed

OPERATORS = {  # as it is written, and its replacement
    ast.Lt: ("<", "<=", ">="), ast.LtE: ("<=", "<", ">"), ast.Gt: (">", ">=", "<="), ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.And: ("and", "or"), ast.Or: ("or", "and"),
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
    ast.Not: ("not", ""), ast.Invert: ("~", ""), ast.USub: ("-", ""),
}  # fmt: skip
PAIRS = [("min", "max"), ("amin", "amax"), ("any", "all"), ("zeros", "ones"), ("zeros_like", "ones_like")]
OTHER = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
REGEX_PARTS = re.compile(r"\\s\*|\\Z|\+\?|(?<=[^+*])\?|(?<!\\)\+")  # of a pattern: each is left out once

# Survivors that no test can kill, as `Mutant.change` shows them, and why.
OTHER_STYLE = "every style but answer-first is read alike"
DEFAULT = "what is left out is the default"
ON_CPU = "shows on a GPU only"
TWO_D = "the tensor has two dimensions: the last is dimension 1"
SAME_LENGTH = "both are made to the same length just before"
INDEX = "a list takes a tensor of one whole number as an index"
OFF = "from 1 on, every value of top_p is off"
EMPTY = "an empty rollout is refused a line later, as one without prompts"
POSITIONS = "transformers takes (N, T) and (4, N, T) as well, where text has one position in all three"
COUNTED = "the tags were counted: there is one of each, and so one way to match"
EQUIVALENT: dict[str, dict[str, str]] = {
    "sampling": {
        "top_p: float = [-1.0-]{+2.0+},": OFF,
        "if len(going) [-<-]{+<=+} len(active):": "to keep every row changes nothing",
        "dtype = torch.float32 if logps.device.type == [-\"mps\"-]{+'XXmps'+} else torch.float64": ON_CPU,
        "mass = logps.exp().cumsum(dim=[---]1, dtype=dtype)": TWO_D,
        "def truncate(logps: Tensor, top_k: int = 0, top_p: float = [-1.0-]{+2.0+}) -> Tensor:": OFF,
        "ordered, order = logps.sort([-dim=-1, -]descending=True)": DEFAULT,
        "return logps.masked_fill(torch.[-zeros_like-]{+ones_like+}(out).scatter(-1, order, out), -torch.inf)"
        ".log_softmax(dim=-1)": "the scatter writes every place",
        "for rows in torch.arange(len(rollout)).split(rows_per_pass or max(len(rollout), [-1-]{+0+})):": EMPTY,
        "for rows in torch.arange(len(rollout)).split(rows_per_pass or max(len(rollout), [-1-]{+2+})):": (
            "a pass may be longer than the rollout"
        ),
        "logps, entropies = (torch.cat(column) for column in zip(*parts[-, strict=True-]))": SAME_LENGTH,
        "ids, mask, prompts = rollout.completion_ids, rollout.mask, prompts[used[-.tolist()-]]": (
            "a batch of prompts takes a tensor of rows too"
        ),
        "for text, row in zip(texts, rows[-, strict=True-]):": SAME_LENGTH,
        "active, hidden, length = everyone, decoder.hidden, [-0-]{+1+}": "without a token there is nothing to cut",
        "return policy.tokenizer.batch_decode(rows[-, skip_special_tokens=False-])": DEFAULT,
    },
    "rollout": {
        "return ~torch.isin(last, upload(self.end_token_ids, last.device[-, last.dtype-]))": (
            "isin compares whole numbers of any type"
        ),
        "numbers, index = index[-.tolist()-], upload(index, self.mask.device)": INDEX,
        "return [list(compress(row, keep)) for row, keep in zip(ids.tolist(), mask[-.tolist()-], strict=True)]": (
            "tensors have truth values too; a GPU would be waited for once per token"
        ),
        "return torch.stack([w * values for w, values in zip(weights, rewards.values()[-, strict=True-])])"
        ".sum(dim=0)": "the lengths were compared just before",
    },
    "rewards": {
        """def extract_answer(text: str, style: str = [-"think"-]{+'XXthink'+}) -> str | None:""": OTHER_STYLE,
        """completions: Sequence[Completion], label: Sequence[str] | str, style: str = [-"think"-]{+'XXthink'+}, **columns: Any""": OTHER_STYLE,  # noqa: E501
        """def is_right(text: str, label: str, style: str = [-"think"-]{+'XXthink'+}) -> bool:""": OTHER_STYLE,
        '"think": re.compile(r"\\s*<think>(.[-+?-]{+++})</think>\\s*<answer>(.+?)</answer>\\s*", re.DOTALL),': COUNTED,
        '"think": re.compile(r"\\s*<think>(.+?)</think>\\s*<answer>(.[-+?-]{+++})</answer>\\s*", re.DOTALL),': COUNTED,
        '"answer": re.compile(r"\\s*<answer>(.[-+?-]{+++})</answer>\\s*", re.DOTALL),': COUNTED,
        '"answer-first": re.compile(r"\\s*<answer>(.[-+?-]{+++})</answer>\\s*<think>(.+?)</think>\\s*", re.DOTALL),': COUNTED,  # noqa: E501
        '"answer-first": re.compile(r"\\s*<answer>(.+?)</answer>\\s*<think>(.[-+?-]{+++})</think>\\s*", re.DOTALL),': COUNTED,  # noqa: E501
        "return [float(is_right(text, gold, style)) for text, gold in zip(texts, labels[-, strict=True-])]": SAME_LENGTH,  # noqa: E501
    },
    "labels": {
        'JOINING = re.compile(r"(?<=[^\\s-])-++(?=\\S)|(?<!\\S)-++(?![.,]?\\d)|(?<![\\w-])-[-+-]+(?!\\S)")': (
            "the signs that follow would be hyphens, of which the first is not the last"
        ),
        "for _ in range([-2-]{+3+}):": "a third time changes nothing",
    },
    "advantages": {
        "group = groups[-.cpu()-].unique(return_inverse=True)[1]": ON_CPU,
        "return advantages.masked_fill(is_flat(rewards)[:, None], 0.0).nan_to_num([-nan=0.0-])": DEFAULT,
        "deviation = (rewards - rewards.nanmean(dim=1, keepdim=True)).nan_to_num([-nan=0.0-])": DEFAULT,
    },
    "losses": {
        "values = [value[-.detach()-] for value in scalars.values()]": "tolist takes numbers with a gradient too",
        "return dict(zip(scalars, torch.stack([value[-.to(values[0].device)-] for value in values]).tolist(), "
        "strict=True))": ON_CPU,
        "return dict(zip(scalars, torch.stack([value.to(values[[-0-]{+1+}].device) for value in values]).tolist(), "
        "strict=True))": ON_CPU,
        "return dict(zip(scalars, torch.stack([value.to(values[0].device) for value in values]).tolist()"
        "[-, strict=True-]))": SAME_LENGTH,
        "values = per_token[-.expand(mask.shape)-].masked_fill(~mask, 0.0)": "masked_fill broadcasts by itself",
        'name: aggregate(value[-.detach()-] * 1.0, mask, "dapo", total_tokens=total_tokens) for name, value in '
        "values.items()": ("the number is the same; without it a graph is built and dropped"),
        'name: aggregate(value.detach() [-*-]{+/+} 1.0, mask, "dapo", total_tokens=total_tokens) for name, value in '
        "values.items()": ("either makes a float of a truth value"),
    },
    "prefix": {
        "return torch.log_softmax(logits if temperature == [-1-]{+0+} else logits / temperature, dim=-1)": "a division by 1",  # noqa: E501
        "cache = DynamicCache([-config=language_model.config-])": (
            "Qwen2-VL has no sliding windows, of which a cache would have to know"
        ),
        "entropy = -(logps.exp() * logps.masked_fill(policy.forbidden, [-0.0-]{+1.0+})).sum(1)": (
            "it is multiplied by a probability of 0"
        ),
        "logps, entropy = (torch.cat(column).view(ids.shape) for column in zip(*parts[-, strict=True-]))": SAME_LENGTH,
        "attention_mask = torch.cat([prefix.attention_mask, mask[-.to(prefix.attention_mask)-]], dim=1)": (
            "cat brings truth values to the numbers' type"
        ),
        "position_ids=(prefix.next_position[:, None] + steps)[-.expand(3, -1, -1)-],": POSITIONS,
        "position_ids=(prefix.next_position[:, None] + steps).expand([-3-]{+4+}, -1, -1),": POSITIONS,
    },
}


@dataclass(frozen=True)
class Mutant:
    """A module's source with bytes `start` to `end` replaced by `new`."""

    module: str
    source: bytes
    start: int
    end: int
    new: str

    @cached_property
    def mutated(self) -> bytes:
        return self.source[: self.start] + self.new.encode() + self.source[self.end :]

    @property
    def line(self) -> int:
        return self.source.count(b"\n", 0, self.start) + 1

    @cached_property
    def change(self) -> str:
        """The change in its line: removed text as [-...-], new text as {+...+}."""
        first = self.source.rfind(b"\n", 0, self.start) + 1
        last = self.source.find(b"\n", self.end)
        old = self.source[self.start : self.end].decode()
        parts = [f"[-{old}-]"] * bool(old) + [f"{{+{self.new}+}}"] * bool(self.new)
        text = self.source[first : self.start].decode() + "".join(parts) + self.source[self.end : last].decode()
        return " ".join(text.split("  #")[0].split())

    @cached_property
    def digest(self) -> str:
        """Names the mutant and the tests that judge it."""
        path, tests = MODULES[self.module]
        texts = [(ROOT / name).read_bytes() for name in (*tests, "tests/conftest.py", "tests/promises/attacks.py")]
        return hashlib.sha1(b"\0".join([path.encode(), self.mutated, *texts])).hexdigest()


def mutants_of(module: str, source: bytes) -> list[Mutant]:
    """Every mutant of a module that compiles to something else, in the order of its lines."""
    tree = ast.parse(source)
    faults = Edits(source, tree)
    edits = sorted({edit for node in live(tree) for edit in faults.of(node)})
    mutants, trees = [], {ast.dump(tree)}
    for edit in edits:
        mutant = Mutant(module, source, *edit)
        try:
            meaning = ast.dump(ast.parse(mutant.mutated))
        except SyntaxError:
            continue
        if meaning not in trees:
            trees.add(meaning)
            mutants.append(mutant)
    return mutants


def live(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one that matter at run time: no docstring, annotation, import, overload or error text."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not dead(node, field, child):
                yield child
                yield from live(child)


def dead(parent: ast.AST, field: str, node: ast.AST) -> bool:
    return (
        field in ("annotation", "returns")
        or isinstance(parent, ast.Raise)
        or (isinstance(parent, ast.keyword) and getattr(node, "value", None) is True)  # leaving it out changes nothing
        or isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.FunctionDef) and "overload" in map(ast.unparse, node.decorator_list))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
    )


class Edits:
    """The small faults that a node allows, each as (start, end, new) in bytes."""

    def __init__(self, source: bytes, tree: ast.Module) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
        self.modules = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
        self.rebound = set(map(id, rebinding(tree)))

    def start(self, node: Any) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: Any) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def of(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        for kind in type(node).__mro__:
            yield from getattr(self, f"of_{kind.__name__}", lambda _: ())(node)

    def operator(self, left: Any, op: ast.AST, right: Any) -> Iterator[tuple[int, int, str]]:
        symbol, *others = OPERATORS.get(type(op), ("",))
        at = self.source.find(symbol.encode(), self.end(left), self.start(right))
        for other in others:
            yield at, at + len(symbol), other

    def of_BinOp(self, node: ast.BinOp) -> Iterator[tuple[int, int, str]]:
        yield from self.operator(node.left, node.op, node.right)

    def of_Compare(self, node: ast.Compare) -> Iterator[tuple[int, int, str]]:
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            yield from self.operator(left, op, right)

    def of_BoolOp(self, node: ast.BoolOp) -> Iterator[tuple[int, int, str]]:
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self.operator(left, node.op, right)
            yield self.end(left), self.end(right), ""

    def of_UnaryOp(self, node: ast.UnaryOp) -> Iterator[tuple[int, int, str]]:
        yield self.start(node), self.start(node) + len(OPERATORS[type(node.op)][0]), ""

    def of_Constant(self, node: ast.Constant) -> Iterator[tuple[int, int, str]]:
        value, others = node.value, []
        if isinstance(value, bool):
            others = [repr(not value)]
        elif isinstance(value, int | float):
            others = [repr(value + 1)] + ["0"] * (value == 1)
        elif isinstance(value, str):
            others = [repr("XX" + value)]
        yield from ((self.start(node), self.end(node), other) for other in others)

    def of_Call(self, node: ast.Call) -> Iterator[tuple[int, int, str]]:
        arguments = sorted([*node.args, *node.keywords], key=self.start)
        for i, item in enumerate(arguments):  # an argument less: any keyword, the last of several positional ones
            if isinstance(item, ast.keyword) or (len(node.args) > 1 and item is node.args[-1]):
                after = self.start(arguments[i + 1]) if i == 0 and len(arguments) > 1 else self.end(item)
                yield self.end(arguments[i - 1]) if i else self.start(item), after, ""
            if isinstance(item, ast.keyword) and item.arg in OTHER:
                yield self.start(item), self.start(item) + len(item.arg), OTHER[item.arg]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in OTHER:
            yield self.end(node.func) - len(name), self.end(node.func), OTHER[name]
        if isinstance(node.func, ast.Attribute):
            if getattr(node.func.value, "id", "") not in self.modules:  # a method less
                yield self.source.index(b".", self.end(node.func.value)), self.end(node), ""
            elif ast.unparse(node.func.value) == "re" and isinstance(node.args[0], ast.Constant):
                for part in REGEX_PARTS.finditer(self.text(node.args[0])):
                    at = self.start(node.args[0]) + part.start()
                    yield at, at + len(part[0]), "+" if part[0] == "+?" else ""

    def of_Slice(self, node: ast.Slice) -> Iterator[tuple[int, int, str]]:
        for bound in filter(None, (node.lower, node.upper, node.step)):
            yield self.start(bound), self.end(bound), ""
            if not isinstance(bound, ast.Constant | ast.UnaryOp):
                yield self.end(bound), self.end(bound), " - 1"

    def negated(self, test: ast.expr) -> Iterator[tuple[int, int, str]]:
        if not isinstance(test, ast.Compare | ast.UnaryOp):  # theirs are among the operators
            yield self.start(test), self.end(test), f"not ({self.text(test)})"

    def of_IfExp(self, node: ast.IfExp) -> Iterator[tuple[int, int, str]]:
        yield from self.negated(node.test)

    def of_comprehension(self, node: ast.comprehension) -> Iterator[tuple[int, int, str]]:
        for test in node.ifs:
            yield from self.negated(test)

    def of_Return(self, node: ast.Return) -> Iterator[tuple[int, int, str]]:
        if node.value is not None:
            yield self.start(node.value), self.end(node.value), "None"

    def of_If(self, node: ast.If) -> Iterator[tuple[int, int, str]]:
        yield from self.negated(node.test)

    def of_stmt(self, node: ast.stmt) -> Iterator[tuple[int, int, str]]:
        called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        dropped = ast.Raise | ast.If | ast.For | ast.Break | ast.AugAssign
        if called or isinstance(node, dropped) or id(node) in self.rebound:
            yield self.start(node), self.end(node), "pass"

    def of_FunctionDef(self, node: ast.FunctionDef) -> Iterator[tuple[int, int, str]]:
        for decorator in node.decorator_list:
            yield self.start(decorator) - 1, self.end(decorator), ""


def rebinding(tree: ast.AST) -> Iterator[ast.Assign]:
    """The assignments in functions without which every name still has a value; any test notices a missing name."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        bound = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
        nodes = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
        for node in sorted(nodes, key=lambda node: node.lineno):
            names = {
                name.id
                for target in node.targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            }
            if names <= bound:
                yield node
            bound |= names


class Killer:
    """A pytest plugin that records the first test that fails, or what could not be imported."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.path.write_text(report.nodeid.split("/")[-1])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.path.write_text("import")


def pytest_options(tree: Path) -> list[str]:
    options = ["-x", "-q", "--doctest-modules", f"--rootdir={tree}", f"--basetemp={tree / 'tmp'}"]
    for plugin in ("cacheprovider", "faulthandler", "unraisableexception", "threadexception"):  # these two are slow
        options += ["-p", f"no:{plugin}"]
    return [*options, "--override-ini", "addopts="]


def rehearse(tree: Path, modules: list[str]) -> float:
    """Run the tests without a mutant, in this process: every fork then inherits what they import and build from
    elsewhere; the package and the tests are unloaded again. RuntimeError unless they pass; the longest time of a
    module."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.dont_write_bytecode = True  # two mutants may have the same size and second
    import pytest

    longest, path, folder = 0.0, list(sys.path), os.getcwd()
    os.chdir(tree)
    for module in modules:
        sys.path[:] = [str(tree), *path[1:]]
        output, began = io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(output):
            status = pytest.main([*pytest_options(tree), MODULES[module][0], *MODULES[module][1]])
        if status:
            raise RuntimeError(f"the tests of {module} fail without a mutant:\n{output.getvalue()}")
        longest = max(longest, time.monotonic() - began)
        for name, loaded in list(sys.modules.items()):
            if str(getattr(loaded, "__file__", None)).startswith(str(tree)):
                del sys.modules[name]
    os.chdir(folder)
    sys.path[:] = path
    gc.collect()
    gc.freeze()  # the children's garbage collections then leave it alone
    return longest


def copy_tree(folder: Path) -> Path:
    """A copy of the package and its tests, with the data linked."""
    for name in ("favor_lab", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "data").symlink_to(ROOT / "data")
    return folder


def start(tree: Path, mutant: Mutant) -> int:
    """Fork a child that runs the module's doctests and tests on a mutant; its status is 0 where they all pass."""
    (tree / MODULES[mutant.module][0]).write_bytes(mutant.mutated)
    (tree / "killer").unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        os.chdir(tree)
        sys.path[0] = str(tree)
        import pytest

        path, tests = MODULES[mutant.module]
        status = int(pytest.main([*pytest_options(tree), path, *tests], plugins=[Killer(tree / "killer")]))
    finally:
        os._exit(status)


def trials(mutants: list[Mutant], trees: list[Path], limit: float) -> Iterator[tuple[Mutant, str | None]]:
    """Each mutant, as it ends, with what killed it, or None; as many at a time as there are trees."""
    waiting, free, running = list(reversed(mutants)), list(trees), {}
    try:
        while waiting or running:
            while waiting and free:
                mutant, tree = waiting.pop(), free.pop()
                running[start(tree, mutant)] = mutant, tree, time.monotonic() + limit
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                mutant, tree, _ = running.pop(child)
                (tree / MODULES[mutant.module][0]).write_bytes(mutant.source)
                free.append(tree)
                note = tree / "killer"
                died = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "status"  # 9: it took too long
                yield mutant, None if status == 0 else note.read_text() if note.exists() else died
                continue
            for late in [child for child, (*_, until) in running.items() if time.monotonic() > until]:
                os.kill(late, signal.SIGKILL)
            time.sleep(0.01)
    finally:
        for child in running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def run(mutants: list[Mutant], workers: int, results: Path) -> dict[str, str | None]:
    """What killed each mutant, by digest; those in `results` are not run again."""
    killers: dict[str, str | None] = {}
    if results.exists():
        rows = map(json.loads, results.read_text().splitlines())
        killers = {row["digest"]: row["killer"] for row in rows}
    todo = [mutant for mutant in mutants if mutant.digest not in killers]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [copy_tree(Path(folder, str(k))) for k in range(min(workers, len(todo)))]
        limit = 20 + 10 * rehearse(trees[0], list(dict.fromkeys(m.module for m in todo))) if todo else 0.0
        results.parent.mkdir(parents=True, exist_ok=True)
        for mutant, killer in tqdm(trials(todo, trees, limit), total=len(todo), unit="mutant", disable=not todo):
            row = {"digest": mutant.digest, "module": mutant.module, "change": mutant.change, "killer": killer}
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            killers[row["digest"]] = killer
    return {mutant.digest: killers[mutant.digest] for mutant in mutants}


def report(mutants: list[Mutant], killers: dict[str, str | None]) -> tuple[str, bool]:
    """The table of modules and the list of survivors, and whether each module has enough killed."""
    lines = ["| module | mutants | killed | survived | of these equivalent | killed, % | equivalent left out, % |"]
    lines.append("| --- " * 7 + "|")
    listed, enough = [], True
    for module in dict.fromkeys(mutant.module for mutant in mutants):
        own = [mutant for mutant in mutants if mutant.module == module]
        alive = [mutant for mutant in own if killers[mutant.digest] is None]
        reasons = [EQUIVALENT.get(module, {}).get(mutant.change) for mutant in alive]
        same, killed = sum(reason is not None for reason in reasons), len(own) - len(alive)
        share = 100 * killed / len(own)
        enough &= share >= LEAST
        rest = 100 * killed / (len(own) - same) if len(own) > same else 100.0
        lines.append(f"| {module} | {len(own)} | {killed} | {len(alive)} | {same} | {share:.1f} | {rest:.1f} |")
        for mutant, reason in zip(alive, reasons, strict=True):
            where = f"{Path(MODULES[module][0]).name}:{mutant.line}"
            listed.append(f"* {where} `{mutant.change}`: {reason or 'NO REASON: a test is missing'}")
    return "\n".join([*lines, "", *(listed or ["No mutant survived."])]) + "\n", enough


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", choices=MODULES, action="append", help="may be given again; default: all")
    parser.add_argument("--only", metavar="TEXT", help="the mutants whose change has this text")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "mutants.jsonl", help="what was run before")
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    parser.add_argument("--write", action="store_true", help="write data/results/mutants.md, from all mutants")
    options = parser.parse_args(arguments)
    part = options.module or options.only or options.sample
    if options.write and part:
        parser.error("--write needs every mutant: leave out --module, --only and --sample")
    mutants = [
        m for name in options.module or MODULES for m in mutants_of(name, (ROOT / MODULES[name][0]).read_bytes())
    ]
    mutants = [mutant for mutant in mutants if options.only is None or options.only in mutant.change]
    if options.sample is not None:
        chosen = set(random.Random(options.seed).sample(range(len(mutants)), min(options.sample, len(mutants))))
        mutants = [mutant for k, mutant in enumerate(mutants) if k in chosen]
    if options.list:
        print("\n".join(f"{MODULES[mutant.module][0]}:{mutant.line} {mutant.change}" for mutant in mutants))
        return 0
    if not mutants:
        parser.error("no mutant is left")
    text, enough = report(mutants, run(mutants, options.workers, options.results))
    print(text, end="")
    if options.write:
        intro = "Made by `python tests/promises/mutants.py --write`: single faults, and those that no test noticed."
        (ROOT / "data" / "results" / "mutants.md").write_text(f"# Mutants\n\n{intro}\n\n{text}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
