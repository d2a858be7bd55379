"""Runs a pipeline: stage after stage, each a sweep of its own, going on where an earlier driver stopped.

Nothing of a pipeline needs to be restored: what a stage has done is known from its study's folder, and what the next
one starts from is looked up there anew. `pipeline.json` in the pipeline's folder says which folder each stage is in; it
is written for who reads the results, and for nothing else here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from rung.errors import RungError, StorageError
from rung.locks import study_lock
from rung.pipeline import Pipeline
from rung.pipeline_plan import StagePlan, check_data, plan_stage, plan_stages
from rung.plan import make_plan
from rung.provenance import launch_record
from rung.results.files import replace_file
from rung.results.pipeline import FILE, FORMAT, PipelineResults
from rung.study import Study
from rung.tuning.sweep import Outcome, check_machine, run_sweep

Row = dict[str, Any]


@dataclass(frozen=True)
class PipelineOutcome:
    """How a launch of a pipeline ended."""

    directory: Path
    failed_stage: str | None
    """The stage at which it stopped because runs failed."""
    was_complete: bool
    """Whether there was nothing left to do."""


def run_pipeline(
    pipeline: Pipeline,
    console: Console,
    on_end: Callable[[Outcome], None],
    debug: bool = False,
) -> PipelineOutcome:
    """Runs what is left of a pipeline.

    Args:
        pipeline: the pipeline.
        console: where progress is shown.
        on_end: is given how a stage ended, before the next one begins.
        debug: leaves Ray's and Tune's own messages on.

    Raises:
        RungError: a stage cannot be run, or another driver is at work.
        StorageError: a folder cannot be read or written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything reported so far is on disk.
    """
    directory = pipeline.directory.resolve()
    if (directory / "study.json").exists():
        raise RungError(f"{directory} holds a study: give the pipeline another name (pipeline: ...)")
    plans = plan_stages(pipeline)
    check_data(plans)
    for planned in plans:
        check_machine(planned.study)
    with study_lock(directory):
        return _Driver(pipeline, plans, directory, console, debug).run(on_end)


class _Driver:
    """One launch of a pipeline."""

    def __init__(
        self, pipeline: Pipeline, plans: Sequence[StagePlan], directory: Path, console: Console, debug: bool
    ) -> None:
        self._pipeline, self._directory = pipeline, directory
        self._console, self._debug = console, debug
        self._record = _new_record(directory, pipeline, plans)
        self._plans = {each.stage.name: each for each in plans}

    def run(self, on_end: Callable[[Outcome], None]) -> PipelineOutcome:
        """Runs the stages; stops after one in which runs have failed, because nobody can start from them."""
        replace_file(self._directory / "pipeline.yaml", self._pipeline.text.encode())
        self._save()
        was_complete = True
        for index, stage in enumerate(self._pipeline.stages):
            planned = self._plans[stage.name]
            if planned.is_assumed:  # what it starts from is complete now
                planned = plan_stage(stage, self._plans)
            self._announce(index, planned)
            # One that was killed at its very end still has to be tidied up.
            if not (planned.is_complete and self._entry(index, planned)["state"] == "complete"):
                outcome = self._run_stage(index, planned)
                was_complete = was_complete and outcome.was_complete
                on_end(outcome)
                if outcome.failed_runs:
                    return PipelineOutcome(self._directory, stage.name, was_complete)
            self._plans[stage.name] = replace(planned, is_complete=True)
        return PipelineOutcome(self._directory, None, was_complete)

    def _announce(self, index: int, planned: StagePlan) -> None:
        name, count = planned.stage.name, len(self._pipeline.stages)
        self._console.rule(f"stage {index + 1} of {count}: {name}", align="left", style="dim")
        lines = []
        if planned.is_renamed:
            there = planned.stage.study.directory
            lines.append(
                f"{there} began from other inputs and stays as it is; this is new, in {planned.study.directory}"
            )
        if planned.is_complete:
            lines.append("complete")
        else:
            lines += [f"{planned.study.study}: {planned.plan.product}", *_starts(planned.study)]
        for line in lines:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _run_stage(self, index: int, planned: StagePlan) -> Outcome:
        """Runs a stage and keeps in the record what becomes of it, also where it is interrupted."""
        study, entry = planned.study, self._entry(index, planned)
        entry.update(state="running", started_at=entry["started_at"] or _now())
        self._save()
        began, outcome = time.monotonic(), None
        try:
            outcome = run_sweep(study, make_plan(study), planned.stage.text, self._console, self._debug)
            return outcome
        finally:
            _end(entry, outcome, time.monotonic() - began)
            self._save()

    def _entry(self, index: int, planned: StagePlan) -> Row:
        """What the record has of the folder that a stage is in now."""
        stage, folder = self._record["stages"][index], planned.study.study
        stage["folder"] = folder
        entry: Row = stage["folders"].setdefault(folder, dict(_NOT_BEGUN))
        return entry

    def _save(self) -> None:
        replace_file(self._directory / FILE, json.dumps(self._record, indent=2).encode())


def _starts(study: Study) -> Iterator[str]:
    for config_id, taken in study.inherited.items():
        yield f"starts from {taken['start']['study']}: {config_id}, weights {taken['start']['weights']}"


# The record.


def _new_record(directory: Path, pipeline: Pipeline, plans: Sequence[StagePlan]) -> Row:
    """The record as this launch begins: that of earlier ones, with this launch and what is known of the stages now."""
    try:
        before = PipelineResults(directory).record
    except StorageError:  # none yet, or one that is damaged: what it says can be found out anew
        before = {"stages": [], "launches": []}
    known = {entry["study"]: entry for entry in before["stages"]}
    threads = pipeline.stages[0].study.resources.cpus
    launch = {"number": len(before["launches"]) + 1, **launch_record(threads)}
    return {
        "format": FORMAT,
        "pipeline": pipeline.name,
        "stages": [_stage_entry(each, known.get(each.stage.name, {})) for each in plans],
        "launches": [*before["launches"], launch],
    }


_NOT_BEGUN: Row = {"state": "waiting", "started_at": None, "ended_at": None, "seconds": 0.0}


def _stage_entry(planned: StagePlan, before: Row) -> Row:
    """What is known of a stage before its turn: which folders it has been in, and perhaps which one it is in now."""
    folders = {folder: dict(entry) for folder, entry in before.get("folders", {}).items()}
    for entry in folders.values():
        if entry["state"] == "running":  # by a driver that was killed
            entry["state"] = "interrupted"
    folder = None if planned.is_assumed or planned.study.study not in folders else planned.study.study
    if folder is not None and folders[folder]["state"] == "complete" and not planned.is_complete:
        folders[folder]["state"] = "interrupted"  # there is more to do now
    return {
        "study": planned.stage.name,
        "file": str(planned.stage.file.resolve()),
        "folder": folder,
        "folders": folders,
    }


def _end(entry: Row, outcome: Outcome | None, seconds: float) -> None:
    """What became of a stage; without an outcome it was interrupted."""
    if outcome is None or not outcome.was_complete or entry["ended_at"] is None:
        entry.update(seconds=entry["seconds"] + seconds, ended_at=_now())
    entry["state"] = "interrupted" if outcome is None else "failed" if outcome.failed_runs else "complete"


def _now() -> str:
    return datetime.now(UTC).isoformat()
