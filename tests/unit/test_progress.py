"""What a sweep shows while it runs, rendered from a real ledger and real part files."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rung.results.store import TableWriter
from rung.training.assignment import Goal
from rung.tuning.ledger import Journal, Ledger
from rung.tuning.progress import ProgressView, StepCounter, SweepShape
from rung.tuning.schedulers import make_scheduler
from rung.tuning.tasks import search_task

IDS = ("c000000000001", "c000000000002")


def run_row(config_id: str, seed: int, step: int, value: float | None) -> dict[str, Any]:
    return {
        "study": "s",
        "config_id": config_id,
        "run_id": f"{config_id}-s{seed}",
        "seed": seed,
        "phase": "search",
        "status": "running",
        "attempt": 1,
        "step": step,
        "tokens": 0,
        "wall_seconds": 1.0,
        "value": value,
        "replication": "serial",
    }


def metric_row(config_id: str, seed: int, step: int) -> dict[str, Any]:
    names = ("study", "config_id", "run_id", "seed", "phase", "attempt", "step", "tokens", "wall_seconds")
    row = {name: run_row(config_id, seed, step, None)[name] for name in names}
    return {**row, "reported_at": datetime.now(UTC), "validation/loss": 0.5}


def view(directory: Path, seeds: int) -> tuple[Ledger, ProgressView]:
    (directory / "study.json").write_text("{}")
    tasks = [search_task(each, tuple(range(seeds))) for each in IDS]
    goal = Goal(unit="steps", amount=100, metric="validation/loss", mode="min")
    ledger = Ledger(Journal(directory, "s"), tasks, goal, "asha")
    rule = make_scheduler("asha", levels=(10,), mode="min", configurations=IDS)
    shape = SweepShape("s", "validation/loss", "min", steps_per_run=100, unit="steps")
    console = Console(file=StringIO(), width=120)
    return ledger, ProgressView(shape, ledger, rule, console)


@pytest.mark.parametrize("seeds", [1, 3])
def test_states_pace_and_best_are_shown(tmp_path: Path, seeds: int) -> None:
    ledger, progress = view(tmp_path, seeds)
    assert "2 waiting" in progress.line()
    for seed in range(seeds):
        ledger.report(IDS[0], [run_row(IDS[0], seed, 10, 0.5 + seed)])
    ledger.start(IDS[0])
    line = progress.line()
    assert "1 waiting | 1 running" in line
    assert f"(n={seeds}) at step 10, the furthest" in line
    assert ("[" in line.partition("best")[2]) == (seeds > 1)
    progress._console.print(progress.render())
    assert "best so far" in progress._console.file.getvalue()  # type: ignore[attr-defined]


def test_the_best_is_one_of_those_that_have_come_furthest(tmp_path: Path) -> None:
    ledger, progress = view(tmp_path, 1)
    ledger.report(IDS[0], [run_row(IDS[0], 0, 10, 0.1)])
    ledger.report(IDS[1], [run_row(IDS[1], 0, 20, 0.4)])
    assert IDS[1] in progress.line()


def test_steps_come_from_the_parts_each_read_once(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "metrics", IDS[0])
    writer.add(metric_row(IDS[0], 0, 40))
    writer.flush()
    counter = StepCounter(tmp_path)
    assert counter.total == 40
    assert counter.rate() is None
    writer.add(metric_row(IDS[0], 0, 70))
    writer.add(metric_row(IDS[0], 1, 5))
    writer.close()
    counter.poll()
    assert counter.steps == {f"{IDS[0]}-s0": 70, f"{IDS[0]}-s1": 5}
    assert counter.rate() is None, "the first new steps only start the clock"
    with TableWriter(tmp_path, "metrics", IDS[1]) as other:
        other.add(metric_row(IDS[1], 0, 30))
    counter.poll()
    assert (counter.rate() or 0) > 0


def test_a_torn_part_does_not_stop_the_view(tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "metrics"
    folder.mkdir(parents=True)
    (folder / f"{IDS[0]}.0001.000001.parquet").write_bytes(b"PAR1")
    assert StepCounter(tmp_path).total == 0


def test_an_error_in_the_view_is_no_error_of_the_sweep(tmp_path: Path) -> None:
    _, progress = view(tmp_path, 1)

    def broken() -> None:
        raise ZeroDivisionError

    progress._tick(broken)
