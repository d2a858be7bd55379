"""Where experiments lie, for the commands of this package. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def runs_directory() -> Path:
    """Where experiments lie: the folder `runs` in the working directory, or the one that RUNG_RUNS names."""
    return Path(os.environ.get("RUNG_RUNS") or "runs")


def experiment_path(name: str, runs: Path) -> Path:
    """The folder of an experiment that is named by its name or by its folder."""
    return runs / name if (runs / name).is_dir() or not Path(name).is_dir() else Path(name)
