"""How far configurations have come: their state in a word, and how many survived each rung.

What the figures and the page of a report both say. Nothing heavy is imported.
"""

from dataclasses import dataclass

from rung.results.snapshot import Row, Snapshot
from rung.results.tables import ConfigurationSummary

STATUSES = ("completed", "stopped", "diverged", "failed", "running")
"""Of runs."""


@dataclass(frozen=True, slots=True)
class RungCount:
    """What became of the configurations that reached a rung of a bracket, or the budget."""

    level: int
    """In units of the budget."""
    bracket: int | None = None
    """None for the budget, where nothing is decided."""
    went_on: int = 0
    stopped: int = 0
    not_decided: int = 0
    """Got there and wait for others."""
    completed: int = 0
    """At the budget only."""

    @property
    def reported(self) -> int:
        """How many got there."""
        return self.went_on + self.stopped + self.not_decided + self.completed


def rung_counts(snapshot: Snapshot) -> list[RungCount]:
    """Every rung at which something was decided, by bracket and level, then the budget; empty if nothing was."""
    decisions: dict[tuple[int, int], list[str]] = {}
    for row in snapshot.decisions:
        decisions.setdefault((row["bracket"], row["level"]), []).append(row["decision"])
    # Who waits in which bracket is not written anywhere.
    is_one_bracket = len({bracket for bracket, _ in decisions}) == 1
    rungs = [
        RungCount(
            level=level,
            bracket=bracket,
            went_on=len(here) - here.count("stop"),
            stopped=here.count("stop"),
            not_decided=_waiting(snapshot, level) if is_one_bracket else 0,
        )
        for (bracket, level), here in sorted(decisions.items())
    ]
    completed = sum(entry.is_through for entry in snapshot.search)
    return [*rungs, RungCount(snapshot.study["budget"]["amount"], completed=completed)] if rungs else []


def _waiting(snapshot: Snapshot, level: int) -> int:
    judged = {row["config_id"] for row in snapshot.decisions if row["level"] >= level}
    return sum(
        entry.running > 0 and (entry.level or 0) >= level and entry.config_id not in judged for entry in snapshot.search
    )


def configuration_state(entry: ConfigurationSummary, *, live: bool) -> str:
    """One word for a configuration with all its runs."""
    if entry.stopped:
        return "stopped"
    begun = sum(getattr(entry, status) for status in STATUSES)
    if not begun:
        return "waiting"
    if entry.running or begun < entry.planned:
        return "running" if live else "unfinished"
    if entry.is_through:
        return "completed"
    return "failed" if entry.failed else "diverged"


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
