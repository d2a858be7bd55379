"""Items of modular arithmetic as tensors on the training device: enumeration, split, batches.

An item of order 2 is BOS a op b = r EOS; the model reads it without its last token and is scored on the
tokens that follow `=`, result and EOS. There is no data loader: whole tables are tensors. Split and batches
depend on the data seed alone.

Shape suffixes: N items, B rows of a batch, S positions read, T positions scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.models.layers import Prefix
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.vocabulary import Vocabulary

_SPLIT, _EPOCH = 0, 1
"""Separate streams of random numbers for the split and for the order of batches."""


@dataclass(frozen=True)
class Items:
    """Some items of the same or mixed orders, ready for the model."""

    inputs_BS: torch.Tensor
    """What the model reads: each item without its last token, padded to the longest."""
    targets_BT: torch.Tensor
    """The tokens to predict at the positions from `start` on."""
    weights_BT: torch.Tensor | None
    """What each target counts in its item's mean, 0 before the result and at PAD. None: all count alike."""
    start: int
    """The first position whose prediction is scored for some item: that of `=` in the shortest item."""
    prefix: Prefix | None = None
    """The beginnings that the items share."""

    def __len__(self) -> int:
        return self.inputs_BS.shape[0]

    def at(self, rows: torch.Tensor | slice) -> Items:
        """The items of these rows."""
        weights = None if self.weights_BT is None else self.weights_BT[rows]
        prefix = self.prefix and Prefix(self.prefix.tokens, self.prefix.index[rows])
        return Items(self.inputs_BS[rows], self.targets_BT[rows], weights, self.start, prefix)

    def without_prefix(self) -> Items:
        """The same items for a model that must not share beginnings."""
        return Items(self.inputs_BS, self.targets_BT, self.weights_BT, self.start)


def equations(config: ModularArithmeticConfig, order: int) -> NDArray[np.int64]:
    """All items of one order as numbers (N, order + 1), the operands and then the result, in lexical order.

    Division is built by multiplication: for every quotient and every divisor but 0, the dividend is their
    product.
    """
    p = config.modulus
    numbers = np.indices((p,) * order).reshape(order, -1).T.astype(np.int64)
    if config.symmetric:
        numbers = numbers[(np.diff(numbers, axis=1) >= 0).all(axis=1)]
    if config.operator == "/":
        numbers = numbers[(numbers[:, 1:] != 0).all(axis=1)]
        quotient, divisors = numbers[:, :1], numbers[:, 1:]
        dividend = _product(numbers, p)
        return np.concatenate([dividend, divisors, quotient], axis=1)
    if config.operator == "*":
        result = _product(numbers, p)
    elif config.operator == "-":
        result = (2 * numbers[:, :1] - numbers.sum(axis=1, keepdims=True)) % p
    else:
        result = numbers.sum(axis=1, keepdims=True) % p
    return np.concatenate([numbers, result], axis=1)


