"""Trains one configuration of a study in this process: no Ray, so breakpoints and profilers work.

The rows land in a directory of their own beside the study's (`<study>.solo`), always from scratch and without
checkpoints; every verb that reads results reads them too.
"""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from rung.errors import RungError
from rung.locks import study_lock
from rung.plan import Plan, PlannedConfiguration
from rung.provenance import record_launch
from rung.results.store import compact
from rung.study import SOLO_SUFFIX, Study, study_json
from rung.tracking import tracked
from rung.training import environment
from rung.training.assignment import Assignment
from rung.tuning.goal import assignment_of
from rung.tuning.ledger import Journal, Ledger
from rung.tuning.study_directory import check_data, configuration_rows, prepare, write_study
from rung.tuning.tasks import search_task


def choose(plan: Plan, wanted: str | None) -> PlannedConfiguration:
    """The planned configuration whose id begins with `wanted`; the first of the study when None.

    Raises:
        RungError: none, or more than one, begins so.
    """
    ordered = sorted(plan.configurations, key=lambda configuration: configuration.index)
    found = [each for each in ordered if each.config_id.startswith(wanted or "")]
    if wanted is None or len(found) == 1:
        return found[0]
    listed = "\n".join(f"  {each.config_id}  {each.label}" for each in (found or ordered)[:20])
    raise RungError(f"{len(found)} configurations have an id that begins with {wanted!r}; there are:\n{listed}")


def train_solo(study: Study, plan: Plan, text: str, wanted: str | None, console: Console) -> Path:
    """Trains the runs of one configuration, showing every report.

    Returns:
        The directory of the rows.

    Raises:
        RungError: no such configuration; storage that cannot be written.
        Exception: whatever a run raises.
    """
    check_data(plan)
    configuration, threads = choose(plan, wanted), study.resources.cpus
    directory = Path(f"{study.directory}{SOLO_SUFFIX}").resolve()
    environment.apply(environment.process_environment(threads), threads)
    prepare(plan, console)
    console.print(f"{configuration.config_id}  {configuration.label or 'the base configuration'}")
    if study.resources.workers > 1:
        console.print(
            f"resources.workers is {study.resources.workers}: `rung train` trains the same batches in one process; "
            "the numbers are the same within rounding, but for dropout masks",
            highlight=False,
        )
    study = study.model_copy(update={"study": f"{study.study}{SOLO_SUFFIX}"})
    with study_lock(directory):
        shutil.rmtree(directory / "tables", ignore_errors=True)
        write_study(directory, study, plan, text)
        configs = [configuration.config]
        launch = record_launch(directory, study_json(study, plan), study.trainable, threads, configs)
        assignment = assignment_of(study, plan, configuration, launch.number)
        assignment = dataclasses.replace(assignment, directory=str(directory), checkpoint_seconds=None)
        journal = Journal(directory, study.study, launch.number)
        journal.add_configurations(configuration_rows(study, [configuration], launch.number))
        task = search_task(configuration.config_id, study.seeds)
        ledger = Ledger(journal, [task], assignment.goal, "none", study.replication)
        ledger.event("solo", f"started {datetime.now(UTC).isoformat()}", configuration.config_id)
        with tracked(study.tracking, directory, console):
            _train(assignment, ledger, plan.rungs[-1], console)
        compact(directory)
    return directory


def _train(assignment: Assignment, ledger: Ledger, level: float, console: Console) -> None:
    from rung.training.replication import start
    from rung.training.run import Report, Run

    metric = assignment.goal.metric

    def show(run: Run, report: Report) -> None:
        value = report.metrics.get(metric, float("nan"))
        where = f"{run.run_id}  step {report.step:>8,}  {report.wall_seconds:8.1f} s"
        console.print(f"{where}  {metric} {value:.6g}", highlight=False)

    replication = start(assignment, show, catch=False)
    ledger.start(assignment.config_id)
    try:
        replication.advance(level)
    finally:
        ledger.report(assignment.config_id, replication.rows())
        replication.close()
        ledger.journal.close()
