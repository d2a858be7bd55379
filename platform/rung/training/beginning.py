"""Where a run's weights begin that starts from a run of another study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rung.errors import RungError
from rung.identity import run_id
from rung.results.query import StudyResults, load
from rung.results.views import dicts
from rung.start import weights_key
from rung.trainable import find_trainable
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import read_weights
from rung.training.run import Run


def begin(run: Run, directory: Path, phase: str) -> None:
    """Puts the weights that `run` starts from into its model, if it starts from any and has not begun.

    Args:
        run: as it was made, or as a checkpoint left it.
        directory: of its study; that of the other study lies beside it.
        phase: of the run; the other run is of the same seed and phase.

    Raises:
        RungError: there is no such checkpoint, it does not fit, or the other study has been trained on since.
        StorageError: it cannot be read.
    """
    start, progress = run.config.start, run.progress
    if start is None or progress.step > 0 or progress.evaluated_step >= 0:
        return
    other, folder = run_id(start.configuration, run.trainable.seed, phase), directory.parent / start.study
    checkpoint = latest_checkpoint(folder / "checkpoints" / other)
    if checkpoint is None:
        raise RungError(f"run {run.run_id} starts from run {other} of the study in {folder}, which has no checkpoint")
    results = load(folder)
    there = weights_key(results, start.configuration)
    if there != start.weights:
        raise RungError(
            f"run {run.run_id} starts from weights {start.weights} of the study in {folder}, and there are "
            f"{there or 'none'} of its configuration {start.configuration} now: it has changed since. "
            "`rung run` again starts from what is there, as a new study"
        )
    weights, _ = read_weights(checkpoint, run.trainable.device)
    try:
        run.trainable.begin_from(run.model, weights, _configuration(results, start.configuration))
    except RungError as error:
        raise RungError(f"run {run.run_id} cannot start from {checkpoint}: {error}") from error


def _configuration(results: StudyResults, config_id: str) -> Any:
    """A configuration of a study."""
    rows = dicts(results.configurations.filter(f"config_id = '{config_id}'"))
    if not rows:
        raise RungError(f"the study in {results.directory} has no configuration {config_id}")
    return find_trainable(rows[0]["trainable"]).Config.model_validate_json(rows[0]["config_json"])
