"""Writing a file and deleting a folder so that nobody ever takes half of it for the whole."""

import os
import shutil
from pathlib import Path

from rung.results.parts import storage_error


def replace_file(path: Path, content: bytes) -> None:
    """Make `path` a file with this content, at once; its folder is made if need be.

    Raises StorageError, and leaves the old file as it was, if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("cannot write", path, error) from error


def clear_leftovers(folder: Path) -> None:
    """Delete what killed processes have left of `replace_file` in a folder that nobody else writes to now.

    Raises StorageError if that fails.
    """
    try:
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("cannot clear", folder, error) from error


COMPLETE = "complete.json"
"""The file in a folder that says, written last, that the folder is whole."""


def delete_folder(path: Path) -> None:
    """Delete a folder and all below it, if it is there; what says that a part of it is whole goes first.

    Raises StorageError if it cannot be deleted.
    """
    try:
        for marker in sorted(path.rglob(COMPLETE)):
            marker.unlink(missing_ok=True)
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error("cannot delete", path, error) from error
