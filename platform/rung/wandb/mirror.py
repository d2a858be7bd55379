"""Keeps W&B at what a study's tables say: each call of `update` sends what is new.

What was sent of runs that have ended is noted in `wandb.json` beside the tables, so that nothing is asked or sent about
them again. The file only saves time: without it everything is looked up, and nothing is sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.results.files import replace_file
from rung.tracking import WandbChoice
from rung.wandb.description import Stage, default_project, describe, other_names, stage_of
from rung.wandb.destination import Destination, destination_of
from rung.wandb.sender import EXIT_CODES, INTERRUPTED, Sender, Update
from rung.wandb.tables import Row, StudyTables

RECORD = "wandb.json"
LOCK = "wandb.lock"
"""Files in the study's directory: what has been sent, and who is sending."""


class Mirror:
    """A study as W&B shows it.

    Args:
        directory: the study's.
        after_each: called after every run that was sent.
        is_afterwards: the study's own choice between online and offline was for the time while it ran.

    Raises:
        RungError: see `destination_of`.
        StorageError: the study cannot be read.
    """

    def __init__(
        self, directory: Path, after_each: Callable[[], None] = lambda: None, *, is_afterwards: bool = False
    ) -> None:
        self.directory = directory
        self._tables = StudyTables(directory)
        self._after_each = after_each
        self.study = self._tables.study
        self._stage: Stage | None = stage_of(directory)
        kept = (self.study.get("tracking") or {}).get("wandb") or {}
        self._choice = WandbChoice.model_validate(kept | ({"mode": None} if is_afterwards else {}))
        self.destination: Destination = destination_of(
            self._choice, default_project(self.study, self._stage), directory
        )
        self._birth = self._tables.birth()
        self._path = directory / RECORD
        self._sent = self._read_record()
        self._noted = self._sent.setdefault(f"{self._birth} {self.destination.name}", {})
        if not (self.destination.is_online or self.destination.folder.exists()):
            self._noted.clear()
        self._seen: dict[str, object] = {}
        self._sender: Sender | None = None
        self.runs = 0
        """Runs that were there at the last update."""
        self.sent_now: set[str] = set()
        """Ids of runs that were sent by this object."""

    @property
    def url(self) -> str | None:
        """The project's page; None before a run was sent to a server."""
        return None if self._sender is None else self._sender.url

    def update(self, *, is_last: bool = False) -> None:
        """Sends what is new.

        Args:
            is_last: nobody writes any more: every run is sent as it stands, and those that have not ended are marked as
                interrupted.

        Raises:
            Exception: whatever reading the tables, or wandb, raises; the next call begins where this one ended.
        """
        stamps, configurations, runs = self._tables.stamps(), self._tables.configurations(), self._tables.runs()
        self.runs = sum(map(len, runs.values()))
        for config_id, theirs in runs.items():
            stamp = (stamps.get(config_id), [_stamp(run) for run in theirs])
            if config_id not in configurations or (self._seen.get(config_id) == stamp and not is_last):
                continue
            due = [run for run in theirs if self._is_due(run, is_last)]
            if due:
                self._send(configurations[config_id], due, is_last)
            self._seen[config_id] = stamp
        if is_last and self._sender is not None:
            self._sender.close()

    def abandon(self) -> None:
        """Called after trouble, once: nothing is sent by this object any more."""
        if self._sender is not None:
            self._sender.abandon()

    def _is_due(self, run: Row, is_last: bool) -> bool:
        if self._noted.get(run["run_id"]) == _stamp(run):
            return False
        return is_last or self.destination.is_online or run["status"] != "running"

    def _send(self, configuration: Row, due: Sequence[Row], is_last: bool) -> None:
        reports = self._tables.rows("metrics", configuration["config_id"])
        texts = self._tables.rows("generations", configuration["config_id"])
        names = other_names(configuration)
        for run in due:
            mine = reports.get(run["run_id"], [])
            if run["status"] == "running" and not mine:
                continue
            is_over = is_last or run["status"] != "running"  # its rows are on disk before the driver learns of its end
            told = describe(self.study, self._birth, self._stage, self._choice, configuration, run)
            shown = [text for text in texts.get(run["run_id"], []) if text["index"] < self._choice.samples]
            exit_code = EXIT_CODES.get(run["status"], INTERRUPTED) if is_over else None
            # A row may still be replaced by the evaluation of the same step, and W&B takes no step twice.
            settled = mine if is_over else mine[:-1]
            self._send_run(Update(told, run, settled, shown, names, exit_code))

    def _send_run(self, update: Update) -> None:
        if self._sender is None:
            self._sender = Sender(self.destination)
        self._sender.send(update)
        run = update.row
        self.sent_now.add(run["run_id"])
        if run["status"] != "running":
            self._noted[run["run_id"]] = _stamp(run)
            replace_file(self._path, json.dumps(self._sent, indent=1).encode())
        self._after_each()

    def _read_record(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._path.read_text())
            return {str(name): dict(runs) for name, runs in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def _stamp(run: Mapping[str, Any]) -> str:
    """Another one, once a run has changed."""
    return f"{run['status']} {run['step']} {run['attempt']}.{run['revision']}"
