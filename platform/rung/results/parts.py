"""The files of a table: immutable Parquet parts, named, listed and published.

A part is `tables/<table>/<writer>.<attempt>.<sequence>.parquet`. It is written under a hidden temporary name, fsynced
and renamed, so that a kill at any moment leaves whole parts and at most one temporary file.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import StorageError

COMPACTED = "compacted"
"""Writer name of the parts that compaction makes."""

_NAME = re.compile(r"(?P<writer>[A-Za-z0-9_-]+)\.(?P<attempt>\d{4,})\.(?P<sequence>\d{6,})\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One part: who wrote it, in which attempt (from 1), as which of the attempt's parts (from 1), and where."""

    writer: str
    attempt: int
    sequence: int
    path: Path


def table_directory(directory: Path, table: str) -> Path:
    """The folder of a table's parts in the study `directory`."""
    return directory / "tables" / table


def part_path(directory: Path, table: str, writer: str, attempt: int, sequence: int) -> Path:
    """Where a part belongs. Raises ValueError for a writer's name that is not of letters, digits, '_' and '-'."""
    name = f"{writer}.{attempt:04}.{sequence:06}.parquet"
    if not _NAME.fullmatch(name):
        raise ValueError(f"writer {writer!r} must be of letters, digits, '_' and '-'")
    return table_directory(directory, table) / name


def parts(directory: Path, table: str) -> list[Part]:
    """The parts of a table in a fixed order; temporary and foreign files are passed over. A missing table has none.

    Raises StorageError if the folder is there and cannot be read.
    """
    folder = table_directory(directory, table)
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("cannot read", folder, error) from error
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted(
        Part(match["writer"], int(match["attempt"]), int(match["sequence"]), folder / match.string)
        for match in matches
        if match
    )


def prepare_folder(folder: Path, writer: str) -> None:
    """Make a table's folder, prove that it can be written to, and clear what a killed `writer` left half-done.

    Proved by trying: permissions alone (os.access) say nothing about a read-only file system, nor to root. Raises
    StorageError.
    """
    probe = folder / f".{writer}.{os.getpid()}.probe"
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            sync_folder(folder.parent.parent)
        probe.touch()
        probe.unlink()
        for leftover in folder.glob(f".{writer}.*.tmp"):
            leftover.unlink()
    except OSError as error:
        raise storage_error("cannot write to", folder, error) from error


def publish(path: Path, write: Callable[[Any], None]) -> None:
    """Make the file `path` appear at once and whole; `write` is given a binary file to fill.

    Raises StorageError, and leaves nothing behind, if that fails or the file is there already.
    """
    # The temporary name does not end in .parquet: DuckDB's *.parquet matches hidden files too.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "another process writes under the same name and attempt")
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise storage_error("cannot write", path, error) from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def remove(part: Part) -> None:
    """Remove a part, if it is still there. Raises StorageError."""
    try:
        part.path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("cannot remove", part.path, error) from error


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(what: str, path: Path, error: OSError) -> StorageError:
    """A StorageError that names what was tried, the path and the system's cause."""
    return StorageError(f"{what} {path}: {error.strerror or error}")


def _remove_quietly(path: Path) -> None:
    """A leftover is harmless; an error about it would hide the real one."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
