"""How many bytes a study takes on disk. Works while it runs: what is gone before it is counted counts nothing."""

import os
from pathlib import Path

PARTS = ("tables", "checkpoints", "code", "report")
"""Folders of a study."""


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed. 0 if it is not there."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        entries = list(os.scandir(path))
    except OSError:
        return 0
    return sum(folder_bytes(Path(entry.path)) for entry in entries)


def disk_usage(directory: Path) -> dict[str, int]:
    """Bytes of each of `PARTS` of the study in `directory`, and of everything else there as `other`."""
    usage = {part: folder_bytes(directory / part) for part in PARTS}
    return {**usage, "other": max(0, folder_bytes(directory) - sum(usage.values()))}
