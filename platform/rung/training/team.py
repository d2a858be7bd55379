"""The processes that train one run together. Here, what the loop asks of them; `distributed.py` has the real ones.

Every process runs the same loop on the same global batches, each computing its share, and all must take every decision
alike. What comes from a clock or from one process alone is therefore agreed on through a `Team`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Team(Protocol):
    """Some processes that train one run together; rank 0 is the one that evaluates and writes."""

    rank: int
    size: int

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over the team; shares its parameters with `model`."""
        ...

    def without_averaging(self, model: nn.Module) -> AbstractContextManager[object]:
        """Around the backward passes that are followed by another one of the same step; `model` is a wrapped one."""
        ...

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """The sum over the team, the same bits in every process."""
        ...

    def agree(self, number: float) -> float:
        """Rank 0's number, in every process."""
        ...

    def first(self, value: Callable[[], T]) -> T:
        """What rank 0 gets from `value()`, in every process; the others do not call it. For all that pickles."""
        ...

    def all_of(self, value: T) -> list[T]:
        """What every process says, in the order of their ranks. For all that pickles."""
        ...

    def all_failed(self) -> bool:
        """Asked by a process in which a run has raised: whether it has in every other one as well. If not, the
        processes no longer do the same, and cannot go on together."""
        ...


class Alone:
    """A team of one."""

    rank = 0
    size = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def without_averaging(self, model: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers

    def agree(self, number: float) -> float:
        return number

    def first(self, value: Callable[[], T]) -> T:
        return value()

    def all_of(self, value: T) -> list[T]:
        return [value]

    def all_failed(self) -> bool:
        return True
