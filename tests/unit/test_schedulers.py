"""What holds for every scheduler: reports, repeats, restoring, JSON, both modes, values that are none."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest

from rung.tuning.schedulers import SCHEDULERS, Decision, Scheduler, make_scheduler
from tests.sweep_simulation import Sweep, simulate

LEVELS = (10, 30)
BUDGET = 90
IDS = tuple("abcdefgh")
COMPARING = sorted(set(SCHEDULERS) - {"fifo"})
ADAPTIVE = ("asha", "fifo", "median_stopping")


def make(name: str, ids: Sequence[str] = IDS, mode: str = "max", **options: Any) -> Scheduler:
    return make_scheduler(name, levels=LEVELS, mode=mode, configurations=ids, **options)


def curves(seed: int, ids: Sequence[str] = IDS) -> dict[str, dict[int, float | None]]:
    """Noisy values with ties; one in ten is missing."""
    rng = random.Random(seed)
    draw = [None, *(round(rng.random(), 1) for _ in range(9))]
    return {config_id: {level: rng.choice(draw) for level in LEVELS} for config_id in ids}


def sweep(name: str, seed: int) -> Sweep:
    rng = random.Random(seed)
    speeds = {config_id: rng.uniform(0.5, 2) for config_id in IDS}
    return simulate(make(name), curves(seed), BUDGET, workers=3, speeds=speeds)


def first_level(scheduler: Scheduler, config_id: str) -> int:
    return scheduler.levels_of(config_id)[0]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_everybody_is_decided_or_completes(name: str) -> None:
    for seed in range(10):
        scheduler = make(name)
        outcome = simulate(scheduler, curves(seed), BUDGET, workers=2)
        stopped = [decision.config_id for decision in outcome.decisions if decision.decision == "stop"]
        assert sorted(stopped + outcome.completed) == sorted(IDS)
        assert all(row.waiting == 0 for row in scheduler.rung_table())
        assert all(row.reported == row.continued + row.stopped for row in scheduler.rung_table())
        assert sum(row.stopped for row in scheduler.rung_table()) == len(stopped)


@pytest.mark.parametrize("name", COMPARING)
def test_who_continues_reaches_the_next_rung(name: str) -> None:
    scheduler = make(name)
    simulate(scheduler, curves(1), BUDGET)
    rows = scheduler.rung_table()
    for lower, upper in pairwise(rows):
        if lower.bracket == upper.bracket:
            assert upper.reported == lower.continued


@pytest.mark.parametrize("name", COMPARING)
def test_a_decision_explains_itself(name: str) -> None:
    decisions = [decision for seed in range(10) for decision in sweep(name, seed).decisions]
    assert {decision.decision for decision in decisions} == {"continue", "stop"}
    for decision in decisions:
        assert 1 <= decision.rank <= decision.compared <= len(IDS)
        assert f"at {decision.level}" in decision.reason
        assert "\n" not in decision.reason
        if decision.value is None:
            assert decision.decision == "stop"
            assert "no usable value" in decision.reason
        elif decision.threshold is not None and name != "median_stopping":
            assert (decision.value >= decision.threshold) == (decision.decision == "continue")
            assert f"mean {decision.value:.6g}" in decision.reason


@pytest.mark.parametrize("name", COMPARING)
def test_a_repeated_report_returns_the_recorded_decision_and_changes_nothing(name: str) -> None:
    scheduler = make(name)
    outcome = simulate(scheduler, curves(2), BUDGET)
    before = scheduler.rung_table()
    for decision in outcome.decisions:
        assert scheduler.report(decision.config_id, decision.level, 99.0) == [decision]
        assert scheduler.report(decision.config_id, decision.level, None) == [decision]
    assert scheduler.rung_table() == before


@pytest.mark.parametrize("name", COMPARING)
def test_whoever_was_stopped_is_stopped_again_wherever_it_reports(name: str) -> None:
    scheduler = make(name)
    outcome = simulate(scheduler, curves(2), BUDGET)
    early = [d for d in outcome.decisions if d.decision == "stop" and d.level == LEVELS[0]]
    assert early
    for decision in early:
        assert scheduler.report(decision.config_id, LEVELS[1], 99.0) == [decision]


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("seed", range(4))
def test_restored_at_any_report_it_goes_on_as_if_never_interrupted(name: str, seed: int) -> None:
    values = curves(seed)
    reports = sweep(name, seed).reports
    straight = make(name)
    answers = [straight.report(config_id, level, values[config_id][level]) for config_id, level in reports]
    for cut in range(len(reports) + 1):
        decided = [decision for answer in answers[:cut] for decision in answer]
        known = {(decision.config_id, decision.level) for decision in decided}
        restored = make(name)
        restored.restore(decided)
        for config_id, level in reports[:cut]:
            if (config_id, level) not in known:
                assert restored.report(config_id, level, values[config_id][level]) == []
        rest = [restored.report(config_id, level, values[config_id][level]) for config_id, level in reports[cut:]]
        assert rest == answers[cut:]
        assert restored.rung_table() == straight.rung_table()


@pytest.mark.parametrize("name", COMPARING)
def test_decisions_survive_json(name: str) -> None:
    decisions = sweep(name, 3).decisions
    text = json.dumps([asdict(decision) for decision in decisions], allow_nan=False)
    assert [Decision(**row) for row in json.loads(text)] == decisions


@pytest.mark.parametrize("name", COMPARING)
def test_decisions_survive_a_data_frame(name: str) -> None:
    """Empty cells come back as NaN there, integers as numpy's, and a row may stand twice."""
    decisions = sweep(name, 3).decisions
    rows = [
        replace(
            decision,
            value=math.nan if decision.value is None else np.float64(decision.value),
            threshold=math.nan if decision.threshold is None else np.float64(decision.threshold),
            level=cast(int, np.int64(decision.level)),
            rank=cast(int, np.int64(decision.rank)),
        )
        for decision in decisions
    ]
    contradicted = [replace(row, decision="stop", value=-1.0) for row in rows]
    scheduler = make(name)
    scheduler.restore([*rows, *contradicted])
    for decision in decisions:
        answer = scheduler.report(decision.config_id, decision.level, 99.0)
        assert answer == [decision]
        json.dumps(asdict(answer[0]), allow_nan=False)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_less_is_better_in_mode_min(name: str) -> None:
    values = curves(4)
    mirrored = {
        config_id: {level: None if value is None else -value for level, value in row.items()}
        for config_id, row in values.items()
    }
    best = simulate(make(name, mode="max"), values, BUDGET)
    least = simulate(make(name, mode="min"), mirrored, BUDGET)
    assert [(d.config_id, d.level, d.rank, d.compared, d.decision) for d in best.decisions] == [
        (d.config_id, d.level, d.rank, d.compared, d.decision) for d in least.decisions
    ]
    for up, down in zip(best.decisions, least.decisions, strict=True):
        assert up.threshold == (None if down.threshold is None else -down.threshold)


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf, np.float64("nan")])
def test_no_usable_value_is_the_worst_in_either_mode(name: str, mode: str, bad: float | None) -> None:
    scheduler = make(name, mode=mode)
    compared = [config_id for config_id in IDS if scheduler.levels_of(config_id)]
    decisions = []
    for config_id in compared:
        value = bad if config_id == "a" else 0.5
        decisions += scheduler.report(config_id, first_level(scheduler, config_id), value)
    verdict = {decision.config_id: decision for decision in decisions}
    assert verdict["a"].decision == "stop"
    assert verdict["a"].value is None
    assert verdict["a"].rank == verdict["a"].compared
    assert all(verdict[config_id].decision == "continue" for config_id in compared if config_id != "a")


