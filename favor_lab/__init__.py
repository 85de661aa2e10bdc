"""favor_lab: few-shot activity recognition by reinforcement learning of a vision-language model, step by step.

Four wings: :mod:`favor_lab.activities` (what is seen), :mod:`favor_lab.vlm` (who looks), :mod:`favor_lab.grpo` (what
is learned) and :mod:`favor_lab.study` (what came of it). The public names below are the course's vocabulary; they
load on first use, so that ``import favor_lab`` costs nothing and brings in only what is used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "activities.fewshot": (
        "Example", "FewShot", "Transfer", "base_to_new", "cross_dataset", "few_shot", "label_overlap",
    ),
    "activities.sources": ("ActivityData", "Record", "export_folder", "load_activities"),
    "activities.pocket": ("ACTIVITIES", "SETS", "Scene", "draw_scene", "scene_from_source"),
    "vlm.prompts": ("build_prompt",),
    "vlm.policy": ("Policy", "load_policy"),
    "vlm.processing": ("PromptBatch", "encode_prompts"),
    "vlm.prefix": ("Prefix", "run_prompt"),
    "grpo.sampling": ("Rollout", "sample_groups", "score_completions"),
    "grpo.rewards": ("accuracy_reward", "extract_answer", "format_reward", "normalise_label"),
    "grpo.advantages": ("group_advantages",),
    "grpo.losses": ("aggregate", "clipped_surrogate", "grpo_loss", "k3_kl"),
    "grpo.records": ("GRPOSettings", "StepRecord"),
    "grpo.training": ("Context", "train"),
    "grpo.checkpoints": ("TrainingState", "load_checkpoint", "save_checkpoint"),
    "study.evaluation": ("Evaluation", "evaluate", "wilson_interval"),
    "study.comparison": ("Comparison", "bootstrap_interval", "compare", "sign_test"),
    "study.baselines": ("sft",),
    "study.explanations": (
        "Explanation", "evidence_effect", "explain", "image_reliance", "judge_reasoning", "read_reasoning",
    ),
    "grpo.costs": ("step_costs", "step_memory"),
    "grpo.fits": ("Fit", "Preset", "fits", "presets", "recommend"),
    "study.profiling": ("Profile", "profile_step"),
    "study.dashboard": ("Dashboard",),
    "study.sharing": ("model_card", "share"),
    "study.charts": ("plot_changes", "plot_moves", "plot_shots", "plot_transfer"),
    "study.widgets": ("GroupExplorer", "TokenMicroscope"),
    "study.plots": (
        "plot_before_after", "plot_confusion", "plot_coverage", "plot_examples", "plot_explanation", "plot_group",
        "plot_loop", "new_figure", "plot_profile", "plot_records", "plot_truth",
    ),
    "trl_bridge": ("grpo_trainer", "trl_config", "trl_dataset", "trl_records"),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from its room on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'favor_lab' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(f"favor_lab.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
