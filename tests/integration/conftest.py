"""What integration tests share: study files of the toy trainable, and `rung` as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

TOY_STUDY: dict[str, Any] = {
    "study": "toy",
    "trainable": "tests.toy:Toy",
    "base": {"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}},
    "space": {"optimizer.learning_rate": {"grid": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]}},
    "seeds": 3,
    "budget": {"steps": 40},
    "metric": {"name": "validation/loss", "mode": "min"},
    "scheduler": {"name": "synchronous_halving", "grace": 10, "reduction_factor": 2},
    "checkpoints": {"seconds": 0.2},
}

SLOW = {"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}, "seconds_per_step": 0.05}
"""The toy's base for what is to be interrupted: the study takes some seconds."""


class Rung:
    """Runs `rung` in a directory of its own, with the repository's tests importable in every worker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RUNG_STORAGE": str(directory / "results"),
            "COLUMNS": "200",
        }

    def study(self, name: str = "toy", **changes: Any) -> Path:
        """Writes a study file: the toy's, with some keys replaced."""
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**TOY_STUDY, "study": name, **changes}, sort_keys=False))
        return path

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "rung", *map(str, arguments)],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str | Path, code: int = 0, timeout: float = 180) -> str:
        """Runs a command to its end and returns what it printed."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"timed out after {timeout} s: {arguments}\n{output}")
        assert process.returncode == code, output
        return output

    def results(self, name: str = "toy") -> Path:
        """The directory of a study's results."""
        return self.directory / "results" / name


@pytest.fixture
def rung(tmp_path: Path) -> Rung:
    return Rung(tmp_path)


@pytest.fixture(scope="module")
def module_rung(tmp_path_factory: pytest.TempPathFactory) -> Rung:
    """One directory for all tests of a module that only look at the same finished study."""
    return Rung(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the slow toy study that nobody disturbed."""
    rung = Rung(tmp_path_factory.mktemp("uninterrupted"))
    rung("run", rung.study(base=SLOW))
    return rung.results()


def wait_for(condition: Callable[[], Any], seconds: float = 90, what: str = "the condition") -> Any:
    """Waits until `condition` gives something true, and returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {seconds} s in vain for {what}")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed, with their group, at the end of a test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
