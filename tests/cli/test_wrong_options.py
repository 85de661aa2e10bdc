"""Options that can only go wrong, contradict each other or would be ignored: one line that names them, status 2, before
a policy is loaded and before anything is written. Every option of every command is tried."""

import dataclasses

import pytest

from favor_lab.cli import main, parser
from favor_lab.cli.parser import COMMANDS, option_groups
from pictures import picture

#: what each command is given beside the option that is tried
BASE = {"study": ["--methods", "grpo", "--sets", "cartoon"], "share": ["nowhere", "--out", "shared"],
        "predict": ["photos"], "data": ["cartoon"]}  # fmt: skip
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e400", "", str(2**70), "\uff13", "\u22121", "1.5", "many"]
PLACES = ["", "file.txt/x", "/dev/null/x", "/proc/x/y", "a" * 300]
NAMES = ["", "nonsense", "\uff23\uff30\uff35", "\x1b[2J"]
ALLOWED = {  # values of the lists above that are right for an option
    "0": {"test", "lora_rank", "warmup_steps", "weight_decay", "max_grad_norm", "micro_batch", "seed", "beta", "clip",
          "eps", "log_rows", "samples", "threshold"},
    "-1": {"seed", "reward_weights"},
    "1.5": {"learning_rate", "weight_decay", "max_grad_norm", "temperature", "beta", "clip", "clip_high", "eps",
            "gpu_gb", "person_crop", "reward_weights"},
}  # fmt: skip
FREE = {"labels", "license", "base_model", "coefficients"}  # any text, as far as the options go


