"""Where the checkpoints of a run lie, and which of them count; `checkpoints.py` writes and reads them. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

TENSORS, STATE, MARKER = "tensors.safetensors", "state.json", "complete.json"


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint below `directory`, or None."""
    return next((path for path in candidates(directory) if is_complete(path)), None)


def is_complete(checkpoint: Path) -> bool:
    """Whether its marker is there, which is written last. Whether it can be read, only reading tells."""
    return (checkpoint / MARKER).exists()


def candidates(directory: Path) -> list[Path]:
    """Everything below `directory` that is or was to become a checkpoint, the newest first."""
    return sorted(directory.glob("step-*"), reverse=True)


def digest(checkpoint: Path) -> str:
    """SHA-256 of its tensors, in hex: training is deterministic, so the same inputs give the same.

    Raises:
        OSError: they cannot be read.
    """
    with (checkpoint / TENSORS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
