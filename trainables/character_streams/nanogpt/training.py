"""`train`: one run of nanoGPT's kind through rung's engine.

    python -m trainables.character_streams train config/basic.py --max_iters=200

An interrupted run goes on with `--init_from=resume`, to the same numbers as without the interruption.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rung.errors import RungError
from rung.locks import FileLock
from rung.training.assignment import Goal
from rung.training.checkpoints import resume, save_checkpoint, save_model
from rung.training.loop import evaluate, train
from rung.training.run import Report, Run
from trainables.character_streams.nanogpt.experiment import initial_values, to_config
from trainables.character_streams.nanogpt.keys import Keys
from trainables.character_streams.nanogpt.metrics_csv import FILE, their_name
from trainables.character_streams.nanogpt.run_folder import (
    CHECKPOINTS,
    MODEL,
    SUMMARY,
    Record,
    check_resumable,
    read_record,
    write_json,
    write_record,
)
from trainables.character_streams.nanogpt.run_view import theory_line
from trainables.character_streams.nanogpt.utilization import peak_of, utilization
from trainables.character_streams.trainable import CharacterStreams
from trainables.character_streams.weights import CHECKPOINT, read_checkpoint
from trainables.language.command_line import choose_device
from trainables.language.metrics_csv import MetricsCsv

if TYPE_CHECKING:
    from trainables.character_streams.config import CharacterStreamsConfig

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints: what a kill may cost."""


def train_from_keys(keys: Keys) -> Path:
    """Trains, or goes on with, the run that nanoGPT's keys describe, and returns its folder.

    Raises:
        RungError: it cannot be trained, or the folder cannot be resumed.
        StorageError: the folder cannot be read or written.
    """
    device = choose_device(keys.device)
    config, out_dir = to_config(keys, device), Path(keys.out_dir)
    lock = FileLock(out_dir / "lock", wait=0.5)
    try:
        run, before = _begin(keys, config, out_dir, device)
        _print_heading(run, keys, out_dir)
        if keys.eval_only:
            _print_evaluation(evaluate(run, scheduled=False))
            return out_dir
        write_record(out_dir, run.config, keys.seed, keys.model_dump(), torch.get_num_threads(), before)
        recorder = _Recorder(run, keys, out_dir, is_new=before is None)
        try:
            train(run, math.inf, recorder)
        finally:
            recorder.close()
        recorder.finish(run)
    finally:
        lock.release()
    return out_dir


def _begin(keys: Keys, config: CharacterStreamsConfig, out_dir: Path, device: str) -> tuple[Run, Record | None]:
    """The run, and what was on record of it; a new one unless it is resumed."""
    before = read_record(out_dir)
    if keys.init_from != "resume":
        if before is not None and not keys.eval_only:
            _clear(out_dir)
        return _new_run(keys, config, device), None
    if before is None:
        return _from_their_checkpoint(keys, config, out_dir, device), None
    config = _in_the_shape_of(before.config, config)
    for note in check_resumable(out_dir, before, config, keys.seed):
        print(note)
    run, notes = resume(lambda: _new_run(keys, config, device), out_dir / CHECKPOINTS)
    for note in notes:
        print(note)
    run.reopen()
    return run, before


def _clear(out_dir: Path) -> None:
    """Makes room for another run. Its tables are replaced when it begins."""
    print(f"{out_dir} holds a run, which is begun anew (--init_from=resume goes on with it)")
    for name in (CHECKPOINTS, MODEL, SUMMARY):
        path = out_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _in_the_shape_of(before: CharacterStreamsConfig, config: CharacterStreamsConfig) -> CharacterStreamsConfig:
    """What a resumed run is to be. Where it began with weights from elsewhere, their shape stays that of the model,
    whatever n_layer and the other keys say, as when it began."""
    if before.initial_weights is None:
        return config
    model = before.model.model_copy(update={"dropout": config.model.dropout})
    return config.model_copy(update={"initial_weights": before.initial_weights, "model": model})


def _new_run(keys: Keys, config: CharacterStreamsConfig, device: str) -> Run:
    goal = Goal(unit="steps", amount=keys.max_iters, metric="validation/loss", mode="min", select="last")
    return Run(CharacterStreams(config, keys.seed, device), "run", goal)


def _from_their_checkpoint(keys: Keys, config: CharacterStreamsConfig, out_dir: Path, device: str) -> Run:
    """nanoGPT's own checkpoint: its weights and its iteration; the optimizer's moments begin anew."""
    path = (out_dir / CHECKPOINT).resolve()
    if not path.is_file():
        raise RungError(
            f"init_from=resume: {out_dir} holds neither a run of ours (config.json) nor nanoGPT's {CHECKPOINT}"
        )
    theirs = read_checkpoint(path)
    values = config.model_dump()
    config = type(config).model_validate({**values, **initial_values(keys, values, dict(theirs.model_args), path)})
    run = _new_run(keys, config, device)
    run.progress.step = theirs.iteration
    print(f"{path}: weights of iteration {theirs.iteration:,}; the optimizer's moments begin anew")
    return run


