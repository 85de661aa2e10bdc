"""What a recipe's completions look like over a training: every sampled row of one run, for notebooks 13 to 16.

``python data/results/recipe_traces.py aepo ttrv`` trains each recipe (``grpo`` is plain GRPO) on cartoon, four shots,
seed 0, and writes ``recipe_traces/NAME.json.gz``: the coefficients, and for each step its record with all rows. A
recipe with coefficients of another size is named with them: ``vlm-r1:price=1``. What is there is kept; delete it to run
it again.
"""

from __future__ import annotations

import argparse
import gzip
import json

from tqdm import tqdm

from favor_lab import GRPOSettings, evaluate, few_shot, load_activities, load_policy
from favor_lab.files import jsonable, write_whole
from favor_lab.recipes import find_recipe
from study import HERE, SHOTS

FOLDER = HERE / "recipe_traces"


def trace(name: str) -> dict[str, object]:
    """One run: settings, steps, and the greedy answers to 160 test images afterwards."""
    recipe, _, given = name.partition(":")
    coefficients = {key: float(value) for key, _, value in (pair.partition("=") for pair in given.split(",") if pair)}
    settings = GRPOSettings(log_rows=10**6, coefficients=coefficients)
    shots = few_shot(load_activities("cartoon"), SHOTS, seed=0, test=10)
    policy = load_policy("pocket", seed=0)
    run = find_recipe("" if recipe == "grpo" else recipe).train(policy, shots, settings)
    steps = [record.to_dict() for record in tqdm(run, total=settings.steps, desc=name)]
    for step in steps:
        del step["seconds"]
    after = evaluate(policy, shots.test, shots.labels)
    result = {"accuracy": after.accuracy, "format_rate": after.format_rate, "truth_rate": after.truth_rate}
    return {"recipe": name, "coefficients": coefficients, "after": result, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="recipes, each with its coefficients behind a colon, or grpo")
    FOLDER.mkdir(exist_ok=True)
    for name in parser.parse_args().names:
        target = FOLDER / f"{name.replace(':', '+').replace('=', '')}.json.gz"
        if not target.exists():
            text = json.dumps(jsonable(trace(name)), ensure_ascii=False)
            write_whole(target, gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
