"""Give away what was trained: a folder with the weights, a model card that the run's own files wrote, and the numbers.

README.md                 the model card: data, settings, training, results with intervals, intended use, limits
adapter_config.json, adapter_model.safetensors    the adapter, as peft reads it
settings.json             what the run was asked for, and the versions of what ran it
evaluation_*.json         every answer before and after

A merged export has the whole checkpoint there instead, in the Hub's layout, and the adapter in `adapter/`. No file
names a path of the machine that trained, or an image file of somebody's own folder. Nothing leaves the machine unless a
name to push to is given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from favor_lab.activities.catalogue import PUBLIC
from favor_lab.activities.pocket import SETS
from favor_lab.study.cards import EVALUATIONS, HUB_NAME, write_card
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.report import RunFolder, plain

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


# ---------------------------------------------------------------------------------------------------- what a run says


@dataclass(frozen=True)
class Shared:
    """What the files of a finished run say, without paths and without file names of somebody's own images.

    settings     data, policy, settings and versions, as `settings.json` has them
    evaluations  "before" and "after", as far as they were made
    records      one dictionary a step
    adapter      adapter_config.json, or None where the whole language model was trained
    base         Hub name of the base model, "pocket", or the name of the folder that it was loaded from
    form         what is given away: "adapter", "merged" or "whole"
    """

    settings: dict[str, Any]
    evaluations: dict[str, Evaluation]
    records: list[dict[str, Any]]
    adapter: dict[str, Any] | None
    base: str
    form: str

    def part(self, name: str) -> dict[str, Any]:
        """The part of the settings with this name; empty where the run kept none."""
        return self.settings.get(name) or {}

    @property
    def method(self) -> str:
        return "SFT" if self.settings.get("command") == "sft" else "GRPO"

    @property
    def set_name(self) -> str:
        """The set, or the name of the folder of one's own images."""
        data = self.part("data")
        return str((data.get("root") if data.get("data") == "folder" else None) or data.get("data") or "images")

    @property
    def names(self) -> dict[str, str]:
        """What before and after are called, as the run's own report calls them."""
        shots = self.part("data").get("shots")
        after = self.method if shots is None else f"{shots}-shot {self.method}"
        return {"before": "before" if self.part("policy").get("adapter") else "zero-shot", "after": after}

    @property
    def labels(self) -> list[str]:
        """The labels of the evaluations, or those that the records saw; empty where the run folder has neither."""
        for evaluation in self.evaluations.values():
            return evaluation.labels
        return sorted({label for record in self.records for label in record.get("labels") or {}})

    @property
    def on_hub(self) -> bool:
        return HUB_NAME.fullmatch(self.base) is not None

    @property
    def title(self) -> str:
        what = "LoRA adapter for" if self.form == "adapter" else "trained from"
        return f"{self.names['after']} on {self.set_name}, {what} {self.base}"


def read_run(run: RunFolder | str | Path, base_model: str | None = None, merged: bool = False) -> Shared:
    """Read a run folder and see that its training came to an end.

    base_model: Hub name of the base, for a run that loaded it from a folder. Raises FileNotFoundError or ValueError
    for what is no run folder, for a run that stopped before its last step and for files that are missing or damaged.
    """
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    settings = _read(run, "settings.json")
    if settings.get("command") == "evaluate":
        raise ValueError(f"{run.path} is a folder of `favor-lab evaluate`: nothing was trained there")
    records = run.records()
    _check_finished(run, settings, records)
    whole = (run.path / "policy" / "config.json").is_file() and not run.adapter.exists()
    adapter = None if whole else _read_adapter(run)
    if base_model is not None and not HUB_NAME.fullmatch(base_model):
        raise ValueError(f"base_model is {base_model!r}, but must be a Hub name such as Qwen/Qwen2-VL-2B-Instruct")
    used = (settings.get("policy") or {}).get("policy") or (adapter or {}).get("base_model_name_or_path") or "unknown"
    base = base_model or (str(used) if _is_hub_name(str(used)) else last_part(str(used)))
    found = {when: _read(run, f"evaluation_{when}.json") for when in EVALUATIONS}
    try:
        evaluations = {when: Evaluation.from_dict(data) for when, data in found.items() if data}
    except (KeyError, TypeError) as fault:
        raise ValueError(f"the evaluations in {run.path} are not as `favor-lab` writes them: {fault!r}") from fault
    data = settings.get("data") or {}
    evaluations = {when: replace(e, policy=base) for when, e in public_sources(evaluations, data).items()}
    form = "whole" if whole else "merged" if merged else "adapter"
    return Shared(_public_settings(settings, base), evaluations, records, adapter, base, form)


