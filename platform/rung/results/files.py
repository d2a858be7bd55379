"""Writing a whole file so that nobody ever sees half of it."""

import os
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
