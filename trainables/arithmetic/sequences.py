"""Items as token ids: `<bos>` problem, solution `<eos>`, one after another in one array. Imports no torch.

Shape suffixes: N sequences, T tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError, StorageError
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import foundational_text, one_line, prompt, target
from trainables.language.tokens import TOKEN_TYPE, Split

_ARRAYS = ("tokens", "begins", "lengths", "prompts")


@dataclass(frozen=True)
class Sequences:
    """Some sequences."""

    tokens: NDArray[np.uint16]
    """(T,): token ids, sequence after sequence."""
    begins: NDArray[np.int64]
    """(N,): where each begins."""
    lengths: NDArray[np.int32]
    """(N,): tokens of each, `<bos>` and `<eos>` counted."""
    prompts: NDArray[np.int32]
    """(N,): how many of them are the problem's, `<bos>` counted."""

    def __len__(self) -> int:
        return len(self.begins)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """(N,): positions that a model needs for each: it reads all tokens but the last."""
        return self.lengths.astype(np.int64) - 1

    def take(self, chosen: NDArray[np.integer] | slice) -> Sequences:
        """Some of them, by index."""
        return Sequences(self.tokens, self.begins[chosen], self.lengths[chosen], self.prompts[chosen])

    def of(self, index: int) -> NDArray[np.uint16]:
        """The token ids of one."""
        begin = int(self.begins[index])
        return self.tokens[begin : begin + int(self.lengths[index])]

    def save(self, folder: Path, split: Split) -> None:
        """Writes them into a folder that exists. Raises StorageError."""
        try:
            for name in _ARRAYS:
                np.save(folder / f"{split}-{name}.npy", getattr(self, name), allow_pickle=False)
        except OSError as error:
            raise StorageError(f"cannot write to {folder}: {error.strerror or error}") from error

    @classmethod
    def load(cls, folder: Path, split: Split) -> Sequences:
        """Those of a folder, memory-mapped. Raises StorageError."""
        try:
            arrays = [np.load(folder / f"{split}-{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS]
        except (OSError, ValueError) as error:
            raise StorageError(f"{folder} cannot be read: {error}") from error
        return cls(*arrays)


def pair(expression: str, solution: str, *, format: Format, is_instruction: bool) -> tuple[str, str]:
    """An item as what is given and what is to be written, which follows without anything between them."""
    if format == "v2" or is_instruction:
        return prompt(expression, format), target(solution, format)
    written = one_line(solution)
    return foundational_text(expression, solution, format).removesuffix(written), written


def encoded(tokenizer: Tokenizer, pairs: Iterable[tuple[str, str]]) -> Sequences:
    """Sequences of what is given and what is to be written.

    Raises:
        RungError: there are none, or a text has characters that the tokenizer does not know.
    """
    begin, end = (np.array([token], dtype=TOKEN_TYPE) for token in (tokenizer.begin, tokenizer.end))
    arrays: list[NDArray[np.uint16]] = []
    lengths, prompts = [], []
    for given, written in pairs:
        first, second = tokenizer.encode_array(given), tokenizer.encode_array(written)
        arrays += (begin, first, second, end)
        prompts.append(1 + len(first))
        lengths.append(2 + len(first) + len(second))
    if not lengths:
        raise RungError("the corpus is empty: there is nothing to learn from")
    ends = np.cumsum(lengths, dtype=np.int64)
    return Sequences(
        tokens=np.concatenate(arrays),
        begins=ends - lengths,
        lengths=np.array(lengths, dtype=np.int32),
        prompts=np.array(prompts, dtype=np.int32),
    )


@dataclass(frozen=True)
class Fitting:
    """Sequences that a model has room for."""

    sequences: Sequences
    """Those that fit, in order."""
    left_out: int
    """How many do not."""
    note: str | None
    """What to say about those, None: nothing."""


def fitting(sequences: Sequences, context: int, most_cut: float) -> Fitting:
    """The sequences that fit into `context` positions. None is ever cut off: its end is the answer.

    Raises:
        RungError: more than a share of `most_cut` do not fit.
    """
    positions = sequences.positions
    fits = positions <= context
    left_out = int((~fits).sum())
    if not left_out:
        return Fitting(sequences, 0, None)
    share, longest = left_out / len(sequences), int(positions.max())
    text = (
        f"{left_out:,} of {len(sequences):,} sequences ({share:.2%}) are longer than context ({context:,} tokens): the "
        f"longest has {longest:,}, and 99 % have at most {int(np.ceil(np.quantile(positions, 0.99))):,}"
    )
    if share > most_cut or left_out == len(sequences):
        raise RungError(
            f"{text}. At most {most_cut:.2%} may be left out (most_cut): set context to {longest:,} or so, or corpus."
            "max_depth lower, or allow a greater share; without their ends they would teach no answers"
        )
    return Fitting(sequences.take(np.flatnonzero(fits)), left_out, f"{text}; they are left out")
