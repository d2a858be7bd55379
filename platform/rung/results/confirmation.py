"""Search and confirmation side by side: what the chosen configurations reach on seeds that took no part in choosing.

    confirmation = read_confirmation(study.study, study.summary(), study.summary("confirm"))
    for entry in confirmation.entries:                 # best on fresh seeds first
        print(entry.label, entry.search.mean, entry.confirm.mean, entry.shrinkage.mean)

Nothing heavy is imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rung.results.export import interval_text, number_text
from rung.results.statistics import DifferenceInterval, Mode, welch_interval

if TYPE_CHECKING:
    from rung.results.tables import ConfigurationSummary

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConfirmedSummary:
    """A configuration on the seeds that it was chosen by, and on fresh ones."""

    search: "ConfigurationSummary"
    confirm: "ConfigurationSummary"
    shrinkage: DifferenceInterval
    """By how much the mean of the search is better than that on fresh seeds, in units of the metric, with Welch's 95 %
    interval. Positive, the search flattered; the same for metrics of which more and of which less is better. None for
    a configuration that was stopped: its value in the search belongs to a smaller budget."""
    is_earlier: bool = False
    """Whether it was confirmed for a choice that no longer holds: it is shown, and compared with nobody."""

    @property
    def config_id(self) -> str:
        return self.search.config_id

    @property
    def label(self) -> str:
        return self.search.label

    @property
    def note(self) -> str:
        """How far it counts, if it does not: in a few words."""
        if not self.is_earlier:
            return ""
        to_where = f" to step {self.confirm.steps:,}" if self.confirm.running else ""
        return f"confirmed earlier{to_where}, not compared"

    def as_row(self) -> Row:
        """What phase confirm adds to the row of the search."""
        confirm, shrinkage = self.confirm, self.shrinkage
        return {
            "confirm_n": confirm.n,
            "confirm_planned": confirm.planned,
            "confirm_compared": not self.is_earlier,
            "confirm_mean": confirm.mean,
            "confirm_low": confirm.low,
            "confirm_high": confirm.high,
            "confirm_score": confirm.score,
            "confirm_seeds": list(confirm.seeds),
            "confirm_values": list(confirm.values),
            "shrinkage": shrinkage.mean,
            "shrinkage_low": shrinkage.low,
            "shrinkage_high": shrinkage.high,
        }

    def as_text(self) -> dict[str, str]:
        """Both means with their intervals, n of planned, the shrinkage, the single seeds of both."""
        search, confirm = self.search, self.confirm
        return {
            "configuration": self.label,
            "search n": f"{search.n}/{search.planned}{_troubles(search)}",
            "search mean [95 %]": interval_text(search.interval),
            "confirm n": f"{confirm.n}/{confirm.planned}{f', {self.note}' if self.note else _troubles(confirm)}",
            "confirm mean [95 %]": interval_text(confirm.interval),
            "shrinkage [95 %]": interval_text(self.shrinkage),
            "search seeds": seeds_text(search),
            "fresh seeds": seeds_text(confirm),
        }


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A configuration as `rung results` exports it: the search, beside it the confirmation where there is one."""

    search: "ConfigurationSummary"
    confirmed: ConfirmedSummary | None
    with_confirm: bool
    """Whether the study has a phase confirm, and every row its columns."""

    def as_row(self) -> Row:
        """The columns of the search, then those of phase confirm, None where there is none."""
        added = self.confirmed.as_row() if self.confirmed else {}
        return {**self.search.as_row(), **(dict.fromkeys(_COLUMNS) if self.with_confirm else {}), **added}

    def as_text(self) -> dict[str, str]:
        """As in the search; n, mean and shrinkage of phase confirm."""
        if self.confirmed is None:
            return self.search.as_text()
        added = {name: text for name, text in self.confirmed.as_text().items() if name in _ADDED}
        return {**self.search.as_text(), **added}


