"""What a trial and its workers say to each other, as plain data, and the Ray actor that they say it through.

Imports no torch: the actor is a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rung.training.assignment import Assignment


@dataclass(frozen=True)
class Begin:
    """Take over the runs of a configuration; let go of those before it first."""

    assignment: Assignment
    failed: Mapping[int, str] = field(default_factory=dict)
    """Seeds that are not to be tried again, with their errors."""


@dataclass(frozen=True)
class Advance:
    """Train up to a level, with the first `seeds` seeds."""

    level: float
    seeds: int


@dataclass(frozen=True)
class Save:
    """Write checkpoints."""


@dataclass(frozen=True)
class LetGo:
    """Write what is still in memory, and let the models go."""


@dataclass(frozen=True)
class Leave:
    """End the process."""


Order = Begin | Advance | Save | LetGo | Leave


@dataclass(frozen=True)
class State:
    """How the runs of a configuration stand: what rank 0 answers to every order."""

    rows: list[dict[str, object]] = field(default_factory=list)
    failed: Mapping[int, str] = field(default_factory=dict)
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    has_ended: bool = False


@dataclass(frozen=True)
class Greeting:
    """What rank 0 says first, when all workers are there."""

    placement_group: str
    """Id of the resources that the workers hold."""
    processes: list[tuple[str, int]]
    """Host and process id of each rank."""


@dataclass(frozen=True)
class Complaint:
    """Why a worker has to end."""

    rank: int
    text: str
    seed: int | None = None
    """The run that raised; None: something else did."""
    is_storage: bool = False


class Mailbox:
    """Passes orders to rank 0, and answers and complaints back; nothing is kept that has been read, but complaints."""

    def __init__(self) -> None:
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._complaints: list[Complaint] = []

    async def give(self, order: Order) -> None:
        """The trial gives an order."""
        await self._orders.put(order)

    async def take(self) -> Order:
        """Rank 0 waits for the next order."""
        return await self._orders.get()

    async def answer(self, answer: Greeting | State) -> None:
        """Rank 0 answers."""
        await self._answers.put(answer)

    async def hear(self, seconds: float) -> Greeting | State | None:
        """The trial waits for the next answer, for so long."""
        try:
            found: Greeting | State = await asyncio.wait_for(self._answers.get(), seconds)
        except TimeoutError:
            return None
        return found

    async def complain(self, complaint: Complaint) -> None:
        """A worker has to end."""
        self._complaints.append(complaint)

    async def complaints(self) -> list[Complaint]:
        """All of them, in their order."""
        return self._complaints
