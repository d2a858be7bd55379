"""Single runs from Python: `train_model` and `train_models`, a thin layer over a run of the engine.

    from trainables.modular_arithmetic.api import Arguments, train_model
    args = Arguments()
    args.model, args.exp_name = "gpt", "demo"
    metrics, directory = train_model(args)

A run's files lie under <log_dir>/<exp_name>/<exp_id>/: `config.json`, `<exp_name>_metrics.json` (see `history`), model
snapshots `<exp_name>_state_step=<n>_acc=<test accuracy>_loss=<test loss>.safetensors`, and the checkpoint that an
interrupted run goes on from. The same call again resumes such a run, and returns at once for a finished one. Sweeps
are what `rung run` is for.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from rung.errors import RungError, StorageError
from rung.provenance import launch_record, write_whole
from trainables.modular_arithmetic.arguments import Arguments
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.history import History
from trainables.modular_arithmetic.trainable import ModularArithmetic
from trainables.modular_arithmetic.workload import parameter_count

if TYPE_CHECKING:
    from rung.training.run import Report, Run

__all__ = ["Arguments", "RunSettings", "train_model", "train_models"]

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints of a run."""


class RunSettings(TypedDict, total=False):
    """What is not part of a configuration; the meaning and the defaults are those of `Arguments`."""

    n_steps: int
    print_step: int
    save_model_step: int
    save_statistic_step: int
    device: str
    exp_id: int
    exp_name: str
    log_dir: str
    seed: int
    verbose: bool


def train_model(
    config: Arguments | ModularArithmeticConfig, **settings: Unpack[RunSettings]
) -> tuple[dict[str, Any], Path]:
    """Trains one run, or what is left of it, and returns its metrics (see `history`) and its directory.

    Args:
        config: `Arguments`, or a configuration together with `settings`.
        settings: fields of `Arguments` that are no part of a configuration; they go before those of `config`.

    Raises:
        RungError: the settings cannot be trained, or the directory holds a run with other settings. Only `n_steps`
            may grow: the run is then extended.
        StorageError: the directory cannot be read or written.
    """
    launch = _Launch.of(config, settings)
    history = History(launch.path("metrics.json"), launch.arguments.seed, launch.config.orders)
    can_resume = _has_this_run(launch) and history.load()
    if can_resume and launch.is_finished_by(history.document):
        return history.document, launch.directory
    _write_settings(launch)
    _train(launch, history, can_resume)
    return history.document, launch.directory


def train_models(
    config: Arguments | ModularArithmeticConfig,
    seeds: Sequence[int] = (0, 42),
    random_seeds: int = 0,
    **settings: Unpack[RunSettings],
) -> list[Path]:
    """Trains one run per seed, one after another, and returns their directories; `exp_id` is the seed's index.

    Args:
        config: as in `train_model`; its own seed and `exp_id` play no part.
        seeds: of the runs.
        random_seeds: how many more to draw. They follow from `seeds`, so that the same call goes on with the same
            runs.
        settings: as in `train_model`.
    """
    if len(set(seeds)) < len(seeds):
        raise RungError(f"every seed may stand once, got {list(seeds)}")
    everything = [*seeds, *_more_seeds(seeds, random_seeds)]
    if not everything:
        raise RungError("give at least one seed, or random_seeds")
    directories = []
    for index, seed in enumerate(everything):
        directories.append(train_model(config, **{**settings, "exp_id": index, "seed": seed})[1])
    return directories


@dataclass(frozen=True)
class _Launch:
    """What one call of `train_model` asks for."""

    arguments: Arguments
    """For the settings that are no part of a configuration."""
    config: ModularArithmeticConfig

    @classmethod
    def of(cls, config: Arguments | ModularArithmeticConfig, settings: RunSettings) -> _Launch:
        unknown = sorted(settings.keys() - RunSettings.__annotations__.keys())
        if unknown:
            raise RungError(
                f"{', '.join(unknown)}: not a setting of a run; there are "
                f"{', '.join(RunSettings.__annotations__)}. The rest belongs into the configuration"
            )
        base = config if isinstance(config, Arguments) else Arguments()
        arguments = dataclasses.replace(base, **settings)
        _check(arguments)
        return cls(arguments, arguments.to_config() if isinstance(config, Arguments) else config)

    @property
    def directory(self) -> Path:
        arguments = self.arguments
        return Path(arguments.log_dir) / arguments.exp_name / str(arguments.exp_id)

    def path(self, ending: str) -> Path:
        """A file of the run that begins with the experiment's name."""
        return self.directory / f"{self.arguments.exp_name}_{ending}"

    def is_finished_by(self, document: dict[str, Any]) -> bool:
        """Whether the run that `document` describes has nothing left to do."""
        if document["status"] == "running":
            return False
        return document["ended_by"] != "budget" or document["steps"][-1] >= self.arguments.n_steps


