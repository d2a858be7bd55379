"""Kills, Ctrl-C and second drivers: nothing is lost, nothing is done twice, numbers stay the same to the last bit."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.conftest import Rung, wait_for
from tests.integration.test_sweep import rows

pytestmark = pytest.mark.ray

SLOW = {"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}, "seconds_per_step": 0.05}
METRICS = ("validation/loss", "validation/accuracy", "learning_rate", "gradient_norm", "batch/mse")


def numbers(path: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What every run reported, by run and step; fails if one stands twice."""
    found: dict[tuple[str, int], tuple[Any, ...]] = {}
    for row in rows(path, "metrics"):
        key = (row["run_id"], row["step"])
        assert key not in found, f"{key} stands twice"
        found[key] = tuple(row[name] for name in METRICS)
    return found


def decisions(path: Path) -> set[tuple[Any, ...]]:
    names = ("config_id", "level", "value", "threshold", "rank", "compared", "decision", "reason")
    return {tuple(row[name] for name in names) for row in rows(path, "decisions")}


def endings(path: Path) -> dict[str, tuple[Any, ...]]:
    names = ("status", "ended_by", "step", "value", "best", "best_step")
    return {row["run_id"]: tuple(row[name] for name in names) for row in rows(path, "runs")}


def parts(path: Path) -> int:
    return len(list((path / "tables" / "metrics").glob("*.parquet")))


