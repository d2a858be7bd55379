"""The folder of one experiment, as it is found on disk: finished, being written, or left by a kill. Imports no torch.

runs/<name>/config.json     every setting (`ExperimentConfig`)
            metrics.csv     written live
            metrics.json    the same rows, one per step
            summary.json    status and statistics
            provenance.json launches, and the configuration as the engine has it
            training.log  loss_curves.png  lr_schedule.png  checkpoints/
            lock            held by the process that trains it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError, StorageError
from rung.results.files import replace_file
from trainables.language.dotted import changes
from trainables.tinystories.experiment_config import ExperimentConfig, read_json
from trainables.tinystories.experiments.metrics_file import MetricRow, merged, read_rows
from trainables.tinystories.experiments.statistics import statistics

CONFIG, METRICS, ROWS_JSON, SUMMARY = "config.json", "metrics.csv", "metrics.json", "summary.json"
PROVENANCE, CHECKPOINTS = "provenance.json", "checkpoints"


@dataclass(frozen=True)
class Experiment:
    """An experiment as it stands on disk."""

    directory: Path
    config: Mapping[str, Any]
    """config.json."""
    rows: Sequence[MetricRow]
    """metrics.csv, one row per step."""
    summary: Mapping[str, Any]
    """summary.json; of an experiment that has none yet, what it would hold."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.directory.resolve().name

    @property
    def status(self) -> str:
        """`running` (or interrupted), `completed` or `diverged`."""
        return str(self.summary["status"])

    @property
    def statistics(self) -> Mapping[str, Any]:
        """See `statistics.statistics`."""
        found: Mapping[str, Any] = self.summary["statistics"]
        return found


def load_experiment(directory: Path) -> Experiment:
    """Reads an experiment, also while it runs.

    Raises:
        StorageError: there is none, or a file of it cannot be read.
    """
    if not (directory / METRICS).is_file():
        raise StorageError(f"there is no experiment in {directory}: it has no {METRICS}")
    rows = read_rows(directory / METRICS)
    config = read_json(directory / CONFIG)
    known = read_summary(directory) or {}
    name = known.get("experiment_name", directory.resolve().name)
    facts = {"step": known["step"]} if "step" in known else {}
    summary = summarised(name, config, rows, known.get("status"), **facts)
    return Experiment(directory, config, merged(rows), {**known, **summary})


def find_experiments(runs: Path) -> list[Experiment]:
    """The experiments directly below a folder, by name; none if there is no such folder. Raises StorageError."""
    return [load_experiment(each) for each in experiment_folders(runs)]


def experiment_folders(runs: Path) -> list[Path]:
    """The folders of the experiments directly below a folder, by name."""
    return [each for each in sorted(runs.iterdir()) if (each / METRICS).is_file()] if runs.is_dir() else []


def summarised(
    name: str, config: Mapping[str, Any], rows: Sequence[MetricRow], status: str | None, **facts: Any
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        name: of the experiment.
        config: its settings.
        rows: what it has logged.
        status: `running`, `completed`, `diverged`, ...; None: `running`.
        facts: what else it is to hold. `step`, the optimizer steps done, is more than the last row's where a run ended
            between two rows, as one that diverged.
    """
    return {
        "experiment_name": name,
        "status": status or "running",
        "config": dict(config),
        "statistics": statistics(rows, facts.get("step", 0)),
        "metrics_count": len(rows),
        **facts,
    }


def read_summary(directory: Path) -> dict[str, Any] | None:
    """The content of summary.json; None if it is not there yet. Raises StorageError."""
    if not (directory / SUMMARY).exists():
        return None
    content: dict[str, Any] = read_json(directory / SUMMARY)
    return content


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all. Raises StorageError."""
    replace_file(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def holds_experiment(directory: Path, config: ExperimentConfig) -> bool:
    """Whether this very experiment lies in a folder already.

    Raises:
        RungError: another one does; the text names what differs.
        StorageError: it cannot be read.
    """
    if not (directory / CONFIG).exists():
        if (directory / METRICS).exists():
            raise RungError(f"{directory} holds a {METRICS} and no {CONFIG}: it is no experiment of ours, take another")
        return False
    there = ExperimentConfig.from_json(directory / CONFIG).numbers()
    differing = changes(there, config.numbers())
    if differing:
        listed = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in differing.items())
        raise RungError(f"{directory} holds another experiment ({listed}): choose another name, or delete that folder")
    return True
