from dataclasses import replace

import numpy as np
import pytest

from favor_lab.study.evaluation import Answered, Evaluation
from favor_lab.study.measures import MEASURES, difference, mean_of, measure, values

GOOD = "<think>phone at the ear</think><answer>phoning</answer>"
ODD = "<think>phone at the ear. dancing</think><answer>reading</answer>"
BARE = "<answer>phoning</answer>"


def answered(index, text, correct, statements, true):
    answer = text.partition("<answer>")[2].partition("</answer>")[0]
    return Answered(f"cartoon/test/{index}", "phoning", answer, correct, True, statements, true, text)


def evaluation(*texts):
    kinds = {GOOD: (True, 1, 1), ODD: (False, 2, 1), BARE: (True, 0, 0)}
    answers = [answered(index, text, *kinds[text]) for index, text in enumerate(texts)]
    return Evaluation("pocket", "think", ["phoning", "reading"], answers, 1.0)


def test_statements_weigh_alike_and_responses_without_any_do_not_count():
    run = evaluation(GOOD, ODD, BARE)
    assert measure([run], "right").mean == pytest.approx(2 / 3)
    assert measure([run], "true").mean == pytest.approx(2 / 3), "two of three statements"
    assert measure([run], "consistent").mean == pytest.approx(1 / 2), "two responses have reasoning and an answer"
    assert measure([run], "words").mean == pytest.approx((9 + 10 + 3) / 3)
    assert measure([evaluation(BARE)], "true") is None and measure([evaluation(BARE)], "consistent") is None


def test_differences_are_of_the_images_that_both_sides_have():
    before, after = evaluation(ODD, BARE, ODD), evaluation(GOOD, GOOD, BARE)
    assert difference([before], [after, after], "right").mean == pytest.approx(2 / 3)
    assert difference([before], [after], "true").mean == pytest.approx(0.5), "the first image alone"
    assert difference([evaluation(BARE)], [evaluation(GOOD)], "true") is None
    with pytest.raises(ValueError, match="2 evaluations before and 3 after"):
        difference([before] * 2, [after] * 3, "right")


def test_only_the_same_images_can_be_stacked():
    with pytest.raises(ValueError, match="not of the same images"):
        values([evaluation(GOOD), evaluation(GOOD, ODD)], "right")
    with pytest.raises(ValueError, match="unknown measure 'beauty'"):
        values([evaluation(GOOD)], "beauty")
    assert set(MEASURES) == {
        "right",
        "well formed",
        "true",
        "consistent",
        "sampled right",
        "reached",
        "majority right",
        "sure",
        "right when sure",
        "brier",
        "words",
    }


def test_sampled_answers_have_measures_of_their_own():
    rows = [("phoning", "reading", "reading"), ("phoning", "phoning", "reading"), (None, None, None)]
    plain = evaluation(GOOD, ODD, BARE)
    run = replace(plain, answers=[replace(a, sampled=row) for a, row in zip(plain.answers, rows, strict=True)])
    assert measure([run], "sampled right").mean == pytest.approx((1 / 3 + 2 / 3) / 3)
    assert measure([run], "reached").mean == pytest.approx(2 / 3)
    assert measure([run], "majority right").mean == pytest.approx(1 / 3)
    names = ("sampled right", "reached", "majority right", "sure", "right when sure", "brier")
    assert all(measure([plain], name) is None for name in names)


def test_a_sure_policy_is_one_whose_samples_agree():
    agreeing = ("phoning",) * 3 + ("reading",)  # 3/4 agree, and are right
    rows = [agreeing, ("reading",) * 4, (None, "reading", "phoning", "phoning")]
    plain = evaluation(GOOD, ODD, BARE)
    run = replace(plain, answers=[replace(a, sampled=row) for a, row in zip(plain.answers, rows, strict=True)])
    assert [answer.agreement for answer in run.answers] == [0.75, 1.0, 0.5]
    assert measure([run], "sure").mean == pytest.approx(2 / 3)
    assert measure([run], "right when sure").mean == pytest.approx(1 / 2)
    assert measure([run], "brier").mean == pytest.approx((0.25**2 + 1 + 0.5**2) / 3)


def test_a_weighted_interval_leaves_out_what_has_no_weight():
    numbers, weights = np.array([[1.0, np.nan, 0.0]]), np.array([[1.0, 0.0, 1.0]])
    average = mean_of(numbers, weights)
    assert average.mean == 0.5 and (average.low, average.high) == (0.0, 1.0) and not average.excludes_zero
    assert mean_of(numbers, 0 * weights) is None
    heavy = mean_of(np.array([[1.0, 0.0] * 50]), np.array([[3.0, 1.0] * 50]))
    assert heavy.mean == 0.75 and heavy.low > 0.6 and heavy.high < 0.9