@pytest.mark.parametrize("name", COMPARING)
def test_if_nobody_has_a_value_nobody_goes_on(name: str) -> None:
    values = {config_id: dict.fromkeys(LEVELS) for config_id in IDS}
    outcome = simulate(make(name), values, BUDGET)
    assert all(d.decision == "stop" and d.threshold is None for d in outcome.decisions)


@pytest.mark.parametrize("name", COMPARING)
def test_wrong_reports_are_refused(name: str) -> None:
    scheduler = make(name)
    with pytest.raises(ValueError, match="'stranger' is not among the 8 planned"):
        scheduler.report("stranger", 10, 0.5)
    with pytest.raises(ValueError, match="not among"):
        scheduler.withdraw("stranger")
    with pytest.raises(ValueError, match="not among"):
        scheduler.levels_of("stranger")
    with pytest.raises(ValueError, match=r"'a' is not compared at level 11, only at \(10, 30\)"):
        scheduler.report("a", 11, 0.5)
    assert scheduler.withdraw("a") == scheduler.withdraw("a") == []
    with pytest.raises(ValueError, match="'a' was withdrawn"):
        scheduler.report("a", 10, 0.5)
    assert all(row.reported == 0 for row in scheduler.rung_table())


@pytest.mark.parametrize("name", COMPARING)
def test_decisions_of_other_rungs_are_refused(name: str) -> None:
    other = Decision("a", 0, 20, 0.5, None, 1, 1, "continue", "")
    with pytest.raises(ValueError, match=r"level 20 of bracket 0 does not fit the rungs \(10, 30\)"):
        make(name).restore([other])


