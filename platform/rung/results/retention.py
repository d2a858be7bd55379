"""Which checkpoints of a study are kept: a rule over the table that the user is shown.

    folders = checkpoint_folders(study, "best")
    sum(folder.bytes for folder in folders if not folder.is_kept)

Nothing here deletes; `tuning/retention.py` does at the end of a sweep, `tuning/cleaning.py` on request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rung.results.disk import folder_bytes

if TYPE_CHECKING:
    from rung.results.query import StudyResults

KeepWord = Literal["none", "best", "completed", "all"]
Keep = KeepWord | int
"""Which configurations keep their checkpoints, see `study.CheckpointPolicy`; a number counts the best."""


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """The checkpoints of one run."""

    path: Path
    run_id: str
    config_id: str
    bytes: int
    is_kept: bool
    is_stopped: bool
    """Whether it is of a search that the scheduler has stopped."""


def kept_configurations(results: "StudyResults", keep: Keep) -> set[str]:
    """The configurations whose checkpoints stay, those of phase confirm among them.

    Beside those that `keep` names: what the same command would go on with, because it is unfinished or has a failed
    run; and until the confirmation is over, every configuration that it may still find to be the best. One that was
    confirmed for a choice that no longer holds is treated as if it never had been, once it stands who is chosen.
    """
    from rung.results.confirmation import final_order, read_confirmation, to_confirm
    from rung.results.tables import summary

    study, search, confirm = results.study, summary(results), summary(results, "confirm")
    if keep == "all":
        return {entry.config_id for entry in search}
    confirmation = read_confirmation(study, search, confirm)
    compared = [entry.confirm for entry in confirmation.entries] if confirmation is not None else []
    needed = {
        entry.config_id for entry in (*search, *compared) if not entry.has_ended or (entry.failed and not entry.stopped)
    }
    if confirmation is not None and not confirmation.is_over:
        chosen = to_confirm(search, confirmation.top)
        needed |= {entry.config_id for entry in chosen} | set(confirmation.by_id)
        if not confirmation.is_chosen:
            needed |= {entry.config_id for entry in confirmation.earlier}
    confirmed = confirmation.by_id if confirmation is not None else {}
    ended = [
        entry
        for entry in final_order(search, confirmation)
        if entry.config_id in confirmed or (entry.has_ended and not entry.stopped)
    ]
    return needed | {entry.config_id for entry in ended[: _count(keep, len(ended))]}


def checkpoint_folders(results: "StudyResults", keep: Keep) -> list[CheckpointFolder]:
    """The folders below `checkpoints/` of runs that the tables know, by name, and which of them `keep` keeps."""
    from rung.results.views import dicts

    runs = {row["run_id"]: row for row in dicts(results.runs.select("run_id, config_id, phase, status"))}
    stopped = {row["config_id"] for row in runs.values() if row["status"] == "stopped"}
    kept = kept_configurations(results, keep)
    root = results.directory / "checkpoints"
    found = sorted(path for path in root.glob("*") if path.name in runs and path.is_dir() and not path.is_symlink())
    return [
        CheckpointFolder(
            path,
            path.name,
            run["config_id"],
            folder_bytes(path),
            is_kept=run["config_id"] in kept,
            is_stopped=run["config_id"] in stopped and run["phase"] == "search",
        )
        for path in found
        for run in [runs[path.name]]
    ]


def policy_of(study: Mapping[str, Any]) -> Keep:
    """`checkpoints.keep` of a study.json."""
    keep: Keep = (study.get("checkpoints") or {}).get("keep", "best")
    return keep


def _count(keep: Keep, ended: int) -> int:
    """How many of the configurations that came to their end are kept."""
    match keep:
        case "none":
            return 0
        case "best":
            return 1
        case int():
            return keep
        case _:
            return ended
