"""The driver's record of a sweep: sole writer of the tables `configurations`, `runs`, `decisions` and `events`.

It also says, from what is on disk, what an interrupted sweep still has to do. Tune's own state plays no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rung.identity import run_id
from rung.results.query import load
from rung.results.schema import TABLES
from rung.results.store import TableWriter
from rung.results.views import dicts
from rung.tuning.schedulers import Decision

State = Literal["waiting", "running", "paused", "completed", "stopped", "failed"]
Row = dict[str, Any]


class Ledger:
    """What is known of every configuration and run of one study.

    Args:
        directory: the study's directory.
        study: its name.
        config_ids: the planned configurations.
        seeds: the planned seeds of each.
        scheduler: name of the rule, for the decisions' rows.
        replication: how runs are trained, for the rows of those that never reported.
    """

    def __init__(
        self,
        directory: Path,
        study: str,
        config_ids: Iterable[str],
        seeds: Sequence[int],
        scheduler: str,
        replication: str = "serial",
    ) -> None:
        self.directory = directory
        self.study = study
        self.seeds = tuple(seeds)
        self._scheduler = scheduler
        self._replication = replication
        self.runs: dict[str, dict[int, Row]] = {config_id: {} for config_id in config_ids}
        self.states: dict[str, State] = dict.fromkeys(self.runs, "waiting")
        self.labels: dict[str, str] = {}
        self.decisions: list[Decision] = []
        self._levels: dict[str, set[int]] = {}
        self._writers = {
            table: TableWriter(directory, table, "driver")
            for table in ("configurations", "runs", "decisions", "events")
        }
        self.attempt = self._writers["events"].attempt
        self._recover()

    # What is on disk.

    def _recover(self) -> None:
        stored = load(self.directory)
        for row in dicts(stored.runs):
            if row["phase"] == "search":
                self.runs.setdefault(row["config_id"], {})[row["seed"]] = row
        for row in sorted(dicts(stored.decisions), key=lambda row: row["order"]):
            self._remember(Decision(**{name: row[name] for name in Decision.__dataclass_fields__}))
        self.labels = {row["config_id"]: row["label"] for row in dicts(stored.configurations)}
        for config_id in self.labels:
            self.runs.setdefault(config_id, {})
        for decision in self.decisions:
            if decision.decision == "stop":
                self._stop(decision.config_id)
        for config_id in self.runs:
            self.states[config_id] = self._state_on_disk(config_id)

    def _remember(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self._levels.setdefault(decision.config_id, set()).add(decision.level)

    def _state_on_disk(self, config_id: str) -> State:
        statuses = [row["status"] for row in self.runs[config_id].values()]
        if "stopped" in statuses:
            return "stopped"
        # A failed run is tried again: what made it fail may have been mended.
        if len(statuses) == len(self.seeds) and all(status in ("completed", "diverged") for status in statuses):
            return "completed"
        return "waiting"

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier driver has left rows."""
        return self.attempt > 1

    def unfinished(self) -> list[str]:
        """Configurations that still have something to do."""
        return [config_id for config_id, state in self.states.items() if state == "waiting"]

    def failed_runs(self) -> int:
        """Failed runs that the same command would try again; those of stopped configurations are not."""
        return sum(
            row["status"] == "failed"
            for config_id, runs in self.runs.items()
            if self.states[config_id] != "stopped"
            for row in runs.values()
        )

    def levels_decided(self, config_id: str) -> set[int]:
        """Rungs that this configuration has passed already."""
        return self._levels.get(config_id, set())

    # What happens.

    def add_configurations(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Records planned configurations that are not in the table yet."""
        for row in rows:
            config_id = str(row["config_id"])
            if config_id not in self.labels:
                self.labels[config_id] = str(row["label"])
                self.runs.setdefault(config_id, {})
                self.states.setdefault(config_id, "waiting")
                self._writers["configurations"].add(row)
        self._writers["configurations"].flush()

    def start(self, config_id: str) -> None:
        """Records that a configuration is being trained now, for the first time or again."""
        if not self.runs[config_id]:
            self.event("configuration_started", self.labels.get(config_id, ""), config_id)
            for seed in self.seeds:
                self._write_run(self._unreported(config_id, seed))
            self._writers["runs"].flush()
        self.states[config_id] = "running"

    def report(self, config_id: str, rows: Iterable[Row]) -> None:
        """Records the runs of a configuration as a trial reports them."""
        for row in rows:
            before = self.runs[config_id].get(row["seed"])
            self._write_run(row)
            for kind in ("failed", "diverged"):
                if row["status"] == kind and (before is None or before["status"] != kind):
                    text = (row["error"] or "").strip().splitlines()[-1:] or [f"at step {row['step']}"]
                    self.event(f"run_{kind}", text[0], config_id, row["run_id"])
        self._writers["runs"].flush()

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Records decisions of the scheduler, and the runs that they stop."""
        for decision in decisions:
            self._writers["decisions"].add(
                {
                    "study": self.study,
                    "phase": "search",
                    "scheduler": self._scheduler,
                    "seeds": self._usable(decision.config_id),
                    "order": len(self.decisions),
                    "attempt": self.attempt,
                    "decided_at": datetime.now(UTC),
                    **vars(decision),
                }
            )
            self._remember(decision)
            self._writers["decisions"].flush()
            if decision.decision == "stop":
                self._stop(decision.config_id)
            if decision.decision == "stop" and self.states[decision.config_id] == "stopped":
                self.event("configuration_stopped", decision.reason, decision.config_id)

    def end(self, config_id: str, state: State, message: str) -> None:
        """Records that a configuration has come to its end."""
        self.states[config_id] = state
        self.event(f"configuration_{state}", message, config_id)

    def fail(self, config_id: str, error: str) -> None:
        """Records that a configuration's process was lost for good: its open runs have failed."""
        for seed in self.seeds:
            row = self.runs[config_id].get(seed) or self._unreported(config_id, seed)
            if row["status"] == "running":
                self._write_run({**row, "status": "failed", "ended_by": "error", "error": error, "value": None})
        self._writers["runs"].flush()
        self.end(config_id, "failed", error.strip().splitlines()[-1] if error.strip() else "unknown error")

    def event(self, kind: str, message: str, config_id: str | None = None, run_id: str | None = None) -> None:
        """Records that something happened."""
        writer = self._writers["events"]
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

    def close(self) -> None:
        """Writes what is still in memory."""
        for writer in self._writers.values():
            writer.close()

    def _unreported(self, config_id: str, seed: int) -> Row:
        """A row for a run that has not reported yet."""
        empty: Row = {column.name: None for column in TABLES["runs"].columns}
        ids = {"study": self.study, "config_id": config_id, "run_id": run_id(config_id, seed), "seed": seed}
        zeros = {"attempt": 1, "step": 0, "tokens": 0, "wall_seconds": 0.0}
        return {**empty, **ids, **zeros, "phase": "search", "status": "running", "replication": self._replication}

    def _usable(self, config_id: str) -> int:
        return sum(row.get("value") is not None for row in self.runs[config_id].values())

    def _stop(self, config_id: str) -> None:
        # A configuration whose runs have all ended by themselves has nothing left to stop.
        for row in list(self.runs.setdefault(config_id, {}).values()):
            if row["status"] == "running":
                self.states[config_id] = "stopped"
                self._write_run({**row, "status": "stopped", "ended_by": "scheduler"})
        self._writers["runs"].flush()

    def _write_run(self, row: Row) -> None:
        before = self.runs[row["config_id"]].get(row["seed"])
        attempt = max(row["attempt"], before["attempt"]) if before else row["attempt"]
        revision = before["revision"] + 1 if before and before["attempt"] == attempt else 0
        row = {**row, "attempt": attempt, "revision": revision, "updated_at": datetime.now(UTC)}
        self.runs[row["config_id"]][row["seed"]] = row
        self._writers["runs"].add(row)
