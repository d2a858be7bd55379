"""The code of a launch: a copy of every package that it uses, so that rows lead to what made them.

Training processes import the copy, so that editing a file or changing the branch while a study runs changes nothing.
A copy is named by its content (`<study>/code/<12 hex digits>`); a second launch with the same code shares it.

What belongs to it: `rung`, the trainable's package, all else that this process has imported from outside the standard
library and site-packages, and what any of these import by name (found in their text, since many imports are made
late). Whole packages, data files included, but not what lies in site-packages: that has a version.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from rung.results.damage import set_aside_file
from rung.results.parts import storage_error

LARGEST_FILE = 4 * 1024**2
"""Bytes. A larger file is no code: the copy holds a link to it."""
LARGEST_PACKAGE = 64 * 1024**2
"""Bytes of a package without its large files. A larger one (a checkout of a big library) is left out."""
MOST_FILES = 5000
"""Files of a package, as above."""

PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "constraints.txt", "uv.lock", "poetry.lock")
"""Kept beside the packages, with `requirements*.txt` and `environment*.yml`: which versions were asked for."""

_IMPORT = re.compile(rb"^[ \t]*(?:from|import)[ \t]+([A-Za-z_]\w*(?:[ \t]*,[ \t]*[A-Za-z_]\w*)*)", re.MULTILINE)
_NEVER = {"__main__", "__mp_main__", "sitecustomize", "usercustomize", "conftest"}


@dataclass(frozen=True)
class Source:
    """One importable name: a package with its folders (several for a namespace package), or a module's file."""

    name: str
    roots: tuple[Path, ...]


@dataclass(frozen=True)
class CodeSnapshot:
    """The copy of a launch's code."""

    folder: Path
    """An entry of the import path. Its name is the first 12 hex digits of its content's SHA-256."""
    sources: tuple[Source, ...]
    """Where the packages were copied from."""
    left_out: Mapping[str, str]
    """What is no part of the copy, with the reason: packages and, by path in the copy, files."""

    @property
    def hash(self) -> str:
        return self.folder.name

    @property
    def sources_by_name(self) -> dict[str, str]:
        """Where each package was copied from."""
        return {source.name: str(source.roots[0]) for source in self.sources}


@dataclass
class _Content:
    """Files of a copy by their path in it: bytes, or the place of a file too large to copy."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def take_code_snapshot(folder: Path, packages: Iterable[str]) -> CodeSnapshot:
    """Copies the code of this process into a folder below `folder`, unless it is there already.

    Args:
        folder: where a study's copies lie.
        packages: top-level names that belong to the copy wherever they are installed.

    Raises:
        StorageError: it cannot be written.
    """
    content = _Content()
    sources = _closure(dict.fromkeys(packages), content)
    projects = {project: source.name for source in reversed(sources) if (project := project_folder(source))}
    for project, name in projects.items():
        content.files.update(_project_files(project, name))
    digest = content_hash(content.files)
    return CodeSnapshot(_store(content.files, folder, digest[:12]), tuple(sources), content.left_out)


def stored_hash(folder: Path) -> str:
    """The SHA-256 of a copy as it is now; its first 12 digits are the folder's name unless it was changed.

    Raises:
        StorageError: it cannot be read.
    """
    files: dict[str, bytes | Path] = {}
    try:
        for path in _walk(folder):
            relative = path.relative_to(folder).as_posix()
            files[relative] = path.resolve() if path.is_symlink() else path.read_bytes()
        return content_hash(files)
    except OSError as error:
        raise storage_error("cannot read", folder, error) from error


def changed_files(folder: Path, packages: Iterable[str]) -> list[str]:
    """The files of these packages that are not what they are in the copy `folder`, by path in it: changed, new or gone.

    Raises:
        StorageError: the copy cannot be read.
    """
    now: dict[str, bytes | Path] = {}
    for name in packages:
        source = _source(name)
        if source is not None:
            now.update(_read(source)[0])
    try:
        paths = {path.relative_to(folder).as_posix(): path for path in _walk(folder)}
        kept = {
            name: path.resolve() if path.is_symlink() else path.read_bytes()
            for name, path in paths.items()
            if not name.partition("/")[0].endswith(".project")
        }
    except OSError as error:
        raise storage_error("cannot read", folder, error) from error
    return sorted(name for name in kept.keys() | now.keys() if kept.get(name) != now.get(name))


def content_hash(files: Mapping[str, bytes | Path]) -> str:
    """SHA-256 over paths and contents in the order of the paths; a linked file counts by size and time of change."""
    digest = hashlib.sha256()
    for name in sorted(files):
        value = files[name]
        if isinstance(value, Path):
            status = value.stat()
            value = f"link {status.st_size} {status.st_mtime_ns}".encode()
        digest.update(f"{name}\0{len(value)}\0".encode())
        digest.update(value)
    return digest.hexdigest()


# What belongs to the copy.


def _closure(packages: Mapping[str, None], content: _Content) -> list[Source]:
    """The sources of these packages and of all that belongs with them; their files are added to `content`."""
    imported = [name for name in list(sys.modules) if "." not in name]
    waiting = [*packages, *imported]
    seen: set[str] = set(_NEVER)
    sources = []
    while waiting:
        name = waiting.pop(0)
        if name in seen or name in sys.stdlib_module_names:
            continue
        seen.add(name)
        source = _source(name)
        if source is None or (name not in packages and not _is_own(source)):
            continue
        files, links, reason = _read(source)
        if reason:
            content.left_out[name] = reason
            continue
        sources.append(source)
        content.files.update(files)
        content.left_out.update(links)
        waiting += _imported_names(files)
    return sources


def _source(name: str) -> Source | None:
    """Where a top-level name is imported from; None for what is built in or cannot be found."""
    module = sys.modules.get(name)
    spec: ModuleSpec | None = getattr(module, "__spec__", None)
    if spec is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):  # AttributeError: a finder of another time
            return None
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        roots = [Path(location) for location in spec.submodule_search_locations]
        if spec.origin is None:  # a folder without __init__.py, which may just have the name of a word in a text
            roots = [root for root in roots if any(root.glob("*.py")) or any(root.glob("*/*.py"))]
    else:
        roots = [Path(spec.origin)] if spec.has_location and spec.origin else []
    roots = [root for root in roots if root.exists()]
    return Source(name, tuple(roots)) if roots else None


def _is_own(source: Source) -> bool:
    """Whether it is neither the standard library's nor installed by a package manager."""
    return not any(is_installed(root) for root in source.roots)


