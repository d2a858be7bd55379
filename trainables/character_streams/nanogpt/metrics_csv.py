"""nanoGPT's names for what stands in `metrics.csv`, whose columns are `iter`, `wall_seconds`, `tokens`, `batch/loss`,
`train/loss`, `val/loss`, ..., `lr` and `mfu`. Imports no torch."""

from __future__ import annotations

FILE = "metrics.csv"

THEIR_NAMES = {"validation": "val", "learning_rate": "lr"}
"""What nanoGPT calls what rung calls otherwise."""


def their_name(metric: str) -> str:
    """A metric under nanoGPT's name: `val/loss`."""
    return "/".join(THEIR_NAMES.get(part, part) for part in metric.split("/"))
