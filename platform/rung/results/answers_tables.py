"""What changed in the answers, as tables of a page: configurations over their seeds, and every run by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rung.results.answers import ConfigurationChange, RunChange
from rung.results.answers_words import Change, Names
from rung.results.conclusions import p_text
from rung.results.report_table import Cell, Column, Table, configuration_cell, count_cell, interval_cell, number

_MOST_ROWS = 24
"""Runs in a table that is not folded."""
_INTERVALS = ("before [95\u00a0%]", "after [95\u00a0%]", "difference [95\u00a0%]")


@dataclass(frozen=True, slots=True)
class ChangeTables:
    """Makes the tables of one comparison."""

    changes: Sequence[Change]
    id: str
    """What the tables' ids begin with."""
    names: Names | None = None
    """What the sides are called; otherwise the steps at which the answers were recorded."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Of the configurations, by id."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where the answers of a run can be read, by run_id; a kind of change is put behind it."""

    @property
    def is_over_seeds(self) -> bool:
        return any(change.found.is_over_seeds for change in self.changes)

    def means(self) -> Table | None:
        """One row per configuration; None where each has one run, of which the other table says as much."""
        if not self.is_over_seeds:
            return None
        columns = [
            Column("configuration"),
            Column("seeds", numeric=True),
            *(Column(title, numeric=True, group="part of the questions answered right") for title in _INTERVALS),
            Column("runs better", numeric=True, group="by more than chance"),
            Column("runs worse", numeric=True, group="by more than chance"),
        ]
        caption = (
            f"{self._sides()}. Means over the seeds with Student-t intervals: they speak of training with other seeds, "
            "on these very questions, and seeds that share their start do not differ in it. At the right the runs that "
            "McNemar's exact test tells from chance, each by itself, p by Holm over all."
        )
        return Table(f"{self.id}-means", caption, columns, [self._mean_row(change) for change in self.changes])

    def _mean_row(self, change: Change) -> list[Cell]:
        found = change.found
        intervals = map(interval_cell, (found.before, found.after, found.difference))
        return [self._head(found), count_cell(len(found.runs)), *intervals, *map(count_cell, change.told)]

    def runs(self) -> Table:
        """One row per run."""
        samples = any(run.all_answers for change in self.changes for run in change.found.runs)
        columns = [
            Column("configuration"),
            Column("seed"),
            *([] if self.names else [Column("steps")]),
            Column("questions", numeric=True),
            *(Column(title, numeric=True, group="first answer to each question") for title in _INTERVALS),
            *(
                Column(title, numeric=True, group="of the questions")
                for title in ("both right", "to right", "to wrong", "both wrong")
            ),
            Column("McNemar's p", numeric=True),
            *(Column(title, numeric=True, group="all answers, mean over questions") for title in _INTERVALS if samples),
        ]
        rows = [
            self._run_row(change.found, run, p) + [Cell()] * (3 if samples and not run.all_answers else 0)
            for change in self.changes
            for run, p in zip(change.found.runs, change.p_adjusted, strict=True)
        ]
        is_folded = self.is_over_seeds or len(rows) > _MOST_ROWS
        return Table(f"{self.id}-runs", self._caption(samples), columns, rows, folded=is_folded)

    def _run_row(self, found: ConfigurationChange, run: RunChange, p_adjusted: float) -> list[Cell]:
        counts, link = run.counts, self.links.get(run.after.run_id, "")
        sides = zip(run.unpaired, ("before", "after"), strict=True)
        kinds = {"both-right": counts.both_right, "to-right": counts.gained, "to-wrong": counts.lost}
        kinds["both-wrong"] = counts.both_wrong
        return [
            self._head(found),
            Cell(str(run.after.seed)),
            *([] if self.names else [Cell(f"{run.before.step:,}\u00a0→\u00a0{run.after.step:,}")]),
            Cell(
                numbers=count_cell(counts.n).numbers,
                note="\n".join(f"{count:,} others {side}" for count, side in sides if count),
            ),
            *map(interval_cell, (counts.before, counts.after, counts.difference)),
            *(
                Cell(f"{count:,}", link=f"{link}-{kind}") if link and count else count_cell(count)
                for kind, count in kinds.items()
            ),
            Cell(numbers=(number(counts.p),), note=f"Holm {p_text(p_adjusted)}\nmid-p {p_text(counts.mid_p)}"),
            *(map(interval_cell, run.all_answers) if run.all_answers else ()),
        ]

    def _head(self, found: ConfigurationChange) -> Cell:
        cell = configuration_cell(found.config_id, found.label or "(base)", self.colours)
        origin = [f"before: {found.origin}"] if found.origin not in ("", found.label) else []
        return Cell(
            cell.text, note="\n".join([cell.note, *origin, *found.left_out]), colour=cell.colour, heads_row=True
        )

    def _sides(self) -> str:
        if self.names:
            return f"Before is {self.names.before}, after {self.names.after}"
        return "Before and after are the first and the last step at which answers were recorded"

    def _caption(self, samples: bool) -> str:
        sentences = [
            f"{self._sides()}; every question counts once, with the first answer to it. Wilson's intervals, for the "
            "difference the score interval of paired proportions, and McNemar's exact test of the questions that "
            "changed: they speak of one model and questions like these."
        ]
        if samples:
            sentences.append(
                "With several answers to a question, the part of them that is right is in the last columns."
            )
        if any(change.found.left_out for change in self.changes):
            sentences.append("Runs that diverged or failed are named and left out.")
        return " ".join(sentences)
