"""The exercises of the reading notebooks: a stub is not an answer, every solution and every right answer passes, and
every planted wrong answer is rejected with a message that says what to look at."""

import ast

import pytest

import lessons

EXERCISES = [(path, e) for path in sorted(lessons.NOTEBOOKS.glob("*.ipynb")) for e in lessons.exercises(path)]
PATHS = list(dict.fromkeys(path for path, _ in EXERCISES))
SOLVED = [exercise for path in PATHS for exercise in lessons.solved(path)]
RIGHT = [(e, source) for path in PATHS for e in lessons.solved(path) for source in lessons.right(path)[e.name]]
PLANTED = [(e, wrong) for path in PATHS for e in lessons.solved(path) for wrong in lessons.planted(path)[e.name]]
LEAST_RIGHT, LEAST_PLANTED, LEAST_MESSAGE = 2, 8, 25


def title(value):
    return getattr(value, "name", None) or getattr(value, "mistake", "answer").replace(" ", "_")


@pytest.mark.parametrize("exercise", SOLVED, ids=title)
def test_the_stub_is_no_answer_and_the_solution_is_one(exercise):
    stub = next(e for _, e in EXERCISES if e.name == exercise.name).solution
    assert lessons.judge(exercise, stub) == f"Exercise {exercise.name} has no answer yet."
    assert lessons.judge(exercise, exercise.solution) == f"Exercise {exercise.name} passed."


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=title)
def test_right_answers_written_differently_pass(exercise, answer):
    assert lessons.judge(exercise, answer) == f"Exercise {exercise.name} passed."


@pytest.mark.parametrize(("exercise", "wrong"), PLANTED, ids=title)
def test_the_check_rejects_a_wrong_answer_and_says_why(exercise, wrong):
    verdict = lessons.judge(exercise, wrong.answer)
    message = verdict.partition("not yet: ")[2]
    assert message, f"the check says {verdict!r}, though: {wrong.mistake}"
    assert "your code raises" not in message, f"{wrong.mistake}: the check stumbles: {message}"
    assert lessons.re.search(wrong.hint, message), f"{wrong.mistake}: the check says {message!r}"
    assert len(message) >= LEAST_MESSAGE


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_exercise_is_tried_with_enough_answers_and_all_differ(path):
    planted, right = lessons.planted(path), lessons.right(path)
    for exercise in lessons.solved(path):
        wrong, others = planted[exercise.name], right[exercise.name]
        assert len(wrong) >= LEAST_PLANTED and len(others) >= LEAST_RIGHT, exercise.name
        sources = [exercise.solution, *others, *(one.answer for one in wrong)]
        assert len({ast.dump(ast.parse(source)) for source in sources}) == len(sources), exercise.name
    assert set(planted) == set(right) == {exercise.name for exercise in lessons.exercises(path)}
