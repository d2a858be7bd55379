"""Exact match by what was asked, with intervals, single seeds, and what the room allows. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from rung.results.figure_style import COLOURS, FAINT, GREY, WIDTH, settle, short_label, styled
from trainables.arithmetic.breakdown import Group, breakdown

if TYPE_CHECKING:
    from trainables.arithmetic.evaluation_report import Tested

_WORDS = {"operators": "operators in the expression", "depth": "depth of the expression", "error": "error in it"}
_HEIGHT = 3.6
_SPREAD = 0.5
"""How much of the place of one value the configurations share."""


def exact_match_figure(tested: Sequence[Tested], key: str) -> Figure:
    """A point with a 95 % interval for each configuration and value of the key; small dots are the single seeds.

    Below it, how many items there are. A grey line shows which part of the items a model that writes the whole taught
    solution could get right at most, where that is not all of them.
    """
    coloured = tested[: len(COLOURS)]
    with styled():
        figure = Figure(figsize=(WIDTH, _HEIGHT), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        places = {name: place for place, name in enumerate(_names(coloured, key))}
        for number, each in enumerate(coloured):
            shift = _SPREAD * ((number + 0.5) / len(coloured) - 0.5)
            _draw_ceiling(upper, each.groups(key), places)
            _draw(upper, each, key, places, shift, COLOURS[number])
        _draw_counts(lower, coloured, key, places)
        upper.set(ylabel="exact match", ylim=(-0.03, 1.03))
        upper.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        lower.set(xlabel=_WORDS[key], ylabel="items")
        lower.set_xticks(
            range(len(places)), [name.replace("_", " ") for name in places], rotation=25 if key == "error" else 0
        )
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    settle(figure)
    return figure


def _names(tested: Sequence[Tested], key: str) -> list[str]:
    """The values of the key in all test sets, which may differ: numbers ascending, others as they come."""
    names = list(dict.fromkeys(group.name for each in tested for group in each.groups(key)))
    return sorted(names, key=int) if all(name.isdigit() for name in names) else names


def _draw(axes: Any, tested: Tested, key: str, places: Mapping[str, int], shift: float, colour: str) -> None:
    groups = tested.groups(key)
    at = [places[each.name] + shift for each in groups]
    rates = [each.exact_match for each in groups]
    errors = [
        [max(0.0, each.exact_match - each.interval[0]) for each in groups],
        [max(0.0, each.interval[1] - each.exact_match) for each in groups],
    ]
    seeds = f"{len(tested.runs)} seed{'s' if len(tested.runs) != 1 else ''}"
    label = f"{short_label(tested.label or 'the base configuration')}, {seeds}"
    axes.errorbar(at, rates, errors, fmt="o", color=colour, markersize=4, linewidth=1.2, label=label, clip_on=False)
    if len(tested.runs) > 1:
        for run in tested.runs.values():
            values = [each.exact_match for each in breakdown(run, key)]
            axes.plot([x + 0.08 for x in at], values, ".", color=colour, markersize=3, alpha=0.55, clip_on=False)


def _draw_ceiling(axes: Any, groups: Sequence[Group], places: Mapping[str, int]) -> None:
    if not any(each.solution_over_length for each in groups):
        return
    rates = [1 - each.solution_over_length for each in groups]
    is_first = not any(line.get_gid() == "ceiling" for line in axes.get_lines())
    label = "solutions that fit" if is_first else None
    at = [places[each.name] for each in groups]
    axes.step(at, rates, where="mid", color=GREY, label=label, zorder=1, gid="ceiling")


def _draw_counts(axes: Any, tested: Sequence[Tested], key: str, places: Mapping[str, int]) -> None:
    """The items of each value; one bar where all have the same test set."""
    counts = list(dict.fromkeys(tuple((group.name, group.items) for group in each.groups(key)) for each in tested))
    width = 0.7 / len(counts)
    for number, each in enumerate(counts):
        at = [places[name] + width * (number + 0.5 - len(counts) / 2) for name, _ in each]
        colour = GREY if len(counts) == 1 else COLOURS[number]
        bars = axes.bar(at, [items for _, items in each], color=colour, width=width)
        if len(counts) == 1:
            axes.bar_label(bars, fontsize=6, padding=1)
    axes.margins(y=0.35)
    axes.set_yticks([])
    axes.tick_params(axis="x", color=FAINT)
    axes.grid(axis="x", visible=False)
