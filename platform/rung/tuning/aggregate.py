"""One number for a configuration from the values of its runs: what a rung compares.

A diverged run is a result, a bad one: by default it counts as the worst value that the metric can take. A failed run
is no result at all and is left out of the number; how many there were is reported beside it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Aggregation:
    """How the runs of a configuration become one value."""

    mode: Literal["min", "max"]
    across_seeds: Literal["mean", "median", "worst", "best"] = "mean"
    diverged: Literal["worst", "ignore"] = "worst"
    """`worst`: a diverged run counts as `worst_value`. `ignore`: it is left out."""
    worst_value: float | None = None
    """The worst value of the metric; None: there is no bound, so one diverged run leaves the configuration none."""

    def value(self, rows: Iterable[Mapping[str, object]]) -> float | None:
        """The aggregate of rows of the table `runs`; None (worse than any number) when there is no usable value."""
        values: list[float] = []
        for row in rows:
            if row["status"] == "failed" or (row["status"] == "diverged" and self.diverged == "ignore"):
                continue
            value = self.worst_value if row["status"] == "diverged" else row["value"]
            if not isinstance(value, int | float) or not math.isfinite(value):
                return None
            values.append(float(value))
        return self._combine(values) if values else None

    def _combine(self, values: list[float]) -> float:
        if self.across_seeds == "mean":
            return math.fsum(values) / len(values)
        if self.across_seeds == "median":
            return statistics.median(values)
        take_largest = (self.across_seeds == "best") == (self.mode == "max")
        return max(values) if take_largest else min(values)
