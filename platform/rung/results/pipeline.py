"""Reading pipelines: how far each stage has come, what it started from, and what its best configuration reached.

    pipeline = find_pipeline("arithmetic")                   # a name, the pipeline file, or the pipeline's folder
    for stage in pipeline.stages():
        print(stage.name, stage.state, stage.best and stage.best.mean)

A pipeline's folder lies beside those of its stages, which are ordinary studies. Its `pipeline.json` says which folder
each stage is in; everything else is read from the studies. Works while the pipeline runs. Nothing here writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import StorageError, StudyError
from rung.results.confirmation import final_order, read_confirmation
from rung.results.export import interval_text
from rung.results.parts import storage_error
from rung.results.query import StudyResults, storage_root
from rung.results.report_tables import Cost, cost_of
from rung.results.tables import ConfigurationSummary
from rung.results.views import dicts, quote
from rung.yaml_file import read_yaml

FILE = "pipeline.json"
FORMAT = 1
"""The `format` of pipeline.json that this version reads."""

Row = dict[str, Any]

_START = "config.start."
"""Columns of the table `configurations` that say what runs started from."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A configuration of another study that runs of a stage started from."""

    study: str
    """Its study's folder."""
    config_id: str
    label: str
    """Its swept values; empty if its study is gone."""
    weights: str
    """First 12 hex digits of the SHA-256 of its first run's weights."""

    @property
    def text(self) -> str:
        """In one line, for people."""
        return f"{self.study}: {self.label or self.config_id}"


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage as it stands."""

    number: int
    """Its place in the pipeline, from 1."""
    name: str
    """What the pipeline calls it: the name in its study file."""
    folder: str | None
    """The folder of its study beside the pipeline's; None while it waits."""
    state: str
    """`waiting` (for what it starts from), `running`, `interrupted`, `failed` (some runs have) or `complete`."""
    earlier: tuple[str, ...]
    """Other folders that it was in, with other inputs; while it waits, all of them."""
    study: Mapping[str, Any] | None
    """study.json; None while it waits."""
    entries: tuple[ConfigurationSummary, ...]
    """Its configurations, best first: on fresh seeds, where a confirmation is over, else as the search has them."""
    is_confirmed: bool
    """Whether `entries` are about fresh seeds."""
    origins: tuple[Origin, ...]
    """What its runs started from; empty for fresh weights."""
    cost: Cost
    """What its runs consumed."""
    started_at: str | None
    ended_at: str | None
    """ISO 8601, of the stage's first launch and of its end."""
    seconds: float
    """How long it took with everything: process starts, waiting. Without launches that were killed."""

    @property
    def best(self) -> ConfigurationSummary | None:
        """The best configuration; None while none has a value."""
        return self.entries[0] if self.entries and self.entries[0].mean is not None else None

    @property
    def metric(self) -> str:
        """What it is judged by, and on which seeds."""
        return "" if self.study is None else f"{self.study['metric']['name']}{', fresh seeds' * self.is_confirmed}"

    def as_row(self) -> Row:
        """Every column with full precision; the best configuration's are null while there is none."""
        best = {} if self.best is None else self.best.as_row()
        return {
            "stage": self.number,
            "study": self.name,
            "folder": self.folder,
            "state": self.state,
            "starts_from": [origin.study for origin in self.origins],
            "starts_from_config_ids": [origin.config_id for origin in self.origins],
            "starts_from_weights": [origin.weights for origin in self.origins],
            "metric": None if self.study is None else self.study["metric"]["name"],
            "phase": "confirm" if self.is_confirmed else "search",
            **{name: best.get(name) for name in _OF_THE_BEST},
            "runs": self.cost.runs,
            "steps": self.cost.steps,
            "tokens": self.cost.tokens,
            "core_hours": self.cost.core_hours,
            "seconds": self.seconds,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
        }

    def as_text(self) -> dict[str, str]:
        """Stage, state, what it started from, the best configuration with its mean and single seeds, time."""
        best = {} if self.best is None else self.best.as_text()
        return {
            "stage": f"{self.number} {self.name}",
            "state": self.state,
            "starts from": "; ".join(origin.text for origin in self.origins),
            "configuration": best.get("configuration", ""),
            "metric": self.metric,
            "mean [95 % interval]": "" if self.best is None else interval_text(self.best.interval),
            "seeds": best.get("seeds", ""),
            "seconds": f"{self.seconds:.0f}" if self.seconds else "",
        }


_OF_THE_BEST = ("config_id", "label", "n", "planned", "mean", "low", "high", "score", "seeds", "values")


