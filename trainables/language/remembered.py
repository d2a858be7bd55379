"""What takes long to ask of a model is asked once, as long as its weights stay as they are."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn

ResultT = TypeVar("ResultT")


class Remembered(Generic[ResultT]):
    """A function of a model that remembers its last result.

    Args:
        ask: depends on the model's parameters and on nothing else that changes.
    """

    def __init__(self, ask: Callable[[nn.Module], ResultT]) -> None:
        self._ask = ask
        # Weakly: a run that has ended frees its model.
        self._last: tuple[weakref.ref[nn.Module], tuple[tuple[int, float], ...], ResultT] | None = None

    def __call__(self, model: nn.Module) -> ResultT:
        """The result for a model as it is now."""
        # Tensors count changes in place, but not those of fused optimizers: content tells.
        state = tuple(_content(weight.detach()) for weight in model.parameters())
        if self._last is None or self._last[0]() is not model or self._last[1] != state:
            self._last = (weakref.ref(model), state, self._ask(model))
        return self._last[2]


def _content(weight: torch.Tensor) -> tuple[int, float]:
    """Another one, once a tensor has changed: its hash, which is blind to signs, and its sum."""
    return int(torch.hash_tensor(weight).view(torch.int64)), float(weight.sum(dtype=torch.float64))


def is_finite(model: nn.Module) -> bool:
    """Whether no weight of a model is infinite or NaN."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters())
