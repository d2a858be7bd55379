"""`ExperimentLogger`: an `ExperimentTracker` that also keeps a log and draws; `compare_experiments`. Imports no torch.

logger = ExperimentLogger(experiment_name="test", config=config, output_dir=Path("./output"))
logger.log_training_step(step=100, train_loss=2.5, learning_rate=3e-4, tokens_per_sec=5000.0)
logger.log_validation_step(step=100, val_loss=2.7, val_perplexity=14.88)
logger.finalize()

compare_experiments([Path("runs/baseline"), Path("runs/variant")], Path("comparison.png"))
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rung.errors import RungError, StorageError
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiment_tracker import ExperimentTracker
from trainables.tinystories.experiments.metrics_file import MetricRow, merged
from trainables.tinystories.experiments.tables import ComparisonRow, comparison_table, write_csv

__all__ = ["ExperimentConfig", "ExperimentLogger", "compare_experiments"]

TRAINING_LOG, LOSS_CURVES, LEARNING_RATES = "training.log", "loss_curves.png", "lr_schedule.png"


class ExperimentLogger:
    """Keeps the files of `ExperimentTracker`, and beside them `training.log`, `loss_curves.png`, `lr_schedule.png`.

    Args:
        experiment_name: its name.
        config: its settings.
        output_dir: its folder.
        python_logger: gets every message; None: the logger `rung.experiments`. They go into training.log in any case.

    Raises:
        RungError, StorageError: as for `ExperimentTracker`.
    """

    def __init__(
        self,
        experiment_name: str,
        config: ExperimentConfig,
        output_dir: Path,
        python_logger: logging.Logger | None = None,
    ) -> None:
        self.tracker = ExperimentTracker(experiment_name, config, output_dir)
        self.experiment_name = experiment_name
        self.output_dir = self.tracker.output_dir
        self._loggers = [_training_log(self.output_dir), python_logger or logging.getLogger("rung.experiments")]
        evaluated = [(row.val_loss, row.step) for row in self.tracker.rows if row.val_loss is not None]
        self._best = min(evaluated, default=None)

    @property
    def best_val_loss(self) -> float | None:
        """The lowest validation loss so far, that of earlier attempts included; None: there is none."""
        return None if self._best is None else self._best[0]

    @property
    def best_val_step(self) -> int | None:
        """Its step."""
        return None if self._best is None else self._best[1]

    def log_training_step(
        self, step: int, train_loss: float, learning_rate: float, tokens_per_sec: float | None = None
    ) -> None:
        """Logs the loss of a training step; see `ExperimentTracker.log_step`."""
        self.log_step(step, train_loss=train_loss, learning_rate=learning_rate, tokens_per_sec=tokens_per_sec)

    def log_validation_step(self, step: int, val_loss: float, val_perplexity: float | None = None) -> None:
        """Logs an evaluation; without a perplexity it is e to the power of the loss."""
        self.log_step(step, val_loss=val_loss, val_perplexity=val_perplexity)

    def log_step(self, step: int, **measured: float | None) -> None:
        """Logs all that is known of one step as one row; the arguments are those of `ExperimentTracker.log_step`."""
        row = self.tracker.log_step(step, **measured)
        self.info(_in_words(row))
        if row.val_loss is not None and (self._best is None or row.val_loss < self._best[0]):
            self._best = (row.val_loss, row.step)
            self.info(f"step {row.step}: best validation loss so far, {row.val_loss:.4f}")

    def rewind(self, step: int, evaluated_step: int | None = None) -> None:
        """Forgets what was logged after `step`, because training goes on from there."""
        self.tracker.rewind(step, evaluated_step)
        evaluated = [(row.val_loss, row.step) for row in self.tracker.rows if row.val_loss is not None]
        self._best = min(evaluated, default=None)

    def info(self, message: str) -> None:
        """Writes a message into training.log and to the Python logger."""
        for logger in self._loggers:
            logger.info(message)

    def plot(self, status: str = "running") -> list[Path]:
        """Draws both pictures as things stand and returns the files that were written. Raises StorageError."""
        from trainables.tinystories.experiments.figures import Line, write_learning_rates, write_loss_curves

        line = Line(self.experiment_name, merged(self.tracker.rows), status == "diverged")
        curves, rates = self.output_dir / LOSS_CURVES, self.output_dir / LEARNING_RATES
        drawn = ((curves, write_loss_curves(curves, line)), (rates, write_learning_rates(rates, line)))
        return [path for path, is_drawn in drawn if is_drawn]

    def finalize(self, status: str = "completed") -> None:
        """Writes metrics.json, summary.json and the pictures, and closes the files."""
        self.tracker.finalize(status)
        for path in self.plot(status):
            self.info(f"wrote {path}")
        best = "" if self._best is None else f", best validation loss {self._best[0]:.4f} at step {self._best[1]}"
        self.info(f"{self.experiment_name}: {status}{best}")
        self.close()

    def close(self) -> None:
        """Closes the files and writes nothing; for a loop that breaks off. May be called more than once."""
        self.tracker.close()
        for handler in list(self._loggers[0].handlers):
            handler.close()
            self._loggers[0].removeHandler(handler)


def compare_experiments(
    experiment_dirs: Sequence[Path], output_path: Path, experiment_names: Sequence[str] | None = None
) -> list[ComparisonRow]:
    """Draws the losses of several experiments into one picture and puts their results into one table.

    They may be of different lengths, logged at different intervals, or still running. The table lies beside the
    picture, under its name with the ending `.csv`; it is returned, too, and printed with the paths of what was written.

    Args:
        experiment_dirs: their folders.
        output_path: the picture, a PNG.
        experiment_names: what they are called; None: their folders' names.

    Raises:
        RungError: no folder, or another number of names.
        StorageError: a folder holds no experiment, or a file cannot be read or written.
    """
    from trainables.tinystories.experiments.directory import load_experiment
    from trainables.tinystories.experiments.figures import Line, write_comparison
    from trainables.tinystories.experiments.tables import text_table

    if not experiment_dirs:
        raise RungError("give at least one experiment to compare")
    if experiment_names is not None and len(experiment_names) != len(experiment_dirs):
        raise RungError(f"{len(experiment_dirs)} experiments and {len(experiment_names)} names: give one name each")
    experiments = [load_experiment(Path(directory)) for directory in experiment_dirs]
    names = list(experiment_names or [each.name for each in experiments])
    output_path = Path(output_path)
    lines = [Line(name, each.rows, each.status == "diverged") for name, each in zip(names, experiments, strict=True)]
    is_drawn = write_comparison(output_path, lines)
    table = comparison_table(experiments, names)
    write_csv(output_path.with_suffix(".csv"), table)
    print(text_table(table))
    print(f"\npicture: {output_path if is_drawn else 'none, since there is no loss yet'}")
    print(f"table: {output_path.with_suffix('.csv')}")
    return table


def _training_log(directory: Path) -> logging.Logger:
    """A logger of its own, so that two experiments in one process do not write into each other's log."""
    try:
        handler = logging.FileHandler(directory / TRAINING_LOG, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {directory / TRAINING_LOG}: {error.strerror or error}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.Logger("rung.experiments.file", level=logging.INFO)
    logger.addHandler(handler)
    return logger


def _in_words(row: MetricRow) -> str:
    parts = [
        ("loss {:.4f}", row.train_loss),
        ("validation loss {:.4f}", row.val_loss),
        ("perplexity {:.2f}", row.val_perplexity),
        ("learning rate {:.3g}", row.learning_rate),
        ("{:,.0f} tokens/s", row.tokens_per_sec),
    ]
    return " | ".join([f"step {row.step}", *(text.format(value) for text, value in parts if value is not None)])
