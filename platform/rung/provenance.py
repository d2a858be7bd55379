"""Where results come from: commit, uncommitted changes, versions, machine, command; kept for every launch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rung.results.files import replace_file

PACKAGES = ("rung", "torch", "ray", "numpy", "pyarrow", "duckdb", "pydantic", "safetensors")


def launch_record(threads: int) -> dict[str, Any]:
    """What must be known of this launch to repeat it. Imports nothing heavy."""
    return {
        "started_at": datetime.now(UTC).isoformat(),
        "command": sys.argv,
        **_code(),
        "versions": {"python": platform.python_version(), **_versions()},
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
    }


def append_launch(path: Path, record: dict[str, Any]) -> None:
    """Adds a launch to `provenance.json`; the earlier ones stay. Whole or not at all."""
    launches = json.loads(path.read_text())["launches"] if path.exists() else []
    replace_file(path, json.dumps({"launches": [*launches, record]}, indent=2).encode())


def _code() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None, "diff_sha256": None}
    diff = _git(root, "diff", "HEAD") or ""
    return {
        "commit": commit,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    }


def _git(root: Path, *arguments: str) -> str | None:
    # Only the checkout that rung itself runs from; an installed wheel has none, and must not report its surroundings'.
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
