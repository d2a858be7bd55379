"""The folder that a training command leaves. Imports no torch.

models/foundational_20260101_120000/
    best_model.safetensors               lowest validation loss so far, or highest reward rate
    final_model.safetensors              at the end
    checkpoint_step_N.safetensors        every `save_every` steps
    model_config.json, tokenizer.json    what the weights are (`model_folder.py`)
    training_config.json                 the settings; `--config` reads them
    metrics.csv                          live: loss, learning rate and gradient norm of each step, and evaluations
    training_log.json                    an entry for each epoch (`grpo_training_log.json`: each `log_every` steps)
    training_summary.json                what came out
    provenance.json                      of each launch: command, commit, versions, machine, SHA-256 of what was read
    checkpoints/                         what an interrupted run goes on from
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

from rung.errors import RungError, StorageError
from rung.provenance import file_hash, launch_record
from rung.results.files import replace_file
from trainables.language.metrics_csv import Row
from trainables.language.settings_command import read_settings

CONFIG, SUMMARY = "training_config.json", "training_summary.json"
METRICS, PROVENANCE, CHECKPOINTS = "metrics.csv", "provenance.json", "checkpoints"

STEP = "step"


@dataclass(frozen=True)
class Measures:
    """What a command writes down of a run."""

    steps: Mapping[str, str]
    """Columns of a step, and what the engine calls them; in the log, means over steps."""
    evaluated: Mapping[str, str]
    """Columns of an evaluation, and what the trainable calls them. The first one tells which model is the best."""
    mode: Literal["min", "max"]
    """Whether less or more of that is better."""
    log: str
    """Name of the log's file."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of metrics.csv."""
        return (STEP, "wall_seconds", "tokens", *self.steps, "learning_rate", *self.evaluated)

    @property
    def best_by(self) -> str:
        """The column that tells which model is the best."""
        return next(iter(self.evaluated))

    def is_better(self, value: float, best: float, by: float = 0.0) -> bool:
        """Whether a value is better than the best one so far, by a part of that at least."""
        gain = best - value if self.mode == "min" else value - best
        return gain > by * abs(best)


SOLUTIONS = Measures(
    steps={"train_loss": "batch/loss", "gradient_norm": "gradient_norm"},
    evaluated={
        "val_loss": "validation/loss",
        "val_token_accuracy": "validation/token_accuracy",
        "val_trace_accuracy": "validation/trace_accuracy",
    },
    mode="min",
    log="training_log.json",
)
"""Of training on solutions."""

CHANGEABLE = frozenset(
    {
        "output_dir",
        "device",
        "num_epochs",
        "save_every",
        "save_merged_model",
        "early_stopping_patience",
        "early_stopping_min_delta",
    }
)
"""Settings that a run that goes on may have otherwise."""


def new_folder(output_dir: Path, kind: str) -> Path:
    """Makes a folder that is called after what is trained and the time.

    Raises:
        StorageError: it cannot be made.
    """
    name = f"{kind}_{datetime.now():%Y%m%d_%H%M%S}"
    for number in count(1):
        folder = output_dir / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(
                f"cannot make the folder {folder}: {error.strerror or error}; choose another with --output-dir"
            ) from error
    raise AssertionError


def resumable(path: Path) -> Path:
    """The folder of the run that a path means: itself, or that of a file in it.

    Raises:
        RungError: no run lies there.
    """
    for folder in (path, path.parent, path.parent.parent):
        if (folder / CONFIG).is_file() and (folder / PROVENANCE).is_file():
            return folder
    raise RungError(
        f"{path} belongs to no run of a training command: name its folder (it holds {CONFIG}), or a file in it. "
        "Weights alone are what --foundational-checkpoint of run_instruction_training begins with"
    )


def refuse_other(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Notes on what a run that goes on does otherwise from here on.

    Raises:
        RungError: it would be another run.
    """
    changed = {name: (before.get(name), value) for name, value in now.items() if before.get(name) != value}
    if refused := [name for name in changed if name not in CHANGEABLE]:
        listed = ", ".join(f"{name} {changed[name][0]} -> {changed[name][1]}" for name in refused)
        raise RungError(f"{folder} holds another run ({listed}): leave these out, or begin a new one")
    return [f"{name} is {new} from here on, and was {old}" for name, (old, new) in changed.items()]


def record_launch(folder: Path, inputs: Sequence[Path], threads: int) -> None:
    """Adds a launch to provenance.json.

    Args:
        folder: of the run.
        inputs: files that are read.
        threads: of this process.

    Raises:
        RungError: a file is not what it was when the run began.
        StorageError: it cannot be written.
    """
    path = folder / PROVENANCE
    launches = read_settings(path)["launches"] if path.exists() else []
    hashes = {str(file): file_hash(file) for file in inputs}
    for name, sha256 in hashes.items():
        if launches and launches[0]["inputs"].get(name) != sha256:
            raise RungError(f"{name} is not what it was when the run in {folder} began: begin a new run")
    write_json(path, {"launches": [*launches, {"inputs": hashes, **launch_record(threads)}]})


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all. Raises StorageError."""
    replace_file(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def epochs(rows: Sequence[Row], steps_per_epoch: int, measures: Measures = SOLUTIONS) -> list[dict[str, Any]]:
    """The entries of training_log.json: of each epoch, the last one as far as it went."""
    return [
        {"epoch": -(-entry[STEP] // steps_per_epoch), **entry} for entry in entries(rows, steps_per_epoch, measures)
    ]


def entries(rows: Sequence[Row], every: int, measures: Measures) -> list[dict[str, Any]]:
    """What is known of each `every` steps, of the last ones as far as they went.

    What belongs to a step is the mean over the steps; the other values are those of the last row that has them.
    """
    blocks: dict[int, list[Row]] = {}
    for row in rows:
        if step := int(row[STEP] or 0):
            blocks.setdefault(-(-step // every), []).append(row)
    return [
        {name: last_of(own, name) for name in measures.columns}
        | {name: _mean(own, name) for name in measures.steps if name != "gradient_norm"}
        | {STEP: int(own[-1][STEP] or 0)}
        for own in blocks.values()
    ]


def last_of(rows: Sequence[Row], name: str) -> float | None:
    """The value of the last row that has one."""
    return next((row[name] for row in reversed(rows) if row.get(name) is not None), None)


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [value for row in rows if (value := row.get(name)) is not None]
    return sum(values) / len(values) if values else None


def best_row(rows: Sequence[Row], measures: Measures = SOLUTIONS) -> Row | None:
    """The evaluation of the best model, the first of equals; None: there is none yet."""
    best: tuple[float, Row] | None = None
    for row in rows:
        value = row.get(measures.best_by)
        if value is not None and row[STEP] and (best is None or measures.is_better(value, best[0])):
            best = value, row
    return best and best[1]


def has_stalled(rows: Sequence[Row], patience: int, min_delta: float, measures: Measures = SOLUTIONS) -> bool:
    """Whether the last `patience` evaluations were none that was better than every one before them, by the part
    `min_delta` of it at least."""
    best, waited = None, 0
    for row in rows:
        if (value := row.get(measures.best_by)) is not None:
            is_better = best is None or measures.is_better(value, best, min_delta)
            best, waited = (value, 0) if is_better else (best, waited + 1)
    return waited >= patience
