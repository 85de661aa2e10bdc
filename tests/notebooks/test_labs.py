"""The labs can be released, the solved ones score full marks and the empty ones nothing, and no check accepts
a classic mistake."""

import ast
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

import favor_lab
import forks
import labs

pytestmark = pytest.mark.slow

NAMES = [path.parent.name for path in labs.SOURCES]
EXERCISES = [exercise for name in NAMES for exercise in labs.exercises(name)]
PLANTED = [(e, wrong) for e in EXERCISES for wrong in labs.planted(e.lab).get(e.name, [])]
LEAST_PLANTED, LEAST_MESSAGE = 5, 25


@pytest.fixture(scope="module")
def students():
    """One student per lab, who goes from exercise to exercise."""
    return {name: labs.Student(name) for name in NAMES}


def title(exercise):
    return f"{exercise.lab}-{exercise.name}"


@pytest.mark.parametrize("exercise", EXERCISES, ids=title)
def test_the_solution_passes_its_check(exercise, students):
    assert students[exercise.lab].answer(exercise, exercise.solution) is None


@pytest.mark.parametrize(
    ("exercise", "wrong"), PLANTED, ids=[f"{title(e)}-{w.mistake.replace(' ', '_')}" for e, w in PLANTED]
)
def test_the_check_rejects_a_wrong_answer_and_says_why(exercise, wrong, students):
    message = students[exercise.lab].answer(exercise, wrong.answer)
    assert message is not None, f"the check takes this answer, though: {wrong.mistake}"
    assert labs.re.search(wrong.hint, message), f"{wrong.mistake}: the check says {message!r}"
    assert len(message) >= LEAST_MESSAGE


RIGHT = [(e, answer) for e in EXERCISES for answer in labs.right(e.lab).get(e.name, [])]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[f"{title(e)}-{i}" for i, (e, _) in enumerate(RIGHT)])
def test_a_right_answer_that_is_written_differently_passes(exercise, answer, students):
    assert students[exercise.lab].answer(exercise, answer) is None


#: exercises that ask for what the library has: none of its functions may stand in the answer's place
IN_THE_LIBRARY = {"interval": "wilson", "strict-accuracy": "answer_of accuracy", "group-advantages": "advantages"}


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e.name in IN_THE_LIBRARY], ids=title)
def test_no_function_of_the_library_is_an_answer(exercise, students):
    for name in IN_THE_LIBRARY[exercise.name].split():
        for public in favor_lab.__all__:
            message = students[exercise.lab].answer(
                exercise, f"{exercise.solution}\nfrom favor_lab import {public} as {name}"
            )
            assert message and "library" in message, public


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_planted_wrong_answers_and_no_other_has(name):
    counts = {exercise.name: len(labs.planted(name).get(exercise.name, [])) for exercise in labs.exercises(name)}
    assert {exercise: count for exercise, count in counts.items() if count < LEAST_PLANTED} == {}
    assert set(labs.planted(name)) == set(counts)


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_begins_with_share_cores(name):
    """Before any import that may import torch."""
    assert labs.code_cells(name)[0].source.startswith("from favor_lab import share_cores\n\nshare_cores()")


@pytest.mark.parametrize("exercise", EXERCISES, ids=title)
def test_the_planted_answers_differ(exercise):
    answers = [ast.dump(ast.parse(wrong.answer)) for wrong in labs.planted(exercise.lab)[exercise.name]]
    assert len({*answers, ast.dump(ast.parse(exercise.solution))}) == len(answers) + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_has_exercises_of_three_levels(name):
    exercises = list(labs.exercises(name))
    assert {exercise.level for exercise in exercises} == set(labs.LEVELS)
    assert [exercise.title for exercise in exercises] == list(dict.fromkeys(exercise.title for exercise in exercises))
    numbers = [
        labs.TITLE.findall(cell.source)
        for cell in nbformat.read(labs.LABS / "source" / name / f"{name}.ipynb", as_version=4).cells
        if cell.cell_type == "markdown"
    ]
    assert [(lab, number) for exercises in numbers for lab, number, *_ in exercises] == [
        (name.removeprefix("lab"), str(i)) for i in range(1, len(exercises) + 1)
    ]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The labs' folder, released: every lab submitted once as solved and once as it was handed out."""
    pytest.importorskip("nbgrader", reason='grading needs nbgrader: pip install "favor-lab[test]"')
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(labs.LABS / "nbgrader_config.py", folder)
    shutil.copytree(labs.LABS / "source", folder / "source", ignore=shutil.ignore_patterns(".*"))
    for name in NAMES:
        nbgrader(folder, "generate_assignment", name)
        for student, folder_name in (("solved", "source"), ("empty", "release")):
            shutil.copytree(folder / folder_name / name, folder / "submitted" / student / name)
    return folder


def nbgrader(folder, *arguments):
    # nbgrader starts alembic by name: the environment's own must be found
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": paths, "JUPYTER_CONFIG_DIR": str(folder / "config")}
    from nbgrader.apps.nbgraderapp import NbGraderApp

    command = forks.run(NbGraderApp.launch_instance, [*arguments], cwd=folder, environment=environment)
    assert command.status == 0, command.output + command.errors


@pytest.mark.parametrize("name", NAMES)
def test_the_student_copy_is_valid_python_without_answers(name, course):
    copy = nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4)
    cells = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in copy.cells}
    for cell in copy.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
            assert not cell.outputs and "SOLUTION" not in cell.source and "HIDDEN" not in cell.source
    for exercise in labs.exercises(name):
        assert "raise NotImplementedError" in cells[exercise.name].source
        released, answer = cells[exercise.name].source, exercise.solution.split("### BEGIN SOLUTION")[1]
        for line in answer.split("### END SOLUTION")[0].strip().splitlines():
            assert line.strip() not in released.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_solved_scores_full_marks_and_empty_scores_nothing(name, course):
    from nbgrader.api import Gradebook

    nbgrader(course, "autograde", name)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        solved, empty = (gradebook.find_submission(name, student) for student in ("solved", "empty"))
        points = sum(exercise.points for exercise in labs.exercises(name))
        by_hand = labs.manual_points(name)  # nobody has read the solved lab yet
        assert (solved.score, solved.max_score, empty.score) == (points, points + by_hand, 0)
