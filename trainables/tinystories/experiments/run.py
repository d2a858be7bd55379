"""One experiment through rung's engine: starts it, or goes on where it stopped, and leaves the files of an experiment.

    config = ExperimentConfig.from_json("trainables/tinystories/configs/quick_test.json")
    directory = run_experiment("first", config, Path("runs/first"))

The same call after a kill goes on from the newest checkpoint, to the same numbers as without the kill. An experiment
that is finished is left alone: its name is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import RungError, StorageError
from rung.locks import FileLock
from rung.provenance import file_hash, launch_record
from rung.results.files import replace_file
from trainables.language.command_line import choose_device
from trainables.models.decoder_config import parameter_breakdown
from trainables.tinystories.experiment_config import ExperimentConfig, read_json
from trainables.tinystories.experiment_logger import ExperimentLogger
from trainables.tinystories.experiments.directory import (
    CHECKPOINTS,
    METRICS,
    PROVENANCE,
    holds_experiment,
    read_summary,
    write_json,
)
from trainables.tinystories.experiments.metrics_file import MetricRow, read_rows
from trainables.tinystories.experiments.trainable import ExperimentTrainable, build_trainable, data_files

if TYPE_CHECKING:
    from rung.training.run import Run


def run_experiment(name: str, config: ExperimentConfig, directory: Path, resume_from: Path | None = None) -> Path:
    """Trains an experiment, or what is left of it, and returns its folder.

    Args:
        name: its name.
        config: its settings.
        directory: its folder.
        resume_from: a checkpoint (`.../checkpoints/step-0000001000`) or an experiment's folder (its newest checkpoint)
            from which an experiment without checkpoints of its own begins: model, optimizer, position in the data,
            clock, best value and, up to there, rows.

    Raises:
        RungError: settings that cannot be trained, data that is not there, a folder that holds another experiment or
            this one finished, a checkpoint that cannot be gone on from.
        StorageError: the folder cannot be read or written.
    """
    config = config.model_copy(update={"experiment_name": name}).with_id()
    refuse_finished(directory, config)
    trainable = build_trainable(config, training_device(config))
    _make(directory)
    lock = FileLock(directory / "lock", wait=0.5)
    try:
        _train(config, directory, trainable, resume_from)
    finally:
        lock.release()
    return directory


def refuse_finished(directory: Path, config: ExperimentConfig) -> None:
    """Raises RungError if the folder holds another experiment, or this one and it has come to its end."""
    if not holds_experiment(directory, config):
        return
    summary = read_summary(directory) or {}
    if summary.get("status", "running") != "running":
        raise RungError(
            f"{directory} holds this experiment already, {summary['status']} at step "
            f"{summary['statistics']['total_steps']}: choose another name, or delete that folder"
        )


def training_device(config: ExperimentConfig) -> str:
    """The device that an experiment asks for, or the best there is.

    Raises:
        RungError: it is not there, or `dtype` needs another.
    """
    device = choose_device(config.device)
    if config.dtype == "float16" and not device.startswith("cuda"):
        raise RungError(f"dtype: float16 needs a GPU, and the device is {device}; bfloat16 and float32 run anywhere")
    return device


def breakdown(trainable: ExperimentTrainable) -> dict[str, int]:
    """Trainable parameters by part; see `parameter_breakdown`."""
    config = trainable.config
    return parameter_breakdown(config.model, config.vocabulary, config.context)


@dataclass(frozen=True)
class _Source:
    """Where an experiment begins that takes up another's checkpoint."""

    checkpoint: Path
    experiment: Path
    rows: Sequence[MetricRow]
    """Of that experiment, all of them."""


def _train(config: ExperimentConfig, directory: Path, trainable: ExperimentTrainable, resume_from: Path | None) -> None:
    """Nothing of the experiment is written before it is known that it can begin: a refused one must not take a name."""
    run, notes = _resumed(config, directory, trainable)
    source = _source(resume_from) if resume_from is not None and run.progress.step == 0 else None
    if source is not None:
        _take_over(run, config, source)
    elif resume_from is not None:
        notes.append(f"goes on from its own checkpoint at step {run.progress.step:,}, not from {resume_from}")
    logger = ExperimentLogger(config.experiment_name, config, directory)
    try:
        for note in notes:
            logger.info(note)
        if source is not None:
            _take_rows(run, logger, source)
            _take_best(run, logger, source)
            logger.info(f"goes on from {source.checkpoint}")
        _train_on(run, logger, trainable)
    finally:
        logger.close()


def _train_on(run: Run, logger: ExperimentLogger, trainable: ExperimentTrainable) -> None:
    from rung.training.loop import train
    from trainables.tinystories.experiments.recorder import ExperimentRecorder

    config = logger.tracker.config
    logger.rewind(run.progress.step, run.progress.evaluated_step)
    parameters = breakdown(trainable)
    logger.tracker.facts = {"parameters": parameters, "seed": config.seed, "device": trainable.device}
    _record_launch(logger, trainable)
    parts = ", ".join(f"{part} {count:,}" for part, count in parameters.items() if part != "total" and count)
    logger.info(f"{logger.experiment_name}: {config.description or 'no description'}")
    logger.info(f"{parameters['total']:,} parameters ({parts}) on {trainable.device}")
    logger.info(f"step {run.progress.step:,} of {config.max_iterations:,}; files in {logger.output_dir}")
    recorder = ExperimentRecorder(logger, run)
    train(run, config.max_iterations, recorder)
    if run.progress.status == "diverged":
        logger.tracker.facts["diverged_step"] = run.progress.step
    recorder.finish(run)
    logger.finalize(run.progress.status)


