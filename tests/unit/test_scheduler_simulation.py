"""Whole sweeps with seeds on a virtual clock: who survives, what it costs, how long it takes."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from rung.tuning.schedulers import SCHEDULERS, Asha, Scheduler, geometric_levels, make_scheduler
from tests.sweep_simulation import Curves, simulate

BUDGET = 9000
LEVELS = geometric_levels(1000, 3, BUDGET)
IDS = tuple(f"c{index:02d}" for index in range(27))
SEEDS = 3


def learning_curve(quality: float, offset: float, step: int) -> float:
    """Saturating, and in the same order at every step."""
    return (quality + offset) * (1 - math.exp(-step / 2000))


def aggregated(rng: random.Random, ids: tuple[str, ...] = IDS, noise: float = 0.0) -> Curves:
    """Mean over seeds at every level; the same seeds for every configuration, the last id the best.

    `noise` is its standard deviation at the first level, relative to that of quality, and falls with the
    level.
    """
    seeds = [rng.gauss(0, 1) for _ in range(SEEDS)]
    table = {}
    for rank, config_id in enumerate(ids):
        table[config_id] = {
            level: fmean(learning_curve(10 + rank, offset, level) for offset in seeds)
            + rng.gauss(0, noise * len(ids) / 3.5 * (1 - math.exp(-level / 2000)) * LEVELS[0] / level)
            for level in LEVELS
        }
    return table


def shuffled(rng: random.Random, table: Curves) -> Curves:
    return {config_id: table[config_id] for config_id in rng.sample(sorted(table), len(table))}


def speeds(rng: random.Random) -> dict[str, float]:
    return {config_id: rng.uniform(0.5, 2.0) for config_id in IDS}


def make(name: str, table: Curves) -> Scheduler:
    return make_scheduler(name, levels=LEVELS, mode="max", configurations=tuple(table))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("workers", [1, 4, 27])
def test_the_best_of_27_is_kept_if_curves_are_free_of_noise(name: str, workers: int) -> None:
    for seed in range(15):
        rng = random.Random(seed)
        table = shuffled(rng, aggregated(rng))
        outcome = simulate(make(name, table), table, BUDGET, workers=workers, speeds=speeds(rng))
        assert IDS[-1] in outcome.completed


def test_asha_trains_less_than_half_of_the_full_sweep_and_waits_for_nobody() -> None:
    cost, idle = [], []
    for seed in range(30):
        rng = random.Random(seed)
        table, pace = shuffled(rng, aggregated(rng)), speeds(rng)
        outcome = simulate(make("asha", table), table, BUDGET, workers=4, speeds=pace)
        cost.append(outcome.trained / (BUDGET * len(IDS)))
        synchronous = simulate(make("synchronous_halving", table), table, BUDGET, workers=4, speeds=pace)
        idle.append(synchronous.clock * 4 / synchronous.trained - outcome.clock * 4 / outcome.trained)
    assert 0.25 < fmean(cost) < 0.5
    assert fmean(idle) > 0, "synchronous halving leaves workers idle at the end of a rung"


def test_synchronous_halving_trains_exactly_what_the_plan_says() -> None:
    table = aggregated(random.Random(0))
    outcome = simulate(make("synchronous_halving", table), table, BUDGET)
    assert sorted(outcome.completed) == sorted(IDS[-3:])
    assert outcome.trained == 27 * 1000 + 9 * 2000 + 3 * 6000


class RoundedDown(Asha):
    """ASHA with the share rounded down, against which the choice was made."""

    def _keep(self, count: int) -> int:
        return max(1, count // self.reduction_factor)


def test_rounding_the_share_up_loses_the_best_of_a_small_sweep_less_often() -> None:
    """The claim in ASHA's docstring: 12 configurations, 4 workers, noise as large as the differences."""
    ids, sweeps = IDS[:12], 400
    kept, cost = {Asha: 0, RoundedDown: 0}, {Asha: 0.0, RoundedDown: 0.0}
    for seed in range(sweeps):
        rng = random.Random(seed)
        table, pace = shuffled(rng, aggregated(rng, ids, noise=1.0)), speeds(rng)
        for rule in kept:
            scheduler = rule(levels=LEVELS, mode="max", configurations=tuple(table))
            outcome = simulate(scheduler, table, BUDGET, workers=4, speeds=pace)
            kept[rule] += ids[-1] in outcome.completed
            cost[rule] += outcome.trained / (BUDGET * len(ids)) / sweeps
    assert kept[Asha] - kept[RoundedDown] > 0.06 * sweeps
    assert cost[Asha] - cost[RoundedDown] < 0.08
