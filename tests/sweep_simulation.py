"""A sweep on a virtual clock: tabulated curves and an event queue in place of training, Ray and waiting.

It does what the real driver does around a scheduler: a configuration that waits gives its worker back, one that may go
on comes before one that has not started, decisions are kept in the order in which they fell, and an interrupted sweep
goes on from its decisions alone. The runs of a configuration take turns on its worker; seeds that join at a rung are
trained up to it from the beginning.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rung.tuning.schedulers import Decision, Scheduler

Curves = Mapping[str, Mapping[int, float | None]]
"""The aggregate over seeds by configuration and level; every configuration has a value at every level."""

Margins = Mapping[str, Mapping[int, float | None]]
"""Half the width of its interval."""


@dataclass
class Sweep:
    """What came out."""

    decisions: list[Decision] = field(default_factory=list)
    reports: list[tuple[str, int]] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    trained: float = 0.0
    """Budget units of all runs together."""
    clock: float = 0.0

    def verdicts(self) -> dict[tuple[str, int], Decision]:
        """Every decision, in no order."""
        return {(decision.config_id, decision.level): decision for decision in self.decisions}


def simulate(
    scheduler: Scheduler,
    curves: Curves,
    budget: int,
    *,
    workers: int = 4,
    speeds: Mapping[str, float] | None = None,
    fails: Mapping[str, int] | None = None,
    ends: Mapping[str, int] | None = None,
    recorded: Iterable[Decision] = (),
    seeds: Mapping[int, int] | None = None,
    margins: Margins | None = None,
) -> Sweep:
    """Run a sweep to its end.

    Args:
        workers: configurations that train side by side.
        speeds: time per budget unit of a run, by configuration; 1 if not given.
        fails: the level before which a configuration fails.
        ends: the level at which a configuration ends early (a target reached), right after its report.
        recorded: decisions of an interrupted sweep, from which this one goes on.
        seeds: runs of a configuration that train up to a level, by level; 1 everywhere if not given.
        margins: what the scheduler is told beside the curves' values; nothing if not given.
    """
    driver = _Driver(scheduler, curves, budget, workers, speeds or {}, fails or {}, ends or {})
    driver.seeds, driver.margins = seeds, margins
    return driver.run(recorded)


class _Driver:
    def __init__(
        self,
        scheduler: Scheduler,
        curves: Curves,
        budget: int,
        workers: int,
        speeds: Mapping[str, float],
        fails: Mapping[str, int],
        ends: Mapping[str, int],
    ) -> None:
        self.scheduler, self.curves, self.budget = scheduler, curves, budget
        self.workers, self.speeds, self.fails, self.ends = workers, speeds, fails, ends
        self.seeds: Mapping[int, int] | None = None
        self.margins: Margins | None = None
        self.sweep = Sweep()
        self.at = dict.fromkeys(curves, 0)
        self.ready: deque[str] = deque()
        self.pending = deque(curves)
        self.events: list[tuple[float, int, str]] = []
        self.ties = itertools.count()
        self.waiting: set[str] = set()

    def run(self, recorded: Iterable[Decision]) -> Sweep:
        self.resume(list(recorded))
        self.start()
        while self.events:
            self.sweep.clock, _, config_id = heapq.heappop(self.events)
            self.arrive(config_id)
            self.start()
        assert not self.waiting, f"{self.waiting} wait for ever"
        assert not self.pending
        assert not self.ready
        return self.sweep

    def resume(self, recorded: list[Decision]) -> None:
        self.scheduler.restore(recorded)
        self.sweep.decisions += recorded
        for decision in recorded:
            self.at[decision.config_id] = decision.level
            if decision.decision == "stop":
                self.pending.remove(decision.config_id)
            elif self.ends.get(decision.config_id) == decision.level:
                self.pending.remove(decision.config_id)
                self.apply(self.scheduler.withdraw(decision.config_id))

    def start(self) -> None:
        while (self.ready or self.pending) and len(self.events) < self.workers:
            config_id = self.ready.popleft() if self.ready else self.pending.popleft()
            work = self.work(self.at[config_id], self.target(config_id))
            self.sweep.trained += work
            time = self.sweep.clock + work * self.speeds.get(config_id, 1.0)
            heapq.heappush(self.events, (time, next(self.ties), config_id))

    def work(self, level: int, target: int) -> int:
        """Budget units of a configuration's runs between two levels, those included that join at the second."""
        if self.seeds is None:
            return target - level
        joined = self.seeds[level] if level else 0
        return joined * (target - level) + (self.seeds[target] - joined) * target

    def target(self, config_id: str) -> int:
        levels = self.scheduler.levels_of(config_id)
        return next((level for level in levels if level > self.at[config_id]), self.budget)

    def arrive(self, config_id: str) -> None:
        level = self.target(config_id)
        if self.fails.get(config_id) == level:
            self.apply(self.scheduler.withdraw(config_id))
            return
        self.at[config_id] = level
        if level == self.budget:
            self.sweep.completed.append(config_id)
            return
        self.sweep.reports.append((config_id, level))
        self.waiting.add(config_id)
        margin = self.margins[config_id][level] if self.margins else None
        self.apply(self.scheduler.report(config_id, level, self.curves[config_id][level], margin))
        if self.ends.get(config_id) == level:
            self.waiting.discard(config_id)
            if config_id in self.ready:
                self.ready.remove(config_id)
            self.apply(self.scheduler.withdraw(config_id))

    def apply(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            self.sweep.decisions.append(decision)
            if decision.config_id in self.waiting:
                self.waiting.remove(decision.config_id)
                if decision.decision == "continue":
                    self.ready.append(decision.config_id)
