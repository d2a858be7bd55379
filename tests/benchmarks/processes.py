"""Running a whole command and adding up what all of its processes took, Ray's and their children among them.

The times of processes that nobody waits for (Ray's workers) appear in no parent's account, so the process tree is
looked at four times a second and every process's last known time counts; a process that ends between two looks is
missing at most a quarter of a second. Reads /proc: on other systems than Linux the CPU time is that of the children
that were waited for.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    wall: float
    """Seconds from its start to its end."""
    cpu: float
    """CPU seconds of all its processes."""
    own: float
    """CPU seconds of its first process alone."""
    by_command: Mapping[str, float]
    """CPU seconds by command line; Ray's workers change theirs to what they do."""
    began: float
    """When it was started, seconds since the epoch."""

    @property
    def ended(self) -> float:
        """When it ended, seconds since the epoch."""
        return self.began + self.wall


def run_command(command: Sequence[str | Path], **variables: str) -> Usage:
    """Runs a command from the repository's root to its end, with these environment variables beside the inherited ones.

    Thread counts are not inherited: every form is to have its own.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", **variables}
    before, began = _waited_for(), time.time()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    account = _Account(process.pid)
    output, _ = process.communicate()
    wall = time.time() - began
    account.close()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{output[-4000:]}")
    by_command = account.by_command()
    return Usage(wall, sum(by_command.values()) or _waited_for() - before, account.own(), by_command, began)


def python(*arguments: str | Path) -> list[str | Path]:
    """A command of this Python."""
    return [sys.executable, *arguments]


class _Account:
    """CPU seconds of a process and all its descendants, followed in a thread until `close`."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[tuple[int, int], _Stat] = {}  # by process id and start time, since ids are used again
        self._commands: dict[tuple[int, int], str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def own(self) -> float:
        """CPU seconds of the first process."""
        return sum(stat.seconds for stat in self._known.values() if stat.pid == self._root)

    def by_command(self) -> dict[str, float]:
        """CPU seconds by command line; a process counts under the last one that it had."""
        seconds: Counter[str] = Counter()
        for key, stat in self._known.items():
            seconds[self._commands[key]] += stat.seconds
        return dict(seconds)

    def _follow(self) -> None:
        while not self._stop.wait(0.25):
            self._look()

    def _look(self) -> None:
        stats = {stat.pid: stat for path in PROC.glob("[0-9]*/stat") if (stat := _stat(path)) is not None}
        family = {pid for pid, stat in stats.items() if (pid, stat.started) in self._known or pid == self._root}
        while more := {pid for pid, stat in stats.items() if stat.parent in family} - family:
            family |= more
        for pid in family:
            key = (pid, stats[pid].started)
            self._known[key] = stats[pid]
            self._commands[key] = _command(pid) or self._commands.get(key, "")


class _Stat(NamedTuple):
    """A process at one moment."""

    pid: int
    parent: int
    started: int
    seconds: float
    """CPU time so far."""


def _stat(path: Path) -> _Stat | None:
    """None when it has just ended."""
    try:
        text = path.read_text()
    except OSError:
        return None
    fields = text.rpartition(") ")[2].split()  # what comes before is its id and its name, in brackets
    ticks = int(fields[11]) + int(fields[12])
    return _Stat(int(path.parent.name), int(fields[1]), int(fields[19]), ticks / os.sysconf("SC_CLK_TCK"))


def _command(pid: int) -> str:
    """Empty when it has just ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _waited_for() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
