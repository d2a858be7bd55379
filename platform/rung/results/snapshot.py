"""Everything that a report shows of a study, read once, so that its parts agree while the study goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.results.answers import ConfigurationAnswers, ConfigurationChange, changes_in, read_answers
from rung.results.budget import run_rows
from rung.results.confirmation import Confirmation, final_order, read_confirmation
from rung.results.curves import RunCurves, load_curves, metric_names
from rung.results.tables import ConfigurationSummary, GrokkingRow, grokking_table, summary
from rung.results.views import dicts
from rung.results.written import WrittenByRun, newest_texts

if TYPE_CHECKING:
    from rung.results.query import StudyResults

Row = dict[str, Any]

SPLITS = ("train", "validation")
PARAMETER_NORM = "parameter_norm"
_QUANTITIES = ("loss", "accuracy")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study as it stood at one moment."""

    directory: Path
    study: Row
    """study.json."""
    live: bool
    """Whether a driver is at work."""
    configurations: Sequence[Row]
    """In the order of the plan."""
    runs: Sequence[Row]
    """Of both phases, by run_id."""
    decisions: Sequence[Row]
    """In the order in which they fell."""
    search: Sequence[ConfigurationSummary]
    """Best first."""
    confirm: Sequence[ConfigurationSummary]
    """Best first; empty before phase confirm."""
    confirmation: Confirmation | None
    """Phase confirm; None for a study without it."""
    grokking: Sequence[GrokkingRow]
    """In the order of the plan; empty unless loss and accuracy are there for training and validation."""
    curves: Sequence[RunCurves]
    """Of phase search."""
    groups: Sequence[str]
    """Parts of the data with their own metrics (`order_2`), where there is more than one."""
    written: Sequence[WrittenByRun]
    """Texts of the best configurations, where models write."""
    answers: Sequence[ConfigurationAnswers]
    """To questions that have a right answer, best configuration first."""
    changes: Sequence[ConfigurationChange]
    """In `answers`, from the first step at which they were recorded to the last."""
    launches: Sequence[Row]
    """provenance.json, oldest first."""
    study_file: str
    """study.yaml as it was given; empty if it is not there."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The configurations' short texts, by id."""
        return {row["config_id"]: row["label"] for row in self.configurations}

    @property
    def statuses(self) -> Mapping[str, str]:
        """The runs' statuses, by run_id."""
        return {row["run_id"]: row["status"] for row in self.runs}


def take_snapshot(results: "StudyResults") -> Snapshot:
    """Read a study. Raises StorageError if its description or its tables cannot be read."""
    study = results.study
    names = metric_names(results)
    groups = metric_groups(names)
    wanted = {study["metric"]["name"], PARAMETER_NORM}
    wanted |= {name for group in ("", *groups) for name in group_metrics(group)}
    configurations = dicts(results.configurations.order("plan_index, config_id"))
    known = {row["config_id"] for row in configurations}
    search, confirm = summary(results), summary(results, "confirm")
    curves = load_curves(results, [name for name in names if name in wanted])
    confirmation = read_confirmation(study, search, confirm)
    answers = read_answers(results, [entry.config_id for entry in final_order(search, confirmation)])
    return Snapshot(
        directory=results.directory,
        study=study,
        live=results.live(),
        configurations=configurations,
        runs=run_rows(results),
        decisions=dicts(results.decisions.order('"order", config_id')),
        search=search,
        confirm=confirm,
        confirmation=confirmation,
        grokking=grokking_table(results),
        curves=[run for run in curves if run.config_id in known],
        groups=groups,
        written=newest_texts(results, search),
        answers=answers,
        changes=changes_in(answers),
        launches=_launches(results.directory / "provenance.json"),
        study_file=_text(results.directory / "study.yaml"),
    )


def metric_groups(names: Sequence[str]) -> list[str]:
    """What stands between split and quantity (`order_2` in `validation/order_2/loss`); none if there is only one."""
    found = [name.split("/") for name in names]
    groups = {parts[1] for parts in found if len(parts) == 3 and parts[0] in SPLITS and parts[2] in _QUANTITIES}
    return sorted(groups) if len(groups) > 1 else []


def group_metrics(group: str) -> list[str]:
    """Loss of training and validation, then accuracy, of a group; of everything for the group ""."""
    middle = f"/{group}/" if group else "/"
    return [f"{split}{middle}{quantity}" for quantity in _QUANTITIES for split in SPLITS]


def _launches(path: Path) -> list[Row]:
    """Launches as they were written. A damaged file costs the report this section only."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return []
    launches = content.get("launches", []) if isinstance(content, dict) else []
    return [launch for launch in launches if isinstance(launch, dict)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
