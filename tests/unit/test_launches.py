"""Launch after launch of one study, without Ray: what the ledger makes of whatever is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.results.query import load
from rung.results.views import dicts
from tests.launching import launch, opened, reports, runs

STUDY = """\
study: toy
trainable: tests.toy:Toy
base:
  model.dropout: 0.1
  evaluation: {every: 5}
space:
  optimizer.learning_rate: [1e-4, 1e-3, 1e-2, 1e-1]
seeds: {start: 1, full: 2}
budget: {steps: 20}
metric: {name: validation/loss}
scheduler: {name: asha, grace: 5, reduction_factor: 2}
"""
METRICS = ("validation/loss", "validation/accuracy", "learning_rate", "gradient_norm")
ENDS = ("status", "ended_by", "step", "value", "best", "best_step")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(f"{STUDY}storage: {tmp_path / 'results'}\n")
    return path


def events(directory: Path, kind: str) -> list[str]:
    return [row["message"] for row in dicts(load(directory).events.filter(f"kind = '{kind}'").order("time"))]


def truncate(part: Path) -> Path:
    part.write_bytes(part.read_bytes()[:-20])
    return part


def test_seeds_join_at_their_rung_and_train_as_if_they_had_always_been_there(path: Path) -> None:
    raced = launch(path)
    whole = launch(path, "study=whole", "seeds=2", "scheduler={name: fifo}")
    there, full = reports(raced.directory, *METRICS), reports(whole.directory, *METRICS)
    assert there.items() <= full.items()
    seeds = {row["config_id"]: row["seeds"] for row in dicts(load(raced.directory).decisions.filter("level = 5"))}
    assert set(seeds.values()) == {1}
    states = raced.search.states
    assert set(states.values()) == {"completed", "stopped"}
    for config_id, state in states.items():
        first = min(each for each in raced.search.levels_decided(config_id))
        assert (state, first) in {("completed", 5), ("stopped", 5)}
        stopped_at_once = len(raced.search.levels_decided(config_id)) == 1 and state == "stopped"
        assert len(raced.search.runs[config_id]) == (1 if stopped_at_once else 2)


@pytest.mark.parametrize("scheduler", ["fifo", "asha", "median_stopping"])
def test_every_rule_that_waits_for_nobody_runs_a_study_to_its_end(path: Path, scheduler: str) -> None:
    directory = launch(path, "seeds=2", f"scheduler={{name: {scheduler}, grace: 5, reduction_factor: 2}}").directory
    statuses = [status for (status,) in runs(directory, "status").values()]
    assert len(statuses) == 8
    assert "completed" in statuses
    assert set(statuses) <= {"completed", "stopped"}
    if scheduler != "median_stopping":  # one after another, the first has no others to be worse than
        assert ("stopped" in statuses) == (scheduler == "asha")


def test_a_seed_that_diverges_is_a_result(path: Path) -> None:
    overrides = ("seeds=3", "scheduler={name: fifo}", "base.diverge_for_seed=2")
    directory = launch(path, *overrides).directory
    assert opened(path, overrides).search.is_complete  # it is not tried again
    found = dicts(load(directory).runs)
    assert {row["seed"]: row["status"] for row in found} == {0: "completed", 1: "completed", 2: "diverged"}
    assert all((row["diverged_step"], row["ended_by"]) == (3, "divergence") for row in found if row["seed"] == 2)
    assert len(events(directory, "run_diverged")) == 4


def test_a_launch_after_the_end_has_nothing_to_do(path: Path) -> None:
    first = launch(path)
    before = runs(first.directory, *ENDS)
    second = launch(path)
    assert second.search.states == first.search.states
    assert second.search.is_complete
    assert runs(first.directory, *ENDS) == before


def test_runs_whose_reports_were_lost_are_trained_again(path: Path) -> None:
    first = launch(path)
    directory, before, ends = first.directory, reports(first.directory, *METRICS), runs(first.directory, *ENDS)
    through = next(config_id for config_id, state in first.search.states.items() if state == "completed")
    part = truncate(sorted((directory / "tables" / "metrics").glob(f"{through}.*.parquet"))[0])
    second = launch(path)
    assert any(str(part) in notice for notice in second.notices)
    assert not part.exists()
    assert part.with_name(f"{part.name}.damaged").exists()
    assert [str(part) in message for message in events(directory, "part_set_aside")] == [True]
    assert events(directory, "trained_again")
    assert reports(directory, *METRICS) == before
    assert runs(directory, *ENDS) == ends


def test_a_kill_before_the_damage_is_dealt_with_costs_nothing(path: Path) -> None:
    first = launch(path)
    directory, before = first.directory, reports(first.directory, *METRICS)
    through = next(config_id for config_id, state in first.search.states.items() if state == "completed")
    truncate(sorted((directory / "tables" / "metrics").glob(f"{through}.*.parquet"))[0])
    study = opened(path)  # sets aside what is damaged, and is killed before it trains
    assert study.search.states[through] == "waiting"
    assert opened(path).search.states[through] == "waiting"
    launch(path)
    assert reports(directory, *METRICS) == before


def test_what_a_killed_writer_left_is_cleared(path: Path) -> None:
    directory = launch(path).directory
    (directory / ".study.json.4711.tmp").write_text("{")
    opened(path)
    assert not list(directory.glob(".*.tmp"))


def test_a_stop_holds_whatever_becomes_of_its_decision(path: Path) -> None:
    first = launch(path)
    stopped = {config_id for config_id, state in first.search.states.items() if state == "stopped"}
    statuses = runs(first.directory, "status")
    for part in sorted((first.directory / "tables" / "decisions").glob("*.parquet")):
        truncate(part)
    second = launch(path)
    assert {config_id for config_id, state in second.search.states.items() if state == "stopped"} == stopped
    assert runs(second.directory, "status") == statuses


def test_lost_rows_of_runs_are_written_again(path: Path) -> None:
    first = launch(path)
    before = runs(first.directory, *ENDS)
    through = {name for name, state in first.search.states.items() if state == "completed"}
    for part in sorted((first.directory / "tables" / "runs").glob("*.parquet")):
        truncate(part)
    launch(path)
    after = runs(first.directory, *ENDS)
    assert {run_id: end for run_id, end in after.items() if run_id.partition("-")[0] in through} == {
        run_id: end for run_id, end in before.items() if run_id.partition("-")[0] in through
    }
