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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rung.errors import RungError
from rung.locks import study_lock
from rung.plan import Plan
from rung.provenance import append_launch, launch_record
from rung.results.store import compact
from rung.study import Study
from rung.training import environment
from rung.tuning.ledger import Ledger
from rung.tuning.progress import ProgressView, SweepShape
from rung.tuning.retention import keep_checkpoints
from rung.tuning.schedulers import Scheduler
from rung.tuning.study_directory import configuration_rows, open_directory

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
    """Configuration id to waiting, completed, stopped or failed."""
    failed_runs: int
    was_complete: bool
    """Whether there was nothing left to do."""


def run_sweep(study: Study, plan: Plan, text: str, console: Console, debug: bool = False) -> Outcome:
    """Runs what is left of a study.

    Args:
        study, plan: the study and its expansion.
        text: the study file as the user wrote it, kept beside the results.
        console: where progress is shown.
        debug: leaves Ray's and Tune's own messages on.

    Raises:
        RungError: another study or another driver in the same directory, storage that cannot be written, resources
            that this Ray does not have.
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything reported so far is on disk.
    """
    directory = study.directory.resolve()
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    else:
        _check_resources(study, {"CPU": float(os.cpu_count() or 1)})
    with study_lock(directory):
        open_directory(directory, study, plan, text)
        append_launch(directory / "provenance.json", launch_record(study.resources.cpus))
        config_ids = [configuration.config_id for configuration in plan.configurations]
        ledger = Ledger(directory, study.study, config_ids, study.seeds, study.scheduler.name, study.replication)
        try:
            was_complete = _sweep(study, plan, ledger, console, debug)
        except KeyboardInterrupt:
            ledger.event("interrupted", "the driver was asked to stop")
            raise
        finally:
            ledger.close()
        keep_checkpoints(ledger, study.checkpoints.keep)
        compact(directory)
        return Outcome(directory, dict(ledger.states), ledger.failed_runs(), was_complete)


def _sweep(study: Study, plan: Plan, ledger: Ledger, console: Console, debug: bool) -> bool:
    ledger.event("resume" if ledger.is_resumed else "launch", plan.product)
    ledger.add_configurations(configuration_rows(study, plan.configurations))
    rule = plan.scheduler()
    _restore(rule, ledger)
    if not ledger.unfinished() and len(ledger.states) >= plan.count:
        return True
    with _interruptible(), _ray(study, debug), ProgressView(_shape(study, plan), ledger, rule, console):
        _fit(study, plan, ledger, rule)
    ledger.event("finished", f"{ledger.failed_runs()} failed runs")
    return False


def _restore(rule: Scheduler, ledger: Ledger) -> None:
    """Puts the rule where it stood: its decisions, and who takes part in no further comparison."""
    rule.restore(ledger.decisions)
    for config_id, state in list(ledger.states.items()):
        if state == "completed":
            ledger.decide(rule.withdraw(config_id))


def _fit(study: Study, plan: Plan, ledger: Ledger, rule: Scheduler) -> None:
    from ray import tune

    from rung.tuning.search import search_of
    from rung.tuning.trial import ConfigurationTrial
    from rung.tuning.tune_scheduler import StartCallback, StorageStopper, TuneScheduler

    search = search_of(study, plan, ledger, rule, threads=study.resources.cpus)
    scheduler = TuneScheduler(rule, ledger)
    scratch = ledger.directory / ".tune"
    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(ConfigurationTrial, {"CPU": study.resources.cpus, "GPU": study.resources.gpus}),
        param_space=search.space,
        tune_config=tune.TuneConfig(
            search_alg=search.algorithm,
            num_samples=search.samples,
            scheduler=scheduler,
            max_concurrent_trials=_concurrent_trials(study),
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="scratch",
            storage_path=str(scratch.resolve()),
            verbose=0,
            callbacks=[StartCallback(ledger)],
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
    shutil.rmtree(scratch, ignore_errors=True)
    for config_id in [each for each, state in ledger.states.items() if state in ("waiting", "running", "paused")]:
        ledger.fail(config_id, "Ray Tune ended without having trained it to its end")


def _concurrent_trials(study: Study) -> int | None:
    """Tune's own cap on trials; on a Ray that is started here the number of its cores is the cap (see `_ray`).

    Raises:
        RungError: there is no way to cap them. Tune counts paused trials, too, so that a rule that waits for all
            configurations would wait for ever.
    """
    concurrent = study.resources.concurrent
    if concurrent is None or not os.environ.get("RAY_ADDRESS"):
        return None
    if study.scheduler.name in ("synchronous_halving", "hyperband"):
        raise RungError(
            f"resources.concurrent: {study.scheduler.name} pauses configurations, and on a Ray that is joined nothing "
            "else can cap them: ask for more cpus each, or take asha"
        )
    return concurrent


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"]["config_id"])


@contextmanager
def _ray(study: Study, debug: bool) -> Iterator[None]:
    """Joins the Ray of RAY_ADDRESS, or starts one on this machine, with what a training process needs."""
    variables = environment.process_environment(study.resources.cpus)
    os.environ.update(_QUIET)
    os.environ.update(variables)  # a Ray started here hands its environment on to its workers
    import ray

    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {}
    if address:
        options["runtime_env"] = {"env_vars": variables}
    else:
        cores = os.cpu_count() or 1
        if study.resources.concurrent is not None:
            cores = min(cores, study.resources.concurrent * study.resources.cpus)
        options.update(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=256 * 1024**2)
    if not debug:
        options.update(log_to_driver=False, logging_level=logging.CRITICAL)
        logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray.init(**options)
    try:
        _check_resources(study, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes, with messages that nobody understands."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # auto, local, or a name that only Ray can resolve
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise RungError(f"RAY_ADDRESS is {address}, but no Ray answers there: {error}") from error


def _check_resources(study: Study, available: dict[str, float]) -> None:
    wanted = {"CPU": study.resources.cpus, "GPU": study.resources.gpus}
    for name, amount in wanted.items():
        if amount > available.get(name, 0.0) and (name == "CPU" or "node:__internal_head__" in available):
            raise RungError(
                f"resources.{name.lower()}s: one configuration asks for {amount:g} {name}s, but this Ray has "
                f"{available.get(name, 0.0):g}. Ask for less, or set RAY_ADDRESS to a larger cluster"
            )


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
