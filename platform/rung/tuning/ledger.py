"""The driver's record of a sweep: sole writer of the tables `configurations`, `runs`, `decisions` and `events`.

It also says, from what is on disk, what an interrupted sweep still has to do. Tune's own state plays no part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rung.results.files import delete_folder
from rung.results.query import load
from rung.results.schema import TABLES
from rung.results.store import TableWriter
from rung.results.views import dicts
from rung.training.assignment import Goal
from rung.tuning.schedulers import Decision
from rung.tuning.tasks import Task

State = Literal["waiting", "running", "paused", "completed", "stopped", "failed"]
Row = dict[str, Any]


class Journal:
    """The driver's writers: opened once for each launch, shared by the phases.

    Args:
        directory: the study's directory.
        study: its name.
        launch: number of the launch in provenance.json, for the rows.
    """

    def __init__(self, directory: Path, study: str, launch: int | None = None) -> None:
        self.directory = directory
        self.study = study
        self.launch = launch
        self.writers = {
            table: TableWriter(directory, table, "driver")
            for table in ("configurations", "runs", "decisions", "events")
        }
        self.attempt = self.writers["events"].attempt

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier driver has left rows."""
        return self.attempt > 1

    def event(self, kind: str, message: str, config_id: str | None = None, run_id: str | None = None) -> None:
        """Records that something happened."""
        writer = self.writers["events"]
        writer.add(
            {
                "study": self.study,
                "time": datetime.now(UTC),
                "attempt": self.attempt,
                "kind": kind,
                "config_id": config_id,
                "run_id": run_id,
                "message": message,
            }
        )
        writer.flush()

    def add_configurations(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Records configurations; a row of the same configuration from an earlier launch is superseded."""
        for row in rows:
            self.writers["configurations"].add(row)
        self.writers["configurations"].flush()

    def close(self) -> None:
        """Writes what is still in memory."""
        for writer in self.writers.values():
            writer.close()


class Ledger:
    """What is known of every task and run of one phase of a study.

    Args:
        journal: the driver's writers.
        tasks: what is planned.
        goal: how long the runs train: one that ended with a shorter budget goes on.
        scheduler: name of the rule, for the decisions' rows.
        replication: how runs are trained, for the rows of those that never reported.
        incomplete: names of tasks whose reports were lost in part: their runs are trained again from the start.
        decisions_lost: whether some decisions cannot be read: then none is, and who has passed a rung begins again.
    """

    def __init__(
        self,
        journal: Journal,
        tasks: Iterable[Task],
        goal: Goal,
        scheduler: str,
        replication: str = "serial",
        incomplete: Collection[str] = (),
        decisions_lost: bool = False,
    ) -> None:
        self.journal = journal
        self.directory = journal.directory
        self.tasks = {task.name: task for task in tasks}
        self._goal = goal
        self._scheduler = scheduler
        self._replication = replication
        self._incomplete = set(incomplete)
        self.runs: dict[str, dict[int, Row]] = {name: {} for name in self.tasks}
        self.states: dict[str, State] = dict.fromkeys(self.tasks, "waiting")
        self.labels: dict[str, str] = {}
        """Of configurations, by id."""
        self.decisions: list[Decision] = []
        self._levels: dict[str, set[int]] = {}
        self._next_order = 0
        self._recover(decisions_lost)

    # What is on disk.

    def _recover(self, decisions_lost: bool) -> None:
        stored = load(self.directory)
        known = {task.run_id(seed): (name, seed) for name, task in self.tasks.items() for seed in task.seeds}
        for row in dicts(stored.runs):
            if row["run_id"] in known:
                name, seed = known[row["run_id"]]
                self.runs[name][seed] = row
        self.labels = {row["config_id"]: row["label"] for row in dicts(stored.configurations)}
        decisions = [] if decisions_lost else dicts(stored.decisions)
        for row in sorted(decisions, key=lambda row: row["order"]):
            self._next_order = row["order"] + 1
            self._remember(Decision(**{name: row[name] for name in Decision.__dataclass_fields__ if name in row}))
        for decision in self.decisions:
            if decision.decision == "stop" and decision.config_id in self.tasks:
                self._stop(decision.config_id)
        for name in self.tasks:
            self.states[name] = self._state_on_disk(name)
            if self.states[name] == "stopped" and not self.runs[name]:
                self._recall(name)
            if name in self._incomplete:
                self._mend(name)

    def _remember(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self._levels.setdefault(decision.config_id, set()).add(decision.level)

    def _state_on_disk(self, name: str) -> State:
        runs = self.runs[name]
        if self.states[name] == "stopped" or any(row["status"] == "stopped" for row in runs.values()):
            return "stopped"
        return "completed" if all(self._is_done(runs.get(seed)) for seed in self.tasks[name].seeds) else "waiting"

    def _is_done(self, row: Row | None) -> bool:
        """Whether a run has nothing left to do. A failed one is tried again: what made it fail may have been mended."""
        if row is None or row["status"] not in ("completed", "diverged"):
            return False
        if row["ended_by"] not in ("budget", "wall_clock"):
            return True
        where = {name: row[name] for name in ("step", "epoch", "tokens", "wall_seconds")}
        return self._goal.is_used_up(**where)

    def _mend(self, name: str) -> None:
        if self.states[name] == "stopped":
            self.event("reports_lost", "a damaged part held reports of this configuration, which was stopped", name)
        else:
            self.repeat(name, "reports were lost with a damaged part")

    def _recall(self, name: str) -> None:
        """Writes rows of a stopped task's runs, which were lost, from their last reports."""
        task, goal = self.tasks[name], self._goal
        reports: dict[int, list[Row]] = {}
        for report in dicts(load(self.directory).metrics.order("run_id, step")):
            if report["run_id"] in {task.run_id(seed) for seed in task.seeds}:
                reports.setdefault(report["seed"], []).append(report)
        for seed, rows in reports.items():
            values = [row[goal.metric] for row in rows if row.get(goal.metric) is not None]
            where = {each: rows[-1][each] for each in ("attempt", "launch", "step", "epoch", "tokens", "wall_seconds")}
            ended = {"status": "stopped", "ended_by": "scheduler", "value": goal.selected(values)}
            self._write_run(name, {**self._unreported(task, seed), **where, **ended})
        self.event("runs_recalled", "rows of its runs were lost, and made again from its reports", name)
        self.journal.writers["runs"].flush()

    def repeat(self, name: str, why: str) -> None:
        """Takes back what is known of a task's runs and their checkpoints: they train again from the start, to the same
        numbers, since a run depends on nothing but its configuration and seed.

        Raises:
            StorageError: a checkpoint cannot be deleted; it would lie beyond what was lost.
        """
        task = self.tasks[name]
        self.event("trained_again", why, name)
        for seed in task.seeds:
            delete_folder(self.directory / "checkpoints" / task.run_id(seed))
        for seed, row in list(self.runs[name].items()):
            self._write_run(name, {**self._unreported(task, seed), "attempt": row["attempt"]})
        self.journal.writers["runs"].flush()
        self.states[name] = "waiting"

    def lacks_decisions(self, name: str, levels: Iterable[int]) -> bool:
        """Whether a task has come beyond one of `levels` without a decision, or was stopped without one. Where rows of
        decisions were lost, the others cannot be compared with it unless it comes there again."""
        stops = {decision.config_id for decision in self.decisions if decision.decision == "stop"}
        if self.states[name] == "stopped" and name not in stops:
            return True
        return any(level < self.reached(name) and level not in self.levels_decided(name) for level in levels)

    def reached(self, name: str) -> float:
        """How much of the budget the task's furthest run has used up."""
        return max((self._position(row) for row in self.runs[name].values()), default=0.0)

    def _position(self, row: Row) -> float:
        if row["epoch"] is None and self._goal.unit == "epochs":
            return 0.0
        return self._goal.position(**{each: row[each] for each in ("step", "epoch", "tokens", "wall_seconds")})

    @property
    def is_complete(self) -> bool:
        """Whether no task has anything left to do."""
        return not any(state == "waiting" for state in self.states.values())

    def failed_runs(self) -> int:
        """Failed runs that the same command would try again; those of stopped configurations are not."""
        return sum(
            row["status"] == "failed"
            for name, runs in self.runs.items()
            if self.states[name] != "stopped"
            for row in runs.values()
        )

    def levels_decided(self, name: str) -> set[int]:
        """Rungs that this configuration has passed already."""
        return self._levels.get(name, set())

    # What happens.

    def add(self, task: Task, label: str) -> None:
        """Takes in a configuration that a searcher has chosen."""
        self.tasks[task.name] = task
        self.labels[task.config_id] = label
        self.runs.setdefault(task.name, {})
        self.states.setdefault(task.name, "waiting")

    def start(self, name: str) -> None:
        """Records that a task's runs are being trained now: for the first time, again, or beyond a shorter budget."""
        task, runs = self.tasks[name], self.runs[name]
        if not runs:
            label = self.labels.get(task.config_id, "")
            self.event("configuration_started", label if task.phase == "search" else f"{label}, to confirm it", name)
        for seed in task.seeds[: task.at_start]:
            if seed not in runs:
                self._write_run(name, self._unreported(task, seed))
        for row in list(runs.values()):
            if row["status"] == "completed" and not self._is_done(row):
                self._write_run(name, {**row, "status": "running", "ended_by": None})
        self.journal.writers["runs"].flush()
        self.states[name] = "running"

    def report(self, name: str, rows: Iterable[Row]) -> None:
        """Records the runs of a task as a trial reports them."""
        for row in rows:
            before = self.runs[name].get(row["seed"])
            self._write_run(name, row)
            for kind in ("failed", "diverged"):
                if row["status"] == kind and (before is None or before["status"] != kind):
                    text = (row["error"] or "").strip().splitlines()[-1:] or [f"at step {row['step']}"]
                    self.event(f"run_{kind}", text[0], name, row["run_id"])
        self.journal.writers["runs"].flush()

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Records decisions of the scheduler, and the runs that they stop."""
        writer = self.journal.writers["decisions"]
        for decision in decisions:
            writer.add(
                {
                    "study": self.journal.study,
                    "phase": "search",
                    "scheduler": self._scheduler,
                    "seeds": self._usable(decision.config_id),
                    "order": self._next_order,
                    "attempt": self.journal.attempt,
                    "decided_at": datetime.now(UTC),
                    **vars(decision),
                }
            )
            self._next_order += 1
            self._remember(decision)
            writer.flush()
            if decision.decision == "stop":
                self._stop(decision.config_id)
            if decision.decision == "stop" and self.states[decision.config_id] == "stopped":
                self.event("configuration_stopped", decision.reason, decision.config_id)

    def end(self, name: str, state: State, message: str) -> None:
        """Records that a task has come to its end."""
        self.states[name] = state
        self.event(f"configuration_{state}", message, name)

    def fail(self, name: str, error: str) -> None:
        """Records that a task's process was lost for good: its open runs have failed."""
        task = self.tasks[name]
        for seed in task.seeds[: max(task.at_start, len(self.runs[name]))]:
            row = self.runs[name].get(seed) or self._unreported(task, seed)
            if row["status"] == "running":
                self._write_run(name, {**row, "status": "failed", "ended_by": "error", "error": error, "value": None})
        self.journal.writers["runs"].flush()
        self.end(name, "failed", error.strip().splitlines()[-1] if error.strip() else "unknown error")

    def event(self, kind: str, message: str, name: str | None = None, run_id: str | None = None) -> None:
        """Records that something happened, to a task if one is named."""
        task = self.tasks.get(name) if name is not None else None
        if task is not None and task.phase == "confirm" and len(task.seeds) == 1:
            run_id = task.name
        self.journal.event(kind, message, task.config_id if task else name, run_id)

    def _unreported(self, task: Task, seed: int) -> Row:
        """A row for a run that has not reported yet."""
        empty: Row = {column.name: None for column in TABLES["runs"].columns}
        ids = {"study": self.journal.study, "config_id": task.config_id, "run_id": task.run_id(seed), "seed": seed}
        zeros = {"attempt": 1, "step": 0, "tokens": 0, "wall_seconds": 0.0}
        return {
            **empty,
            **ids,
            **zeros,
            "phase": task.phase,
            "status": "running",
            "replication": self._replication,
            "launch": self.journal.launch,
        }

    def _usable(self, name: str) -> int:
        return sum(row.get("value") is not None for row in self.runs[name].values())

    def _stop(self, name: str) -> None:
        # A configuration whose runs have all ended by themselves has nothing left to stop.
        if all(self._is_done(self.runs[name].get(seed)) for seed in self.tasks[name].seeds):
            return
        self.states[name] = "stopped"
        for row in list(self.runs[name].values()):
            if row["status"] == "running":
                self._write_run(name, {**row, "status": "stopped", "ended_by": "scheduler"})
        self.journal.writers["runs"].flush()

    def _write_run(self, name: str, row: Row) -> None:
        before = self.runs[name].get(row["seed"])
        attempt = max(row["attempt"], before["attempt"]) if before else row["attempt"]
        revision = before["revision"] + 1 if before and before["attempt"] == attempt else 0
        row = {**row, "attempt": attempt, "revision": revision, "updated_at": datetime.now(UTC)}
        self.runs[name][row["seed"]] = row
        self.journal.writers["runs"].add(row)
