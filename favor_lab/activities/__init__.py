"""What the model looks at: labelled images, drawn or read from disk, and few-shot selections of them. No models here.

`images` reads and checks one image, `labels` compares and checks labels, `data` holds records, `fewshot` selects;
`folder`, `hf_datasets`, `world` (drawn scenes) and `public` (published sets) are where images come from, `load` finds a
set by its name. `listing` has what lies in a folder and what is wrong with it (`faults`), `checks` reports that;
`covering` hides parts.
"""

from favor_lab.activities.data import ActivityData, Record
from favor_lab.activities.fewshot import FewShot, Transfer, base_to_new, cross_dataset, few_shot, label_overlap
from favor_lab.activities.hf_datasets import from_datasets, to_datasets
from favor_lab.activities.images import Example
from favor_lab.activities.load import load_activities
from favor_lab.activities.world.sets import export_folder

__all__ = [
    "ActivityData", "Example", "FewShot", "Record", "Transfer", "base_to_new", "cross_dataset", "export_folder",
    "few_shot", "from_datasets", "label_overlap", "load_activities", "to_datasets",
]  # fmt: skip
