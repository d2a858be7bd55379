"""Parts of tables that cannot be read: found, kept under another name, and what went with them.

A kill never leaves a damaged part behind (`parts.py`); a failing disk, a full one in a copy, or a hand may. Nothing is
deleted: a damaged part is renamed to `<name>.damaged`, which no reader picks up, so that it can be looked at, replaced
by a whole copy, or thrown away.

Whoever has to act on what was lost finds the damage, makes what it does about it safe on disk, and only then sets the
parts aside: a kill in between costs nothing, because the next look finds the same damage again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rung.results.parts import COMPACTED, Part, parts, storage_error, sync_folder
from rung.results.schema import TABLES

SUFFIX = ".damaged"

_CHECKPOINT = "damaged-step-"
"""What the names of damaged checkpoints begin with."""

_BROKEN = (errno.EIO, errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENODATA, errno.EUCLEAN)
"""Errors of opening a file that say something about the file, not about this process or the moment."""

_DEPENDS = "is left out: a decision builds on those before it, and another part of them cannot be read"

_BY_TASK = ("metrics", "generations")
"""Tables whose rows the training processes write, each under the name of its task."""


@dataclass(frozen=True)
class Damage:
    """A part of a table that cannot be read, or be used without another that cannot."""

    table: str
    writer: str
    """`driver`, the name of a configuration's task, or `compacted`."""
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def find_damage(directory: Path) -> list[Damage]:
    """The parts of the study in `directory` that cannot be read to their last row, in the order of the tables; of the
    table `decisions` all parts, if one of them cannot.

    Reads every part, with its checksums: about 0.7 ms for one of twenty rows, a second for 100 MB.

    Raises:
        StorageError: a file cannot be opened for a reason that is not its own, such as missing rights.
    """
    found = []
    for table in TABLES:
        reasons = [(part, _reason(part)) for part in parts(directory, table)]
        if table == "decisions" and any(reason for _, reason in reasons):
            reasons = [(part, reason or _DEPENDS) for part, reason in reasons]
        found += [Damage(table, part.writer, part.path, reason) for part, reason in reasons if reason is not None]
    return found


def set_aside(damage: Iterable[Damage]) -> list[Path]:
    """Renames damaged parts beside themselves, and returns their new paths.

    Raises:
        StorageError: one cannot be renamed.
    """
    return [set_aside_file(each.path) for each in damage]


def set_aside_file(path: Path) -> Path:
    """Renames a file or folder to an unused `<name>.damaged`, `<name>.damaged-2`, ... and returns the new path.

    Raises:
        StorageError: it cannot be renamed.
    """
    target, number = path.with_name(path.name + SUFFIX), 2
    while os.path.lexists(target):
        target, number = path.with_name(f"{path.name}{SUFFIX}-{number}"), number + 1
    try:
        os.rename(path, target)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error("cannot rename the damaged", path, error) from error
    return target


def incomplete_writers(directory: Path, damage: Iterable[Damage], writers: Iterable[str]) -> set[str]:
    """Those of `writers` (tasks of the sweep) whose rows in `metrics` or `generations` are no longer all there.

    Their checkpoints lie beyond the gap, so only training from the start brings the rows back; being deterministic it
    gives the same ones, and where both are there the later attempt is seen. A part that was put together held the rows
    of every writer, except of those whose very first part is still there.
    """
    asked, lost = set(writers), set()
    for each in damage:
        if each.table in _BY_TASK:
            whole = {p.writer for p in parts(directory, each.table) if (p.attempt, p.sequence) == (1, 1)}
            lost |= asked - whole if each.writer == COMPACTED else {each.writer}
    return lost & asked


def damaged_files(directory: Path) -> list[Path]:
    """What has been set aside in the study `directory`: parts, checkpoints, its own files. Sorted; reads nothing."""
    patterns = (f"*{SUFFIX}*", f"tables/*/*{SUFFIX}*", f"checkpoints/*/{_CHECKPOINT}*")
    return sorted(path for pattern in patterns for path in directory.glob(pattern))


def _reason(part: Part) -> str | None:
    """Why a part cannot be read, in one line; None if it can, or is gone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(part.path, "rb") as file, pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            for group in range(parquet.num_row_groups):
                parquet.read_row_group(group, use_threads=False)
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _BROKEN:
            raise storage_error("cannot read", part.path, error) from error
        if not os.path.lexists(part.path):
            return None
        return "cannot be read: " + (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
