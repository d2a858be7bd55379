"""What a plan costs, as far as it can be known before it runs: steps, time and disk, under stated assumptions."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.configuration import PlannedConfiguration
from rung.settings import EvaluationConfig, TrainableConfig
from rung.study import Unit
from rung.trainable import Trainable, Workload, find_trainable

if TYPE_CHECKING:
    from rung.plan import Plan

ASSUMED_RATE = 100e9
"""Floating-point operations per second of one core, as `Workload` counts them, which is the plain dense computation:
about what one thread of a processor with AVX-512 does in matrix products alone, and what the studies of modular
arithmetic come to, whose models compute less than half of the plain operations at about half of that rate."""

ASSUMED_OVERHEAD = 2e-3
"""Seconds of every optimizer step, and of every evaluation, that are no arithmetic; what small models consist of."""

BYTES = 4
"""Of a number in a checkpoint."""


@dataclass(frozen=True)
class Cost:
    """An estimate for a whole plan. "Expected" counts what the scheduler stops, "most" does not."""

    most_steps: int | None
    """Optimizer steps if nobody is stopped; empty if the budget is time."""
    expected_steps: float | None
    expected_flops: float | None
    """Training and evaluation."""
    core_hours: float | None
    """Empty where runs use GPUs, of which nothing is assumed."""
    wall_seconds: float | None
    """With as many configurations side by side as this machine's cores allow."""
    concurrent: int
    """That many."""
    rows: float
    """Expected rows of the table `metrics`."""
    row_bytes: float
    """Their size."""
    checkpoint_bytes: int
    """All runs' checkpoints, while the study runs, phase confirm included."""
    kept_bytes: int
    """Those that stay."""
    kept_by_choice: Mapping[str, int]
    """Those that would stay with each choice of `checkpoints.keep`."""
    memory: float | None = None
    """Estimated peak of device memory of one run, in bytes, where a trainable says it."""


@dataclass(frozen=True)
class RunCost:
    """One run of one configuration up to a level."""

    steps: int
    rows: int
    """Of the table `metrics`."""
    flops: float
    seconds: float
    """On one core."""


def estimate(plan: Plan) -> Cost:
    """The cost of a plan; of an adaptive search, reckoned from configurations that it might choose."""
    study = plan.study
    kind = find_trainable(study.trainable)
    seeds, examples = len(study.seeds), plan.examples
    mean = 1 / max(1, len(examples))
    workloads = [kind.workload(example.config) for example in examples]
    by_level = [
        [_run_cost(example, workload, plan.unit, level) for example, workload in zip(examples, workloads, strict=True)]
        for level in plan.rungs
    ]
    confirm = study.confirm
    fresh = min(confirm.top, plan.count) * confirm.seeds if confirm else 0

    def expected(what: str) -> float:
        return mean * (_climbed(plan, by_level, what) + fresh * _total(by_level[-1], what))

    seconds, rows = expected("seconds"), expected("rows")
    concurrent = _concurrent(plan)
    longest = seeds * max((cost.seconds for cost in by_level[-1]), default=0.0)
    runs_bytes = [
        seeds * (checkpoint_bytes(example.config) * workload.parameters + BYTES * workload.frozen)
        for example, workload in zip(examples, workloads, strict=True)
    ]
    kept = kept_bytes(plan, runs_bytes)
    is_timed, on_gpu = plan.unit == "wall_clock", study.resources.gpus > 0
    return Cost(
        most_steps=None if is_timed else round(mean * (plan.count * seeds + fresh) * _total(by_level[-1], "steps")),
        expected_steps=None if is_timed else expected("steps"),
        expected_flops=None if is_timed else expected("flops"),
        core_hours=None if on_gpu and not is_timed else seconds * study.resources.cpus / 3600,
        wall_seconds=None if on_gpu and not is_timed else max(seconds / concurrent, longest) / study.resources.workers,
        concurrent=concurrent,
        rows=rows,
        row_bytes=rows * _bytes_per_row(kind, examples),
        checkpoint_bytes=kept["all"],
        kept_bytes=kept[str(study.checkpoints.keep)],
        kept_by_choice=kept,
        memory=max((each.memory for each in workloads if each.memory is not None), default=None),
    )


def run_seconds(configuration: PlannedConfiguration, kind: type[Trainable[Any, Any]], unit: Unit, level: int) -> float:
    """What one run of a configuration to a level of the budget is reckoned to take on one core."""
    return _run_cost(configuration, kind.workload(configuration.config), unit, level).seconds


def evaluations(config: EvaluationConfig, steps: int) -> int:
    """How often a run of so many steps is evaluated, the start and the end included."""
    first = min(config.first, steps)
    due = first + 1 + steps // config.every - first // config.every
    return due if config.is_due(steps) else due + 1


