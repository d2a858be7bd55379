"""Errors that users see: every problem on its line, and whole after a trip to another process."""

import pickle

import pytest

from rung.errors import Problem, RungError, StorageError, StudyError

PROBLEMS = (
    Problem("unknown key", "space.model.kidn", 7, "did you mean 'kind'?"),
    Problem("must be at least 1", "seeds", 12),
    Problem("there is no metric"),
)


def test_a_study_error_lists_every_problem_on_its_line() -> None:
    assert str(StudyError(PROBLEMS, "demo.yaml")).splitlines() == [
        "demo.yaml:7: space.model.kidn: unknown key (did you mean 'kind'?)",
        "demo.yaml:12: seeds: must be at least 1",
        "demo.yaml: there is no metric",
    ]


def test_without_a_file_the_line_is_named_in_words() -> None:
    assert str(StudyError(PROBLEMS)).splitlines() == [
        "line 7: space.model.kidn: unknown key (did you mean 'kind'?)",
        "line 12: seeds: must be at least 1",
        "there is no metric",
    ]


@pytest.mark.parametrize("error", [StudyError(PROBLEMS, "demo.yaml"), StorageError("cannot write"), RungError("no")])
def test_errors_survive_pickling(error: RungError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_is_a_rung_error() -> None:
    assert issubclass(StorageError, RungError)
    assert issubclass(StudyError, RungError)
