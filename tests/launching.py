"""Launches of a study without Ray: opened, trained and recorded as `rung run` does it, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler

from rung.plan import make_plan
from rung.results.query import load
from rung.results.views import dicts
from rung.start import stage_study
from rung.study import load_study
from rung.tuning.ledger import Ledger
from rung.tuning.search import search_of
from rung.tuning.study_directory import OpenedStudy, open_study
from rung.tuning.sweep import restore_rule
from rung.tuning.trial import ConfigurationTrial
from rung.tuning.tune_scheduler import TuneScheduler


def opened(path: Path, overrides: Sequence[str] = ()) -> OpenedStudy:
    """The study of a file, opened for a launch."""
    study = stage_study(load_study(path, overrides))
    return open_study(study.directory.resolve(), study, make_plan(study), path.read_text())


def launch(path: Path, *overrides: str, most: int | None = None) -> OpenedStudy:
    """One launch of phase search, one configuration after another, rung by rung; `most` of them are trained. Only for
    rules that let a configuration go on without waiting for others."""
    study = opened(path, overrides)
    train_search(study, most)
    return study


def train_search(study: OpenedStudy, most: int | None = None) -> None:
    """Trains what an opened study has left of phase search, as `launch` does."""
    ledger, rule = study.search, study.plan.scheduler()
    restore_rule(rule, ledger)
    scheduler = TuneScheduler(rule, ledger)
    search = search_of(study.plan.study, study.plan, ledger, rule)
    planned = search.space["trial"]["grid_search"] if search.space else []  # what a searcher chooses is not trained
    for parameters in planned[:most]:
        _train(ConfigurationTrial({"trial": parameters}), scheduler, ledger)
    assert scheduler.storage_error is None
    study.journal.close()


def _train(trial: ConfigurationTrial, scheduler: TuneScheduler, ledger: Ledger) -> None:
    """What Tune does with a trial: calls it until the scheduler does not want it to continue."""
    ledger.start(trial.config["trial"]["name"])
    while scheduler.on_trial_result(None, trial, trial.step()) == TrialScheduler.CONTINUE:
        pass
    trial.cleanup()


def reports(directory: Path, *columns: str) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What every run has reported, by run and step."""
    return {
        (row["run_id"], row["step"]): tuple(row[column] for column in columns) for row in dicts(load(directory).metrics)
    }


def runs(directory: Path, *columns: str) -> dict[str, tuple[Any, ...]]:
    """Columns of the table `runs`, by run."""
    return {row["run_id"]: tuple(row[column] for column in columns) for row in dicts(load(directory).runs)}