def rows(config: EvaluationConfig, steps: int) -> int:
    """Rows that a run of so many steps leaves: its evaluations, and what is logged between them."""
    log_every, logged = config.log_every, 0
    if log_every is not None:
        both = math.lcm(log_every, config.every)
        first = min(config.first, steps)
        logged = steps // log_every - first // log_every - (steps // both - first // both)
        is_last_logged = steps % log_every == 0 and not config.is_due(steps)  # the end is evaluated
        logged -= is_last_logged
    return evaluations(config, steps) + logged


def checkpoint_bytes(config: TrainableConfig) -> int:
    """Bytes of a checkpoint per trained parameter: the weight, Adam's two moments, what Grokfast remembers."""
    grokfast = config.optimizer.grokfast
    remembered = {"none": 0, "ema": 1, "ma": grokfast.window + 1}[grokfast.kind]
    return BYTES * (3 + remembered)


def kept_bytes(plan: Plan, runs_bytes: Sequence[float]) -> dict[str, int]:
    """Bytes of checkpoints that stay with each choice of `checkpoints.keep`: its words, and its number if it is one.

    Args:
        plan: the plan.
        runs_bytes: of each of its examples, the checkpoints of all runs of its search.
    """
    confirm, seeds = plan.study.confirm, len(plan.study.seeds)
    largest = max(runs_bytes, default=0)
    fresh = largest / seeds * confirm.seeds if confirm else 0  # of one configuration
    confirmed = min(confirm.top, plan.count) if confirm else 0
    mean = sum(runs_bytes) / max(1, len(runs_bytes))
    # The seeds that race begin later, or never: who is stopped at a rung has those of that rung.
    climbed = [*(rung.configurations for rung in plan.climb), 0.0]
    ended = [here - above for here, above in itertools.pairwise(climbed)]
    runs = sum(count * plan.seeds_at(level) for count, level in zip(ended, plan.rungs, strict=True))

    def best(count: int) -> int:
        return round(min(count, plan.count) * largest + min(count, confirmed) * fresh)

    kept = {"none": 0, "best": best(1)}
    keep = plan.study.checkpoints.keep
    if isinstance(keep, int):
        kept[str(keep)] = best(keep)
    kept["completed"] = round(climbed[-2] * mean + confirmed * fresh)
    kept["all"] = round(runs / seeds * mean + confirmed * fresh)
    return kept


def steps_at(unit: Unit, level: int, workload: Workload) -> int:
    """Optimizer steps up to a level of the budget; 0 where that is time.

    Raises:
        ValueError: epochs of an endless stream.
    """
    if unit == "epochs":
        if workload.steps_per_epoch is None:
            raise ValueError("an endless stream has no epochs")
        return level * workload.steps_per_epoch
    if unit == "tokens":
        return math.ceil(level / workload.tokens_per_step)
    return level if unit == "steps" else 0


def _run_cost(example: PlannedConfiguration, workload: Workload, unit: Unit, level: int) -> RunCost:
    if unit == "wall_clock":
        # How many steps fit is not known; at the assumed speed:
        step = ASSUMED_OVERHEAD + workload.flops_per_step / ASSUMED_RATE
        return RunCost(0, rows(example.config.evaluation, int(level / step)), 0.0, float(level))
    steps = steps_at(unit, level, workload)
    count = evaluations(example.config.evaluation, steps)
    flops = steps * workload.flops_per_step + count * workload.evaluation_flops
    return RunCost(
        steps, rows(example.config.evaluation, steps), flops, (steps + count) * ASSUMED_OVERHEAD + flops / ASSUMED_RATE
    )


def _climbed(plan: Plan, by_level: Sequence[Sequence[RunCost]], what: str) -> float:
    """A cost of phase search: each part between two rungs counts as often as configurations train through it. Where
    seeds race, those that join at a rung train up to it from the beginning."""
    totals = [count * _total(costs, what) for count, costs in zip(plan.seed_counts, by_level, strict=True)]
    parts = [total - before for total, before in zip(totals, [0.0, *totals], strict=False)]
    return math.fsum(part * rung.configurations for part, rung in zip(parts, plan.climb, strict=True))


def _total(costs: Sequence[RunCost], what: str) -> float:
    return float(sum(getattr(cost, what) for cost in costs))


def _concurrent(plan: Plan) -> int:
    resources = plan.study.resources
    fitting = (os.cpu_count() or 1) // (resources.cpus * resources.workers)
    return max(1, min(fitting, plan.count, resources.concurrent or fitting))


def _bytes_per_row(kind: type[Trainable[Any, Any]], examples: Sequence[PlannedConfiguration]) -> float:
    """Eight bytes for each metric and for four reserved columns; the others compress to nearly nothing."""
    return 8.0 * (4 + max((len(kind.metrics(example.config)) for example in examples[:1]), default=0))
