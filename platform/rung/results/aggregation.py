"""One number for a configuration from the values of its runs: what a rung compares.

A diverged run is a result, a bad one: by default it counts as the worst value that the metric can take. A failed run
is no result at all and is left out of the number; where half of the runs or more have failed, too few are left to judge
by. How many there were is reported beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rung.results.statistics import aggregate, mean_interval


@dataclass(frozen=True)
class Aggregation:
    """How the runs of a configuration become one value."""

    mode: Literal["min", "max"]
    across_seeds: Literal["mean", "median", "worst", "best"] = "mean"
    diverged: Literal["worst", "ignore"] = "worst"
    """`worst`: a diverged run counts as `worst_value`. `ignore`: it is left out."""
    worst_value: float | None = None
    """The worst value of the metric; None: there is no bound, so one diverged run leaves the configuration none."""

    def value(self, rows: Iterable[Mapping[str, Any]]) -> float | None:
        """The aggregate of rows of the table `runs`; None (worse than any number) when there is no usable value."""
        values = self._values(rows)
        return None if values is None else aggregate(values, self.across_seeds, self.mode)

    def margin(self, rows: Iterable[Mapping[str, Any]], confidence: float | None) -> float | None:
        """Half the width of the Student-t interval around `value(rows)`, which is a mean.

        None where there is no such interval: fewer than two values, or another rule than the mean; and without a
        confidence, which is not asked for then.
        """
        values = self._values(rows)
        if confidence is None or values is None or self.across_seeds != "mean":
            return None
        interval = mean_interval(values, confidence)
        if interval.low is None or interval.high is None:
            return None
        return (interval.high - interval.low) / 2

    def _values(self, rows: Iterable[Mapping[str, Any]]) -> list[float | None] | None:
        """One value per run, None for those that are left out; None altogether where the configuration has no usable
        value."""
        rows = list(rows)
        if too_many_failed(rows):
            return None
        values: list[float | None] = []
        for row in rows:
            if row["status"] != "diverged" or self.diverged == "ignore":
                values.append(row["value"])  # None for a failed or an ignored run, which is then left out
            elif self.worst_value is None:
                return None
            else:
                values.append(self.worst_value)
        return values


def too_many_failed(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether so many runs have failed, half of them or more, that too few are left to judge a configuration by."""
    return sum(1 for row in rows if row["status"] == "failed") * 2 >= max(1, len(rows))
