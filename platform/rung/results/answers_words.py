"""What changed in the answers, in words: for the reports of studies and pipelines, and for `rung compare`.

Two questions are kept apart. McNemar's test asks of one run whether its model is better on questions like these; the
mean over several runs asks whether training with other seeds would do the same. Nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rung.results.answers import ConfigurationChange, RunChange
from rung.results.conclusions import p_text
from rung.results.export import interval_text
from rung.results.mcnemar import PairedAnswers
from rung.results.significance import ALPHA, holm
from rung.results.verdict import plural

_LEAST_P = 1e-6
"""Smaller p values are not told apart in sentences."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the sides of a comparison are called."""

    before: str
    after: str
    preposition: str
    """In sentences: `answered right at step 0`."""


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration's change with its p values, adjusted for all runs of all configurations beside it."""

    found: ConfigurationChange
    p_adjusted: tuple[float, ...]
    """Holm's, of each run."""
    tests: int
    """Over how many runs."""

    @property
    def told(self) -> tuple[int, int]:
        """Runs that changed for the better and for the worse by more than chance."""
        told = [run.counts for run, p in zip(self.found.runs, self.p_adjusted, strict=True) if p <= ALPHA]
        better = sum(counts.gained > counts.lost for counts in told)
        return better, len(told) - better


def judged(changes: Sequence[ConfigurationChange], choices: int | None = None) -> list[Change]:
    """The changes that are shown together, with p values adjusted together.

    Args:
        choices: to how many changes it amounts that these were chosen, where that is more than are shown.
    """
    tests = sum(len(change.runs) for change in changes)
    if choices is not None:
        tests = max(tests, choices * max(len(change.runs) for change in changes))
    adjusted = iter(holm([run.counts.p for change in changes for run in change.runs], tests))
    return [Change(change, tuple(next(adjusted) for _ in change.runs), tests) for change in changes]


# ----------------------------------------------------------------------------------------------- sentences


def conclusions(changes: Sequence[Change], names: Names | None = None) -> list[str]:
    """What changed, the first configuration in detail and the others counted.

    Args:
        names: what the sides are called; otherwise the steps at which the answers were recorded.
    """
    first = changes[0]
    head, *rest = _of_configuration(first, names)
    label = first.found.label
    sentences = [f"{label}: {head}" if label else head[:1].upper() + head[1:], *rest]
    if len(changes) > 1:
        better, worse = (sum(change.told[side] > 0 for change in changes) for side in (0, 1))
        several = any(change.found.is_over_seeds for change in changes)
        what = ", counting those in which at least one run did" if several else ""
        sentences.append(
            f"Of {len(changes)} configurations {better} changed for the better by more than chance and {worse} for the "
            f"worse{what} (p by Holm over all {plural(first.tests, 'run')})."
        )
    return sentences


def _of_configuration(change: Change, names: Names | None) -> list[str]:
    found = change.found
    if not found.is_over_seeds:
        run = found.runs[0]
        return one_run(run.counts, change.p_adjusted[0], change.tests, names or step_names(run))
    names = names or step_names(found.runs[0])
    at = names.preposition
    better, worse = change.told
    return [
        f"part of the questions answered right {at} {names.after}: {interval_text(found.after)}, {at} {names.before}: "
        f"{interval_text(found.before)}; paired by seed the difference is {interval_text(found.difference)} "
        f"(means over {len(found.runs)} seeds with Student-t intervals).",
        f"Each run by itself: {better} of {len(found.runs)} answer better by more than chance, {worse} worse "
        f"(McNemar's exact test, p by Holm over {plural(change.tests, 'run')}).",
    ]


def one_run(counts: PairedAnswers, p_adjusted: float, tests: int, names: Names) -> list[str]:
    """What changed in the answers of one model, or between those of two, and whether that is more than chance."""
    at = names.preposition
    return [
        f"of {counts.n:,} questions {counts.right_after:,} are answered right {at} {names.after} and "
        f"{counts.right_before:,} {at} {names.before}, a difference of {interval_text(counts.difference)} "
        "(95\u00a0% score interval of paired proportions).",
        f"{counts.gained:,} changed to right and {counts.lost:,} to wrong: {test_text(counts, p_adjusted, tests)}.",
    ]


def test_text(counts: PairedAnswers, p_adjusted: float, tests: int) -> str:
    """What the test says of the questions that changed."""
    told = "more than chance" if p_adjusted <= ALPHA else "not told from chance"
    holm_text = f", {p_phrase(p_adjusted)} by Holm over {tests} tests" if tests > 1 else ""
    return f"{told} (McNemar's exact test, {p_phrase(counts.p)}{holm_text})"


def step_names(run: RunChange) -> Names:
    """The steps at which both sides answered."""
    return Names(f"step {run.before.step:,}", f"step {run.after.step:,}", "at")


def p_phrase(p: float) -> str:
    """`p = 0.0312`, `p < 1e-06`."""
    return f"p < {_LEAST_P:g}" if p < _LEAST_P else f"p = {p_text(p)}"
