"""What a sweep shows while it runs: a live view on a terminal, plain lines anywhere else.

Reports reach the driver only at rungs; what happens in between is read from the part files of the table `metrics`,
the same ones that `rung status` and DuckDB read.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Literal

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rung.results.statistics import mean_interval
from rung.tuning.ledger import Ledger, Row, State
from rung.tuning.schedulers import RungRow, Scheduler

log = logging.getLogger(__name__)

STATES: tuple[State, ...] = ("waiting", "running", "paused", "completed", "stopped", "failed")


class StepCounter:
    """Follows how far every run has come, reading each new part of the table `metrics` once.

    Rates are taken over the last `window` seconds, and count only steps taken since this object was made.
    """

    def __init__(self, directory: Path, window: float = 120.0) -> None:
        self._folder = directory / "tables" / "metrics"
        self._window = window
        self._seen: set[str] = set()
        self.steps: dict[str, int] = {}
        self.poll()
        self._before = self.total
        self._history: deque[tuple[float, int]] = deque()

    @property
    def total(self) -> int:
        """Optimizer steps taken in all runs together."""
        return sum(self.steps.values())

    def poll(self) -> None:
        """Reads parts that have appeared since the last call; one that is gone or unreadable is passed over."""
        import pyarrow.parquet as pq

        for path in sorted(self._folder.glob("*.parquet")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            try:
                part = pq.read_table(path, columns=["run_id", "step"]).to_pydict()
            except (OSError, ValueError):
                continue
            for run, step in zip(part["run_id"], part["step"], strict=True):
                self.steps[run] = max(step, self.steps.get(run, 0))

    def rate(self) -> float | None:
        """Steps per second of all runs together, or None as long as there is nothing to tell it from."""
        now = time.monotonic()
        # The first new steps only start the clock: how long they took cannot be told from how long Ray took to start.
        if self.total > self._before and (not self._history or self.total != self._history[-1][1]):
            self._history.append((now, self.total))
        if len(self._history) < 2:
            return None
        while len(self._history) > 2 and now - self._history[1][0] > self._window:
            self._history.popleft()
        (start, before), (end, after) = self._history[0], self._history[-1]
        return (after - before) / (end - start)


@dataclass(frozen=True)
class SweepShape:
    """What the progress view needs to know of a study."""

    study: str
    metric: str
    mode: Literal["min", "max"]
    steps_per_run: int | None
    """The budget in steps, if it is known."""
    unit: str


class ProgressView:
    """Shows a sweep from the ledger, in a thread of its own, until `stop` is called."""

    def __init__(self, shape: SweepShape, ledger: Ledger, rule: Scheduler, console: Console) -> None:
        self._shape = shape
        self._ledger = ledger
        self._rule = rule
        self._console = console
        self._counter = StepCounter(ledger.directory)
        self._started = time.monotonic()
        self._stop = Event()
        self._last_line = ""
        self._thread = Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> ProgressView:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _show(self) -> None:
        if self._console.is_terminal:
            with Live(console=self._console, refresh_per_second=2, transient=True) as live:
                while not self._stop.wait(1.0):
                    self._tick(lambda: live.update(self.render()))
            return
        while not self._stop.wait(10.0):
            self._tick(self._print_line)

    def _tick(self, show: Callable[[], None]) -> None:
        # Whatever goes wrong here must neither end the view nor reach the user: the sweep itself is not concerned.
        try:
            self._counter.poll()
            show()
        except Exception:
            log.debug("the progress view skipped a turn", exc_info=True)

    def _print_line(self) -> None:
        line = self.line()
        if line != self._last_line:
            self._console.print(line, highlight=False, soft_wrap=True)
            self._last_line = line

    # What is shown.

    def line(self) -> str:
        """The whole state in one line of plain text."""
        counts = Counter(self._ledger.states.values())
        parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
        parts.append(self._pace())
        best = self._best()
        if best is not None:
            parts.append(f"best {best}")
        return f"[{_clock(time.monotonic() - self._started)}] " + " | ".join(parts)

    def render(self) -> RenderableType:
        """The live view: states, pace, rung table, best so far."""
        counts = Counter(self._ledger.states.values())
        states = Table.grid(padding=(0, 2))
        states.add_row(
            Text(self._shape.study, style="bold"),
            *(f"{counts[state]} {state}" for state in STATES if counts[state]),
        )
        pieces: list[RenderableType] = [
            states,
            Text(f"{_clock(time.monotonic() - self._started)} elapsed, {self._pace()}", style="dim"),
        ]
        rows = self._rule.rung_table()
        if rows:
            pieces.append(_rung_table(rows, self._shape.unit))
        best = self._best()
        if best is not None:
            pieces.append(Text(f"best so far: {best}"))
        return Group(*pieces)

    def _pace(self) -> str:
        rate = self._counter.rate()
        if rate is None:
            return f"{self._counter.total:,} steps"
        left = self._steps_left()
        eta = f", at most {_clock(left / rate)} left" if left is not None else ""
        return f"{self._counter.total:,} steps, {rate:.1f} steps/s{eta}"

    def _steps_left(self) -> int | None:
        """Steps still to take if no configuration is stopped from now on."""
        whole = self._shape.steps_per_run
        if whole is None:
            return None
        left = 0
        for name, state in list(self._ledger.states.items()):
            if state in ("waiting", "running", "paused"):
                task = self._ledger.tasks[name]
                for seed in task.seeds:
                    left += max(0, whole - self._counter.steps.get(task.run_id(seed), 0))
        return left

    def _best(self) -> str | None:
        """The best configuration among those that have come furthest, with its interval."""
        candidates, configurations = [], dict[str, list[Row]]()
        for name, runs in list(self._ledger.runs.items()):  # the driver's thread may add one meanwhile
            configurations.setdefault(self._ledger.tasks[name].config_id, []).extend(list(runs.values()))
        for config_id, rows in configurations.items():
            values = [row["value"] for row in rows if row.get("value") is not None]
            if values:
                furthest = max(row["step"] for row in rows)
                sign = 1 if self._shape.mode == "max" else -1
                candidates.append((furthest, sign * float(np.mean(values)), config_id, values))
        if not candidates:
            return None
        furthest, _, config_id, values = max(candidates)
        return (
            f"{self._shape.metric} {_interval(values)} at step {furthest:,}, the furthest: "
            f"{self._ledger.labels.get(config_id, '')} ({config_id})"
        )


def _interval(values: Sequence[float]) -> str:
    interval = mean_interval(np.asarray(values))
    text = f"{np.mean(values):.4g}"
    if interval.low is not None and interval.high is not None:
        text += f" [{interval.low:.4g}, {interval.high:.4g}]"
    return f"{text} (n={len(values)})"


def _rung_table(rows: Sequence[RungRow], unit: str) -> Table:
    table = Table("rung", "reported", "went on", "stopped", "waiting", box=None, header_style="dim")
    for row in rows:
        level = f"{row.level:,} {unit}"
        counts = (row.reported, row.continued, row.stopped, row.waiting)
        table.add_row(level, *(str(count) for count in counts))
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
