"""What a plan may well do that its author hardly wants: for `rung plan` to say and `rung run` to repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rung.cost import steps_at
from rung.trainable import find_trainable
from rung.yaml_file import dotted, leaves

if TYPE_CHECKING:
    from rung.plan import Plan

ROUGHNESS = 2.0
"""What a trainable says about a plateau is right within about this factor: only a rung that lies before the plateau's
end even so is called too early."""

_WIDEST = 2.0
"""Half the width of an interval, in standard deviations of the seeds, above which hardly anybody lies outside of it."""


def warnings_of(plan: Plan) -> tuple[str, ...]:
    """Whole sentences, the most important first."""
    if len(plan.rungs) == 1:
        idle = plan.study.scheduler.name == "fifo" and plan.study.scheduler.confidence is not None
        pointless = ("fifo compares nobody: scheduler.confidence does nothing",) if idle else ()
        return (*plan.missing, *_idle(plan), *pointless, *_confirmation(plan))
    return (
        *plan.missing,
        *_idle(plan),
        *_plateau(plan),
        *_nobody_stops(plan),
        *_confidence(plan),
        *_confirmation(plan),
    )


def _idle(plan: Plan) -> Iterator[str]:
    """Settings that are given and change nothing."""
    kind, study = find_trainable(plan.study.trainable), plan.study
    reasons = [kind.idle(example.config) for example in plan.examples]
    given = {dimension.path: "swept" for dimension in study.dimensions}
    given = {dotted(path): "given" for path, _ in leaves(study.base)} | given
    for path, how in given.items():
        if reasons and all(path in each for each in reasons):
            yield f"{path} is {how} and changes nothing: {reasons[0][path]}"


def _plateau(plan: Plan) -> Iterator[str]:
    """Rungs before the end of a plateau that the trainable knows of."""
    unit, metric = plan.unit, plan.study.metric.name
    if unit == "wall_clock":
        return  # how many steps fit into a second is not known
    kind = find_trainable(plan.study.trainable)
    ends = 0, 0
    early: set[int] = set()
    count = 0
    for example in plan.examples:
        plateau = kind.plateau(example.config, metric)
        if plateau is None:
            continue
        workload = kind.workload(example.config)
        before = [level for level in plan.rungs[:-1] if ROUGHNESS * steps_at(unit, level, workload) < plateau]
        if before:
            per_level = steps_at(unit, plan.rungs[-1], workload) / plan.rungs[-1]
            early.update(before)
            count += 1
            ends = max(ends, (plateau, math.ceil(plateau / per_level)))
    if early:
        steps, grace = ends
        which = "" if count == len(plan.examples) else f" of {count} of the {len(plan.examples)} configurations"
        yield (
            f"{_listed(sorted(early), plan.unit_name)} before the plateau of {metric}{which} ends (about {steps:,} "
            f"steps, as {plan.study.trainable} says): configurations are stopped there that have only not risen yet. "
            f"{_advice(plan, grace)}"
        )


def _listed(levels: list[int], unit: str) -> str:
    if len(levels) == 1:
        return f"the rung at {levels[0]:,} {unit} lies"
    return f"the rungs at {', '.join(f'{level:,}' for level in levels)} {unit} lie"


def _advice(plan: Plan, grace: int) -> str:
    if grace >= plan.rungs[-1]:
        return "No rung below the budget lies after it: take scheduler fifo, or a longer budget"
    return f"Set scheduler.grace to {grace} or more, or scheduler.name to fifo"


def _nobody_stops(plan: Plan) -> Iterator[str]:
    """Rules that need more configurations than there are."""
    if plan.count > 1 and plan.climb[-1].configurations >= plan.count:
        name = plan.study.scheduler.name
        yield (
            f"{name} can stop none of {plan.count} configurations: it lets as many go on before it stops the first "
            "(scheduler.minimum for asha). Take fifo, or more configurations"
        )


def _confirmation(plan: Plan) -> Iterator[str]:
    """Fresh seeds that are too few for any test to tell the confirmed configurations apart."""
    confirm = plan.study.confirm
    if confirm is None or min(confirm.top, plan.count) == 1:
        return
    from rung.results.significance import fewest_pairs  # brings numpy, which most plans do without

    rivals = min(confirm.top, plan.count) - 1
    least = fewest_pairs(0.05 / rivals)
    if confirm.seeds < least:
        yield (
            f"{confirm.seeds} fresh seeds can name no winner among {rivals + 1} configurations: a paired permutation "
            f"test at 5 % takes at least {least}. Set confirm.seeds to {least} or more"
        )


def _confidence(plan: Plan) -> Iterator[str]:
    """Intervals that too few seeds make useless."""
    confidence, seeds = plan.study.scheduler.confidence, plan.seed_counts[0]
    where = f"at the first rung ({plan.rungs[0]:,} {plan.unit_name})"
    if confidence is None:
        return
    if seeds == 1:
        yield f"scheduler.confidence does nothing {where}: an interval takes at least 2 seeds, and there is 1"
        return
    from scipy.special import stdtrit

    width = float(stdtrit(seeds - 1, (1 + confidence) / 2)) / math.sqrt(seeds)
    if width > _WIDEST:
        yield (
            f"hardly anybody can be stopped {where}: the {100 * confidence:g} % interval of {seeds} seeds reaches "
            f"{width:.1f} standard deviations to either side. Take more seeds, or a lower scheduler.confidence"
        )
