"""The precision of a run's matrix products: autocast, and loss scaling where float16 needs it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from rung.settings import Precision


def precision(name: Precision, device: str) -> contextlib.AbstractContextManager[object]:
    """A context in which matrix products are computed in the precision of that name."""
    if name == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if name == "bf16" else torch.float16
    return torch.autocast(torch.device(device).type, dtype=dtype)


class LossScaling:
    """Multiplies losses before the backward pass, so that small gradients do not vanish in float16 (Micikevicius et al.
    2018, arXiv 1710.03740), and leaves out steps whose gradients overflow. In other precisions it does nothing.

    Args:
        name: the run's precision.
        device: a torch device name.
    """

    def __init__(self, name: Precision, device: str) -> None:
        self._scaler = torch.amp.GradScaler(torch.device(device).type, enabled=name == "fp16")

    def backward(self, value: torch.Tensor) -> None:
        """Adds the gradient of the scaled loss."""
        self._scaler.scale(value).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes the gradients those of the loss itself."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the optimizer's step, unless a gradient has overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold; plain JSON, empty where nothing is scaled."""
        return self._scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        if state:
            self._scaler.load_state_dict(state)
