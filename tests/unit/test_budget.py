"""Where a run stands in its study's budget: one that completed with a smaller one is not at its end."""

from pathlib import Path
from typing import Any

import pytest

from rung.results.budget import has_to_go_on, progress, run_rows
from rung.results.query import load
from rung.results.snapshot import Snapshot, take_snapshot
from rung.results.verdict import verdict
from tests.made_up_studies import MadeUp, write_study

ROW = {"status": "completed", "ended_by": "budget", "step": 20, "epoch": 2.0, "tokens": 640, "wall_seconds": 5.0}


@pytest.mark.parametrize(
    ("unit", "reached"), [("steps", 20), ("epochs", 2), ("tokens", 640), ("seconds", 5)], ids=lambda each: str(each)
)
def test_a_budget_is_counted_in_its_unit(unit: str, reached: int) -> None:
    assert progress(ROW, {"unit": unit, "amount": 1}) == reached
    assert not has_to_go_on(ROW, {"unit": unit, "amount": reached})
    assert has_to_go_on(ROW, {"unit": unit, "amount": reached + 1})


def test_before_its_first_report_a_run_has_used_nothing() -> None:
    assert progress({**ROW, "epoch": None}, {"unit": "epochs", "amount": 3}) == 0.0


@pytest.mark.parametrize(
    ("row", "cap", "goes_on"),
    [
        ({"ended_by": "target"}, None, False),
        ({"ended_by": "early_stopping"}, None, False),
        ({"status": "stopped", "ended_by": "scheduler"}, None, False),
        ({"status": "diverged", "ended_by": "divergence"}, None, False),
        ({"status": "running", "ended_by": None}, None, False),
        ({"ended_by": "wall_clock"}, 5, False),
        ({"ended_by": "wall_clock"}, 6, True),
        ({"ended_by": "wall_clock"}, None, True),
    ],
)
def test_only_who_ended_by_a_smaller_budget_goes_on(row: dict[str, Any], cap: int | None, goes_on: bool) -> None:
    assert has_to_go_on({**ROW, **row}, {"unit": "steps", "amount": 40, "wall_clock": cap}) is goes_on


def half_extended(tmp_path: Path) -> tuple[MadeUp, Snapshot]:
    """From 500 to 1000 steps; of three configurations the first has been there."""
    study = MadeUp(
        {"a": [1, 2, 3]}, seeds=2, ended={(index, seed): ("completed", 500, "") for index in (1, 2) for seed in (0, 1)}
    )
    return study, take_snapshot(load(write_study(tmp_path / "study", study)))


def test_half_extended_runs_are_running(tmp_path: Path) -> None:
    study, snapshot = half_extended(tmp_path)
    assert [run["status"] for run in snapshot.runs] == ["completed"] * 2 + ["running"] * 4
    assert [run["ended_by"] for run in snapshot.runs] == ["budget"] * 2 + [None] * 4
    assert run_rows(load(snapshot.directory), ("run_id", "status"))[-1]["status"] == "running"
    entries = {entry.config_id: entry for entry in snapshot.search}
    states = [(each.is_through, each.has_ended) for each in (entries[study.config_id(index)] for index in range(3))]
    assert states == [(True, True), (False, False), (False, False)]
    assert entries[study.config_id(1)].level == 300


def test_a_half_extended_study_has_its_best_so_far(tmp_path: Path) -> None:
    _, snapshot = half_extended(tmp_path)
    sentences = verdict(snapshot.study, snapshot.search, None, live=False)
    assert sentences[0].startswith("Best so far: ")
    assert not any("chance" in sentence for sentence in sentences)
