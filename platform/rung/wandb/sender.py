"""Writes W&B runs; the only module that imports wandb.

A row's optimizer step is also W&B's own step (`_step`). It only grows, and a server says how far a run has come when it
is opened again, so no row is sent twice and none is left out. Files are not opened again but written anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rung.errors import RungError
from rung.wandb.description import Description
from rung.wandb.destination import Destination, check_reachable, check_space

if TYPE_CHECKING:
    import wandb

Row = Mapping[str, Any]

MOST_OPEN = 32
"""Runs that are open on the server at a time; the one that has been quiet for longest makes room for another."""

GROWTH = 1.1
"""The table of samples is sent again when it has so many times the rows, so that all its versions together are a
bounded multiple of the last one."""

INIT_SECONDS, FINISH_SECONDS = 30.0, 45.0

EXIT_CODES = {"completed": 0, "stopped": 0, "diverged": 1, "failed": 1}
INTERRUPTED = 255
"""What W&B shows as killed."""

_RESERVED = ("step", "epoch", "tokens", "wall_seconds")
_NOT_METRICS = ("study", "config_id", "run_id", "seed", "phase", "attempt", "launch", "reported_at", *_RESERVED)
_SUMMARY = ("status", "ended_by", "error", "value", "best", "best_step", "parameters", "device", "host")
_SAMPLE_COLUMNS = {"prompt": "prompt", "response": "response", "extracted": "extracted", "answer": "gold"}
"""Columns of the table of samples, and what they are called in `generations`."""


@dataclass(frozen=True)
class Update:
    """What W&B is to have of a run."""

    told: Description
    """What it is called."""
    row: Row
    """Of the table `runs`."""
    reports: Sequence[Row]
    """All its rows of `metrics`, in order."""
    texts: Sequence[Row]
    """Rows of `generations`, in order."""
    names: Mapping[str, str]
    """Other names of metrics."""
    exit_code: int | None
    """Of a run that has ended; None: it goes on."""


@dataclass
class _OpenRun:
    run: wandb.Run
    next_step: int
    sampled: int = 0
    """Rows of the table of samples that W&B has."""


class Sender:
    """Sends runs to a destination; keeps those open that go on.

    Raises:
        RungError: wandb cannot be imported, or the server does not answer.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._wandb = _import_wandb()
        if destination.is_online:
            check_reachable(destination.server)
        self._open: dict[str, _OpenRun] = {}
        self.url: str | None = None
        """The project's page, once a run has been opened on a server."""

    def send(self, update: Update) -> None:
        """Sends what W&B does not have of a run."""
        opened = self._opened(update.told)
        for report in update.reports:
            if report["step"] >= opened.next_step:
                opened.run.log(history_row(report, update.names), step=report["step"])
                opened.next_step = report["step"] + 1
        summary: dict[str, Any] = {f"rung/{name}": update.row[name] for name in _SUMMARY}
        if len(update.texts) > opened.sampled * (GROWTH if update.exit_code is None else 1):
            summary |= self._samples(update.texts)
            opened.sampled = len(update.texts)
        opened.run.summary.update({name: value for name, value in summary.items() if value is not None})
        if update.exit_code is not None:
            self._finish(update.told.wandb_id, update.exit_code)

    def close(self) -> None:
        """Ends the runs that are still open, as interrupted."""
        for wandb_id in list(self._open):
            self._finish(wandb_id, INTERRUPTED)

    def abandon(self) -> None:
        """Ends wandb's own process and all runs in it, after trouble; another sender begins anew."""
        with suppress(Exception):
            self._wandb.teardown(exit_code=INTERRUPTED)

    def _opened(self, told: Description) -> _OpenRun:
        """The run, open; it becomes the last of `_open`."""
        opened = self._open.pop(told.wandb_id, None)
        while len(self._open) >= MOST_OPEN:
            self._finish(next(iter(self._open)), 0)
        self._open[told.wandb_id] = opened or self._begin(told)
        return self._open[told.wandb_id]

    def _begin(self, told: Description) -> _OpenRun:
        where = self._destination
        earlier = f"{'run' if where.is_online else 'offline-run'}-*-{told.wandb_id}"
        for folder in where.folder.glob(earlier):  # online: of a process that was killed
            shutil.rmtree(folder)
        run = self._wandb.init(
            project=where.project,
            entity=where.entity,
            dir=where.root,
            id=told.wandb_id,
            resume="allow" if where.is_online else None,
            group=told.group,
            job_type=told.job_type,
            name=told.name,
            config=dict(told.config),
            tags=told.tags,
            notes=told.notes,
            mode=where.mode,
            reinit="create_new",
            settings=self._settings(),
        )
        run.define_metric("*", step_metric="step")
        self.url = run.project_url or self.url
        return _OpenRun(run, run.starting_step)

    def _settings(self) -> wandb.Settings:
        settings: wandb.Settings = self._wandb.Settings(
            base_url=self._destination.server,
            console="off",
            silent=True,
            symlink=False,
            program="rung",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            stop_fn=_ignore_stop,
        )
        return settings

    def _finish(self, wandb_id: str, exit_code: int) -> None:
        run = self._open.pop(wandb_id).run
        run.finish(exit_code=exit_code)
        if self._destination.is_online:
            shutil.rmtree(run.settings.sync_dir, ignore_errors=True)  # all of it is on the server, and in Parquet
        else:
            check_space(self._destination.folder)

    def _samples(self, texts: Sequence[Row]) -> dict[str, Any]:
        """The table of samples, and the first text of the newest step by itself."""
        columns = ["step", "index", *_SAMPLE_COLUMNS, "reward"]
        lines = [
            [text["step"], text["index"], *(text[name] for name in _SAMPLE_COLUMNS.values()), text["reward"]]
            for text in texts
        ]
        newest = next(text for text in texts if text["step"] == texts[-1]["step"])
        table = self._wandb.Table(columns=columns, data=lines, allow_mixed_types=True)
        shown = {f"sample/{name}": newest[source] for name, source in _SAMPLE_COLUMNS.items()}
        return {"sample/table": table, **shown}


def history_row(report: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """A report as W&B has it: a metric that is missing is left out."""
    seconds = report["reported_at"].timestamp()
    row = {name: report[name] for name in _RESERVED} | {"timestamp": seconds, "_timestamp": seconds}
    row |= {names.get(name, name): value for name, value in report.items() if name not in _NOT_METRICS}
    return {name: value for name, value in row.items() if value is not None}


def _ignore_stop() -> None:
    """A run cannot be stopped from W&B's page: it is a view."""


def _import_wandb() -> Any:
    """wandb, told before it is imported to keep its messages to itself."""
    os.environ.update(WANDB_SILENT="true", WANDB_CONSOLE="off")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except Exception as error:
        raise RungError(f"wandb cannot be imported: {type(error).__name__}: {error} (pip install wandb)") from error
    return wandb
