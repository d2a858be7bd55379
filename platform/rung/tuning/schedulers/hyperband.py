"""HyperBand: several successive halvings side by side, each with its own first rung."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from rung.tuning.schedulers.halving import SynchronousHalving
from rung.tuning.schedulers.records import Bracket, Decision


class HyperBand(SynchronousHalving):
    """Hedges against a first rung that comes too early: some configurations are compared early and often,
    some late, some never (Li et al. 2018, arXiv 1603.06560, algorithm 1).

    With L rungs there are L + 1 brackets. Bracket b starts at `levels[b]`; the last has no rungs and trains
    to the budget. Their sizes are in the proportions of `paper_shares`. Configurations are dealt one by one
    in plan order, each to the bracket that is furthest behind, so every bracket gets a mixture of a grid, and
    configurations appended to a plan leave the others where they are. Each bracket does synchronous halving
    by itself, with the share that goes on rounded up where the paper rounds down. It needs many
    configurations: with 6 and two rungs the brackets hold 3, 2 and 1.
    """

    name: ClassVar[str] = "hyperband"

    def restore(self, decisions: Iterable[Decision]) -> None:
        """As in `Scheduler`; who was decided stays in that bracket, even if the plan has changed."""
        recorded = list(decisions)
        super().restore(recorded)
        homes = {decision.config_id: int(decision.bracket) for decision in recorded}
        self._homes.update((config_id, home) for config_id, home in homes.items() if config_id in self._planned)
        self._brackets = self._grouped()

    def _deal(self) -> tuple[Bracket, ...]:
        dealt = deal(len(self.configurations), paper_shares(len(self.levels), self.reduction_factor))
        self._homes: dict[str, int] = dict(zip(self.configurations, dealt, strict=True))
        return self._grouped()

    def _grouped(self) -> tuple[Bracket, ...]:
        members: list[list[str]] = [[] for _ in range(len(self.levels) + 1)]
        for config_id in self.configurations:
            members[self._homes[config_id]].append(config_id)
        return tuple(Bracket(b, self.levels[b:], tuple(ids)) for b, ids in enumerate(members))

    def _bracket_of(self, config_id: str) -> int:
        super()._bracket_of(config_id)
        return self._homes[config_id]

    def _where(self, bracket: int, level: int) -> str:
        return f"{super()._where(bracket, level)} in bracket {bracket}"


def paper_shares(rungs: int, reduction_factor: int) -> list[int]:
    """How many configurations algorithm 1 gives each bracket: ceil((L + 1) / (s + 1) * reduction_factor**s).

    L is the number of rungs below the budget and s how many of them the bracket has: L, L - 1, ..., 0.
    """
    return [-(-(rungs + 1) * reduction_factor**s // (s + 1)) for s in range(rungs, -1, -1)]


def deal(count: int, shares: Sequence[int]) -> list[int]:
    """The bracket of each of `count` configurations, in proportion to `shares`.

    The next goes where `share / (2 * dealt + 1)` is largest, the earlier bracket among equals (Webster's
    method): the first `sum(shares)` are dealt exactly as the shares say, and what is dealt does not depend on
    `count`.
    """
    dealt = dict.fromkeys(range(len(shares)), 0)
    brackets = []
    for _ in range(count):
        bracket = _furthest_behind(shares, dealt)
        dealt[bracket] += 1
        brackets.append(bracket)
    return brackets


def _furthest_behind(shares: Sequence[int], dealt: Mapping[int, int]) -> int:
    return max(dealt, key=lambda bracket: shares[bracket] / (2 * dealt[bracket] + 1))
