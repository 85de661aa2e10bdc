"""Base to new on the shipped policy: half of the labels are taught, and each half is tested on its own.

``python data/results/base_to_new.py`` runs zero-shot, SFT and GRPO on the four drawn sets with three seeds, one file
each in ``base_to_new`` (finished ones are kept, so that it can be killed and started again), and writes
``base_to_new.md``. GRPO has its default settings, SFT the learning rate of the study.
"""

from __future__ import annotations

from tqdm import tqdm

from favor_lab import GRPOSettings
from favor_lab.activities.world import SETS
from favor_lab.runs.cells import Cell, chosen_settings
from favor_lab.runs.experiments import run_study
from favor_lab.runs.tasks import BASE_TO_NEW
from study import HERE, SHOTS, base_to_new_table

SEEDS = 3
FOLDER = HERE / "base_to_new"


def main() -> None:
    cells = [
        Cell(method, name, SHOTS if trains else 0, seed, task=BASE_TO_NEW)
        for method, trains in {"zero-shot": False, "zero-shot-answer": False, "sft": True, "grpo": True}.items()
        for name in SETS
        for seed in range(SEEDS if trains else 1)
    ]
    settings = chosen_settings() | {"grpo": GRPOSettings()}
    for _ in tqdm(run_study(cells, FOLDER, settings), total=len(cells), desc="base to new"):
        (HERE / "base_to_new.md").write_text(base_to_new_table(FOLDER), encoding="utf-8")


if __name__ == "__main__":
    main()
