"""A table of the report's page as plain data: columns, cells, numbers with their full precision.

Texts are as users wrote them; the template escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rung.results.export import interval_text, number_text
from rung.results.statistics import DifferenceInterval, MeanInterval

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is read, and in full precision."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str = ""
    numbers: tuple[Number, ...] = ()
    """In place of `text`."""
    note: str = ""
    """Small print below; line breaks stay."""
    colour: str = ""
    """The configuration's colour in the figures, as a CSS background."""
    status: str = ""
    """Shown as a badge."""
    link: str = ""
    """Where `text` leads."""
    heads_row: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; neighbours with the same `group` get a common one above."""

    title: str
    numeric: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption. `folded` shows it on demand."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    is_prose: bool = False
    """Its cells are long and may be broken anywhere."""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings of groups and over how many columns they stand; empty if there are none."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and column.group and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return runs if any(group for group, _ in runs) else []


def number(value: float | None) -> Number:
    """To four significant digits."""
    return Number(MISSING) if value is None else Number(number_text(value), value)


def number_cell(value: float | None) -> Cell:
    """A number, or a dash."""
    return Cell(numbers=(number(value),))


def count_cell(value: int | None) -> Cell:
    """A whole number with separators, or a dash."""
    return Cell(MISSING) if value is None else Cell(numbers=(Number(f"{value:,}", value),))


def interval_cell(interval: MeanInterval | DifferenceInterval) -> Cell:
    """A mean, rounded as its interval below it is."""
    mean, _, ends = interval_text(interval).partition(" ")
    return Cell(numbers=(Number(mean or MISSING, interval.mean),), note=ends)


def configuration_cell(config_id: str, label: str, colours: Mapping[str, str]) -> Cell:
    """A configuration's label with its colour in the figures, and its id."""
    return Cell(label or "(no label)", note=config_id, colour=colours.get(config_id, ""), heads_row=True)
