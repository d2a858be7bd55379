"""Reading back what `train_models` wrote: runs merged into arrays, statistics over seeds, JSON exports.

Statistics are taken per run first and then over seeds, with the sample standard deviation (n - 1). A run that has no
value at an evaluation (it ended early, or diverged) is NaN there and is left out. Imports no torch.

Array axes: runs, orders, evaluations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError, StorageError
from rung.provenance import write_whole
from rung.results.statistics import best, first_step_reaching, spread
from trainables.modular_arithmetic.history import METRICS, SPLITS

Array = NDArray[np.float64]
THRESHOLDS = (0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Experiment:
    """The runs of one experiment, one per seed."""

    name: str
    settings: list[dict[str, Any]]
    """Per run, its `config.json`."""
    steps: NDArray[np.int64]
    """(evaluations,): every step at which some run was evaluated."""
    epochs: Array
    """(evaluations,): passes over the training data at those steps."""
    values: dict[str, dict[str, Array]]
    """[`train` or `test`][`loss`, `accuracy` or `l2_norm`]: (runs, orders, evaluations)."""
    pooled: dict[str, dict[str, Array]]
    """The same over all orders: (runs, evaluations)."""
    total_time: Array
    """(runs,): seconds of training and evaluation."""
    average_step_time: Array
    """(runs,): seconds per optimizer step, evaluation included."""

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs."""
        return [each["seed"] for each in self.settings]

    @property
    def orders(self) -> list[int]:
        """Operands of the items."""
        return list(self.settings[0]["config"]["orders"])

    def mean(self, split: str, metric: str) -> Array:
        """Mean over seeds, (orders, evaluations)."""
        return _over_seeds(self.values[split][metric])[0]

    def std(self, split: str, metric: str) -> Array:
        """Sample standard deviation over seeds, (orders, evaluations); NaN where fewer than two runs have a value."""
        return _over_seeds(self.values[split][metric])[1]


def load_experiment(path: str | Path) -> Experiment:
    """Merges the runs below `path`, which is <log_dir>/<exp_name>.

    Raises:
        StorageError: there are no runs, or one cannot be read.
        RungError: the runs differ in more than their seed.
    """
    path = Path(path)
    directories = _run_directories(path)
    if not directories:
        raise StorageError(f"{path} holds no runs: expected {path}/0/config.json and so on, as train_models writes them")
    settings = [_read(each / "config.json") for each in directories]
    if any(each["config"] != settings[0]["config"] for each in settings):
        raise RungError(f"the runs below {path} differ in more than their seed: they are no one experiment")
    documents = [_read(each / f"{one['exp_name']}_metrics.json") for each, one in zip(directories, settings, strict=True)]
    steps = np.unique(np.concatenate([np.asarray(each["steps"], dtype=np.int64) for each in documents]))
    orders = range(len(settings[0]["config"]["orders"]))
    return Experiment(
        name=path.name,
        settings=settings,
        steps=steps,
        epochs=_first_known(_stack(documents, steps, lambda each: each["epochs"])),
        values={
            split: {
                metric: np.stack(
                    [_stack(documents, steps, lambda each: each[split][metric][order]) for order in orders], axis=1
                )
                for metric in METRICS
            }
            for split in SPLITS
        },
        pooled={
            split: {
                metric: _stack(documents, steps, lambda each: each["pooled"][split][metric]) for metric in METRICS
            }
            for split in SPLITS
        },
        total_time=_column(documents, "total_time"),
        average_step_time=_column(documents, "avg_step_time"),
    )
