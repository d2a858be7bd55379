"""For `rung plan`: where the rungs are, and how many configurations are expected to climb them."""

from __future__ import annotations

from typing import NamedTuple

from rung.tuning.schedulers.base import Scheduler, at_least


class Expectation(NamedTuple):
    """What is expected at one rung; not rounded, because the estimate of cost is a sum over rungs."""

    bracket: int
    level: int
    reach: float
    """Configurations that get there."""
    go_on: float
    """Configurations that go on from there."""


def geometric_levels(grace: int, reduction_factor: int, budget: int) -> tuple[int, ...]:
    """The rungs `grace * reduction_factor**k` below `budget`, all in the same unit.

    A rung nearer to the budget than half a factor (in ratio: the square root of it) is left out, the budget stands for
    it: whoever came so far costs little to finish, and 9,000 of 10,000 steps is no early stop. The first rung stays
    where it was asked for; there is none if the grace period is the whole budget.

    Raises:
        ValueError: grace or budget below 1, or a reduction factor below 2.
    """
    at_least("grace", grace, 1)
    at_least("reduction_factor", reduction_factor, 2)
    at_least("budget", budget, 1)
    levels = [grace] if grace < budget else []
    level = grace * reduction_factor
    while level**2 * reduction_factor <= budget**2:
        levels.append(level)
        level *= reduction_factor
    return tuple(levels)


def expected_survivors(scheduler: Scheduler, configurations: int | None = None) -> list[Expectation]:
    """How many of a study's configurations reach each rung and go on, if none diverges or ends early.

    Exact for synchronous halving and HyperBand. For ASHA the expectation over random orders of arrival (exact
    at the first rung), for median stopping a rough guess. Brackets without rungs have no rows: see
    `Scheduler.brackets`.

    Args:
        scheduler: one that was made for the plan.
        configurations: how many there will be, for an adaptive search, whose scheduler does not know.
    """
    rows = []
    for bracket, levels, members in scheduler.brackets():
        reach = float(len(members) if scheduler.configurations else configurations or 0)
        for level in levels:
            go_on = scheduler.expected_to_continue(reach)
            rows.append(Expectation(bracket, level, reach, go_on))
            reach = go_on
    return rows
