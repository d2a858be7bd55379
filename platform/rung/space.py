"""The grammar of a search space, and how it is expanded to points.

    space:
      model.kind: [gpt, lstm]                                  # a list is a grid
      model.heads: {grid: [2, 4], when: {model.kind: gpt}}     # only where the condition holds
      optimizer.learning_rate: {loguniform: [1e-4, 1e-2]}      # drawn
    samples: 8                                                 # draws of everything that is drawn

Each key is a dotted path into the trainable's configuration (`model: {kind: ...}` is the same as `model.kind: ...`).
The words are Ray Tune's and mean what they mean there:

    grid, choice                 [value, ...]       every value; one of them
    uniform, loguniform          [low, high]
    quniform, qloguniform        [low, high, q]     rounded to multiples of q; low and high must be such
    randint, lograndint          [low, high]        whole numbers, without high
    qrandint, qlograndint        [low, high, q]     multiples of q, with high (without it for q = 1, as in Tune)
    randn, qrandn                [mean, sd], [mean, sd, q]

`when` maps paths to a value or a list of values. Where it does not hold, the dimension keeps the value of `base`, and
configurations that become equal by that are one. A dimension that is `null` is not swept.

**Draws are common to all grid points**: sample 3 has the same learning rate in every cell of the grid, so cells are
compared at equal draws (common random numbers), which takes the luck of the draw out of the comparison. A draw is a
function of (draw_seed, path, sample) alone: another dimension, another grid value or more samples change none of it.

Left out: dimensions computed from others; reading a file (`space_reader.py`); whatever needs the trainable
(`configuration.py`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Any, Literal

from rung.explain import show

Condition = tuple[str, tuple[Any, ...]]
"""A path and the values it may have."""


@dataclass(frozen=True)
class Word:
    """One way to say what a dimension may be."""

    name: str
    kind: Literal["values", "float", "integer", "normal"]
    log: bool = False
    """Uniform in the logarithm."""
    quantised: bool = False
    """Rounded to multiples of q."""

    @property
    def form(self) -> str:
        """How it is written: `loguniform: [low, high]`."""
        if self.kind == "values":
            return f"{self.name}: [value, ...]"
        bounds = "mean, sd" if self.kind == "normal" else "low, high"
        return f"{self.name}: [{bounds}{', q' if self.quantised else ''}]"


WORDS: dict[str, Word] = {
    word.name: word
    for word in (
        Word("grid", "values"),
        Word("choice", "values"),
        Word("uniform", "float"),
        Word("loguniform", "float", log=True),
        Word("quniform", "float", quantised=True),
        Word("qloguniform", "float", log=True, quantised=True),
        Word("randint", "integer"),
        Word("lograndint", "integer", log=True),
        Word("qrandint", "integer", quantised=True),
        Word("qlograndint", "integer", log=True, quantised=True),
        Word("randn", "normal"),
        Word("qrandn", "normal", quantised=True),
    )
}


@dataclass(frozen=True)
class Distribution:
    """What a searcher may choose for a dimension, in plain numbers; both bounds belong to it."""

    path: str
    kind: Literal["categorical", "float", "integer"]
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    """Multiples of it only. A searcher that cannot have both `log` and `step` leaves it out and calls `snap`."""
    log: bool = False
    when: tuple[Condition, ...] = ()
    """Where any of these does not hold, the value is ignored."""

    def snap(self, value: float) -> float:
        """`value` rounded to `step`, inside the bounds."""
        if self.step is not None:
            value = min(max(round(value / self.step) * self.step, self.low), self.high)
        return round(value) if self.kind == "integer" else _rounded(value)


@dataclass(frozen=True)
class Dimension:
    """One swept path."""

    path: str
    word: str
    arguments: tuple[Any, ...]
    """The values, or bounds and q."""
    when: tuple[Condition, ...] = ()
    """All must hold for the dimension to be swept."""

    @property
    def is_grid(self) -> bool:
        """Whether every value is taken; the others are drawn."""
        return self.word == "grid"

    @property
    def specification(self) -> dict[str, Any]:
        """What `read_space` reads back to this dimension."""
        conditions = {path: list(wanted) if len(wanted) > 1 else wanted[0] for path, wanted in self.when}
        return {self.word: list(self.arguments)} | ({"when": conditions} if conditions else {})

    @property
    def text(self) -> str:
        """For people: `loguniform 0.0001 .. 0.01`, `gpt, lstm`, with the condition."""
        word = WORDS[self.word]
        shown = [argument if isinstance(argument, str) else show(argument) for argument in self.arguments]
        if word.kind == "values":
            text = ", ".join(shown) if self.is_grid else f"{self.word} of {', '.join(shown)}"
        else:
            between = " ± " if word.kind == "normal" else " .. "
            text = f"{self.word} {between.join(shown[:2])}" + (f" by {shown[2]}" if word.quantised else "")
        conditions = [f"{path} is {' or '.join(map(show, wanted))}" for path, wanted in self.when]
        return f"{text} where {' and '.join(conditions)}" if conditions else text

    def drawn(self, draw_seed: int, sample: int) -> Any:
        """The value of a sample. Floats keep 12 digits, so that the last bit of a machine's `exp` changes no id."""
        chance = _chance(draw_seed, self.path, sample)
        word = WORDS[self.word]
        if word.kind == "values":
            return self.arguments[int(chance * len(self.arguments))]
        if word.kind == "normal":
            mean, deviation = self.arguments[:2]
            value = mean + deviation * NormalDist().inv_cdf(chance)
            return _rounded(round(value / self.arguments[2]) * self.arguments[2] if word.quantised else value)
        if word.kind == "integer":
            low, beyond, unit = self._whole_range()
            value = _between(low, beyond, chance, log=word.log)
            return min(max(math.floor(value), low), beyond - 1) * unit
        low, high = self.arguments[:2]
        value = _between(low, high, chance, log=word.log)
        if word.quantised:
            value = round(value / self.arguments[2]) * self.arguments[2]
        return min(max(_rounded(value), float(low)), float(high))

    def distribution(self) -> Distribution:
        """What an adaptive searcher may choose.

        Raises:
            ValueError: a grid or a normal distribution, which a searcher has no use for.
        """
        word = WORDS[self.word]
        if self.is_grid or word.kind == "normal":
            raise ValueError(f"{self.word} cannot be searched adaptively")
        if word.kind == "values":
            return Distribution(self.path, "categorical", choices=self.arguments, when=self.when)
        step = self.arguments[2] if word.quantised else None
        low, high = self.arguments[:2]
        if word.kind == "integer":
            first, beyond, unit = self._whole_range()
            low, high = first * unit, (beyond - 1) * unit
        kind: Literal["float", "integer"] = "float" if word.kind == "float" else "integer"
        return Distribution(self.path, kind, low=low, high=high, step=step, log=word.log, when=self.when)

    def _whole_range(self) -> tuple[int, int, int]:
        """First, one past the last, unit: the values are unit times each whole number from first on."""
        low, high, unit = (*self.arguments, 1)[:3]
        return -(-low // unit), high if unit == 1 else high // unit + 1, unit


def _chance(draw_seed: int, path: str, sample: int) -> float:
    """A number strictly between 0 and 1: 52 bits of a hash, which no library can change under us."""
    digest = hashlib.sha256(f"{draw_seed}\n{path}\n{sample}".encode()).digest()
    return float(((int.from_bytes(digest[:8], "big") >> 12) + 0.5) * 2.0**-52)


def _between(low: float, high: float, chance: float, *, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + (math.log(high) - math.log(low)) * chance)
    return low + (high - low) * chance


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


# Expanding.


@dataclass(frozen=True)
class Point:
    """One combination of a space."""

    values: Mapping[str, Any]
    """The value of every dimension that is swept here."""
    sample: int
    """Which draw, from 0; 0 where nothing is drawn."""


def combinations(dimensions: Sequence[Dimension], samples: int) -> int:
    """How many points `expand` yields, before equal configurations become one."""
    cells = math.prod(len(dimension.arguments) for dimension in dimensions if dimension.is_grid)
    return cells * (1 if all(dimension.is_grid for dimension in dimensions) else samples)


def expand(
    dimensions: Sequence[Dimension], samples: int, draw_seed: int, base_value: Callable[[str], Any]
) -> Iterator[Point]:
    """Every point, in the order of nested loops: the first dimension changes slowest, the sample fastest.

    Args:
        dimensions: as `read_space` gave them.
        samples: how many draws of the dimensions that are drawn.
        draw_seed: what the draws depend on beside path and sample.
        base_value: the value of a path in the base configuration, which conditions may look at.
    """
    grids = [dimension for dimension in dimensions if dimension.is_grid]
    drawn = [dimension for dimension in dimensions if not dimension.is_grid]
    draws = [
        {dimension.path: dimension.drawn(draw_seed, sample) for dimension in drawn}
        for sample in range(samples if drawn else 1)
    ]
    ordered, _ = in_order(dimensions)
    for cell in product(*(dimension.arguments for dimension in grids)):
        chosen = dict(zip((dimension.path for dimension in grids), cell, strict=True))
        for sample, draw in enumerate(draws):
            yield Point(active(ordered, chosen | draw, base_value), sample)


def active(ordered: Sequence[Dimension], values: Mapping[str, Any], base_value: Callable[[str], Any]) -> dict[str, Any]:
    """The values of those dimensions whose conditions hold; a condition on an inactive one sees the base value.

    `ordered` is as `in_order` gave it.
    """
    kept: dict[str, Any] = {}
    for dimension in ordered:
        conditions = ((kept.get(path, base_value(path)), wanted) for path, wanted in dimension.when)
        if all(is_among(value, wanted) for value, wanted in conditions):
            kept[dimension.path] = values[dimension.path]
    return kept


def is_among(value: Any, values: Sequence[Any]) -> bool:
    """Whether a value is in a list, where 1 and 1.0 are equal but 1 and true are not."""
    plain = list(value) if isinstance(value, tuple) else value
    return any(plain == other and isinstance(plain, bool) == isinstance(other, bool) for other in values)


def in_order(dimensions: Sequence[Dimension]) -> tuple[list[Dimension], list[Dimension]]:
    """Dimensions so that each comes after those its conditions look at; and those whose conditions form a circle."""
    swept = {dimension.path for dimension in dimensions}
    ordered: list[Dimension] = []
    left = list(dimensions)
    while left:
        missing = swept - {dimension.path for dimension in ordered}
        ready = [dimension for dimension in left if not any(path in missing for path, _ in dimension.when)]
        if not ready:
            break
        ordered += ready
        left = [dimension for dimension in left if dimension not in ready]
    return ordered, left
