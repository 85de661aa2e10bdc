"""What is seen: labelled images, drawn or read from disk, and few-shot selections of them. No models here."""

from .fewshot import Example, FewShot, few_shot
from .sources import ActivityData, Record, export_folder, load_activities

__all__ = ["ActivityData", "Example", "FewShot", "Record", "export_folder", "few_shot", "load_activities"]
