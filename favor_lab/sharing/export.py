"""Export what a run trained as a folder that can be published, and push it to the Hub on request.

README.md                 the model card: data, settings, training, results with intervals, intended use, limits
adapter_config.json, adapter_model.safetensors    the adapter, in peft's format
settings.json             the settings of the run, and the versions of the packages that ran it
evaluation_*.json         every answer before and after training
training_images.json      fingerprints of the training images, so that nobody tests the policy on them; see
                          `favor_lab.study.leakage` for what they tell, and delete the file where that is too much

A merged export has the whole checkpoint there instead, in the Hub's layout, and the adapter in `adapter/`. No file
contains a path of the machine that trained, or a file name of somebody's own images. Nothing leaves the machine unless
a name to push to is given.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from favor_lab.files import flush, locked, patiently, write_json
from favor_lab.sharing.card import render_card
from favor_lab.sharing.finished import CONFIG, HUB_NAME, WEIGHTS, FinishedRun, read_run, without_paths
from favor_lab.study.leakage import share_training_images
from favor_lab.study.run_folder import RunFolder
from favor_lab.vlm.hub import is_no_answer, quietly, status
from favor_lab.vlm.loading import DTYPES, load_policy


class PushError(RuntimeError):
    """A push that failed; the message says why, what to do, and that the folder on disk is complete."""


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
    """Write what a finished run trained into a new folder that can be published, and return the folder.

        share("runs/train-folder", "shared/my-adapter")

    merged      the adapter merged into the language model: a whole checkpoint, which transformers and `load_policy`
                load without peft; the adapter goes to `adapter/`
    push_to     "USER/NAME": also create this repository on the Hub and upload the folder; None: nothing is sent
    private     whether only its owner sees that repository
    base_model  Hub name of the base, for a run that loaded it from a folder
    license     the Hub's identifier of the licence, such as "apache-2.0"; None: the card says that none is chosen
    dtype       weights of a merged checkpoint: "float32", "bfloat16" (half the size; rounds away the smallest changes)
                or "float16"; "auto": as the run named it, else float32, in which nothing is lost

    The folder appears when it is complete. Raises FileExistsError for one that is not empty, ValueError for a merged
    export of a 4-bit run, what `read_run` raises, and PushError, after which the folder is complete.
    """
    directory = Path(directory)
    finished = read_run(run, base_model, merged)
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    _check_place(directory)
    if license is not None and not license.strip():
        raise ValueError("license is empty: name one, such as apache-2.0, or leave it out")
    if push_to is not None:
        _check_hub_name(push_to)
    merged_dtype = _merged_dtype(finished, dtype) if finished.form == "merged" else None
    with _written_atomically(directory) as unfinished:
        _write_weights(run, finished, unfinished, merged_dtype)
        card = render_card(finished, push_to or directory.resolve().name, license, merged_dtype)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        write_json(unfinished / "settings.json", finished.settings)
        share_training_images(run, unfinished)
        for when, evaluation in finished.evaluations.items():
            evaluation.save(unfinished / f"evaluation_{when}.json")
        for path in unfinished.rglob("*.safetensors"):
            shutil.copymode(unfinished / "README.md", path)  # peft and safetensors may allow the owner alone to read
        run.check_results()  # once more: somebody may have resumed the run
    if push_to is not None:
        push(directory, push_to, private)
    return directory


def _check_place(directory: Path) -> None:
    """FileExistsError unless a folder can be put there in one move."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is there and not an empty folder: name a new one")
    if directory.is_mount() or directory.resolve() == Path.cwd():
        raise FileExistsError(f"{directory} cannot be replaced in one move: name a new folder inside it")


@contextmanager
def _written_atomically(directory: Path) -> Iterator[Path]:
    """A temporary folder, renamed to `directory` if the block succeeds and removed if it fails. It is in `.NAME.part`
    beside it, which one process holds; what a killed one has left there is removed by the next."""
    directory = directory.resolve()
    place = directory.with_name(f".{directory.name}.part")
    unfinished = place / directory.name
    try:
        with locked(place):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                yield unfinished
                for path in (*unfinished.rglob("*"), unfinished):
                    flush(path)
                if directory.exists():
                    directory.rmdir()
                patiently(unfinished.rename, directory)
                flush(directory.parent)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    finally:
        with suppress(OSError):
            place.rmdir()  # only if nobody else has taken it


