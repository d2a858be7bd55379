"""The study file: what a good one becomes, and for every kind of mistake its line, path and hint."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rung.errors import Problem, StudyError
from rung.plan import make_plan
from rung.study import Study, load_study, study_json

GOOD = """\
study: toy
trainable: tests.toy_arithmetic:ToyArithmetic
base:
  modulus: 31
space:
  model.kind: [gpt, lstm]
seeds: 2
budget: {steps: 100}
metric: {name: validation/accuracy, mode: max}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(text: str = GOOD) -> Path:
        path = tmp_path / "toy.yaml"
        path.write_text(text)
        return path

    return written


def with_line(number: int, text: str) -> str:
    lines = GOOD.splitlines()
    lines[number - 1 : number] = text.splitlines()
    return "\n".join(lines)


def problems_of(path: Path, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(StudyError) as caught:
        load_study(path, overrides)
    return caught.value.problems


# What a good one becomes.


def test_a_good_file(write: Any) -> None:
    study = load_study(write())
    assert (study.study, study.seeds, study.samples) == ("toy", (0, 1), 1)
    assert (study.budget.unit, study.budget.amount, study.budget.cap) == ("steps", 100, None)
    assert study.space == {"model.kind": {"grid": ["gpt", "lstm"]}}
    assert (study.scheduler.name, study.searcher.name, study.replication) == ("fifo", "plan", "serial")
    assert (study.checkpoints.seconds, study.checkpoints.keep, study.failures.retries) == (30.0, "best", 1)


def test_a_study_is_frozen_and_survives_pickling(write: Any) -> None:
    study = load_study(write())
    with pytest.raises(ValueError, match="frozen"):
        study.samples = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(study)) == study


@pytest.mark.parametrize(
    ("budget", "unit", "amount", "cap"),
    [
        ("{steps: 1e3}", "steps", 1000, None),
        ("{epochs: 3, wall_clock: 60}", "epochs", 3, 60),
        ("{tokens: 1_000}", "tokens", 1000, None),
        ("{wall_clock: 60}", "wall_clock", 60, None),
    ],
)
def test_budgets(write: Any, budget: str, unit: str, amount: int, cap: int | None) -> None:
    found = load_study(write(), [f"budget={budget}"]).budget
    assert (found.unit, found.amount, found.cap) == (unit, amount, cap)


def test_a_mode_that_is_left_out_is_the_metric_s_own(write: Any) -> None:
    overrides = ["metric={name: validation/accuracy}", "budget.target={metric: validation/loss, value: 0.1}"]
    study = load_study(write(), overrides)
    assert study.metric.mode == "max"
    assert study.budget.target is not None
    assert study.budget.target.mode == "min"


def test_numbers_are_coerced_by_the_trainable_s_fields(write: Any) -> None:
    study = load_study(write(), ["base.optimizer.learning_rate='1e-3'", "space={model.layers: [1e0, '2']}"])
    plan = make_plan(study)
    assert sorted(configuration.swept["model.layers"] for configuration in plan.configurations) == [1, 2]
    assert plan.base["optimizer"]["learning_rate"] == 1e-3


def test_empty_sections_mean_their_defaults(write: Any) -> None:
    assert load_study(write(with_line(4, "  # nothing")), ["space="]).space == {}


def test_dimensions_keep_the_order_of_the_file(write: Any) -> None:
    text = with_line(6, "  model.kind: [gpt]\n  operator: [+]\n  model.layers: [1]\n")
    study = load_study(write(text), ["space.modulus=[7]"])
    assert list(study.space) == ["model.kind", "operator", "model.layers", "modulus"]


