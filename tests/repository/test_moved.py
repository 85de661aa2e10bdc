"""Import paths of favor_lab 0.1.0: they work, warn, and lead to the same objects."""

import importlib
import pickle
import subprocess
import sys

import pytest

import favor_lab
from favor_lab.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_each_old_module_leads_to_modules_that_exist(old):
    assert importlib.import_module(f"favor_lab.{old}").__name__ == f"favor_lab.{old}"
    for module in MOVED[old]:
        importlib.import_module(f"favor_lab.{module}")


@pytest.mark.parametrize(
    ("old", "name"),
    [("study.report", "RunFolder"), ("activities.sources", "decode_image"), ("experiments", "load_results")]
    + [("vlm.policy", "load_policy"), ("grpo.records", "GRPOSettings"), ("study.plots", "plot_confusion")]
    + [("grpo.summary", "troubles"), ("study.cards", "write_card"), ("study.sharing", "Shared")],
)
def test_a_name_of_an_old_module_is_the_new_object_and_says_where_it_is(old, name):
    with pytest.warns(DeprecationWarning, match=f"favor_lab.{old}.{name} is now favor_lab."):
        value = getattr(importlib.import_module(f"favor_lab.{old}"), name)
    assert value.__module__ != f"favor_lab.{old}"
    assert pickle.loads(pickle.dumps(value)) is value


def test_a_name_that_is_nowhere_is_an_attribute_error_that_names_the_new_modules():
    with pytest.raises(AttributeError, match="favor_lab.experiments has moved to runs.experiments"):
        importlib.import_module("favor_lab.experiments").no_such_name  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("favor_lab.no_such_module")


def test_old_paths_cost_nothing_until_they_are_used():
    code = "import sys, favor_lab, favor_lab.study.report; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    assert favor_lab.load_policy.__module__ == "favor_lab.vlm.loading"
