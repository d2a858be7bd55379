"""How many runs of a configuration reached the target that the study set them: a rate, where a mean misleads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rung.results.statistics import wilson_interval


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """Runs that reached the study's target, of those that could show it.

    A run that completed or diverged could; one that the scheduler stopped, that failed or that still runs could not.
    """

    reached: int
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The rate's 95 % Wilson interval; None for no run."""
        return wilson_interval(self.reached, self.n) if self.n else None

    def as_row(self) -> dict[str, object]:
        """`reached_target`, of `could_reach_target`, and the ends of the rate's interval."""
        low, high = self.interval or (None, None)
        return {
            "reached_target": self.reached,
            "could_reach_target": self.n,
            "reached_target_low": low,
            "reached_target_high": high,
        }

    @property
    def text(self) -> str:
        """`3/4 [0.30, 0.95]`."""
        return f"{self.reached}/{self.n} [{self.interval[0]:.2f}, {self.interval[1]:.2f}]" if self.interval else "0/0"


def success_rate(study: Mapping[str, Any], runs: Iterable[Mapping[str, Any]]) -> SuccessRate | None:
    """The rate over rows of the table `runs`; None for a study without a target."""
    if not study["budget"].get("target"):
        return None
    could = [run for run in runs if run["status"] in ("completed", "diverged")]
    return SuccessRate(sum(run["ended_by"] == "target" for run in could), len(could))