def test_the_directory_is_below_the_storage_root(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNG_STORAGE", raising=False)
    assert load_study(write()).directory == Path("results/toy")
    monkeypatch.setenv("RUNG_STORAGE", "/elsewhere")
    assert load_study(write()).directory == Path("/elsewhere/toy")
    assert load_study(write(), ["storage=here"]).directory == Path("here/toy")


# What a bad one says: (the file, line, path, message, hint).

BAD = {
    "unknown key": (with_line(7, "seeds: 2\nsample: 3"), 8, "sample", "unknown key", "'samples'"),
    "unknown key of a section": (with_line(8, "budget: {step: 100}"), 8, "budget.step", "unknown key", "'steps'"),
    "confirm without a number": (with_line(7, "seeds: 2\nconfirm: {top: 0}"), 8, "confirm.top", "above 0", ""),
    "fresh seeds are a number": (with_line(7, "seeds: 2\nconfirm: {seeds: [1]}"), 8, "confirm.seeds", "whole", ""),
    "unknown key in base": (with_line(4, "  modulos: 31"), 4, "base.modulos", "unknown key", "'modulus'"),
    "unknown key deep in base": (with_line(4, "  model: {layer: 1}"), 4, "base.model.layer", "unknown key", "'layers'"),
    "abbreviated key": (with_line(4, "  optimizer.lr: 1"), 4, "base.optimizer.lr", "unknown key", "'learning_rate'"),
    "key of an inner part": (
        with_line(4, "  learning_rate: 1"),
        4,
        "base.learning_rate",
        "unknown key",
        "'optimizer.learning_rate'",
    ),
    "unknown path": (with_line(6, "  model.knid: [gpt]"), 6, "space.model.knid", "unknown key", "'kind'"),
    "unknown first part": (with_line(6, "  modle.kind: [gpt]"), 6, "space.modle", "unknown key", "'model'"),
    "misspelt word": (with_line(6, "  model.kind: {gird: [gpt]}"), 6, "space.model.kind.gird", "unknown key", "'grid'"),
    "two words": (with_line(6, "  modulus: {grid: [5], choice: [7]}"), 6, "space.modulus", "takes one word", ""),
    "no list": (with_line(6, "  modulus: 7"), 6, "space.modulus", "expected a list", "base.modulus"),
    "wrong number of numbers": (
        with_line(6, "  modulus: {randint: [5]}"),
        6,
        "space.modulus.randint",
        "expected two numbers",
        "randint: [low, high]",
    ),
    "logarithm of zero": (
        with_line(6, "  optimizer.learning_rate: {loguniform: [0, 1]}"),
        6,
        "space.optimizer.learning_rate.loguniform",
        "low must be above 0",
        "",
    ),
    "value twice": (with_line(6, "  modulus: [5, 7, 5.0]"), 6, "space.modulus.grid", "names 5.0 twice", ""),
    "wrong type": (with_line(7, "seeds: many"), 7, "seeds", "how many seeds or a list", ""),
    "boolean for a number": (with_line(4, "  modulus: true"), 4, "base.modulus", "got the boolean true", ""),
    "text for a number": (with_line(4, "  modulus: x"), 4, "base.modulus", 'expected a whole number, got "x"', ""),
    "fraction for a whole": (with_line(8, "budget: {steps: 1.5}"), 8, "budget.steps", "expected a whole number", ""),
    "number for text": (with_line(4, "  note: 5"), 4, "base.note", "expected text, got 5", '"5"'),
    "value for a section": (with_line(8, "budget: 100"), 8, "budget", "expected keys with values", "steps, epochs"),
    "list for a section": (with_line(4, "  model: [1]"), 4, "base.model", "expected keys with values", "kind, layers"),
    "base is no mapping": (with_line(3, "base: 5\nstorage:").replace("  modulus: 31\n", ""), 3, "base", "expected", ""),
    "out of bounds": (with_line(4, "  model.layers: 0"), 4, "base.model.layers", "must be above 0, got 0", ""),
    "no such choice": (with_line(4, "  model.kind: gtp"), 4, "base.model.kind", "one of gpt, lstm", "'gpt'"),
    "refused axis value": (
        with_line(6, "  model.kind:\n    - gpt\n    - lstmm"),
        8,
        "space.model.kind[1]",
        'one of gpt, lstm, got "lstmm"',
        "'lstm'",
    ),
    "refused axis value behind grid": (
        with_line(6, "  model.layers: {grid: [1, 0]}"),
        6,
        "space.model.layers.grid[1]",
        "must be above 0, got 0",
        "",
    ),
    "refused draw": (
        with_line(6, "  model.layers: {uniform: [1, 3]}"),
        6,
        "space.model.layers.uniform",
        "drawn from uniform 1 .. 3",
        "",
    ),
    "condition on nothing": (
        with_line(6, "  model.heads: {grid: [2], when: {model.knd: gpt}}"),
        6,
        "space.model.heads.when.model.knd",
        "unknown key",
        "'model.kind'",
    ),
    "condition that never holds": (
        with_line(6, "  model.heads: {grid: [2], when: {model.kind: gtp}}"),
        6,
        "space.model.heads.when.model.kind",
        'model.kind is never "gtp"',
        "'gpt'",
    ),
    "condition on a range": (
        with_line(6, "  model.layers: {randint: [1, 3]}\n  modulus: {grid: [5], when: {model.layers: 2}}"),
        7,
        "space.modulus.when.model.layers",
        "drawn from a range",
        "",
    ),
    "impossible combination": (
        with_line(4, "  operator: /").replace("model.kind: [gpt, lstm]", "modulus: [5, 6, 7]"),
        6,
        "space.modulus",
        "modulus=6: operator / needs a prime modulus",
        "",
    ),
    "impossible base": (
        with_line(4, "  model: {width: 30}").replace("[gpt, lstm]", "[gpt]"),
        4,
        "base.model.width",
        "4 heads do not divide a width of 30",
        "",
    ),
    "too many": (
        with_line(6, f"  modulus: {list(range(2, 500))}\n  model.layers: {list(range(1, 300))}"),
        5,
        "space",
        "148,902 combinations, more than 100,000",
        "samples",
    ),
    "samples of nothing": (with_line(7, "seeds: 2\nsamples: 3"), 8, "samples", "nothing is drawn", "loguniform"),
    "unknown metric": (
        with_line(9, "metric: {name: validation/acuracy, mode: max}"),
        9,
        "metric.name",
        "does not report 'validation/acuracy'",
        "'validation/accuracy'",
    ),
    "metric without its group": (
        with_line(9, "metric: {name: accuracy}"),
        9,
        "metric.name",
        "does not report 'accuracy'",
        "'validation/accuracy'",
    ),
    "metric of some configurations": (
        with_line(9, "metric: {name: validation/order_3/accuracy}").replace(
            "model.kind: [gpt, lstm]", "orders: [[2], [3]]"
        ),
        9,
        "metric.name",
        "in 1 of 2 configurations: orders=[2]",
        "",
    ),
    "unknown target metric": (
        with_line(8, "budget: {steps: 100, target: {metric: loss, value: 1}}"),
        8,
        "budget.target.metric",
        "does not report 'loss'",
        "'validation/loss'",
    ),
    "unknown metric of early stopping": (
        with_line(4, "  early_stopping.metric: validation/lost"),
        4,
        "base.early_stopping.metric",
        "does not report 'validation/lost'",
        "'validation/loss'",
    ),
    "unknown metric of a plateau": (
        with_line(6, "  schedule: {kind: [plateau], metric: [loss]}"),
        6,
        "space.schedule.metric",
        "does not report 'loss'",
        "'validation/loss'",
    ),
    "contradicting mode": (
        with_line(9, "metric: {name: validation/accuracy, mode: min}"),
        9,
        "metric.mode",
        "more validation/accuracy is better",
        "max",
    ),
    "contradicting mode of a target": (
        with_line(8, "budget: {steps: 100, target: {metric: validation/loss, value: 1, mode: max}}"),
        8,
        "budget.target.mode",
        "less validation/loss is better",
        "min",
    ),
    "no such trainable": (
        with_line(2, "trainable: modular_arithmetik"),
        2,
        "trainable",
        "no trainable is called 'modular_arithmetik'",
        "",
    ),
    "trainable that is not there": (
        with_line(2, "trainable: tests.toy_arithmetic:Toi"),
        2,
        "trainable",
        "cannot be imported",
        "",
    ),
    "late first rung": (
        with_line(7, "seeds: 2\nscheduler: {name: asha, grace: 100}"),
        8,
        "scheduler.grace",
        "the first rung (100) is not below the budget (100 steps)",
        "11",
    ),
    "no such scheduler": (
        with_line(7, "seeds: 2\nscheduler: {name: ahsa}"),
        8,
        "scheduler.name",
        "expected one of fifo, asha",
        "'asha'",
    ),
    "two budgets": (with_line(8, "budget: {steps: 100, epochs: 3}"), 8, "budget", "got steps and epochs", ""),
    "no budget": (with_line(8, "budget: {}"), 8, "budget", "give one of steps, epochs, tokens and wall_clock", ""),
    "cosine over an unknown length": (
        with_line(8, "budget: {wall_clock: 60}").replace("modulus: 31", "schedule.kind: cosine"),
        4,
        "base.schedule.kind",
        "a budget in wall_clock does not say",
        "schedule.length",
    ),
    "epochs of an endless stream": (
        with_line(8, "budget: {epochs: 3}").replace("modulus: 31", "endless: true"),
        8,
        "budget.epochs",
        "endless stream",
        "steps",
    ),
    "schedule by epochs of an endless stream": (
        with_line(4, "  endless: true\n  schedule: {kind: step, unit: epoch}"),
        5,
        "base.schedule.unit",
        "endless stream",
        "steps",
    ),
    "several workers": (
        with_line(7, "seeds: 2\nresources: {workers: 2}"),
        8,
        "resources.workers",
        "batches cannot be split: ToyArithmetic does not say how",
        "",
    ),
    "a GPU and a half": (with_line(7, "seeds: 2\nresources: {gpus: 1.5}"), 8, "resources.gpus", "only whole GPUs", ""),
    "no processor": (with_line(7, "seeds: 2\nresources: {cpus: 0}"), 8, "resources.cpus", "must be above 0", ""),
    "spread": (
        with_line(7, "seeds: 2\nreplication: spread"),
        8,
        "replication",
        "spread replication is not built yet: use serial or packed",
        "",
    ),
    "no such replication": (
        with_line(7, "seeds: 2\nreplication: parallel"),
        8,
        "replication",
        'expected one of serial, packed, got "parallel"',
        "",
    ),
    "name of a folder": (with_line(1, "study: a/b"), 1, "study", "the name is also a folder's", ""),
    "name of what solo training writes": (with_line(1, "study: toy.solo"), 1, "study", "ends in .solo", ""),
    "seed twice": (with_line(7, "seeds: [1, 2, 1]"), 7, "seeds", "seed 1 stands twice", ""),
    "no seeds": (with_line(7, "seeds: 0"), 7, "seeds", "at least one seed", ""),
    "negative seed": (with_line(7, "seeds: [-1]"), 7, "seeds", "between 0 and 999999999", ""),
    "seed of confirm": (with_line(7, "seeds: [1000000000]"), 7, "seeds", "belong to phase confirm", ""),
    "racing from more": (with_line(7, "seeds: {start: 3, full: 2}"), 7, "seeds", "between 1 and all 2 seeds", ""),
    "half a race": (with_line(7, "seeds: {start: 3}"), 7, "seeds", "{start: 2, full: 8}", ""),
    "racing without rungs": (with_line(7, "seeds: {start: 1, full: 2}"), 7, "seeds", "has no rungs", "asha"),
    "key twice": (with_line(7, "seeds: 2\nseeds: 3"), 8, "seeds", "first in line 7", "keep one"),
    "optuna and a grid": (
        with_line(7, "seeds: 2\nsearcher: {name: optuna}").replace("[gpt, lstm]", "[gpt]"),
        6,
        "space.model.kind",
        "cannot take a grid",
        'choice: ["gpt"]',
    ),
    "optuna and a bell": (
        with_line(7, "seeds: 2\nsearcher: {name: optuna}").replace(
            "model.kind: [gpt, lstm]", "optimizer.learning_rate: {randn: [1e-1, 1e-3]}"
        ),
        6,
        "space.optimizer.learning_rate",
        "optuna cannot choose from randn",
        "uniform",
    ),
    "optuna and a waiting scheduler": (
        with_line(7, "seeds: 2\nsearcher: {name: optuna}\nscheduler: {name: hyperband}").replace(
            "[gpt, lstm]", "{choice: [gpt, lstm]}"
        ),
        9,
        "scheduler.name",
        "must know all configurations",
        "asha",
    ),
    "optuna and nothing": (
        with_line(6, "").replace("seeds: 2", "seeds: 2\nsearcher: {name: optuna}"),
        7,
        "searcher",
        "nothing to choose",
        "space",
    ),
}


@pytest.mark.parametrize(("text", "line", "path", "message", "hint"), BAD.values(), ids=BAD)
def test_each_mistake_is_named_once_with_line_path_and_hint(
    write: Any, text: str, line: int, path: str, message: str, hint: str
) -> None:
    (problem,) = problems_of(write(text))
    assert (problem.line, problem.path) == (line, path)
    assert message in problem.message
    assert hint in problem.hint
    assert "Input should" not in problem.message


@pytest.mark.parametrize("name", ["study", "trainable", "seeds", "budget", "metric"])
def test_what_is_missing_is_named(write: Any, name: str) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(name))
    (problem,) = problems_of(write(text))
    assert (problem.path, problem.message) == (name, "is missing")
    assert problem.hint


