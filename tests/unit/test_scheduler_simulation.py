"""Whole sweeps with seeds on a virtual clock: who survives, what it costs, how long it takes."""

from __future__ import annotations

import math
import random
from statistics import fmean

import numpy as np
import pytest

from rung.results.aggregation import Aggregation
from rung.tuning.schedulers import SCHEDULERS, Asha, Scheduler, geometric_levels, make_scheduler
from tests.learning_curves import Family, Grokking, PowerLaw, Tabulated
from tests.scheduling_strategies import Outcome, Rungs, SimulatedSweep, Strategy, every_level
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


# Seeds: together, one by one, and racing.

AT_A_NINTH = Rungs(3, 9)


def outcomes(family: Family, strategy: Strategy, rungs: Rungs, sweeps: int) -> list[Outcome]:
    levels = every_level(family.budget)
    return [SimulatedSweep.draw(family, number, levels).run(strategy, rungs)["mean"] for number in range(sweeps)]


def average(measured: list[Outcome], measure: str) -> float:
    return fmean(getattr(outcome, measure) for outcome in measured)


def test_seeds_that_join_at_a_rung_are_trained_from_the_beginning() -> None:
    table: Curves = {"a": {10: 0.5, 30: 0.5}, "b": {10: 0.4, 30: 0.4}}
    scheduler = make_scheduler("synchronous_halving", levels=(10, 30), mode="max", configurations="ab")
    outcome = simulate(scheduler, table, 90, workers=1, seeds={10: 2, 30: 4, 90: 8})
    first, second, last = 2 * 2 * 10, 2 * 20 + 2 * 30, 4 * 60 + 4 * 90
    assert outcome.trained == outcome.clock == first + second + last


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        (Strategy(8, rule="synchronous_halving"), 16 * 8 * 480 + 6 * 8 * 960 + 2 * 8 * 2880),
        (
            Strategy(8, 2, "synchronous_halving"),
            16 * 2 * 480 + 6 * (2 * 960 + 2 * 1440) + 2 * (4 * 2880 + 4 * 4320),
        ),
        (Strategy(4, rule="fifo"), 16 * 4 * 4320),
    ],
)
def test_the_steps_of_a_strategy_are_those_reckoned_by_hand(strategy: Strategy, steps: int) -> None:
    (outcome,) = outcomes(PowerLaw(), strategy, AT_A_NINTH, 1)
    assert outcome.steps == pytest.approx(steps / (16 * 8 * 4320))


def test_seeds_together_find_the_best_more_often_than_seeds_alone_and_for_fewer_steps() -> None:
    """8 seeds on noisy curves, 16 configurations; docs/scheduling.md has the same over many more sweeps."""
    levels = every_level(PowerLaw().budget)
    sweeps = [SimulatedSweep.draw(PowerLaw(), number, levels) for number in range(120)]
    together = [sweep.run(Strategy(8), Rungs(2, 16))["mean"] for sweep in sweeps]
    alone = [sweep.run(Strategy(8, seedwise=True), Rungs(2, 4)) for sweep in sweeps]
    for reading in ("run", "mean"):
        read = [outcome[reading] for outcome in alone]
        assert average(together, "steps") < average(read, "steps") - 0.1
        assert average(together, "found") > average(read, "found") + 0.1
        assert average(together, "regret") < average(read, "regret") - 0.1


def test_early_stopping_of_whole_configurations_hardly_costs_accuracy_on_noisy_curves() -> None:
    together = outcomes(PowerLaw(), Strategy(8), AT_A_NINTH, 200)
    everything = outcomes(PowerLaw(), Strategy(8, rule="fifo"), AT_A_NINTH, 200)
    assert average(together, "steps") < 0.45
    assert average(together, "found") > average(everything, "found") - 0.05


def test_a_late_first_rung_keeps_what_groks_late_and_an_early_one_does_not() -> None:
    early = outcomes(Grokking(), Strategy(4), Rungs(3, 27), 150)
    late = outcomes(Grokking(), Strategy(4), Rungs(2, 4), 150)
    assert average(late, "kept") > average(early, "kept") + 0.3


def test_confidence_keeps_more_for_more_steps() -> None:
    plain, careful = (outcomes(Grokking(), Strategy(8, confidence=c), AT_A_NINTH, 100) for c in (None, 0.8))
    assert average(careful, "kept") > average(plain, "kept") + 0.15
    assert average(careful, "steps") > average(plain, "steps") + 0.1


def test_margins_are_those_of_the_platform() -> None:
    sweep = SimulatedSweep.draw(PowerLaw(configurations=3), 0, (480, 4320))
    values = sweep.curves.values[:, :4, 0]
    expected = [
        Aggregation("max").margin([{"value": value, "status": "running"} for value in runs], 0.9) for runs in values
    ]
    assert sweep.margin(480, 4, 0.9) == pytest.approx(expected)


@pytest.mark.parametrize("family", [PowerLaw(seeds=400), Grokking(seeds=400)])
def test_the_truth_is_the_mean_over_all_seeds(family: Family) -> None:
    curves = family.draw(np.random.default_rng(0), (480, family.budget))
    error = curves.values[..., -1].std(axis=1) / 400**0.5
    assert np.all(np.abs(curves.values[..., -1].mean(axis=1) - curves.truth) < 5 * error + 0.01)


def test_the_table_of_trained_runs_has_a_best_configuration() -> None:
    family = Tabulated()
    curves = family.draw(np.random.default_rng(0), (50, family.budget))
    assert curves.values.shape == (8, 8, 2)
    assert np.all((curves.values >= 0) & (curves.values <= 1))
    best, second = sorted(curves.truth)[:-3:-1]
    assert best > second + 0.03


def test_a_sweep_is_the_same_every_time() -> None:
    first, again = (outcomes(Grokking(), Strategy(8, 2), AT_A_NINTH, 3) for _ in range(2))
    assert first == again
