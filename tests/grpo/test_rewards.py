"""What scores and what must not. The adversarial strings are doctests of each function."""

import pytest

from favor_lab.grpo.rewards import accuracy_reward, completion_text, extract_answer, format_reward, normalise_label
from favor_lab.grpo.support.steps import named_rewards
from favor_lab.recipes.truth import truth_reward
from favor_lab.recipes.visual_rft import published_format, published_reward

RIGHT = "<think>two hands on a page</think>\n<answer>reading</answer>"


@pytest.mark.parametrize("function", [accuracy_reward, format_reward])
@pytest.mark.parametrize("wrap", [
    lambda text: text,
    lambda text: [{"role": "assistant", "content": text}],
    lambda text: [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
])  # fmt: skip
def test_rewards_have_trls_signature(function, wrap):
    completions = [wrap(RIGHT), wrap("<answer></answer>")]
    rewards = function(
        prompts=["?"] * 2,
        completions=completions,
        completion_ids=[[1], [2]],
        label=["reading"] * 2,
        source=["a", "b"],
        trainer_state=None,
        log_metric=None,
    )
    assert rewards == [1.0, 0.0]


@pytest.mark.parametrize(
    "answer",
    [
        "Riding a bike",
        "riding_a_bike",
        "riding-a-bike.",
        "  RIDING  a\n bike ...",
        "riding\u00a0a bike",
        "riding\u2010a\u2010bike",
    ],
)
def test_spelling_does_not_matter(answer):
    assert normalise_label(answer) == "riding a bike"
    assert accuracy_reward([f"<answer>{answer}</answer>"], ["riding_a_bike"]) == [1.0]


@pytest.mark.parametrize(
    "answer",
    ["", " ", ".", "r", "bike", "riding", "riding a bike or running", "not riding a bike", "a", "_", "ridingabike"],
)
def test_only_the_whole_label_scores(answer):
    assert accuracy_reward([f"<answer>{answer}</answer>"], ["riding_a_bike"]) == [0.0]


def test_the_answer_may_cross_lines_but_not_stand_outside():
    assert extract_answer("<answer>\nreading\n</answer>\n") == "reading"
    assert extract_answer(RIGHT + " I think") is None
    assert extract_answer("</answer>reading<answer>") is None
    assert extract_answer("<answer>reading <answer>") is None


def test_each_row_has_its_own_label():
    texts = ["<answer>reading</answer>", "<answer>running</answer>"]
    assert accuracy_reward(texts, label=["reading", "running"]) == [1.0, 1.0]
    assert accuracy_reward(texts, label=["running", "reading"]) == [0.0, 0.0]
    with pytest.raises(ValueError, match="2 completions but 1 labels"):
        accuracy_reward(texts, label=["reading"])


def test_a_blank_label_is_an_error_and_not_a_gift():
    with pytest.raises(ValueError, match="'__'"):
        accuracy_reward(["<answer>.</answer>"], label=["__"])


def test_format_names_its_styles():
    assert format_reward(["<answer>reading</answer>", RIGHT], style="answer") == [1.0, 0.0]
    assert format_reward(["<answer>reading</answer>", RIGHT], style="think") == [0.0, 1.0]
    with pytest.raises(ValueError, match="'poem'.*think, answer"):
        format_reward([RIGHT], style="poem")


AFTER = "<think>two hands on a page</think>"


@pytest.mark.parametrize(
    ("text", "answer_first", "other_styles"),
    [
        ("<answer>reading</answer>" + AFTER, (1.0, 1.0), 0.0),
        (" <answer>Reading.</answer>\n" + AFTER + "\n", (1.0, 1.0), 0.0),
        ("<answer>running</answer>" + AFTER, (0.0, 1.0), 0.0),
        ("<answer>reading</answer>", (1.0, 0.0), 1.0),
        ("<answer>reading</answer><think>cut off", (1.0, 0.0), 0.0),
        ("<answer>reading</answer><think> </think>", (1.0, 0.0), 0.0),
        (RIGHT, (1.0, 0.0), 1.0),  # what stands before an answer never matters to accuracy
        (RIGHT + AFTER, (0.0, 0.0), 0.0),
        ("<answer>reading</answer>" + AFTER + AFTER, (0.0, 0.0), 0.0),
        ("<answer>reading</answer>" + AFTER + ".", (0.0, 0.0), 0.0),
        ("<answer>reading</answer> or running " + AFTER, (0.0, 0.0), 0.0),
        ("<answer>reading</answer>" + AFTER + "<answer>running</answer>", (0.0, 0.0), 0.0),
        ("<answer>reading</answer><think>a <answer>page</answer></think>", (0.0, 0.0), 0.0),
        ("<answer>" + AFTER + "</answer>", (0.0, 0.0), 0.0),
        ("<answer>reading" + AFTER, (0.0, 0.0), 0.0),
        ("<answer>reading</answer></think>", (0.0, 0.0), 0.0),
        ("<answer>reading</answer><think>a <|im_end|> b</think>", (0.0, 0.0), 0.0),
        (AFTER, (0.0, 0.0), 0.0),
        ("", (0.0, 0.0), 0.0),
    ],
)
def test_reasoning_may_follow_the_answer_in_one_style_alone(text, answer_first, other_styles):
    judged = (accuracy_reward([text], "reading", "answer-first"), format_reward([text], "answer-first"))
    assert judged == ([answer_first[0]], [answer_first[1]])
    for style in ("think", "answer"):
        assert accuracy_reward([text], "reading", style) == accuracy_reward([text], "reading") == [other_styles]


def test_a_megabyte_of_reasoning_after_the_answer_is_judged():
    text = "<answer>reading</answer><think>" + "a <think " * 100_000
    assert accuracy_reward([text], "reading", "answer-first") == [1.0]
    assert format_reward([text + "</think>", text], "answer-first") == [1.0, 0.0]


def test_the_longest_answer_is_still_an_answer():
    assert extract_answer(f"<answer>{'a' * 1000}</answer>") == "a" * 1000
    assert extract_answer(f"<answer>{'a' * 1001}</answer>") is None


def test_a_part_of_a_message_without_text_adds_none():
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "read"}, {"type": "image"}]
    assert completion_text([{"role": "assistant", "content": parts}]) == "read"


