"""What schedulers write down and show: decisions, rungs, brackets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Decision:
    """What was decided about one configuration at one rung, with the numbers that decided it.

    Every field is a plain value, so that a decision survives JSON and Parquet unchanged.
    """

    config_id: str
    """The configuration."""
    bracket: int
    """Its bracket; 0 unless the rule is HyperBand."""
    level: int
    """The rung, in budget units."""
    value: float | None
    """Its aggregate over seeds at this rung; empty if there was no usable one, which counts as the worst."""
    threshold: float | None
    """The worst value that went on; empty if any usable value did."""
    rank: int
    """1 is the best; ties share the best rank."""
    compared: int
    """How many were compared, itself included."""
    decision: Literal["continue", "stop"]
    """Whether it goes on."""
    reason: str
    """One sentence for a human."""
    margin: float | None = None
    """Half width of the value's interval; empty where the rule does not look at it or it is not known."""


class Reported(NamedTuple):
    """What a configuration reports at a rung."""

    value: float | None
    """Its aggregate over seeds; None counts as the worst."""
    margin: float | None = None
    """Half width of the aggregate's interval; None: not known, or not looked at."""


class Bracket(NamedTuple):
    """Configurations that are compared with each other, and where."""

    bracket: int
    levels: tuple[int, ...]
    """Its rungs below the budget, ascending; empty where nobody is ever stopped."""
    configurations: tuple[str, ...]
    """In plan order; empty for an adaptive search, which has no plan."""


class RungRow(NamedTuple):
    """One line of the rung table."""

    bracket: int
    level: int
    reported: int
    """How many have a value here: continued + stopped + waiting."""
    continued: int
    stopped: int
    waiting: int


@dataclass
class Rung:
    """The values of one level of one bracket."""

    decided: dict[str, Decision] = field(default_factory=dict)
    """By configuration, in the order in which decisions fell."""
    waiting: dict[str, Reported] = field(default_factory=dict)
    """What configurations that wait for a decision have reported."""

    def __contains__(self, config_id: object) -> bool:
        return config_id in self.decided or config_id in self.waiting

    def values(self) -> list[float | None]:
        """Every value of the rung, decided or waiting."""
        decided = [decision.value for decision in self.decided.values()]
        return decided + [reported.value for reported in self.waiting.values()]


def usable(value: float | None) -> float | None:
    """`value` as a Python float, or None if it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def as_recorded(decision: Decision) -> Decision:
    """A decision as it was before a table turned its empty cells into NaN and its integers into numpy's."""
    return replace(
        decision,
        bracket=int(decision.bracket),
        level=int(decision.level),
        value=usable(decision.value),
        threshold=usable(decision.threshold),
        rank=int(decision.rank),
        compared=int(decision.compared),
        margin=usable(decision.margin),
    )
