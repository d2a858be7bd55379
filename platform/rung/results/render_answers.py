"""Answers of two configurations to the same questions, for the terminal, beside what `rung compare` says of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from rung.results.answers import ConfigurationAnswers, ConfigurationChange, RunChange, change_by_seed, read_answers
from rung.results.answers_words import Change, judged, test_text
from rung.results.compare import Family
from rung.results.comparison import Comparison
from rung.results.conclusions import p_text
from rung.results.export import interval_text
from rung.results.pairing import Side
from rung.results.render import render_records

_Read = dict[Path, Mapping[str, ConfigurationAnswers]]
"""The answers of a study's configurations, by its directory and their ids."""


def render_answers(family: Family, width: int) -> list[RenderableType]:
    """The paired test of every comparison whose sides answered the same questions; nothing without any."""
    read: _Read = {}
    found = [(comparison, change) for comparison in family.comparisons if (change := _change(comparison, read))]
    if not found:
        return []
    changes = judged([change for _, change in found], family.comparisons[0].tests)
    if len(family.comparisons) == 1:
        return _in_detail(changes[0], width)
    rows = [_row(comparison, change) for (comparison, _), change in zip(found, changes, strict=True)]
    return [Text("\nAnswers to the same questions, the first answer to each"), Text(), render_records(rows, width)]


def _change(comparison: Comparison, read: _Read) -> ConfigurationChange | None:
    """From the second side to the first one, so that differences are A - B as everywhere in a comparison."""
    first, second = (_answers(side, read) for side in (comparison.first, comparison.second))
    if first is None or second is None or first.phase != second.phase:
        return None
    runs = change_by_seed(second.last, first.last)
    left_out = (*(f"A: {text}" for text in first.left_out), *(f"B: {text}" for text in second.left_out))
    if not runs:
        return None
    return ConfigurationChange(first.config_id, first.label, second.label, first.phase, runs, left_out)


def _answers(side: Side, read: _Read) -> ConfigurationAnswers | None:
    directory = side.results.directory
    if directory not in read:
        read[directory] = {answers.config_id: answers for answers in read_answers(side.results)}
    return read[directory].get(side.config_id)


def _in_detail(change: Change, width: int) -> list[RenderableType]:
    found = change.found
    rows = [_run_row(run, p) for run, p in zip(found.runs, change.p_adjusted, strict=True)]
    sentences = [
        f"Seed {run.after.seed}: {run.counts.gained:,} questions are answered right by A only and {run.counts.lost:,} "
        f"by B only, {test_text(run.counts, p, change.tests)}."
        for run, p in zip(found.runs, change.p_adjusted, strict=True)
    ]
    if found.is_over_seeds:
        better, worse = change.told
        sentences = [
            f"A - B in the part answered right, mean over {len(found.runs)} seeds: {interval_text(found.difference)} "
            f"(Student-t). Each run by itself: A answers better by more than chance in {better} of {len(found.runs)}, "
            f"worse in {worse} (McNemar's exact test, p by Holm over {change.tests})."
        ]
    return [
        Text(f"\nanswers to the same questions, the first answer to each, phase {found.phase}\n"),
        render_records(rows, width),
        *([Text("left out: " + ", ".join(found.left_out), style="yellow")] if found.left_out else []),
        Text(),
        *(Text(sentence, style="bold") for sentence in sentences),
    ]


def _run_row(run: RunChange, p_adjusted: float) -> dict[str, str]:
    counts = run.counts
    return {
        "seed": str(run.after.seed),
        "questions": f"{counts.n:,}",
        "A right": interval_text(counts.after),
        "B right": interval_text(counts.before),
        "A - B [95 %]": interval_text(counts.difference),
        "only A": f"{counts.gained:,}",
        "only B": f"{counts.lost:,}",
        "p": p_text(counts.p),
        "p (Holm)": p_text(p_adjusted),
        "mid-p": p_text(counts.mid_p),
    }


def _row(comparison: Comparison, change: Change) -> dict[str, str]:
    found = change.found
    better, worse = change.told
    if found.is_over_seeds:
        test = f"{better} better, {worse} worse of {len(found.runs)} runs"
    else:
        test = f"p {p_text(change.p_adjusted[0])}"
    return {
        "against": comparison.second.label,
        "questions": f"{_questions(found.runs):,}",
        "right [95 %]": interval_text(found.after),
        "against, right [95 %]": interval_text(found.before),
        "difference [95 %]": interval_text(found.difference),
        "McNemar (Holm)": test,
    }


def _questions(runs: Sequence[RunChange]) -> int:
    return max(run.counts.n for run in runs)
