"""Comparisons for the terminal, with rich: one in detail, several as a table; what can be concluded comes last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rung.results.compare import Family
from rung.results.comparison import Comparison
from rung.results.conclusions import (
    conclusion,
    improvement_text,
    p_text,
    place_text,
    smallest_text,
    without_number_text,
)
from rung.results.export import interval_text, number_text
from rung.results.pairing import SideValues
from rung.results.render import render_records, render_rows
from rung.results.render_answers import render_answers
from rung.results.robust import interquartile_mean
from rung.results.rungs import selection_in_words
from rung.results.significance import ALPHA, fewest_pairs
from rung.results.statistics import mean_interval
from rung.results.success import success_rate

_ENOUGH_TO_TRIM = 10
"""Runs on either side from which interquartile means are shown: of fewer, a handful would be left."""
_OPTIONAL = "P(better) [95 %]"
"""A column that gives way where the terminal is narrow."""


def render_families(families: Sequence[Family], width: int = 120) -> RenderableType:
    """All of what was compared, family by family, for a terminal of `width` columns."""
    pieces: list[RenderableType] = []
    for family in families:
        if len(families) > 1:
            pieces.append(Text(f"\n{family.title}\n" if pieces else f"{family.title}\n", style="bold underline"))
        if len(family.comparisons) == 1:
            pieces += _in_detail(family.comparisons[0])
        else:
            pieces += _as_table(family, width)
        pieces += render_answers(family, width)
        if family.note:
            pieces.append(Text(family.note, style="dim"))
    return Group(*pieces)


def _in_detail(comparison: Comparison) -> list[RenderableType]:
    two_studies = comparison.first.results.directory != comparison.second.results.directory
    head = [
        Text.assemble(
            (letter, "bold"), f"  {side.label}  ", (side.config_id + (f" of {side.study_name}" * two_studies), "dim")
        )
        for letter, side in (("A", comparison.first), ("B", comparison.second))
    ]
    rows = [{"differing field": path, "A": _value(a), "B": _value(b)} for path, a, b in comparison.differing]
    return [
        *head,
        Text(_what(comparison)),
        Text(),
        render_rows(_side_rows(comparison)),
        Text(),
        render_rows(_seed_rows(comparison)),
        *_diverged(comparison),
        Text(),
        render_rows(_statistics(comparison)),
        Text(),
        render_rows(rows) if rows else Text("A and B are the same configuration"),
        Text(),
        Text(conclusion(comparison), style="bold"),
    ]


def _what(comparison: Comparison) -> str:
    return f"{_metric(comparison)}, phase {comparison.pairing.phase}, {place_text(comparison)}"


def _metric(comparison: Comparison) -> str:
    metric = comparison.first.study["metric"]
    better = "more is better" if metric["mode"] == "max" else "less is better"
    return f"{comparison.metric} ({better}; {selection_in_words(metric)})"


def _side_rows(comparison: Comparison) -> list[dict[str, Any]]:
    pairing = comparison.pairing
    fewest = min(len(pairing.first.finite), len(pairing.second.finite))
    rows = []
    for letter, side, values in (("A", comparison.first, pairing.first), ("B", comparison.second, pairing.second)):
        numbers = list(values.finite.values())
        row: dict[str, Any] = {"": letter, "n": len(numbers), "mean [95 %]": interval_text(mean_interval(numbers))}
        if fewest >= _ENOUGH_TO_TRIM:
            row["interquartile mean [95 %]"] = interval_text(interquartile_mean(numbers))
        success = success_rate(side.study, side.runs[pairing.phase].values())
        if success is not None and pairing.level is None:
            row["reached target"] = success.text
        rows.append({**row, "without a number": without_number_text(values)})
    return rows


def _seed_rows(comparison: Comparison) -> list[dict[str, Any]]:
    sides = (comparison.pairing.first, comparison.pairing.second)
    seeds = sorted({seed for side in sides for seed in (*side.values, *side.diverged, *side.failed, *side.missing)})
    rows = []
    for seed in seeds:
        a, b = (side.finite.get(seed) for side in sides)
        row = {"seed": str(seed)} | {name: _seed_cell(side, seed) for name, side in zip("AB", sides, strict=True)}
        rows.append({**row, "A - B": "" if a is None or b is None else number_text(a - b)})
    return rows


def _seed_cell(side: SideValues, seed: int) -> str:
    value, state = side.finite.get(seed), ""
    for kind in ("diverged", "failed", "missing"):
        if seed in getattr(side, kind):
            state = kind
    return state if value is None else number_text(value) + (f" ({state})" if state else "")


def _diverged(comparison: Comparison) -> list[Text]:
    """How diverged runs count, where there are any."""
    metric, pairing = comparison.first.study["metric"], comparison.pairing
    if not pairing.first.diverged and not pairing.second.diverged:
        return []
    if metric.get("diverged", "worst") == "ignore":
        return [Text("diverged runs are left out, as the study says", style="yellow")]
    if any(comparison.unbounded):
        text = "diverged runs count as worse than any number: they are in P(A better), and in no mean or difference"
        return [Text(text, style="yellow")]
    return [Text(f"diverged runs count as the worst value, {metric['worst_value']:g}", style="yellow")]


def _statistics(comparison: Comparison) -> list[dict[str, Any]]:
    n, test = comparison.difference.n, comparison.test
    found = {"pairs": str(n), "A - B [95 % t interval]": interval_text(comparison.difference)}
    if comparison.interquartile is not None:
        found["A - B of interquartile means [95 % bootstrap]"] = interval_text(comparison.interquartile)
    if n:
        found["p, sign-flip permutation test"] = f"{p_text(test.p)} (smallest possible {p_text(test.smallest)})"
    if n and comparison.tests > 1:
        found[f"p by Holm over {comparison.tests} tests"] = p_text(comparison.p_adjusted)
    counts = comparison.improvement.n
    found[f"P(A better than B) [95 %], {counts[0]} and {counts[1]} runs"] = improvement_text(comparison.improvement)
    return [{"": name, " ": text} for name, text in found.items() if text]


# ------------------------------------------------------------------------------------------------- tables


def _as_table(family: Family, width: int) -> list[RenderableType]:
    first = family.comparisons[0]
    against_one = all(comparison.first is first.first for comparison in family.comparisons)
    head = "the others" if against_one else first.second.study_name
    title = f"{first.first.label if against_one else first.first.study_name} against {head}"
    rows = [
        {
            "against" if against_one else "configuration": comparison.second.label,
            "n": comparison.difference.n,
            "difference [95 %]": interval_text(comparison.difference),
            "p (Holm)": p_text(comparison.p_adjusted),
            _OPTIONAL: improvement_text(comparison.improvement),
            f"at ({first.pairing.unit})": _short_place(comparison),
            "verdict": comparison.verdict,
        }
        for comparison in family.comparisons
    ]
    fewer = [{name: cell for name, cell in row.items() if name != _OPTIONAL} for row in rows]
    if _wanted_width(fewer) <= width < _wanted_width(rows):
        rows = fewer
    accidents = [Text(text, style="yellow") for text in _accidents(family)]
    sentences = [Text(sentence, style="bold") for sentence in _conclusions(family, against_one)]
    return [Text(title), Text(_metric(first)), Text(), render_records(rows, width), *accidents, Text(), *sentences]


def _accidents(family: Family) -> list[str]:
    """Who has runs without a number, each configuration once."""
    found = {}
    for comparison in family.comparisons:
        for side, values in (
            (comparison.first, comparison.pairing.first),
            (comparison.second, comparison.pairing.second),
        ):
            text = without_number_text(values)
            if text:
                found[side.study_name, side.config_id] = f"{side.label}: {text}"
    return list(found.values())


def _wanted_width(rows: Sequence[dict[str, Any]]) -> int:
    return sum(2 + max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0])


def _short_place(comparison: Comparison) -> str:
    level = comparison.pairing.level
    place = "end" if level is None else f"{level:,.0f}"
    return f"{place}, confirm" if comparison.pairing.phase == "confirm" else place


def _conclusions(family: Family, against_one: bool) -> list[str]:
    """One sentence for each verdict, with who it is about."""
    by_verdict: dict[str, list[Comparison]] = {}
    for comparison in family.comparisons:
        by_verdict.setdefault(comparison.verdict, []).append(comparison)
    first = family.comparisons[0]
    name = first.first.label if against_one else first.first.study_name
    with_whom = ": " if against_one else f" {first.second.study_name} with: "
    return [_conclusion_of(verdict, name, with_whom, found) for verdict, found in by_verdict.items()]


def _conclusion_of(verdict: str, name: str, with_whom: str, found: Sequence[Comparison]) -> str:
    others = with_whom + "; ".join(comparison.second.label for comparison in found)
    match verdict:
        case "better" | "worse":
            return f"{name} is {verdict} than{others}."
        case "too few seeds":
            most = max(found, key=lambda comparison: comparison.difference.n)
            least = fewest_pairs(ALPHA / most.tests)
            return (
                f"n is too small to tell {name} from{others}. At best, {smallest_text(most)}; "
                f"it takes at least {least} paired seeds."
            )
        case "not told apart":
            needed = [comparison.needed for comparison in found if comparison.needed is not None]
            seeds = f" About {min(needed):,} paired seeds or more would be needed." if needed else ""
            return f"{name} cannot be told apart from{others}.{seeds}"
        case "diverged":
            return f"Runs diverged and the metric has no worst value: it is open whether {name} is better than{others}."
        case "equal":
            return f"{name} gave the same values as{others}."
    return f"No seed has a number on both sides, {name} and{others}."


def _value(value: object) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
