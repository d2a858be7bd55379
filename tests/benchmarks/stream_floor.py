"""What a perfect model loses on windows of the insert-spaces stream, and one that guesses the letters it should copy.

    python -m tests.benchmarks.stream_floor [--context 64] [--windows 4000]       some seconds

The entropy of the stream, (ln 3 + 2 ln 5) / 8 = .5397 nats a character, is what a model comes to that has seen the text
from its beginning. A window begins anywhere: its reader does not know where in a line it is, nor which word a broken
line began with. Its best prediction is that of the forward algorithm (Rabiner 1989, section III A) over the stream as a
hidden Markov chain, whose states are the places in all 155 lines. A model that knows what lines look like and takes
each letter for one of five has the same chain with all letters made one, and pays ln 5 for each. Both are averaged over
windows of a made-up text, with 95 % t intervals over windows.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.results.statistics import mean_interval
from tests.benchmarks.measure import parser, print_table

ALPHABET = "abcde"
LENGTHS = (1, 2, 3)
LETTER = "x"


@dataclass(frozen=True)
class Chain:
    """A text of independent lines: what each line is, and how probable."""

    lines: list[str]
    probabilities: list[float]

    def losses(self, windows: NDArray[np.uint8], *, begins_with_line: bool) -> NDArray[np.float64]:
        """-ln p of each character of each window (rows) given those before it, for one who knows the chain."""
        symbols = np.frombuffer("".join(self.lines).encode(), np.uint8)
        ends = np.cumsum([len(line) for line in self.lines]) - 1
        begins = ends + 1 - np.array([len(line) for line in self.lines])
        new_line = np.zeros(len(symbols))
        new_line[begins] = self.probabilities
        anywhere = np.repeat(self.probabilities, ends - begins + 1)
        belief = np.tile(new_line if begins_with_line else anywhere / anywhere.sum(), (len(windows), 1))
        losses = np.empty(windows.shape)
        for position in range(windows.shape[1]):
            belief = belief * (symbols == windows[:, position, None])
            seen = belief.sum(axis=1, keepdims=True)
            losses[:, position] = -np.log(seen[:, 0])
            belief /= seen
            ended = belief[:, ends].sum(axis=1, keepdims=True)
            belief[:, ends] = 0
            belief = np.roll(belief, 1, axis=1) + ended * new_line
        return losses


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--context", type=int, default=64)
    arguments.add_argument("--windows", type=int, default=4000)
    given = arguments.parse_args()
    rows = []
    for begins_with_line in (False, True):
        windows = drawn(given.windows, given.context + 1, begins_with_line)
        letters = np.isin(windows, np.frombuffer(ALPHABET.encode(), np.uint8))
        classes = np.where(letters, ord(LETTER), windows).astype(np.uint8)
        perfect = words().losses(windows, begins_with_line=begins_with_line)
        guessing = formats().losses(classes, begins_with_line=begins_with_line) + letters * math.log(len(ALPHABET))
        where = "at a line" if begins_with_line else "anywhere"
        rows.append((where, *(shown(losses[:, 1:].mean(axis=1)) for losses in (perfect, guessing))))
    print_table((f"windows of {given.context} begin", "perfect model, nats a character", "letters guessed"), rows)


def words() -> Chain:
    """All lines of the stream."""
    drawn = ["".join(word) for length in LENGTHS for word in itertools.product(ALPHABET, repeat=length)]
    return Chain([line(word) for word in drawn], [1 / len(LENGTHS) / len(ALPHABET) ** len(word) for word in drawn])


def formats() -> Chain:
    """What lines look like: every letter is the same."""
    return Chain([line(LETTER * length) for length in LENGTHS], [1 / len(LENGTHS)] * len(LENGTHS))


def line(word: str) -> str:
    """`bad: b a d` and its end."""
    return f"{word}: {' '.join(word)}\n"


def drawn(count: int, length: int, begins_with_line: bool) -> NDArray[np.uint8]:
    """Windows of one long text, as bytes."""
    chain, rng = words(), np.random.default_rng(0)
    text = [chain.lines[index] for index in rng.choice(len(chain.lines), 100_000, p=chain.probabilities)]
    symbols = np.frombuffer("".join(text).encode(), np.uint8)
    begins = np.concatenate([[0], np.cumsum([len(each) for each in text])])
    room = len(symbols) - length
    starts = rng.choice(begins[begins <= room], count) if begins_with_line else rng.integers(0, room + 1, count)
    return symbols[starts[:, None] + np.arange(length)]


def shown(losses: NDArray[np.float64]) -> str:
    """Mean and half of the interval."""
    interval = mean_interval(losses.tolist())
    assert interval.mean is not None
    assert interval.high is not None
    return f"{interval.mean:.4f} +- {interval.high - interval.mean:.4f}"


if __name__ == "__main__":
    main()