class _Recorder:
    """Keeps a run's history, snapshots and checkpoint on disk, and prints how it goes."""

    def __init__(self, launch: _Launch, history: History) -> None:
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


def _train(launch: _Launch, history: History, can_resume: bool) -> None:
    """Starts or resumes the run and takes it to its end."""
    import torch

    from rung.training.checkpoints import latest_checkpoint, load_checkpoint
    from rung.training.loop import train
    from rung.training.run import Goal, Run

    arguments = launch.arguments
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    goal = Goal(unit="steps", amount=arguments.n_steps, metric="validation/accuracy", mode="max")
    trainable = ModularArithmetic(launch.config, arguments.seed, device)
    run = Run(trainable, f"{arguments.exp_name}-{arguments.exp_id}", goal)
    checkpoints = launch.directory / "checkpoints"
    if not can_resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoint = latest_checkpoint(checkpoints)
    if checkpoint is not None:
        load_checkpoint(run, checkpoint)
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


def _check(arguments: Arguments) -> None:
    """Refuses settings outside the configuration that make no sense."""
    for name in ("n_steps", "print_step", "save_model_step", "save_statistic_step"):
        if getattr(arguments, name) < 1:
            raise RungError(f"{name} must be at least 1, got {getattr(arguments, name)}")
    if arguments.seed < 0:
        raise RungError(f"seed must not be negative, got {arguments.seed}")
    if not arguments.exp_name or Path(arguments.exp_name).name != arguments.exp_name:
        raise RungError(f"exp_name {arguments.exp_name!r} must be a plain name: folders belong into log_dir")


def _identity(launch: _Launch) -> dict[str, Any]:
    """What makes it this run and no other."""
    return {"config": launch.config.model_dump(mode="json"), "seed": launch.arguments.seed}


def _has_this_run(launch: _Launch) -> bool:
    """Whether the run lies in its directory already. Raises RungError if another one does."""
    path = launch.directory / "config.json"
    try:
        known = json.loads(path.read_text())
        present = {
            # Through the configuration, so that fields which it has got since then have their defaults.
            "config": ModularArithmeticConfig.model_validate(known["config"]).model_dump(mode="json"),
            "seed": known["seed"],
        }
        n_steps: int = known["n_steps"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    wanted, there = _flat(_identity(launch)), _flat(present)
    changes = [
        f"{name} {there.get(name)} -> {wanted.get(name)}"
        for name in sorted(wanted.keys() | there.keys())
        if there.get(name) != wanted.get(name)
    ]
    if changes:
        raise RungError(
            f"{launch.directory} holds another run ({', '.join(changes)}): "
            "choose another exp_name or exp_id, or delete the directory"
        )
    _check_extension(launch, n_steps)
    return True


def _check_extension(launch: _Launch, n_steps: int) -> None:
    wanted, schedule = launch.arguments.n_steps, launch.config.schedule
    if wanted < n_steps:
        raise RungError(
            f"{launch.directory} holds this run with n_steps {n_steps}: it cannot be cut to {wanted}, "
            "choose another exp_name or exp_id"
        )
    if wanted > n_steps and schedule.kind == "cosine" and schedule.length is None:
        raise RungError(
            f"{launch.directory} holds this run with n_steps {n_steps}, over which its learning rate fell: it cannot "
            f"be extended to {wanted}, choose another exp_name or exp_id"
        )


def _write_settings(launch: _Launch) -> None:
    """Writes `config.json`: the settings, the model's size, and where and when the run was last started."""
    import torch

    arguments = launch.arguments
    content = {
        **_identity(launch),
        **{name: getattr(arguments, name) for name in ("n_steps", "exp_name", "exp_id")},
        "parameters": parameter_count(launch.config),
        "parameters_without_embeddings": parameter_count(launch.config, embeddings=False),
        "launch": launch_record(torch.get_num_threads()),
    }
    path = launch.directory / "config.json"
    try:
        launch.directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=2))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _more_seeds(seeds: Sequence[int], count: int) -> list[int]:
    generator = np.random.default_rng((len(seeds), *seeds))
    more: list[int] = []
    while len(more) < count:
        seed = int(generator.integers(2**31))
        if seed not in seeds and seed not in more:
            more.append(seed)
    return more


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _heading(launch: _Launch, device: str, run: Run) -> str:
    arguments = launch.arguments
    settings = _flat(launch.config.model_dump(mode="json", exclude_none=True))
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
