"""Which lengths stand together in a batch, from the lengths alone. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.arithmetic.config import Batching


@dataclass(frozen=True)
class Layout:
    """The batches of a pass. Sequences are named by rank: their place in the order by length, or of `padded` in any."""

    batching: Batching
    """How they were laid out."""
    ranks: NDArray[np.int64]
    """(N,): ranks, row after row."""
    ends: NDArray[np.int64]
    """Where each row of `packed`, or each batch of the others, ends among `ranks`."""
    batch_size: int
    """Rows in a batch of `packed`."""
    width: int | None
    """Positions of a row; None: as many as the longest sequence of a batch needs."""
    positions: int
    """Positions of a pass, padding counted; of `padded`, in the mean."""

    @classmethod
    def of(
        cls, lengths: NDArray[np.int64], batching: Batching, batch_size: int, context: int, tokens: int | None = None
    ) -> Layout:
        """The layout of sequences.

        Args:
            lengths: (N,) positions that each needs.
            batching: how they are laid out.
            batch_size: sequences in a batch, on average; of `packed`, rows.
            context: positions of a row of `packed`, and the most that a sequence needs.
            tokens: of `bucketed`, positions of a batch, in place of `batch_size`.
        """
        ordered = np.sort(lengths)
        if batching == "packed":
            ranks, ends = _packed(ordered, context)
            return cls(batching, ranks, ends, batch_size, context, len(ends) * context)
        ranks = np.arange(len(ordered))
        batches = -(-len(ordered) // batch_size) if tokens is None else -(-int(ordered.sum()) // tokens)
        if batching == "padded":
            ends = len(ordered) * np.arange(1, batches + 1) // batches
            mean_longest = _mean_longest(ordered, len(ordered) / batches)
            return cls(batching, ranks, ends, batch_size, None, round(len(ordered) * mean_longest))
        ends = _equal_parts(ordered, min(batches, len(ordered)))
        rows = np.diff(ends, prepend=0)
        return cls(batching, ranks, ends, batch_size, None, int((rows * ordered[ends - 1]).sum()))

    @property
    def is_sorted(self) -> bool:
        """Whether ranks are places in the order by length."""
        return self.batching != "padded"

    @property
    def rows_to_shuffle(self) -> int:
        """How many rows of `packed`, or batches of the others, are put into random order."""
        return len(self.ends)

    @property
    def batches(self) -> int:
        """In a pass."""
        return -(-len(self.ends) // self.batch_size) if self.batching == "packed" else len(self.ends)

    def batch(self, order: NDArray[np.int64], index: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """The ranks in the batch of a number, and the row of each; None: each has its own.

        Args:
            order: a permutation of `rows_to_shuffle`.
            index: the number in the pass.
        """
        if self.batching != "packed":
            return self._of(int(order[index])), None
        rows = [self._of(row) for row in order[index * self.batch_size : (index + 1) * self.batch_size].tolist()]
        return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows])

    def _of(self, row: int) -> NDArray[np.int64]:
        return self.ranks[self.ends[row - 1] if row else 0 : self.ends[row]]


def _mean_longest(ordered: NDArray[np.int64], rows: float) -> float:
    """The mean of the longest of so many sequences, drawn with replacement."""
    share = np.arange(len(ordered) + 1) / len(ordered)
    return float((ordered * np.diff(share**rows)).sum())


def _equal_parts(ordered: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Where each of the parts ends that have about as many positions as each other, and one sequence at least."""
    total = np.cumsum(ordered)
    ends = np.searchsorted(total, total[-1] * np.arange(1, parts + 1) / parts, side="left") + 1
    numbers = np.arange(1, parts + 1)
    ends = np.maximum.accumulate(ends - numbers) + numbers  # each at least one behind the one before
    fitting: NDArray[np.int64] = np.minimum(ends, len(ordered) - parts + numbers)
    return fitting


def _packed(ordered: NDArray[np.int64], context: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of at most `context` positions: the longest sequence left, then again and again the longest that fits.

    Returns:
        Ranks, row after row, and where each row ends among them.
    """
    ends_of = np.searchsorted(ordered, np.arange(context + 2))  # sequences shorter than each length
    first, left = ends_of[:-1].tolist(), np.diff(ends_of).tolist()
    there = sum(1 << length for length, count in enumerate(left) if count)
    """A bit for each length of which there is a sequence left."""
    ranks: list[int] = []
    ends: list[int] = []
    while there:
        room = context
        while fitting := there & ((2 << room) - 1):
            length = fitting.bit_length() - 1
            left[length] -= 1
            ranks.append(first[length] + left[length])
            if not left[length]:
                there ^= 1 << length
            room -= length
        ends.append(len(ranks))
    return np.array(ranks, dtype=np.int64), np.array(ends, dtype=np.int64)
