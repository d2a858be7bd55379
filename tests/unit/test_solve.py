"""`rung solve` and the interactive solver: whose model solves, what is shown, what is said of mistakes."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn
from typer.testing import CliRunner

from rung.cli import app
from rung.errors import RungError
from rung.results.files import delete_folder
from rung.results.query import load
from rung.results.views import dicts
from rung.tuning.solve import RULE, interact, open_solver
from tests.expressions import SMALL_EXPRESSIONS
from tests.launching import launch
from tests.scripted_decoder import ScriptedDecoder
from tests.toy import Toy
from trainables.arithmetic import run_interactive
from trainables.arithmetic.solving import solve
from trainables.arithmetic.tokenizer import Tokenizer, count_words, train_tokenizer
from trainables.arithmetic.trace import ERROR_SOLUTION, foundational_text, prompt, solution

EXPRESSION = "5 + (10 - 3)"
SHOWN = """Reasoning Steps:
  Step 1: 10 - 3 = 7
  Expression now: 5 + 7
  Step 2: 5 + 7 = 12
  Expression now: 12

Final Result: 12"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [foundational_text(EXPRESSION, text, "v2") for text in (solution(EXPRESSION), ERROR_SOLUTION)]
    return train_tokenizer(count_words(texts, "digits"), 1_000)


def answered(tokenizer: Tokenizer, problem: str, text: str, asked: str = EXPRESSION, length: int = 200) -> str:
    """What is shown if the model answers `asked` with a text."""
    model = ScriptedDecoder(tokenizer, {prompt(asked, "v2"): [text]}, length)
    return solve(model, tokenizer, "v2", problem)


@pytest.mark.parametrize("problem", [EXPRESSION, "5+(10-3)", " Evaluate: 5 + ((10 - 3)) "])
def test_a_right_solution_is_shown_as_it_is(tokenizer: Tokenizer, problem: str) -> None:
    assert answered(tokenizer, problem, solution(EXPRESSION)) == SHOWN


def test_steps_on_one_line_are_shown_line_by_line(tokenizer: Tokenizer) -> None:
    assert answered(tokenizer, EXPRESSION, " ".join(solution(EXPRESSION).split())) == SHOWN


@pytest.mark.parametrize(
    ("before", "after", "remark"),
    [
        ("10 - 3 = 7", "10 - 3 = 8", "WRONG: step 1: 10 - 3 is 7, not 8"),
        ("Result: 12", "Result: 13", "WRONG: its steps end with 12, and its result is 13; the right result is 12"),
        ("Final Result: 12", "", "WRONG: it has no final result that can be read; the right result is 12"),
        ("Final Result: 12", "5" * 300, "WRONG: it was cut off after "),
    ],
)
def test_what_is_wrong_is_said(tokenizer: Tokenizer, before: str, after: str, remark: str) -> None:
    shown = answered(tokenizer, EXPRESSION, solution(EXPRESSION).replace(before, after))
    assert shown.splitlines()[-1].startswith(remark)


def test_an_invalid_expression_is_an_error_and_not_refused(tokenizer: Tokenizer) -> None:
    shown = answered(tokenizer, "5 + + 3", ERROR_SOLUTION, asked="5 + + 3")
    assert shown == "Reasoning Steps:\n  Evaluation ERROR\n\nFinal Result: ERROR"
    shown = answered(tokenizer, "5 + + 3", "<think>\n</think>\nFinal Result: 8", asked="5 + + 3")
    assert shown.splitlines()[-1] == "WRONG: the expression is invalid, and the result 8; the right result is ERROR"


@pytest.mark.parametrize(
    ("problem", "length", "message"),
    [
        ("5 * 3", 200, "it has no '\\*'"),
        ("", 200, "there is no expression"),
        (EXPRESSION, 30, "with its solution is longer than the 30 tokens"),
    ],
)
def test_what_cannot_be_solved_is_refused(tokenizer: Tokenizer, problem: str, length: int, message: str) -> None:
    with pytest.raises(RungError, match=message):
        answered(tokenizer, problem, solution(EXPRESSION), length=length)


# The loop.


def typed(*lines: str | BaseException) -> tuple[list[str], list[str], list[str]]:
    """Has lines typed: what was asked, what was to be solved, what was said."""
    asked: list[str] = []
    problems: list[str] = []
    said: list[str] = []
    waiting = iter(lines)

    def read(question: str) -> str:
        asked.append(question)
        line = next(waiting)
        if isinstance(line, BaseException):
            raise line
        return line

    def answer(problem: str) -> str:
        problems.append(problem)
        if problem == "bad":
            raise RungError("no such thing")
        return f"Final Result: {problem}"

    interact(answer, said.append, read)
    return asked, problems, said


