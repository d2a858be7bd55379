"""When runs are saved, on a virtual clock: often enough that little is lost, and no more often."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rung.training import loop, recorder
from rung.training.assignment import Assignment, Goal
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import save_checkpoint
from rung.training.replication import Replication, start
from rung.training.run import Run
from tests.toy import Toy

SECONDS, STEP, SEEDS = 30.0, 0.5, 4
LEVELS = (20, 40, 60, 80)


class Clock:
    """Moves when a step is taken."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(recorder, "time", clock)
    at = type(Toy(Toy.Config(), 0).batches()).at

    def slow(self: Any, position: int, policy: Any = None) -> Any:
        clock.now += STEP
        return at(self, position, policy)

    monkeypatch.setattr(type(Toy(Toy.Config(), 0).batches()), "at", slow)
    return clock


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(seed, step) of every checkpoint that is written."""
    written: list[tuple[int, int]] = []

    def save(run: Run, directory: Path, keep: int = 1) -> Path:
        written.append((run.trainable.seed, run.progress.step))
        return save_checkpoint(run, directory, keep)

    monkeypatch.setattr(recorder, "save_checkpoint", save)
    return written


@pytest.fixture(params=["serial", "packed"])
def replication(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Replication]:
    config = Toy.Config.model_validate({"evaluation": {"first": 0, "every": 10}})
    assignment = Assignment(
        directory=str(tmp_path),
        study="toy",
        trainable="tests.toy:Toy",
        config_id="c0123456789ab",
        config=config.model_dump(mode="json"),
        seeds=tuple(range(SEEDS)),
        goal=Goal("steps", 100, "validation/loss", "min"),
        replication=request.param,
        checkpoint_seconds=SECONDS,
    )
    replication = start(assignment)
    yield replication
    replication.close()


def test_a_level_costs_no_more_saves_than_its_training_asks_for(
    replication: Replication, clock: Clock, saves: list[tuple[int, int]]
) -> None:
    for level in LEVELS:
        replication.advance(level)
    assert clock.now == SEEDS * LEVELS[-1] * STEP
    # One after another, a run has 10 s behind it at a level, more than its part of 30 s. Together they are saved
    # whenever 30 s have passed, which is every 15 steps.
    steps = LEVELS if replication.kind == "serial" else (15, 30, 45, 60, 75)
    assert saves == [(seed, step) for step in steps for seed in range(SEEDS)]


def test_what_is_saved_is_not_saved_again_when_it_is_paused(
    replication: Replication, clock: Clock, saves: list[tuple[int, int]]
) -> None:
    replication.advance(20)
    replication.checkpoint()
    assert dict(saves) == dict.fromkeys(range(SEEDS), 20)
    saves.clear()
    replication.checkpoint()
    assert not saves


def test_a_kill_costs_at_most_what_is_promised(
    replication: Replication, clock: Clock, saves: list[tuple[int, int]]
) -> None:
    for level in range(5, 100, 5):  # levels too short to be saved at each
        replication.advance(level)
        saved = {seed: max((step for who, step in saves if who == seed), default=0) for seed in range(SEEDS)}
        assert sum(level - step for step in saved.values()) * STEP <= 2 * SECONDS
    assert len(saves) <= 2 * 95 * STEP * SEEDS / (SECONDS / SEEDS)


def test_what_the_scheduler_stops_is_saved_only_if_it_is_kept(replication: Replication, clock: Clock) -> None:
    assignment = replication.assignment
    replication.advance(5)
    replication.close()
    assert all(latest_checkpoint(assignment.checkpoints(seed)) is None for seed in assignment.seeds)
    kept = start(dataclasses.replace(assignment, keep_stopped=True))
    kept.advance(5)
    kept.close()
    found = [latest_checkpoint(assignment.checkpoints(seed)) for seed in assignment.seeds]
    assert [path.name for path in found if path] == ["step-0000000005"] * SEEDS
