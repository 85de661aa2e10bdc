"""What is given away: the card says what the run's files say, the weights are the run's, and no path comes along."""

import ast
import importlib.metadata
import json
import re
import shutil
import signal
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import mistune
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

import forks
from favor_lab import compare, encode_prompts, load_policy, model_card, share
from favor_lab.cli import main
from favor_lab.files import locked
from favor_lab.sharing.export import PushError, push
from favor_lab.sharing.finished import public_sources, without_paths
from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.run_folder import RunFolder
from pictures import leave_unrendered, picture

pytestmark = pytest.mark.slow

LABELS = ["riding_a_bike", "reading", "phoning"]
NASTY = "a|b `c` ``` <script>alert(1)</script> [x](http://y) *z* $$q$$ \u202e &amp;"
ADAPTER = {"README.md", "adapter_config.json", "adapter_model.safetensors", "settings.json", "training_images.json"}
EVALUATED = {"evaluation_before.json", "evaluation_after.json"}


@pytest.fixture(autouse=True)
def nothing_is_sent(monkeypatch, tmp_path):
    """Whoever asks for the Hub without a fake of it fails."""

    def refuse(*arguments, **keywords):
        raise AssertionError("something was to be sent")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    monkeypatch.setattr(huggingface_hub, "get_token", refuse)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def runs(tiny_checkpoint, tmp_path_factory) -> Path:
    """Runs by the command line, on photos of one's own: `sft`, whose adapter has learnt, and `train`."""
    folder = tmp_path_factory.mktemp("annas-machine")
    for row, label in enumerate(LABELS):
        for column in range(4):
            picture(folder / "photos" / label / f"anna {column}.png", 10 * row + column, "RGB", (90, 60))
    options = ["--policy", str(tiny_checkpoint), "--data", "folder", "--root", str(folder / "photos"), "--shots", "2"]
    options += ["--test", "2", "--steps", "3", "--prompts-per-step", "2"]
    small = ["--group-size", "2", "--max-new-tokens", "4", "--max-pixels", "7840"]
    with pytest.MonkeyPatch.context() as patch:
        leave_unrendered(patch)
        assert main(["sft", *options, "--learning-rate", "0.03", "--out", str(folder / "sft")]) == 0
        assert main(["train", *options, *small, "--out", str(folder / "train")]) == 0
    return folder


@pytest.fixture
def sft_run(runs) -> RunFolder:
    return RunFolder.open(runs / "sft")


@pytest.fixture
def run(runs, tmp_path) -> RunFolder:
    """A copy of the GRPO run, to be changed: without the manifest that ties its files together."""
    return RunFolder(shutil.copytree(runs / "train", tmp_path / "run", ignore=shutil.ignore_patterns("manifest.json")))


def evaluation(verdicts, text="<think>x</think><answer>reading</answer>", label="reading", **changes) -> Evaluation:
    """Answers to as many images as there are verdicts."""
    answers = [
        Answered(f"/secret/{i}.png", label, "reading" if right else "phoning", right, True, 0, 0, text)
        for i, right in enumerate(verdicts)
    ]
    return Evaluation("/secret/base", "think", [label, "phoning"], [replace(a, **changes) for a in answers], 1.0)


def put(run, before=None, after=None):
    for when, evaluation in (("before", before), ("after", after)):
        (run.path / f"evaluation_{when}.json").unlink(missing_ok=True)
        if evaluation is not None:
            evaluation.save(run.path / f"evaluation_{when}.json")


def change(run, part, **values):
    settings = run.settings
    settings[part] |= values
    run.save("settings.json", settings)


class Page(HTMLParser):
    """A card as a Markdown reader shows it: tables (rows of cells), code blocks, and the text outside of both."""

    def __init__(self, card: str):
        super().__init__()
        _, front, body = re.split("^---\n", card, maxsplit=2, flags=re.MULTILINE)
        self.front = yaml.safe_load(front)
        self.tables, self.code, self.prose, self.tags, self.links = [], [], "", [], []
        self.inside = []
        self.feed(mistune.create_markdown(plugins=["table", "url"], escape=False)(body))

    def handle_starttag(self, tag, attrs):
        self.inside.append(tag)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "pre":
            self.code.append("")

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        if "pre" in self.inside:
            self.code[-1] += data
        elif "td" in self.inside or "th" in self.inside:
            self.tables[-1][-1][-1] += data
        else:
            self.prose += data


def section(card, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)[1]


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def logits(model, policy, examples) -> torch.Tensor:
    """What a plain forward pass of `model` says to the prompts of `policy`: (B, P, V)."""
    images = [example.image.resize((56, 56)) for example in examples]
    pixels = policy.processor.image_processor(images=images, return_tensors="pt")
    resized = [replace(example, image=image) for example, image in zip(examples, images, strict=True)]
    prompts = encode_prompts(policy, resized, ["reading", "phoning"])
    types = (prompts.input_ids == policy.base.config.image_token_id).int()
    with torch.no_grad():
        output = model(
            input_ids=prompts.input_ids, attention_mask=prompts.attention_mask, mm_token_type_ids=types, **pixels
        )
    return output.logits


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_the_adapter_is_the_runs_in_favor_lab_and_in_plain_peft(sft_run, tiny_checkpoint, tiny_examples, tmp_path):
    folder = share(sft_run, tmp_path / "out")
    assert folder == tmp_path / "out" and files_of(folder) == ADAPTER | EVALUATED
    assert {oct(path.stat().st_mode) for path in folder.iterdir()} == {oct((folder / "README.md").stat().st_mode)}
    trained = load_policy(tiny_checkpoint, adapter=sft_run.adapter, device="cpu")
    expected = logits(trained.model, trained, tiny_examples)
    with trained.reference():
        assert (logits(trained.model, trained, tiny_examples) - expected).abs().max() > 0.1, "nothing was learnt"
    ours = load_policy(tiny_checkpoint, adapter=folder, device="cpu")
    base = Qwen2VLForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(folder))
    for model in (ours.model, theirs):
        torch.testing.assert_close(logits(model, ours, tiny_examples), expected, atol=1e-5, rtol=0)


