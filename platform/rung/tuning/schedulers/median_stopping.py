"""The median stopping rule: whoever does worse than the middle of the others did on the way stops."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import ClassVar

from rung.tuning.schedulers.base import Scheduler, at_least, number
from rung.tuning.schedulers.ranking import Mode, Standing, score, unscore
from rung.tuning.schedulers.records import Decision, Reported


class MedianStopping(Scheduler):
    """Decides at once: a configuration stops if its best value so far is strictly worse than the median, over
    the other configurations that have reached this rung, of the running average of each one's values up to it
    (Golovin et al. 2017, Google Vizier, "Median Stopping Rule").

    Two differences: averages are over rungs, the only places where all seeds of a configuration are in, not
    over every step; and the others are all that got to the rung, not only completed ones, or nothing could be
    stopped before the first completion. A best value beats an average of earlier ones easily, so the rule is
    lenient at high rungs. The first rung is the grace period. `reduction_factor` is not used.

    Decisions depend on the order of arrival. A configuration without a usable value always stops.

    Args:
        min_samples: how many others must have reached a rung before anybody with a usable value is stopped
            there.
    """

    name: ClassVar[str] = "median_stopping"

    def __init__(
        self,
        *,
        levels: Sequence[int],
        mode: Mode,
        configurations: Sequence[str],
        reduction_factor: int = 3,
        confidence: float | None = None,
        min_samples: int = 3,
        quantity: str = "mean",
        unit: str = "",
    ) -> None:
        super().__init__(
            levels=levels,
            mode=mode,
            configurations=configurations,
            reduction_factor=reduction_factor,
            confidence=confidence,
            quantity=quantity,
            unit=unit,
        )
        at_least("min_samples", min_samples, 1)
        self.min_samples = min_samples

    def expected_to_continue(self, arriving: float) -> float:
        """All of the first ones, then half: about right at the first rung, too few at later ones."""
        return min(arriving, self.min_samples) + max(0.0, arriving - self.min_samples) / 2

    def _arrive(self, config_id: str, bracket: int, level: int, reported: Reported) -> list[Decision]:
        others = list(self._rungs[bracket, level].decided)
        # statistics.mean is exact: the average of a constant curve is its constant, so that ties stay ties.
        averages = [mean(self._scores(other, bracket, level)) for other in others]
        so_far = [*self._reports(config_id, bracket, level), reported]
        best_so_far = min(so_far, key=lambda report: score(report.value, self.mode))
        best = score(best_so_far.value, self.mode)
        middle = _median(averages) if len(averages) >= self.min_samples else None
        place = Standing(
            rank=1 + sum(average < best for average in averages),
            compared=1 + len(averages),
            keep=0,
            threshold=None if middle is None else unscore(middle, self.mode),
            survives=reported.value is not None and (middle is None or best <= middle),
        )
        reason = self._reason(reported.value, best_so_far.value, place, bracket, level)
        return [self._judged(config_id, bracket, level, reported, place, reason, best_so_far)]

    def _scores(self, config_id: str, bracket: int, level: int) -> list[float]:
        """What this configuration was recorded with, up to this level; less is better."""
        return [score(report.value, self.mode) for report in self._reports(config_id, bracket, level)]

    def _reports(self, config_id: str, bracket: int, level: int) -> list[Reported]:
        rungs = [self._rungs[bracket, reached].decided for reached in self.levels if reached <= level]
        return [Reported(rung[config_id].value, rung[config_id].margin) for rung in rungs if config_id in rung]

    def _reason(self, value: float | None, best: float | None, place: Standing, bracket: int, level: int) -> str:
        where, others = self._where(bracket, level), place.compared - 1
        if value is None or best is None:
            return self._unusable_reason(place, bracket, level)
        so_far = f"best {self.quantity} so far {number(best)} {where}"
        if others < self.min_samples:
            return f"{so_far}; nobody is stopped before {self.min_samples} others have got there, {others} have"
        if place.threshold is None:
            return f"{so_far}; the median of the {others} others has no value, so it goes on"
        verdict = "is not worse than" if place.survives else "is worse than"
        middle = f"{number(place.threshold)}, the median of the running averages of {others} others"
        return f"{so_far} {verdict} {middle}"


def _median(scores: Sequence[float]) -> float:
    ranked = sorted(scores)
    return mean(ranked[(len(ranked) - 1) // 2 : len(ranked) // 2 + 1])
