"""The git checkouts that code comes from: commit, branch, and the changes that are not committed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 30


@dataclass(frozen=True)
class Checkout:
    """A git checkout as it stands."""

    root: Path
    commit: str
    branch: str | None
    """None: no branch is checked out."""
    dirty: bool
    """Whether tracked files differ from the commit, or there are untracked ones that are not ignored."""
    diff: bytes
    """What `git diff HEAD` says; empty without changes of tracked files."""


def checkout_root(path: Path) -> Path | None:
    """The checkout that `path` belongs to; None if there is none above it, or if that one ignores it."""
    root = next((folder for folder in [path, *path.parents] if (folder / ".git").exists()), None)
    return None if root is None or _git(root, "check-ignore", str(path)) else root


def read_checkout(root: Path) -> Checkout | None:
    """The state of the checkout at `root`; None if git is missing, refuses, or has no commit yet."""
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    if commit is None or status is None:
        return None
    branch = (_git(root, "symbolic-ref", "--short", "-q", "HEAD") or b"").decode().strip()
    return Checkout(
        root=root,
        commit=commit.decode().strip(),
        branch=branch or None,
        dirty=bool(status.strip()),
        diff=_git(root, "diff", "--no-ext-diff", "--no-color", "HEAD") or b"",
    )


def _git(root: Path, *arguments: str) -> bytes | None:
    command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
