"""What a study would run, fixed before anything starts: configurations, rungs, counts.

    plan = make_plan(load_study("demo.yaml"))
    plan.product         # "3 x 4 x 8 samples = 96 configurations, x 8 seeds = 768 runs"

Left out: what it costs (`cost.py`) and how it is shown (`plan_view.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from rung.configuration import Expansion, PlannedConfiguration, expansion_of, resolver_of
from rung.cost import Cost, estimate, run_seconds
from rung.errors import Problem, StudyError
from rung.plan_warnings import warnings_of
from rung.study import Study, Unit
from rung.trainable import find_trainable
from rung.tuning.schedulers import (
    Scheduler,
    expected_survivors,
    geometric_levels,
    make_scheduler,
    seeds_at_rungs,
)
from rung.yaml_file import dotted

__all__ = ["Plan", "PlannedConfiguration", "RungPlan", "make_plan", "rung_levels"]


@dataclass(frozen=True)
class RungPlan:
    """One level of the budget."""

    level: int
    """In units of the budget; the last is the whole budget."""
    configurations: float
    """How many are expected to train up to it, if none diverges or ends early."""


@dataclass(frozen=True)
class Plan:
    """What a study would run."""

    study: Study
    """The study."""
    configurations: tuple[PlannedConfiguration, ...]
    """In the order in which they start: shuffled, so that asynchronous halving does not meet a grid from worst to
    best; with `fifo`, which compares nothing, those that take longest first, so that no core is left idle at the end
    for long. `index` is the order of the file. Empty if a searcher chooses them."""
    count: int
    """How many configurations there will be."""
    rungs: tuple[int, ...]
    """Levels at which configurations are compared, ascending, and the whole budget as the last."""
    seed_counts: tuple[int, ...]
    """How many seeds of a configuration train up to each rung; the same number unless they race."""
    product: str
    """How the numbers of configurations and runs come about."""
    examples: tuple[PlannedConfiguration, ...]
    """The configurations, or some that the searcher might choose: what the cost is reckoned from."""

    @property
    def unit(self) -> Unit:
        """What the rungs count."""
        return self.study.budget.unit

    @property
    def runs(self) -> int:
        """Configurations times seeds."""
        return self.count * len(self.study.seeds)

    def seeds_at(self, level: float) -> int:
        """How many seeds of a configuration train up to a level: to its nearest rung at or above it."""
        counts = zip(self.seed_counts, self.rungs, strict=True)
        return next((count for count, rung in counts if level <= rung), len(self.study.seeds))

    @property
    def unit_name(self) -> str:
        """The unit of the budget, for people."""
        return "seconds" if self.unit == "wall_clock" else self.unit

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """What the runs need and this machine lacks, with the commands that make it."""
        kind = find_trainable(self.study.trainable)
        said = (kind.missing(example.config) for example in self.examples)
        return tuple(dict.fromkeys(sentence for sentence in said if sentence is not None))

    @cached_property
    def climb(self) -> tuple[RungPlan, ...]:
        """How many configurations are expected at every level."""
        return tuple(RungPlan(level, self._expected_at(level)) for level in self.rungs)

    @cached_property
    def base(self) -> dict[str, Any]:
        """The complete base configuration, as plain data."""
        resolver = resolver_of(self.study)
        try:
            values: dict[str, Any] = resolver.model.model_validate(resolver.base).model_dump(mode="json")
        except ValidationError:  # it needs not be valid without the swept values
            values = json.loads(json.dumps(resolver.base, default=str))
        return values

    @cached_property
    def cost(self) -> Cost:
        """Steps, time and disk."""
        return estimate(self)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What its author may not want, in whole sentences: rungs that come too early, a rule that stops nobody."""
        return warnings_of(self)

    def scheduler(self) -> Scheduler:
        """The rule that decides who goes on, with nothing decided yet."""
        choice, metric = self.study.scheduler, self.study.metric
        return make_scheduler(
            choice.name,
            levels=self.rungs[:-1],
            mode=metric.mode,
            configurations=[configuration.config_id for configuration in self.configurations],
            reduction_factor=choice.reduction_factor,
            confidence=choice.confidence,
            quantity=f"{metric.across_seeds} {metric.name}",
            unit=self.unit,
            **({"minimum": choice.minimum} if choice.name == "asha" else {}),
        )

    def _expected_at(self, level: int) -> float:
        """Expected configurations that train up to a level: in each bracket those that the rung below lets go on."""
        rows = expected_survivors(self._forecast, self.count)
        expected = 0.0
        for bracket, _, members in self._forecast.brackets():
            below = [row.go_on for row in rows if row.bracket == bracket and row.level < level]
            expected += below[-1] if below else len(members) if self.configurations else self.count
        return expected

    @cached_property
    def _forecast(self) -> Scheduler:
        return self.scheduler()


