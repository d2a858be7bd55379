"""`rung sample`: lets the model of a recorded run write, from the checkpoint that the study has kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import RungError
from rung.training import environment
from rung.tuning.run_record import RunRecord, find_record

if TYPE_CHECKING:
    from rung.trainable import Sampling
    from rung.training.run import Run


def sample(wanted: str, study: str | None, prompts: Sequence[str], sampling: Sampling) -> tuple[str, list[str]]:
    """What the model of a run writes after each prompt.

    Args:
        wanted: the run's id, or the beginning of it.
        study: the study that it belongs to; otherwise it is looked for in all of them.
        prompts: may hold the same text several times: each is continued in another way.
        sampling: how tokens are drawn.

    Returns:
        A line that says whose model it is, and the texts without their prompts.

    Raises:
        RungError: no such run, no checkpoint of it, a model that does not write, or cannot read a prompt.
        StorageError: the checkpoint cannot be read.
    """
    record = find_record(wanted, study)
    run = trained(record)
    import torch

    from rung.training.precision import precision

    with torch.no_grad(), precision(run.config.precision, "cpu"):
        texts = run.trainable.complete(run.model, prompts, sampling)
    return whose(record, run), texts


def trained(record: RunRecord) -> Run:
    """A recorded run with the weights of its newest checkpoint, on the CPU and in evaluation mode.

    Raises:
        RungError: it has no checkpoint, or its configuration is none of the trainable as it is here.
        StorageError: the checkpoint cannot be read.
    """
    checkpoint = _checkpoint(record)
    environment.apply(environment.process_environment(1), 1)  # before torch is imported

    from rung.training.checkpoints import load_weights
    from rung.tuning.retraining import rerun

    run = rerun(record, device="cpu")
    load_weights(run, checkpoint)
    run.model.eval()
    return run


def whose(record: RunRecord, run: Run) -> str:
    """A line that says which model it is."""
    return f"{run.run_id} at step {run.progress.step:,}, study {record.directory.name}"


def _checkpoint(record: RunRecord) -> Path:
    from rung.training.checkpoint_files import latest_checkpoint

    folder = record.directory / "checkpoints"
    checkpoint = latest_checkpoint(folder / record.row["run_id"])
    if checkpoint is not None:
        return checkpoint
    others = sorted(path.name for path in folder.glob("*") if latest_checkpoint(path) is not None)
    kept = f"kept are those of {', '.join(others[:8])}" if others else "none of its study are kept"
    more = ", ..." if len(others) > 8 else ""
    raise RungError(
        f"{record.row['run_id']} has no checkpoint: {kept}{more}. Which ones stay is said by checkpoints.keep in the "
        "study file"
    )
