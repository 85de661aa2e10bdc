from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.outcome import never_right


def record(right=0, update=0):
    return {"update": update, "labels": {"reading": {"completions": 4, "right": right, "right_so_far": right}}}


def answers(*verdicts):
    rows = [Answered(f"{i}.png", "reading", None, right, True, 0, 0, "") for i, right in enumerate(verdicts)]
    return Evaluation("policy", "think", ["reading"], rows, 1.0)


def test_one_right_completion_or_answer_is_enough():
    assert not never_right([record(), record(right=1)], answers(False))
    assert not never_right([record()], answers(False, True))
    assert not never_right([], answers(True))


def test_what_was_never_right_is_counted():
    named = "named the label of its image"
    assert never_right([record(), record()], None) == f"none of the 8 completions in training {named}"
    both = f"none of the 4 completions in training and none of the 2 answers after it {named}"
    assert never_right([record(), record(update=1)], answers(False, False)) == both, "two updates on one rollout"
    assert never_right([{"step": 1, "labels": {}}], answers(False)) == f"none of the 1 answers after training {named}"


def test_where_nothing_was_asked_nothing_is_claimed():
    assert never_right([], None) == never_right([{"step": 1}], None) == ""
