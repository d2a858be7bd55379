"""What users are told about W&B."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import RungError

if TYPE_CHECKING:
    from rung.wandb.mirror import Mirror

LONGEST = 300
"""Letters of an error."""


def shown(directory: Path) -> str:
    """A path as one would type it here."""
    return min(str(directory), os.path.relpath(directory), key=len)


def what_was_sent(mirror: Mirror) -> str:
    """How much was sent, where it is, and what is to be done with it."""
    count = len(mirror.sent_now)
    runs = f"W&B: {count} run{'' if count == 1 else 's'}"
    if mirror.destination.is_online:
        return f"{runs} sent to {mirror.url}"
    return (
        f"{runs} written to {shown(mirror.destination.folder)}, offline; with a key (`wandb login`), "
        f"`rung wandb sync {shown(mirror.directory)}` sends them"
    )


def cause(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    line = text if isinstance(error, RungError) else f"{type(error).__name__}: {text}"
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def told_of_trouble(error: BaseException, directory: Path) -> str:
    """That W&B does not work, and that this changes nothing."""
    return (
        f"W&B: {cause(error)}. The study goes on without it and loses nothing: "
        f"`rung wandb sync {shown(directory)}` sends it all later"
    )


def left_alone(seconds: float, directory: Path) -> str:
    """That W&B takes too long."""
    return f"W&B: not done after {seconds:.0f} s, left alone; `rung wandb sync {shown(directory)}` sends the rest"
