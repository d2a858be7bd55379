"""Feeds an experiment's logger from a run of the engine, and keeps its checkpoints.

checkpoints/step-0000001000/   model, optimizer, generators, position: at every checkpoint_interval, and at the end
            step-0000001234/   the same, from which an interrupted run goes on; goes when the next one is there
            best.safetensors   the weights alone with the lowest validation loss so far; best.json: which step
            final.safetensors  the weights alone at the end
"""

from __future__ import annotations

import time
from pathlib import Path

from rung.results.files import delete_folder
from rung.training.checkpoints import save_checkpoint, save_model
from rung.training.run import Report, Run
from trainables.tinystories.experiment_logger import ExperimentLogger
from trainables.tinystories.experiments.directory import CHECKPOINTS, write_json

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints: what a kill may cost."""
BEST, BEST_FACTS, FINAL = "best.safetensors", "best.json", "final.safetensors"
_ALL = 1_000_000_000
"""What `save_checkpoint` keeps: it is this module that deletes."""


class ExperimentRecorder:
    """The recorder of one experiment (`rung.training.loop.Recorder`).

    Args:
        logger: where rows go.
        run: the run as it was started or resumed.
    """

    def __init__(self, logger: ExperimentLogger, run: Run) -> None:
        self._logger = logger
        self._directory = logger.output_dir / CHECKPOINTS
        self._interval = logger.tracker.config.checkpoint_interval
        self._last_checkpoint = time.monotonic()
        self._since = (run.progress.tokens, run.progress.wall_seconds)

    def log(self, run: Run, report: Report) -> None:
        """A row of the training loss; none at the end, where the evaluation that follows says it, too."""
        if not run.is_used_up():
            self._add(report)
            self._since = (report.tokens, report.wall_seconds)

    def report(self, run: Run, report: Report) -> None:
        """A row with an evaluation; the weights are kept if they are the best so far."""
        self._add(report)
        self._since = (report.tokens, run.progress.wall_seconds)  # what evaluating took is no part of the rate
        if run.progress.best_step == report.step:
            self._keep_best(run, report)

    def after_step(self, run: Run) -> None:
        """A checkpoint, if it is time; the one at the end is `finish`'s, after the last evaluation."""
        due = run.progress.step % self._interval == 0
        if not run.is_used_up() and (due or time.monotonic() - self._last_checkpoint >= CHECKPOINT_SECONDS):
            self.checkpoint(run)

    def checkpoint(self, run: Run) -> None:
        """Saves the run as it stands; its rows are on disk already."""
        kept = save_checkpoint(run, self._directory, keep=_ALL)
        for older in self._directory.glob("step-*"):
            if older != kept and (step_of(older) % self._interval or step_of(older) == run.progress.step):
                delete_folder(older)
        self._logger.tracker.facts["step"] = run.progress.step
        self._logger.tracker.save()
        self._last_checkpoint = time.monotonic()

    def finish(self, run: Run) -> None:
        """The last checkpoint, and the weights alone."""
        self.checkpoint(run)
        save_model(run, self._directory / FINAL)

    def _add(self, report: Report) -> None:
        tokens, seconds = report.tokens - self._since[0], report.wall_seconds - self._since[1]
        self._logger.log_step(
            report.step,
            train_loss=report.finite("batch/loss"),
            val_loss=report.finite("validation/loss"),
            val_perplexity=report.finite("validation/perplexity"),
            learning_rate=report.finite("learning_rate"),
            tokens_per_sec=tokens / seconds if tokens and seconds > 0 else None,
            wallclock_time=report.wall_seconds,
        )

    def _keep_best(self, run: Run, report: Report) -> None:
        save_model(run, self._directory / BEST)
        write_json(self._directory / BEST_FACTS, {"step": report.step, "val_loss": report.finite("validation/loss")})


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name (`step-0000001000`, or `step-0000001000.001`)."""
    return int(checkpoint.name.removeprefix("step-").partition(".")[0])
