"""What takes long to ask of a model is asked once, as long as its weights stay as they are."""

from __future__ import annotations

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
        self._last: tuple[nn.Module, tuple[int, ...], ResultT] | None = None

    def __call__(self, model: nn.Module) -> ResultT:
        """The result for a model as it is now."""
        # Tensors count changes in place, but not those of fused optimizers: content tells.
        state = tuple(int(torch.hash_tensor(weight.detach()).view(torch.int64)) for weight in model.parameters())
        if self._last is None or self._last[0] is not model or self._last[1] != state:
            self._last = (model, state, self._ask(model))
        return self._last[2]


def is_finite(model: nn.Module) -> bool:
    """Whether no weight of a model is infinite or NaN."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters())
