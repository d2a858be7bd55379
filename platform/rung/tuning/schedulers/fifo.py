"""First in, first out: every configuration trains to its budget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rung.tuning.schedulers.base import Scheduler
from rung.tuning.schedulers.records import Bracket, Decision, Reported


class Fifo(Scheduler):
    """No early stopping: no rungs, nothing recorded. A report, which nobody has to make, says continue."""

    name: ClassVar[str] = "fifo"

    def report(self, config_id: str, level: int, value: float | None, margin: float | None = None) -> list[Decision]:
        return self._arrive(config_id, self._bracket_of(config_id), int(level), self._reported(value, margin))

    def restore(self, decisions: Iterable[Decision]) -> None:
        """Nothing to rebuild: this rule keeps no state."""

    def expected_to_continue(self, arriving: float) -> float:
        return arriving

    def _deal(self) -> tuple[Bracket, ...]:
        return (Bracket(0, (), self.configurations),)

    def _arrive(self, config_id: str, bracket: int, level: int, reported: Reported) -> list[Decision]:
        reason = "this study stops nobody early (scheduler fifo)"
        return [Decision(config_id, bracket, level, reported.value, None, 1, 1, "continue", reason, reported.margin)]
