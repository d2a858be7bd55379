"""Single runs from Python: `train_model` and `train_models`, a thin layer over a run of the engine.

    from trainables.modular_arithmetic.api import Arguments, train_model
    args = Arguments()
    args.model, args.exp_name = "gpt", "demo"
    metrics, directory = train_model(args)

A run's files lie under <log_dir>/<exp_name>/<exp_id>/: `config.json`, `<exp_name>_metrics.json` (see
`history`), model snapshots `<exp_name>_state_step=<n>_acc=<test accuracy>_loss=<test loss>.safetensors`, and
the checkpoint that an interrupted run goes on from. The same call again resumes such a run, and returns at
once for a finished one. Sweeps are what `rung run` is for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from rung.errors import RungError
from rung.training.assignment import Goal
from trainables.language.dotted import flat
from trainables.modular_arithmetic.arguments import Arguments
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.history import History
from trainables.modular_arithmetic.launch import Launch, RunSettings, has_this_run, write_settings
from trainables.modular_arithmetic.trainable import ModularArithmetic

if TYPE_CHECKING:
    from rung.training.run import Report, Run

__all__ = ["Arguments", "RunSettings", "train_model", "train_models"]

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints of a run."""


def train_model(
    config: Arguments | ModularArithmeticConfig, **settings: Unpack[RunSettings]
) -> tuple[dict[str, Any], Path]:
    """Trains one run, or what is left of it, and returns its metrics (see `history`) and its directory.

    Args:
        config: `Arguments`, or a configuration together with `settings`.
        settings: fields of `Arguments` that are no part of a configuration; they override those of `config`.

    Raises:
        RungError: the settings cannot be trained, or the directory holds a run with other settings. Only the
            number of steps may grow: the run is then extended.
        StorageError: the directory cannot be read or written.
    """
    launch = Launch.of(config, settings)
    history = History(launch.path("metrics.json"), launch.arguments.seed, launch.config.orders)
    can_resume = has_this_run(launch) and history.load()
    if can_resume and launch.is_finished_by(history.document):
        return history.document, launch.directory
    write_settings(launch)
    _train(launch, history, can_resume)
    return history.document, launch.directory


def train_models(
    config: Arguments | ModularArithmeticConfig,
    seeds: Sequence[int] = (0, 42),
    random_seeds: int = 0,
    **settings: Unpack[RunSettings],
) -> list[Path]:
    """Trains one run per seed, one after another, and returns their directories, numbered like the seeds.

    Args:
        config: as in `train_model`; its own seed and `exp_id` play no part.
        seeds: of the runs.
        random_seeds: how many more to draw. They follow from `seeds`: the same call goes on with the same runs.
        settings: as in `train_model`.
    """
    if len(set(seeds)) < len(seeds):
        raise RungError(f"every seed may stand once, got {list(seeds)}")
    everything = [*seeds, *_more_seeds(seeds, random_seeds)]
    if not everything:
        raise RungError("give at least one seed, or random_seeds")
    directories = []
    for index, seed in enumerate(everything):
        run_settings: RunSettings = {**settings, "exp_id": index, "seed": seed}
        directories.append(train_model(config, **run_settings)[1])
    return directories


