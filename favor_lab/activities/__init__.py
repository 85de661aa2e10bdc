"""What is seen: labelled images, drawn or read from disk, and few-shot selections of them. No models here."""

from .fewshot import Example, FewShot, Transfer, base_to_new, cross_dataset, few_shot, label_overlap
from .sources import ActivityData, Record, export_folder, load_activities

__all__ = [
    "ActivityData", "Example", "FewShot", "Record", "Transfer", "base_to_new", "cross_dataset", "export_folder",
    "few_shot", "label_overlap", "load_activities",
]  # fmt: skip