def tokenize(config: ModularArithmeticConfig, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Token ids (N, 2 order + 3) of items given as numbers (N, order + 1)."""
    vocabulary = Vocabulary(config.modulus, config.operator)
    tokens = np.empty((len(numbers), 2 * numbers.shape[1] + 1), dtype=np.int64)
    tokens[:, 0], tokens[:, -1] = vocabulary.bos, vocabulary.eos
    tokens[:, 1:-1:2] = numbers
    tokens[:, 2:-1:2] = vocabulary.operator
    tokens[:, -3] = vocabulary.equals
    return tokens


def split(config: ModularArithmeticConfig, order: int, data_seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation items of one order as numbers, drawn without replacement from `data_seed`."""
    numbers = equations(config, order)
    rows = np.random.default_rng((data_seed, _SPLIT, order)).permutation(len(numbers))
    train = config.train_items(order)
    return numbers[rows[:train]], numbers[rows[train:]]


def as_items(config: ModularArithmeticConfig, *tables: NDArray[np.int64], batch: int, device: str) -> Items:
    """Items of one or several orders, in the order given.

    Args:
        config: of the run.
        tables: items as numbers (N, order + 1), one table per order.
        batch: how many of them the model is going to see at once; decides whether sharing beginnings pays.
        device: where the tensors go. Beginnings are shared on a CPU only: a GPU waits for launches, not sums.
    """
    tokens = [tokenize(config, table) for table in tables]
    lengths = [each.shape[1] for each in tokens]
    start, width = min(lengths) - 3, max(lengths)
    pad = Vocabulary(config.modulus, config.operator).pad
    padded = np.concatenate(
        [np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=pad) for each in tokens]
    )
    weights = np.zeros((len(padded), width - 1 - start), dtype=np.float32)
    for rows, length in zip(_row_ranges(tables), lengths, strict=True):
        weights[rows, length - 3 - start : length - 1 - start] = 0.5  # the result and EOS
    return Items(
        torch.from_numpy(padded[:, :-1]).contiguous().to(device),
        torch.from_numpy(padded[:, 1 + start :]).contiguous().to(device),
        torch.from_numpy(weights).to(device) if min(lengths) < width else None,
        start,
        _shared_prefix(config, padded, start, batch) if device == "cpu" else None,
    )


class Batches:
    """The stream of training batches: an epoch is a permutation of the items, its last batch may be smaller.

    Where the batch size reaches the number of items, every batch is the whole training set in fixed order.
    """

    def __init__(self, items: Items, batch_size: int, data_seed: int) -> None:
        self.items = items
        self.batch_size = batch_size
        self.data_seed = data_seed
        self._epoch = -1
        self._rows = torch.empty(0, dtype=torch.int64)

    def at(self, position: int, policy: torch.nn.Module | None = None) -> Items:
        """The batch of optimizer step `position`, a pure function of it; `policy` plays no part."""
        if self.batch_size >= len(self.items):
            return self.items
        epoch, index = divmod(position, -(-len(self.items) // self.batch_size))
        if epoch != self._epoch:
            rows = np.random.default_rng((self.data_seed, _EPOCH, epoch)).permutation(len(self.items))
            self._epoch, self._rows = epoch, torch.from_numpy(rows).to(self.items.inputs_BS.device)
        return self.items.at(self._rows[index * self.batch_size : (index + 1) * self.batch_size])


def _shared_prefix(config: ModularArithmeticConfig, padded: NDArray[np.int64], start: int, batch: int) -> Prefix | None:
    """The beginning to share, BOS a op or BOS a op b op: whichever leaves the fewest positions to compute.

    None if computing all its p or p^2 forms apart saves less than a third of the positions, which is what the second,
    small pass costs.
    """
    p, rows = config.modulus, min(batch, len(padded))
    # The last operand of the shortest item must stay outside, so that `start` does.
    saved = {operands: (rows - p**operands) * (2 * operands + 1) for operands in range(1, start // 2)}
    operands = max(saved, key=lambda each: saved[each])
    if 3 * saved[operands] < rows * (padded.shape[1] - 1):
        return None
    numbers = np.indices((p,) * operands).reshape(operands, -1).T
    vocabulary = Vocabulary(p, config.operator)
    tokens = np.empty((len(numbers), 2 * operands + 1), dtype=np.int64)
    tokens[:, 0], tokens[:, 1::2], tokens[:, 2::2] = vocabulary.bos, numbers, vocabulary.operator
    index = padded[:, 1 : 2 * operands : 2] @ p ** np.arange(operands)[::-1]
    return Prefix(torch.from_numpy(tokens), torch.from_numpy(index))


def _row_ranges(tables: tuple[NDArray[np.int64], ...]) -> list[slice]:
    ends = np.cumsum([len(table) for table in tables]).tolist()
    return [slice(end - len(table), end) for end, table in zip(ends, tables, strict=True)]


def _product(numbers: NDArray[np.int64], modulus: int) -> NDArray[np.int64]:
    product: NDArray[np.int64] = numbers.prod(axis=1, keepdims=True) % modulus
    return product
