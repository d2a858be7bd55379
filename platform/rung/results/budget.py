"""How far a run has come, measured by the budget that its study has now.

A study may be extended: its budget grows, and runs that had used up the smaller one are no longer at their end. Whoever
reads the table `runs` to judge a study reads it by `run_rows`. Nothing heavy is imported.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rung.results.views import dicts

if TYPE_CHECKING:
    from rung.results.query import StudyResults

PROGRESS = {"steps": "step", "epochs": "epoch", "tokens": "tokens", "seconds": "wall_seconds"}
"""The column of `runs` and `metrics` that counts in a budget's unit."""
PROGRESS_COLUMNS = ("step", "epoch", "tokens", "wall_seconds")


def progress(row: Mapping[str, Any], budget: Mapping[str, Any]) -> float:
    """How much of the budget (of study.json, in its unit) the run of a row has used up."""
    return float(row[PROGRESS[budget["unit"]]] or 0.0)  # empty before the first report


def is_used_up(row: Mapping[str, Any], budget: Mapping[str, Any]) -> bool:
    """Whether the run of a row has used up the budget, or the cap of seconds beside it."""
    cap = budget.get("wall_clock")
    return bool(cap is not None and row["wall_seconds"] >= cap) or progress(row, budget) >= float(budget["amount"])


def has_to_go_on(row: Mapping[str, Any], budget: Mapping[str, Any]) -> bool:
    """Whether a run that completed did so with a smaller budget than its study has now.

    One that reached its target, or was stopped early by its own rule, would end there with any budget.
    """
    by_budget = row["status"] == "completed" and row["ended_by"] in ("budget", "wall_clock")
    return by_budget and not is_used_up(row, budget)


def run_rows(results: "StudyResults", columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of the table `runs` by run_id; a run that completed with a smaller budget is `running`.

    Args:
        columns: those that are asked for; empty: all. What is needed to judge a run comes with them.
    """
    relation, budget = results.runs.order("run_id"), results.study["budget"]
    if columns:
        wanted = dict.fromkeys([*columns, "status", "ended_by", *PROGRESS_COLUMNS])
        relation = relation.select(", ".join(wanted))
    rows = dicts(relation)
    return [{**row, "status": "running", "ended_by": None} if has_to_go_on(row, budget) else row for row in rows]


def is_asked_for(row: Mapping[str, Any], study: Mapping[str, Any]) -> bool:
    """Whether a run's seed is one that its phase trains by study.json; in phase confirm there may once have been more.

    Runs of phase search all count, and so do those of a phase confirm that study.json says nothing of (any more).
    """
    confirm = study.get("confirm")
    return row["phase"] != "confirm" or not confirm or row["seed"] in confirm["seeds"]
