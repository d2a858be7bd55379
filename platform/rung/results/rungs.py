"""How configurations survived the rungs, counted; and the words for how a run's value is chosen.

What the figures and the page of a report both say. Nothing heavy is imported.
"""

from rung.results.snapshot import Row, Snapshot
from rung.results.tables import ConfigurationSummary


def rung_rows(snapshot: Snapshot) -> list[Row]:
    """One row per bracket and rung, and a last one for the budget; empty if nothing was decided.

    `reported` = `went on` + `stopped` (+ `not decided`, for one that has got there and waits).
    """
    brackets = sorted({row["bracket"] for row in snapshot.decisions})
    rows = []
    for bracket, level in sorted({(row["bracket"], row["level"]) for row in snapshot.decisions}):
        here = [row for row in snapshot.decisions if (row["bracket"], row["level"]) == (bracket, level)]
        stopped = sum(row["decision"] == "stop" for row in here)
        waiting = _waiting(snapshot, level) if len(brackets) == 1 else 0
        rows.append(
            {
                "bracket": bracket,
                "level": level,
                "reported": len(here) + waiting,
                "went on": len(here) - stopped,
                "stopped": stopped,
                "not decided": waiting,
                "completed": 0,
            }
        )
    return [*rows, _budget_row(snapshot)] if rows else []


def _waiting(snapshot: Snapshot, level: int) -> int:
    """Configurations that have reached a rung where nothing was decided about them yet."""
    judged = {row["config_id"] for row in snapshot.decisions if row["level"] >= level}
    return sum(
        entry.running > 0
        and entry.level is not None
        and entry.level >= level
        and entry.config_id not in judged
        for entry in snapshot.search
    )


def _budget_row(snapshot: Snapshot) -> Row:
    amount = snapshot.study["budget"]["amount"]
    completed = sum(is_through(entry) for entry in snapshot.search)
    counts = {"reported": completed, "went on": 0, "stopped": 0, "not decided": 0, "completed": completed}
    return {"bracket": None, "level": amount, **counts}


def is_through(entry: ConfigurationSummary) -> bool:
    """Whether all of a configuration's runs have come to an end of their own, at least one by completing."""
    return entry.completed > 0 and entry.completed + entry.diverged + entry.failed == entry.planned


def selection_in_words(metric: Row) -> str:
    """Which evaluation is a run's value."""
    match metric.get("select", "last"):
        case "last":
            return "last evaluation of each run"
        case "best":
            return "best evaluation of each run"
        case "mean_of_last":
            return f"mean of each run's last {metric.get('window', 5)} evaluations"
        case other:
            return f"{other} of each run"
