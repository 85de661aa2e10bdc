"""The committed results as text and picture: ``python tests/benchmarks/render.py``; with ``--add FILE`` also those of
a file that ``measure_card.py`` has written, once it is checked.

Reads data/results/benchmarks/*.json and writes, in data/results, `benchmarks.md` (every result, with where and when it
was measured), `benchmarks_summary.md` (the few lines that a page quotes through quote.py) and `figures/benchmarks.png`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
POLICIES = {"pocket": "pocket policy", "2b": "Qwen2-VL-2B's shape, random weights", "tiny": "tiny policy"}
WAITING = {  # ways of busy.py that are not told by their variables alone
    "default": "torch's default: they spin, then sleep",
    "one-thread": "one thread: none waits",
    "notebook": "`share_cores()` in a notebook",
}
MANY = 8  # recipes that one line of the summary names
CARDS = (6, 8, 12, 16, 24)  # GB, as in memory.py
Result = dict[str, Any]


def read(folder: Path) -> list[Result]:
    """All results of a folder, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def of(results: Iterable[Result], benchmark: str) -> list[Result]:
    return [result for result in results if result["benchmark"] == benchmark]


# --------------------------------------------------------------------------------------------------------------- text


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table.

    >>> print(table(["a", "b"], [[1, 2]]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def place(result: Result) -> str:
    """The hardware a result was measured on."""
    where = result["environment"]
    return where.get("gpu") or f"{where['processor']}, {where['threads']} thread{'s' * (where['threads'] != 1)}"


def origin(result: Result) -> str:
    """Machine, versions and date, for the line under a table."""
    where = result["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return f"{place(result)}; Python {where['python']}, {versions}; {where['date'][:10]}."


def seconds(value: float) -> str:
    """
    >>> seconds(12.345), seconds(0.12345), seconds(0.0021)
    ('12.3 s', '0.123 s', '2.1 ms')
    """
    return f"{value:.1f} s" if value >= 10 else f"{value:.3f} s" if value >= 0.1 else f"{1e3 * value:.1f} ms"


def amount(result: Result, value: float, unit: float) -> str:
    """A time: in seconds where a GPU with a name took it, else in units of another time of the same run, since seconds
    on an unnamed CPU cannot be compared.

    >>> amount({"environment": {}}, 3.0, unit=2.0), amount({"environment": {"gpu": "some"}}, 3.0, unit=2.0)
    ('1.50', '3.000 s')
    """
    return seconds(value) if result["environment"].get("gpu") else f"{value / unit:.2f}"


def time_head(result: Result, unit: str) -> str:
    return "" if result["environment"].get("gpu") else f", in units of {unit}"


def gigabytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.2f} GB"


def setting(result: Result) -> str:
    """What was run, in words."""
    args = result["arguments"]
    words = [f"{args['prompts']} prompts x G {args['group_size']}", f"{args['length']} tokens"]
    words += [f"{args['image_size']}² images", args["dtype"], f"LoRA rank {args['lora_rank']}", f"beta {args['beta']}"]
    words += ["gradient checkpointing"] * bool(args["gradient_checkpointing"])
    words += [f"{args['micro_batch']} rows in a pass"] * bool(args["micro_batch"])
    words += [f"decoding {args['decoding']}"] + ["TRL in autocast"] * bool(args.get("trl_autocast"))
    return ", ".join(words)


def step_text(result: Result) -> str:
    """Both trainers, their ratio, and where our seconds go."""
    rows, unit = [], result.get("ours", result.get("trl"))["seconds"]["median"]
    for side, name in (("trl", "TRL GRPOTrainer"), ("ours", "favor_lab")):
        if side in result:
            stats = result[side]["seconds"]
            middle, low, high = (amount(result, value, unit) for value in (stats["median"], *stats["quartiles"]))
            rows.append([name, f"{middle} ({low} to {high})", gigabytes(result[side].get("peak_bytes"))])
    head = "a step, median (quartiles)" + time_head(result, "favor_lab's step")
    text = table(["trainer", head, "peak memory"], rows) + "\n"
    if "ratio" in result:
        low, high = result["ratio"]["quartiles"]
        text += f"Ratio, step by step: median **{result['ratio']['median']:.2f}**, quartiles {low:.2f} to {high:.2f}. "
    if "ours" in result:
        phases = ", ".join(f"{phase} {value / unit:.0%}" for phase, value in result["ours"]["phases"].items())
        times = unit / sum(result["bound"].values())
        text += f"favor_lab takes {times:.2f} times the counted bound at this machine's rates. Its phases: {phases}. "
        text += "Its images are encoded once, before the first step, which is not in these times.\n"
    return f"{POLICIES[result['arguments']['policy']]}; {setting(result)}.\n\n{text}"


def memory_text(result: Result) -> str:
    """The grid: measured, estimated, and the smallest card."""
    gpu = result["kind"] == "gpu"
    rows = []
    for entry in result["cells"]:
        cell = entry["cell"]
        measured = entry.get("allocated_bytes") if gpu else entry.get("growth_bytes")
        card = f"{entry['card_gb']} GB" if entry.get("card_gb") else f"over {CARDS[-1]} GB" if "cards" in entry else ""
        card = "failed" if "error" in entry else card
        rows.append([
            cell["group_size"], f"{cell['image_size']}²", cell["length"],
            "4-bit LoRA" if cell["weights"] == "4bit" else f"{cell['dtype']} LoRA",
            "kept" if cell["features"] == "kept" else "each step",
            gigabytes(measured) if measured is not None else "out of memory" if "oom" in entry else "failed",
            gigabytes(max(entry["estimate_bytes"].values())) if entry.get("estimate_bytes") else "",
            card,
        ])  # fmt: skip
    head = ["G", "image", "tokens", "weights", "features", "peak memory", "estimated", "smallest card"]
    args, note = result["arguments"], "" if gpu else f" Mind: {result['note']}."
    note += f" Left out: {result['skipped']}." if result.get("skipped") else ""
    every = f"{args['prompts']} prompts per step, one group in a pass" if not args.get("micro_batch") else (
        f"{args['prompts']} prompts per step, {args['micro_batch']} rows in a pass"
    )  # fmt: skip
    checkpointing = "with" if args["gradient_checkpointing"] else "without"
    return f"{POLICIES[args['policy']]}; {every}, {checkpointing} gradient checkpointing.{note}\n\n" + table(
        head, sorted(rows, key=lambda row: (row[3], row[4], *row[:1], len(row[1]), row[1], row[2]))
    )


def peaks_text(result: Result) -> str:
    """Measured and estimated peak of each phase, and the error."""
    rows = []
    for entry in result["cells"]:
        cell, measured = entry["cell"], entry["measured_bytes"]
        words = [f"{cell['prompts']} x {cell['group_size']}", f"{cell['prompt_tokens']} + {cell['length']}"]
        words += ["yes" if cell["gradient_checkpointing"] else "no", cell["micro_batch"] or "all"]
        pairs = [(measured[name] / 1e6, entry["estimate_bytes"][name] / 1e6) for name in measured]
        rows.append([*words, *(f"{size:,.0f} ({guess / size - 1:+.1%})" for size, guess in pairs)])
    head = ["B x G", "P + L", "checkpointing", "rows in a pass", *result["cells"][0]["measured_bytes"]]
    worst = max(abs(error) for entry in result["cells"] for error in entry["error"].values())
    weights = result["cells"][0]["weights_bytes"] / 1e6
    args = result["arguments"]
    return (
        f"{POLICIES[args['policy']]}, {args['dtype']}, LoRA rank {args['lora_rank']}, weights of {weights:,.0f} MB."
        f" Tensors at the peak of each phase, in MB, and in brackets by how much the estimate of `favor_lab.fits` is"
        f" off: {worst:.1%} at most. sample: prefill and decode; loss: score and backward.\n\n"
    ) + table(head, rows)


def growth_text(result: Result) -> str:
    """The sweeps with the expected seconds, and the two claims."""
    from growth import expected

    text = f"{POLICIES[result['arguments']['policy']]}; around {setting(result)}.\n\n"
    rows = []
    for points in result["sweeps"].values():
        for point, line in zip(points, expected(points), strict=True):
            group = point.get("group_size", result["arguments"]["group_size"])
            length = point.get("length", result["arguments"]["length"])
            times = [point["seconds"]["median"], line]
            times += [point["phases"].get(phase, 0.0) for phase in ("sample", "reference", "loss")]
            unit = points[0]["seconds"]["median"]
            rows.append([group, point["prompt_tokens"], length, *(amount(result, time, unit) for time in times)])
    head = ["G", "prompt tokens", "completion tokens", "a step", "expected", "sample", "reference", "loss"]
    head[3] += time_head(result, "the first of its sweep")
    text += table(head, rows) + "\n"
    for step in result.get("doubling", ()):
        text += (
            f"- G {step['from']} to {2 * step['from']}: {step['measured']:.2f} times the seconds, "
            f"{step['counted']:.2f} times counted; quotient {step['excess']:.2f}\n"
        )
    if growth := result.get("prompt_growth"):
        text += (
            f"- prompt of {growth['from_tokens']} to {growth['to_tokens']} tokens: {growth['measured']:.2f} times the "
            f"seconds; counted {growth['counted_once_a_group']:.2f} with each prompt once per group, "
            f"{growth['counted_once_a_completion']:.2f} with each prompt once per completion\n"
        )
    return text


def parts_text(result: Result) -> str:
    """Each part of a step, plainly and fast."""
    rows = []
    for part, ways in result["parts"].items():
        for way, entry in ways.items():
            low, high = entry["ratio"]["quartiles"]
            rows.append([part, way, f"{entry['ratio']['median']:.2f} ({low:.2f} to {high:.2f})"])
    args = result["arguments"]
    words = "of a fixed length" if args["fixed_length"] else f"of {result['mean_length']:.0f} tokens on average"
    text = (
        f"{POLICIES[args['policy']]}; {args['prompts']} prompts x G {args['group_size']}, completions {words}, at most "
    )
    text += f"{args['length']}; log-probabilities differ by {result['largest_difference']:.1e} at most.\n\n"
    return text + table(["part", "way", "time, in units of the part's last line (quartiles)"], rows)


def budget_text(result: Result) -> str:
    """Each phase's share of a step and its distance from its bound; what is counted; operations per decoded token."""
    phases = list(result["cells"][0]["phases"])
    shares, counts = [], {}
    for cell in result["cells"]:
        key = [cell["length"], cell["group_size"]]
        times = f"{cell['seconds'] / cell['bound']:.2f}"
        shares.append([*key, cell["threads"], times] + [
            f"{phase['seconds'] / cell['seconds']:.0%} ({phase['seconds'] / phase['bound']:.1f})"
            for phase in cell["phases"].values()
        ])  # fmt: skip
        counts[tuple(key)] = key + [
            f"{phase['ideal_flops'] / 1e9:.2f}, {phase['ideal_bytes'] / 1e6:.0f}, {phase['tokens']:,}"
            for phase in cell["phases"].values()
        ]
    head = ["tokens", "G", "threads", "times the bound", *phases]
    operations = "; ".join(f"{how} {count}" for how, count in result["operations_per_token"].items())
    return (
        f"{setting(result)}\n\nEach phase's share of a step, and in brackets how many times its counted bound it takes,"
        f" at the machine's measured rates.\n\n{table(head, shares)}\n"
        "The budget: the least GFLOP and MB read of each phase, and the tokens that were run through the language"
        f" model.\n\n{table(['tokens', 'G', *phases], counts.values())}"
        + (f"\nOperations that one more token of all rows costs, views left out: {operations}.\n" if operations else "")
    )


def recipes_text(result: Result) -> str:
    """Steps with recipes in units of the plain step, and where their time goes in the same units."""
    plain = result["recipes"]["plain"]["phases"]
    phases = [phase for phase in plain if max(side["phases"][phase] for side in result["recipes"].values()) > 0]
    unit, rows = result["recipes"]["plain"]["seconds"]["median"], []
    for name, side in result["recipes"].items():
        low, high = side["ratio"]["quartiles"]
        ratio = "1" if name == "plain" else f"**{side['ratio']['median']:.2f}** ({low:.2f} to {high:.2f})"
        rows.append([name, ratio, *(f"{side['phases'][phase] / unit:.2f}" for phase in phases)])
    coefficients = ", ".join(result["arguments"]["coefficients"])
    text = (
        f"{policy_of(result)}; {setting(result)}{f', {coefficients}' * bool(coefficients)}. In units of a plain step, "
    )
    text += "turn by turn for the whole step, and of their medians for its phases.\n\n"
    return text + table(["recipe", "a step, median (quartiles)", *phases], rows)


def run_text(result: Result) -> str:
    """The long run: total, phases, memory, decoding."""
    args, decoding = result["arguments"], result["decoding"]
    phases = [[phase, seconds(value)] for phase, value in result["phases"].items()]
    text = f"{POLICIES[args['policy']]}; {args['steps']} steps of {setting(result)}.\n\n"
    text += table(
        ["phase", "median seconds of a step"], [*phases, ["whole step", seconds(result["seconds"]["median"])]]
    )
    text += f"\n{args['steps']} steps in **{result['total_seconds'] / 60:.2f} min**, encoding the images included"
    text += f"; peak memory {gigabytes(result['peak_bytes'])}. " if "peak_bytes" in result else ". "
    return text + (
        f"Decoding takes {seconds(decoding['decode_seconds'])} per step; "
        f"reading {gigabytes(decoding['weight_bytes'])} of weights once per token position "
        f"at {decoding['bytes_per_second'] / 1e9:.0f} GB/s takes "
        f"{seconds(decoding['bound_seconds'])}: "
        f"{100 * decoding['share']:.0f} % of this bound.\n"
    )


def busy_text(result: Result) -> str:
    """Each way in which threads may wait, alone and beside busy processes, and what a fair share would be."""
    args, where, rows = result["arguments"], result["environment"], []
    for way in args["ways"]:
        cells = [cell for cell in result["cells"] if cell["way"] == way]
        ratios = [(cell["ratio"]["median"], *cell["ratio"]["quartiles"]) for cell in cells]
        words = WAITING.get(way, " ".join(f"`{name}={value}`" for name, value in cells[0]["variables"].items()))
        rows.append(
            [words, cells[0]["threads"], *(f"{mid:.2f} ({low:.2f} to {high:.2f})" for mid, low, high in ratios)]
        )
    shares = ", ".join(f"{max(1.0, (count + where['threads']) / where['cores']):.2g}" for count in args["busy"])
    head = ["threads that wait", "threads", *(f"beside {count}" if count else "alone" for count in args["busy"])]
    text = f"{POLICIES[args['policy']]}; {setting(result)}. A step alone and beside busy processes, in units of the "
    return f"{text}default's alone, median (quartiles).\n\n{table(head, rows)}\n" + (
        f"With an equal share of the {where['cores']} cores for every busy process and every thread, a step of "
        f"{where['threads']} threads would take at most {shares} times as long as alone.\n"
    )


def import_text(result: Result) -> str:
    rows, unit = [], result["imports"]["torch_transformers"]["median"]
    for entry in result["imports"].values():
        middle, low, high = (f"{value / unit:.3f}" for value in (entry["median"], *entry["quartiles"]))
        rows.append([f"`{entry['statement']}`", f"{middle} ({low} to {high})"])
    return table(["in a fresh interpreter", "median (quartiles), in units of the last line"], rows)


SECTIONS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "step": ("A step, next to TRL's", step_text),
    "parts": ("What each part of the fast path buys", parts_text),
    "budget": ("Where a step's time goes", budget_text),
    "recipes": ("What a step costs with a recipe", recipes_text),
    "run": ("A long run", run_text),
    "memory": ("Memory", memory_text),
    "peaks": ("Tensors in memory, measured and estimated", peaks_text),
    "growth": ("Growth", growth_text),
    "busy": ("Beside busy processes", busy_text),
    "import": ("Imports", import_text),
}


def page(results: Sequence[Result]) -> str:
    """All results."""
    text = "# Benchmarks\n\nMade by the scripts in tests/benchmarks; every single time is in the folder benchmarks.\n"
    if pictured(results):
        text += "\n![Steps, memory and growth](figures/benchmarks.png)\n"
    for benchmark, (title, write) in SECTIONS.items():
        if matching := of(results, benchmark):
            text += f"\n## {title}\n"
        for result in matching:
            text += f"\n{write(result).rstrip()}{without_graph(result)}\n\n{origin(result)}\n"
    return text


def without_graph(result: Result) -> str:
    """A remark where a CUDA graph could not be captured, which the times and the memory depend on."""
    entries = [result, *(result["cells"] if result["benchmark"] == "memory" else ())]
    texts = [text for entry in entries for text in entry.get("warnings", ())]
    return "\n\n**Decoded without a CUDA graph**" * any("without a CUDA graph" in text for text in texts)


def summary(results: Sequence[Result]) -> str:
    """One line per result: what a page quotes."""
    rows: list[list[str]] = []
    for result in of(results, "step"):
        if "ratio" in result:
            low, high = result["ratio"]["quartiles"]
            measured = f"**{result['ratio']['median']:.1f}** times as fast as TRL ({low:.1f} to {high:.1f})"
            if result["environment"].get("gpu"):
                trl, ours = (seconds(result[side]["seconds"]["median"]) for side in ("trl", "ours"))
                measured += f": {ours}, TRL {trl}"
            measured += f"; {result['ours']['seconds']['median'] / sum(result['bound'].values()):.1f} times the bound"
            rows.append([f"a step, {short(result)}", measured, place(result)])
    for result in of(results, "recipes"):
        sides = {name: side["ratio"]["median"] for name, side in result["recipes"].items() if name != "plain"}
        measured = ", ".join(f"{name} {ratio:.2f}" for name, ratio in sides.items())
        if len(sides) > MANY:
            dearest = sorted(sides, key=lambda name: -sides[name])[:4]
            measured = ", ".join(f"{name} {sides[name]:.2f}" for name in dearest)
            measured = f"median of {len(sides)} recipes {median(sides.values()):.2f}; the dearest {measured}"
        words = [
            short(result),
            *["no KL penalty"] * (not result["arguments"]["beta"]),
            *result["arguments"]["coefficients"],
        ]
        rows.append([f"a step with a recipe, {', '.join(words)}", f"{measured} times a plain step", place(result)])
    for result in of(results, "run"):
        share = f"decoding at {100 * result['decoding']['share']:.0f} % of the bandwidth bound"
        minutes = f"{result['total_seconds'] / 60:.1f} min, {share}"
        rows.append([f"{result['arguments']['steps']} steps, {short(result)}", minutes, place(result)])
    for result in of(results, "memory"):
        rows += [
            [f"peak memory, {policy_of(result)}, {words}", value, place(result)]
            for words, value in memory_lines(result)
        ]
    for result in of(results, "growth"):
        if result.get("doubling"):
            worst = max(step["excess"] for step in result["doubling"])
            measured = f"at most {worst:.2f} times what its completion tokens alone cost"
            rows.append([f"doubling G, {policy_of(result)}", measured, place(result)])
    for result in of(results, "busy"):
        args, medians = result["arguments"], {(c["way"], c["busy"]): c["ratio"]["median"] for c in result["cells"]}
        for count in sorted({*args["busy"]} - {0}) if "passive" in args["ways"] else ():
            measured = f"**{medians['passive', count]:.1f}** times a step alone where threads that wait sleep, "
            measured += f"{medians['default', count]:.1f} where they spin first, torch's default"
            busy = f"{count} busy process{'es' * (count > 1)}"
            rows.append([f"a step beside {busy}, {short(result)}", measured, place(result)])
    for result in of(results, "import"):
        ours, theirs = result["imports"]["favor_lab"], result["imports"]["torch_transformers"]
        measured = f"1/{theirs['median'] / ours['median']:.0f} of the time of `import torch, transformers`"
        rows.append(["`import favor_lab`", measured, place(result)])
    return table(["what", "measured", "on"], rows)


def policy_of(result: Result) -> str:
    return POLICIES[result["arguments"]["policy"]]


def short(result: Result) -> str:
    args = result["arguments"]
    text = f"{policy_of(result)}, {args['prompts']} prompts x G {args['group_size']}, {args['length']} tokens"
    return text + ", gradient checkpointing" * bool(args["gradient_checkpointing"])


def memory_lines(result: Result) -> list[tuple[str, str]]:
    """The largest measured cell of G 8 with kept features for each kind of weights, in words."""
    lines = []
    for weights in ("unquantised", "4bit"):
        cells = [
            entry for entry in result["cells"]
            if "allocated_bytes" in entry and entry["cell"]["weights"] == weights
            and entry["cell"]["features"] == "kept" and entry["cell"]["group_size"] == 8
        ]  # fmt: skip
        for entry in sorted(cells, key=lambda entry: entry["allocated_bytes"])[-1:]:
            cell = entry["cell"]
            kind = "4-bit" if weights == "4bit" else cell["dtype"]
            words = f"{kind} LoRA, G 8, {cell['image_size']}² image, {cell['length']} tokens"
            card = f", fits on a card of {entry['card_gb']} GB" if entry.get("card_gb") else ""
            lines.append((words, gigabytes(entry["allocated_bytes"]) + card))
    return lines


# ------------------------------------------------------------------------------------------------------------- figure


def pictured(results: Sequence[Result]) -> bool:
    return any(of(results, benchmark) for benchmark in ("step", "memory", "growth"))


def figure(results: Sequence[Result]) -> Any:
    """First row: time of a step, and peak memory; then a row of growth for each policy and machine."""
    import matplotlib
    from matplotlib.figure import Figure

    from favor_lab.show.style import style_settings

    grown = of(results, "growth")
    top = [
        (draw, found) for draw, name in ((draw_steps, "step"), (draw_memory, "memory")) if (found := of(results, name))
    ]
    rows = bool(top) + len(grown)
    with matplotlib.rc_context(style_settings()):
        drawn = Figure(figsize=(9.0, 3.0 * rows), layout="constrained", dpi=120)
        bands = drawn.subfigures(rows, 1, squeeze=False)[:, 0]
        if top:
            for axes, (draw, found) in zip(bands[0].subplots(1, len(top), squeeze=False)[0], top, strict=True):
                draw(axes, found)
        for band, result in zip(bands[bool(top) :], grown, strict=True):
            draw_growth(band, result)
    return drawn


def draw_steps(axes: Any, results: Sequence[Result]) -> None:
    """A pair of bars for each comparison, as long as the times in units of favor_lab's step."""
    from favor_lab.show.style import BLUE, GREY

    names, longest = [], 1.0
    for i, result in enumerate(results):
        unit = result.get("ours", result.get("trl"))["seconds"]["median"]
        for side, colour, shift in (("trl", GREY, -0.19), ("ours", BLUE, 0.19)):
            if side in result:
                value = result[side]["seconds"]["median"]
                longest = max(longest, value / unit)
                axes.barh(i + shift, value / unit, height=0.34, color=colour)
                label = f"  {'TRL' if side == 'trl' else 'favor_lab'} {amount(result, value, unit)}"
                axes.text(value / unit, i + shift, label, va="center", fontsize=8)
        names.append(f"{result['arguments']['policy']}, {result['arguments']['length']} tokens\n{place(result)}")
    axes.set_yticks(range(len(names)), names)
    axes.set(
        xlim=(0, 1.25 * longest),
        xticks=[],
        ylim=(len(names) - 0.4, -0.6),
        title="Time of an optimiser step" + time_head(results[0], "favor_lab's"),
    )
    axes.spines["bottom"].set_visible(False)


def draw_memory(axes: Any, results: Sequence[Result]) -> None:
    """Peak memory against G, features kept: colours for image and length, dashed for weights in four bits."""
    from favor_lab.show.style import CYCLE, FAINT, GREY, MARKERS

    lines: dict[tuple[int, int, bool], list[tuple[int, float]]] = {}
    for entry in (entry for result in results for entry in result["cells"] if entry["cell"]["features"] == "kept"):
        cell, size = entry["cell"], entry.get("allocated_bytes", entry.get("growth_bytes"))
        if size is not None:
            key = (cell["image_size"], cell["length"], cell["weights"] == "4bit")
            lines.setdefault(key, []).append((cell["group_size"], size / 1e9))
    kinds = sorted({key[:2] for key in lines})
    for (image, length, quantised), points in sorted(lines.items()):
        i = kinds.index((image, length))
        style = dict(color=CYCLE[i % len(CYCLE)], marker=MARKERS[i % len(MARKERS)], markersize=4)
        name = f"{image}², {length} tokens" + ", 4-bit" * quantised
        axes.plot(*zip(*sorted(points), strict=True), label=name, linestyle="--" if quantised else "-", **style)
    gpu, top = results[0]["kind"] == "gpu", max((size for points in lines.values() for _, size in points), default=1.0)
    for card in (card for card in CARDS if gpu and card < 1.4 * top):
        axes.axhline(card, color=FAINT, zorder=0)
        right = dict(transform=axes.get_yaxis_transform(), va="center")
        axes.text(1.0, card, f" {card} GB card", color=GREY, fontsize=7, **right)
    groups = sorted({group for points in lines.values() for group, _ in points})
    title = "peak GPU memory, GB" if gpu else "CPU process, no GPU figure, GB"
    axes.set(title=title, xlabel="G", xticks=groups, ylim=(0, None))
    if lines:
        axes.legend(fontsize=7, ncols=2, handlelength=3, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def draw_growth(band: Any, result: Result) -> None:
    """Seconds of a step in each sweep: points measured, line expected."""
    from favor_lab.show.style import BLUE, ORANGE
    from growth import expected

    sweeps = result["sweeps"]
    keys = {"group": "group_size", "prompt": "prompt_tokens", "completion": "length"}
    labels = {"group": "G", "prompt": "prompt tokens", "completion": "completion tokens"}
    for axes, (sweep, points) in zip(band.subplots(1, len(sweeps), squeeze=False)[0], sweeps.items(), strict=True):
        unit = 1.0 if result["environment"].get("gpu") else points[0]["seconds"]["median"]
        x, y = [point[keys[sweep]] for point in points], [point["seconds"]["median"] / unit for point in points]
        quartiles = [[point["seconds"]["quartiles"][i] / unit for point in points] for i in (0, 1)]
        spread = [[abs(v - q) for v, q in zip(y, side, strict=True)] for side in quartiles]
        axes.errorbar(x, y, spread, color=BLUE, marker="o", linestyle="none", label="measured, quartiles")
        line = [value / unit for value in expected(points)]
        axes.plot(x, line, color=ORANGE, label="expected: tokens and FLOPs, from the first point")
        axes.set(xlabel=labels[sweep], ylim=(0, None), title="")
        if sweep == next(iter(sweeps)):
            axes.set(ylabel="seconds of a step" if unit == 1.0 else "step (first point: 1)")
    band.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    band.suptitle(f"Growth: {policy_of(result)}, {place(result)}", fontsize=10, weight="bold", x=0.01, ha="left")


def add(path: Path, folder: Path, machine: str | None, options: argparse.ArgumentParser) -> None:
    """Unpack the file of a measured card, and say what is in it."""
    from card_file import outcome, unpack

    try:
        new, lines = unpack(path, folder, machine), outcome(path)
    except (ValueError, OSError) as error:
        options.error(f"nothing was added: {error}")
    print(*lines, *(f"added {target}" for target in new), sep="\n")


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=Path, default=RESULTS / "benchmarks", help="folder of the JSON files")
    options.add_argument("--out", type=Path, default=RESULTS, help="where the pages go (default: data/results)")
    options.add_argument("--add", type=Path, metavar="FILE", help="first put the results of a measured card there")
    options.add_argument(
        "--machine", help="with --add: another name for its machine, if there are results of that name"
    )
    args = options.parse_args(argv)
    if args.add:
        add(args.add, args.results, args.machine, options)
    results = read(args.results)
    if not results:
        options.error(f"{args.results} holds no results: run a benchmark first")
    (args.out / "figures").mkdir(parents=True, exist_ok=True)
    (args.out / "benchmarks.md").write_text(page(results))
    (args.out / "benchmarks_summary.md").write_text(summary(results))
    if pictured(results):
        figure(results).savefig(args.out / "figures" / "benchmarks.png")
    print(page(results))


if __name__ == "__main__":
    main()
