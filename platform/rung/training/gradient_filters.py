"""Filters on the gradient, between the backward pass and clipping: Grokfast (Lee et al. 2024, arXiv 2405.20233).

Before clipping, because `gradient_clip` promises to bound what the optimizer gets, and a filter multiplies that by up
to 1 + amplification; and because the means are then those of the gradient itself, as in the paper, which does not clip.
A filter works on each tensor by itself, element by element, so it does not matter how runs are stacked or sharded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch

from rung.settings import GrokfastConfig

Gradients = Iterable[torch.Tensor | None]
"""Of a model's trainable parameters, always in the same order; None where a parameter took no part in the loss."""


class GradientFilter(Protocol):
    """Changes gradients in place, and remembers what it must."""

    def apply(self, gradients: Gradients) -> None:
        """Filters the gradients of one step."""

    def state(self) -> dict[str, torch.Tensor]:
        """What it remembers, by name; the tensors are its own, not copies."""

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from a `state`, whose tensors it takes over."""


class NoFilter:
    """Leaves gradients as they are, and does not even look at them."""

    def apply(self, gradients: Gradients) -> None:
        """Nothing."""

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing."""


class Grokfast(ABC):
    """g += amplification * (a mean of g over the last steps), from step `start` on (0 is the first)."""

    def __init__(self, config: GrokfastConfig) -> None:
        self._config = config
        self._steps = 0

    def apply(self, gradients: Gradients) -> None:
        """Filters the gradients of one step."""
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                mean = self._mean(index, gradient)
                if mean is not None and self._steps >= self._config.start:
                    gradient.add_(mean, alpha=self._config.amplification)
        self._steps += 1

    def state(self) -> dict[str, torch.Tensor]:
        """Steps, and what derived classes add."""
        return {"steps": torch.tensor(self._steps)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from a state."""
        self._steps = int(state["steps"].item())

    @abstractmethod
    def _mean(self, index: int, gradient: torch.Tensor) -> torch.Tensor | None:
        """The mean with this gradient of parameter `index` in it; None as long as there is none."""


class GrokfastEMA(Grokfast):
    """With the mean m = alpha * m + (1 - alpha) * g, and the first gradient as the first m."""

    def __init__(self, config: GrokfastConfig) -> None:
        super().__init__(config)
        self._means: dict[int, torch.Tensor] = {}

    def _mean(self, index: int, gradient: torch.Tensor) -> torch.Tensor:
        if index not in self._means:
            self._means[index] = gradient.clone()
        return self._means[index].mul_(self._config.alpha).add_(gradient, alpha=1 - self._config.alpha)

    def state(self) -> dict[str, torch.Tensor]:
        """Steps and means."""
        return super().state() | {f"mean/{index}": mean for index, mean in self._means.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from a state."""
        super().load_state(state)
        self._means = _numbered(state, "mean")


class GrokfastMA(Grokfast):
    """With the mean of the last `window` gradients, this one included, once there were as many.

    Their sum goes along from step to step, since adding up the whole window would cost a small model as much as a
    quarter of its step; it is made anew whenever the ring of gradients starts over, so that rounding does not pile up.
    """

    def __init__(self, config: GrokfastConfig) -> None:
        super().__init__(config)
        self._recent: dict[int, torch.Tensor] = {}
        """For each parameter a ring of gradients (window, *shape), zero where there was none yet."""
        self._sums: dict[int, torch.Tensor] = {}
        self._counts: dict[int, int] = {}
        """Gradients that each parameter has had."""

    def _mean(self, index: int, gradient: torch.Tensor) -> torch.Tensor | None:
        window = self._config.window
        if index not in self._recent:
            self._recent[index] = gradient.new_zeros(window, *gradient.shape)
            self._sums[index], self._counts[index] = torch.zeros_like(gradient), 0
        recent, total = self._recent[index], self._sums[index]
        oldest = recent[self._counts[index] % window]
        total.add_(gradient).sub_(oldest)
        oldest.copy_(gradient)
        self._counts[index] += 1
        if self._counts[index] % window == 0:
            torch.sum(recent, dim=0, out=total)
        return total / window if self._counts[index] >= window else None

    def state(self) -> dict[str, torch.Tensor]:
        """Steps, rings, sums and counts."""
        state = super().state()
        for index, recent in self._recent.items():
            state[f"recent/{index}"], state[f"sum/{index}"] = recent, self._sums[index]
            state[f"count/{index}"] = torch.tensor(self._counts[index])
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from a state."""
        super().load_state(state)
        self._recent, self._sums = _numbered(state, "recent"), _numbered(state, "sum")
        self._counts = {index: int(count.item()) for index, count in _numbered(state, "count").items()}


def build_gradient_filter(config: GrokfastConfig) -> GradientFilter:
    """The filter of a configuration, with nothing remembered yet."""
    if config.kind == "none":
        return NoFilter()
    return GrokfastEMA(config) if config.kind == "ema" else GrokfastMA(config)


def _numbered(state: Mapping[str, torch.Tensor], name: str) -> dict[int, torch.Tensor]:
    """The tensors `<name>/<index>` of a state, by index."""
    parts = (key.split("/") for key in state if "/" in key)
    return {int(index): state[f"{first}/{index}"] for first, index in parts if first == name}
