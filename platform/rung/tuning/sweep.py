"""Runs a study on Ray Tune: from the plan to finished tables, going on where an earlier driver stopped.

Tune only starts, pauses and stops trials here. What has been done is known from the study's own tables and
checkpoints, so that the same command continues after Ctrl-C, kill -9 or a lost machine.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rung.errors import RungError
from rung.locks import study_lock
from rung.plan import Plan
from rung.results.store import compact
from rung.study import Study
from rung.tracking import tracked
from rung.training import environment
from rung.tuning.capacity import check_resources, concurrent_trials, local_cores, trial_resources
from rung.tuning.ledger import Ledger
from rung.tuning.progress import ProgressView, SweepShape
from rung.tuning.retention import keep_checkpoints
from rung.tuning.schedulers import Scheduler, make_scheduler
from rung.tuning.study_directory import OpenedStudy, best_of_search, check_data, open_study, prepare

if TYPE_CHECKING:
    from rung.tuning.search import Search

# Tune prints, logs and warns about files of its own that nobody reads here.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000",
    "TUNE_WARN_THRESHOLD_S": "1000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    directory: Path
    states: dict[str, str]
    """Of the search: configuration id to waiting, completed, stopped or failed."""
    failed_runs: int
    was_complete: bool
    """Whether there was nothing left to do."""


def run_sweep(study: Study, plan: Plan, text: str, console: Console, debug: bool = False) -> Outcome:
    """Runs what is left of a study: the search, then the confirmation.

    Args:
        study, plan: the study and its expansion.
        text: the study file as the user wrote it, kept beside the results.
        console: where progress is shown.
        debug: leaves Ray's and Tune's own messages on.

    Raises:
        RungError: a study in the same directory that this one cannot go on with, another driver there, resources
            that this Ray does not have.
        StorageError: the directory cannot be read or written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything reported so far is on disk.
    """
    directory = study.directory.resolve()
    check_machine(study)
    if not directory.exists():  # a study that is complete can be looked at without its data
        check_data(plan)
    with study_lock(directory):
        opened = open_study(directory, study, plan, text)
        for line in opened.notices:
            console.print(line, highlight=False, soft_wrap=True)
        sweep = _Sweep(opened, console, debug)
        with tracked(study.tracking, directory, console):
            try:
                was_complete = sweep.run()
            except KeyboardInterrupt:
                opened.journal.event("interrupted", "the driver was asked to stop")
                raise
            finally:
                opened.journal.close()
        # Here, and not only after Tune: an earlier driver may have been killed with nothing left to do but this.
        shutil.rmtree(directory / ".tune", ignore_errors=True)
        keep_checkpoints(directory, study.checkpoints.keep)
        compact(directory)
        failed = sum(ledger.failed_runs() for ledger in sweep.ledgers)
        return Outcome(directory, dict(opened.search.states), failed, was_complete)


class _Sweep:
    """One launch of a study, from phase to phase; Ray is started when there is something to train."""

    def __init__(self, opened: OpenedStudy, console: Console, debug: bool) -> None:
        self.opened = opened
        self.study, self.plan, self.journal = opened.plan.study, opened.plan, opened.journal
        self.ledgers = [opened.search]
        self._console = console
        self._debug = debug
        self._has_ray = False

    def run(self) -> bool:
        """Trains what is left; returns whether there was nothing."""
        with ExitStack() as stack:
            searched = self._search(stack)
            confirmed = self.study.confirm is not None and self._confirm(stack)
        if searched or confirmed:
            failed = sum(ledger.failed_runs() for ledger in self.ledgers)
            self.journal.event("finished", f"{failed} failed runs")
        return not (searched or confirmed)

    def _search(self, stack: ExitStack) -> bool:
        plan, ledger = self.plan, self.opened.search
        rule = plan.scheduler()
        restore_rule(rule, ledger)
        if ledger.is_complete and len(ledger.states) >= plan.count:
            return False
        self._start_ray(stack)
        from rung.tuning.search import search_of

        with ProgressView(_shape(self.study, plan), ledger, rule, self._console):
            _fit(self.study, ledger, rule, search_of(self.study, plan, ledger, rule))
        return True

    def _confirm(self, stack: ExitStack) -> bool:
        """Trains the best configurations with fresh seeds, once the search is over."""
        chosen = best_of_search(self.opened)
        ledger = self.opened.confirmation([each.config_id for each in chosen])
        self.ledgers.append(ledger)
        if ledger.is_complete:
            return False
        labels = "; ".join(f"{each.label or 'base'} ({each.config_id})" for each in chosen)
        self.journal.event("confirm", f"the best of the search, with fresh seeds: {labels}")
        self._console.print(f"confirming with fresh seeds: {labels}", highlight=False)
        self._start_ray(stack)
        from rung.tuning.search import confirmation_of

        rule = make_scheduler("fifo", levels=(), mode=self.study.metric.mode, configurations=())
        with ProgressView(_shape(self.study, self.plan), ledger, rule, self._console):
            _fit(self.study, ledger, rule, confirmation_of(self.study, self.plan, ledger, chosen))
        return True

    def _start_ray(self, stack: ExitStack) -> None:
        if not self._has_ray:
            check_data(self.plan)
            workers = self.study.resources.workers
            more = f", then {workers} workers for each configuration, which takes about 20 s" if workers > 1 else ""
            self._console.print(f"starting Ray{more}", highlight=False)
            stack.enter_context(_interruptible())
            stack.enter_context(_ray(self.study, self.opened.launch.variables, self._debug))
            self._has_ray = True
            prepare(self.plan, self._console)


def restore_rule(rule: Scheduler, ledger: Ledger) -> None:
    """Puts the rule where it stood: its decisions, and who takes part in no further comparison."""
    rule.restore(ledger.decisions)
    for name, state in list(ledger.states.items()):
        if state == "completed":
            ledger.decide(rule.withdraw(name))


def _fit(study: Study, ledger: Ledger, rule: Scheduler, search: Search) -> None:
    """Lets Tune train what a search gives."""
    from ray import tune

    from rung.tuning.trial import ConfigurationTrial
    from rung.tuning.tune_scheduler import StartCallback, StorageStopper, TuneScheduler

    scheduler = TuneScheduler(rule, ledger)
    scratch = ledger.directory / ".tune"
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(ConfigurationTrial, trial_resources(study)),
        param_space=search.space,
        tune_config=tune.TuneConfig(
            search_alg=search.algorithm,
            num_samples=search.samples,
            scheduler=scheduler,
            max_concurrent_trials=concurrent_trials(study),
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="scratch",
            storage_path=str(scratch.resolve()),
            verbose=0,
            callbacks=[StartCallback(ledger, scheduler)],
            stop=StorageStopper(scheduler),
            failure_config=tune.FailureConfig(max_failures=study.failures.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError as error:
        raise RungError(f"Ray Tune gave up: {str(error).strip().splitlines()[-1]}") from error
    if scheduler.storage_error is not None:
        raise scheduler.storage_error
    for name in [each for each, state in ledger.states.items() if state in ("waiting", "running", "paused")]:
        ledger.fail(name, "Ray Tune ended without having trained it to its end")


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


@contextmanager
def _ray(study: Study, snapshot: Mapping[str, str], debug: bool) -> Iterator[None]:
    """Joins the Ray of RAY_ADDRESS, or starts one on this machine, with what a training process needs."""
    variables = {**environment.process_environment(study.resources.cpus), **snapshot}
    os.environ.update(_QUIET)
    os.environ.update(variables)  # a Ray started here hands its environment on to its workers
    import ray

    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {}
    if address:
        options["runtime_env"] = {"env_vars": variables}
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        options.update(address="local", num_cpus=local_cores(study), include_dashboard=False)
        options.update(object_store_memory=256 * 1024**2)
    if not debug:
        options.update(log_to_driver=False, logging_level=logging.CRITICAL)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray.init(**options)
    try:
        check_resources(study, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def check_machine(study: Study) -> None:
    """Asks for the Ray that the study is to run on, or for what it needs of this machine.

    Raises:
        RungError: no Ray answers, or the machine has too little.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    else:
        check_resources(study, {"CPU": float(os.cpu_count() or 1)})


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes, with messages that nobody understands."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # auto, local, or a name that only Ray can resolve
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise RungError(f"RAY_ADDRESS is {address}, but no Ray answers there: {error}") from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a sweep as Ctrl-C does."""

    def interrupt(*unused: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shape(study: Study, plan: Plan) -> SweepShape:
    return SweepShape(
        study=study.study,
        metric=study.metric.name,
        mode=study.metric.mode,
        steps_per_run=int(plan.rungs[-1]) if plan.unit == "steps" else None,
        unit=plan.unit,
    )
