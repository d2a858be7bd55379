"""Where results come from: what every launch of a study ran, where and with what. Kept in `provenance.json`.

Rows carry the number of the launch that wrote them, so that each leads to a command, a commit with its uncommitted
changes, the code itself (`code_snapshot.py`), versions and machine. `docs/provenance.md` shows the way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rung.checkout import Checkout, checkout_root, read_checkout
from rung.code_snapshot import CodeSnapshot, changed_files, is_installed, take_code_snapshot
from rung.results.damage import set_aside_file
from rung.results.files import replace_file
from rung.results.parts import storage_error
from rung.results.query import StudyResults
from rung.trainable import Trainable, find_trainable

log = logging.getLogger(__name__)

FILE = "provenance.json"
CODE_VARIABLE = "RUNG_CODE"
"""The environment variable that tells a training process where its launch's code lies."""

PACKAGES = ("rung", "torch", "ray", "numpy", "scipy", "pyarrow", "duckdb", "pydantic", "safetensors")

LARGEST_DIFF = 4 * 1024**2
"""Bytes; a larger diff (a notebook with pictures) is named and not kept. The code itself is in the copy anyway."""

_VARIABLES = re.compile(
    r"RUNG_\w+|(OMP|MKL|KMP|GOMP|OPENBLAS|BLIS|NUMEXPR|VECLIB|ONEDNN|DNNL|ATEN|CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|HIP|ROCR"
    r"|PYTORCH|TORCH|TORCHINDUCTOR|TRITON)_\w+|PYTHON(PATH|HASHSEED|OPTIMIZE)|RAY_ADDRESS|SLURM_(JOB_ID|JOB_NODELIST)"
)
"""Names of environment variables that can change results, or say where they were made."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(frozen=True)
class Launch:
    """A launch that has been recorded."""

    number: int
    """From 1 in each study; stands in the rows that it writes."""
    variables: Mapping[str, str]
    """What training processes need in their environment, to import the copy of the code."""
    problem: str | None = None
    """What was wrong with the record of earlier launches, in a sentence; it has been set aside."""
    changed: tuple[str, ...] = ()
    """What is not as it was at the last launch and may change numbers: files of the code, versions, the processor."""


def record_launch(
    directory: Path,
    study: Mapping[str, Any],
    trainable: str,
    threads: int,
    configs: Iterable[Any] = (),
) -> Launch:
    """Copies the code of this launch and adds the launch to `provenance.json`, where the earlier ones stay.

    Args:
        directory: the study's.
        study: the resolved study, see `study.study_json`.
        trainable: its name.
        threads: of one training process.
        configs: the planned configurations, for their data files.

    Raises:
        StorageError: the directory cannot be written.
        RungError: there is no such trainable.
    """
    found = find_trainable(trainable)
    name = found.__module__.partition(".")[0]
    code = take_code_snapshot(directory / "code", ("rung", name))
    launches, problem = _earlier(directory)
    number = 1 + (max(launch["number"] for launch in launches) if launches else _highest_lost(directory))
    record = {
        "number": number,
        "started_at": datetime.now(UTC).isoformat(),
        "command": sys.argv,
        "working_directory": os.getcwd(),
        **_checkouts(directory, code, name),
        "code": {
            "hash": code.hash,
            "folder": f"code/{code.hash}",
            "packages": code.sources_by_name,
            "left_out": dict(code.left_out),
        },
        "data": _data(found, configs, launches),
        **machine(threads),
        "environment": environment_variables(),
        "study": study,
    }
    replace_file(directory / FILE, json.dumps({"launches": [*launches, record]}, indent=2).encode())
    return Launch(number, _variables(code.folder), problem, _changed(directory, launches[-1:], record))


def _changed(directory: Path, last: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> tuple[str, ...]:
    found: list[str] = []
    for before in last:
        code = before.get("code") or now["code"]
        if code["hash"] != now["code"]["hash"]:
            folder = directory / code["folder"]
            found += changed_files(folder, code["packages"]) if folder.is_dir() else ["the code"]
        versions = before.get("versions", {})
        new = now["versions"]
        found += [
            f"{name} {versions[name]} to {new[name]}" for name in new if versions.get(name, new[name]) != new[name]
        ]
        if before.get("processor", now["processor"]) != now["processor"]:
            found.append(f"the processor ({before['processor']})")
    return tuple(found)


def launch_record(threads: int) -> dict[str, Any]:
    """A launch without a copy of the code, for what is trained outside of a study. Imports nothing heavy."""
    root = _own_checkout(Path(__file__).resolve())
    checkout = read_checkout(root) if root else None
    return {
        "started_at": datetime.now(UTC).isoformat(),
        "command": sys.argv,
        "commit": checkout and checkout.commit,
        "dirty": checkout and checkout.dirty,
        "diff_sha256": hashlib.sha256(checkout.diff).hexdigest() if checkout and checkout.diff else None,
        **machine(threads),
    }


def read_launches(directory: Path) -> list[dict[str, Any]]:
    """The launches of a study, oldest first, each with its number; none if there is no record.

    Raises:
        OSError, ValueError: the record cannot be read.
    """
    path = directory / FILE
    if not path.exists():
        return []
    launches = json.loads(path.read_text(encoding="utf-8"))["launches"]
    return [{"number": place, **launch} for place, launch in enumerate(launches, start=1)]


# Earlier launches.


def _earlier(directory: Path) -> tuple[list[dict[str, Any]], str | None]:
    """The launches on record, and what is wrong with the record. A damaged one gets another name, for people to
    mend."""
    try:
        return read_launches(directory), None
    except OSError as error:
        raise storage_error("cannot read", directory / FILE, error) from error
    except (ValueError, LookupError, TypeError) as error:
        path = directory / FILE
        problem = f"{path} could not be read ({error}) and is now {set_aside_file(path).name}; launches count on"
        log.warning(problem)
        return [], problem


def _highest_lost(directory: Path) -> int:
    """The highest number of a launch whose record is lost, from damaged records and from rows: none is used twice."""
    numbers = [0]
    for path in directory.glob(f"{FILE}.damaged*"):
        text = path.read_text(encoding="utf-8", errors="replace")
        numbers += [int(number) for number in re.findall(r'"number": (\d+)', text)]
        numbers.append(text.count('"started_at"'))
    if (directory / "tables").is_dir():
        results = StudyResults(directory)
        for table in (results.runs, results.metrics):
            numbers += [highest for (highest,) in table.aggregate("max(launch)").fetchall() if highest is not None]
    return max(numbers)


# Code.


def _variables(folder: Path) -> dict[str, str]:
    # Of PYTHONPATH, an entry of an earlier launch in this process goes. The copy comes first there for `rung` itself,
    # which is imported before `environment.import_snapshot` can put it before the working directory.
    earlier = os.environ.get(CODE_VARIABLE)
    rest = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != earlier]
    place = str(folder.resolve())
    return {"PYTHONPATH": os.pathsep.join([place, *rest]), CODE_VARIABLE: place}


def _checkouts(directory: Path, code: CodeSnapshot, trainable: str) -> dict[str, Any]:
    """The trainable's checkout as the launch's own, the other ones behind it; their diffs as files."""
    packages: dict[Path, list[str]] = {}
    for source in sorted(code.sources, key=lambda source: source.name != trainable):
        root = _own_checkout(source.roots[0].resolve())
        if root is not None:
            packages.setdefault(root, []).append(source.name)
    found = [(checkout, names) for root, names in packages.items() if (checkout := read_checkout(root)) is not None]
    records = [{**_checkout_record(directory, checkout), "packages": names} for checkout, names in found]
    nothing = {"commit": None, "branch": None, "dirty": None, "diff": None, "diff_sha256": None}
    own = records[0] if records else nothing
    return {**{key: own[key] for key in nothing}, "checkouts": records}


def _own_checkout(path: Path) -> Path | None:
    # A wheel in a virtual environment inside somebody's project must not report that project's commit.
    return None if is_installed(path) else checkout_root(path)


def _checkout_record(directory: Path, checkout: Checkout) -> dict[str, Any]:
    sha256 = hashlib.sha256(checkout.diff).hexdigest() if checkout.diff else None
    name = None
    if sha256 and len(checkout.diff) <= LARGEST_DIFF:
        name = f"code/{sha256[:12]}.diff"
        replace_file(directory / name, checkout.diff)
    return {
        "root": str(checkout.root),
        "commit": checkout.commit,
        "branch": checkout.branch,
        "dirty": checkout.dirty,
        "diff": name,
        "diff_sha256": sha256,
    }


# Data.


def _data(
    trainable: type[Trainable[Any, Any]], configs: Iterable[Any], launches: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Size, time of change and SHA-256 of the files that the configurations read."""
    paths = dict.fromkeys(Path(path) for config in configs for path in trainable.data_files(config))
    known = {
        (entry["path"], entry["bytes"], entry["modified_ns"]): entry["sha256"]
        for launch in launches
        for entry in launch.get("data", ())
    }
    return [_file_record(path, known) for path in paths]


def _file_record(path: Path, known: Mapping[tuple[str, int, int], str]) -> dict[str, Any]:
    try:
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        sha256 = known.get(key) or file_hash(path)
    except OSError as error:  # the training process will say it better
        return {"path": str(path), "bytes": None, "modified_ns": None, "sha256": None, "error": str(error)}
    return {"path": key[0], "bytes": key[1], "modified_ns": key[2], "sha256": sha256}


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Machine.


def machine(threads: int) -> dict[str, Any]:
    """Versions and hardware of this process. Imports nothing heavy."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "gpus": _gpus(),
        "cores": os.cpu_count(),
        "threads": threads,
    }


def environment_variables() -> dict[str, str]:
    """The variables of this process that can change results or say where they were made; no secrets."""
    names = [name for name in os.environ if _VARIABLES.fullmatch(name) and not _SECRET.search(name)]
    return {name: os.environ[name] for name in sorted(names)}


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


def _gpus() -> list[str]:
    """Names and driver versions of the graphics processors, without importing torch."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