def _resumed(config: ExperimentConfig, directory: Path, trainable: ExperimentTrainable) -> tuple[Run, list[str]]:
    """The run as its own newest checkpoint left it, else at its beginning; and what is to be said about that."""
    from rung.training.assignment import Goal
    from rung.training.checkpoints import resume
    from rung.training.run import Run

    goal = Goal(unit="steps", amount=config.max_iterations, metric="validation/loss", mode="min", select="best")
    return resume(lambda: Run(trainable, config.experiment_id, goal), directory / CHECKPOINTS)


def _source(path: Path) -> _Source:
    """The checkpoint that a path means. Raises StorageError if there is none, or the rows beside it are damaged."""
    from rung.training.checkpoint_files import is_complete, latest_checkpoint

    if is_complete(path):
        return _read_source(path, path.resolve().parent.parent)
    for folder in (path / CHECKPOINTS, path):
        checkpoint = latest_checkpoint(folder)
        if checkpoint is not None:
            return _read_source(checkpoint, folder.resolve().parent)
    raise StorageError(
        f"there is no checkpoint in {path}: name one (runs/NAME/checkpoints/step-0000001000) or an experiment's folder"
    )


def _read_source(checkpoint: Path, experiment: Path) -> _Source:
    path = experiment / METRICS
    return _Source(checkpoint, experiment, read_rows(path) if path.exists() else [])


def _take_over(run: Run, config: ExperimentConfig, source: _Source) -> None:
    """Puts the run of a new experiment where a checkpoint of another stands."""
    from rung.training.checkpoints import DamagedCheckpoint, load_checkpoint

    try:
        load_checkpoint(run, source.checkpoint)
    except DamagedCheckpoint as error:
        raise StorageError(f"{error}: choose an earlier checkpoint") from error
    run.reopen()
    if run.has_ended or run.is_used_up():
        raise RungError(
            f"{source.checkpoint} stands at step {run.progress.step:,} ({run.progress.status}): there is nothing left "
            f"to train up to max_iterations {config.max_iterations:,}"
        )
    _keep_constants(run)


def _keep_constants(run: Run) -> None:
    """Gives the optimizer the constants of this experiment again; with its state came those of the other one."""
    from rung.training.optimizers import build_optimizer

    own = build_optimizer(run.config.optimizer, run.model).param_groups
    for group, constants in zip(run.optimizer.param_groups, own, strict=True):
        group.update({name: value for name, value in constants.items() if name != "params"})


def _take_rows(run: Run, logger: ExperimentLogger, source: _Source) -> None:
    logger.tracker.rewind(-1)  # an attempt may have been killed before its first checkpoint
    for row in source.rows:
        if row.step <= (run.progress.step if row.val_loss is None else run.progress.evaluated_step):
            logger.tracker.append(row)


def _take_best(run: Run, logger: ExperimentLogger, source: _Source) -> None:
    """The best weights so far, if the other experiment still has them; else the next evaluation is the best."""
    from trainables.tinystories.experiments.recorder import BEST, BEST_FACTS

    theirs, ours = source.experiment / CHECKPOINTS, logger.output_dir / CHECKPOINTS
    try:
        facts = json.loads((theirs / BEST_FACTS).read_text())
        weights = (theirs / BEST).read_bytes() if facts["step"] == run.progress.best_step else None
    except (OSError, ValueError, KeyError):
        weights = None
    if weights is None:
        run.progress.best = run.progress.best_step = None
        return
    replace_file(ours / BEST, weights)
    write_json(ours / BEST_FACTS, facts)


def _record_launch(logger: ExperimentLogger, trainable: ExperimentTrainable) -> None:
    """Adds this launch to provenance.json: command, commit, versions, machine, data, and what the engine was told."""
    import torch

    path = logger.output_dir / PROVENANCE
    earlier = read_json(path)["launches"] if path.exists() else []
    files = [file for each in earlier for file in each["data"]]
    known = {(file["path"], file["bytes"], file["modified_ns"]): file["sha256"] for file in files}
    launch: Mapping[str, Any] = {
        **launch_record(torch.get_num_threads()),
        "configuration": trainable.config.model_dump(mode="json"),
        "data": [_file_record(file, known) for file in data_files(logger.tracker.config)],
    }
    write_json(path, {"launches": [*earlier, launch]})


def _file_record(path: Path, known: Mapping[tuple[str, int, int], str]) -> dict[str, Any]:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    return {"path": key[0], "bytes": key[1], "modified_ns": key[2], "sha256": known.get(key) or file_hash(path)}


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make the folder {directory}: {error.strerror or error}; choose another with --output-dir"
        ) from error
