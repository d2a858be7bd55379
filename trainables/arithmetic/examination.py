"""How well a model predicts the solutions of a fixed set of items, without generating them.

Shape suffixes: B rows, S positions, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainables.arithmetic.batches import windows
from trainables.arithmetic.sequences import Sequences, fitting
from trainables.language.batches import Windows
from trainables.language.losses import token_losses


@dataclass(frozen=True)
class _Chunk:
    """Some items of about the same length."""

    windows: Windows
    """Weighted by what counts in the loss."""
    is_solution_BS: torch.Tensor
    """Which targets are the solution's, bool."""


class Examination:
    """Some items that are evaluated again and again.

    Args:
        sequences: the items. Those longer than `context` have no loss, and count as wrong.
        context: positions of the model.
        only_solutions: whether the loss is that of the solutions alone.
        batch_size: items at once.
        device: of the model.
    """

    def __init__(
        self, sequences: Sequences, *, context: int, only_solutions: bool, batch_size: int, device: str = "cpu"
    ) -> None:
        fits = fitting(sequences, context, 1.0)
        self.items = len(sequences)
        self.sequences = fits.sequences
        """Those that fit."""
        order = np.argsort(self.sequences.positions, kind="stable")
        self._chunks = [
            self._chunk(order[begin : begin + batch_size], only_solutions, device)
            for begin in range(0, len(order), batch_size)
        ]

    def _chunk(self, chosen: NDArray[np.int64], only_solutions: bool, device: str) -> _Chunk:
        solutions = windows(self.sequences, chosen, only_solutions=True, device=device)
        assert solutions.weights_BS is not None
        is_solution_BS = solutions.weights_BS > 0
        if not only_solutions:
            solutions = windows(self.sequences, chosen, only_solutions=False, device=device)
        return _Chunk(solutions, is_solution_BS)

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """`validation/loss`, `validation/token_accuracy` and `validation/trace_accuracy` of a model as it is."""
        loss, weight, right_tokens, tokens, right = (0.0,) * 5
        for chunk in self._chunks:
            targets_BS, weights_BS = chunk.windows.targets_BS, chunk.windows.weights_BS
            assert weights_BS is not None
            logits_BSV = model(chunk.windows.inputs_BS)
            loss += (token_losses(logits_BSV, targets_BS).double() * weights_BS).sum().item()
            weight += weights_BS.double().sum().item()
            is_wrong_BS = (logits_BSV.argmax(-1) != targets_BS) & chunk.is_solution_BS
            tokens += chunk.is_solution_BS.sum().item()
            right_tokens += (chunk.is_solution_BS & ~is_wrong_BS).sum().item()
            right += (~is_wrong_BS.any(-1)).sum().item()
        accuracies = {
            "validation/token_accuracy": right_tokens / tokens,
            "validation/trace_accuracy": right / self.items,
        }
        mean = loss / weight
        if not math.isfinite(mean):  # such a model predicts nothing
            accuracies = dict.fromkeys(accuracies, math.nan)
        return {"validation/loss": mean, **accuracies}
