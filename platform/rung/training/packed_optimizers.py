"""Optimizer steps for a pack of runs at once: torch.optim's formulas on tensors with a row for each run.

Every constant may differ from run to run, and so may the number of steps taken: they are columns beside the rows. The
states that torch.optim keeps for each parameter become views of the stacked ones, so that a run's own optimizer always
knows them. Differs from torch.optim in one thing: a parameter that the loss does not reach is decayed like the others.

Shape suffixes: N runs, P numbers in a row (all trainable parameters of a run, see `pack.py`), K parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from rung.training.layout import Layout


class PackedOptimizer(ABC):
    """The optimizers of some runs as one.

    Args:
        optimizers: each run's own, all of the same class, with one group of parameters.
        layout: of a row.
    """

    names: ClassVar[tuple[str, ...]]
    """Of the states that torch.optim keeps for a parameter."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], layout: Layout) -> None:
        self._groups = [optimizer.param_groups[0] for optimizer in optimizers]
        self.states: dict[str, torch.Tensor] = {}
        """By name, (N, P)."""
        for name in self.names:
            rows = [[_state(optimizer, p, name) for p in parameters_of(optimizer)] for optimizer in optimizers]
            self.states[name] = layout.stack(rows)
            for optimizer, row_P in zip(optimizers, self.states[name], strict=True):
                for parameter, view in zip(parameters_of(optimizer), layout.split(row_P), strict=True):
                    optimizer.state[parameter][name] = view

    @abstractmethod
    def update(self, weights_NP: torch.Tensor, gradients_NP: torch.Tensor) -> None:
        """Takes one step, in place, with the constants that stand in the optimizers' groups; may overwrite both."""


def pack_optimizers(optimizers: Sequence[torch.optim.Optimizer], layout: Layout) -> PackedOptimizer:
    """The optimizers of some runs (`optimizers.build_optimizer`) as one.

    Raises:
        ValueError: they are not all of one kind.
    """
    kinds = {_kind(optimizer) for optimizer in optimizers}
    if len(kinds) > 1:
        raise ValueError(f"a pack needs optimizers of one kind, got {', '.join(kind.__name__ for kind in kinds)}")
    return kinds.pop()(optimizers, layout)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters that an optimizer with one group changes."""
    parameters: list[torch.Tensor] = optimizer.param_groups[0]["params"]
    return parameters


class PackedSGD(PackedOptimizer):
    """torch.optim.SGD without momentum: g += decay * w; w -= lr * g."""

    names = ()

    def update(self, weights_NP: torch.Tensor, gradients_NP: torch.Tensor) -> None:
        constants = [(group["lr"], group["weight_decay"]) for group in self._groups]
        rate, decay = _columns(constants, weights_NP)
        gradients_NP.addcmul_(weights_NP, decay)
        weights_NP.addcmul_(gradients_NP, rate, value=-1)


class PackedMomentum(PackedOptimizer):
    """torch.optim.SGD with momentum: g += decay * w; b = momentum * b + g; w -= lr * b. torch begins with b = g, which
    is the same from b = 0."""

    names = ("momentum_buffer",)

    def update(self, weights_NP: torch.Tensor, gradients_NP: torch.Tensor) -> None:
        constants = [(group["lr"], group["weight_decay"], group["momentum"]) for group in self._groups]
        rate, decay, momentum = _columns(constants, weights_NP)
        gradients_NP.addcmul_(weights_NP, decay)
        buffer_NP = self.states["momentum_buffer"].mul_(momentum).add_(gradients_NP)
        weights_NP.addcmul_(buffer_NP, rate, value=-1)


class PackedAdam(PackedOptimizer):
    """torch.optim.Adam (Kingma & Ba 2015, arXiv 1412.6980): g += decay * w; m and v run after g and g^2; then
    w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon), t being each run's own number of steps."""

    names = ("exp_avg", "exp_avg_sq")

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], layout: Layout) -> None:
        super().__init__(optimizers, layout)
        self._taken = [_steps_taken(optimizer) for optimizer in optimizers]  # on the host: reading counts would wait
        # torch counts for each parameter by itself, and a checkpoint's tensors share no memory: one count for each.
        counts = torch.tensor(self._taken, dtype=torch.float32, device=self.states["exp_avg"].device)
        self._counts_NK = counts[:, None].repeat(1, len(parameters_of(optimizers[0])))
        for optimizer, counts_K in zip(optimizers, self._counts_NK, strict=True):
            for parameter, count in zip(parameters_of(optimizer), counts_K, strict=True):
                optimizer.state[parameter]["step"] = count

    def update(self, weights_NP: torch.Tensor, gradients_NP: torch.Tensor) -> None:
        self._counts_NK.add_(1)
        self._taken = [taken + 1 for taken in self._taken]
        constants = [_adam_constants(*each) for each in zip(self._groups, self._taken, strict=True)]
        rate, decay, *rest = _columns(constants, weights_NP)
        take_m, keep_v, take_v, root, epsilon, scaled_rate = rest
        self._decay(weights_NP, gradients_NP, rate, decay)
        m_NP = self.states["exp_avg"].lerp_(gradients_NP, take_m)
        v_NP = self.states["exp_avg_sq"].mul_(keep_v).addcmul_(gradients_NP, gradients_NP * take_v)
        denominator_NP = v_NP.sqrt().div_(root).add_(epsilon)
        weights_NP.sub_((m_NP * scaled_rate).div_(denominator_NP))

    def _decay(
        self, weights_NP: torch.Tensor, gradients_NP: torch.Tensor, rate: torch.Tensor, decay: torch.Tensor
    ) -> None:
        gradients_NP.addcmul_(weights_NP, decay)


class PackedAdamW(PackedAdam):
    """torch.optim.AdamW: Adam with w -= lr * decay * w in place of the term in g (Loshchilov & Hutter 2019, arXiv
    1711.05101)."""

    def _decay(
        self, weights_NP: torch.Tensor, gradients_NP: torch.Tensor, rate: torch.Tensor, decay: torch.Tensor
    ) -> None:
        weights_NP.mul_(1 - rate * decay)


def _adam_constants(group: dict[str, Any], step: int) -> tuple[float, ...]:
    """Learning rate and decay, then what `PackedAdam.update` needs, at the `step`-th step (1 is the first)."""
    rate, (beta1, beta2) = group["lr"], group["betas"]
    root = math.sqrt(1 - beta2**step)
    scaled_rate = rate / (1 - beta1**step)
    return rate, group["weight_decay"], 1 - beta1, beta2, 1 - beta2, root, group["eps"], scaled_rate


def _columns(constants: Sequence[Sequence[float]], like: torch.Tensor) -> torch.Tensor:
    """A column (N, 1) for each constant, from a row of them for each run; all are copied to the device at once."""
    table = torch.tensor(constants, dtype=torch.float64).T.contiguous()[..., None]
    return table.to(like.device, like.dtype, non_blocking=True)


def _kind(optimizer: torch.optim.Optimizer) -> type[PackedOptimizer]:
    if isinstance(optimizer, torch.optim.SGD):
        return PackedMomentum if optimizer.param_groups[0]["momentum"] else PackedSGD
    return PackedAdamW if isinstance(optimizer, torch.optim.AdamW) else PackedAdam


def _state(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, name: str) -> torch.Tensor:
    """A state of a parameter; zero before the first step."""
    state = optimizer.state[parameter].get(name)
    return torch.zeros_like(parameter) if state is None else state


def _steps_taken(optimizer: torch.optim.Optimizer) -> int:
    """The most that any parameter has taken."""
    return max(int(optimizer.state[p].get("step", 0)) for p in parameters_of(optimizer))