def test_a_merged_checkpoint_needs_no_adapter_and_gives_the_same_logits(
    sft_run, tiny_checkpoint, tiny_examples, tmp_path
):
    folder = share(sft_run.path, tmp_path / "a" / "out", merged=True)
    adapter = {f"adapter/{name}" for name in ADAPTER if name.startswith("adapter")}
    whole = {"config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"}
    whole |= {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
        "settings.json",
        "training_images.json",
    }
    assert files_of(folder) == adapter | whole | EVALUATED
    trained = load_policy(tiny_checkpoint, adapter=sft_run.adapter, device="cpu")
    expected = logits(trained.model, trained, tiny_examples)
    plain = Qwen2VLForConditionalGeneration.from_pretrained(folder)
    assert plain.dtype == torch.float32 and plain.lm_head.weight is plain.model.language_model.embed_tokens.weight
    ours = load_policy(folder, lora_rank=0, device="cpu")
    for model in (plain, ours.model):
        torch.testing.assert_close(logits(model, ours, tiny_examples), expected, atol=1e-5, rtol=0)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert not [key for key in file.keys() if "lora" in key or "lm_head" in key]  # noqa: SIM118
        assert (folder / "model.safetensors").stat().st_mode == (folder / "README.md").stat().st_mode
    beside = load_policy(tiny_checkpoint, adapter=folder / "adapter", device="cpu")
    torch.testing.assert_close(logits(beside.model, ours, tiny_examples), expected)


def test_what_lies_beside_merged_weights_is_the_bases(run, tiny_checkpoint, tmp_path):
    folder = share(run, tmp_path / "out", merged=True)
    was, now = (GenerationConfig.from_pretrained(path).to_diff_dict() for path in (tiny_checkpoint, folder))
    assert was == now and now["top_k"] == 1
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tiny_checkpoint, folder)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert "local_files_only" not in json.loads((folder / "tokenizer_config.json").read_text())
    assert Qwen2VLImageProcessorPil.from_pretrained(folder).size["longest_edge"] == 7840, "the run's own budget"


@pytest.mark.parametrize(("named", "asked", "stored"), [
    ("auto", "bfloat16", "bfloat16"), ("bfloat16", "auto", "bfloat16"), ("auto", "auto", "float32"),
    ("bfloat16", "float32", "float32"),
])  # fmt: skip
def test_the_precision_of_merged_weights_is_the_named_one_and_stated(run, tmp_path, named, asked, stored):
    change(run, "policy", dtype=named)
    folder = share(run, tmp_path / "out", merged=True, dtype=asked)
    weights = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {getattr(torch, stored)}
    assert f"weights in {stored}" in (folder / "README.md").read_text()


def test_a_run_without_adapter_is_a_whole_checkpoint(run, tiny_policy, tiny_checkpoint, tmp_path):
    change(run, "policy", lora_rank=0)
    shutil.rmtree(run.adapter)
    trained = load_policy(tiny_checkpoint, lora_rank=0, device="cpu")
    with torch.no_grad():
        trained.base.model.language_model.norm.weight.add_(1.0)
    trained.save(run.path / "policy")
    folder = share(run, tmp_path / "out")
    assert not [name for name in files_of(folder) if "adapter" in name]
    loaded = load_policy(folder, lora_rank=0, device="cpu")
    assert loaded.base.model.language_model.norm.weight.equal(trained.base.model.language_model.norm.weight)
    card = (folder / "README.md").read_text()
    assert "trained without an adapter" in card and Page(card).front["library_name"] == "transformers"
    assert 'load_policy("out", lora_rank=0)' in card and "lora" not in Page(card).front["tags"]


# ----------------------------------------------------------------------------------------------------------- the card


def test_the_numbers_of_the_card_are_those_of_the_evaluations(run, tmp_path):
    before, after = evaluation([1, 0, 0, 0, 0, 0, 1]), evaluation([0, 1, 1, 1, 1, 0, 1])
    before.answers[3] = replace(before.answers[3], well_formed=False)
    put(run, before, after)
    card = model_card(run)
    page = Page(card)
    (results,) = (rows for rows in page.tables if rows[0][1] == "accuracy")
    assert results == [
        ["", "accuracy", "95 % interval", "right", "well formed"],
        ["zero-shot", "28.6 %", "8.2 % to 64.1 %", "2 of 7", "85.7 %"],
        ["2-shot GRPO", "71.4 %", "35.9 % to 91.8 %", "5 of 7", "100.0 %"],
    ]
    assert [f"{100 * bound:.1f} %" for bound in after.interval] == ["35.9 %", "91.8 %"]
    (by_label,) = (rows for rows in page.tables if rows[0][0] == "label")
    assert by_label[1:] == [["reading", "2 of 7", "5 of 7"], ["phoning", "0 of 0", "0 of 0"]]
    comparison = compare(before, after)
    assert comparison.summary() in card and (comparison.gained, comparison.lost) == (4, 1)
    assert "sign test p = 0.38" in card and "does not show that training changed" in card
    (index,) = page.front["model-index"]
    (result,) = index["results"]
    (metric,) = result["metrics"]
    assert metric["value"] == after.accuracy and metric["type"] == "accuracy"
    assert metric["name"] == "accuracy (95 % interval 35.9 to 91.8 %, 5 of 7 test images)"
    assert result["dataset"]["name"] == "photos"


