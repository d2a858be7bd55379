"""What each worker of a group does, from its start to its end: all of them carry out the same orders together."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray

from rung.errors import RungError, StorageError
from rung.training import environment
from rung.tuning.mailbox import Advance, Begin, Complaint, Greeting, Leave, Order, Save, State

if TYPE_CHECKING:
    from rung.training.distributed import DistributedReplication, ProcessTeam

SECONDS_TO_NOTICE = 2.0
"""How long a worker stays that has to end: where another one has died, Ray Train is to notice that first."""


def work(config: dict[str, Any]) -> None:
    """Carries out orders until `Leave`; the function that Ray Train calls in every worker.

    Args:
        config: `mailbox`, the actor to listen to; `threads` of this process.
    """
    environment.import_snapshot()
    environment.apply({}, config["threads"])
    from ray.train.torch import get_device

    from rung.training.distributed import ProcessTeam

    device = str(get_device())
    team = ProcessTeam(device)
    mailbox = config["mailbox"]
    worker = _Worker(team, device)
    try:
        greeting = _greeting(team)
        if team.rank == 0:
            ray.get(mailbox.answer.remote(greeting))
        while not isinstance(order := team.first(lambda: ray.get(mailbox.take.remote())), Leave):
            state = worker.obey(order)
            if team.rank == 0:
                ray.get(mailbox.answer.remote(state))
    except Exception as error:
        with suppress(Exception):  # the trial may be gone
            ray.get(mailbox.complain.remote(_complaint(team.rank, error)))
        time.sleep(SECONDS_TO_NOTICE)
        raise
    finally:
        worker.let_go()


def _greeting(team: ProcessTeam) -> Greeting:
    group = ray.util.get_current_placement_group()
    return Greeting(group.id.hex() if group else "", team.all_of((platform.node(), os.getpid())))


def _complaint(rank: int, error: Exception) -> Complaint:
    text = str(error) if isinstance(error, RungError) else f"{type(error).__name__}: {error}"
    return Complaint(rank, text, getattr(error, "seed", None), isinstance(error, StorageError))


class _Worker:
    """One process of the group, with the replication that it takes part in."""

    def __init__(self, team: ProcessTeam, device: str) -> None:
        self._team = team
        self._device = device
        self._replication: DistributedReplication | None = None

    def obey(self, order: Order) -> State:
        """Carries out an order, and says how the runs stand then."""
        if isinstance(order, Begin):
            self.let_go()
            self._replication = self._begin(order)
        replication = self._replication
        if replication is None:
            return State()
        match order:
            case Advance(level, seeds):
                replication.advance(level, seeds)
            case Save():
                replication.checkpoint()
            case Begin():
                pass
            case _:
                self.let_go()
                return State()
        return State(replication.rows(), replication.failed, replication.set_aside(), replication.has_ended)

    def _begin(self, order: Begin) -> DistributedReplication:
        from rung.training.distributed import DistributedReplication

        assignment = dataclasses.replace(order.assignment, device=self._device)
        replication = DistributedReplication(assignment, team=self._team)
        replication.give_up(order.failed)
        return replication

    def let_go(self) -> None:
        """Writes what is still in memory."""
        replication, self._replication = self._replication, None
        if replication is not None:
            replication.close()
