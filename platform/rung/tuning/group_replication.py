"""The runs of one configuration, trained by the workers of a group: for a trial, the same as any other replication."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from rung.errors import RungError, StorageError
from rung.training.assignment import Assignment
from rung.tuning.mailbox import Advance, Begin, LetGo, Order, Save, State
from rung.tuning.worker_group import WorkerGroup, WorkersLost

log = logging.getLogger(__name__)


class GroupReplication:
    """The runs of an assignment, taken from rung to rung by a group of workers.

    Workers that die are started again and go on from the last checkpoints.

    Args:
        group: the workers; they are started when they are first asked for something.
        assignment: what to train.
        retries: how often they may die over this assignment.

    Raises:
        RungError: what `Replication` raises, or the workers cannot be started, or die too often.
        StorageError: the study's directory cannot be written.
    """

    def __init__(self, group: WorkerGroup, assignment: Assignment, retries: int) -> None:
        self._group = group
        self._assignment = assignment
        self._retries = retries
        self._failed: dict[int, str] = {}
        self._set_aside: list[tuple[str, str]] = []
        self._restarts: list[str] = []
        self._deaths = 0
        self._state = State()
        self._begin()

    @property
    def has_ended(self) -> bool:
        """Whether no run of the configuration can go on."""
        return self._state.has_ended

    @property
    def failed(self) -> dict[int, str]:
        """Seeds whose runs have failed, with the texts of their errors."""
        return dict(self._failed)

    def advance(self, level: float, seeds: int | None = None) -> list[dict[str, object]]:
        """See `Replication.advance`."""
        self._ask(Advance(level, len(self._assignment.seeds) if seeds is None else seeds))
        return self.rows()

    def rows(self) -> list[dict[str, object]]:
        """One row of the table `runs` for each run that has begun."""
        return self._state.rows

    def set_aside(self) -> list[tuple[str, str]]:
        """See `Replication.set_aside`."""
        found, self._set_aside = self._set_aside, []
        return found

    def restarts(self) -> list[str]:
        """Deaths of workers since the last call, each in a sentence."""
        found, self._restarts = self._restarts, []
        return found

    def give_up(self, failed: Mapping[int, str]) -> None:
        """Does not try these seeds again; opens the runs anew only if the workers do not know of all of them."""
        if failed.keys() <= self._failed.keys():
            return
        self._failed.update(failed)
        self._begin()

    def checkpoint(self) -> None:
        """Saves every run that can go on."""
        self._ask(Save())

    def close(self) -> None:
        """Lets the models go; the workers stay for the next assignment."""
        if self._group.greeting is not None:
            try:
                self._group.ask(LetGo())
            except WorkersLost as lost:  # what was not saved is trained again
                log.warning("the workers of %s died at its end: %s", self._assignment.name, lost)

    def _begin(self) -> None:
        self._ask(Begin(self._assignment, dict(self._failed)))

    def _ask(self, order: Order) -> None:
        """Has an order carried out, by other workers if some die over it."""
        orders = [order]
        while orders:
            try:
                state = self._group.ask(orders[0])
            except WorkersLost as lost:
                self._recover(lost)
                orders = [Begin(self._assignment, dict(self._failed))]
                if not isinstance(order, Begin):
                    orders.append(order)
                continue
            self._failed.update(state.failed)
            self._set_aside += state.set_aside
            self._state = state
            orders.pop(0)

    def _recover(self, lost: WorkersLost) -> None:
        """Decides what the end of the workers means: the failure of a run, or a death after which others go on."""
        first = lost.complaints[0] if lost.complaints else None
        if first is not None and not lost.silent:
            if first.is_storage:
                raise StorageError(first.text)
            if first.seed is None or first.seed in self._failed:
                raise RungError(first.text)
            self._failed[first.seed] = first.text
            what = _last_line(first.text)
            self._restarts.append(f"the run with seed {first.seed} raised in rank {first.rank} alone: {what}")
            return
        self._deaths += 1
        ranks = ", ".join(map(str, lost.silent)) or "unknown"
        if self._deaths > self._retries:
            raise RungError(f"workers of this configuration died too often, last of them rank {ranks}: {lost}")
        self._restarts.append(f"a worker died (rank {ranks}); all were started again, from the last checkpoints")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
