"""The study's table: methods x sets x shots x seeds. A cell is one place in it; a result is a finished cell on disk."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from favor_lab.activities import few_shot, load_activities
from favor_lab.activities.fewshot import check_counts
from favor_lab.activities.images import fingerprint
from favor_lab.activities.world import SETS
from favor_lab.files import jsonable, write_whole
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.runs.tasks import BASE_TO_NEW, TASKS
from favor_lab.runs.variants import VARIANTS, find_variant
from favor_lab.study.evaluation import Evaluation

if TYPE_CHECKING:
    from favor_lab.activities import ActivityData

#: method -> style of its prompt; the first two do not train, and class-mean learns no weights: see `class_means`
METHODS = {
    "zero-shot": "think", "zero-shot-answer": "answer", "class-mean": "answer",
    "sft": "answer", "sft-reasoning": "think", "grpo": "think", "grpo-answer": "answer",
    "sft-then-grpo": "think", "grpo-then-sft": "think",
}  # fmt: skip
GRPO = ("grpo", "grpo-answer")  # the methods that have variants
#: two trainings in a row: see `experiments.two_stages`
STAGES = {"sft-then-grpo": ("sft-reasoning", "grpo"), "grpo-then-sft": ("grpo", "sft-reasoning")}
FIRST_STUDY = ("zero-shot", "zero-shot-answer", "sft", "sft-reasoning", *GRPO)  # what data/results/study compares
#: chosen on validation images of one set, with the same trials for each method: data/results/tune_methods.md
LEARNING_RATES = {"sft": 0.001, "sft-reasoning": 0.004, "grpo": 0.002, "grpo-answer": 0.001}
TEST = 20  # images per label
SHOTS = (1, 2, 4, 8, 16)  # the five settings


@dataclass(frozen=True)
class TrainingPreset:
    """How every method trains, for a kind of policy: the methods differ in their learning rate alone."""

    about: str
    settings: GRPOSettings
    rates: Mapping[str, float]  #: by method
    policy: Mapping[str, Any] = field(default_factory=dict)  #: arguments of `load_policy`

    def by_method(self, **changes: Any) -> dict[str, GRPOSettings]:
        """The settings of each method, with some changed; zero-shot asks and answers as the others do."""
        settings = replace(self.settings, **changes)
        rates = {method: self.rates.get(method, settings.learning_rate) for method in METHODS}
        return {method: replace(settings, learning_rate=rate) for method, rate in rates.items()}


# Visual-RFT, arXiv 2503.01785; the last two bound memory and change no result
VISUAL_RFT_SETTINGS = GRPOSettings(
    steps=200, prompts_per_step=16, group_size=8, max_new_tokens=256, micro_batch=8, gradient_checkpointing=True
)
PRESETS = {
    "pocket": TrainingPreset(
        "100 steps of 4 prompts, an adapter; for the pocket policy", GRPOSettings(), LEARNING_RATES
    ),
    "lora": TrainingPreset(
        "Visual-RFT's 200 steps of 16 prompts, an adapter, 10 times its learning rate (own choice, not tuned)",
        VISUAL_RFT_SETTINGS, {"sft": 1e-4, "sft-reasoning": 1e-4, **dict.fromkeys((*GRPO, *STAGES), 1e-5)},
    ),
    "visual-rft": TrainingPreset(
        "Visual-RFT's 200 steps of 16 prompts, all weights of the language model in float32 (SFT's rate: own choice)",
        VISUAL_RFT_SETTINGS, {"sft": 1e-5, "sft-reasoning": 1e-5, **dict.fromkeys((*GRPO, *STAGES), 1e-6)},
        {"lora_rank": 0, "dtype": "float32"},
    ),
}  # fmt: skip


def chosen_settings(steps: int | None = None) -> dict[str, GRPOSettings]:
    """The settings of each method that trains on the pocket policy: the defaults, with its own learning rate."""
    settings = PRESETS["pocket"].by_method(**({} if steps is None else {"steps": steps}))
    return {method: settings[method] for method in LEARNING_RATES}


@dataclass(frozen=True)
class Setup:
    """What the cells of a table share: the policy, where the images are, and how many of them test."""

    sets: tuple[str, ...] = SETS  #: each policy is tested on those of them that have its labels
    test: int = TEST  #: images per label
    policy: Mapping[str, Any] = field(default_factory=lambda: {"name": "pocket"})  #: arguments of `load_policy`
    images: Mapping[str, Any] = field(default_factory=dict)  #: of `load_activities`: root, person_crop, exclude
    transfer: bool = False  #: whether a variant, too, is tested on the other drawn sets
    _loaded: dict[str, ActivityData] = field(default_factory=dict, init=False, repr=False, compare=False)
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.test < 1:
            raise ValueError(f"test is {self.test}, but must be at least 1: a study compares answers to test images")

    def load(self, name: str) -> ActivityData:
        """A set, its files listed once; of several public ones each is in the folder of its name under the root."""
        if name not in self._loaded:
            root = self.images.get("root")
            root = root if root is None or len(self.sets) < 2 else Path(root) / name
            self._loaded[name] = load_activities(name, **{**self.images, "root": root})
        return self._loaded[name]

    def tested(self, cell: Cell) -> list[str]:
        """The sets that a cell is tested on: its own first, then the other drawn ones; a task on its own alone, and a
        variant unless `transfer` is set."""
        others = [name for name in self.sets if name != cell.dataset and {name, cell.dataset} <= set(SETS)]
        return [cell.dataset, *([] if cell.task or (cell.variant and not self.transfer) else others)]

    def facts(self) -> dict[str, Any]:
        """What two cells must share to stand in one table; no paths and no device."""
        facts = {**self.policy, "policy": self.policy.get("name", "pocket"), "test": self.test}
        facts["person_crop"] = self.images.get("person_crop")
        for key in ("policy", "adapter"):  # a folder counts by its name and its content, wherever it is
            if facts.get(key) and (folder := Path(facts[key])).is_dir():
                facts |= {key: folder.name, f"{key} weights": self._once(f"weights {folder}", weights_digest, folder)}
        return jsonable({key: value for key, value in facts.items() if key not in ("name", "device")})

    def test_images(self, name: str) -> str:
        """A digest of the test images of a set and their labels, wherever they are; "" for a drawn set."""
        return "" if name in SETS else self._once(f"images {name}", images_digest, self.load(name), self.test)

    def _once(self, what: str, digest: Callable[..., str], *arguments: Any) -> str:
        if what not in self._digests:
            self._digests[what] = digest(*arguments)
        return self._digests[what]

    def check(self, cells: Iterable[Cell]) -> None:
        """ValueError for cells that need more images than their set has, before any of them is run."""
        most: dict[str, int] = {}
        for cell in cells:
            most[cell.dataset] = max(most.get(cell.dataset, 1), cell.shots)
        for name, shots in most.items():
            check_counts(self.load(name), {"test": self.test, "validation": 0, "train": shots})


def weights_digest(folder: Path) -> str:
    """Of the weights of a checkpoint or an adapter, and of what says how they are used."""
    sha256 = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")]):
        with path.open("rb") as file:
            sha256.update(hashlib.file_digest(file, "sha256").digest())
    return sha256.hexdigest()[:16]


def images_digest(data: ActivityData, test: int) -> str:
    """Of the test images that every cell of a set has."""
    sha256 = hashlib.sha256()
    for example in few_shot(data, 1, seed=0, validation=0, test=test).test:
        sha256.update(f"{example.label}\n".encode(errors="surrogateescape") + fingerprint(example.image))
    return sha256.hexdigest()[:16]


@dataclass(frozen=True, order=True)
class Cell:
    """One place in the study's table.

    >>> Cell("grpo", "cartoon", shots=4, seed=0).name, Cell("zero-shot", "cartoon").name
    ('grpo-cartoon-4-0', 'zero-shot-cartoon-0-0')
    """

    method: str
    dataset: str  #: the set that it learns from
    shots: int = 0  #: training images per label
    seed: int = 0  #: of the choice of the images, the adapter's start, the order, the sampling
    variant: str = ""  #: a change of GRPO (see `find_variant`)
    task: str = ""  #: what is learnt and tested, one of `TASKS`; "": all labels of the set

    def __post_init__(self) -> None:
        if self.variant in TASKS:  # as cells were written before they had a task
            object.__setattr__(self, "task", self.variant)
            object.__setattr__(self, "variant", "")
        if self.task not in ("", *TASKS):
            raise ValueError(f"unknown task {self.task!r}; the tasks are {', '.join(TASKS)}")
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; the methods are {', '.join(METHODS)}")
        if self.variant:
            find_variant(self.variant)
            if self.method not in GRPO:
                raise ValueError(f"{self.variant} is a variant of grpo and grpo-answer, not of {self.method}")
        if self.trains != (self.shots > 0):
            raise ValueError(f"{self.method} with {self.shots} shots: what trains needs shots, what does not has none")

    @property
    def trains(self) -> bool:
        return not self.method.startswith("zero-shot")

    @property
    def style(self) -> str:
        return METHODS[self.method]

    @property
    def name(self) -> str:
        place = f"{self.method}-{self.dataset}-{self.shots}-{self.seed}"
        return "+".join(part for part in (place, self.variant, self.task) if part)

    @classmethod
    def from_name(cls, name: str) -> Cell:
        """
        >>> cell = Cell.from_name("grpo-sketch-4-0+visurf+papo+base-to-new")
        >>> cell.dataset, cell.variant, cell.task
        ('sketch', 'visurf+papo', 'base-to-new')
        """
        place, *changes = name.split("+")
        task = changes.pop() if changes and changes[-1] in TASKS else ""
        method, dataset, shots, seed = place.rsplit("-", 3)
        return cls(method, dataset, int(shots), int(seed), "+".join(changes), task)


@dataclass(frozen=True)
class Result:
    """A finished cell: what it answered on each set, and how its training went."""

    cell: Cell
    tests: dict[str, Evaluation]  #: by set
    records: list[dict[str, Any]]  #: a few numbers of each step
    settings: dict[str, Any]
    seconds: float  #: of training
    versions: dict[str, str]
    setup: dict[str, Any] = field(default_factory=dict)  #: the facts of its `Setup`
    probes: dict[str, Any] = field(default_factory=dict)  #: see `probe`; only for drawn sets, no variant and no task
    images: str = ""  #: digest of the test images of its set; "" for a drawn set

    @property
    def evaluation(self) -> Evaluation:
        """On the set that it learnt from."""
        return self.tests[self.cell.dataset]

    def save(self, folder: str | Path) -> Path:
        """Write `<name>.json.gz` atomically."""
        data = {**asdict(self), "tests": {name: test.to_dict() for name, test in self.tests.items()}}
        packed = gzip.compress(json.dumps(jsonable(data), ensure_ascii=False).encode(), mtime=0)
        return write_whole(Path(folder) / f"{self.cell.name}.json.gz", packed)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what `save` wrote. Raises ValueError, with the file's name, for anything else."""
        try:
            data = json.loads(gzip.decompress(Path(path).read_bytes()))
            tests = {name: Evaluation.from_dict(test) for name, test in data.pop("tests").items()}
            result = cls(**{**data, "cell": Cell(**data["cell"]), "tests": tests})
            if Path(path).name != f"{result.cell.name}.json.gz" or result.cell.dataset not in tests:
                raise ValueError(f"it holds {result.cell.name}, tested on {', '.join(tests) or 'nothing'}")
            for name, value in (("records", result.records), ("settings", result.settings), ("setup", result.setup)):
                if not isinstance(value, list if name == "records" else dict):
                    raise ValueError(f"its {name} are {value!r}")
            float(result.seconds)
            return result
        except (EOFError, zlib.error, gzip.BadGzipFile, AttributeError, KeyError, TypeError, ValueError) as error:
            message = f"{path} is not a finished cell of the study ({error}): delete it to run it again"
            raise ValueError(message) from error


