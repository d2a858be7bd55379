"""What a run has measured so far, as the JSON file that the Python API keeps up to date. Imports no torch.

    {"status", "ended_by", "seed", "operation_orders", "total_time", "avg_step_time",
     "steps": [...], "epochs": [...], "wall_seconds": [...],
     "train": {"loss": [orders x evaluations], "accuracy": ..., "l2_norm": ...}, "test": ...,
     "pooled": {"train": {"loss": [evaluations], ...}, "test": ...}}

`test` is the validation set, under the name that it has in the original. Times are seconds of training and
evaluation over all attempts. A value that is not finite is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.errors import StorageError
from rung.results.files import replace_file

SPLITS = {"train": "train", "test": "validation"}
"""Names in the file, and what the trainable calls them."""
METRICS = ("loss", "accuracy", "l2_norm")


class History:
    """One run's evaluations; `document` is what the file holds."""

    def __init__(self, path: Path, seed: int, orders: Sequence[int]) -> None:
        self.path = path
        self.document: dict[str, Any] = {
            "status": "running",
            "ended_by": None,
            "seed": seed,
            "operation_orders": list(orders),
            "total_time": 0.0,
            "avg_step_time": None,
            "steps": [],
            "epochs": [],
            "wall_seconds": [],
            **{split: {metric: [[] for _ in orders] for metric in METRICS} for split in SPLITS},
            "pooled": {split: {metric: [] for metric in METRICS} for split in SPLITS},
        }

    def add(self, step: int, epoch: float | None, wall_seconds: float, metrics: Mapping[str, float]) -> None:
        """Takes in one evaluation, with the metrics as `ModularArithmetic.evaluate` names them."""
        document = self.document
        document["steps"].append(step)
        document["epochs"].append(epoch)
        document["wall_seconds"].append(wall_seconds)
        for split, prefix in SPLITS.items():
            for metric in METRICS:
                name = "parameter_norm" if metric == "l2_norm" else None
                pooled = metrics[name or f"{prefix}/{metric}"]
                document["pooled"][split][metric].append(_finite(pooled))
                for row, order in zip(document[split][metric], document["operation_orders"], strict=True):
                    row.append(_finite(metrics[name or f"{prefix}/order_{order}/{metric}"]))

    def latest(self) -> dict[str, dict[str, float | None]]:
        """The pooled metrics of the last evaluation, per split."""
        pooled = self.document["pooled"]
        return {split: {metric: pooled[split][metric][-1] for metric in METRICS} for split in SPLITS}

    def forget_after(self, step: int) -> None:
        """Drops evaluations after `step`: those that a resumed run is going to repeat."""
        keep = sum(each <= step for each in self.document["steps"])
        for column in self._columns():
            del column[keep:]

    def save(self, status: str, ended_by: str | None, step: int, wall_seconds: float) -> None:
        """Writes the file, whole or not at all."""
        average = wall_seconds / step if step else None
        self.document.update(status=status, ended_by=ended_by, total_time=wall_seconds, avg_step_time=average)
        try:
            replace_file(self.path, json.dumps(self.document).encode())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error}") from error

    def load(self) -> bool:
        """Reads the file; False if there is none."""
        try:
            self.document = json.loads(self.path.read_text())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read {self.path}: {error}") from error
        return True

    def _columns(self) -> Iterator[list[Any]]:
        document = self.document
        yield from (document["steps"], document["epochs"], document["wall_seconds"])
        for split in SPLITS:
            for metric in METRICS:
                yield document["pooled"][split][metric]
                yield from document[split][metric]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