class PipelineResults:
    """What a pipeline has left so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def record(self) -> Row:
        """pipeline.json.

        Raises:
            StorageError: it cannot be read, or is of a later format.
        """
        path = self.directory / FILE
        try:
            record: Row = json.loads(path.read_text())
        except OSError as error:
            raise storage_error("cannot read", path, error) from error
        except ValueError as error:
            raise StorageError(f"{path} is not valid JSON: {error}") from error
        if record.get("format", FORMAT) > FORMAT:
            raise StorageError(f"{path} has format {record['format']}, written by a later version of rung: update rung")
        return record

    def live(self) -> bool:
        """Whether a driver is working on the pipeline now."""
        return StudyResults(self.directory).live()

    def study_of(self, stage: StageResult) -> StudyResults:
        """The study of a stage that has begun."""
        assert stage.folder is not None
        return StudyResults(self.directory.parent / stage.folder)

    def stages(self) -> list[StageResult]:
        """The stages, in the order in which they run."""
        live = self.live()
        return [self._stage(number, entry, live) for number, entry in enumerate(self.record["stages"], start=1)]

    def _stage(self, number: int, entry: Row, live: bool) -> StageResult:
        folder, folders = entry["folder"], entry["folders"]
        record = folders.get(folder, {"state": "waiting", "started_at": None, "ended_at": None, "seconds": 0.0})
        results = None if folder is None else StudyResults(self.directory.parent / folder)
        if results is not None and not (results.directory / "study.json").is_file():
            results = None  # the stage has only just begun
        entries, is_confirmed = _entries(results) if results else ((), False)
        state = record["state"]
        return StageResult(
            number=number,
            name=entry["study"],
            folder=results.directory.name if results else None,
            state="interrupted" if state == "running" and not live else state,
            earlier=tuple(each for each in folders if each != folder),
            study=results.study if results else None,
            entries=entries,
            is_confirmed=is_confirmed,
            origins=_origins(results) if results else (),
            cost=cost_of(dicts(results.runs) if results else []),
            started_at=record["started_at"],
            ended_at=record["ended_at"],
            seconds=record["seconds"],
        )


def _entries(results: StudyResults) -> tuple[tuple[ConfigurationSummary, ...], bool]:
    """The configurations, best first, and whether their values are those on fresh seeds."""
    search = results.summary()
    confirmation = read_confirmation(results.study, search, results.summary("confirm"))
    if confirmation is not None and confirmation.is_over:
        return tuple(entry.confirm for entry in confirmation.entries), True
    return tuple(final_order(search, confirmation)), False


def _origins(results: StudyResults) -> tuple[Origin, ...]:
    """What the configurations of a study started from, each once."""
    names = [f"{_START}{name}" for name in ("study", "configuration", "weights")]
    configurations = results.configurations
    if not set(names) <= set(configurations.columns):
        return ()
    rows = configurations.select(", ".join(map(quote, names))).distinct().fetchall()
    return tuple(
        Origin(study, config_id, _label(results.directory.parent / study, config_id), weights)
        for study, config_id, weights in sorted(row for row in rows if None not in row)
    )


def _label(directory: Path, config_id: str) -> str:
    if not (directory / "tables").is_dir():
        return ""
    labels = StudyResults(directory).configurations.filter(f"config_id = '{config_id}'").select("label").fetchall()
    return str(labels[0][0]) if labels else ""


def find_pipeline(
    where: str | os.PathLike[str], storage: str | os.PathLike[str] | None = None
) -> PipelineResults | None:
    """The pipeline of a folder, a pipeline file or a name below the storage root; None if that is none.

    Raises:
        StorageError: it is a pipeline file, and the pipeline has not begun.
    """
    path = Path(where)
    if (path / FILE).is_file():
        return PipelineResults(path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return _of_file(path, storage)
    directory = storage_root(storage) / path
    return PipelineResults(directory) if (directory / FILE).is_file() else None


def _of_file(path: Path, storage: str | os.PathLike[str] | None) -> PipelineResults | None:
    if path.name == "pipeline.yaml" and (path.parent / FILE).is_file():  # the copy that the pipeline keeps of itself
        return PipelineResults(path.parent)
    data = _data(path)
    name = data.get("pipeline")
    if not isinstance(name, str):
        return None
    directory = storage_root(storage or _storage_in(path, data)) / name
    if not (directory / FILE).is_file():
        raise StorageError(
            f"the pipeline {name!r} has not begun: looked for {directory / FILE}. Begin: rung run {path}"
        )
    return PipelineResults(directory)


def _storage_in(path: Path, data: Row) -> str | None:
    """The key `storage` that holds in the first stage, without checking anything else."""
    first = next(iter(data.get("stages") or ()), None)
    stage = first if isinstance(first, dict) else {"study": first}
    file = _data(path.parent / str(stage.get("study")))
    for settings in (stage.get("set"), data.get("set"), file):
        if isinstance(settings, dict) and settings.get("storage") is not None:
            return str(settings["storage"])
    return None


def _data(path: Path) -> Row:
    try:
        return read_yaml(path).data
    except StudyError:
        return {}