def test_no_number_of_the_results_comes_from_elsewhere(sft_run):
    card = model_card(sft_run)
    before, after = (Evaluation.load(sft_run.path / f"evaluation_{when}.json") for when in ("before", "after"))
    allowed = {"95", "2", "0", "1"} | {str(n) for e in (before, after) for n in (e.correct, len(e))}
    allowed |= {f"{100 * x:.1f}" for e in (before, after) for x in (e.accuracy, *e.interval, e.format_rate)}
    allowed |= set(re.findall(r"[\d.]+", compare(before, after).summary()))
    assert set(re.findall(r"\d+(?:\.\d+)?", section(card, "Results"))) <= allowed


def test_the_settings_and_versions_are_the_runs(run, sft_run):
    rows = {row[0]: row[1] for rows in Page(model_card(run)).tables for row in rows}
    for name, value in run.settings["settings"].items():
        assert rows[name] == ("-" if value is None else str(value)), name
    assert rows["torch"] == importlib.metadata.version("torch") and rows["lora_rank"] == "16"
    assert rows["platform"].split(", ")[0] == run.settings["versions"]["platform"].split("-")[0]
    supervised = {row[0] for rows in Page(model_card(sft_run)).tables for row in rows}
    assert "learning_rate" in supervised and not {"group_size", "beta", "style"} & supervised


def test_the_front_matter_is_what_the_hub_reads(run):
    front = Page(model_card(run)).front
    assert front["library_name"] == "peft" and front["pipeline_tag"] == "image-text-to-text"
    assert "base_model" not in front and "license" not in front, "a folder's name is no model of the Hub"
    named = Page(model_card(run, base_model="Qwen/Qwen2-VL-2B-Instruct", license="mit", name="me/mine")).front
    assert (named["base_model"], named["base_model_relation"]) == ("Qwen/Qwen2-VL-2B-Instruct", "adapter")
    assert named["license"] == "mit" and named["model-index"][0]["name"] == "me/mine"
    merged = Page(model_card(run, merged=True, base_model="Qwen/Qwen2-VL-2B-Instruct")).front
    assert (merged["library_name"], merged["base_model_relation"]) == ("transformers", "finetune")


def test_a_whole_checkpoint_says_how_it_is_served_and_converted(run):
    card = Page(model_card(run, merged=True, name="me/mine"))
    (lines,) = [block.splitlines() for block in card.code if "vllm" in block]
    convert = "python convert_hf_to_gguf.py me/mine"
    assert lines == ["vllm serve me/mine", f"{convert} && {convert} --mmproj"]
    assert 'pipeline("image-text-to-text") of transformers needs torchvision' in card.prose
    odd = Page(model_card(run, merged=True, name="my `$(model)`"))
    assert any("vllm serve 'my `$(model)`'\n" in block for block in odd.code), "one word for a shell"
    assert "vllm" not in model_card(run) and "torchvision" not in model_card(run), "an adapter is neither"
    change(run, "policy", policy="pocket")
    assert "vllm" not in model_card(run, merged=True) and "torchvision" in model_card(run, merged=True)


def test_the_sections_that_every_card_has(run, sft_run):
    for card in (model_card(run), model_card(sft_run), model_card(run, merged=True)):
        titles = [
            "Data",
            "Training",
            "Results",
            "What it writes",
            "Intended use",
            "Limits",
            "How to load it",
            "Licence",
        ]
        assert re.findall(r"^## (.+)$", card, re.MULTILINE) == [*titles, "Citation"]
        assert "2508.10371" in card and "not the authors' code" in card and "None is chosen yet" in card
        assert "consent of people they show" in section(card, "Data") and "6 in all" in section(card, "Data")
        assert "phoning, reading, riding a bike" in section(card, "Data")
    assert "nothing was learnt" in section(model_card(run), "Limits"), "the tiny policy's groups are flat"
    assert "nothing was learnt" not in model_card(sft_run) and "supervised fine-tuning" in model_card(sft_run)
    assert "Which activity is this" in model_card(run) and "<think>" not in section(
        model_card(sft_run), "How to load it"
    )


@pytest.mark.parametrize("verdicts, words", [
    ([0] * 12, "Training made it worse"), ([1] * 12, "does not show"), ([1] * 11 + [0], "does not show"),
])  # fmt: skip
def test_a_difference_that_is_none_or_a_loss_is_called_so(run, verdicts, words):
    put(run, evaluation([1] * 12), evaluation(verdicts))
    assert words in section(model_card(run), "Results")
    put(run, evaluation([0] * 12), evaluation([1] * 12))
    gained = section(model_card(run), "Results")
    assert "worse" not in gained and "does not show" not in gained


def test_before_and_after_on_other_images_are_not_paired(run):
    put(run, evaluation([1, 0]), evaluation([1, 0, 1]))
    assert "different images" in section(model_card(run), "Results")


def test_a_run_without_test_images_says_so(run, sft_run, tmp_path):
    put(run)
    folder = share(run, tmp_path / "out")
    assert files_of(folder) == ADAPTER
    card = (folder / "README.md").read_text()
    assert "Nothing was measured" in section(card, "Results") and "model-index" not in Page(card).front
    assert "%" not in section(card, "Results") and "## What it writes" not in card
    assert "phoning, reading, riding a bike" in section(card, "Data"), "the records know the labels"
    copied = RunFolder(shutil.copytree(sft_run.path, tmp_path / "sft", ignore=shutil.ignore_patterns("manifest.json")))
    put(copied)
    assert "phoning, reading, riding a bike" in section(model_card(copied), "Data"), "the settings know them too"
    copied.save("settings.json", {name: part for name, part in copied.settings.items() if name != "labels"})
    card = model_card(copied)
    assert "the run folder does not say" in section(card, "Data") and "Which activity" not in card


