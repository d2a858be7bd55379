"""One run of a training command through rung's engine."""

from __future__ import annotations

from pathlib import Path

import torch

from rung.errors import RungError
from rung.locks import FileLock
from rung.training.assignment import Goal
from rung.training.checkpoints import resume
from rung.training.loop import train
from rung.training.run import Run
from trainables.arithmetic.model_folder import describe_model
from trainables.arithmetic.training_folder import CHECKPOINTS, CONFIG, record_launch, write_json
from trainables.arithmetic.training_plan import Plan
from trainables.arithmetic.training_recorder import Recorder


def run_plan(made: Plan, folder: Path) -> Run:
    """Trains, or what is left of it, and leaves the folder's files.

    Raises:
        RungError: another process is at it, or what it reads has changed since it began.
        StorageError: the folder cannot be read or written.
    """
    lock = FileLock(folder / "lock", wait=0.5)
    try:
        record_launch(folder, made.inputs, torch.get_num_threads())
        write_json(folder / CONFIG, made.settings.model_dump(mode="json"))
        describe_model(folder, made.trainable.config, made.settings.tokens_by)
        run = _run(made, folder)
        _print_heading(made, run, folder)
        recorder = Recorder(made, run, folder)
        try:
            for epoch in range(1, made.settings.num_epochs + 1):
                train(run, epoch * made.steps_per_epoch, recorder)
        finally:
            recorder.close()
        recorder.finish(run)
        return run
    finally:
        lock.release()


def _run(made: Plan, folder: Path) -> Run:
    """The run as its newest checkpoint left it, or at its beginning."""
    measures = made.measures
    metric = measures.evaluated[measures.best_by]
    goal = Goal(unit="steps", amount=made.steps, metric=metric, mode=measures.mode)
    run, notes = resume(lambda: Run(made.trainable, folder.name, goal), folder / CHECKPOINTS)
    for note in notes:
        print(note)
    run.reopen()
    if made.start is not None and run.progress.step == 0:
        try:
            made.trainable.begin_from(run.model, made.start.weights, made.start.config)
        except RungError as error:
            raise RungError(f"{made.settings.checkpoint} cannot be begun with: {error}") from error
    return run


def _print_heading(made: Plan, run: Run, folder: Path) -> None:
    trainable, settings = made.trainable, made.settings
    print(
        f"{folder}: {run.parameters:,} trainable parameters, vocabulary {trainable.tokenizer.size}, seed "
        f"{settings.seed}, {trainable.device} {trainable.config.precision}\n"
        f"{made.items:,} items to train on, {made.held_out:,} held out; "
        f"{made.steps_per_epoch:,} steps per epoch, step {run.progress.step:,} of {made.steps:,}",
        flush=True,
    )
    if settings.warmup_steps >= made.steps:
        print(
            f"warning: a warm-up of {settings.warmup_steps:,} steps is not over after {made.steps:,}: the learning "
            "rate never comes to its peak (--warmup-steps)"
        )
