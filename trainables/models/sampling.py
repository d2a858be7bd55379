"""Which token comes next, given the logits: greedy, or drawn with temperature, top-k and top-p.

A row's token is a function of its own logits and its own uniform number, so it does not depend on its neighbours.

Shape suffixes: B rows, T tokens to come, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from rung.errors import RungError


@dataclass(frozen=True)
class Sampler:
    """How tokens are chosen.

    Raises:
        RungError: a setting is out of its range.
    """

    temperature: float = 1.0
    """What logits are divided by; 0: the likeliest token, always (greedy)."""
    top_k: int | None = None
    """Only the k likeliest tokens, and those that tie with the last of them; more than there are is all."""
    top_p: float | None = None
    """Of those, the fewest likeliest tokens that have this probability together, and those that tie with the last of
    them (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751)."""
    forbidden: Collection[int] = ()
    """Tokens that are never chosen."""

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise RungError(f"temperature must be 0 (greedy) or more, got {self.temperature:g}")
        if self.top_k is not None and self.top_k < 1:
            raise RungError(f"top_k must be at least 1, got {self.top_k}; leave it out to draw from all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RungError(f"top_p must lie in (0, 1], got {self.top_p:g}; leave it out to draw from all tokens")

    def choose(self, logits_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
        """The next token (B,) int64 of each row; `uniform_B` in [0, 1) decides where more than one is possible."""
        logits_BV = logits_BV.float()
        if self.forbidden:
            forbidden = torch.tensor(sorted(self.forbidden), device=logits_BV.device)
            logits_BV = logits_BV.index_fill(1, forbidden, -math.inf)
        if self.temperature == 0:
            return logits_BV.argmax(dim=-1)
        below_BV = logits_BV - logits_BV.amax(dim=-1, keepdim=True)  # so that no temperature is too low to divide by
        logits_BV = self._likeliest(below_BV / self.temperature)
        # The last sum is 1 within rounding only. In fp64 the product stays below it, so a token is always found, but
        # for logits that are NaN: any token will do there.
        cumulative_BV = logits_BV.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        found_B1 = torch.searchsorted(cumulative_BV, uniform_B[:, None] * cumulative_BV[:, -1:], right=True)
        return found_B1[:, 0].clamp(max=logits_BV.shape[-1] - 1)

    def log_probabilities(self, logits_BV: torch.Tensor, chosen_B: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B,) fp32 of tokens, before top-k, top-p and `forbidden` take any away.

        At the temperature that is drawn with; at 1 where tokens are chosen greedily.
        """
        below_BV = logits_BV.float() - logits_BV.float().amax(dim=-1, keepdim=True)
        below_BV = below_BV / (self.temperature or 1.0)
        chosen: torch.Tensor = below_BV.gather(1, chosen_B[:, None])[:, 0] - below_BV.logsumexp(dim=-1)
        return chosen

    def _likeliest(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """The logits, -inf where top-k or top-p rules a token out."""
        if self.top_k is not None and self.top_k < logits_BV.shape[-1]:
            smallest_B1 = logits_BV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < smallest_B1, -math.inf)
        if self.top_p is not None and self.top_p < 1:
            falling_BV = logits_BV.sort(dim=-1, descending=True).values
            probability_BV = falling_BV.softmax(dim=-1)
            is_kept_BV = probability_BV.cumsum(dim=-1) - probability_BV < self.top_p
            smallest_B1 = falling_BV.masked_fill(~is_kept_BV, math.inf).amin(dim=-1, keepdim=True)
            logits_BV = logits_BV.masked_fill(logits_BV < smallest_B1, -math.inf)
        return logits_BV


def uniform_numbers(seed: int, rows: Iterable[int], count: int) -> torch.Tensor:
    """(B, T) fp32 in [0, 1): for each row number the first `count` draws of a generator made from (seed, row)."""
    drawn = []
    for row in rows:
        words = np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> 1))
        drawn.append(torch.rand(count, generator=generator))
    return torch.stack(drawn)
