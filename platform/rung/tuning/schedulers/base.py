"""The interface of every scheduler and the bookkeeping they share: rungs, recorded decisions, withdrawals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from rung.tuning.schedulers.ranking import Mode, Standing, score
from rung.tuning.schedulers.records import Bracket, Decision, Reported, Rung, RungRow, as_recorded, usable


class Scheduler(ABC):
    """Decides at each rung which configurations go on.

    Args:
        levels: the rungs strictly below the budget, ascending, in budget units. At the budget nothing is
            decided.
        mode: whether less or more of the metric is better.
        configurations: ids in plan order; empty for an adaptive search, whose configurations are not known
            before.
        reduction_factor: one in so many goes on.
        confidence: nobody is stopped whose interval at this confidence reaches the threshold; None: values alone
            decide. It costs compute, because more go on than one in `reduction_factor`, and does nothing for
            configurations whose margin is not known.
        quantity: what the values are, for the sentences (`mean`, `mean validation/accuracy`).
        unit: unit of the levels, for the sentences (`steps`).

    Raises:
        ValueError: levels that are not positive and ascending, an unknown mode, a configuration named twice,
            a reduction factor below 2, or a confidence that does not lie between 0 and 1.
    """

    name: ClassVar[str]
    """What a study file calls it."""

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
        self.levels = tuple(int(level) for level in levels)
        self.mode: Mode = mode
        self.configurations = tuple(configurations)
        self.reduction_factor = reduction_factor
        self.confidence = confidence
        self.quantity = quantity
        self.unit = unit
        self._check_options()
        self._planned = frozenset(self.configurations)
        self._brackets = self._deal()
        self._rungs = {(bracket.bracket, level): Rung() for bracket in self._brackets for level in bracket.levels}
        self._stopped: dict[str, Decision] = {}
        self._withdrawn: set[str] = set()

    def report(self, config_id: str, level: int, value: float | None, margin: float | None = None) -> list[Decision]:
        """A configuration reached a rung with this aggregate over its seeds, known to within `margin`, the half width
        of its interval, which only matters to a rule that was made with `confidence`.

        None, NaN and infinities are no usable value, which is worse than any number, and no known margin.

        Returns every decision that falls now, possibly for other configurations. Without one of its own the
        configuration waits: it must give up its resources, or those it waits for may never run. Reporting the
        same configuration and level again returns the recorded decision (nothing while it waits) and changes
        nothing; a configuration that was stopped gets that decision again.

        Raises:
            ValueError: a configuration that is not in the plan, was withdrawn or still waits at another
                level, or a level at which it is not compared.
        """
        bracket = self._bracket_of(config_id)
        rung = self._rungs.get((bracket, level), Rung())
        recorded = rung.decided.get(config_id) or self._stopped.get(config_id)
        if recorded is not None:
            return [recorded]
        if config_id in rung.waiting:
            return []
        self._check_report(config_id, bracket, level)
        return self._arrive(config_id, bracket, int(level), self._reported(value, margin))

    def withdraw(self, config_id: str) -> list[Decision]:
        """A configuration failed for good or was completed early: nobody waits for it any more.

        What it has reported still counts at that rung and gets its decision with the rest, so that it does
        not matter who else has reported by then. Returns the decisions that fall because of it. A withdrawal
        is no decision and is not in the table: after `restore` it has to be made again, after the reports
        that had no decision yet.

        Raises:
            ValueError: a configuration that is not in the plan.
        """
        self._bracket_of(config_id)
        self._withdrawn.add(config_id)
        return self._leave()

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Rebuild the rung table from recorded decisions, before the first report.

        Afterwards `report` behaves as if never interrupted: who was decided gets the same answer, who waited
        reports again. Of two decisions about the same configuration and rung the first counts. Configurations
        that are no longer planned stay in the comparisons, since others were judged against them.

        Raises:
            ValueError: a decision at a rung that this scheduler does not have (its levels were changed).
        """
        for decision in map(as_recorded, decisions):
            rung = self._rungs.get((decision.bracket, decision.level))
            if rung is None:
                raise ValueError(
                    f"the recorded decision about {decision.config_id} at level {decision.level} of bracket "
                    f"{decision.bracket} does not fit the rungs {self.levels} of scheduler {self.name!r}"
                )
            if decision.config_id not in rung.decided:
                self._record(decision)

    def levels_of(self, config_id: str) -> tuple[int, ...]:
        """The rungs at which this configuration is compared, ascending.

        Raises:
            ValueError: a configuration that is not in the plan.
        """
        return self._brackets[self._bracket_of(config_id)].levels

    def brackets(self) -> tuple[Bracket, ...]:
        """Who is compared with whom, and where; `brackets()[i].bracket == i`."""
        return self._brackets

    def rung_table(self) -> list[RungRow]:
        """What happened so far, one row per bracket and level, for display."""
        rows = []
        for (bracket, level), rung in sorted(self._rungs.items()):
            stopped = sum(decision.decision == "stop" for decision in rung.decided.values())
            decided, waiting = len(rung.decided), len(rung.waiting)
            rows.append(RungRow(bracket, level, decided + waiting, decided - stopped, stopped, waiting))
        return rows

    @abstractmethod
    def expected_to_continue(self, arriving: float) -> float:
        """How many of `arriving` configurations go on from a rung, if they arrive in random order."""

    # What a rule adds.

    @abstractmethod
    def _arrive(self, config_id: str, bracket: int, level: int, reported: Reported) -> list[Decision]:
        """A new, checked report; returns the recorded decisions that fall now."""

    def _leave(self) -> list[Decision]:
        """Somebody was withdrawn; returns the recorded decisions that fall because of it."""
        return []

    def _deal(self) -> tuple[Bracket, ...]:
        """The brackets, as they are dealt when the scheduler is made."""
        return (Bracket(0, self.levels, self.configurations),)

    def _bracket_of(self, config_id: str) -> int:
        """The bracket of a configuration; raises ValueError if there is a plan and it is not in it."""
        if self._planned and config_id not in self._planned:
            raise ValueError(f"configuration {config_id!r} is not among the {len(self._planned)} planned ones")
        return 0

    # Shared by the rules.

    def _record(self, decision: Decision) -> Decision:
        rung = self._rungs[decision.bracket, decision.level]
        rung.waiting.pop(decision.config_id, None)
        rung.decided[decision.config_id] = decision
        if decision.decision == "stop":
            self._stopped.setdefault(decision.config_id, decision)
        return decision

    def _reported(self, value: float | None, margin: float | None) -> Reported:
        """What a rule looks at of a report."""
        return Reported(usable(value), None if self.confidence is None else usable(margin))

    def _judged(
        self,
        config_id: str,
        bracket: int,
        level: int,
        reported: Reported,
        place: Standing,
        reason: str,
        best: Reported | None = None,
    ) -> Decision:
        """Record the decision that follows from a standing, or from the interval of the value that was compared: the
        reported one, unless the rule compares another (`best`)."""
        is_lost = reported.value is None  # whatever its best value so far
        reprieve = "" if place.survives or is_lost else self._reprieve(best or reported, place.threshold)
        verdict: Literal["continue", "stop"] = "continue" if place.survives or reprieve else "stop"
        value, margin = reported
        judged = (place.threshold, place.rank, place.compared, verdict, reason + reprieve)
        return self._record(Decision(config_id, bracket, level, value, *judged, margin))

    def _reprieve(self, compared: Reported, threshold: float | None) -> str:
        """Why a configuration goes on that is worse than the threshold; empty if it does not."""
        value, margin = compared
        if self.confidence is None or value is None or margin is None or threshold is None:
            return ""
        if score(value, self.mode) - margin > score(threshold, self.mode):
            return ""
        interval = f"{100 * self.confidence:g} % interval [{number(value - margin)}, {number(value + margin)}]"
        return f"; it would stop, but its {interval} reaches {number(threshold)}"

    def _where(self, bracket: int, level: int) -> str:
        return f"at {level} {self.unit}".rstrip()

    def _unusable_reason(self, place: Standing, bracket: int, level: int) -> str:
        where = self._where(bracket, level)
        return (
            f"no usable value {where} (diverged or missing), which counts as the worst: "
            f"rank {place.rank} of {place.compared}, so it stops"
        )

    def _ranked_reason(self, value: float, place: Standing, bracket: int, level: int) -> str:
        best = "only the best goes on" if place.keep == 1 else f"the best {place.keep} go on"
        threshold = "" if place.threshold is None else f" (threshold {number(place.threshold)})"
        rank = f"ranks {place.rank} of {place.compared} {self._where(bracket, level)}"
        return f"{self.quantity} {number(value)} {rank}; {best}{threshold}"

    # Checks.

    def _check_options(self) -> None:
        rising = all(low < high for low, high in zip((0, *self.levels), self.levels, strict=False))
        if not rising:
            raise ValueError(f"levels must be positive and ascending, got {self.levels}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
        if len(set(self.configurations)) < len(self.configurations):
            raise ValueError("a configuration is planned twice")
        at_least("reduction_factor", self.reduction_factor, 2)
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence!r}")

    def _check_report(self, config_id: str, bracket: int, level: int) -> None:
        levels = self._brackets[bracket].levels
        if level not in levels:
            raise ValueError(f"configuration {config_id!r} is not compared at level {level}, only at {levels}")
        if config_id in self._withdrawn:
            raise ValueError(f"configuration {config_id!r} was withdrawn and reports at level {level}")
        for other in levels:
            if config_id in self._rungs[bracket, other].waiting:
                raise ValueError(f"configuration {config_id!r} waits at level {other} and reports at level {level}")


def at_least(option: str, value: int, least: int) -> None:
    """Check a whole-number option.

    Raises:
        ValueError: it is no whole number, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, got {value!r}")


def number(value: float) -> str:
    """A value for a sentence: six significant digits."""
    return f"{value:.6g}"
