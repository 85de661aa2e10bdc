"""The same parts handed to TRL: prompts, rewards, few-shot sets, processor and settings in `trl.GRPOTrainer`.

For what this library's loop does not do: several GPUs (accelerate, DeepSpeed, FSDP) and vLLM; see `notebooks/scaling`.
Written for TRL 1.16, many of whose defaults are not this library's: `trl_config` states each option that matters.

A TRL run is the same run: the same images in the same order, the same question, tokens, rewards, adapter, reference,
learning rates and loss, checked to 1e-5 (loss) and 1e-4 (gradient) on fixed completions. Sampled tokens differ, since
the random numbers do. Two faults are corrected on the way: TRL keeps forbidden tokens from being sampled, but scores as
if they could be, and it drops images that do not fill a batch (all of them, if the shots are fewer than a batch).
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel

from favor_lab.activities.images import prepare_image
from favor_lab.grpo.rewards import accuracy_reward, completion_text, format_reward, message_text
from favor_lab.grpo.sampling import texts_of
from favor_lab.grpo.support.adamw import narrow_type
from favor_lab.grpo.support.records import StepRecord
from favor_lab.grpo.support.schedule import draw, learning_rate
from favor_lab.grpo.support.settings import GRPOSettings
from favor_lab.grpo.support.steps import Rewards, call, check_rewards, named_rewards
from favor_lab.versions import need
from favor_lab.vlm.hub import quietly
from favor_lab.vlm.prompts import build_prompt
from favor_lab.vlm.question import Question

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from favor_lab.activities.fewshot import Example, FewShot
    from favor_lab.vlm.policy import Policy

NEVER = -1e4  # added to the logit of a forbidden token: its probability is exactly 0 in float32
RATIO_MAX = 5.0  # of CISPO: the default of `grpo_loss`

# Every field of GRPOSettings, and what becomes of it: a field of GRPOConfig, or a sentence.
TRANSLATION = {
    "steps": "max_steps",
    "prompts_per_step": "per_device_train_batch_size, which counts completions, over all processes",
    "group_size": "num_generations",
    "max_new_tokens": "max_completion_length",
    "temperature": "temperature",
    "style": "the question, and an argument of the rewards",
    "open_vocabulary": "the question",
    "learning_rate": "learning_rate",
    "schedule": "lr_scheduler_type",
    "warmup_steps": "warmup_steps; the first step's rate is not 0, as it is in transformers",
    "weight_decay": "weight_decay, of every trainable parameter",
    "max_grad_norm": "max_grad_norm",
    "beta": "beta",
    "clip": "epsilon",
    "clip_high": "epsilon_high",
    "how": "loss_type",
    "level": "importance_sampling_level",
    "scale": "scale_rewards",
    "unbiased": "refused unless True: TRL divides by n - 1",
    "eps": "refused unless 1e-4: a constant of TRL's",
    "updates_per_rollout": "num_iterations",
    "micro_batch": "per_device_train_batch_size and gradient_accumulation_steps",
    "decoding": "ignored: it changes no result here, and TRL decodes with transformers or vLLM",
    "scoring": "ignored: it changes no result beyond rounding, and TRL scores with transformers",
    "gradient_checkpointing": "gradient_checkpointing",
    "offload_tower": "refused unless False: TRL encodes each image again in every pass",
    "skip_flat_groups": "refused unless False: TRL keeps them, with advantage 0",
    "reward_weights": "reward_weights",
    "coefficients": "refused unless empty: they belong to steps of your own",
    "log_rows": "ignored: TRL shows completions with log_completions=True",
    "seed": "seed, and the order of the images",
}
# Options of GRPOConfig that no setting speaks of, each at the value that makes a TRL step this library's step.
STATED = {
    "shuffle_dataset": False,  # `grpo_trainer` hands over the images in the order of `train`
    "top_k": 0,
    "top_p": 1.0,
    "min_p": None,
    "repetition_penalty": 1.0,
    "multi_objective_aggregation": "sum_then_normalize",
    "use_bias_correction_kl": False,  # TRL: True
    "delta": None,
    "mask_truncated_completions": False,
    "top_entropy_quantile": 1.0,
    "entropy_coef": 0.0,
    "sync_ref_model": False,
    "ddp_find_unused_parameters": False,  # TRL: True for image models; here every adapter weight takes part
    "optim": "adamw_torch",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "bf16": False,  # TRL: True, which is autocast; the policy computes in its own number type
    "fp16": False,
    "disable_dropout": True,  # TRL: False
    "remove_unused_columns": False,
    "trust_remote_code": False,
    "logging_steps": 1,  # TRL: 10
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",  # TRL: every 500 steps
    "dataloader_pin_memory": False,
}
REFUSED = {"unbiased": True, "eps": 1e-4, "offload_tower": False, "skip_flat_groups": False, "coefficients": {}}


def trl_dataset(examples: Sequence[Example], labels: Sequence[str] | None, style: str = "think") -> Dataset:
    """One row per example: the columns `prompt` (a chat of one user turn; TRL puts the image before the text), `image`
    (as `encode_prompts` sees it: upright RGB in its own size, kept without loss), `label` and `source`.

    labels: the closed list named in the question, or None. ValueError for an image that cannot be used.
    """
    need("datasets", "training with TRL", "trl")
    from datasets import Dataset

    question = [{"role": "user", "content": build_prompt(labels, style)}]
    rows = [
        {"prompt": question, "image": prepare_image(example), "label": example.label, "source": example.source}
        for example in examples
    ]
    if not rows:
        raise ValueError("no examples to make a data set of")
    return Dataset.from_list(rows)


def trl_config(settings: GRPOSettings, output_dir: str | os.PathLike, **overrides: Any) -> GRPOConfig:
    """The settings in TRL's words, and the options in `STATED`, since many of TRL's own defaults are others.

    overrides: options of GRPOConfig that win over these. The rows of a step stay B * G whatever the number of
    processes (WORLD_SIZE, which `accelerate launch` sets) and of micro-batches. Raises ValueError for a setting that
    has no counterpart, and for rows that the processes or the micro-batches do not divide.
    """
    need("trl", "training with TRL", "trl")
    from trl import GRPOConfig

    refuse(settings)
    at_once, passes = rows_at_once(settings, int(os.environ.get("WORLD_SIZE", "1")))
    options = STATED | {ours: getattr(settings, ours) for ours in ("warmup_steps", "weight_decay", "seed")}
    options |= {theirs: getattr(settings, ours) for ours, theirs in TRANSLATION.items() if theirs.isidentifier()}
    options |= {"output_dir": str(output_dir), "per_device_train_batch_size": at_once}
    options |= {"gradient_accumulation_steps": passes, "steps_per_generation": passes}
    if settings.reward_weights is not None:
        options["reward_weights"] = list(settings.reward_weights)
    if settings.how == "cispo":
        options["epsilon_high"] = RATIO_MAX
    if settings.schedule == "constant":
        options["lr_scheduler_type"] = "constant_with_warmup"
    with quietly():
        return GRPOConfig(**{**options, **overrides})


def refuse(settings: GRPOSettings) -> None:
    """ValueError for a setting that TRL 1.16 has no counterpart of, with the reason.

    >>> refuse(GRPOSettings(eps=1e-6))
    Traceback (most recent call last):
    ...
    ValueError: TRL has no counterpart of eps=1e-06 (a constant of TRL's): it must be 0.0001
    """
    for name, only in REFUSED.items():
        if (value := getattr(settings, name)) != only:
            reason = TRANSLATION[name].partition(": ")[2]
            raise ValueError(f"TRL has no counterpart of {name}={value} ({reason}): it must be {only}")
    if settings.how == "cispo" and settings.level != "token":
        raise ValueError(f"how='cispo' is defined per token, and level is {settings.level!r}: use level='token'")


def rows_at_once(settings: GRPOSettings, processes: int = 1) -> tuple[int, int]:
    """Completions of one pass on one process, and passes of an optimiser step.

    >>> rows_at_once(GRPOSettings(prompts_per_step=4, group_size=8, micro_batch=4), processes=2)
    (4, 4)
    """
    if settings.prompts_per_step % processes:
        problem = f"prompts_per_step={settings.prompts_per_step} cannot be shared among {processes} processes"
        raise ValueError(f"{problem} in whole groups: make it a multiple of {processes}")
    rows = settings.prompts_per_step // processes * settings.group_size
    at_once = min(settings.micro_batch or rows, rows)
    if rows % at_once:
        raise ValueError(f"micro_batch={at_once} must divide the {rows} completions that a process has in a step")
    if settings.how == "bnpo" and at_once < settings.prompts_per_step * settings.group_size:
        raise ValueError(
            "how='bnpo' divides by the tokens of the whole step here, but by those of each pass and process in TRL: "
            "use how='dapo', which is the same number here and there"
        )
    return at_once, rows // at_once


def grpo_trainer(
    policy: Policy,
    shots: FewShot,
    settings: GRPOSettings | None = None,
    rewards: Rewards = (accuracy_reward, format_reward),
    output_dir: str | os.PathLike = "trl-run",
    **overrides: Any,
) -> GRPOTrainer:
    """A GRPOTrainer that is to do what `train(policy, shots, settings, rewards=rewards)` does: call its `train()`.

    The policy is trained in place and is in evaluation mode again after it; save it with `policy.save`. rewards: as
    for `train`, except for ones that call for its `context`. overrides: as for `trl_config`. Making a trainer seeds the
    global random numbers. Raises ValueError for what TRL cannot do as asked and for half precision weights that would
    be moved themselves, ImportError without trl.
    """
    settings = settings or GRPOSettings()
    if settings.beta and not isinstance(policy.model, PeftModel):
        raise ValueError(f"beta={settings.beta} needs a reference, which is the policy without its adapter: beta=0.0")
    if kind := narrow_type(weight for _, weight in policy.trainable_parameters()):
        raise ValueError(
            f"TRL's optimiser would move {kind} weights themselves, and small steps would be rounded away: load the"
            " policy with dtype='float32' (bf16=True computes in bfloat16 all the same), or with a lora_rank above 0"
        )
    exact = [(weight, weight.data) for _, weight in policy.trainable_parameters()]
    options = {"use_cpu": policy.device.type == "cpu", "generation_kwargs": allowed_tokens(policy, overrides)}
    config = trl_config(settings, output_dir, **{**overrides, **options})
    question = Question.of(shots.labels, settings.open_vocabulary, settings.style)
    data = trl_dataset(shots.train, question.labels, question.style)
    named = named_rewards(rewards)
    from transformers import PrinterCallback

    with quietly():
        trainer = _trainer_class(policy, settings, overrides)(
            policy.model,
            [trl_reward(name, function, settings, policy) for name, function in named.items()],
            args=config,
            train_dataset=data.select(image_order(shots, settings.seed, config)),
            processing_class=policy.processor,
        )
    for weight, values in exact:  # TRL makes an adapter on 4-bit weights bfloat16, too coarse for small steps
        weight.data = values
    trainer.remove_callback(PrinterCallback)
    if isinstance(policy.model, PeftModel) and "ref" in policy.model.peft_config:
        policy.model.delete_adapter("ref")  # a copy of the adapter as it is now; the reference here is none at all
    return trainer


def allowed_tokens(policy: Policy, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Generation options that keep the policy's forbidden tokens from being sampled, in transformers' words or, with
    use_vllm, in vLLM's (which also need to be told every end token)."""
    forbidden = policy.forbidden.nonzero().flatten().tolist()
    own: dict[str, Any] = {"suppress_tokens": forbidden}
    if overrides.get("use_vllm"):
        own = {"logit_bias": dict.fromkeys(forbidden, -100.0), "stop_token_ids": policy.end_token_ids}
    return own | (overrides.get("generation_kwargs") or {})


def image_order(shots: FewShot, seed: int, config: GRPOConfig) -> list[int]:
    """Indices of the images of all rollouts, one behind the other: those that `train` draws, in its order. However few
    the shots are, no batch is left unfilled: TRL would drop it, and with it the images."""
    prompts = config.generation_batch_size // config.num_generations
    passes = config.max_steps * config.gradient_accumulation_steps
    rollouts = math.ceil(passes / (config.steps_per_generation * config.num_iterations))
    labels = [example.label for example in shots.train]
    return [i for turn in range(rollouts) for i in draw(labels, turn, prompts, seed)]


def trl_reward(
    name: str, function: Callable[..., Any], settings: GRPOSettings, policy: Policy | None = None
) -> Callable[..., list[float]]:
    """A reward function that gives TRL what `function` gives the loop: the same arguments, by name, and the same care.

    completions, prompts: texts, where TRL has chats; label, source, completion_ids; groups: prompt of each completion
    among those of this process; style. With the policy, completions are the text of their tokens, as the loop has it:
    TRL leaves out special tokens. ValueError, when called, for a reward that is missing or not finite.

    >>> reward = trl_reward("accuracy", accuracy_reward, GRPOSettings())
    >>> chat = [{"role": "assistant", "content": "<answer>reading</answer>"}]
    >>> reward(prompts=[chat], completions=[chat], completion_ids=[[1]], label=["reading"])
    [1.0]
    """
    wanted = inspect.signature(function).parameters.get("context")
    if wanted is not None and wanted.default is wanted.empty:
        raise ValueError(f"reward function {name} asks for the context, which only this library's loop has")

    def reward(prompts: list, completions: list, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        known = columns | {"completion_ids": completion_ids, "style": settings.style}
        known["completions"] = texts_of(policy, completion_ids) if policy else [*map(completion_text, completions)]
        known["prompts"] = [prompt if isinstance(prompt, str) else message_text(prompt[-1]) for prompt in prompts]
        known["groups"] = [row // settings.group_size for row in range(len(completions))]
        return check_rewards(name, call(function, **known), len(completions))

    reward.__name__ = name
    return reward


def trl_records(trainer: GRPOTrainer) -> list[StepRecord]:
    """What TRL has logged, as the records that `plot_records` draws; one per step if logging_steps is 1.

    What TRL does not log stays None or empty: the spread inside groups (its reward_std is that of all rewards), labels,
    samples, seconds by phase. kl, entropy and clip_share are means over the passes and processes of a step of *their*
    means over tokens, so with micro-batches of unlike lengths they are not quite the loop's; loss and gradient are.
    All of TRL's numbers are in `metrics` under their own names.
    """
    args, records, seen = trainer.args, [], dict[str, Any]()
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    for entry in (entry for entry in trainer.state.log_history if "loss" in entry):  # others: evaluations, a summary
        seen = seen | entry  # with several updates per rollout, what was sampled is logged once
        named = {name: seen.get(f"rewards/{name}/mean") for name in trainer.reward_func_names}
        length = seen["completions/mean_length"]
        clip_share = entry.get("clip_ratio/region_mean", entry.get("cispo_clip_ratio"))
        records.append(StepRecord(
            step=entry["step"], loss=entry["loss"], seconds={"step": entry["step_time"]},
            reward=seen["reward"], rewards={name: value for name, value in named.items() if value is not None},
            flat_groups=seen["frac_reward_zero_std"], kl=entry.get("kl"), entropy=entry["entropy"],
            length_mean=length, length_min=int(seen["completions/min_length"]),
            length_max=int(seen["completions/max_length"]), truncated=seen["completions/clipped_ratio"],
            rows=rows, tokens=round(length * rows), update=(entry["step"] - 1) % args.num_iterations,
            learning_rate=entry["learning_rate"], grad_norm=entry.get("grad_norm"), clip_share=clip_share,
            metrics={name: value for name, value in entry.items() if isinstance(value, int | float)},
        ))  # fmt: skip
    return records


# ------------------------------------------------------------------------------------------------- inside the trainer


@contextmanager
def _no_forbidden_tokens(policy: Policy) -> Iterator[None]:
    """Inside the block the head gives forbidden tokens no probability: what is scored is what is sampled from."""
    head = policy.base.get_output_embeddings()
    bias = NEVER * policy.forbidden.to(head.weight.device, torch.float32)  # (V,)
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    try:
        yield
    finally:
        head.bias = None


def _trainer_class(policy: Policy, settings: GRPOSettings, overrides: Mapping[str, Any]) -> type:
    """GRPOTrainer, but for what it would do otherwise than the loop."""
    from trl import GRPOTrainer

    own_rates = not {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"} & overrides.keys()

    class FavorGRPOTrainer(GRPOTrainer):
        lr_scheduler: Any

        def train(self, *args: Any, **kwargs: Any) -> Any:
            try:
                with quietly():
                    return super().train(*args, **kwargs)
            finally:
                _as_loaded(policy)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            with _no_forbidden_tokens(policy):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if self.lr_scheduler is None and own_rates:
                rate = functools.partial(_rate, replace(settings, steps=num_training_steps, learning_rate=1.0))
                self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, rate)
                self._created_lr_scheduler = True
            return super().create_scheduler(num_training_steps, optimizer)

        def get_decay_parameter_names(self, model: Any) -> list[str]:
            return [name for name, _ in model.named_parameters()]

        def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
            if not isinstance(policy.model, PeftModel):
                super()._save(output_dir, state_dict)
            elif self.args.should_save:
                folder = output_dir or self.args.output_dir
                policy.model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)

    return FavorGRPOTrainer


def _rate(settings: GRPOSettings, step: int) -> float:
    """Learning rate of step `step`, from 0; past the last, where a scheduler also looks, it is 0."""
    return learning_rate(step, settings) if step < settings.steps else 0.0


def _as_loaded(policy: Policy) -> None:
    """Put the policy back into the state in which `load_policy` hands it out."""
    with quietly():
        policy.base.gradient_checkpointing_disable()
    for module in policy.base.modules():  # transformers adds these hooks time and again, and forgets all but the last
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                del module._forward_hooks[key]
    policy.model.eval()