def test_a_run_tested_before_alone_claims_no_gain(run):
    put(run, before=evaluation([1, 0, 1]))
    card = model_card(run)
    assert "Not measured: 2-shot GRPO" in section(card, "Results") and "model-index" not in Page(card).front


@pytest.mark.parametrize("right", [True, False])
def test_what_the_policy_and_the_labels_say_does_not_act(run, right):
    label = re.sub("[<>]", "", NASTY)  # no prompt can carry these two
    put(run, evaluation([right], NASTY, label), evaluation([right], "<answer>" + NASTY, label))
    change(run, "data", root=f"/secret/{NASTY.replace('/', ':')}")
    page = Page(model_card(run))
    escaped, label = (text.replace("\u202e", "\\u202e") for text in (NASTY, label))
    (by_label,) = (rows for rows in page.tables if rows[0][0] == "label")
    assert by_label[1][0] == label and {len(row) for row in by_label} == {3}
    assert "<answer>" + escaped in [code.strip("\n") for code in page.code]
    assert escaped.replace("/", ":") in page.prose and label in page.prose
    assert "script" not in page.tags and page.tags.count("em") == 1, "the title that the citation quotes"
    assert page.links == ["https://arxiv.org/abs/2508.10371", "https://arxiv.org/abs/2402.03300"]
    assert "\u202e" not in model_card(run)


def spoiled(run, text) -> str:
    """The card of a run whose settings, versions, labels, responses and names are all `text`."""
    fixed = {"steps", "style", "data", "policy", "open_vocabulary"}
    for part in ("data", "policy", "settings", "versions"):
        change(run, part, **{name: text for name in run.settings[part] if name not in fixed})
    change(run, "settings", open_vocabulary=True)  # no prompt can carry every label
    put(run, evaluation([1, 0], text, text), evaluation([0, 1], text, text, answer=text))
    return model_card(run, name=text, license=text, base_model="me/base")


@pytest.mark.parametrize("text", [
    "---", "# x", "1. x", "- x", "> x", "+ x", "===", "| x |", "a | b", "<img src=x onerror=alert(1)>", "&lt;b&gt;",
    "https://evil.example/x", "HTTP://evil.example", "www.evil.example", "me@evil.example", "[a](b)", "![a](b)", "`",
    "<https://evil.example>", "```", "$x$", "~~x~~", "**x**", "a\n---\nb: c\n---\n# d", "a\r\n\r\n## b", "'", '"',
    "!!python/x", "{{ 7 * 7 }}", "{% raw %}", "\\",
])  # fmt: skip
def test_no_value_of_a_run_leaves_its_place(run, text):
    harmless, page = (Page(spoiled(run, value)) for value in ("harmless", text))
    assert page.tags == harmless.tags and page.links == harmless.links and len(page.code) == len(harmless.code)
    assert page.front.keys() == harmless.front.keys() and page.front["base_model"] == "me/base"
    assert page.front["license"].split() == text.replace("\r", "\\u000d").split()


@pytest.mark.parametrize("address", [
    "https://evil.example/x", "HTTP://evil.example", "ftp://evil.example", "www.evil.example", "me@evil.example",
    "mailto:me@evil.example", "see (https://evil.example), www.evil.example or me@evil.example",
])  # fmt: skip
def test_no_address_is_left_for_readers_that_look_for_one_in_plain_text(run, address):
    """Some readers of Markdown (those of GitHub and of the Hub) make links of the text that escapes leave."""
    put(run, evaluation([1], address, address), evaluation([1], address, address))
    change(run, "data", root=address.replace("/", ":"))
    card = re.sub("^```.*?^```", "", model_card(run, license=address), flags=re.MULTILINE | re.DOTALL)
    plain = re.sub(r"\\(\W)", r"\1", card.split("---\n", 2)[2].replace("https://arxiv.org", ""))
    assert not re.search(r"\w+://|www\.|\w@\w", plain, re.IGNORECASE)
    assert address in Page(model_card(run)).prose, "what is seen is the address as it was"


SEPARATED = "a\u2028b\u2029c\x85d\x0be\x1cf\U000e0001g"


def test_line_separators_read_back_as_written(run, tmp_path):
    """From the run's files to those that are shared. (Labels with line separators are refused before a run.)"""
    put(run, evaluation([1], SEPARATED), evaluation([1], SEPARATED, answer=SEPARATED))
    records = run.records()
    records[0]["samples"] = [{"text": SEPARATED, "label": SEPARATED}]
    (run.path / "records.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8"
    )
    assert run.records() == records
    folder = share(run, tmp_path / "out")
    after = Evaluation.load(folder / "evaluation_after.json")
    assert after.answers[0].text == after.answers[0].answer == SEPARATED
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert len(card.splitlines()) == card.count("\n")


def test_labels_of_the_card_s_code_read_back_as_written(run):
    label = "a\u200bb\U000e0001c\u202ed\\u0065"
    put(run, evaluation([1], label=label), evaluation([1], label=label))
    card = model_card(run)
    assert label not in card
    (line,) = [line for line in lines_to_ask(card).splitlines() if line.startswith("labels = ")]
    assert ast.literal_eval(line.removeprefix("labels = ")) == [label, "phoning"]


@pytest.mark.parametrize("ticks", [1, 3, 4, 7])
def test_a_response_does_not_end_its_own_code_block(run, ticks):
    text = f"one\n{'`' * ticks}\n<b>two</b>\n## three"
    put(run, evaluation([1], text), evaluation([1], text))
    page = Page(model_card(run))
    assert text in [code.strip("\n") for code in page.code] and "b" not in page.tags


