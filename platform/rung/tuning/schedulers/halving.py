"""Synchronous successive halving: a rung is decided when everybody has got there, by the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rung.tuning.schedulers.base import Scheduler, number
from rung.tuning.schedulers.ranking import Mode, Standing, share, standing
from rung.tuning.schedulers.records import Decision, Reported


class SynchronousHalving(Scheduler):
    """Nobody moves until every configuration that is still alive has reported the rung or been withdrawn;
    then the best ceil(n / reduction_factor) of the n values go on (Jamieson & Talwalkar 2016, arXiv
    1502.07943).

    The numbers alone decide: who ties with the last survivor survives too, so neither the order of arrival
    nor that of the plan matters, and an interrupted sweep keeps the same survivors. A configuration without a
    usable value counts among the n and stops; one that was withdrawn before it got to the rung is not among
    them.

    Configurations that are added to a study later are compared with every value of the rung, those of earlier
    decisions included; earlier decisions stand.

    Raises:
        ValueError: no configurations, as for an adaptive search: it cannot be known when a rung is full.
    """

    name: ClassVar[str] = "synchronous_halving"

    def __init__(
        self,
        *,
        levels: Sequence[int],
        mode: Mode,
        configurations: Sequence[str],
        reduction_factor: int = 3,
        confidence: float | None = None,
        quantity: str = "mean",
        unit: str = "",
    ) -> None:
        if not configurations:
            raise ValueError(
                f"scheduler {self.name!r} must know all configurations beforehand, because a rung waits for "
                "all of them; for an adaptive search take 'asha'"
            )
        super().__init__(
            levels=levels,
            mode=mode,
            configurations=configurations,
            reduction_factor=reduction_factor,
            confidence=confidence,
            quantity=quantity,
            unit=unit,
        )

    def expected_to_continue(self, arriving: float) -> float:
        return float(share(round(arriving), self.reduction_factor))

    def _arrive(self, config_id: str, bracket: int, level: int, reported: Reported) -> list[Decision]:
        self._rungs[bracket, level].waiting[config_id] = reported
        return self._settle()

    def _leave(self) -> list[Decision]:
        return self._settle()

    def _settle(self) -> list[Decision]:
        """Decide every rung that is full, low ones first: their stops may fill a higher one."""
        decisions = []
        for bracket, levels, members in self._brackets:
            for level in levels:
                waiting = self._rungs[bracket, level].waiting
                if waiting and not any(self._is_awaited(member, bracket, level) for member in members):
                    decisions += self._decide(bracket, level)
        return decisions

    def _is_awaited(self, config_id: str, bracket: int, level: int) -> bool:
        """Whether this configuration can still report at this level: it is alive and has not got that far."""
        if config_id in self._withdrawn or config_id in self._stopped:
            return False
        levels = self._brackets[bracket].levels
        # Higher rungs count too, or a lost row of this one would make everybody wait for ever.
        return not any(config_id in self._rungs[bracket, reached] for reached in levels if reached >= level)

    def _decide(self, bracket: int, level: int) -> list[Decision]:
        """Decide about all that wait in a full rung, in plan order."""
        rung = self._rungs[bracket, level]
        values = rung.values()
        keep = share(len(values), self.reduction_factor)
        decisions = []
        for config_id, reported in sorted(rung.waiting.items(), key=lambda item: self.configurations.index(item[0])):
            place = standing(reported.value, values, keep, self.mode)
            reason = self._reason(reported.value, place, bracket, level)
            decisions.append(self._judged(config_id, bracket, level, reported, place, reason))
        return decisions

    def _reason(self, value: float | None, place: Standing, bracket: int, level: int) -> str:
        if value is None:
            return self._unusable_reason(place, bracket, level)
        if place.compared == 1:
            where = self._where(bracket, level)
            return f"{self.quantity} {number(value)} is the only one {where}, so it goes on"
        return self._ranked_reason(value, place, bracket, level)