def trial_processes(driver: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        # Ray shows in a worker's title what it is doing: one that is training, not one that is taking over a task.
        if re.search(r"ray::\w+\.train\b", " ".join(process.info["cmdline"] or ())):
            with suppress(psutil.NoSuchProcess):
                if driver in {parent.pid for parent in process.parents()}:
                    found.append(process)
    return found


@pytest.fixture(scope="module")
def uninterrupted(module_rung: Rung) -> Path:
    module_rung("run", module_rung.study(base=SLOW))
    return module_rung.results()


def test_a_driver_killed_half_way_goes_on_to_the_same_end(
    rung: Rung, uninterrupted: Path, processes: list[subprocess.Popen[str]]
) -> None:
    study = rung.study(base=SLOW)
    for enough in (4, 10):
        process = rung.start("run", study)
        processes.append(process)
        start = parts(rung.results())
        wait_for(lambda: parts(rung.results()) >= start + enough, what="rows")  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    rung("run", study)
    assert numbers(rung.results()) == numbers(uninterrupted)
    assert decisions(rung.results()) == decisions(uninterrupted)
    assert endings(rung.results()) == endings(uninterrupted)


def test_a_killed_trial_process_is_restarted_where_it_was(
    rung: Rung, uninterrupted: Path, processes: list[subprocess.Popen[str]]
) -> None:
    process = rung.start("run", rung.study(base=SLOW))
    processes.append(process)
    wait_for(lambda: parts(rung.results()) >= 6, what="rows")
    victim = wait_for(lambda: trial_processes(process.pid), what="a trial's process")[0]
    victim.kill()
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert numbers(rung.results()) == numbers(uninterrupted)
    assert decisions(rung.results()) == decisions(uninterrupted)
    assert "trial_restarted" in {row["kind"] for row in rows(rung.results(), "events")}


def test_a_second_driver_is_refused_and_ctrl_c_says_how_to_go_on(
    rung: Rung, uninterrupted: Path, processes: list[subprocess.Popen[str]]
) -> None:
    study = rung.study(base=SLOW)
    process = rung.start("run", study)
    processes.append(process)
    wait_for(lambda: parts(rung.results()) >= 4, what="rows")

    message = rung("run", study, code=2)
    assert "is being run already" in message
    assert f"process {process.pid}" in message
    shown = rung("status", "toy")
    assert "running now" in shown
    assert re.search(r"\d+ running", shown)

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert re.search(r"go on with: rung run \S*toy\.yaml", output)
    assert re.search(r"interrupted.*\n(.*\n)*.*go on with: rung run \S*toy\.yaml", rung("status", "toy"))

    rung("run", study)
    assert numbers(rung.results()) == numbers(uninterrupted)
    kinds = [row["kind"] for row in sorted(rows(rung.results(), "events"), key=lambda row: row["time"])]
    assert kinds[0] == "launch"
    assert {"interrupted", "resume", "finished"} <= set(kinds)


def test_a_seed_that_raises_is_recorded_and_tried_again_once_it_is_mended(rung: Rung) -> None:
    study = rung.study(
        base={"evaluation": {"every": 5}, "raise_for_seed": 1},
        scheduler={"name": "synchronous_halving", "grace": 10, "reduction_factor": 2},
    )
    output = rung("run", study, code=1)
    assert "Traceback" not in output
    runs = rows(rung.results(), "runs")
    failed = [row for row in runs if row["status"] == "failed"]
    assert {row["seed"] for row in failed} == {1}
    assert len(failed) == 6
    assert all("ArithmeticError: the toy raises for seed 1" in row["error"] for row in failed)
    assert all(row["value"] is None for row in failed)
    # A failed run is tried again by the next command, not at every rung.
    assert len([row for row in rows(rung.results(), "events") if row["kind"] == "run_failed"]) == 6
    assert "the toy raises for seed 1" in rung("status", "toy")

    rung.environment["TOY_IS_MENDED"] = "1"
    rung("run", study)
    stopped = {row["config_id"] for row in rows(rung.results(), "decisions") if row["decision"] == "stop"}
    for row in rows(rung.results(), "runs"):
        if row["config_id"] not in stopped:
            assert (row["status"], row["step"]) == ("completed", 40), row["run_id"]


def test_a_disk_that_fails_ends_the_sweep_with_one_clear_error(rung: Rung) -> None:
    output = rung("run", rung.study(base={"fill_disk_at": 7}, scheduler={"name": "fifo"}), code=2)
    assert "error: the toy's disk is full" in output
    assert "Traceback" not in output
    kinds = {row["kind"] for row in rows(rung.results(), "events")}
    assert "finished" not in kinds


def test_a_trial_that_cannot_take_over_its_task_is_not_lost_silently(rung: Rung) -> None:
    held = re.findall(r"c[0-9a-f]{12}", rung("plan", rung.study(), "--configurations"))[-1]
    (rung.results() / "checkpoints" / f"{held}.lock").mkdir(parents=True)  # cannot be opened as a file
    output = rung("run", rung.study(failures={"retries": 0}), code=2)
    assert "cannot write to" in output


def test_a_seed_that_diverges_is_a_result(rung: Rung) -> None:
    study = rung.study(base={"evaluation": {"every": 5}, "diverge_for_seed": 2}, scheduler={"name": "fifo"})
    assert "diverged" in rung("run", study)
    diverged = [row for row in rows(rung.results(), "runs") if row["status"] == "diverged"]
    assert {(row["seed"], row["diverged_step"], row["ended_by"]) for row in diverged} == {(2, 3, "divergence")}
    assert "nothing left to do" in rung("run", study)


def test_storage_that_cannot_be_written_is_one_clear_error(rung: Rung) -> None:
    (rung.directory / "results").write_text("a file where the folder should be")
    message = rung("run", rung.study(), code=2)
    assert "cannot write to" in message
    assert "RUNG_STORAGE" in message
    assert "Traceback" not in message


def test_no_more_trials_at_a_time_than_asked_for(rung: Rung) -> None:
    base = {"evaluation": {"every": 5}, "seconds_per_step": 0.01}
    rung("run", rung.study(base=base, scheduler={"name": "fifo"}, seeds=1, resources={"concurrent": 1}))
    spans = {}
    for row in rows(rung.results(), "metrics"):
        first, last = spans.get(row["config_id"], (row["reported_at"], row["reported_at"]))
        spans[row["config_id"]] = (min(first, row["reported_at"]), max(last, row["reported_at"]))
    ordered = sorted(spans.values())
    assert len(ordered) == 6
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ordered))


def test_resources_that_are_not_there_are_refused_at_once(rung: Rung) -> None:
    started = time.monotonic()
    message = rung("run", rung.study(resources={"cpus": 4096}), code=2)
    assert "4096 CPUs" in message
    assert "RAY_ADDRESS" in message
    assert time.monotonic() - started < 30
    assert "GPU" in rung("run", rung.study(resources={"gpus": 1}), code=2)
