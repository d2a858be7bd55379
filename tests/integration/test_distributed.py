"""A study whose runs are trained by two workers each, on a real Ray: what a kill of anyone in it costs is time only.

One study: a worker dies and, when training goes on, the driver; then the same command again. The numbers are compared
with those of two processes that nobody has disturbed, trained without Ray.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rung.plan import make_plan
from rung.results.query import load
from rung.results.views import dicts
from rung.study import load_study
from rung.training.assignment import Assignment
from rung.tuning.goal import assignment_of
from tests.integration.conftest import ROOT, Rung, wait_for
from tests.team import Job, train_together

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

STUDY: dict[str, Any] = {
    "base": {"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}, "seconds_per_step": 0.05},
    "space": {"optimizer.learning_rate": {"grid": [0.1, 0.01, 0.001]}},
    "seeds": 2,
    "scheduler": {"name": "asha", "grace": 10, "reduction_factor": 2},
    "resources": {"workers": 2, "concurrent": 1},
}

Reports = dict[tuple[str, int], tuple[float | None, ...]]


def reports(directory: Path) -> Reports:
    """By run and step: what was reported, once each."""
    columns = 'run_id, step, tokens, "validation/loss", "batch/mse", gradient_norm'
    rows = load(directory).metrics.select(columns).fetchall()
    found: Reports = {(run_id, step): tuple(values) for run_id, step, *values in rows}
    assert len(found) == len(rows)
    return found


def processes(driver: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The processes of a driver's Ray with a name that begins so."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(name):
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


class Killed:
    """The study, and what happened to it."""

    def __init__(self, rung: Rung, started: list[subprocess.Popen[str]]) -> None:
        self.path = rung.study(**STUDY)
        self.directory = rung.results()
        driver = rung.start("run", self.path)
        started.append(driver)
        self._await_reports(driver, 6)
        self._kill_one(driver, "ray::RayTrainWorker")
        self._await_reports(driver, 3)
        driver.kill()
        driver.wait()
        driver = rung.start("run", self.path)
        started.append(driver)
        output, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, output

    def _await_reports(self, driver: subprocess.Popen[str], count: int) -> None:
        """Waits for so many more reports, while a worker is there."""
        before = self._count()
        wait_for(lambda: driver.poll() is not None or self._count() >= before + count, 250, f"{count} reports")
        assert driver.poll() is None, "the driver has ended too soon"

    def _count(self) -> int:
        return len(load(self.directory).metrics.fetchall()) if (self.directory / "tables" / "metrics").exists() else 0

    def _kill_one(self, driver: subprocess.Popen[str], name: str) -> None:
        found = processes(driver, name)
        assert found, f"no {name} is there"
        found[-1].kill()


@pytest.fixture(scope="module")
def killed(module_rung: Rung) -> Iterator[Killed]:
    started: list[subprocess.Popen[str]] = []
    try:
        yield Killed(module_rung, started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def test_every_run_has_ended(killed: Killed) -> None:
    runs = dicts(load(killed.directory).runs)
    assert len(runs) == 6
    assert {run["status"] for run in runs} <= {"completed", "stopped"}
    assert [run["status"] for run in runs].count("completed") >= 2
    assert {run["workers"] for run in runs} == {2}
    assert max(run["attempt"] for run in runs) >= 2


def test_what_was_lost_is_on_record(killed: Killed) -> None:
    events = dicts(load(killed.directory).events)
    kinds = [event["kind"] for event in events]
    assert kinds.count("workers_restarted") == 1
    assert kinds.count("resume") == 1
    (message,) = [event["message"] for event in events if event["kind"] == "workers_restarted"]
    assert message.startswith("a worker died (rank ")


def test_the_numbers_are_those_of_two_undisturbed_processes(killed: Killed, tmp_path: Path) -> None:
    jobs = [Job(_elsewhere(each, tmp_path), (10, 20, 40)) for each in _assignments(killed.path)]
    train_together(jobs, workers=2)
    expected, found = reports(tmp_path), reports(killed.directory)
    assert found.keys() <= expected.keys()
    assert {key: expected[key] for key in found} == found
    assert len(found) >= 2 * 10 + 2 * 2 * 5


LEFTOVERS = """
import os, ray
from rung.tuning.worker_group import free_leftovers
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote(num_cpus=0)
class Trial:
    def take(self):
        ray.get(ray.util.placement_group([{"CPU": 1}]).ready())

    def die(self):
        os._exit(1)

def states():
    return sorted(group["state"] for group in ray.util.placement_group_table().values())

own = ray.util.placement_group([{"CPU": 1}])
trial = Trial.remote()
ray.get([own.ready(), trial.take.remote()])
free_leftovers()
assert states() == ["CREATED", "CREATED"], states()
try:
    ray.get(trial.die.remote())
except ray.exceptions.RayActorError:
    pass
for _ in range(100):  # Ray learns of a death a moment later
    free_leftovers()
    if "REMOVED" in states():
        break
assert states() == ["CREATED", "REMOVED"], states()
assert ray.get(ray.remote(num_cpus=1)(lambda: 7).remote()) == 7
"""


def test_what_a_dead_trial_held_is_given_back_and_nothing_else() -> None:
    """Without it the workers of the next configuration would wait for ever."""
    command = [sys.executable, "-c", textwrap.dedent(LEFTOVERS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def _assignments(path: Path) -> list[Assignment]:
    study = load_study(path)
    plan = make_plan(study)
    return [assignment_of(study, plan, each) for each in plan.configurations]


def _elsewhere(assignment: Assignment, directory: Path) -> Assignment:
    config = {**json.loads(json.dumps(assignment.config)), "seconds_per_step": 0.0}
    return Assignment(**{**vars(assignment), "directory": str(directory), "config": config})
