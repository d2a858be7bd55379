"""The trainable `arithmetic` on a corpus file and a tokenizer that lie anywhere. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from rung.trainable import Loss, Workload
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.corpus_file import Halves
from trainables.arithmetic.sequences import Sequences
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trainable import Arithmetic
from trainables.language.tokens import Split

if TYPE_CHECKING:
    from torch import nn

    from trainables.language.batches import Windows


class FileArithmetic(Arithmetic):
    """One run on a corpus file.

    Args:
        config: the configuration; what it says about corpus and tokenizer is not looked at.
        seed: of the run.
        device: a torch device name.
        tokenizer: in place of the configuration's.
        halves: in place of the configuration's corpus.
    """

    def __init__(
        self, config: ArithmeticConfig, seed: int, device: str = "cpu", *, tokenizer: Tokenizer, halves: Halves
    ) -> None:
        super().__init__(config, seed, device)
        self._tokenizer, self._halves = tokenizer, halves

    @classmethod
    def workload(cls, config: ArithmeticConfig) -> Workload:
        """Nothing: a configuration does not know the corpus. A run of this class counts its budget in steps."""
        return Workload(parameters=0, tokens_per_step=0, flops_per_step=0.0)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The one that was given."""
        return self._tokenizer

    def sequences(self, split: Split) -> Sequences:
        """All items of a split, however long."""
        return self._halves[split]

    def loss(self, model: nn.Module, batch: Windows) -> Loss:
        """The loss, also as a metric, so that the recorder sees that of every step."""
        loss = super().loss(model, batch)
        return replace(loss, metrics={**loss.metrics, "loss": loss.value})
