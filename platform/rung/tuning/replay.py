"""`rung replay`: trains one recorded run again, in this process and without Ray, and compares every report.

A run's numbers depend on its configuration, its seed, the code, the versions of libraries, the processor and the number
of threads; all of them are on record. The replay takes the same steps, evaluates where the run did, and keeps nothing.

By default it runs the copy of the code that the launch has kept: if the code here is another by now, this process
starts itself again with the copy on its import path. Nothing is written into the study.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rung.code_snapshot import changed_files, stored_hash
from rung.errors import RungError
from rung.provenance import CODE_VARIABLE
from rung.training import environment
from rung.tuning.run_record import RunRecord, find_record

if TYPE_CHECKING:
    from rung.tuning.replay_report import ReplayReport


def replay(wanted: str, study: str | None, show: Callable[[str], None], *, present: bool = False) -> ReplayReport | int:
    """Replays a run.

    Args:
        wanted: its id, or the beginning of it.
        study: the study that it belongs to; otherwise it is looked for in all of them.
        show: is told what is being done.
        present: runs the code as it is now, and not the copy of the launch.

    Returns:
        The comparison; or, where the copy was run by another process, which has shown it, that one's exit code.

    Raises:
        RungError: no such run, nothing to compare, a run of several workers, or a device that is not there.
    """
    record = find_record(wanted, study)
    if not record.reports:
        raise RungError(f"{record.row['run_id']} has not reported anything yet: there is nothing to compare")
    workers = record.row["workers"] or 1
    if workers > 1:
        raise RungError(
            f"{record.row['run_id']} was trained by {workers} workers together, and replay trains in one process: its "
            "numbers would differ in their last bits, and in more with dropout. `rung run` of the study in another "
            "place (--set storage=DIR) trains it again as it was"
        )
    code = _code(record)
    if code.changed and not present:
        return _replay_copy(record, code, show)
    threads = int(record.row["threads"] or record.study["resources"]["cpus"])
    environment.apply(environment.process_environment(threads), threads)
    from rung.tuning.replay_report import compare  # both bring torch, before which the threads must be set
    from rung.tuning.retraining import train_again

    show(_announcement(record, code))
    return compare(record, train_again(record, show), code)


@dataclass(frozen=True)
class Code:
    """How the code that runs here relates to the copy of the launch."""

    folder: Path | None
    """The copy; None if there is none."""
    changed: tuple[str, ...] = ()
    """Files that are not as they are in the copy."""
    remark: str = ""


def _code(record: RunRecord) -> Code:
    kept = (record.launch or {}).get("code")
    if not kept:
        return Code(None, remark="this launch has kept no copy of its code")
    folder = record.directory / kept["folder"]
    if not folder.is_dir():
        return Code(None, remark=f"the copy of its code, {folder}, is gone")
    remark = "" if stored_hash(folder)[:12] == kept["hash"] else f"the copy {folder} was changed after the launch"
    return Code(folder, tuple(changed_files(folder, kept["packages"])), remark)


def _replay_copy(record: RunRecord, code: Code, show: Callable[[str], None]) -> int:
    """Starts this program again with the copy first on its import path."""
    folder = str(code.folder)
    if os.environ.get(CODE_VARIABLE) == folder:
        raise RungError(f"{folder} stands on the import path, but other code is imported: {', '.join(code.changed)}")
    show(f"the code has changed since ({_few(code.changed)}): replaying with the copy of its launch, {folder}")
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), CODE_VARIABLE: folder}
    # -P: the working directory must not come before the copy.
    command = [sys.executable, "-P", "-m", "rung", "replay", record.row["run_id"], "--study", str(record.directory)]
    sys.stdout.flush()
    return subprocess.run(command, env=variables).returncode


def _announcement(record: RunRecord, code: Code) -> str:
    row = record.row
    text = (
        f"{row['run_id']} of {record.directory.name}: {row['status']}, {record.reached:,} steps, {row['replication']}"
    )
    if record.goal.unit == "wall_clock" or record.goal.wall_clock is not None:
        text += "\nits budget counts seconds, which do not come back: replaying as many steps as it took then"
    return f"{text}\n{code.remark}" if code.remark else text


def _few(files: tuple[str, ...]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
