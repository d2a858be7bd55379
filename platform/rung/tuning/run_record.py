"""What a study has on record about one run: its rows, its configuration, its launches. For `rung replay`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError
from rung.provenance import FILE, read_launches
from rung.results.query import StudyResults, load, storage_root, study_names
from rung.results.schema import TABLES
from rung.results.views import dicts
from rung.training.assignment import Goal, Target

Row = dict[str, Any]

_LISTED = 20


@dataclass(frozen=True)
class RunRecord:
    """One run as its study remembers it."""

    directory: Path
    """The study's."""
    row: Row
    """Of the table `runs`."""
    reports: Sequence[Row]
    """Of the table `metrics`, by step."""
    metrics: tuple[str, ...]
    """Names of the metrics that any of the reports has."""
    config_json: str
    study: Mapping[str, Any]
    """The resolved study, as it was when the newest of these rows was written."""
    launches: Mapping[int, Mapping[str, Any]]
    """By number; without those whose record was lost."""

    @property
    def launch(self) -> Mapping[str, Any] | None:
        """The launch that wrote the run's row."""
        return self.launches.get(self.row["launch"])

    @property
    def writers(self) -> Mapping[int, Mapping[str, Any]]:
        """The launches that wrote reports of the run, by number: more than one if it was interrupted or extended."""
        numbers = {report["launch"] for report in self.reports}
        return {number: launch for number, launch in self.launches.items() if number in numbers}

    @property
    def reached(self) -> int:
        """The last step that is on record."""
        return max([int(self.row["step"]), *(int(report["step"]) for report in self.reports)])

    @property
    def goal(self) -> Goal:
        """How long the run was to train."""
        return _goal(self.study)

    def ends(self) -> set[int]:
        """Steps at which the run had used up its budget: its last one, and those of shorter budgets that a later
        launch has extended."""
        found = set()
        if self.row["ended_by"] in ("budget", "wall_clock"):
            found.add(self.reached)
        for report in self.reports:
            launch = self.launches.get(report["launch"], {})
            goal = _goal(launch["study"]) if "study" in launch else None
            if goal is not None and goal.unit != "wall_clock":
                at = {name: report[name] for name in ("step", "epoch", "tokens")}
                if goal.position(**at, wall_seconds=0.0) >= goal.amount:
                    found.add(report["step"])
        return found


def find_record(wanted: str, study: str | None = None) -> RunRecord:
    """The record of the run whose id is `wanted`, or the only one whose id begins so.

    Args:
        wanted: an id, or the beginning of one.
        study: where to look, as for `query.load`; otherwise in all studies below the storage root.

    Raises:
        RungError: no run, or more than one, is called so.
        StorageError: a study cannot be read.
    """
    directories = [load(study).directory] if study else [storage_root() / name for name in study_names(storage_root())]
    known = [
        (results, row) for results in map(StudyResults, directories) for row in dicts(results.runs.order("run_id"))
    ]
    found = [each for each in known if each[1]["run_id"] == wanted]
    found = found or [each for each in known if each[1]["run_id"].startswith(wanted)]
    if len(found) == 1:
        return _record(*found[0])
    if not found:
        where = study or f"the {len(directories)} studies in {storage_root()}"
        near = difflib.get_close_matches(wanted, [row["run_id"] for _, row in known], n=5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise RungError(f"no run is called {wanted!r}: looked through the {len(known)} runs of {where}{hint}")
    listed = [f"  {row['run_id']}  seed {row['seed']}, study {results.directory.name}" for results, row in found]
    more = f"\n  and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    shown = "\n".join(listed[:_LISTED])
    several = "; say which study with --study NAME" if len({str(each[0].directory) for each in found}) > 1 else ""
    raise RungError(f"{len(found)} runs have an id that begins with {wanted!r}{several}:\n{shown}{more}")


def _record(results: StudyResults, row: Row) -> RunRecord:
    launches = _launches(results.directory)
    reports = dicts(results.metrics.filter(f"run_id = '{row['run_id']}'").order("step"))
    reserved = TABLES["metrics"].column_names
    names = [name for name in results.metrics.columns if name not in reserved]
    written = [launch for report in [*reports, row] if (launch := report["launch"]) in launches]
    newest = launches[max(written)] if written else {}
    return RunRecord(
        directory=results.directory.resolve(),
        row=row,
        reports=reports,
        metrics=tuple(name for name in names if any(report[name] is not None for report in reports)),
        config_json=_config_json(results, row["config_id"]),
        study=newest.get("study", results.study),
        launches=launches,
    )


def _launches(directory: Path) -> dict[int, Mapping[str, Any]]:
    try:
        return {launch["number"]: launch for launch in read_launches(directory)}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RungError(f"cannot read {directory / FILE}: {error}") from error


def _config_json(results: StudyResults, config_id: str) -> str:
    rows = dicts(results.configurations.filter(f"config_id = '{config_id}'"))
    if not rows:
        raise RungError(f"the table configurations of {results.directory} has no row for {config_id}")
    return str(rows[0]["config_json"])


def _goal(study: Mapping[str, Any]) -> Goal:
    """The goal that a resolved study (study.json) says; `goal.goal_of` makes it from a study file."""
    budget, metric = study["budget"], study["metric"]
    target = budget.get("target")
    return Goal(
        unit="wall_clock" if budget["unit"] == "seconds" else budget["unit"],
        amount=budget["amount"],
        metric=metric["name"],
        mode=metric["mode"],
        select=metric["select"],
        window=metric["window"],
        target=Target(target["metric"], target["value"], target["mode"]) if target else None,
        wall_clock=budget.get("wall_clock"),
    )
