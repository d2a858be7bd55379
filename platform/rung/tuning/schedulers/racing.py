"""Racing over seeds: few at low rungs, where many configurations train, more as a configuration climbs."""

from __future__ import annotations

from rung.tuning.schedulers.base import at_least


def seeds_at_rungs(start: int, full: int, rungs: int) -> tuple[int, ...]:
    """How many seeds of a configuration train up to each rung, and to the budget as the last entry.

    They grow by the same factor from rung to rung (rounded): `seeds_at_rungs(2, 8, 2)` is `(2, 4, 8)`. A seed that
    joins at a rung trains up to it from the beginning, so that all seeds of a configuration are compared at the same
    level.

    Args:
        start: seeds at the first rung.
        full: seeds at the budget; all of them where there are no rungs.
        rungs: how many rungs lie below the budget.

    Raises:
        ValueError: `start` below 1, `full` below `start`, or a negative number of rungs.
    """
    at_least("start", start, 1)
    at_least("full", full, start)
    at_least("rungs", rungs, 0)
    growing = (round(start * (full / start) ** (rung / rungs)) for rung in range(rungs))
    return (*growing, full)
