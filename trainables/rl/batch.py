"""What one optimizer step learns from: responses with their advantages, and what each token counts.

Rows are filled up at the right: prompt, response, padding; positions begin at 0. Target t of a row is its token
`first` + 1 + t, where `first` is the last position of the shortest prompt. Every way to aggregate the terms of single
tokens is a weight that all tokens of a response share, so a loss is a sum over rows and can be computed in parts.

Shape suffixes: B rows, S positions, T targets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch


@dataclass(frozen=True)
class RolloutBatch:
    """What one optimizer step learns from, or a part of it."""

    tokens_BS: torch.Tensor
    """Prompts and responses, int64."""
    prompts: tuple[int, ...]
    """Tokens of the prompt of each row."""
    lengths: tuple[int, ...]
    """Tokens of prompt and response of each row; 0: the row counts nothing."""
    weights_B: torch.Tensor
    """What each token of a response counts in the loss."""
    shares_B: torch.Tensor
    """What each token of a response counts in metrics: one part of all tokens computed."""
    advantages_B: torch.Tensor
    written_BS: torch.Tensor
    """Log-probability of each token when it was drawn; 0 for prompts and padding."""
    reference_BS: torch.Tensor | None
    """Log-probability of each token under the reference policy, likewise; None where nobody asks."""
    is_on_policy: bool
    """Whether the policy is still the one that wrote them, because the rollout serves one step only."""
    tokens: int
    """Tokens of prompts and responses that this stands for, whether they are computed or not."""
    figures: Mapping[str, torch.Tensor]
    """Metrics of the whole rollout, fp32 scalars."""

    @property
    def first(self) -> int:
        """The position whose next token is target 0."""
        return min(self.prompts) - 1

    @property
    def inputs_BS(self) -> torch.Tensor:
        """What the model reads: all tokens but the last."""
        return self.tokens_BS[:, :-1]

    @property
    def targets_BT(self) -> torch.Tensor:
        """The token after each position from `first` on."""
        return self.tokens_BS[:, self.first + 1 :]

    def of_targets(self, values_BS: torch.Tensor) -> torch.Tensor:
        """Values of tokens, (B, T) of the targets."""
        return values_BS[:, self.first + 1 :]

    @property
    def is_response_BT(self) -> torch.Tensor:
        """Which targets belong to responses."""
        columns_T = torch.arange(self.first + 1, self.tokens_BS.shape[1], device=self.tokens_BS.device)
        prompts_B1, lengths_B1 = (
            torch.tensor(each, device=columns_T.device)[:, None] for each in (self.prompts, self.lengths)
        )
        return (columns_T >= prompts_B1) & (columns_T < lengths_B1)

    def parts(self, count: int) -> list[tuple[RolloutBatch, float]]:
        """Rows in `count` parts of about as many tokens, each with the fraction 1 / count, see `Trainable.parts`."""
        whole = self._filled_up(count)
        cuts = _cuts(whole.lengths, count)
        tokens = [self.tokens * part // count for part in range(count + 1)]
        return [
            (replace(whole.rows(range(begin, end), times=count), tokens=after - before), 1 / count)
            for (begin, end), (before, after) in zip(pairwise(cuts), pairwise(tokens), strict=True)
        ]

    def rows(self, chosen: Sequence[int], times: float = 1.0) -> RolloutBatch:
        """Some rows, with weights multiplied."""
        index = list(chosen)
        width = max(max(self.lengths[row], self.prompts[row] + 1) for row in index)
        return replace(
            self,
            tokens_BS=self.tokens_BS[index, :width],
            prompts=tuple(self.prompts[row] for row in index),
            lengths=tuple(self.lengths[row] for row in index),
            weights_B=self.weights_B[index] * times,
            shares_B=self.shares_B[index] * times,
            advantages_B=self.advantages_B[index],
            written_BS=self.written_BS[index, :width],
            reference_BS=None if self.reference_BS is None else self.reference_BS[index, :width],
        )

    def _filled_up(self, count: int) -> RolloutBatch:
        """With so many rows at least: the first one is repeated, counting nothing."""
        present = len(self.lengths)
        if present >= count:
            return self
        more = self.rows([*range(present), *[0] * (count - present)])
        keeps = torch.arange(count, device=self.weights_B.device) < present
        return replace(
            more,
            lengths=(*self.lengths, *[0] * (count - present)),
            weights_B=more.weights_B * keeps,
            shares_B=more.shares_B * keeps,
        )


def _cuts(lengths: Sequence[int], count: int) -> list[int]:
    """Where `count` parts of rows begin, and where the last ends: none is empty, and all have about as many tokens."""
    before, cuts = list(accumulate(lengths, initial=0)), [0]
    for part in range(1, count):
        cut = bisect_left(before, before[-1] * part / count)
        cuts.append(min(max(cut, cuts[-1] + 1), len(lengths) - count + part))
    return [*cuts, len(lengths)]
