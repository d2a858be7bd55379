"""What the core asks of a family of models: logits, texts and a reference policy.

Shape suffixes: B rows, S positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Written:
    """A response."""

    tokens: list[int]
    """The new tokens, with the end token as the last if the model came to it."""
    log_probabilities: list[float]
    """Of each token when it was drawn: of the distribution with logits divided by the temperature, before top-k and
    top-p."""
    has_ended: bool
    """Whether the last token is an end token; otherwise the response was cut off."""


class Policy(Protocol):
    """How one family of models is asked; holds no weights."""

    pad: int
    """Token that fills rows up at the right; nothing is read from it."""

    def logits(self, model: nn.Module, tokens_BS: torch.Tensor, first: int) -> torch.Tensor:
        """Logits (B, S - first, V), in fp32 or the precision around, of the tokens after positions first, ..., S - 1.

        One call of the model's forward and nothing else, so that gradients of several workers are averaged. Rows begin
        at position 0; what is filled up at their right changes nothing before it.
        """
        ...

    def write(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        group: int,
        tokens: int,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        seed: int,
        numbers: Sequence[int],
        batch_size: int | None,
    ) -> list[list[Written]]:
        """`group` responses to each prompt, without gradients, the model's mode restored.

        Response g to prompt i draws from a generator made from (seed, numbers[i] * group + g), so that it does not
        depend, up to rounding, on what else is written beside it. A temperature of 0 is greedy.
        """
        ...

    def reference(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """Inside, the model that training began with, frozen: the same model with its adapters off, or the copy that
        it carries along."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of a response, without the end token."""
        ...
