# The public names and their modules. Type checkers and editors read this file, and so does `__init__.py` when a name is
# first used: there is no second list.

__version__: str

from favor_lab.files import data_path as data_path
from favor_lab.threads import share_cores as share_cores
from favor_lab.activities.images import Example as Example
from favor_lab.activities.data import ActivityData as ActivityData, Record as Record
from favor_lab.activities.fewshot import (
    FewShot as FewShot,
    Transfer as Transfer,
    base_to_new as base_to_new,
    cross_dataset as cross_dataset,
    few_shot as few_shot,
    label_overlap as label_overlap,
)
from favor_lab.activities.labels import normalise_label as normalise_label
from favor_lab.activities.load import load_activities as load_activities
from favor_lab.activities.hf_datasets import from_datasets as from_datasets, to_datasets as to_datasets
from favor_lab.activities.world import (
    ACTIVITIES as ACTIVITIES,
    SETS as SETS,
    Scene as Scene,
    draw_scene as draw_scene,
    export_folder as export_folder,
    scene_from_source as scene_from_source,
)
from favor_lab.vlm.prompts import build_prompt as build_prompt
from favor_lab.vlm.question import Question as Question
from favor_lab.vlm.policy import Policy as Policy
from favor_lab.vlm.loading import load_policy as load_policy
from favor_lab.vlm.processing import PromptBatch as PromptBatch, encode_prompts as encode_prompts
from favor_lab.vlm.prefix import Prefix as Prefix, run_prompt as run_prompt
from favor_lab.grpo.support.rollout import Rollout as Rollout
from favor_lab.grpo.sampling import sample_groups as sample_groups, score_completions as score_completions
from favor_lab.grpo.rewards import (
    accuracy_reward as accuracy_reward,
    extract_answer as extract_answer,
    format_reward as format_reward,
)
from favor_lab.grpo.advantages import group_advantages as group_advantages
from favor_lab.grpo.losses import (
    aggregate as aggregate,
    clipped_surrogate as clipped_surrogate,
    grpo_loss as grpo_loss,
    k3_kl as k3_kl,
)
from favor_lab.grpo.support.settings import GRPOSettings as GRPOSettings, TrainSettings as TrainSettings
from favor_lab.grpo.support.records import StepRecord as StepRecord
from favor_lab.grpo.training import Context as Context, train as train
from favor_lab.grpo.support.checkpoints import (
    TrainingState as TrainingState,
    load_checkpoint as load_checkpoint,
    save_checkpoint as save_checkpoint,
)
from favor_lab.study.evaluation import (
    Evaluation as Evaluation,
    evaluate as evaluate,
    wilson_interval as wilson_interval,
)
from favor_lab.study.answering import Answer as Answer, answer as answer
from favor_lab.study.comparison import (
    Comparison as Comparison,
    bootstrap_interval as bootstrap_interval,
    compare as compare,
    sign_test as sign_test,
)
from favor_lab.study.sft import sft as sft
from favor_lab.responses import judge_reasoning as judge_reasoning
from favor_lab.study.reasoning import read_reasoning as read_reasoning
from favor_lab.study.evidence import evidence_effect as evidence_effect, image_reliance as image_reliance
from favor_lab.study.explanations import Explanation as Explanation, explain as explain
from favor_lab.budget.shapes import ModelShape as ModelShape, StepShape as StepShape
from favor_lab.budget.flops import step_costs as step_costs
from favor_lab.budget.memory import step_memory as step_memory, with_advice as with_advice
from favor_lab.budget.fits import Fit as Fit, Preset as Preset, fits as fits, presets as presets, recommend as recommend
from favor_lab.budget.profiling import Profile as Profile, profile_step as profile_step
from favor_lab.sharing.card import model_card as model_card
from favor_lab.sharing.export import share as share
from favor_lab.show.style import new_figure as new_figure
from favor_lab.show.curves import plot_coverage as plot_coverage, plot_records as plot_records
from favor_lab.show.groups import plot_group as plot_group
from favor_lab.show.evaluations import (
    plot_before_after as plot_before_after,
    plot_confusion as plot_confusion,
    plot_examples as plot_examples,
)
from favor_lab.show.explanations import plot_explanation as plot_explanation, plot_truth as plot_truth
from favor_lab.show.loop import plot_loop as plot_loop
from favor_lab.show.profile import plot_profile as plot_profile
from favor_lab.show.charts import (
    plot_changes as plot_changes,
    plot_moves as plot_moves,
    plot_shots as plot_shots,
    plot_transfer as plot_transfer,
)
from favor_lab.show.dashboard import Dashboard as Dashboard
from favor_lab.show.widgets import GroupExplorer as GroupExplorer, TokenMicroscope as TokenMicroscope
from favor_lab.trl_bridge import (
    grpo_trainer as grpo_trainer,
    trl_config as trl_config,
    trl_dataset as trl_dataset,
    trl_records as trl_records,
)