def _write_weights(run: RunFolder, finished: FinishedRun, directory: Path, merged_dtype: str | None) -> None:
    """The adapter, the merged checkpoint (`merged_dtype`) with the adapter beside it, or the whole checkpoint."""
    if finished.form == "whole":
        shutil.copytree(run.path / "policy", directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
    elif merged_dtype is not None:
        _write_merged(run, finished, directory, merged_dtype)
    if (path := directory / "tokenizer_config.json").is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        for field in ("is_local", "local_files_only", "name_or_path"):  # how it was loaded on this machine
            config.pop(field, None)
        write_json(path, without_paths(config))
    if finished.adapter is not None:
        place = directory / "adapter" if finished.form == "merged" else directory
        place.mkdir(exist_ok=True)
        config = {**without_paths(finished.adapter), "base_model_name_or_path": finished.base}
        revision = finished.part("policy").get("revision")
        write_json(place / CONFIG, config if revision is None else {**config, "revision": revision})
        shutil.copyfile(run.adapter / WEIGHTS, place / WEIGHTS)


def _merged_dtype(finished: FinishedRun, dtype: str) -> str:
    """The precision of a merged checkpoint. ValueError if merging would give another policy than the one tested."""
    policy = finished.part("policy")
    if policy.get("quantize"):
        raise ValueError(
            f"the run held its frozen weights in {policy['quantize']}: merged into the weights in full precision its "
            "adapter would be a policy that nobody has tested. Share the adapter by itself; who loads it may name "
            "quantize, or not"
        )
    chosen = policy.get("dtype") if dtype == "auto" else dtype
    chosen = "float32" if chosen in (None, "auto") else chosen
    if chosen not in DTYPES:
        raise ValueError(f"unknown dtype {chosen!r}; valid: auto, {', '.join(DTYPES)}")
    return str(chosen)


def _write_merged(run: RunFolder, finished: FinishedRun, directory: Path, dtype: str) -> None:
    """Load the base on the CPU, add the adapter's product to each weight, and save in the Hub's layout."""
    options = run.settings.get("policy") or {}
    base, names = options.get("policy") or finished.base, ("max_pixels", "min_pixels", "revision")
    loading: dict[str, Any] = {name: options.get(name) for name in names}
    policy = load_policy(base, adapter=run.adapter, device="cpu", dtype=dtype, **loading)
    policy.model = policy.model.merge_and_unload()
    if not all(torch.isfinite(weight).all() for weight in policy.model.parameters()):
        advice = "name float32 or bfloat16" if dtype == "float16" else "the adapter is broken, train it again"
        raise ValueError(f"a merged weight is not finite in {dtype}: {advice}")
    with quietly():
        policy.save(directory)


# ------------------------------------------------------------------------------------------------------------- the Hub


def push(directory: str | Path, name: str, private: bool = True) -> str:
    """Create the repository `name` ("USER/NAME") on the Hub, upload a folder that `share` wrote; return its address.
    Uses the token of `hf auth login` or HF_TOKEN. An existing repository is never written to. Raises PushError."""
    _check_hub_name(name)
    complete = f"{directory} is complete on disk; when that is settled: hf upload {name} {directory}"
    if huggingface_hub.get_token() is None:
        raise PushError(f"no token for the Hub: `hf auth login`, or set HF_TOKEN, with the right to write. {complete}")
    api = huggingface_hub.HfApi()
    try:
        url = api.create_repo(name, private=private, repo_type="model", exist_ok=False)
        api.upload_folder(repo_id=name, folder_path=str(directory), repo_type="model", commit_message="favor-lab share")
    except OfflineModeIsEnabled as error:
        raise PushError(f"HF_HUB_OFFLINE is set, so nothing was sent: unset it. {complete}") from error
    except HfHubHTTPError as error:
        owner = name.split("/")[0]
        meanings = {
            401: "the Hub does not know your token: `hf auth login` again",
            403: f"you may not create {name}: the token needs the right to write, and {owner} must be you or an "
            "organisation that lets you",
            409: f"{name} is taken, and an existing repository is never written to: choose another name",
        }
        raise PushError(f"{meanings.get(status(error), f'the Hub refused ({error})')}. {complete}") from error
    except Exception as error:  # whatever the network library raises: the Hub's client has changed it twice
        if not is_no_answer(error):
            raise
        raise PushError(f"the Hub cannot be reached ({error}): look at the network. {complete}") from error
    return str(url)


def _check_hub_name(name: str) -> None:
    """ValueError unless a model on the Hub may have this name."""
    try:
        validate_repo_id(name)
        if not HUB_NAME.fullmatch(name):
            raise ValueError("it has no owner")
    except ValueError as error:
        form = "USER/NAME, your name on the Hub and a name for the model"
        raise ValueError(f"cannot push to {name!r}, which must be {form}: {error}") from error