@pytest.mark.parametrize("end", ["exit", "QUIT", " q ", EOFError(), KeyboardInterrupt()])
def test_the_loop_solves_until_it_is_told_to_end(end: str | BaseException) -> None:
    asked, problems, said = typed(" 7 ", "", "bad", "8", end, "9")
    assert problems == ["7", "bad", "8"]
    assert set(asked) == {"Enter problem: "}
    assert said[0] == f"\n{RULE}\nSOLUTION:\n{RULE}\n\nFinal Result: 7\n{RULE}\n"
    assert said[1] == "error: no such thing\n"
    assert len(said) == 3 + isinstance(end, BaseException)


# Whose model it is.


class Oracle(Toy):
    """A toy whose models solve."""

    def solve(self, model: nn.Module, problem: str) -> str:
        return f"{problem}: {next(model.parameters())[0].item():.6f} of seed {self.seed}"


def study(folder: Path, name: str, kind: str, **changes: Any) -> Path:
    content = {
        "study": name,
        "trainable": f"{__name__}:{kind}" if kind == "Oracle" else "tests.toy:Toy",
        "space": {"optimizer.learning_rate": {"grid": [0.05, 1e-9]}},
        "seeds": 2,
        "budget": {"steps": 3},
        "metric": {"name": "validation/loss", "mode": "min"},
        "storage": str(folder),
        "checkpoints": {"keep": "best"},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    launch(path)
    return folder / name


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two studies whose models solve, one whose models do not, and one that has kept nothing, in this order."""
    folder = tmp_path_factory.mktemp("results")
    for age, (name, kind) in enumerate([("old", "Oracle"), ("new", "Oracle"), ("toy", "Toy"), ("bare", "Oracle")]):
        changes: dict[str, Any] = {} if name == "new" else {"seeds": 1, "space": {}}
        directory = study(folder, name, kind, **changes)
        os.utime(directory / "study.json", (age, age))
    delete_folder(folder / "bare" / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_STORAGE", str(folder))
        yield folder


def test_the_newest_study_that_can_solve_does(results: Path) -> None:
    solver = open_solver(None, None)
    best = load(results / "new").summary()[0].config_id
    assert solver.whose == f"{best}-s0 at step 3, study new"
    assert solver("1 + 1").endswith("of seed 0")
    assert not solver.run.model.training


def test_a_study_or_a_run_can_be_named(results: Path) -> None:
    assert open_solver(None, "old").whose.endswith("study old")
    other = next(row["run_id"] for row in dicts(load(results / "new").runs) if row["seed"] == 1)
    assert open_solver(other, "new")("x").endswith("of seed 1")


def test_of_a_pipeline_the_last_stage_that_can_solve_does(results: Path) -> None:
    (results / "line").mkdir()
    names = ["old", "new", "toy", "waiting"]
    folders = {name: {"state": "complete", "started_at": None, "ended_at": None, "seconds": 1.0} for name in names[:3]}
    stages = [
        {
            "study": name,
            "folder": name if name in folders else None,
            "folders": {name: folders[name]} if name in folders else {},
        }
        for name in names
    ]
    (results / "line" / "pipeline.json").write_text(json.dumps({"format": 1, "stages": stages}))
    assert open_solver(None, "line").whose.endswith("study new")


def test_who_cannot_solve_says_so(results: Path) -> None:
    with pytest.raises(RungError, match=r"models of tests\.toy:Toy write no solutions"):
        open_solver(None, "toy")
    with pytest.raises(RungError, match="has kept no checkpoint"):
        open_solver(None, "bare")
    with pytest.raises(RungError, match="no run is called 'c0'"):
        open_solver("c0", "new")


def test_without_any_study_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path))
    with pytest.raises(RungError, match="has kept a model that solves problems: run one"):
        open_solver(None, None)


def test_the_verb_solves_one_problem_or_asks(results: Path) -> None:
    runner = CliRunner()
    one = runner.invoke(app, ["solve", "1 + 1"])
    assert one.exit_code == 0
    assert "study new\n1 + 1: " in one.output
    many = runner.invoke(app, ["solve", "--study", "old"], input="2\nexit\n")
    assert many.exit_code == 0
    assert "Enter problem: " in many.output
    assert "2: " in many.output


def test_a_trained_model_solves_what_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path / "data"))
    content = {"trainable": "arithmetic", "base": dict(SMALL_EXPRESSIONS), "space": {}, "seeds": 1}
    directory = study(tmp_path, "arithmetic", "", **content)
    solved = open_solver(None, str(directory))("1 + 2")
    checkpoint = next((directory / "checkpoints").iterdir())
    monkeypatch.setattr("sys.stdin", io.StringIO("1 + 2\n1 * 2\n"))
    assert run_interactive.main(["--model-path", str(checkpoint), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Enter expression: ") == 3
    assert f"{RULE}\n\n{solved}\n{RULE}" in shown
    assert "error: an expression has digits" in shown
