"""`ExperimentTracker`: the files of an experiment, for any training loop. Imports no torch.

    config = ExperimentConfig(experiment_name="test", experiment_id="abc123", vocab_size=10000)
    tracker = ExperimentTracker("test", config, Path("./output"))
    tracker.log_step(step=100, train_loss=2.5, val_loss=2.7, learning_rate=3e-4, tokens_per_sec=5000.0)
    tracker.finalize()

The same construction again goes on with what is there: old rows stay, the clock goes on, and a loop that comes back
to a step that was logged already replaces the rows from there on. An experiment that was finished takes rows after its
end only: values that it holds already are not written twice, others are refused. With other settings it is another
experiment, which is refused. `run_experiment` trains through rung's engine and uses this, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rung.errors import RungError
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.directory import (
    CONFIG,
    METRICS,
    ROWS_JSON,
    SUMMARY,
    holds_experiment,
    read_summary,
    summarised,
    write_json,
)
from trainables.tinystories.experiments.metrics_file import MetricRow, MetricsFile, finite, merged

__all__ = ["ExperimentConfig", "ExperimentTracker"]


class ExperimentTracker:
    """Writes `config.json`, `metrics.csv` (live), `metrics.json` and `summary.json` of one experiment.

    Args:
        experiment_name: its name.
        config: its settings.
        output_dir: its folder; made if need be.

    Raises:
        RungError: the folder holds an experiment with other settings, or a finished one of another name.
        StorageError: the folder cannot be read or written.
    """

    def __init__(self, experiment_name: str, config: ExperimentConfig, output_dir: Path) -> None:
        self.experiment_name = experiment_name
        self.config = config
        self.output_dir = Path(output_dir)
        known = (read_summary(self.output_dir) or {}) if holds_experiment(self.output_dir, config) else {}
        is_finished = known.get("status", "running") != "running"
        if is_finished and known["experiment_name"] != experiment_name:
            raise RungError(
                f"{self.output_dir} holds the experiment {known['experiment_name']}, {known['status']} at step "
                f"{known['statistics']['total_steps']}, and this one is called {experiment_name}: choose another folder"
            )
        self._has_logged = False
        write_json(self.output_dir / CONFIG, config.to_dict())
        self._file = MetricsFile(self.output_dir / METRICS)
        self._end = max((row.step for row in self.rows), default=-1) if is_finished else None
        self._started = time.monotonic() - (self._file.rows[-1].wallclock_time if self._file.rows else 0.0)
        self.facts: dict[str, Any] = {}
        """What else `summary.json` is to hold."""

    @property
    def rows(self) -> Sequence[MetricRow]:
        """What has been logged, in its order."""
        return self._file.rows

    def log_step(
        self,
        step: int,
        train_loss: float | None = None,
        val_loss: float | None = None,
        learning_rate: float | None = None,
        tokens_per_sec: float | None = None,
        val_perplexity: float | None = None,
        wallclock_time: float | None = None,
    ) -> MetricRow:
        """Appends one row; it is on disk when this returns.

        Args:
            step: optimizer steps done.
            train_loss: nats per token, of the step's batch.
            val_loss: nats per token.
            learning_rate: of the step.
            tokens_per_sec: training tokens per second.
            val_perplexity: None: e to the power of `val_loss`.
            wallclock_time: seconds of training so far; None: by the tracker's own clock, which runs from its
                construction and goes on from the last row of an experiment that is taken up again.

        Raises:
            RungError: a step up to the end of an experiment that was finished, with values that it does not hold.
            StorageError: the row cannot be written.
        """
        if self._end is not None and step <= self._end:
            return self._known(step, (train_loss, val_loss, learning_rate, tokens_per_sec))
        if not self._has_logged:
            self._take_up(step)
        if val_perplexity is None and val_loss is not None:
            val_perplexity = math.exp(val_loss) if val_loss < 700 else math.inf
        row = MetricRow(
            step,
            time.monotonic() - self._started if wallclock_time is None else wallclock_time,
            *map(finite, (train_loss, val_loss, val_perplexity, learning_rate, tokens_per_sec)),
        )
        self._file.append(row)
        return row

    def append(self, row: MetricRow) -> None:
        """Takes over a row as it is, of an experiment that this one goes on from."""
        self._file.append(row)

    def rewind(self, step: int, evaluated_step: int | None = None) -> None:
        """Forgets rows after `step`, and evaluations after `evaluated_step`: training goes on from there."""
        self._file.keep_until(step, evaluated_step)
        self._has_logged = True

    def save(self, status: str = "running") -> None:
        """Writes `metrics.json` and `summary.json` as things stand. Raises StorageError."""
        rows = [asdict(row) for row in merged(self.rows)]
        write_json(self.output_dir / ROWS_JSON, rows)
        write_json(self.output_dir / SUMMARY, self.summary(status))

    def summary(self, status: str = "running") -> dict[str, Any]:
        """What `summary.json` holds: name, status, settings, statistics, number of rows, and `facts`."""
        return summarised(self.experiment_name, self.config.to_dict(), self.rows, status, **self.facts)

    def finalize(self, status: str = "completed") -> None:
        """Writes what is written at the end, and closes the files. `status`: `completed`, `diverged`, or `running`.

        A finished experiment to which nothing was added keeps what was written at its end."""
        if self._end is None or self._has_logged:
            self.save(status)
        self.close()

    def close(self) -> None:
        """Closes the files and writes nothing. May be called more than once."""
        self._file.close()

    def _take_up(self, step: int) -> None:
        """Before the first row: what is there of an earlier attempt stays up to `step`."""
        self._file.keep_until(step - 1)
        self._has_logged = True

    def _known(self, step: int, measured: Sequence[float | None]) -> MetricRow:
        """The row of a finished experiment that says what is to be logged. Perplexities follow from losses."""
        for row in merged(self.rows):
            there = (row.train_loss, row.val_loss, row.learning_rate, row.tokens_per_sec)
            pairs = zip(map(finite, measured), there, strict=True)
            if row.step == step and all(value in (None, known) for value, known in pairs):
                return row
        raise RungError(
            f"{self.output_dir} holds this experiment, finished at step {self._end}: step {step} would spoil it. "
            "Choose another folder, or delete that one; steps after its end can be added"
        )
