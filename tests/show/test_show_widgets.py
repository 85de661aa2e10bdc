"""The explorer of one group and the microscope of one completion: their numbers, their markup, and what moves them."""

import base64
import io
from html.parser import HTMLParser
from itertools import product

import pytest
import torch
from PIL import Image

from favor_lab.activities.fewshot import Example, FewShot
from favor_lab.grpo.advantages import group_advantages
from favor_lab.grpo.losses import grpo_loss
from favor_lab.grpo.rewards import accuracy_reward
from favor_lab.grpo.sampling import Rollout, sample_groups, score_completions
from favor_lab.grpo.support.settings import HOWS, LEVELS, SCALES
from favor_lab.show.frontend import VIEW
from favor_lab.show.style import BLUE, VERMILLION, WIDTH
from favor_lab.show.text import signed
from favor_lab.show.tokens import QUANTITIES, colours, plot_tokens, scale_ends, tokens_html
from favor_lab.show.widgets import GroupChoices, GroupExplorer, TokenMicroscope, group_result
from favor_lab.study import tokens as module
from favor_lab.study.tokens import Token, token_losses, token_table, token_texts, token_weights
from favor_lab.vlm.hub import POCKET_DIR
from favor_lab.vlm.processing import encode_prompts

LABELS = ["riding a bike", "reading", "phoning", "fishing"]
HOSTILE = '</span><script>alert("1")</script>'


def token(text="a", logp=-0.5, ratio=1.0, kl=0.0, loss=0.0, push=0.0, muted=False, end=False):
    return Token(text, logp, ratio, kl, loss, push, muted, end)