@pytest.mark.parametrize("name", COMPARING)
def test_a_configuration_that_is_no_longer_planned_is_still_compared_with(name: str) -> None:
    options: dict[str, Any] = {"min_samples": 1} if name == "median_stopping" else {}
    scheduler = make(name, ids=("a",), **options)
    scheduler.restore([Decision("gone", 0, 10, 0.9, None, 1, 1, "continue", "")])
    (decision,) = scheduler.report("a", 10, 0.5)
    assert (decision.decision, decision.rank, decision.compared) == ("stop", 2, 2)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_an_adaptive_search_brings_its_configurations_as_it_goes(name: str) -> None:
    scheduler = make(name, ids=())
    assert scheduler.report("new", 10, 0.5)[0].decision == "continue"


@pytest.mark.parametrize("name", sorted(set(SCHEDULERS) - set(ADAPTIVE)))
def test_a_synchronous_rule_needs_the_whole_plan(name: str) -> None:
    with pytest.raises(ValueError, match=r"must know all configurations .* take 'asha'"):
        make(name, ids=())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_rungs_everybody_trains_to_the_budget(name: str) -> None:
    scheduler = make_scheduler(name, levels=(), mode="max", configurations=IDS)
    outcome = simulate(scheduler, {config_id: {} for config_id in IDS}, BUDGET)
    assert (outcome.decisions, sorted(outcome.completed)) == ([], sorted(IDS))
    assert scheduler.rung_table() == []


@pytest.mark.parametrize("name", COMPARING)
def test_sentences_name_quantity_and_unit(name: str) -> None:
    scheduler = make(name, ids=("a",), quantity="mean validation/loss", unit="steps")
    (decision,) = scheduler.report("a", 10, 0.25)
    assert "mean validation/loss" in decision.reason
    assert "0.25" in decision.reason
    assert "at 10 steps" in decision.reason


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"levels": (10, 10)}, "ascending"),
        ({"levels": (0, 10)}, "positive"),
        ({"mode": "most"}, "'min' or 'max', got 'most'"),
        ({"configurations": ("a", "b", "a")}, "twice"),
        ({"reduction_factor": 1}, "reduction_factor must be a whole number of at least 2, got 1"),
        ({"reduction_factor": 2.5}, "whole number"),
        ({"reduction_factor": True}, "whole number"),
    ],
)
def test_wrong_options_are_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    options = {"levels": LEVELS, "mode": "max", "configurations": IDS, **wrong}
    with pytest.raises(ValueError, match=message):
        make_scheduler(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ashaa", {}, r"'ashaa': did you mean 'asha'\? There are fifo, asha, synchronous_halving, "),
        ("HyperBand", {}, "did you mean 'hyperband'"),
        ("sync_halving", {}, "did you mean 'synchronous_halving'"),
        ("xyz", {}, "'xyz': There are fifo"),
        ("asha", {"minimun": 3}, r"'asha' has no option 'minimun': did you mean 'minimum'\?"),
        ("fifo", {"minimum": 3}, "'fifo' has no option 'minimum'"),
        ("asha", {"minimum": 0}, "minimum must be a whole number of at least 1"),
        ("median_stopping", {"min_samples": 0}, "min_samples must be"),
    ],
)
def test_names_and_options_that_do_not_exist(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_it_needs_neither_ray_nor_torch_nor_numpy() -> None:
    check = "import sys, rung.tuning.schedulers; print({'ray', 'torch', 'numpy', 'pandas'} & set(sys.modules))"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    found = subprocess.run(
        [sys.executable, "-c", check],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
