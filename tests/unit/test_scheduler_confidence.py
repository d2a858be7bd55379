"""Rules that were made with `confidence` spare whoever's interval reaches the threshold."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import StudyError
from rung.study import load_study
from rung.tuning.schedulers import SCHEDULERS, Decision, Scheduler, make_scheduler
from tests.sweep_simulation import Sweep, simulate

LEVELS = (10, 30)
IDS = tuple("abcdefgh")
COMPARING = sorted(set(SCHEDULERS) - {"fifo"})


def make(name: str, confidence: float | None = 0.9, mode: str = "max", ids: tuple[str, ...] = IDS) -> Scheduler:
    return make_scheduler(name, levels=LEVELS, mode=mode, configurations=ids, confidence=confidence)


def report(scheduler: Scheduler, level: int, *reports: tuple[float | None, float | None]) -> list[Decision]:
    """(value, margin) of the configurations a, b, c, ... in that order."""
    return [d for name, each in zip(IDS, reports, strict=False) for d in scheduler.report(name, level, *each)]


def verdicts(decisions: list[Decision]) -> str:
    return "".join("+" if decision.decision == "continue" else "-" for decision in decisions)


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
@pytest.mark.parametrize("name", ["asha", "synchronous_halving"])
def test_an_interval_that_reaches_the_threshold_goes_on(name: str, mode: str, sign: int) -> None:
    scheduler = make(name, mode=mode, ids=IDS[:4])
    reports = [(0.9, 0.0), (0.8, 0.2), (0.6, 0.29), (0.7, 0.125)]
    decisions = report(scheduler, 10, *((sign * value, margin) for value, margin in reports))
    # The best ceil(4 / 3) = 2 are to go on: the threshold is 0.8, but for ASHA 0.9 until d arrives.
    assert verdicts(decisions) == ("++-+" if name == "asha" else "++++")
    assert [decision.margin for decision in decisions] == [0.0, 0.2, 0.29, 0.125]


def test_the_reason_gives_the_interval() -> None:
    _, decision = report(make("asha"), 10, (0.8, 0.1), (0.7, 0.25))
    assert decision.decision == "continue"
    assert decision.reason == (
        "mean 0.7 ranks 2 of 2 at 10; only the best goes on (threshold 0.8); "
        "it would stop, but its 90 % interval [0.45, 0.95] reaches 0.8"
    )
    assert (decision.threshold, decision.rank) == (0.8, 2)


def test_an_interval_that_only_touches_the_threshold_reaches_it() -> None:
    assert verdicts(report(make("asha"), 10, (0.75, None), (0.5, 0.25))) == "++"
    assert verdicts(report(make("asha"), 10, (0.75, None), (0.5, 0.2499))) == "+-"


@pytest.mark.parametrize("name", COMPARING)
def test_without_a_margin_it_decides_as_without_confidence(name: str) -> None:
    rng = random.Random(0)
    curves: dict[str, dict[int, float | None]] = {
        config_id: {level: rng.random() for level in LEVELS} for config_id in IDS
    }
    plain, careful = (simulate(make(name, confidence), curves, 90) for confidence in (None, 0.9))
    assert plain.decisions == careful.decisions
    assert {decision.margin for decision in careful.decisions} == {None}


@pytest.mark.parametrize("name", COMPARING)
def test_margins_do_not_matter_to_a_rule_without_confidence(name: str) -> None:
    scheduler = make(name, confidence=None)
    decisions = report(scheduler, scheduler.levels_of("a")[0], (0.8, 9.0))
    if name in ("synchronous_halving", "hyperband"):
        assert decisions == []
    else:
        assert [decision.margin for decision in decisions] == [None]
        assert verdicts(report(make("asha", None), 10, (0.8, 9.0), (0.7, 9.0))) == "+-"


def test_no_usable_value_stops_whatever_its_margin() -> None:
    assert verdicts(report(make("asha"), 10, (0.8, 0.1), (None, 5.0), (float("nan"), 5.0))) == "+--"


def test_median_stopping_looks_at_the_interval_of_the_best_value_so_far() -> None:
    scheduler = make("median_stopping")
    assert verdicts(report(scheduler, 10, (0.6, 0.0), (0.7, 0.0), (0.8, 0.0), (0.5, 0.3))) == "++++"
    decisions = report(scheduler, 30, (0.6, 0.0), (0.7, 0.0), (0.8, 0.0), (0.3, 0.0))
    assert verdicts(decisions) == "++++", "the best so far, 0.5, is known to within 0.3, and the median is 0.7"
    assert (decisions[3].value, decisions[3].margin, decisions[3].threshold) == (0.3, 0.0, 0.7)
    assert decisions[3].reason.endswith("its 90 % interval [0.2, 0.8] reaches 0.7")


def test_median_stopping_stops_who_has_lost_its_value_however_good_it_was() -> None:
    scheduler = make("median_stopping")
    report(scheduler, 10, (0.6, 0.1), (0.7, 0.1), (0.8, 0.1), (0.5, 0.3))
    decisions = report(scheduler, 30, (0.6, 0.0), (0.7, 0.0), (0.8, 0.0), (None, None))
    assert verdicts(decisions) == "+++-"


def noisy(name: str, seed: int = 0) -> tuple[Sweep, Scheduler, dict[str, Any]]:
    rng = random.Random(seed)
    curves = {config_id: {level: rng.random() for level in LEVELS} for config_id in IDS}
    margins = {config_id: {level: rng.choice([None, 0.1, 0.5]) for level in LEVELS} for config_id in IDS}
    scheduler = make(name)
    return simulate(scheduler, curves, 90, margins=margins), scheduler, {"curves": curves, "margins": margins}


@pytest.mark.parametrize("name", COMPARING)
def test_it_is_rebuilt_from_its_decisions(name: str) -> None:
    outcome, straight, tables = noisy(name)
    rows = [json.loads(json.dumps(asdict(decision), allow_nan=False)) for decision in outcome.decisions]
    restored = make(name)
    restored.restore(Decision(**row) for row in rows)
    assert restored.rung_table() == straight.rung_table()
    for decision in outcome.decisions:
        margin = tables["margins"][decision.config_id][decision.level]
        assert restored.report(decision.config_id, decision.level, 0.0, margin) == [decision]


@pytest.mark.parametrize("name", COMPARING)
def test_nobody_is_stopped_who_would_go_on_without_confidence(name: str) -> None:
    stops = [d for seed in range(5) for d in noisy(name, seed)[0].decisions if d.decision == "stop"]
    assert stops
    for decision in stops:
        assert decision.value is not None
        assert decision.threshold is not None
        if name != "median_stopping":
            assert decision.value + (decision.margin or 0) < decision.threshold


def test_decisions_from_before_there_were_margins_are_taken() -> None:
    decision = report(make("asha"), 10, (0.8, 0.1))[0]
    old = {name: value for name, value in asdict(decision).items() if name != "margin"}
    scheduler = make("asha")
    scheduler.restore([Decision(**old), replace(decision, config_id="b", margin=float("nan"))])
    assert [scheduler.report(config_id, 10, 0.0)[0].margin for config_id in "ab"] == [None, None]


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 90])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got"):
        make("asha", confidence)


# In a study file.

FILE = """study: careful
trainable: tests.toy_arithmetic:ToyArithmetic
seeds: 4
budget: {steps: 900}
metric: {name: validation/accuracy, across_seeds: ACROSS}
scheduler:
  name: asha
  confidence: CONFIDENCE
"""


def written(folder: Path, across_seeds: str = "mean", confidence: str = "0.8") -> Path:
    file = folder / "careful.yaml"
    file.write_text(FILE.replace("ACROSS", across_seeds).replace("CONFIDENCE", confidence))
    return file


def test_a_study_hands_its_confidence_to_the_rule(tmp_path: Path) -> None:
    from rung.plan import make_plan

    plan = make_plan(load_study(written(tmp_path)))
    assert plan.scheduler().confidence == 0.8


def test_confidence_needs_a_mean(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as refused:
        load_study(written(tmp_path, "median"))
    (problem,) = refused.value.problems
    assert problem.line == 8
    assert "confidence is that of an interval around a mean, but across_seeds is median" in problem.message


def test_a_confidence_in_per_cent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r":8: scheduler\.confidence: must be below 1, got 90"):
        load_study(written(tmp_path, confidence="90"))