def tried(command: str) -> list[tuple[str, str]]:
    """The options of a command, each with every value that can only go wrong."""
    fields = {item.name: item for kind in option_groups(command).values() for item in dataclasses.fields(kind)}
    table = []
    for name, item in fields.items():
        kind = str(item.type)
        if "bool" in kind or "Positional" in kind:
            continue
        values = PLACES if "Path" in kind else NUMBERS if "int" in kind or "float" in kind else NAMES
        values = [""] if name in FREE or (command, name) == ("share", "push") else values
        allowed = [value for value in values if name in ALLOWED.get(value, ()) or (name, value) == ("recipe", "")]
        if command in ("study", "evaluate"):  # of images that must be there
            allowed = [value for value in allowed if name != "test"]
        table += [(name, value) for value in values if value not in allowed]
    return table


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with images and a file, in which nothing may be written, and no policy that may be loaded."""

    def load_policy(*arguments, **options):
        raise AssertionError("a policy was loaded")

    monkeypatch.setattr("favor_lab.vlm.loading.load_policy", load_policy)
    monkeypatch.setattr("favor_lab.vlm.hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("favor_lab.show.page.import_gradio", lambda: None)
    for row, label in enumerate(["reading", "phoning"]):
        for column in range(3):
            picture(tmp_path / "photos" / label / f"{column}.png", 10 * row + column)
    (tmp_path / "file.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    yield
    assert sorted(tmp_path.rglob("*")) == before


def refused(arguments, capsys) -> str:
    """What the command says, with status 2."""
    try:
        status = main(arguments)
    except SystemExit as end:  # of the parser
        status = end.code
    output = capsys.readouterr()
    assert status == 2, (arguments, output)
    lines = [line for line in output.err.splitlines() if line.startswith("favor-lab: error: ")]
    assert len(lines) == (0 if "For full helptext" in output.err else 1) and "\x1b[2J" not in output.err
    return output.err


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_with_values_that_can_only_go_wrong(command, capsys):
    table = tried(command)
    assert len(table) > 10 or command in ("doctor", "recipes")
    for name, value in table:
        if command == "share" and name == "out" and value:  # its run is looked for first
            continue
        base, option = list(BASE.get(command, [])), f"--{name.replace('_', '-')}"
        if option in base:
            del base[base.index(option) : base.index(option) + 2]
        message = refused([command, *base, f"{option}={value}"], capsys)
        asked_first = command in ("predict", "app") and name == "policy" and value  # which labels
        assert option in message or asked_first, (command, option, value, message)


COMBINATIONS = {
    "train --clip 0.3 --clip-high 0.2": "--clip-high",
    "train --warmup-steps 101": "--warmup-steps",
    "train --micro-batch 33": "--micro-batch",
    "sft --micro-batch 5": "--micro-batch",
    "train --prompts-per-step 1000000 --group-size 1000": "--group-size",
    "train --reward-weights 1": "--reward-weights",
    "train --reward-weights 1 nan": "--reward-weights",
    "train --reward-weights 0 0": "--reward-weights",
    "train --recipe visual-rft --reward-weights 1 1": "--reward-weights",
    "train --recipe dapo --clip-high 0.3": "--clip-high",
    "train --recipe papo+vppo": "--set",
    "train --recipe papo+amft": "both fill the slot loss",
    "train --recipe papo+nonsense": "--recipe",
    "train --set gamma=0.1": "plain GRPO has no coefficient 'gamma'; its coefficients are none",
    "train --recipe papo --set gama=0.1": "its coefficients are gamma, exact, probability, side",
    "train --recipe papo --set gamma": "--set",
    "train --recipe papo --set =0.1": "--set",
    "train --recipe papo --set gamma=": "--set",
    "train --recipe papo --set gamma=nan": "--set",
    "train --recipe papo --set gamma=1e999": "--set",
    "train --recipe papo --set gamma=true": "must be a finite number",
    "train --recipe papo --set gamma=\uff13": "--set",
    "train --recipe papo --set exact=1": "must be true or false",
    "train --recipe papo --set gamma=0.1 --set gamma=0.2": "is set twice",
    "recipes nonsense": "unknown recipe 'nonsense'",
    "recipes papo+vppo+verl": "both fill the slot advantages",
    "train --coefficients gamma 0.1": "gamma",
    "train --data cartoon --root photos": "--root",
    "train --data cartoon --exclude file.txt": "--exclude",
    "train --data cartoon --person-crop 0.1": "--person-crop",
    "train --data folder --root photos --exclude photos": "--exclude",
    "train --data folder --root photos --exclude photos/reading/0.png": "--exclude",
    "train --data folder --root photos --exclude nowhere.txt": "--exclude",
    "train --data folder --root file.txt": "--root",
    "train --data folder --root photos --shots 2 --test 2": "too few images",
    "train --data folder --root photos --shots 1 --test 1 --out photos/run": "--out",
    "train --gpu-gb 12": "--gpu-gb",
    "train --gpu-gb 12 --device cpu --policy Qwen/Qwen2-VL-2B-Instruct": "--gpu-gb",
    "train --device cuda": "--device",
    "train --device cuda:99": "--device",
    "train --device meta": "--device",
    "train --quantize 4bit --device cpu": "--quantize",
    "train --lora-rank 0 --lora-alpha 8": "--lora-alpha",
    "train --revision main": "--revision",
    "train --adapter photos": "--adapter",
    "train --policy photos": "--policy",
    "train --max-pixels 783": "--max-pixels",
    "demo --steps 0": "--steps",
    "demo --shots 999999": "too few images",
    "profile --data folder --root photos --shots 1 --out photos/profile": "--out",
    "evaluate --labels reading reading": "--labels",
    "evaluate --lora-rank 8": "--lora-rank",
    "evaluate --lora-alpha 8": "--lora-alpha",
    "evaluate --run photos --adapter photos": "--adapter",
    "evaluate --data folder --root photos --out photos/asked": "--out",
    "evaluate --adapter nowhere": "--adapter",
    "predict photos --labels reading --open-vocabulary": "--labels",
    "predict photos --lora-rank 8": "--lora-rank",
    "predict photos --csv nowhere/answers.csv": "--csv",
    "predict photos --csv file.txt": "--csv",
    "predict photos --csv photos": "--csv",
    "predict photos --threshold 1.1": "--threshold",
    "predict nowhere": "nowhere",
    "app --port 65536": "--port",
    "share nowhere --out shared --public": "--public",
    "study --sets": "--sets",
    "study --methods": "--methods",
    "study --shots": "--shots",
    "study --methods grpo grpo": "--methods",
    "study --sets cartoon cartoon": "--sets",
    "study --shots 4 4": "--shots",
    "study --shots 4 0": "--shots",
    "study --methods sft --variants no-kl": "--variants",
    "study --methods grpo --variants no-kl no-kl": "--variants",
    "study --methods zero-shot --seeds 2": "--seeds",
    "study --methods zero-shot --steps 2": "--steps",
    "study --methods zero-shot --shots 2": "--shots",
    "study --root photos": "--root",
    "study --sets folder --methods grpo --root photos --shots 1 --test 1 --out photos/study": "--out",
    "study --methods grpo --adapter nowhere": "--adapter",
    "study --methods grpo --device cuda:99": "--device",
    "data folder --out drawn": "--out",
    "data stanford40 --sheet sheet.png": "--sheet",
    "data folder --decode": "--decode",
    "data folder --exclude file.txt": "--exclude",
    "data folder --root photos --out drawn": "--out",
    "data folder --root photos --sheet photos/sheet.png": "--sheet",
    "data cartoon --decode": "--decode",
    "data cartoon --write-exclude bad.txt": "--write-exclude",
    "data folder --root photos --write-exclude file.txt": "--write-exclude",
    "data folder --root photos --write-exclude nowhere/bad.txt": "--write-exclude",
    "data cartoon --per-label 3": "--per-label",
    "data cartoon --split test": "--split",
    "data cartoon --split dev --sheet sheet.png": "--split",
    "data cartoon --split dev --sheet sheet.png --out drawn": "--split",
    "data cartoon --sheet sheet.jpg": "--sheet",
    "data cartoon --sheet nowhere/sheet.png": "--sheet",
    "doctor --gpu-gb 0 --json": "--gpu-gb",
    "doctor --gpu-gb inf": "--gpu-gb",
}


@pytest.mark.parametrize("line", COMBINATIONS)
def test_what_contradicts_itself_and_what_would_be_ignored(line, capsys):
    assert COMBINATIONS[line] in refused(line.split(), capsys)


CONFIGS = {
    "steps = 0": "--steps", "learning-rate = nan": "--learning-rate", "beta = inf": "--beta", "steps = 1.5": "--steps",
    'steps = "3"\nshots = "\uff13"': "--shots", "shots = true": "--shots", "reward-weights = [1.0, nan]":
    "--reward-weights", "checkpoint-every = -1": "--checkpoint-every", 'root = ""': "--root", "stepz = 3": "stepz",
    "steps = 3\nsteps = 4": "mine.toml", "learning-rate = 1.0\nlearning_rate = 2.0": "learning-rate twice",
    "[training]\nsteps = 3": "training", "how = 3": "--how", 'data = ["cartoon", "sketch"]': "sketch",
    "steps = 2026-01-01": "--steps", 'open-vocabulary = "yes"': "open-vocabulary", "coefficients = 3": "--coefficients",
}  # fmt: skip


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_file_with_what_can_only_go_wrong(text, capsys, tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "mine.toml"
    config.write_text(text, encoding="utf-8")
    try:
        status = main(["train", "--config", str(config)])
    except SystemExit as end:
        status = end.code
    message = capsys.readouterr().err
    assert status == 2 and CONFIGS[text] in message, message


def test_options_that_are_right_are_taken(monkeypatch, capsys):
    plans = []
    monkeypatch.setattr("favor_lab.cli.training.run_training", lambda plan, *rest, **options: plans.append(plan))
    lines = ["train --recipe dapo", "train --clip 0.2 --clip-high 0.28", "train --micro-batch 32", "demo --steps 1",
             "train --lora-rank 0", "train --seed -1 --test 0", "sft --micro-batch 4"]  # fmt: skip
    assert [main(line.split()) for line in lines] == [0] * len(lines) and len(plans) == len(lines)
    assert parser.named_option(ValueError("'cartoon' is unknown"), ["train", "--data", "cartoon"]) == "--data: "
    assert parser.named_option(ValueError("3 are too few"), ["train", "--shots", "3"]) == ""