class _Recorder:
    """Keeps a run's files, and prints what nanoGPT prints."""

    def __init__(self, run: Run, keys: Keys, out_dir: Path, *, is_new: bool) -> None:
        self._keys, self._out_dir = keys, out_dir
        self._evaluated = [their_name(name) for name in CharacterStreams.metrics(run.config)]
        columns = ["iter", "wall_seconds", "tokens", "batch/loss", *self._evaluated, "lr", "gradient_norm", "mfu"]
        keep = None if is_new else (run.progress.step, run.progress.evaluated_step)
        self._csv = MetricsCsv(out_dir / FILE, columns, "val/loss", keep)
        self._flops = CharacterStreams.workload(run.config).flops_per_step
        device = torch.device(run.trainable.device)
        self._peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._mark = (run.progress.step, run.progress.wall_seconds)
        self._last_checkpoint = time.monotonic()
        self._last: dict[str, float | None] = {}
        self._model_step = run.progress.best_step

    def report(self, run: Run, report: Report) -> None:
        """An evaluation."""
        row = self._row(report)
        self._csv.add(row)
        self._last = row
        self._mark = (run.progress.step, run.progress.wall_seconds)
        _print_evaluation(report)
        is_best = run.progress.best_step == report.step
        if report.step and (is_best or self._keys.always_save_checkpoint):
            self._save_model(run)

    def log(self, run: Run, report: Report) -> None:
        """An iteration without evaluation."""
        row = self._row(report)
        self._csv.add(row)
        milliseconds = 1000 * self._seconds_per_step(report)
        share = "" if row["mfu"] is None else f", mfu {100 * (row['mfu'] or 0):.2f}%"
        print(f"iter {report.step}: loss {_shown(row['batch/loss'])}, time {milliseconds:.2f}ms{share}", flush=True)
        self._mark = (run.progress.step, run.progress.wall_seconds)

    def after_step(self, run: Run) -> None:
        """A checkpoint now and then."""
        if time.monotonic() - self._last_checkpoint >= CHECKPOINT_SECONDS:
            save_checkpoint(run, self._out_dir / CHECKPOINTS)
            self._last_checkpoint = time.monotonic()

    def finish(self, run: Run) -> None:
        """The last checkpoint, and what came out."""
        progress = run.progress
        save_checkpoint(run, self._out_dir / CHECKPOINTS)
        if not (self._out_dir / MODEL).exists():
            self._save_model(run)  # it has never been better than before the first iteration
        summary = {
            "status": progress.status,
            "iterations": progress.step,
            "wall_seconds": progress.wall_seconds,
            "tokens_per_second": progress.tokens / progress.wall_seconds if progress.wall_seconds else None,
            "parameters": run.parameters,
            "best_val_loss": progress.best,
            "best_iteration": progress.best_step,
            "model_iteration": self._model_step,
            "last": {name: self._last.get(name) for name in self._evaluated},
        }
        write_json(self._out_dir / SUMMARY, summary)
        best = "" if progress.best is None else f", best val loss {progress.best:.4f} at {progress.best_step}"
        done = f"{progress.status} after {progress.step} iterations and {progress.wall_seconds:.1f} s"
        print(f"{done}{best}: {self._out_dir}")

    def _save_model(self, run: Run) -> None:
        save_model(run, self._out_dir / MODEL)
        self._model_step = run.progress.step

    def close(self) -> None:
        """Lets go of the file."""
        self._csv.close()

    def _seconds_per_step(self, report: Report) -> float:
        step, seconds = self._mark
        return (report.wall_seconds - seconds) / max(1, report.step - step)

    def _row(self, report: Report) -> dict[str, float | None]:
        row: dict[str, float | None] = {their_name(name): report.finite(name) for name in report.metrics}
        is_logged = "validation/loss" not in report.metrics
        mfu = utilization(self._flops, self._seconds_per_step(report), self._peak) if is_logged else None
        return row | {"iter": report.step, "wall_seconds": report.wall_seconds, "tokens": report.tokens, "mfu": mfu}


def _print_heading(run: Run, keys: Keys, out_dir: Path) -> None:
    config = run.config
    print(
        f"{out_dir}: {run.parameters:,} parameters, vocabulary {CharacterStreams.vocabulary(config)}, "
        f"seed {keys.seed}, {run.trainable.device} {config.precision}; "
        f"{config.batch_size * config.context:,} tokens per iteration; "
        f"iteration {run.progress.step:,} of {keys.max_iters:,}",
        flush=True,
    )
    for metric, lines in CharacterStreams.references(config).items():
        if metric == "validation/loss":
            print("theory, nats per character: " + "; ".join(map(theory_line, lines)))


def _print_evaluation(report: Report) -> None:
    losses = f"train loss {_shown(report.finite('train/loss'))}, val loss {_shown(report.finite('validation/loss'))}"
    accuracy = report.finite("validation/accuracy")
    right = "" if accuracy is None else f", answers right {100 * accuracy:.1f}%"
    print(f"step {report.step}: {losses}{right}", flush=True)


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