def make_plan(study: Study) -> Plan:
    """Expands a study.

    Raises:
        StudyError: the trainable refuses some of its configurations; `load_study` finds that out with lines.
    """
    expansion = expansion_of(study)
    if expansion.refused:
        raise StudyError(
            Problem(f"{refusal.label}: {finding.message}", dotted(finding.path))
            for refusal in expansion.refusals
            for finding in refusal.findings
        )
    chosen_later = study.searcher.name != "plan"
    configurations = () if chosen_later else _in_starting_order(study, expansion.configurations)
    count = study.samples if chosen_later else len(configurations)
    rungs = rung_levels(study)
    return Plan(
        study=study,
        configurations=configurations,
        count=count,
        rungs=rungs,
        seed_counts=seed_counts(study, len(rungs) - 1),
        product=_product(study, expansion, count),
        examples=expansion.configurations,
    )


def rung_levels(study: Study) -> tuple[int, ...]:
    """The levels of a study's budget at which configurations are compared, and the budget itself."""
    amount, choice = study.budget.amount, study.scheduler
    if choice.name == "fifo":
        return (amount,)
    grace = choice.grace or max(1, amount // choice.reduction_factor**2)
    return (*geometric_levels(grace, choice.reduction_factor, amount), amount)


def seed_counts(study: Study, rungs: int) -> tuple[int, ...]:
    """How many seeds of a configuration train up to each of `rungs` rungs, and to the budget."""
    seeds = study.seeds
    return seeds_at_rungs(seeds.start or len(seeds), len(seeds), rungs)


def _in_starting_order(
    study: Study, configurations: tuple[PlannedConfiguration, ...]
) -> tuple[PlannedConfiguration, ...]:
    shuffled = _shuffled(configurations, study.draw_seed)
    if study.scheduler.name != "fifo":
        return shuffled
    kind, budget = find_trainable(study.trainable), study.budget
    # Longest first (Graham 1969): the time until all are done is at most 4/3 of the shortest possible.
    return tuple(sorted(shuffled, key=lambda each: -run_seconds(each, kind, budget.unit, budget.amount)))


def _shuffled(configurations: tuple[PlannedConfiguration, ...], draw_seed: int) -> tuple[PlannedConfiguration, ...]:
    """In an order that has nothing to do with their values, and in which later ones do not move earlier ones."""

    def place(configuration: PlannedConfiguration) -> bytes:
        return hashlib.sha256(f"{draw_seed}\n{configuration.config_id}".encode()).digest()

    return tuple(sorted(configurations, key=place))


def _product(study: Study, expansion: Expansion, count: int) -> str:
    seeds, confirm = len(study.seeds), study.confirm
    race = "" if study.seeds.start is None else f" (racing, {study.seeds.start} at the start)"
    end = f"x {_counted(seeds, 'seed')}{race} = {'at most ' if race else ''}{_counted(count * seeds, 'run')}"
    if confirm is not None:
        top = min(confirm.top, count)
        fresh = _counted(confirm.seeds, "fresh seed")
        end += f"; then the best {top} x {fresh} = {_counted(top * confirm.seeds, 'run')}"
    if study.searcher.name != "plan":
        return f"{_counted(count, 'configuration')} chosen by {study.searcher.name}, {end}"
    dimensions = study.dimensions
    counts = [len(dimension.arguments) for dimension in dimensions if dimension.is_grid]
    factors = [f"{number}" for number in counts if number > 1]
    if not all(dimension.is_grid for dimension in dimensions):
        factors.append(_counted(study.samples, "sample"))
    start = f"{' x '.join(factors)} = " if len(factors) > 1 or expansion.points != count else ""
    if expansion.points != count:
        start += f"{_counted(expansion.points, 'combination')}, of which {count:,} differ: "
    return f"{start}{_counted(count, 'configuration')}, {end}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
