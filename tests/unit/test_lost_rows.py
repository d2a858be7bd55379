"""Several tables damaged at once, budgets that are overshot, and failures at a rung: nothing is lost for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.results.query import load
from rung.results.store import compact
from rung.results.views import dicts
from tests.launching import launch, opened, reports, runs

STUDY = """\
study: toy
trainable: tests.toy:Toy
base:
  evaluation: {every: 5}
space:
  optimizer.learning_rate: [1e-4, 1e-3, 1e-2, 1e-1]
seeds: 2
budget: {steps: 20}
metric: {name: validation/loss}
scheduler: {name: asha, grace: 5, reduction_factor: 2}
"""
METRICS = ("validation/loss", "validation/accuracy", "learning_rate", "gradient_norm")
ENDS = ("status", "ended_by", "step", "value")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(f"{STUDY}storage: {tmp_path / 'results'}\n")
    return path


def truncate(directory: Path, *tables: str) -> None:
    for table in tables:
        for part in sorted((directory / "tables" / table).glob("*.parquet")):
            part.write_bytes(part.read_bytes()[:-20])


@pytest.mark.parametrize("tables", [("runs", "metrics"), ("runs", "metrics", "decisions", "configurations", "events")])
def test_everything_that_was_lost_is_made_again(path: Path, tables: tuple[str, ...]) -> None:
    fifo = "scheduler={name: fifo}"
    directory = launch(path, fifo).directory
    compact(directory)
    rows, ends = reports(directory, *METRICS), runs(directory, *ENDS)
    truncate(directory, *tables)
    launch(path, fifo)
    assert reports(directory, *METRICS) == rows
    assert runs(directory, *ENDS) == ends


def test_rows_of_stopped_runs_are_made_again_from_their_reports(path: Path) -> None:
    first = launch(path)
    assert "stopped" in first.search.states.values()
    ends = runs(first.directory, *ENDS)
    truncate(first.directory, "runs")
    second = launch(path)
    assert second.search.states == first.search.states
    assert runs(first.directory, *ENDS) == ends
    assert dicts(load(first.directory).events.filter("kind = 'runs_recalled'"))


def test_a_rung_that_is_overshot_is_no_lost_decision(path: Path) -> None:
    tokens = ("budget={tokens: 200}", "scheduler={name: asha, grace: 50, reduction_factor: 2}", "base.batch_size=8")
    first = launch(path, *tokens)
    before = runs(first.directory, *ENDS, "attempt")
    second = launch(path, *tokens)
    assert second.search.is_complete
    assert runs(first.directory, *ENDS, "attempt") == before
    assert not dicts(load(first.directory).events.filter("kind = 'trained_again'"))


def test_who_meets_the_target_just_beyond_a_rung_has_ended(path: Path) -> None:
    target = ("budget.target={value: 100}", "scheduler.grace=3")  # met at step 0
    first = launch(path, *target)
    assert set(first.search.states.values()) == {"completed"}
    assert opened(path, target).search.is_complete


def test_decisions_that_were_lost_are_made_again(path: Path) -> None:
    first = launch(path)
    columns = "config_id, level, value, threshold, rank, decision"
    before = load(first.directory).decisions.select(columns).order("config_id, level").fetchall()
    ends = runs(first.directory, *ENDS)
    truncate(first.directory, "decisions")
    assert opened(path).search.decisions == []  # killed before it trains
    launch(path)
    assert load(first.directory).decisions.select(columns).order("config_id, level").fetchall() == before
    assert runs(first.directory, *ENDS) == ends


@pytest.mark.parametrize("seeds", ["2", "{start: 1, full: 2}"])
def test_an_accident_at_a_rung_is_tried_again(path: Path, seeds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (f"seeds={seeds}", "base.raise_for_seed=0")
    first = launch(path, *broken)
    assert not dicts(load(first.directory).decisions)
    assert set(first.search.states.values()) == {"failed"}
    assert first.search.failed_runs() == 4
    monkeypatch.setenv("TOY_IS_MENDED", "1")
    assert set(launch(path, *broken).search.states.values()) <= {"completed", "stopped"}