def test_all_problems_come_at_once_in_the_order_of_the_file(write: Any) -> None:
    text = """\
    study: a b
    trainable: tests.toy_arithmetic:ToyArithmetic
    base:
      modulos: 31
      model.layers: two
    space:
      model.kind: [gpt, lstmm]
      modulus: {gird: [4, 5, 6]}
      optimizer.learning_rate: {loguniform: [-1, 3]}
    seeds: [0, 0]
    budget: {steps: 100, epochs: 3}
    metric: {name: accuracy, mode: max}
    scheduler: {name: ahsa}
    resources: {gpus: 0.5, workers: 2}
    replication: packed
    """
    with pytest.raises(StudyError) as caught:
        load_study(write(text), ["retries=3", "base.symmetric=maybe"])
    problems = caught.value.problems
    assert [problem.line for problem in problems] == [
        *(1, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        *("retries=3", "base.symmetric=maybe"),
    ]
    lines = str(caught.value).splitlines()
    assert len(lines) == 14
    assert lines[1].endswith("toy.yaml:4: base.modulos: unknown key (did you mean 'modulus'?)")
    assert lines[-1].startswith("--set base.symmetric=maybe: base.symmetric: expected true or false")


def test_few_of_many_refused_combinations_are_named_and_the_others_counted(write: Any) -> None:
    text = with_line(4, "  operator: /").replace("model.kind: [gpt, lstm]", f"modulus: {list(range(3, 40))}")
    problems = problems_of(write(text))
    # Line 5 is `space`, line 6 its only dimension. Of 3 ... 39, 26 are no primes.
    assert [problem.line for problem in problems] == [5, 6, 6, 6, 6, 6]
    assert problems[0].message == "21 more of 37 combinations are refused"


def test_refused_values_are_not_counted_as_combinations(write: Any) -> None:
    text = with_line(4, "  operator: /").replace("model.kind: [gpt, lstm]", "modulus: [5, 6, 1, 0]")
    paths = [problem.path for problem in problems_of(write(text))]
    assert paths == ["space.modulus[2]", "space.modulus[3]", "space.modulus"]


def test_configurations_refused_for_one_reason_are_one_problem(write: Any) -> None:
    text = with_line(6, "  model.kind: [gpt, lstm]\n  modulus: [5, 7, 11]").replace("modulus: 31", "model.width: 30")
    (problem,) = problems_of(write(text))
    assert problem.path == "base.model.width"
    assert problem.message.startswith("gpt, modulus=5 (and 2 more): 4 heads")


def test_an_override_is_named_instead_of_a_line(write: Any) -> None:
    (problem,) = problems_of(write(), "base.modulus=x")
    assert (problem.line, problem.path) == ("base.modulus=x", "base.modulus")


def test_a_study_made_in_python_says_what_is_wrong_too() -> None:
    good: dict[str, Any] = {
        "study": "toy",
        "trainable": "tests.toy_arithmetic:ToyArithmetic",
        "seeds": 1,
        "budget": {"steps": 1},
        "metric": {"name": "validation/loss", "mode": "min"},
    }
    with pytest.raises(ValueError, match="space"):
        Study.model_validate({**good, "space": {"modulus": 3}})
    with pytest.raises(StudyError, match="modulus=1: must be at least 2"):
        make_plan(Study.model_validate({**good, "space": {"modulus": [1]}}))


# The resolved study.


def resolved(path: Path, *overrides: str) -> dict[str, Any]:
    study = load_study(path, overrides)
    plain: dict[str, Any] = json.loads(json.dumps(study_json(study, make_plan(study))))
    return plain


def test_the_resolved_study(write: Any) -> None:
    found = resolved(write(), "scheduler={name: asha, grace: 10}", "budget={wall_clock: 90}")
    assert found["format"] == 1
    assert found["swept"] == ["model.kind"]
    assert (found["budget"]["unit"], found["budget"]["amount"]) == ("seconds", 90)
    assert found["rungs"] == [10, 30, 90]
    assert (found["seeds"], found["seeds_at_start"], found["confirm"]) == ([0, 1], None, None)
    assert found["metric"]["name"] == "validation/accuracy"
    assert found["base"]["optimizer"]["weight_decay"] == 1.0  # complete
    assert found["space"] == {"model.kind": {"grid": ["gpt", "lstm"]}}


def test_racing_and_confirmation_are_resolved_to_seeds(write: Any) -> None:
    overrides = ["seeds={start: 1, full: 3}", "confirm={top: 2, seeds: 2}", "scheduler={name: asha, grace: 10}"]
    found = resolved(write(), *overrides)
    assert (found["seeds"], found["seeds_at_start"]) == ([0, 1, 2], 1)
    assert found["confirm"] == {"top": 2, "seeds": [1_000_000_000, 1_000_000_001]}
    study = load_study(write(), overrides)
    assert study.seeds == (0, 1, 2)
    assert pickle.loads(pickle.dumps(study)).seeds.start == 1


def test_an_override_of_a_base_value_that_space_sweeps_is_refused(write: Any) -> None:
    path = write()
    swept = next(iter(load_study(path).space))
    value = load_study(path).space[swept]["grid"][0]
    with pytest.raises(StudyError, match="has no effect, because space sweeps it") as caught:
        load_study(path, [f"base.{swept}={value}"])
    assert f"--set space.{swept}=" in str(caught.value)


def test_a_target_takes_the_study_s_own_metric_and_mode(write: Any) -> None:
    study = load_study(write(), ["budget.target={value: 0.5}"])
    target = study.budget.target
    assert target is not None
    assert (target.metric, target.mode) == (study.metric.name, study.metric.mode)