class Elements(HTMLParser):
    """The elements of some markup as (tag, attributes, text directly inside)."""

    def __init__(self, markup):
        super().__init__()
        self.found, self.open = [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        if tag not in ("br", "img"):
            self.open.append(self.found[-1])

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def of(self, name):
        return [element for element in self.found if name in element[1].get("class", "").split()]


# -------------------------------------------------------------------------------------------------------- one group


def toy_examples(count):
    return [Example(Image.new("RGB", (56, 56), "grey"), LABELS[i], f"toy/{i}") for i in range(count)]


@pytest.mark.parametrize(("scale", "unbiased"), list(product(SCALES, (True, False))))
def test_advantages_of_a_group_are_those_of_the_library(scale, unbiased):
    accuracy, form = torch.tensor([1.0, 0, 0, 1, 1, 1, 0, 1]), torch.tensor([1.0, 1, 0, 0, 1, 1, 1, 1])
    choices = GroupChoices(weights=(1.0, 0.25), scale=scale, unbiased=unbiased)
    result = group_result([f"text {i}" for i in range(8)], {"a": accuracy, "f": form}, toy_examples(2), choices)
    expected = group_advantages((accuracy + 0.25 * form).view(2, 4), scale=scale, unbiased=unbiased)[0]
    assert [sample["advantage"] for sample in result.samples] == pytest.approx(expected.tolist())
    assert [sample["text"] for sample in result.samples] == ["text 0", "text 1", "text 2", "text 3"]
    assert result.samples[3]["rewards"] == {"a": 1.0, "f": 0.0} and result.samples[0]["label"] == LABELS[0]
    assert result.numbers["flat groups in the batch"] == "0 of 2"


def test_the_batch_is_more_than_the_group():
    scores = {"a": torch.tensor([1.0, 0.0, 1.0, 1.0])}
    numbers = group_result(["", "", "", ""], scores, toy_examples(2), GroupChoices()).numbers
    assert numbers["std of the group"] == "0.71" and numbers["std of the batch (2 groups)"] == "0.50"
    assert numbers["flat groups in the batch"] == "1 of 2" and numbers["mean reward"] == "0.50"


@pytest.fixture
def explorer(tiny_policy):
    """An explorer whose sampler counts its calls and writes one right answer into each group of two or more."""
    calls = []

    def sample(policy, prompts, group_size, max_new_tokens, temperature, seed):
        calls.append((prompts.labels[0], group_size, temperature, seed))
        texts = [
            f"<think>x</think><answer>{prompts.labels[b] if g == 0 else 'none'}</answer>" if g < 2 else HOSTILE
            for b in range(len(prompts))
            for g in range(group_size)
        ]
        ids = torch.ones(len(texts), 1, dtype=torch.long)
        return Rollout(ids, ids > 0, torch.zeros(len(texts), 1), texts, group_size)

    shots = FewShot(toy_examples(4), [], [], LABELS)
    explorer = GroupExplorer(tiny_policy, shots, group_size=4, sample=sample, interactive=True)
    explorer.calls = calls
    explorer.widget()
    return explorer


def advantages(explorer):
    return [sample["advantage"] for sample in explorer.result().samples]


def test_only_what_matters_samples_anew(explorer):
    controls, weights = explorer._view.controls, explorer._view.weights
    assert len(explorer.calls) == 1
    for scale in ("batch", "none"):
        before, page = advantages(explorer), explorer._view.view.value
        controls["scale"].value = scale
        assert advantages(explorer) != before and explorer._view.view.value != page
    controls["unbiased"].value = False
    before = advantages(explorer)
    weights[1].value = 0.5
    assert explorer.choices.weights == (1.0, 0.5) and advantages(explorer) != before
    assert len(explorer.calls) == 1, "arithmetic alone"
    changes = {"temperature": 1.5, "group_size": 6, "seed": 3, "image": 2}
    for count, (name, value) in enumerate(changes.items(), start=2):
        controls[name].value = value
        assert len(explorer.calls) == count, name
    assert explorer.calls[-1] == ("phoning", 6, 1.5, 3) and explorer.choices.sampled == (2, 1.5, 6, 3)
    explorer.result()
    explorer.picture()
    assert len(explorer.calls) == 5, "what is at hand is not sampled again"


def test_weights_of_zero_leave_a_flat_group(explorer):
    for slider in explorer._view.weights:
        slider.value = 0.0
    assert advantages(explorer) == [0, 0, 0, 0] and "No spread" in explorer._view.view.value


def test_a_group_is_shown_with_its_text_escaped(explorer):
    page = Elements(explorer._view.view.value)
    assert "script" not in {tag for tag, _, _ in page.found} and "&lt;script&gt;" in explorer._view.view.value
    assert len(page.of("fl-body")) == 4 and [e[0] for e in page.found].count("img") == 1
    assert page.of("fl-mark")[0][2] == "\N{CHECK MARK}"


def test_what_cannot_be_sampled_is_said(explorer, monkeypatch):
    def fail(*arguments, **options):
        raise FloatingPointError("<b>row 3</b> is not finite")

    monkeypatch.setattr(explorer, "sample", fail)
    explorer._view.controls["seed"].value = 9
    assert "&lt;b&gt;row 3&lt;/b&gt; is not finite" in explorer._view.view.value


def test_the_explorer_samples_a_policy_and_falls_back_to_a_figure(tiny_policy, tiny_examples):
    shots = FewShot(tiny_examples, [], [], LABELS)
    explorer = GroupExplorer(tiny_policy, shots, image=1, group_size=3, max_new_tokens=4, interactive=False)
    texts = [sample["text"] for sample in explorer.result().samples]
    order = [tiny_examples[i] for i in (1, 2, 3, 0)]
    prompts = encode_prompts(tiny_policy, order, LABELS)
    assert texts == sample_groups(tiny_policy, prompts, 3, 4, 1.0, seed=0).texts[:3]
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == "GroupExplorer: G = 3, temperature 1" and VIEW not in bundle
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width == 1080
    assert explorer._view is None


def test_rewards_of_ones_own_are_asked_like_those_of_train(tiny_policy, tiny_examples):
    def source_length(completions, source, **columns):
        return [float(len(s)) for s in source]

    shots = FewShot(tiny_examples, [], [], LABELS)
    rewards = (accuracy_reward, source_length)
    explorer = GroupExplorer(tiny_policy, shots, rewards=rewards, max_new_tokens=3, interactive=False)
    assert explorer.result().samples[0]["rewards"] == {"accuracy_reward": 0.0, "source_length": 6.0}


# ------------------------------------------------------------------------------------------------------ token losses


def toy_batch(seed=3):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor([6, 2, 5, 3])[:, None]  # (N, L)
    noise = torch.randn(3, 4, 6, generator=generator)
    logps = -noise[0].abs()
    return {
        "logps": logps,
        "old_logps": logps + 0.3 * noise[1],
        "ref_logps": logps + 0.5 * noise[2],
        "advantages": torch.tensor([1.2, -0.4, 0.0, -0.8]),
        "mask": mask,
    }


LOSSES = [case for case in product(HOWS, LEVELS, (False, True)) if case[:2] != ("cispo", "sequence")]


@pytest.mark.parametrize(("how", "level", "weigh_kl"), LOSSES)
def test_the_parts_of_the_tokens_add_up_to_the_loss(how, level, weigh_kl):
    batch = toy_batch()
    options = {
        "how": how,
        "level": level,
        "weigh_kl": weigh_kl,
        "beta": 0.3,
        "clip": 0.1,
        "clip_high": 0.25,
        "max_length": 8,
    }
    now = batch["logps"].clone().requires_grad_()
    loss = grpo_loss(**batch | {"logps": now}, **options)[0]
    loss.backward()
    parts = token_losses(**batch, **options)
    assert parts["loss"].sum().item() == pytest.approx(loss.item(), abs=1e-6)
    torch.testing.assert_close(parts["push"], -now.grad, atol=1e-6, rtol=1e-4)
    assert not any(values[~batch["mask"]].any() for values in parts.values()), "padding has no part"
    assert parts["loss"][0].sum().item() != pytest.approx(loss.item(), abs=1e-3), "nor has one row all of it"


def test_numbers_of_a_token_by_hand():
    logps = torch.tensor([[-1.0, -2.0, -1.0]])
    old, ref = logps - torch.tensor([[0.5, -0.5, 0.0]]), logps - torch.tensor([[0.0, 1.0, 0.0]])
    parts = token_losses(logps, old, ref, torch.tensor([2.0]), torch.ones(1, 3).bool(), beta=0.1)
    e = 2.718281828
    assert parts["ratio"][0].tolist() == pytest.approx([e**0.5, e**-0.5, 1.0])
    assert parts["kl"][0].tolist() == pytest.approx([0.0, 1 / e, 0.0], abs=1e-6)
    assert parts["muted"][0].tolist() == [1, 0, 0], "beyond the clip, in the direction of the advantage"
    assert parts["loss"][0].tolist() == pytest.approx([-2.4 / 3, (-2 * e**-0.5 + 0.1 / e) / 3, -2 / 3])
    assert parts["push"][0, 0] == 0 and parts["push"][0, 2].item() == pytest.approx(2 / 3)


def test_a_row_without_advantage_is_not_called_muted():
    batch = toy_batch()
    muted = token_losses(**batch)["muted"]
    assert not muted[2].any() and muted.any()


def test_without_a_reference_there_is_no_penalty():
    batch = toy_batch() | {"ref_logps": None}
    parts = token_losses(**batch, beta=0.0)
    assert not parts["kl"].any()
    with pytest.raises(ValueError, match="needs ref_logps"):
        token_losses(**batch, beta=0.04)


def test_parts_that_do_not_add_up_are_an_error(monkeypatch):
    monkeypatch.setattr(module, "token_weights", lambda *arguments: 1.1 * token_weights(*arguments))
    with pytest.raises(ArithmeticError, match="the tokens' parts add up to"):
        token_losses(**toy_batch())


def test_advantages_may_be_given_by_token():
    batch = toy_batch()
    wide = batch | {"advantages": batch["advantages"][:, None].expand(4, 6)}
    for name, values in token_losses(**wide).items():
        torch.testing.assert_close(values, token_losses(**batch)[name])


# ---------------------------------------------------------------------------------------------------- token texts


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(POCKET_DIR)


def test_texts_of_tokens_join_to_the_completion(tokenizer):
    text = "<think>feet on pedals,\nbike \N{BICYCLE} \u65e5\u672c \U0001f6b4\U0001f3fd caf\u00e9</think>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert "".join(texts) == text and len(texts) == len(ids)
    assert texts.count("") >= 6, "bytes of unfinished characters add nothing"
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in texts)


