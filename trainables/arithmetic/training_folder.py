"""The folder that a training command leaves. Imports no torch.

models/foundational_20260101_120000/
    best_model.safetensors               lowest validation loss so far
    final_model.safetensors              at the end
    checkpoint_step_N.safetensors        every `save_every` steps
    model_config.json, tokenizer.json    what the weights are (`model_folder.py`)
    training_config.json                 the settings; `--config` reads them
    metrics.csv                          live: loss, learning rate and gradient norm of each step, and evaluations
    training_log.json                    an entry for each epoch
    training_summary.json                what came out
    provenance.json                      of each launch: command, commit, versions, machine, SHA-256 of what was read
    checkpoints/                         what an interrupted run goes on from
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from rung.errors import RungError, StorageError
from rung.provenance import file_hash, launch_record
from rung.results.files import replace_file
from trainables.language.metrics_csv import Row
from trainables.language.settings_command import read_settings

CONFIG, LOG, SUMMARY = "training_config.json", "training_log.json", "training_summary.json"
METRICS, PROVENANCE, CHECKPOINTS = "metrics.csv", "provenance.json", "checkpoints"

STEP, VALIDATION = "step", "val_loss"
EVALUATED = {
    VALIDATION: "validation/loss",
    "val_token_accuracy": "validation/token_accuracy",
    "val_trace_accuracy": "validation/trace_accuracy",
}
"""Columns of an evaluation, and what the trainable calls them."""
COLUMNS = (STEP, "wall_seconds", "tokens", "train_loss", "learning_rate", "gradient_norm", *EVALUATED)
"""Of metrics.csv."""

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


def epochs(rows: Sequence[Row], steps_per_epoch: int) -> list[dict[str, Any]]:
    """The entries of training_log.json: of each epoch, the last one as far as it went.

    `train_loss` is the mean over the epoch's steps; the other values are those of its last row that has them.
    """
    by_epoch: dict[int, list[Row]] = {}
    for row in rows:
        if step := int(row[STEP] or 0):
            by_epoch.setdefault(-(-step // steps_per_epoch), []).append(row)
    entries = []
    for number, own in by_epoch.items():
        losses = [loss for row in own if (loss := row.get("train_loss")) is not None]
        last = {name: next((row[name] for row in reversed(own) if row.get(name) is not None), None) for name in COLUMNS}
        last |= {STEP: int(own[-1][STEP] or 0), "train_loss": sum(losses) / len(losses) if losses else None}
        entries.append({"epoch": number, **last})
    return entries


def best_row(rows: Sequence[Row]) -> Row | None:
    """The evaluation with the lowest validation loss, the first of equals; None: there is none yet."""
    evaluated = [row for row in rows if row.get(VALIDATION) is not None and row[STEP]]
    return min(evaluated, key=lambda row: row[VALIDATION] or 0.0, default=None)


def has_stalled(rows: Sequence[Row], patience: int, min_delta: float) -> bool:
    """Whether the last `patience` evaluations were none that had a validation loss lower than every one before them, by
    the part `min_delta` of it at least."""
    best, waited = float("inf"), 0
    for row in rows:
        if (loss := row.get(VALIDATION)) is not None:
            lower = loss < best * (1 - min_delta)
            best, waited = (loss, 0) if lower else (best, waited + 1)
    return waited >= patience
