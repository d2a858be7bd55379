"""What the commands of this package share: where experiments lie, and errors without tracebacks. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rung.errors import RungError


def runs_directory() -> Path:
    """Where experiments lie: the folder `runs` in the working directory, or the one that RUNG_RUNS names."""
    return Path(os.environ.get("RUNG_RUNS") or "runs")


def experiment_path(name: str, runs: Path) -> Path:
    """The folder of an experiment that is named by its name or by its folder."""
    return runs / name if (runs / name).is_dir() or not Path(name).is_dir() else Path(name)


def guarded(main: Callable[[], int]) -> NoReturn:
    """Ends the process with a command's status; what a user can act on is one message."""
    try:
        sys.exit(main())
    except RungError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
