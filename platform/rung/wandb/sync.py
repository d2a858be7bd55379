"""`rung wandb sync`: sends whole studies from their tables, as often as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rung.errors import RungError
from rung.locks import FileLock
from rung.results.pipeline import find_pipeline
from rung.results.query import load
from rung.wandb.messages import cause, what_was_sent
from rung.wandb.mirror import LOCK, Mirror


def sync(name: str) -> Iterator[str]:
    """Sends a study, or all stages of a pipeline; yields what was done with each.

    Raises:
        RungError: W&B is switched off or does not work, or another process is sending the study.
        StorageError: there is no such study, or it cannot be read.
    """
    pipeline = find_pipeline(name)
    if pipeline is None:
        yield sync_study(load(name).directory.resolve())
        return
    for stage in pipeline.stages():
        if stage.study is not None:
            yield f"{stage.name}: {sync_study(pipeline.study_of(stage).directory.resolve())}"


def sync_study(directory: Path) -> str:
    """Sends what W&B does not have of a study; returns what was done."""
    lock = FileLock(directory / LOCK, wait=0.5)
    try:
        mirror = Mirror(directory, is_afterwards=True)
        if mirror.destination.mode == "disabled":
            raise RungError("W&B is switched off here (WANDB_MODE or WANDB_DISABLED)")
        mirror.update(is_last=True)
    except RungError:
        raise
    except Exception as error:  # of wandb's many
        raise RungError(f"W&B: {cause(error)}. What was sent stays; the same command goes on from there") from error
    finally:
        lock.release()
    if not mirror.sent_now:
        if mirror.destination.is_online:
            return f"W&B: nothing new, all {mirror.runs} runs are there"
        runs = "1 run is" if mirror.runs == 1 else f"{mirror.runs} runs are"
        return f"W&B: nothing new; {runs} in files, and nothing was sent: there is no key (`wandb login`)"
    return what_was_sent(mirror)
