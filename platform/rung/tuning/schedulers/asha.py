"""Asynchronous successive halving, in the variant that stops instead of promoting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor
from typing import ClassVar

from rung.tuning.schedulers.base import Scheduler, at_least, number
from rung.tuning.schedulers.ranking import Mode, Standing, share, standing
from rung.tuning.schedulers.records import Decision, Reported


class Asha(Scheduler):
    """Decides at once: a configuration goes on if it is among the best ceil(n / reduction_factor) of the n
    that have reached the rung so far, itself included (Li et al. 2020, arXiv 1810.05934, without promotion of
    the stopped).

    The share is rounded up, as in `SynchronousHalving`: one rule to learn, and the last to arrive is judged
    exactly as there. Rounded down it would cost a little less and lose the best of a small noisy sweep more
    often (with 12 configurations in about every third sweep instead of every fifth; the simulation is among
    the tests).

    Decisions depend on the order of arrival: the first at a rung always goes on, as does each one that is
    better than all before it, so configurations that arrive from worst to best are never stopped, and a good
    one that arrives right after the best is. Whoever has the best value of all at a rung goes on in any
    order. Where the survivors have to be the same on every machine, use `synchronous_halving`. A
    configuration without a usable value always stops, even as the first.

    Args:
        minimum: how many must have reached a rung, the newest included, before anybody with a usable value is
            stopped there. More is safer and dearer; 1 stops from the start.
    """

    name: ClassVar[str] = "asha"

    def __init__(
        self,
        *,
        levels: Sequence[int],
        mode: Mode,
        configurations: Sequence[str],
        reduction_factor: int = 3,
        confidence: float | None = None,
        minimum: int = 1,
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
        at_least("minimum", minimum, 1)
        self.minimum = minimum

    def expected_to_continue(self, arriving: float) -> float:
        """Sum over arrivals: the n-th is equally likely to have any rank among the first n."""
        whole = floor(arriving)
        chances = [self._keep(count) / count for count in range(1, whole + 2)]
        return sum(chances[:whole]) + (arriving - whole) * chances[whole]

    def _keep(self, count: int) -> int:
        return count if count < self.minimum else share(count, self.reduction_factor)

    def _arrive(self, config_id: str, bracket: int, level: int, reported: Reported) -> list[Decision]:
        value = reported.value
        values = [*self._rungs[bracket, level].values(), value]
        place = standing(value, values, self._keep(len(values)), self.mode)
        if len(values) < self.minimum:
            # Everybody with a value goes on: the worst of them is no threshold.
            place = replace(place, threshold=None)
        reason = self._reason(value, place, bracket, level)
        return [self._judged(config_id, bracket, level, reported, place, reason)]

    def _reason(self, value: float | None, place: Standing, bracket: int, level: int) -> str:
        if value is None:
            return self._unusable_reason(place, bracket, level)
        what, where = f"{self.quantity} {number(value)}", self._where(bracket, level)
        if place.compared < self.minimum:
            rank = f"{what} ranks {place.rank} of {place.compared} {where}"
            return f"{rank}; nobody is stopped before {self.minimum} have got there"
        if place.compared == 1:
            return f"{what} is the first {where}: nothing to compare it with yet, so it goes on"
        return self._ranked_reason(value, place, bracket, level)
