"""How often a model is right, by what was asked: depth, operators, kind of error. Imports no torch.

Intervals are Wilson's. Several answers to one item are not independent of each other, so they count as one, with the
part of them that is right as its success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rung.results.statistics import wilson_interval
from trainables.arithmetic.answers import Answer, Evaluation
from trainables.arithmetic.generator import Item


@dataclass(frozen=True, slots=True)
class Group:
    """The items that have something in common."""

    name: str
    items: int
    exact_match: float
    """Part of the answers that are right."""
    interval: tuple[float, float]
    """Of exact_match, 95 %."""
    parse_success: float
    over_length: float
    """Part of the answers that were cut off before they came to a result."""
    solution_over_length: float
    """Part of the items whose taught solution has no room."""


KEYS: Mapping[str, Callable[[Item], str | int]] = {
    "operators": lambda item: item.operators,
    "depth": lambda item: item.depth,
    "error": lambda item: item.error or "none",
}
"""What items are told apart by."""


def breakdown(evaluation: Evaluation, key: str) -> list[Group]:
    """The items by one of `KEYS`, in the order of its values."""
    groups: dict[str | int, list[Sequence[Answer]]] = {}
    for answers in evaluation.by_item:
        groups.setdefault(KEYS[key](answers[0].item), []).append(answers)
    ordered = sorted(groups, key=lambda value: (value != "none", value) if isinstance(value, str) else (False, value))
    return [group(str(value), groups[value]) for value in ordered]


def group(name: str, items: Sequence[Sequence[Answer]]) -> Group:
    """Some items, each with its answers, as one group."""
    answers = [answer for each in items for answer in each]
    rates = [sum(answer.is_right for answer in each) / len(each) for each in items]
    return Group(
        name=name,
        items=len(items),
        exact_match=sum(answer.is_right for answer in answers) / len(answers),
        interval=wilson_interval(sum(rates), len(items)),
        parse_success=sum(answer.verification.is_parsed for answer in answers) / len(answers),
        over_length=sum(answer.outcome == "over_length" for answer in answers) / len(answers),
        solution_over_length=sum(not each[0].solution_fits for each in items) / len(items),
    )


def table(rows: Sequence[Group], key: str) -> str:
    """Groups as text in columns."""
    heads = [key, "items", "exact match", "95 % interval", "parsed", "cut off", "no room"]
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cells(row: Group) -> list[str]:
    interval = " to ".join(map(percent, row.interval))
    rates = (row.parse_success, row.over_length, row.solution_over_length)
    return [row.name, f"{row.items:,}", percent(row.exact_match), interval, *map(percent, rates)]


def percent(rate: float) -> str:
    """`97.3 %`."""
    return f"{100 * rate:.1f} %"