def test_a_character_that_stays_unfinished_is_marked(tokenizer):
    ids = tokenizer("a\U0001f6b4", add_special_tokens=False)["input_ids"]
    texts = token_texts(tokenizer, ids[:-1])
    assert texts[0] == "a" and texts[-1].endswith("\N{REPLACEMENT CHARACTER}")
    unfinished = [ids[1], *tokenizer("b", add_special_tokens=False)["input_ids"]]
    assert "".join(token_texts(tokenizer, unfinished)) == tokenizer.decode(unfinished)


# ------------------------------------------------------------------------------------------------- colours and pages


def luminance(colour):
    linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_can_be_read_on_every_colour():
    for i in range(-50, 51):
        light, dark = sorted((luminance(colour) for colour in colours(i / 50)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5, i / 50


def test_colours_deepen_with_distance_and_sides_differ():
    depth = [luminance(colours(i / 10)[0]) for i in range(11)]
    assert depth == sorted(depth, reverse=True) and colours(0.0)[0] == "#ffffff"
    assert colours(1.0)[0] == BLUE.lower() and colours(-1.0)[0] == VERMILLION.lower()
    assert colours(5.0) == colours(1.0)


def test_the_scale_has_the_numbers_of_its_colours():
    tokens = [token(ratio=2.0, loss=-0.002), token(ratio=1.0, loss=0.0)]
    assert scale_ends(tokens, QUANTITIES["ratio"]) == [(0.0, "1.00"), (1.0, "2.00")]
    assert scale_ends([*tokens, token(ratio=0.8)], QUANTITIES["ratio"]) == [
        (-1.0, "0.50"),
        (0.0, "1.00"),
        (1.0, "2.00"),
    ]
    assert scale_ends(tokens, QUANTITIES["share of the loss"]) == [(-1.0, signed(-2.0)), (0.0, "0.00")]
    calm = scale_ends([token(ratio=1.0)], QUANTITIES["ratio"])
    assert [text for _, text in calm] == ["0.95", "1.00", "1.05"], "rounding is not given full colour"


def test_a_page_of_tokens_shows_text_numbers_and_marks():
    tokens = [
        token("<think>"),
        token(HOSTILE, ratio=2.0, muted=True, loss=0.0015),
        token(" b\n"),
        token(""),
        token("<e>", end=True),
    ]
    page = Elements(tokens_html(tokens, "ratio"))
    spans = page.of("fl-token")
    assert {tag for tag, _, _ in page.found} <= {"div", "span", "b", "br"}
    assert [text for _, _, text in spans] == [
        "<think>",
        HOSTILE,
        " b\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
        "\N{MIDDLE DOT}",
        "end",
    ]
    assert "fl-muted" in spans[1][1]["class"] and "fl-end" in spans[4][1]["class"]
    assert BLUE.lower() in spans[1][1]["style"] and "#ffffff" in spans[0][1]["style"]
    hint = spans[1][1]["title"]
    assert "token 2 of 5" in hint and "ratio 2.00" in hint and "share of the loss +1.50 (thousandths)" in hint
    assert "muted by the clip" in hint and "muted" not in spans[0][1]["title"]
    assert "Dashed: muted by the clip." in page.of("fl-note")[0][2]
    assert "Dashed" not in tokens_html(tokens[:1], "ratio")


@pytest.mark.parametrize("name", QUANTITIES)
def test_every_quantity_can_be_shown(name):
    tokens = [token("a", -0.1, 0.7, 0.02, -0.001, 0.002), token("b", -2.0, 1.4, 0.0, 0.003, -0.001, end=True)]
    styles = [element[1]["style"] for element in Elements(tokens_html(tokens, name)).of("fl-token")]
    assert styles[0] != styles[1]


def test_a_figure_of_tokens_has_every_token_once_a_quantity():
    tokens = [token(f" word{i}", ratio=1 + i / 40, muted=i > 30) for i in range(40)] + [token("", end=True)]
    figure = plot_tokens(tokens, ("ratio", "KL"), title="a title")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert all(texts.count(f" word{i}") == 2 for i in range(40)) and texts.count("end") == 2
    assert len(figure.axes[0].lines) == 2 * 9, "dashes under what is muted"
    right = max(patch.get_x() + patch.get_width() for patch in figure.axes[0].patches)
    assert right <= WIDTH, "nothing runs out of the figure"


# ------------------------------------------------------------------------------------------------------ microscope


@pytest.fixture
def scored(tiny_policy, tiny_examples):
    prompts = encode_prompts(tiny_policy, tiny_examples[:2], LABELS)
    rollout = sample_groups(tiny_policy, prompts, group_size=2, max_new_tokens=6, seed=0)
    with torch.no_grad():
        now = score_completions(tiny_policy, prompts, rollout)
    with tiny_policy.reference(), torch.no_grad():
        ref = score_completions(tiny_policy, prompts, rollout)
    return tiny_policy, rollout, now, ref


def test_the_microscope_divides_the_loss_among_the_tokens(scored):
    policy, rollout, now, ref = scored
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    microscope = TokenMicroscope(policy, rollout, now, ref, ref, advantages, beta=0.1, interactive=False)
    tables = [microscope.table(row) for row in range(4)]
    loss = grpo_loss(now, ref, ref, advantages, rollout.mask, beta=0.1)[0]
    assert sum(item.loss for table in tables for item in table) == pytest.approx(loss.item(), abs=1e-6)
    assert [len(table) for table in tables] == rollout.lengths.tolist()
    for row, table in enumerate(tables):
        assert table[-1].end != rollout.truncated[row]
        assert "".join(item.text for item in table if not item.end) == rollout.texts[row]
        assert [item.logp for item in table] == pytest.approx(now[row][rollout.mask[row]].tolist())
    assert any(abs(item.ratio - 1) > 1e-3 for table in tables for item in table), "off policy"
    assert token_table(policy.tokenizer, rollout, 0, microscope.parts) == tables[0]


def test_on_policy_every_ratio_is_one_and_pushes_are_left(scored):
    policy, rollout, now, _ = scored
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    microscope = TokenMicroscope(policy, rollout, now, advantages=advantages, interactive=False)
    table = microscope.table(0)
    assert all(item.ratio == 1 and item.kl == 0 and not item.muted for item in table)
    assert all(item.push == pytest.approx(1 / (4 * len(table))) for item in table)
    assert sum(item.loss for item in table) == pytest.approx(-1 / 4)


def test_completion_and_colour_can_be_chosen(scored):
    policy, rollout, now, ref = scored
    microscope = TokenMicroscope(policy, rollout, now, ref, ref, torch.tensor([1.0, -1, 1, -1]), interactive=True)
    microscope.widget()
    face = microscope._view
    pages = {face.view.value}
    for name in QUANTITIES:
        face.quantity.value = name
        pages.add(face.view.value)
    assert len(pages) == len(QUANTITIES), "the first is shown already"
    face.which.value = 2
    assert microscope.completion == 2 and face.view.value not in pages
    assert VIEW in microscope._repr_mimebundle_()


def test_the_microscope_falls_back_to_a_figure(scored):
    policy, rollout, now, ref = scored
    bundle = TokenMicroscope(policy, rollout, now, ref, ref, interactive=False)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png"} and bundle["text/plain"] == "TokenMicroscope: 4 completions"


def test_what_does_not_exist_cannot_be_chosen(scored):
    policy, rollout, now, _ = scored
    with pytest.raises(ValueError, match="completions 0 to 3"):
        TokenMicroscope(policy, rollout, now, completion=4)
    with pytest.raises(ValueError, match="unknown quantity 'entropy'; valid: log-probability"):
        TokenMicroscope(policy, rollout, now, names=("entropy",))
