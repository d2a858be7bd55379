"""Replication: the runs of one configuration, taken together from rung to rung in this process.

What its two kinds share is here: one after another is in `serial.py`, together in `packed.py`. A run that raises is
recorded as failed and a run that diverges as diverged; the others go on. Storage that cannot be written ends
everything, because results would be lost.
"""

from __future__ import annotations

import logging
import platform
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

import torch

from rung.errors import RungError, StorageError
from rung.locks import FileLock
from rung.trainable import find_trainable
from rung.training.assignment import Assignment
from rung.training.beginning import begin
from rung.training.checkpoints import resume
from rung.training.recorder import RunWriters, TableRecorder
from rung.training.run import Progress, Report, Run
from rung.training.team import Alone, Team

log = logging.getLogger(__name__)

WAIT_FOR_PREDECESSOR = 120.0
"""Seconds after which a process that still holds a configuration is an error."""


class Replication(ABC):
    """The runs of one configuration.

    Args:
        assignment: what to train, and where the rows go.
        on_report: called after every evaluation, for showing it.
        catch: whether a run that raises is recorded as failed; otherwise the exception goes on to the caller.
        team: the processes that train these runs together, of which this is one.

    Raises:
        StorageError: the study's directory cannot be written.
        RungError: another process trains this configuration.
        RungError: the trainable cannot be found.
    """

    kind: ClassVar[Literal["serial", "packed"]]
    """How the runs are trained, as it stands in their rows."""

    def __init__(
        self,
        assignment: Assignment,
        on_report: Callable[[Run, Report], None] | None = None,
        catch: bool = True,
        team: Team | None = None,
    ) -> None:
        self.assignment = assignment
        self._team = team or Alone()
        self._on_report = on_report
        self._catch = catch
        self._trainable = find_trainable(assignment.trainable)
        self._config = self._trainable.Config.model_validate(assignment.config)
        self._lock, self._writers = self._storage()
        self._runs: dict[int, Run] = {}
        self._recorders: dict[int, TableRecorder] = {}
        self._failed: dict[int, Progress] = {}
        self._set_aside: list[tuple[str, str]] = []
        self._seeds = assignment.seeds

    @property
    def has_ended(self) -> bool:
        """Whether no run of the configuration can go on."""
        return all(seed in self._failed or self._ended(seed) for seed in self.assignment.seeds)

    def advance(self, level: float, seeds: int | None = None) -> list[dict[str, object]]:
        """Takes every run that has not ended to `level`, and returns one row of the table `runs` for each that has
        begun. Only the first `seeds` of them are trained if that is given: the others join at a later level."""
        self._seeds = self.assignment.seeds[:seeds]
        self._train(level)
        self._writers.flush()
        return self.rows()

    def rows(self) -> list[dict[str, object]]:
        """One row of the table `runs` for each run that has begun."""
        begun = self._runs.keys() | self._failed.keys()
        return [self._row(seed) for seed in self.assignment.seeds if seed in begun]

    @property
    def failed(self) -> dict[int, str]:
        """Seeds whose runs have failed, with the texts of their errors."""
        return {seed: progress.error or "" for seed, progress in self._failed.items()}

    def set_aside(self) -> list[tuple[str, str]]:
        """Checkpoints found damaged since the last call: ids of their runs, and what was done, in a sentence."""
        found, self._set_aside = self._set_aside, []
        return found

    def restarts(self) -> list[str]:
        """Deaths of other processes since the last call: this one trains alone."""
        return []

    def give_up(self, failed: Mapping[int, str]) -> None:
        """Does not try these seeds again: they have failed before, in this sweep."""
        for seed, error in failed.items():
            self._failed[seed] = Progress(status="failed", ended_by="error", error=error)

    def checkpoint(self) -> None:
        """Saves every run that can go on. (One that has ended has been saved then.)"""
        for run in self._runs.values():
            recorder = self._recorder(run)
            if not run.has_ended and not recorder.is_saved(run):
                recorder.checkpoint(run)

    def close(self) -> None:
        """Writes what is still in memory and lets the models go."""
        try:
            if self.assignment.keep_stopped:
                self.checkpoint()
            self._writers.flush()
        finally:
            self._runs.clear()
            self._recorders.clear()
            self._lock.release()

    def _storage(self) -> tuple[FileLock, RunWriters]:
        """The lock on the configuration, held, and the writers of its tables."""
        directory = Path(self.assignment.directory)
        # The process of a killed driver may live for some seconds more, and must not write beside this one.
        lock = FileLock(directory / "checkpoints" / f"{self.assignment.name}.lock", wait=WAIT_FOR_PREDECESSOR)
        return lock, RunWriters(directory, self.assignment.name)

    @abstractmethod
    def _train(self, level: float) -> None:
        """Takes every run that has not ended to `level`."""

    @contextmanager
    def _guarded(self, seed: int) -> Iterator[None]:
        """Makes what is raised inside the failure of this seed's run, unless it is storage that cannot be written."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            if not self._team.all_failed():
                raise
            self._fail(seed, error)
            if not self._catch:
                raise

    def _run(self, seed: int) -> Run:
        """The run of this seed as far as it has come, in memory or in its checkpoint."""
        if seed not in self._runs:
            self._runs[seed] = self._open(seed)
        return self._runs[seed]

    def _recorder(self, run: Run) -> TableRecorder:
        """The recorder of a run, made once: it knows how much of the run is saved."""
        seed = run.trainable.seed
        if seed not in self._recorders:
            self._recorders[seed] = TableRecorder(self.assignment, run, self._writers, self._on_report)
        return self._recorders[seed]

    def _open(self, seed: int) -> Run:
        run, notes = resume(lambda: self._new(seed), self.assignment.checkpoints(seed))
        begin(run, Path(self.assignment.directory), self.assignment.phase)
        run.reopen()
        for note in notes:
            self._set_aside.append((run.run_id, note))
            log.warning("run %s: %s", run.run_id, note)
        return run

    def _new(self, seed: int) -> Run:
        assignment = self.assignment
        trainable = self._trainable(self._config, seed, assignment.device)
        return Run(trainable, assignment.run_id(seed), assignment.goal, self._team)

    def _fail(self, seed: int, error: Exception) -> None:
        progress = self._runs[seed].progress if seed in self._runs else Progress()
        text = str(error) if isinstance(error, RungError) else traceback.format_exc()
        progress.end("failed", "error", text)
        self._failed[seed] = progress
        self._runs.pop(seed, None)
        self._recorders.pop(seed, None)
        log.warning("run %s failed: %s", self.assignment.run_id(seed), error)

    def _ended(self, seed: int) -> bool:
        return seed in self._runs and self._runs[seed].has_ended

    def _row(self, seed: int) -> dict[str, object]:
        assignment, run = self.assignment, self._runs.get(seed)
        progress = self._failed[seed] if run is None else run.progress
        return {
            "study": assignment.study,
            "config_id": assignment.config_id,
            "run_id": assignment.run_id(seed),
            "seed": seed,
            "phase": assignment.phase,
            "status": progress.status,
            "ended_by": progress.ended_by,
            "error": progress.error,
            "attempt": self._writers.attempt,
            "step": progress.step,
            "epoch": None if run is None else run.epoch,
            "tokens": progress.tokens,
            "wall_seconds": progress.wall_seconds,
            "value": None if progress.status in ("diverged", "failed") else progress.value,
            "best": progress.best,
            "best_step": progress.best_step,
            "diverged_step": progress.step if progress.status == "diverged" else None,
            "parameters": None if run is None else run.parameters,
            "replication": self.kind,
            "workers": self._team.size,
            "threads": torch.get_num_threads(),
            "device": assignment.device,
            "host": platform.node(),
            "launch": assignment.launch,
            "updated_at": datetime.now(UTC),
        }


def start(
    assignment: Assignment, on_report: Callable[[Run, Report], None] | None = None, catch: bool = True
) -> Replication:
    """The replication that an assignment asks for; arguments and errors are those of `Replication`."""
    from rung.training.packed import PackedReplication
    from rung.training.serial import SerialReplication

    kind = PackedReplication if assignment.replication == "packed" else SerialReplication
    return kind(assignment, on_report, catch)