def _read(run: RunFolder, name: str) -> dict[str, Any]:
    """A JSON object of the run folder; empty where there is no such file."""
    try:
        found = run.load(name, {})
    except ValueError as fault:
        raise ValueError(f"{run.path / name} is damaged and cannot be read: {fault}") from fault
    if not isinstance(found, dict):
        raise ValueError(f"{run.path / name} is not as `favor-lab` writes it: it holds no object")
    return found


def _check_finished(run: RunFolder, settings: dict[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """ValueError for a run that stopped; an adapter that lies there all the same is that of an earlier end."""
    wanted, done = (settings.get("settings") or {}).get("steps"), records[-1].get("step", 0) if records else 0
    again = f"favor-lab {'sft' if settings.get('command') == 'sft' else 'train'} --resume {run.path}"
    if wanted is not None and done < wanted:
        raise ValueError(
            f"the run in {run.path} stopped after step {done} of {wanted}: go on with `{again}`, then share"
        )
    if not run.adapter.exists() and not (run.path / "policy").exists():
        raise FileNotFoundError(f"the run in {run.path} has no adapter folder: `{again}` or `policy.save` writes it")


def _read_adapter(run: RunFolder) -> dict[str, Any]:
    """The adapter's configuration, once its weights have been looked at."""
    from safetensors import SafetensorError, safe_open

    for name in (CONFIG, WEIGHTS):
        if not (run.adapter / name).is_file():
            raise FileNotFoundError(f"the adapter in {run.adapter} is incomplete: it has no {name}; save it again")
    try:
        with safe_open(run.adapter / WEIGHTS, framework="pt") as file:
            if not any("lora_" in key for key in file.keys()):  # noqa: SIM118 (no mapping)
                raise ValueError(f"{run.adapter / WEIGHTS} holds no LoRA weights")
    except SafetensorError as fault:
        raise ValueError(f"{run.adapter / WEIGHTS} is damaged and cannot be read: {fault}") from fault
    return _read(run, f"{run.adapter.name}/{CONFIG}")


def _is_hub_name(name: str) -> bool:
    return name == "pocket" or (HUB_NAME.fullmatch(name) is not None and not Path(name).exists())


def last_part(path: str) -> str:
    r"""The last name of a path of either kind, which says nothing of the machine.

    >>> last_part("/home/me/my photos/"), last_part(r"C:\me\photos"), last_part("..")
    ('my photos', 'photos', 'folder')
    """
    name = PureWindowsPath(path).name  # splits at / and at \
    return name if name not in ("", "..") else "folder"


def without_paths(value: Any) -> Any:
    """Plain data in which each absolute path is cut to its last name.

    >>> without_paths({"root": "/home/me/photos", "names": ["Qwen/Qwen2-VL-2B-Instruct", 3]})
    {'root': 'photos', 'names': ['Qwen/Qwen2-VL-2B-Instruct', 3]}
    """
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and (
        PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~")
    ):
        return last_part(value)
    return value


def _public_settings(settings: dict[str, Any], base: str) -> dict[str, Any]:
    """The settings of a run without any path, relative ones included."""
    cleaned = without_paths(settings)
    for part, name in (("data", "root"), ("data", "exclude"), ("policy", "adapter")):
        if (cleaned.get(part) or {}).get(name):
            cleaned[part][name] = last_part(str(cleaned[part][name]))
    if cleaned.get("policy"):
        cleaned["policy"]["policy"] = base
    if "platform" in (cleaned.get("versions") or {}):
        cleaned["versions"]["platform"] = machine_kind(str(cleaned["versions"]["platform"]))
    return cleaned


def machine_kind(platform: str) -> str:
    """System and processor of `platform.platform()`, without what the machine's owner may have named its kernel.

    >>> machine_kind("Linux-6.1.0-annas-laptop-x86_64-with-glibc2.36"), machine_kind("macOS-14.5-arm64-arm-64bit")
    ('Linux, x86_64', 'macOS, arm64')
    """
    processor = re.search(r"x86_64|AMD64|aarch64|arm64|ppc64le|riscv64", platform)
    return ", ".join([platform.split("-")[0], *([processor[0]] if processor else [])])


def public_sources(evaluations: Mapping[str, Evaluation], data: Mapping[str, Any]) -> dict[str, Evaluation]:
    """The evaluations with sources that may be shown: keys of drawn scenes as they are, images of a public set by their
    path under its root, those of somebody's own folder by label and number, since file names tell of people."""
    root, seen, names = data.get("root"), dict[str, int](), dict[str, str]()

    def shown(answer: Answered) -> str:
        if answer.source in names:
            return names[answer.source]
        if data.get("data") in SETS:
            name = answer.source
        elif data.get("data") in PUBLIC and root and PurePosixPath(answer.source).is_relative_to(root):
            name = PurePosixPath(answer.source).relative_to(root).as_posix()
        else:
            seen[answer.label] = seen.get(answer.label, 0) + 1
            name = f"{answer.label}/{seen[answer.label]:03d}"
        return names.setdefault(answer.source, name)

    return {
        when: replace(evaluation, answers=[replace(answer, source=shown(answer)) for answer in evaluation.answers])
        for when, evaluation in evaluations.items()
    }


def model_card(
    run: RunFolder | str | Path,
    *,
    merged: bool = False,
    name: str | None = None,
    base_model: str | None = None,
    license: str | None = None,
    dtype: str | None = None,
) -> str:
    """The model card of a finished run: Markdown with the Hub's YAML front matter, from the files of the run alone.

    merged      the card of a merged export, whose weights have `dtype`
    name        what to load, in the examples: a Hub name or a folder
    base_model  Hub name of the base, for a run that loaded it from a folder
    license     the Hub's identifier of the licence; None: the card says that none was chosen

    Every number in it is in the run folder or computed from what is there. What the policy wrote is escaped. Parts
    that the run has nothing for are left out or say so. Raises as `read_run` does.
    """
    return write_card(read_run(run, base_model, merged), name, license, dtype)


# ------------------------------------------------------------------------------------------------------ folder and Hub


class PushError(RuntimeError):
    """A push that did not go through; the message says why, what to do, and that the folder is complete on disk."""


def share(
    run: RunFolder | str | Path,
    directory: str | Path,
    *,
    merged: bool = False,
    push_to: str | None = None,
    private: bool = True,
    base_model: str | None = None,
    license: str | None = None,
    dtype: str = "auto",
) -> Path:
    """Write what a finished run trained into a new folder, ready to be given away, and return it.

    merged      the adapter merged into the language model: a whole checkpoint, which transformers and `load_policy`
                load without peft; the adapter goes to `adapter/`
    push_to     "USER/NAME": also create this repository on the Hub and upload the folder; None: nothing is sent
    private     whether only its owner sees that repository
    base_model  Hub name of the base, for a run that loaded it from a folder
    license     the Hub's identifier of the licence, such as "apache-2.0"; None: the card says that none is chosen
    dtype       weights of a merged checkpoint: "float32", "bfloat16" (half the size; rounds away the smallest changes)
                or "float16"; "auto": as the run named it, else float32, in which nothing is lost

    The folder appears whole or not at all. Raises FileExistsError for one that is not empty, ValueError for a merged
    export of a 4-bit run, what `read_run` raises, and PushError, after which the folder is complete.

        share("runs/train-folder", "shared/my-adapter")
    """
    directory = Path(directory)
    shared = read_run(run, base_model, merged)
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is there and not an empty folder: name a new one")
    if push_to is not None:
        _check_hub_name(push_to)
    dtype = _merged_dtype(shared, dtype) if shared.form == "merged" else dtype
    with _made_whole(directory) as unfinished:
        _write_weights(run, shared, unfinished, dtype)
        stated = dtype if shared.form == "merged" else None
        card = write_card(shared, push_to or directory.resolve().name, license, stated)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        _write_json(unfinished / "settings.json", shared.settings)
        for when, evaluation in shared.evaluations.items():
            evaluation.save(unfinished / f"evaluation_{when}.json")
        for path in unfinished.rglob("*.safetensors"):
            shutil.copymode(unfinished / "README.md", path)  # savers may write for the owner's eyes alone
    if push_to is not None:
        push(directory, push_to, private)
    return directory


def _check_hub_name(name: str) -> None:
    """ValueError unless a model on the Hub may have this name."""
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        if not HUB_NAME.fullmatch(name):
            raise ValueError("it has no owner")
    except ValueError as fault:
        raise ValueError(
            f"cannot push to {name!r}, which must be USER/NAME, your name on the Hub and a name for the model: {fault}"
        ) from fault


@contextmanager
def _made_whole(directory: Path) -> Iterator[Path]:
    """A folder beside `directory` that becomes it when the block ends well, and is removed when it does not."""
    directory = directory.resolve()
    unfinished = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if directory.exists():
            directory.rmdir()
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(plain(data), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_weights(run: RunFolder, shared: Shared, directory: Path, dtype: str) -> None:
    """The adapter, the merged checkpoint with the adapter beside it, or the whole checkpoint."""
    if shared.form == "whole":
        shutil.copytree(run.path / "policy", directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
    elif shared.form == "merged":
        _write_merged(run, shared, directory, dtype)
    if shared.form != "adapter":
        _forget_origin(directory / "tokenizer_config.json")
    if shared.adapter is not None:
        place = directory / "adapter" if shared.form == "merged" else directory
        place.mkdir(exist_ok=True)
        config = {**without_paths(shared.adapter), "base_model_name_or_path": shared.base}
        revision = shared.part("policy").get("revision")
        _write_json(place / CONFIG, config if revision is None else {**config, "revision": revision})
        shutil.copyfile(run.adapter / WEIGHTS, place / WEIGHTS)


def _forget_origin(path: Path) -> None:
    """Take out of a tokenizer's configuration how it was loaded here."""
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        gone = ("is_local", "local_files_only", "name_or_path")
        _write_json(path, without_paths({name: value for name, value in config.items() if name not in gone}))


def _merged_dtype(shared: Shared, dtype: str) -> str:
    """The precision of a merged checkpoint. ValueError where merging would give another policy than the one tested."""
    from favor_lab.vlm.loading import DTYPES

    policy = shared.part("policy")
    if policy.get("quantize"):
        raise ValueError(
            f"the run held its frozen weights in {policy['quantize']}: merged into the weights in full precision its "
            "adapter would be a policy that nobody has tested. Share the adapter by itself; who loads it may name "
            "quantize, or not"
        )
    named = policy.get("dtype") if dtype == "auto" else dtype
    named = "float32" if named in (None, "auto") else named
    if named not in DTYPES:
        raise ValueError(f"unknown dtype {named!r}; valid: auto, {', '.join(DTYPES)}")
    return str(named)


def _write_merged(run: RunFolder, shared: Shared, directory: Path, dtype: str) -> None:
    """Load the base on the CPU, add the adapter's product to each weight, and save in the Hub's layout."""
    import torch
    from transformers.utils import logging

    from favor_lab.vlm.loading import load_policy
    from favor_lab.vlm.policy import Policy

    asked = run.settings.get("policy") or {}
    base = asked.get("policy") or shared.base
    kept = {name: asked[name] for name in ("max_pixels", "min_pixels", "revision") if asked.get(name) is not None}
    policy = load_policy(base, adapter=run.adapter, device="cpu", dtype=dtype, **kept)
    model = policy.model.merge_and_unload()
    if not all(torch.isfinite(weight).all() for weight in model.parameters()):
        mend = "name float32 or bfloat16" if dtype == "float16" else "the adapter is broken, train it again"
        raise ValueError(f"a merged weight is not finite in {dtype}: {mend}")
    had_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        Policy(model, policy.processor, shared.base).save(directory)
    finally:
        if had_bar:
            logging.enable_progress_bar()


def push(directory: str | Path, name: str, private: bool = True) -> str:
    """Create the repository `name` ("USER/NAME") on the Hub, upload a folder that `share` wrote; return its address.

    Uses the token that `hf auth login` or HF_TOKEN gives. An existing repository is never written to. Raises PushError.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    _check_hub_name(name)
    again = f"{directory} is complete on disk; when that is settled: hf upload {name} {directory}"
    if huggingface_hub.get_token() is None:
        raise PushError(f"the Hub knows nobody here: `hf auth login`, or set HF_TOKEN, with a write token. {again}")
    api = huggingface_hub.HfApi()
    try:
        url = api.create_repo(name, private=private, repo_type="model", exist_ok=False)
        api.upload_folder(repo_id=name, folder_path=str(directory), repo_type="model", commit_message="favor-lab share")
    except OfflineModeIsEnabled as fault:
        raise PushError(f"HF_HUB_OFFLINE is set, so nothing was sent: unset it. {again}") from fault
    except HfHubHTTPError as fault:
        raise PushError(f"{_refusal(getattr(fault.response, 'status_code', None), name, fault)}. {again}") from fault
    except Exception as fault:  # whatever the network library raises: it has changed twice
        if not _is_of_the_network(fault):
            raise
        raise PushError(f"the Hub cannot be reached ({fault}): look at the network. {again}") from fault
    return str(url)


def _refusal(status: int | None, name: str, fault: Exception) -> str:
    """What the Hub's answer means, and what to do."""
    owner = name.split("/")[0]
    meaning = {
        401: "the Hub does not know your token: `hf auth login` again",
        403: f"you may not create {name}: the token needs the right to write, and {owner} must be you or an "
        "organisation that lets you",
        409: f"{name} is taken, and an existing repository is never written to: choose another name",
    }
    return meaning.get(status or 0, f"the Hub refused ({fault})")


def _is_of_the_network(fault: BaseException) -> bool:
    modules = ("httpx", "httpcore", "requests", "urllib3")
    return isinstance(fault, ConnectionError | TimeoutError) or type(fault).__module__.startswith(modules)