def is_installed(path: Path) -> bool:
    """Whether a path belongs to the standard library or to an installed distribution."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    places = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.is_relative_to(place) for place in places)


def _read(source: Source) -> tuple[dict[str, bytes | Path], dict[str, str], str]:
    """A source's files by path in the copy, those of them that are only linked, and why it is left out if it is."""
    files: dict[str, bytes | Path] = {}
    links: dict[str, str] = {}
    size = 0
    for root in source.roots:
        for path in _walk(root) if root.is_dir() else [root]:
            relative = f"{source.name}/{path.relative_to(root).as_posix()}" if root.is_dir() else root.name
            try:
                large = path.stat().st_size > LARGEST_FILE
                value = path.resolve() if large else path.read_bytes()
            except OSError as error:
                links[relative] = f"cannot be read: {error.strerror}"
                continue
            files.setdefault(relative, value)
            if isinstance(value, Path):
                links[relative] = f"{path.stat().st_size} bytes: a link to {value}"
            else:
                size += len(value)
            if size > LARGEST_PACKAGE or len(files) > MOST_FILES:
                return {}, {}, f"larger than {LARGEST_PACKAGE // 1024**2} MiB or {MOST_FILES} files: {root}"
    return files, links, ""


def _walk(root: Path) -> Iterator[Path]:
    """The files of a package, without caches, hidden ones, virtual environments and studies' results."""
    visited = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        if here.resolve() in visited:
            folders.clear()
            continue
        visited.add(here.resolve())
        folders[:] = sorted(name for name in folders if _is_kept(here / name))
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")) and path.is_file():
                yield path


def _is_kept(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in ("__pycache__", "node_modules"):
        return False
    return not any((folder / name).exists() for name in ("study.json", "pyvenv.cfg"))


def _imported_names(files: Mapping[str, bytes | Path]) -> list[str]:
    """Top-level names that the text of Python files imports, at any depth of the code."""
    names: dict[str, None] = {}
    for path, text in files.items():
        if path.endswith(".py") and isinstance(text, bytes):
            for found in _IMPORT.findall(text):
                names.update(dict.fromkeys(name.strip().decode() for name in found.split(b",")))
    return list(names)


def _project_files(project: Path, name: str) -> dict[str, bytes | Path]:
    """What says which versions a project asks for, as `<name>.project/<file>`: no importable name has a dot."""
    wanted = [project / name for name in PROJECT_FILES]
    wanted += sorted([*project.glob("requirements*.txt"), *project.glob("environment*.yml")])
    found = [path for path in wanted if path.is_file() and path.stat().st_size <= LARGEST_FILE]
    return {f"{name}.project/{path.name}": path.read_bytes() for path in found}


def project_folder(source: Source) -> Path | None:
    """The nearest folder above a source with a pyproject.toml, setup.py or .git; None for what is installed."""
    first = source.roots[0].resolve()
    if is_installed(first):
        return None
    marks = ("pyproject.toml", "setup.py", ".git")
    return next((folder for folder in first.parents if any((folder / mark).exists() for mark in marks)), None)


# Writing it.


def _store(files: Mapping[str, bytes | Path], folder: Path, name: str) -> Path:
    """Writes the copy under a hidden name and renames it: whole or not at all. A damaged one of that name is set
    aside."""
    target, temporary = folder / name, folder / f".{name}.{os.getpid()}.tmp"
    try:
        if target.is_dir():
            if stored_hash(target)[:12] == name:
                return target
            set_aside_file(target)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for relative, value in files.items():
            path = temporary / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(value, Path):
                path.symlink_to(value)
            else:
                path.write_bytes(value)
                path.chmod(0o444)  # not to be edited by accident
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage_error("cannot write", target, error) from error
    return target
