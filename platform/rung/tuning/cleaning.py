"""What can be deleted of a study without losing a result, and deleting it.

    removals = find_removals(load("demo"), "best")     # deletes nothing
    clean(load("demo"), "best")                        # deletes them, as the only driver of the study

Never deleted: tables, the study's own files, the report, code and diffs that a launch refers to, records of launches
(damaged ones, too), checkpoints that the same command would go on from, and whatever rung does not know. Neither Ray
nor torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError
from rung.locks import study_lock
from rung.provenance import FILE as PROVENANCE
from rung.provenance import read_launches
from rung.results.damage import SUFFIX as DAMAGED
from rung.results.damage import damaged_files
from rung.results.disk import folder_bytes
from rung.results.files import COMPLETE, delete_folder
from rung.results.parts import storage_error
from rung.results.query import StudyResults
from rung.results.retention import CheckpointFolder, Keep, checkpoint_folders

SCRATCH = ".tune"
"""Folder in which Tune keeps what nobody reads."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One kind of thing that can be deleted."""

    what: str
    """In a few words."""
    loss: str
    """What cannot be done any more without it; empty: nothing."""
    paths: tuple[Path, ...]
    bytes: int


def find_removals(results: StudyResults, keep: Keep) -> list[Removal]:
    """What could go, by kind, the kinds that have nothing left out. Deletes nothing.

    Args:
        results: the study.
        keep: which checkpoints stay, in place of what the study says.

    Raises:
        StorageError: the study cannot be read.
    """
    directory = results.directory
    folders = checkpoint_folders(results, keep)
    needless = [folder for folder in folders if not folder.is_kept]
    models = "the trained models; if the study is extended, these runs train again from step 0"
    kinds = [
        ("checkpoints of configurations that are not kept", models, _paths(needless, stopped=False)),
        ("checkpoints of stopped configurations", "the models as they were stopped", _paths(needless, stopped=True)),
        ("unfinished checkpoints", "", _torn(folders)),
        ("damaged files, set aside", "a look at what was damaged", _damaged(directory)),
        ("temporary files", "", _temporary(directory)),
        ("Tune's scratch folder", "", [path for path in [directory / SCRATCH] if path.exists()]),
        ("code that no launch refers to", "", _stray_code(results)),
    ]
    gone: set[Path] = set()
    removals = []
    for what, loss, paths in kinds:
        own = tuple(path for path in paths if not gone & {path, *path.parents})
        gone |= set(own)
        if own:
            removals.append(Removal(what, loss, own, sum(map(folder_bytes, own))))
    return removals


def clean(results: StudyResults, keep: Keep) -> list[Removal]:
    """Deletes what `find_removals` finds, and returns it.

    Raises:
        RungError: a driver is at work on the study.
        StorageError: something cannot be deleted; the rest may be gone.
    """
    with study_lock(results.directory):
        removals = find_removals(results, keep)
        for removal in removals:
            for path in removal.paths:
                _delete(path)
    return removals


def read_keep(text: str) -> Keep:
    """`checkpoints.keep` as it is given on the command line.

    Raises:
        RungError: it is neither one of the words nor a number from 1.
    """
    from pydantic import ValidationError

    from rung.study import CheckpointPolicy

    try:
        keep: Keep = CheckpointPolicy(keep=int(text) if text.isdecimal() else text).keep
    except ValidationError as error:
        raise RungError(f"--keep: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    return keep


def _paths(folders: Iterable[CheckpointFolder], *, stopped: bool) -> list[Path]:
    return [folder.path for folder in folders if folder.is_stopped == stopped]


def _torn(folders: Iterable[CheckpointFolder]) -> list[Path]:
    """Checkpoints whose writing was cut short; their runs go on from an older one, or from the start."""
    steps = (path for folder in folders for path in sorted(folder.path.glob("step-*")))
    return [path for path in steps if path.is_dir() and not (path / COMPLETE).exists()]


def _temporary(directory: Path) -> list[Path]:
    """What a killed process has left of files that it was about to rename, or to try whether it can write."""
    patterns = (".*.tmp", "report/.*.tmp", "tables/*/.*.tmp", "tables/*/.*.probe")
    return sorted(path for pattern in patterns for path in directory.glob(pattern))


def _damaged(directory: Path) -> list[Path]:
    """What has been set aside, except records of launches: nothing else leads from a row to its code."""
    return [path for path in damaged_files(directory) if not path.name.startswith(PROVENANCE)]


def _stray_code(results: StudyResults) -> list[Path]:
    """Copies of code and diffs that no launch names; none where a launch that may name them is not on record."""
    launches = _all_launches(results)
    if launches is None:
        return []
    named = {text for text in _texts(launches) if text.startswith("code/")}
    return sorted(path for path in (results.directory / "code").glob("*") if f"code/{path.name}" not in named)


def _all_launches(results: StudyResults) -> list[dict[str, Any]] | None:
    """The launches of a study; None where it cannot be known that these are all of them."""
    if any(results.directory.glob(f"{PROVENANCE}{DAMAGED}*")):
        return None
    try:
        launches = read_launches(results.directory)
        numbers = {int(launch["number"]) for launch in launches}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    tables = ("runs", "metrics", "configurations")
    rows = results.query(" UNION ".join(f"SELECT launch FROM {table} WHERE launch IS NOT NULL" for table in tables))
    are_all = numbers == set(range(1, len(numbers) + 1)) and numbers >= {number for (number,) in rows.fetchall()}
    return launches if launches and are_all else None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        delete_folder(path)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("cannot delete", path, error) from error
