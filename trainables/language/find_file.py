"""Finds files that a configuration names. Imports no torch."""

from __future__ import annotations

import sys
from pathlib import Path


def find_file(path: Path) -> Path | None:
    """A file: from the working directory or the import path, which for a process of a sweep begins with the working
    directory of the command that started it."""
    candidates = (Path(folder or ".") / path for folder in ("", *sys.path))
    return next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
