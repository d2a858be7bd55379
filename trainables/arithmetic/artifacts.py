"""What a pipeline makes once and uses often, addressed by what it is made from: corpora, tokenizers, encoded corpora.

    folder = ensure("corpus", {"samples": 1000, "seed": 0}, make)     data/arithmetic/corpus-3f9a1b20d77c

A recipe is everything that the content depends on; its hash is part of the folder's name, so the same recipe finds what
is there and another one never touches it. A folder is made beside its place and renamed when its manifest, which holds
size and SHA-256 of every file, is written: there are no half-made ones. What was damaged since is made again. Imports
no torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from rung.errors import StorageError
from rung.locks import FileLock
from rung.settings import StrictModel
from trainables.language.tokens import MANIFEST, data_root

WAIT = 3600.0
"""Seconds that a process waits for another one that is making the same."""


class FileRecord(StrictModel):
    """One file of an artifact."""

    bytes: int
    """Its size."""
    sha256: str
    """Of its content."""


class ArtifactManifest(StrictModel):
    """What an artifact is; written last."""

    kind: str
    """`corpus`, `tokenizer`, ..."""
    recipe: dict[str, Any]
    """What it was made from."""
    files: dict[str, FileRecord]
    """By their names."""
    facts: dict[str, Any]
    """Counts and the like, as its maker gave them."""


def ensure(
    kind: str,
    recipe: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, Any]],
    say: Callable[[str], None] = print,
) -> Path:
    """The folder of an artifact, which is made if it is not there whole.

    Args:
        kind: first part of its name.
        recipe: plain values that decide its content.
        make: writes its files into a folder and returns facts about them for the manifest.
        say: takes a line if something is wrong with what is there.

    Raises:
        StorageError: it cannot be written.
        RungError: whatever `make` raises, or another process has been making it for an hour.
    """
    path = artifact_path(kind, recipe)
    if problem_with(path) is None:
        return path
    locks = path.parent / "locks"
    with _writing(path.parent):
        locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / path.name, wait=WAIT)
    try:
        if (problem := problem_with(path)) is not None:
            if path.exists():
                say(f"{path} {problem}: it is made again")
            _make(path, ArtifactManifest(kind=kind, recipe=dict(recipe), files={}, facts={}), make)
    finally:
        lock.release()
    return path


def artifact_path(kind: str, recipe: Mapping[str, Any]) -> Path:
    """Where the artifact of a recipe is, or would be."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return data_root() / "arithmetic" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_manifest(path: Path) -> ArtifactManifest:
    """The manifest of an artifact.

    Raises:
        StorageError: there is none that can be read.
    """
    try:
        return ArtifactManifest.model_validate_json((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path / MANIFEST} cannot be read: {error}") from error


def problem_with(path: Path) -> str | None:
    """What keeps an artifact from being used, as the rest of a sentence; None: nothing."""
    if not path.is_dir():
        return "does not exist"
    try:
        manifest = read_manifest(path)
    except StorageError:
        return f"has no {MANIFEST} that can be read"
    for name, record in manifest.files.items():
        try:
            stat = (path / name).stat()
            if stat.st_size != record.bytes or _sha256(path / name, stat.st_mtime_ns) != record.sha256:
                return f"is damaged: {name} is not what was written"
        except OSError:
            return f"is damaged: {name} cannot be read"
    return None


def _make(path: Path, manifest: ArtifactManifest, make: Callable[[Path], Mapping[str, Any]]) -> None:
    """Makes the artifact beside its place and puts it there; the lock is held."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with _writing(path.parent):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            facts = make(unfinished)
            files = {file.name: _record(file) for file in sorted(unfinished.iterdir())}
            whole = manifest.model_copy(update={"files": files, "facts": dict(facts)})
            (unfinished / MANIFEST).write_text(whole.model_dump_json(indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(path, ignore_errors=True)
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _record(file: Path) -> FileRecord:
    stat = file.stat()
    return FileRecord(bytes=stat.st_size, sha256=_sha256(file, stat.st_mtime_ns))


@lru_cache(maxsize=256)
def _sha256(file: Path, version: int) -> str:
    """Of a file as of that time of change; read once by each process."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns an error of the file system into one that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write to {folder}: {reason}. RUNG_DATA says where data lies") from error
