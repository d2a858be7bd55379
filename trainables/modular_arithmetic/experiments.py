"""Reading back what `train_models` wrote: runs merged into arrays, statistics over seeds, JSON exports.

Statistics are taken per run first and then over seeds, with the sample standard deviation (n - 1). A run that
has no value at an evaluation (it ended early, or diverged) is NaN there and is left out. Imports no torch.

Array axes: runs, orders, evaluations.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError, StorageError
from rung.results.files import replace_file
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
        """Sample standard deviation over seeds, (orders, evaluations); NaN below two values."""
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
        raise StorageError(
            f"{path} holds no runs: expected {path}/0/config.json and so on, as train_models writes them"
        )
    settings = [_read(each / "config.json") for each in directories]
    if any(each["config"] != settings[0]["config"] for each in settings):
        raise RungError(f"the runs below {path} differ in more than their seed: they are no one experiment")
    documents = [
        _read(each / f"{one['exp_name']}_metrics.json") for each, one in zip(directories, settings, strict=True)
    ]
    steps = np.unique(np.concatenate([np.asarray(each["steps"], dtype=np.int64) for each in documents]))
    orders = range(len(settings[0]["config"]["orders"]))
    epochs, _ = _over_seeds(_stack(documents, steps, "epochs"))
    return Experiment(
        name=path.name,
        settings=settings,
        steps=steps,
        epochs=epochs,
        values={
            split: {
                metric: np.stack([_stack(documents, steps, split, metric, order) for order in orders], axis=1)
                for metric in METRICS
            }
            for split in SPLITS
        },
        pooled={
            split: {metric: _stack(documents, steps, "pooled", split, metric) for metric in METRICS} for split in SPLITS
        },
        total_time=np.array([each["total_time"] for each in documents], dtype=np.float64),
        average_step_time=np.array([each["avg_step_time"] for each in documents], dtype=np.float64),
    )


def load_experiments(path: str | Path) -> dict[str, Experiment]:
    """All experiments at or below `path`, by their path relative to it (`gpt/r_0.5`), in natural order."""
    path = Path(path)
    found = {each.parent.parent for each in path.rglob("config.json") if each.parent.name.isdigit()}
    if not found:
        raise StorageError(f"{path} holds no experiments")
    names = {str(each.relative_to(path)): each for each in found}
    return {
        name if name != "." else path.resolve().name: load_experiment(names[name])
        for name in sorted(names, key=_natural)
    }


def best_metrics(experiment: Experiment, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
    """Best loss and accuracy and when they were reached, of all orders together (`pooled`) and of each.

    Per group: `L_train`, `L_test` (least loss), `A_train`, `A_test` (greatest accuracy), `t_f(...)` (first
    step that has it), `delta_t(L)`, `delta_t(A)` (t_f of test minus t_f of train), and `steps_to(A_test >=
    0.9)`, in which None is a run that did not get there. Each with the runs' `values`, and `mean`, `std` and
    `n` over those that have one.
    """
    groups: dict[str, Mapping[str, Mapping[str, Array]]] = {"pooled": experiment.pooled}
    for index, order in enumerate(experiment.orders):
        groups[f"order_{order}"] = {
            split: {metric: values[:, index] for metric, values in metrics.items()}
            for split, metrics in experiment.values.items()
        }
    return {
        "seeds": experiment.seeds,
        **{name: _best_of(experiment.steps, values, thresholds) for name, values in groups.items()},
    }


def processed_metrics(experiment: Experiment) -> dict[str, Any]:
    """The curves of an experiment as means and standard deviations over seeds, ready for JSON."""

    def curves(metrics: Mapping[str, Array]) -> dict[str, Any]:
        return {
            metric: dict(zip(("mean", "std"), map(_json, _over_seeds(values)), strict=True))
            for metric, values in metrics.items()
        }

    return {
        "seeds": experiment.seeds,
        "operation_orders": experiment.orders,
        "steps": experiment.steps.tolist(),
        "epochs": _json(experiment.epochs),
        **{split: curves(metrics) for split, metrics in experiment.values.items()},
        "pooled": {split: curves(metrics) for split, metrics in experiment.pooled.items()},
        "total_time": float(experiment.total_time.mean()),
        "avg_step_time": float(experiment.average_step_time.mean()),
    }


def models_params(experiment: Experiment) -> dict[str, Any]:
    """The model of an experiment and its parameters, with and without the token embedding."""
    settings = experiment.settings[0]
    names = ("parameters", "parameters_without_embeddings")
    return {**settings["config"]["model"], **{name: settings[name] for name in names}}


def export(path: str | Path) -> list[Path]:
    """Writes `best_metrics.json`, `processed_metrics.json` and `models_params.json` into `path`.

    Each holds one entry for every experiment at or below `path` (see `load_experiments`).
    """
    path = Path(path)
    experiments = load_experiments(path)
    written = []
    for summarise in (best_metrics, processed_metrics, models_params):
        target = path / f"{summarise.__name__}.json"
        content = {name: summarise(each) for name, each in experiments.items()}
        try:
            replace_file(target, json.dumps(content, indent=2).encode())
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error}") from error
        written.append(target)
    return written


def _best_of(
    steps: NDArray[np.int64], values: Mapping[str, Mapping[str, Array]], thresholds: Sequence[float]
) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    times: dict[str, list[int | None]] = {}
    kinds: tuple[tuple[str, str, Literal["min", "max"]], ...] = (
        ("L", "loss", "min"),
        ("A", "accuracy", "max"),
    )
    for letter, metric, mode in kinds:
        for split in SPLITS:
            name = f"{letter}_{split}"
            found = [best(steps, run, mode) for run in values[split][metric]]
            times[name] = [each and each[1] for each in found]
            summary[name] = _summary([each and each[0] for each in found])
            summary[f"t_f({name})"] = _summary(times[name])
        pairs = zip(times[f"{letter}_train"], times[f"{letter}_test"], strict=True)
        summary[f"delta_t({letter})"] = _summary(
            [None if train is None or test is None else test - train for train, test in pairs]
        )
    for threshold in thresholds:
        reached = [first_step_reaching(steps, run, threshold, "max") for run in values["test"]["accuracy"]]
        summary[f"steps_to(A_test >= {threshold:g})"] = _summary(reached)
    return summary


def _summary(values: Sequence[float | None]) -> dict[str, Any]:
    over_seeds = spread(values)
    return {"values": list(values), "mean": over_seeds.mean, "std": over_seeds.std, "n": over_seeds.n}


def _over_seeds(values: Array) -> tuple[Array, Array]:
    """Mean and sample standard deviation along the first axis, over the runs that have a value."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    mean = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    squares = (np.where(known, values - mean, 0) ** 2).sum(axis=0)
    variance = np.divide(squares, n - 1, out=np.full(total.shape, np.nan), where=n > 1)
    return mean, np.sqrt(variance)


def _stack(documents: Sequence[dict[str, Any]], steps: NDArray[np.int64], *keys: str | int) -> Array:
    """One column of every run's history at `steps`, (runs, evaluations); NaN where a run has no value."""
    stacked = np.full((len(documents), len(steps)), np.nan)
    for row, document in zip(stacked, documents, strict=True):
        column: Any = document
        for key in keys:
            column = column[key]
        row[np.searchsorted(steps, document["steps"])] = np.array(column, dtype=np.float64)
    return stacked


def _run_directories(path: Path) -> list[Path]:
    runs = [each.parent for each in path.glob("*/config.json") if each.parent.name.isdigit()]
    return sorted(runs, key=lambda each: int(each.name))


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    return content


def _json(values: Array) -> Any:
    """Nested lists, with None for NaN."""
    if values.ndim > 1:
        return [_json(row) for row in values]
    return [None if math.isnan(value) else value for value in values.tolist()]


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """A sort key in which d_64 comes before d_128."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(True, float(part), "") if part[:1].isdigit() else (False, 0.0, part) for part in parts]
