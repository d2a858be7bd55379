"""Tune's trial: the runs of one task (a configuration's, in the search), taken from rung to rung.

Tune is told one aggregated row per rung. Everything else (rows, checkpoints) goes from here straight to the study's
directory, so nothing depends on Tune's own files: a trial that starts anywhere picks up from there.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from rung.errors import RungError, StorageError
from rung.results.aggregation import Aggregation
from rung.training import environment
from rung.training.assignment import Assignment, Goal, Target

if TYPE_CHECKING:
    from rung.training.replication import Replication
    from rung.tuning.group_replication import GroupReplication
    from rung.tuning.worker_group import WorkerGroup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupSize:
    """Several processes for each run."""

    workers: int
    gpus: float
    """Of each worker."""
    retries: int
    """How often workers of one task may die."""


@dataclass(frozen=True)
class TrialTask:
    """What one trial does: an assignment, the rungs that still lie before it, and how its runs become one value."""

    assignment: Assignment
    levels: tuple[tuple[float, int], ...]
    """Ascending, each with how many seeds train up to it; the last one is the whole budget."""
    aggregation: Aggregation
    threads: int = 1
    group: GroupSize | None = None
    """Who trains the runs; None: the trial's own process."""
    confidence: float | None = None
    """Of the interval around that value; None: the scheduler does not look at it."""

    def as_parameters(self) -> dict[str, Any]:
        """What Tune is given. It replaces objects in a search space by placeholders, so the task travels as text."""
        return {"name": self.assignment.name, "task": json.dumps(dataclasses.asdict(self))}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> TrialTask:
        """The task that `as_parameters` made the parameters of."""
        data = json.loads(parameters["task"])
        goal = data["assignment"].pop("goal")
        target = goal.pop("target")
        fields: dict[str, Any] = data["assignment"]
        fields |= {name: tuple(fields[name]) for name in ("seeds", "rungs")}
        assignment = Assignment(**fields, goal=Goal(**goal, target=Target(**target) if target else None))
        levels = tuple((level, seeds) for level, seeds in data["levels"])
        group = data["group"] and GroupSize(**data["group"])
        aggregation = Aggregation(**data["aggregation"])
        return cls(assignment, levels, aggregation, data["threads"], group, data["confidence"])


class ConfigurationTrial(tune.Trainable):  # type: ignore[misc]
    """Runs a `TrialTask`. Its process is reused for the next configuration, and so are its workers if it has any."""

    def setup(self, config: Mapping[str, Any]) -> None:
        self._replication: Replication | GroupReplication | None = None
        self._workers: WorkerGroup | None = None
        self._error: Exception | None = None
        self._begin(config)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: Mapping[str, Any]) -> None:
        """Takes over a task, after the one before it if there was one."""
        self._task = TrialTask.of(config["trial"])
        self._levels = list(self._task.levels)
        try:
            self._let_go()
            environment.import_snapshot()
            environment.apply({}, self._task.threads)
            self._replication = self._start()
            self._error = None
        except Exception as error:
            self._error = error  # Tune loses a trial whose reset raises: tell it with the next result

    def _start(self) -> Replication | GroupReplication:
        task = self._task
        if task.group is None:
            from rung.training.replication import start  # brings torch, which the driver does without

            return start(task.assignment)
        from rung.tuning.group_replication import GroupReplication
        from rung.tuning.worker_group import WorkerGroup

        if self._workers is None:
            folder = Path(task.assignment.directory) / ".tune" / "workers"
            self._workers = WorkerGroup(folder, task.group.workers, task.threads, task.group.gpus)
        return GroupReplication(self._workers, task.assignment, task.group.retries)

    def step(self) -> dict[str, object]:
        level, seeds = self._levels.pop(0)
        result: dict[str, object] = {"name": self._task.assignment.name, "level": level}
        try:
            if self._error is not None:
                raise self._error
            assert self._replication is not None
            rows = self._replication.advance(level, seeds)
        except Exception as error:
            # Runs that raise are rows; this is the platform's own trouble. It travels as a result, because Tune tells
            # its scheduler that a trial failed, but not why.
            trouble = "storage_error" if isinstance(error, StorageError) else "error"
            return {**result, trouble: str(error) if isinstance(error, RungError) else traceback.format_exc()}
        return {
            **result,
            "value": self._task.aggregation.value(rows),
            "margin": self._task.aggregation.margin(rows, self._task.confidence),
            "rows": rows,
            "set_aside": self._replication.set_aside(),
            "restarts": self._replication.restarts(),
            "ended": self._replication.has_ended or not self._levels,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, object]:
        # Tune pauses only what it has checkpointed. The real checkpoints are the runs' own; what they do not know is
        # which runs have failed.
        if self._replication is None:
            return {"levels": list(self._levels), "failed": {}}
        try:
            self._replication.checkpoint()
        except StorageError:  # costs only time; Tune would take it for the death of this process
            log.exception("%s is not saved where it is paused", self._task.assignment.config_id)
        return {"levels": list(self._levels), "failed": self._replication.failed}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        if checkpoint:
            self._levels = [(level, seeds) for level, seeds in checkpoint["levels"]]
            if self._replication is not None:
                self._replication.give_up(checkpoint["failed"])

    def cleanup(self) -> None:
        try:
            self._let_go()
        finally:
            if self._workers is not None:
                self._workers.close()

    def _let_go(self) -> None:
        replication, self._replication = self._replication, None
        if replication is not None:
            replication.close()