def cell_files(folder: str | Path) -> dict[Cell, Path]:
    """The files of finished cells in a folder, in order of their names; other files are none of the study's. Raises
    FileNotFoundError if there is no such folder."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with the cells of a study (seen from {Path.cwd()})")
    files = {}
    for path in sorted(Path(folder).glob("*.json.gz")):
        with suppress(ValueError):
            cell = Cell.from_name(path.name.removesuffix(".json.gz"))
            if path.name == f"{cell.name}.json.gz":
                files[cell] = path
    return files


def load_results(folder: str | Path, **wanted: Any) -> list[Result]:
    """The finished cells in a folder in order of their names, those whose fields are as wanted (no variant and no task,
    unless one is): load_results("data/results/study", method="grpo", shots=4) reads the files of these cells alone.
    Raises FileNotFoundError if there is no such folder, ValueError for a damaged file."""
    wanted = {"variant": "", "task": ""} | wanted
    files = cell_files(folder).items()
    return [Result.load(path) for cell, path in files if all(getattr(cell, k) == value for k, value in wanted.items())]


def plan(
    methods: Sequence[str], sets: Sequence[str] = SETS, shots: Mapping[int, int] | None = None, variant: str = "",
    task: str = "",
) -> list[Cell]:  # fmt: skip
    """The cells of a study, first seeds first: shots maps images per label to a number of seeds. Of a variant, those of
    the methods that have it. Raises ValueError for cells that do not exist, and for none at all.

    >>> [cell.name for cell in plan(["zero-shot", "grpo"], ["sketch"], {4: 2})]
    ['zero-shot-sketch-0-0', 'grpo-sketch-4-0', 'grpo-sketch-4-1']
    >>> [cell.name for cell in plan(["zero-shot", "grpo"], ["sketch"], {4: 1}, "no-kl")]
    ['grpo-sketch-4-0+no-kl']
    """
    shots = {4: 3} if shots is None else shots
    if variant in TASKS:
        variant, task = "", variant
    for what, listed in (("methods", methods), ("sets", sets), ("numbers of shots", shots)):
        if not listed:
            raise ValueError(f"a study of no {what} has no cells: name one at least")
    if least := [seeds for seeds in shots.values() if seeds < 1]:
        raise ValueError(f"seeds is {least[0]}, but must be at least 1: a cell that trains needs one")
    if variant:
        named, methods = methods, [method for method in methods if method in GRPO]
        if not methods:
            raise ValueError(f"{variant} is a variant of grpo and grpo-answer, not of {', '.join(named)}")
    untrained = [method for method in methods if method.startswith("zero-shot")]
    cells = [Cell(method, name, variant=variant, task=task) for method in untrained for name in sets]
    for seed, count, name, method in itertools.product(range(max(shots.values())), shots, sets, methods):
        if seed < shots[count] and method not in untrained:
            cells.append(Cell(method, name, count, seed, variant, task))
    return cells


def whole_study(name: str) -> list[Cell]:
    """The cells of a whole study. quick: two sets, one seed, minutes on two cores. full: every method on every set with
    1 to 16 shots, five seeds at 4 shots and three elsewhere; base-to-new; every variant of grpo on one set, some of
    grpo-answer, one on all sets: a night.

    >>> len(whole_study("quick")), len(whole_study("full"))
    (8, 435)
    """
    if name == "quick":
        return plan(["zero-shot", "zero-shot-answer", "sft", "grpo"], SETS[:2], {4: 1})
    if name != "full":
        raise ValueError(f"unknown study {name!r}; the whole studies are quick, full")
    seeds = {count: 5 if count == 4 else 3 for count in (4, *SHOTS)}
    cells = plan(FIRST_STUDY, SETS, seeds) + plan(FIRST_STUDY, SETS, {4: 3}, task=BASE_TO_NEW)
    for variant in VARIANTS:
        cells += plan(["grpo"], SETS[:1], {4: 3}, variant)
    for variant in ("hot", "published", "published-hot"):  # asked for the answer alone, too: no format to hold it
        cells += plan(["grpo-answer"], SETS[:1], {4: 3}, variant)
    return cells + plan(["grpo"], SETS[1:], {4: 3}, "truth-2-kl")  # what kept the reasoning true on the one set
