"""Advisory file locks that the system drops when their holder dies, so that they are never stale."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rung.errors import RungError, StorageError


class FileLock:
    """An exclusive lock on a file, held from construction until `release`.

    Args:
        path: the file; it stays where it is when the lock is released, because deleting it would open a race.
        wait: seconds to wait for another holder to let go.

    Raises:
        RungError: it is still held after `wait` seconds; says by whom.
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, wait: float) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+")
        except OSError as error:
            raise StorageError(
                f"cannot write to {path.parent}: {error.strerror or error}. Choose another place with "
                "--set storage=DIR or the environment variable RUNG_STORAGE"
            ) from error
        if not _acquire(self._file, wait):
            self._file.close()
            raise RungError(f"{path.parent} is in use by {_holder(path)}")
        holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat()}
        try:
            self._file.truncate(0)
            self._file.write(json.dumps(holder))
            self._file.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.close()  # tries to write once more
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from error

    def release(self) -> None:
        """Lets go; may be called more than once."""
        self._file.close()


@contextmanager
def study_lock(directory: Path) -> Iterator[None]:
    """Makes this process the only driver of the study in `directory` while the block runs.

    Raises:
        RungError: another driver holds it; says which.
        StorageError: the directory cannot be written.
    """
    try:
        # `rung status` holds a shared lock for an instant to see whether a driver is there: hence a short wait.
        lock = FileLock(directory / "lock", wait=0.5)
    except StorageError:
        raise
    except RungError as error:
        raise RungError(
            f"this study is being run already: {error}. Watch it with `rung status`, or end that process first"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _acquire(file: IO[str], wait: float) -> bool:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
