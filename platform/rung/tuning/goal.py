"""From a study to what the engine needs: a run's goal, a configuration's assignment, a rung's aggregate."""

from __future__ import annotations

from typing import Any

from rung.plan import Plan, PlannedConfiguration
from rung.results.aggregation import Aggregation
from rung.study import Study, worst_value
from rung.training.assignment import Assignment, Goal, Target


def goal_of(study: Study) -> Goal:
    """How long the runs of a study train, and what they are judged by."""
    budget, metric = study.budget, study.metric
    target = budget.target
    return Goal(
        unit=budget.unit,
        amount=budget.amount,
        metric=metric.name,
        mode=metric.mode,
        select=metric.select,
        window=metric.window,
        target=Target(target.metric, target.value, target.mode) if target else None,
        wall_clock=budget.cap,
    )


def assignment_of(
    study: Study, plan: Plan, configuration: PlannedConfiguration, launch: int | None = None
) -> Assignment:
    """The runs of one configuration, as a training process takes them."""
    return Assignment(
        directory=str(study.directory.resolve()),  # Ray changes the working directory of its workers
        study=study.study,
        trainable=study.trainable,
        config_id=configuration.config_id,
        config=configuration.config.model_dump(mode="json"),
        seeds=tuple(study.seeds),
        goal=goal_of(study),
        replication=study.replication,
        device="cuda" if study.resources.gpus else "cpu",
        checkpoint_seconds=study.checkpoints.seconds,
        keep_stopped=study.checkpoints.keep == "all",
        launch=launch,
        rungs=tuple(plan.rungs),
    )


def aggregation_of(study: Study, config: Any) -> Aggregation:
    """How a configuration's runs become one value at a rung."""
    metric = study.metric
    return Aggregation(
        mode=metric.mode,
        across_seeds=metric.across_seeds,
        diverged=metric.diverged,
        worst_value=worst_value(study, config),
    )
