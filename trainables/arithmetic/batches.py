"""Sequences of unequal lengths as batches: padded, bucketed by length, or packed into rows.

A pass over the data takes each sequence once, in an order that is drawn from (seed, number of the pass). Which lengths
stand together is laid out once, from the lengths alone, so that every pass has the same number of batches and the same
number of positions; each pass draws anew which of the sequences of a length stands where, and the order of batches.

Shape suffixes: N sequences, B rows of a batch, S positions.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.arithmetic.config import Batching
from trainables.arithmetic.layout import Layout
from trainables.arithmetic.sequences import Sequences
from trainables.language.batches import Windows, to_device

_PASS = 3
"""The stream of random numbers that passes are drawn from, apart from others made from the same seed."""


class SequenceStream:
    """The stream of training batches.

    Args:
        sequences: what is trained on.
        batching: how they become batches.
        batch_size: sequences in a batch, on average; of `packed`, rows.
        batch_tokens: of `bucketed`, positions of a batch, in place of `batch_size`.
        context: positions of a row of `packed`.
        only_solutions: whether tokens of the problem are no targets.
        seed: of the order.
        pad: the token that fills rows up.
        device: where the batches go.
    """

    def __init__(
        self,
        sequences: Sequences,
        *,
        batching: Batching,
        batch_size: int,
        context: int,
        only_solutions: bool,
        seed: int,
        batch_tokens: int | None = None,
        pad: int = 0,
        device: str = "cpu",
    ) -> None:
        self.sequences = sequences
        self.layout = Layout.of(sequences.positions, batching, batch_size, context, batch_tokens)
        self.only_solutions = only_solutions
        self.seed = seed
        self.pad = pad
        self.device = device
        self._pass = -1
        self._ranked: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def at(self, position: int, policy: torch.nn.Module | None = None) -> Windows:
        """The batch of optimizer step `position`, a pure function of it; `policy` plays no part."""
        number, index = divmod(position, self.layout.batches)
        if number != self._pass:
            self._begin(number)
        ranks, rows = self.layout.batch(self._order, index)
        return windows(
            self.sequences,
            self._ranked[ranks],
            rows,
            width=self.layout.width,
            only_solutions=self.only_solutions,
            pad=self.pad,
            device=self.device,
        )

    def _begin(self, number: int) -> None:
        draw = np.random.default_rng((self.seed, _PASS, number))
        shuffled = draw.permutation(len(self.sequences))
        if self.layout.is_sorted:
            shuffled = shuffled[np.argsort(self.sequences.positions[shuffled], kind="stable")]
        self._pass, self._ranked, self._order = number, shuffled, draw.permutation(self.layout.rows_to_shuffle)


def windows(
    sequences: Sequences,
    chosen_N: NDArray[np.int64],
    rows_N: NDArray[np.int64] | None = None,
    *,
    width: int | None = None,
    only_solutions: bool,
    pad: int = 0,
    device: str = "cpu",
) -> Windows:
    """Some sequences as one batch; each is read without its last token, and its targets begin with its second.

    Args:
        sequences: what they are taken from.
        chosen_N: which, by index.
        rows_N: the row of each, ascending from 0; those of one row stand one after another. None: each has its own.
        width: positions of a row. None: as many as the longest needs.
        only_solutions: whether tokens of the problem weigh nothing.
        pad: fills rows up, and weighs nothing.
        device: where the batch goes.
    """
    counts_N = sequences.positions[chosen_N]
    if rows_N is None:
        rows_N = np.arange(len(chosen_N))
    width = int(counts_N.max()) if width is None else width
    before_N = np.cumsum(counts_N) - counts_N
    first_N = np.searchsorted(rows_N, rows_N)  # the first sequence of each one's row
    columns_N = before_N - before_N[first_N]
    within = np.arange(int(counts_N.sum())) - np.repeat(before_N, counts_N)
    source = np.repeat(sequences.begins[chosen_N], counts_N) + within
    place = np.repeat(rows_N * width + columns_N, counts_N) + within
    shape = (int(rows_N[-1]) + 1, width)
    inputs, targets = (np.full(shape, pad, dtype=np.int64) for _ in range(2))
    weights = np.zeros(shape, dtype=np.float32)
    inputs.ravel()[place] = sequences.tokens[source]
    targets.ravel()[place] = sequences.tokens[source + 1]
    learnt = within + 1 >= np.repeat(sequences.prompts[chosen_N], counts_N) if only_solutions else 1
    weights.ravel()[place] = learnt
    return Windows(*(to_device(torch.from_numpy(each), device) for each in (inputs, targets, weights)))


def with_rows(batch: Windows, count: int) -> Windows:
    """A batch with at least so many rows: those that are added weigh nothing."""
    missing = count - len(batch)
    if missing <= 0 or batch.weights_BS is None:
        return batch
    inputs_BS, targets_BS = (
        torch.cat([each, each[:1].expand(missing, -1)]) for each in (batch.inputs_BS, batch.targets_BS)
    )
    weights_BS = torch.cat([batch.weights_BS, batch.weights_BS.new_zeros(missing, batch.weights_BS.shape[1])])
    return Windows(inputs_BS, targets_BS, weights_BS)