class _Recorder:
    """Keeps a run's history, snapshots and checkpoint on disk, and prints how it goes."""

    def __init__(self, launch: Launch, history: History) -> None:
        self._launch = launch
        self._history = history
        self._last_checkpoint = time.monotonic()

    def report(self, run: Run, report: Report) -> None:
        arguments, step = self._launch.arguments, report.step
        self._history.add(step, report.epoch, report.wall_seconds, report.metrics)
        is_last = run.has_ended or step >= arguments.n_steps
        if arguments.verbose and (is_last or step % arguments.print_step == 0):
            print(_line(step, self._history), flush=True)
        if step and (is_last or self._wants_snapshot(step)):
            self._snapshot(run, report.metrics)
        if step and step % arguments.save_statistic_step == 0:
            self.save_history(run)

    def after_step(self, run: Run) -> None:
        step = run.progress.step
        is_evaluated = run.config.evaluation.is_due(step) or step >= self._launch.arguments.n_steps
        if self._wants_snapshot(step) and not is_evaluated:
            from rung.training.loop import evaluate

            # No report is going to come at this step, and the file's name says how good the model is.
            self._snapshot(run, evaluate(run, scheduled=False).metrics)
        if time.monotonic() - self._last_checkpoint >= CHECKPOINT_SECONDS:
            self.checkpoint(run)

    def checkpoint(self, run: Run) -> None:
        from rung.training.checkpoints import save_checkpoint

        # The history goes first: a resumed run must find every evaluation that its checkpoint knows of.
        self.save_history(run)
        save_checkpoint(run, self._launch.directory / "checkpoints")
        self._last_checkpoint = time.monotonic()

    def save_history(self, run: Run) -> None:
        progress = run.progress
        self._history.save(progress.status, progress.ended_by, progress.step, progress.wall_seconds)

    def _wants_snapshot(self, step: int) -> bool:
        return step == 1 or step % self._launch.arguments.save_model_step == 0

    def _snapshot(self, run: Run, metrics: dict[str, float]) -> None:
        from rung.training.checkpoints import save_model

        step = run.progress.step
        quality = f"acc={metrics['validation/accuracy']:.6g}_loss={metrics['validation/loss']:.6g}"
        path = self._launch.path(f"state_step={step}_{quality}.safetensors")
        # Another attempt on another machine may have rounded otherwise; a step has one snapshot.
        for older in path.parent.glob(f"*_state_step={step}_acc=*.safetensors"):
            older.unlink()
        save_model(run, path)


def _train(launch: Launch, history: History, can_resume: bool) -> None:
    """Starts or resumes the run and takes it to its end."""
    import torch

    from rung.training.checkpoints import resume
    from rung.training.loop import train
    from rung.training.run import Run

    arguments = launch.arguments
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    goal = Goal(unit="steps", amount=arguments.n_steps, metric="validation/accuracy", mode="max")
    trainable = ModularArithmetic(launch.config, arguments.seed, device)
    checkpoints = launch.directory / "checkpoints"
    if not can_resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    run, notes = resume(lambda: Run(trainable, f"{arguments.exp_name}-{arguments.exp_id}", goal), checkpoints)
    for note in notes:
        print(note, flush=True)
    if run.progress.ended_by == "budget" and run.progress.step < arguments.n_steps:
        run.progress.status, run.progress.ended_by = "running", None
    history.forget_after(run.progress.evaluated_step)
    if arguments.verbose:
        print(_heading(launch, device, run), flush=True)
    recorder = _Recorder(launch, history)
    train(run, arguments.n_steps, recorder)
    recorder.checkpoint(run)
    if arguments.verbose:
        progress = run.progress
        print(f"{progress.status} after {progress.step} steps and {progress.wall_seconds:.1f} s", flush=True)


def _more_seeds(seeds: Sequence[int], count: int) -> list[int]:
    generator = np.random.default_rng((len(seeds), *seeds))
    more: list[int] = []
    while len(more) < count:
        seed = int(generator.integers(2**31))
        if seed not in seeds and seed not in more:
            more.append(seed)
    return more


def _heading(launch: Launch, device: str, run: Run) -> str:
    arguments = launch.arguments
    settings = flat(launch.config.model_dump(mode="json", exclude_none=True))
    return "\n".join(
        [
            f"{launch.directory}: seed {arguments.seed}, {run.parameters:,} parameters on {device}, "
            f"step {run.progress.step} of {arguments.n_steps}",
            *(f"  {name}: {value}" for name, value in settings.items()),
        ]
    )


def _line(step: int, history: History) -> str:
    splits = (
        f"{split} loss {_number(values['loss'])} accuracy {_number(values['accuracy'])}"
        for split, values in history.latest().items()
    )
    return f"step {step} | {' | '.join(splits)}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.5f}"
