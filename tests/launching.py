"""Launches of a study without Ray: opened, trained and recorded as `rung run` does it, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.plan import make_plan
from rung.results.aggregation import Aggregation, too_many_failed
from rung.results.query import load
from rung.results.views import dicts
from rung.study import load_study
from rung.training.replication import start
from rung.tuning.goal import aggregation_of, assignment_of
from rung.tuning.schedulers import Scheduler
from rung.tuning.study_directory import OpenedStudy, open_study
from rung.tuning.sweep import restore_rule


def opened(path: Path, overrides: Sequence[str] = ()) -> OpenedStudy:
    """The study of a file, opened for a launch."""
    study = load_study(path, overrides)
    return open_study(study.directory.resolve(), study, make_plan(study), path.read_text())


def launch(path: Path, *overrides: str, most: int | None = None) -> OpenedStudy:
    """One launch of phase search, one configuration after another, rung by rung; `most` of them are trained."""
    study = opened(path, overrides)
    ledger, rule = study.search, study.plan.scheduler()
    restore_rule(rule, ledger)
    waiting = [each for each in study.plan.configurations if ledger.states[each.config_id] == "waiting"]
    for configuration in waiting[:most]:
        aggregation = aggregation_of(study.plan.study, configuration.config)
        _train(study, configuration, rule, aggregation)
    study.journal.close()
    return study


def _train(study: OpenedStudy, configuration: Any, rule: Scheduler, aggregation: Aggregation) -> None:
    ledger, name = study.search, configuration.config_id
    replication = start(assignment_of(study.plan.study, configuration, study.launch.number))
    ledger.start(name)
    levels = [level for level in rule.levels_of(name) if level not in ledger.levels_decided(name)]
    for level in (*levels, study.plan.rungs[-1]):
        rows = replication.advance(level, study.plan.seeds_at(level))
        ledger.report(name, rows)
        if too_many_failed(rows):
            ledger.end(name, "failed", "too few runs to judge it by")
            break
        if replication.has_ended or level == study.plan.rungs[-1]:
            ledger.end(name, "completed", "trained")
            break
        ledger.decide(rule.report(name, level, aggregation.value(rows)))
        if ledger.states[name] == "stopped":
            break
    replication.close()


def reports(directory: Path, *columns: str) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What every run has reported, by run and step."""
    return {
        (row["run_id"], row["step"]): tuple(row[column] for column in columns) for row in dicts(load(directory).metrics)
    }


def runs(directory: Path, *columns: str) -> dict[str, tuple[Any, ...]]:
    """Columns of the table `runs`, by run."""
    return {row["run_id"]: tuple(row[column] for column in columns) for row in dicts(load(directory).runs)}
