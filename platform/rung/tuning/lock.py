"""One driver per study: an advisory lock that the system drops when its holder dies, so it is never stale."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rung.errors import RungError, StorageError


@contextmanager
def study_lock(directory: Path) -> Iterator[None]:
    """Holds `<directory>/lock` while the block runs.

    Raises:
        RungError: another driver holds it; says which.
        StorageError: the file cannot be written.
    """
    path = directory / "lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise StorageError(
            f"cannot write to {directory}: {error.strerror or error}. Choose another place with --set storage=DIR "
            "or the environment variable RUNG_STORAGE"
        ) from error
    with file:
        if not _acquire(file):
            raise RungError(_who_holds(path))
        file.truncate(0)
        holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat()}
        file.write(json.dumps(holder))
        file.flush()
        yield


def _acquire(file: IO[str], tries: int = 5) -> bool:
    # `rung status` holds a shared lock for an instant to see whether a driver is there: try again before giving up.
    for _ in range(tries):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def _who_holds(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return (
        f"this study is being run already ({who}): {path.parent}. "
        "Watch it with `rung status`, or end that process first"
    )
