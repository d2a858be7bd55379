"""What Tune is to try: what is left of the plan, or what a searcher chooses. As Tune's own parameter space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from rung.configuration import PlannedConfiguration, resolver_of
from rung.plan import Plan
from rung.results.query import load
from rung.results.views import dicts
from rung.study import Study
from rung.tuning.goal import aggregation_of, assignment_of
from rung.tuning.ledger import Ledger
from rung.tuning.schedulers import Scheduler
from rung.tuning.study_directory import configuration_rows, stored_configuration
from rung.tuning.tasks import Task, search_task
from rung.tuning.trial import GroupSize, TrialTask

MILESTONES = 20
"""Reports of a configuration over its budget, at least where its evaluations are no rarer."""


@dataclass(frozen=True)
class Search:
    """What `tune.Tuner` and `tune.TuneConfig` are given."""

    space: dict[str, Any]
    algorithm: Searcher | None
    samples: int


def search_of(study: Study, plan: Plan, ledger: Ledger, rule: Scheduler) -> Search:
    """What is left to try of a study.

    Raises:
        RungError: the searcher's package is not installed.
    """

    def parameters(configuration: PlannedConfiguration) -> dict[str, Any]:
        decided = ledger.levels_decided(configuration.config_id)
        compared = [level for level in rule.levels_of(configuration.config_id) if level not in decided]
        levels = sorted({*compared, *milestones(plan, configuration), plan.rungs[-1]})
        task = TrialTask(
            assignment=assignment_of(study, plan, configuration, ledger.journal.launch),
            levels=tuple((level, plan.seeds_at(level)) for level in levels),
            aggregation=aggregation_of(study, configuration.config),
            threads=study.resources.cpus,
            group=_group(study),
            confidence=study.scheduler.confidence,
        )
        return task.as_parameters()

    if study.searcher.name == "plan":
        left = [each for each in plan.configurations if ledger.states[each.config_id] == "waiting"]
        return Search({"trial": tune.grid_search([parameters(each) for each in left])}, None, 1)
    return _optuna(study, ledger, parameters)


def confirmation_of(study: Study, plan: Plan, ledger: Ledger, chosen: Sequence[PlannedConfiguration]) -> Search:
    """What is left to try of phase confirm: the tasks of its ledger, each to the end of the budget."""
    configurations = {each.config_id: each for each in chosen}

    def parameters(task: Task) -> dict[str, Any]:
        configuration = configurations[task.config_id]
        assignment = assignment_of(study, plan, configuration, ledger.journal.launch)
        whole = TrialTask(
            assignment=dataclasses.replace(assignment, phase="confirm", seeds=task.seeds),
            levels=tuple((level, len(task.seeds)) for level in (*milestones(plan, configuration), plan.rungs[-1])),
            aggregation=aggregation_of(study, configuration.config),
            threads=study.resources.cpus,
            group=_group(study),
        )
        return whole.as_parameters()

    left = [task for name, task in ledger.tasks.items() if ledger.states[name] == "waiting"]
    return Search({"trial": tune.grid_search([parameters(task) for task in left])}, None, 1)


def _group(study: Study) -> GroupSize | None:
    resources = study.resources
    if resources.workers == 1:
        return None
    return GroupSize(resources.workers, resources.gpus, study.failures.retries)


def milestones(plan: Plan, configuration: PlannedConfiguration) -> list[int]:
    """Levels at which a configuration reports although nothing is decided there, so that its state in the table `runs`
    is never older than a twentieth of the budget. They lie on evaluation points and cost no evaluation of their own.
    """
    every, budget = configuration.config.evaluation.every, plan.rungs[-1]
    if plan.unit != "steps" or budget == 0:
        return []
    apart = -(-budget // (MILESTONES * every)) * every
    return list(range(apart, budget, apart))


def _optuna(study: Study, ledger: Ledger, parameters: Callable[[PlannedConfiguration], dict[str, Any]]) -> Search:
    from rung.tuning.optuna_searcher import OptunaSearcher

    def record(configuration: PlannedConfiguration) -> None:
        ledger.journal.add_configurations(configuration_rows(study, [configuration], ledger.journal.launch))
        ledger.add(search_task(configuration.config_id, study.seeds, study.seeds.start), configuration.label)

    resolver = resolver_of(study)
    searcher = OptunaSearcher(
        resolver,
        samples=study.samples,
        seed=study.searcher.seed,
        mode=study.metric.mode,
        ledger=ledger,
        task=parameters,
        record=record,
    )
    ended = 0
    for row in dicts(load(ledger.directory).configurations.order("plan_index")):
        configuration = stored_configuration(study, row)
        if ledger.states[configuration.config_id] == "waiting":
            searcher.resume(configuration)
            continue
        ended += 1
        aggregate = aggregation_of(study, configuration.config).value(ledger.runs[configuration.config_id].values())
        if aggregate is not None:
            searcher.learn(configuration.values, aggregate)
    return Search({}, searcher, study.samples - ended)
