"""Deletes the checkpoints that are not kept when a sweep is over; which ones, `results/retention.py` says."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rung.errors import StorageError
from rung.results.files import delete_folder
from rung.results.query import load
from rung.results.retention import Keep, checkpoint_folders


def keep_checkpoints(directory: Path, keep: Keep) -> None:
    """Deletes what `keep` does not ask for, by what stands in the tables of the study in `directory`.

    Configurations that the same command would go on with keep their checkpoints. What cannot be deleted stays: the
    results are not worth less for it, and `rung clean` tries again.
    """
    if keep == "all":
        return
    for folder in checkpoint_folders(load(directory), keep):
        if not folder.is_kept:
            with suppress(StorageError):
                delete_folder(folder.path)