def test_one_flat_step_is_not_a_run_without_learning(run):
    records = run.records()
    records[0]["flat_groups"] = 0.5
    (run.path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "nothing was learnt" not in model_card(run)


def test_a_long_response_is_cut_and_said_to_be(run):
    put(run, evaluation([1], "x" * 5000), evaluation([1], "x" * 5000))
    card = model_card(run)
    assert "(cut)" in card and "x" * 600 in card and "x" * 601 not in card


def test_scenes_keep_their_keys_and_their_truth(run, sft_run):
    of_scenes = evaluation([1, 0], statements=4, true_statements=3, source="cartoon/test/000001")
    put(run, of_scenes, of_scenes)
    change(run, "data", data="cartoon", root=None)
    card = model_card(run)
    assert "75.0 %" in section(card, "Results") and "checked against the drawn scenes" in card
    assert "same people" not in card and "same people, places or clips" in model_card(sft_run)
    assert "scenes drawn by favor_lab" in card and "consent of people" not in card
    assert public_sources({"after": of_scenes}, {"data": "cartoon"})["after"].answers[0].source == "cartoon/test/000001"


def test_a_public_set_comes_with_its_terms_and_paths_under_its_root(run):
    answered = evaluation([1])
    inside = replace(answered, answers=[replace(answered.answers[0], source="/secret/s40/JPEGImages/reading_1.jpg")])
    data = {"data": "stanford40", "root": "/secret/s40"}
    assert public_sources({"after": inside}, data)["after"].answers[0].source == "JPEGImages/reading_1.jpg"
    assert public_sources({"after": answered}, data)["after"].answers[0].source == "reading/001"
    change(run, "data", **data, person_crop=0.1, exclude="/secret/bad.txt")
    card = section(model_card(run), "Data")
    assert "No licence is known" in card and "0.1 of the box" in card and "(bad.txt)" in card


def test_answers_that_are_no_labels_are_counted(run):
    put(run, evaluation([0, 0, 1], answer="dancing"), evaluation([0, 0, 1], answer="dancing"))
    assert "Of 3 answers after training, 3 were none of the labels of that list" in section(model_card(run), "Limits")
    put(run, evaluation([0, 0, 1]), evaluation([0, 0, 1], answer=None))
    assert "none of the labels" not in model_card(run)


def test_an_earlier_adapter_is_named_and_only_the_base_is_called_zero_shot(run, tmp_path):
    """A run of an earlier version measured its start, not the base, before training."""
    change(run, "policy", adapter="../secret/earlier")
    put(run, evaluation([0, 0, 1]), evaluation([1, 1, 1]))
    card = model_card(run)
    assert "continued from an earlier adapter (earlier)" in card and "zero-shot" not in card and "secret" not in card
    evaluation([0, 1, 1]).save(run.path / "evaluation_start.json")
    card = model_card(run)
    (results,) = (rows for rows in Page(card).tables if rows[0][1] == "accuracy")
    rights = [["zero-shot", "1 of 3"], ["earlier adapter", "2 of 3"], ["2-shot GRPO", "3 of 3"]]
    assert [[row[0], row[3]] for row in results[1:]] == rights
    assert "+66.7 points" in card and "includes what the earlier adapter had learnt" in card
    assert files_of(share(run, tmp_path / "out")) == ADAPTER | EVALUATED | {"evaluation_start.json"}
    assert "/secret" not in (tmp_path / "out" / "evaluation_start.json").read_text()
    (run.path / "evaluation_after.json").unlink()
    assert "Not measured: 2-shot GRPO" in section(model_card(run), "Results")


def test_a_run_that_was_never_right_claims_nothing(run, sft_run):
    put(run, evaluation([1, 1]), evaluation([0, 0]))
    records = run.records()
    completions = sum(count["completions"] for record in records for count in record["labels"].values())
    assert completions == 12 and not any(count["right"] for r in records for count in r["labels"].values())
    words = "It has not learnt to name an activity: none of the 12 completions in training and none of the 2 answers"
    claims = ("It was trained to name the activity", "naming one of the labels above")
    card = model_card(run)
    assert words in " ".join(card.split()) and not any(claim in card for claim in claims)
    put(run, evaluation([1, 1]), evaluation([0, 1]))
    card = model_card(run)
    assert words not in " ".join(card.split()) and all(claim in card for claim in claims)
    put(run)
    records[0]["labels"]["reading"] = {"completions": 2, "right": 1, "right_so_far": 1}
    (run.path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "not learnt to name" not in model_card(run), "one completion was right"


# --------------------------------------------------------------------------------------------- the lines that ask


def lines_to_ask(card) -> str:
    """The block of code that asks with favor_lab."""
    (block,) = (code for code in Page(card).code if "policy.answer" in code)
    return block


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("name", ["sft", "train"])
def test_the_lines_of_the_card_ask_what_was_shared(runs, tiny_checkpoint, tmp_path, name, merged, capsys):
    folder = share(runs / name, tmp_path / "out", merged=merged)
    (tmp_path / tiny_checkpoint.name).symlink_to(tiny_checkpoint)  # the card names the base's folder without its path
    picture(tmp_path / "photo.jpg", 3, "RGB", (90, 60))
    lines = lines_to_ask((folder / "README.md").read_text())
    assert len([line for line in lines.splitlines() if line]) <= 8
    values = {}
    exec(lines, values)
    options = {} if merged else {"adapter": folder}
    if name == "train":
        options["max_pixels"] = 7840
    policy = load_policy(folder if merged else tiny_checkpoint, lora_rank=0, **options)
    settings = json.loads((folder / "settings.json").read_text())
    style, tokens = {"sft": "answer", "train": "think"}[name], settings["settings"]["max_new_tokens"]
    (expected,) = policy.answer(tmp_path / "photo.jpg", settings["labels"], style, max_new_tokens=tokens)
    assert values["answer"].text == expected.text and values["answer"].label == expected.label
    assert expected.text in capsys.readouterr().out


def test_the_lines_of_the_card_for_an_open_vocabulary(run):
    change(run, "settings", open_vocabulary=True)
    lines = lines_to_ask(model_card(run))
    assert "labels = None\n" in lines
    assert '(answer,) = policy.answer("photo.jpg", labels, style="think", max_new_tokens=4)\n' in lines
    assert 'snapshot_download("me/mine")' in lines_to_ask(model_card(run, name="me/mine"))


def test_four_bits(run, tmp_path):
    change(run, "policy", quantize="4bit")
    with pytest.raises(ValueError, match="4bit.*nobody has tested.*adapter by itself"):
        share(run, tmp_path / "out", merged=True)
    assert not (tmp_path / "out").exists()
    card = (share(run, tmp_path / "out") / "README.md").read_text()
    assert 'quantize="4bit"' in section(card, "How to load it") and "in 4 bits" in section(card, "Limits")
    assert "max_pixels=7840" in section(card, "How to load it")


def test_a_run_that_python_wrote_with_few_settings(tiny_policy, tmp_path):
    run = RunFolder.create(tmp_path / "mine")
    run.save_settings({"data": {"data": "folder"}})
    tiny_policy.save(run.adapter)
    folder = share(run, tmp_path / "out")
    assert (
        files_of(folder) == ADAPTER - {"training_images.json"}
        and "Nothing was measured" in (folder / "README.md").read_text()
    )


# -------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("merged", [False, True])
def test_no_file_tells_of_the_machine_or_of_file_names(runs, tiny_checkpoint, tmp_path, merged):
    texts = {
        path: path.read_bytes()
        for path in share(runs / "sft", tmp_path / "out", merged=merged).rglob("*")
        if path.is_file()
    }
    secrets = [runs, tiny_checkpoint.parent, tmp_path, Path.home(), "annas-machine", "anna ", ".png"]
    for path, content in texts.items():
        for secret in secrets:
            assert str(secret).encode() not in content, (path.name, secret)
    after = Evaluation.load(tmp_path / "out" / "evaluation_after.json")
    assert {answer.source for answer in after.answers} >= {"reading/001", "reading/002"}
    assert after.policy == tiny_checkpoint.name
    restored = Evaluation.load(runs / "sft" / "evaluation_after.json")
    assert [answer.text for answer in after.answers] == [answer.text for answer in restored.answers]
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["data"]["root"] == "photos"
    config = json.loads(next((tmp_path / "out").rglob("adapter_config.json")).read_text())
    assert config["base_model_name_or_path"] == tiny_checkpoint.name


def test_paths_of_any_system_are_cut(tmp_path):
    cleaned = without_paths(
        [{"a": r"C:\Users\me\x"}, "/home/me/y/", "~/z", "Qwen/x", "../w", 3, None, r".*\.(q|k)_proj"]
    )
    assert cleaned == [{"a": "x"}, "y", "z", "Qwen/x", "../w", 3, None, r".*\.(q|k)_proj"]


def test_the_base_is_named_for_the_adapter(run, tmp_path):
    folder = share(run, tmp_path / "out", base_model="Qwen/Qwen2-VL-2B-Instruct")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "Qwen/Qwen2-VL-2B-Instruct"
    assert 'load_policy("Qwen/Qwen2-VL-2B-Instruct", adapter="out"' in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="base_model is '/x/y'.*Hub name"):
        share(run, tmp_path / "out2", base_model="/x/y")
    change(run, "policy", policy="pocket", revision="abc123")
    config = json.loads((share(run, tmp_path / "out3") / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("pocket", "abc123")


# ------------------------------------------------------------------------------------------------------------- errors


def spoil(run, how):
    records = run.path / "records.jsonl"
    if how == "stopped":
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:2]))
    elif how == "no adapter":
        shutil.rmtree(run.adapter)
    elif how == "no weights":
        (run.adapter / "adapter_model.safetensors").unlink()
    elif how == "half the weights":
        data = (run.adapter / "adapter_model.safetensors").read_bytes()
        (run.adapter / "adapter_model.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "other weights":
        save_file({"x": torch.zeros(1)}, run.adapter / "adapter_model.safetensors")
    elif how == "settings":
        (run.path / "settings.json").write_text('{"data"')
    elif how == "a list":
        (run.path / "settings.json").write_text("[]")
    elif how == "evaluation":
        (run.path / "evaluation_after.json").write_text('{"answers": []')
    elif how == "another evaluation":
        (run.path / "evaluation_after.json").write_text('{"accuracy": 1}')
    elif how == "evaluate":
        run.save("settings.json", {**run.settings, "command": "evaluate"})


def whole_run(runs, tmp_path) -> RunFolder:
    """A copy of the GRPO run with its manifest."""
    return RunFolder(shutil.copytree(runs / "train", tmp_path / "whole"))


@pytest.mark.parametrize("name", [
    "adapter/adapter_model.safetensors", "evaluation_before.json", "evaluation_after.json", "records.jsonl",
])  # fmt: skip
def test_results_of_two_steps_are_not_given_away_as_one(runs, tmp_path, name):
    """What a run leaves that was resumed for more steps and killed: some files are newer than the others."""
    whole = whole_run(runs, tmp_path)
    share(whole, tmp_path / "first")
    place = whole.path / name
    place.write_bytes((runs / "sft" / name).read_bytes())
    with pytest.raises(ValueError, match=f"not of one step: .*{name} changed: go on with --resume"):
        share(whole, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_goes_on_while_it_is_shared_is_noticed(runs, tmp_path, monkeypatch):
    whole = whole_run(runs, tmp_path)

    def slow(*arguments):
        shutil.copyfile(runs / "sft" / "evaluation_after.json", whole.path / "evaluation_after.json")
        return "a card"

    monkeypatch.setattr("favor_lab.sharing.export.render_card", slow)
    with pytest.raises(ValueError, match="not of one step"):
        share(whole, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


KILLED = """
import os, signal, sys
from favor_lab.sharing import export

setattr(export, sys.argv[3], lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
export.share(sys.argv[1], sys.argv[2])
"""


def test_a_share_that_was_killed_is_no_folder_and_the_next_one_cleans_up(runs, tmp_path):
    killed = forks.run(forks.run_code, KILLED, str(runs / "train"), str(tmp_path / "out"), "render_card")
    assert killed.status == -signal.SIGKILL, killed.errors
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.part" / "out" / "adapter_config.json").exists()
    with locked(tmp_path / ".out.part"), pytest.raises(BlockingIOError, match="out.part is in use by process"):
        share(runs / "train", tmp_path / "out")
    assert files_of(share(runs / "train", tmp_path / "out")) == ADAPTER | EVALUATED
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_one_is_in_cannot_be_replaced(run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match=r"\. cannot be replaced in one move: name a new folder inside it"):
        share(run, ".")
    assert files_of(share(run, "inside")) == ADAPTER | EVALUATED


def lines_of(run, change):
    """Records with one changed."""
    records = run.records()
    records[1] = change(records[1])
    (run.path / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize(("change", "words"), [
    (lambda r: [r], "holds no object"), (lambda r: None, "holds no object"),
    (lambda r: r | {"step": "2"}, "look at line 2"), (lambda r: r | {"labels": {"a": 3}}, "look at line 2"),
    (lambda r: r | {"reward": "1"}, "look at line 2"), (lambda r: r | {"seconds": [1]}, "look at line 2"),
    (lambda r: r | {"seconds": {"loss": "1"}}, "look at line 2"), (lambda r: r | {"labels": ["a"]}, "look at line 2"),
    (lambda r: r | {"step": 3}, "line 2 is the record of step 3"),
])  # fmt: skip
def test_records_that_are_none_are_named(run, change, words):
    lines_of(run, change)
    with pytest.raises(ValueError, match=f"records.jsonl is .*{words}"):
        model_card(run)


@pytest.mark.parametrize(("changes", "words"), [
    ({"data": "cartoon"}, "data"), ({"policy": [1]}, "policy"), ({"settings": "x"}, "settings"),
    ({"labels": "abc"}, "labels"), ({"labels": [1]}, "labels"), ({"versions": 3}, "versions"),
    ({"settings": {"steps": "many"}}, "steps"),
])  # fmt: skip
def test_settings_of_other_types_are_named(run, changes, words):
    run.save("settings.json", run.settings | changes)
    with pytest.raises(ValueError, match=f"settings.json is not as `favor-lab` writes it: look at {words}$"):
        model_card(run)


@pytest.mark.parametrize("changes", [
    {"answers": []}, {"answers": [{"text": "x"}]}, {"answers": 3}, {"labels": None}, {"labels": ["other"]},
    {"answers": [3]}, {"policy": 1, "answers": "ab"},
])  # fmt: skip
def test_answers_that_are_none_are_named_with_the_cure(run, changes):
    run.save("evaluation_after.json", run.load("evaluation_after.json") | changes)
    place = re.escape(str(run.path / "evaluation_after.json"))
    with pytest.raises(ValueError, match=f"{place} are not .*: delete it and go on with `favor-lab train --resume"):
        model_card(run)
    with pytest.raises(ValueError, match=f"{place} is damaged or no evaluation .*: delete it to measure again"):
        Evaluation.load(run.path / "evaluation_after.json")


@pytest.mark.parametrize(("how", "kind", "words"), [
    ("stopped", ValueError, "stopped after step 2 of 3: go on with `favor-lab train --resume "),
    ("no adapter", FileNotFoundError, "no adapter folder: `favor-lab train --resume "),
    ("no weights", FileNotFoundError, "incomplete: it has no adapter_model.safetensors"),
    ("half the weights", ValueError, "adapter_model.safetensors is damaged"),
    ("other weights", ValueError, "no LoRA weights"),
    ("settings", ValueError, "settings.json is damaged"),
    ("a list", ValueError, "settings.json is not as `favor-lab` writes it"),
    ("evaluation", ValueError, "evaluation_after.json is damaged"),
    ("another evaluation", ValueError, "are not as `favor-lab` writes them"),
    ("evaluate", ValueError, "nothing was trained there"),
])  # fmt: skip
def test_a_run_that_cannot_be_shared(run, tmp_path, how, kind, words):
    spoil(run, how)
    for function in (lambda: share(run, tmp_path / "out"), lambda: model_card(run)):
        with pytest.raises(kind, match=re.escape(words)):
            function()
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        share(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for place in ("out", "file"):
        with pytest.raises(FileExistsError, match="not an empty folder"):
            share(run, tmp_path / place)
    assert files_of(tmp_path / "out") == {"mine.txt"}
    (tmp_path / "empty").mkdir()
    assert files_of(share(run, tmp_path / "empty")) == ADAPTER | EVALUATED


def test_an_export_that_fails_leaves_nothing_behind(run, tmp_path):
    weights = load_file(run.adapter / "adapter_model.safetensors")
    save_file({name: torch.full_like(weight, 1e5) for name, weight in weights.items()},
              run.adapter / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(ValueError, match="not finite in float16: name float32 or bfloat16"):
        share(run, tmp_path / "new" / "out", merged=True, dtype="float16")
    with pytest.raises(ValueError, match="'float8'.*bfloat16"):
        share(run, tmp_path / "new" / "out", merged=True, dtype="float8")
    assert not list((tmp_path / "new").iterdir())


# ------------------------------------------------------------------------------------------------------------ the Hub


class FakeHub:
    """Stands for HfApi: keeps the calls, and fails where it is told to."""

    def __init__(self, monkeypatch, token="t", create=None, upload=None):
        self.calls, self.create, self.upload = [], create, upload
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)

    def create_repo(self, repo_id, **options):
        self.calls.append(("create_repo", repo_id, options))
        if self.create:
            raise self.create
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **options):
        options["files"] = files_of(Path(options["folder_path"]))
        self.calls.append(("upload_folder", options))
        if self.upload:
            raise self.upload


def refused(status):
    return HfHubHTTPError("no", response=SimpleNamespace(headers={}, request=None, status_code=status))


@pytest.mark.parametrize("private", [True, False])
def test_a_push_creates_a_repository_and_uploads_the_whole_folder(run, tmp_path, monkeypatch, private):
    hub = FakeHub(monkeypatch)
    share(run, tmp_path / "quiet")
    assert hub.calls == []
    options = {} if private else {"private": False}
    folder = share(run, tmp_path / "out", push_to="me/mine", **options)
    (create, name, create_options), (upload, upload_options) = hub.calls
    assert (create, name, upload) == ("create_repo", "me/mine", "upload_folder")
    assert create_options["private"] is private and create_options["exist_ok"] is False
    assert upload_options["repo_id"] == "me/mine" and upload_options["files"] == ADAPTER | EVALUATED
    assert 'snapshot_download("me/mine")' in (folder / "README.md").read_text()
    assert push(folder, "me/other") == "https://huggingface.co/me/other"


@pytest.mark.parametrize(("fault", "words"), [
    ({"token": None}, "`hf auth login`"),
    ({"create": refused(401)}, "does not know your token"),
    ({"create": refused(403)}, "may not create me/mine"),
    ({"create": refused(409)}, "me/mine is taken"),
    ({"create": refused(500)}, "the Hub refused"),
    ({"create": OfflineModeIsEnabled("off")}, "HF_HUB_OFFLINE is set"),
    ({"create": ConnectionError("down")}, "cannot be reached"),
    ({"upload": TimeoutError("slow")}, "cannot be reached"),
    ({"upload": refused(403)}, "may not create me/mine"),
])  # fmt: skip
def test_a_push_that_fails_says_what_to_do_and_the_folder_is_whole(run, tmp_path, monkeypatch, fault, words):
    hub = FakeHub(monkeypatch, **fault)
    with pytest.raises(PushError, match=re.escape(words)) as error:
        share(run, tmp_path / "out", push_to="me/mine")
    assert "complete on disk" in str(error.value) and f"hf upload me/mine {tmp_path / 'out'}" in str(error.value)
    assert files_of(tmp_path / "out") == ADAPTER | EVALUATED
    assert len(hub.calls) == (0 if "token" in fault else 1 if "create" in fault else 2)


def test_a_fault_of_another_kind_is_not_called_the_networks(tmp_path, monkeypatch):
    FakeHub(monkeypatch, upload=KeyError("x"))
    with pytest.raises(KeyError):
        push(tmp_path, "me/mine")


@pytest.mark.parametrize("name", ["mine", "me/mine/x", "me/-mine", "me/a--b", "/me", "me/mine?"])
def test_a_name_that_the_hub_does_not_have_is_refused_before_anything_is_written(run, tmp_path, monkeypatch, name):
    hub = FakeHub(monkeypatch)
    with pytest.raises(ValueError, match="must be USER/NAME"):
        share(run, tmp_path / "out", push_to=name)
    assert hub.calls == [] and not (tmp_path / "out").exists()


# --------------------------------------------------------------------------------------------------- the command line


def test_the_command(run, monkeypatch, capsys):
    assert main(["share", str(run.path), "--out", "out"]) == 0
    output = capsys.readouterr().out
    assert "model card   out/README.md" in output and "no licence" in output and "pushed" not in output
    assert files_of(Path("out")) == ADAPTER | EVALUATED
    hub = FakeHub(monkeypatch)
    more = ["--merged", "--dtype", "bfloat16", "--license", "mit", "--push", "me/mine", "--public"]
    assert main(["share", str(run.path), "--out", "whole", *more]) == 0
    output = capsys.readouterr().out
    assert "pushed to    me/mine (public)" in output and "no licence" not in output
    assert hub.calls[0][2]["private"] is False and Path("whole/model.safetensors").exists()
    card = Page(Path("whole/README.md").read_text())
    assert card.front["license"] == "mit" and "weights in bfloat16" in card.prose
    assert main(["share", str(run.path), "--out", "third", "--push", "me/mine"]) == 0
    assert hub.calls[2][2]["private"] is True and "(private)" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (["nowhere", "--out", "out"], "not a run folder"),
    (["run", "--out", "run"], "not an empty folder"),
    (["run", "--out", "out", "--public"], "needs --push"),
    (["run", "--out", "out", "--dtype", "bfloat16"], "needs --merged"),
    (["run", "--out", "out", "--license", " "], "license is empty"),
    (["run", "--out", "out", "--push", "mine"], "USER/NAME"),
])  # fmt: skip
def test_errors_of_the_command_are_one_line(run, capsys, arguments, words):
    assert main(["share", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("favor-lab: error: ") and words in message and message.count("\n") == 1
    assert not Path("out").exists()