@pytest.mark.parametrize("role", ["user", "system", "tool", "Assistant", "", None])
def test_what_another_role_says_is_no_completion(role):
    chat = [{"role": role, "content": RIGHT}]
    assert accuracy_reward([chat], "reading") == format_reward([chat]) == [0.0]
    assert completion_text([{"role": "assistant", "content": "reading"}, *chat]) == ""
    assert completion_text([*chat, {"role": "assistant", "content": "reading"}]) == "reading"


@pytest.mark.parametrize("label", [[3], 3, [None], [True], [b"reading"], [["reading"]], [3.0]])
def test_a_label_that_is_no_name_is_refused(label):
    with pytest.raises(ValueError, match="a label must be a name, not"):
        accuracy_reward(["<answer>reading</answer>"], label=label)


def test_a_number_for_a_label_says_where_names_are():
    numpy = pytest.importorskip("numpy")
    for number in (3, numpy.int64(3), numpy.array([3])[0]):
        with pytest.raises(ValueError, match=r"features\['label'\].int2str"):
            accuracy_reward(["<answer>reading</answer>"], label=[number])
    assert accuracy_reward(["<answer>reading</answer>"], label=numpy.array(["reading"])) == [1.0]


TAKE_COMPLETIONS = {
    "accuracy": lambda completions: accuracy_reward(completions, "reading"),
    "format": format_reward,
    "truth": lambda completions: truth_reward(completions, ["cartoon/test/000006"] * len(completions)),
    "published": lambda completions: published_reward(completions, ["reading"] * len(completions)),
    "published format": published_format,
}


@pytest.mark.parametrize("reward", TAKE_COMPLETIONS)
def test_one_text_or_chat_is_no_list_of_completions(reward):
    with pytest.raises(TypeError, match="completions must be a list, not the string"):
        TAKE_COMPLETIONS[reward](RIGHT)
    with pytest.raises(ValueError, match="completions must be texts or chats"):
        TAKE_COMPLETIONS[reward]([{"role": "assistant", "content": RIGHT}])


@pytest.mark.parametrize(
    "rewards", ["accuracy", ["accuracy"], accuracy_reward, {"accuracy": "accuracy_reward"}, [None]]
)
def test_what_is_no_function_is_no_reward(rewards):
    with pytest.raises(ValueError, match="rewards must be a list"):
        named_rewards(rewards)


def test_a_source_is_one_per_completion():
    with pytest.raises(ValueError, match="source must be a list"):
        truth_reward([RIGHT], "cartoon/test/000006")


def test_parts_of_messages_by_hand():
    assert completion_text([{"content": "said by nobody else"}]) == "said by nobody else"
    assert completion_text([{"content": [{"text": "a"}, {"type": "text"}, {"type": "text", "text": "b"}]}]) == "ab"
    with pytest.raises(TypeError, match="^completions must be a list, not the string 'a'"):
        accuracy_reward("a", label="a")
    with pytest.raises(ValueError, match="^completions must be texts or chats, not messages"):
        format_reward(["a", {"role": "assistant", "content": "a"}])


def test_the_form_of_an_answer_before_its_reasoning():
    form = "<answer>reading</answer>\n<think>a page,\ntwo hands</think>"
    assert format_reward([form, "<answer>read\ning</answer><think>a page</think>"], style="answer-first") == [1.0, 1.0]
    bad = ["<answer></answer><think>a page</think>", "<answer>reading</answer><think></think>", form + ".", form + form]
    assert format_reward(bad, style="answer-first") == [0.0] * 4