_COLUMNS = (
    *(f"confirm_{name}" for name in ("n", "planned", "compared", "mean", "low", "high", "score", "seeds", "values")),
    *("shrinkage", "shrinkage_low", "shrinkage_high"),
)
_ADDED = ("confirm n", "confirm mean [95 %]", "shrinkage [95 %]", "fresh seeds")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How far phase confirm of a study has come, and what it says.

    It is about the configurations that `to_confirm` names now, the seeds of study.json and its budget. What was
    confirmed for another choice stays in `earlier`.
    """

    seeds: tuple[int, ...]
    """The fresh seeds of every configuration."""
    top: int
    """Configurations to confirm."""
    entries: tuple[ConfirmedSummary, ...]
    """Those of them that have begun, the best on fresh seeds first."""
    earlier: tuple[ConfirmedSummary, ...]
    """Others with runs in the phase: chosen once, and not among the best now."""
    done: int
    """Runs of `entries` that have come to an end, failed ones among them."""
    is_chosen: bool
    """Whether the search is over, so that it stands who is to be confirmed."""

    @property
    def planned(self) -> int:
        """Runs of the phase."""
        return self.top * len(self.seeds)

    @property
    def is_over(self) -> bool:
        """Whether all runs of the phase have come to their end, so that a winner may be named."""
        return self.is_chosen and 0 < self.planned <= self.done

    @property
    def failed(self) -> int:
        """Failed runs, which the same command tries again."""
        return sum(entry.confirm.failed for entry in self.entries)

    @property
    def by_id(self) -> Mapping[str, ConfirmedSummary]:
        """The entries by config_id."""
        return {entry.config_id: entry for entry in self.entries}


def to_confirm(search: Sequence["ConfigurationSummary"], top: int) -> list["ConfigurationSummary"]:
    """Whom phase confirm trains, from the summary of the search: the `top` best of those that came to its end; where
    they are too few, then those that were stopped, who came further before who did not. Who has no score never is."""
    scored = [entry for entry in search if entry.score is not None]
    through = [entry for entry in scored if entry.is_through]
    stopped = sorted((entry for entry in scored if entry.stopped), key=lambda entry: -(entry.level or 0))
    return [*through, *stopped][:top]


def read_confirmation(
    study: Mapping[str, Any], search: Sequence["ConfigurationSummary"], confirm: Sequence["ConfigurationSummary"]
) -> Confirmation | None:
    """Phase confirm of a study; None if it asks for none and has none.

    Args:
        study: study.json.
        search, confirm: the summaries of both phases, best first.
    """
    choice = study.get("confirm")
    if not choice and not confirm:
        return None
    mode, before = study["metric"]["mode"], {entry.config_id: entry for entry in search}
    entries = tuple(_confirmed(before[entry.config_id], entry, mode) for entry in confirm)
    seeds = tuple(choice["seeds"]) if choice else tuple(sorted({seed for entry in confirm for seed in entry.seeds}))
    is_chosen = all(entry.has_ended for entry in search)
    chosen = {entry.config_id for entry in (to_confirm(search, choice["top"]) if choice else confirm)}
    now = tuple(entry for entry in entries if entry.config_id in chosen)
    return Confirmation(
        seeds=seeds,
        top=len(chosen) if is_chosen or not choice else min(choice["top"], len(search)),
        entries=now,
        earlier=tuple(replace(entry, is_earlier=True) for entry in entries if entry.config_id not in chosen),
        done=sum(entry.confirm.completed + entry.confirm.diverged + entry.confirm.failed for entry in now),
        is_chosen=is_chosen,
    )


def result_rows(
    study: Mapping[str, Any], search: Sequence["ConfigurationSummary"], confirm: Sequence["ConfigurationSummary"]
) -> list[ResultRow]:
    """One row per configuration with both phases, in the final order (`final_order`)."""
    confirmation = read_confirmation(study, search, confirm)
    shown = (*confirmation.entries, *confirmation.earlier) if confirmation else ()
    found = {entry.config_id: entry for entry in shown}
    has_phase = confirmation is not None
    return [ResultRow(entry, found.get(entry.config_id), has_phase) for entry in final_order(search, confirmation)]


def final_order(
    search: Sequence["ConfigurationSummary"], confirmation: Confirmation | None
) -> list["ConfigurationSummary"]:
    """The configurations, best first: once phase confirm is over, the confirmed ones as their fresh seeds order them,
    then the others as the search does. Until then the order of the search."""
    if confirmation is None or not confirmation.is_over:
        return list(search)
    first = [entry.search for entry in confirmation.entries]
    return [*first, *(entry for entry in search if entry.config_id not in confirmation.by_id)]


def seeds_text(entry: "ConfigurationSummary") -> str:
    """The values of the single seeds, a dash for each that has none."""
    return ", ".join("–" if value is None else number_text(value) for value in entry.values)


def _confirmed(search: "ConfigurationSummary", confirm: "ConfigurationSummary", mode: Mode) -> ConfirmedSummary:
    if search.stopped:
        return ConfirmedSummary(search, confirm, welch_interval([], confirm.values))
    flattered, sober = (search, confirm) if mode == "max" else (confirm, search)
    return ConfirmedSummary(search, confirm, welch_interval(flattered.values, sober.values))


def _troubles(entry: "ConfigurationSummary") -> str:
    names = ("running", "stopped", "diverged", "failed")
    return "".join(f", {count} {status}" for status in names if (count := getattr(entry, status)))
