"""What a comparison says, in words: one plain sentence or two that hold without the numbers around them."""

from typing import TYPE_CHECKING

from rung.results.export import interval_text, number_text
from rung.results.robust import Improvement
from rung.results.significance import ALPHA, fewest_pairs
from rung.results.statistics import MeanInterval

if TYPE_CHECKING:
    from rung.results.comparison import Comparison
    from rung.results.pairing import SideValues


def conclusion(comparison: "Comparison", first: str = "A", second: str = "B") -> str:
    """What can be concluded, in a sentence or two.

    Args:
        first, second: what the sides are called.
    """
    match comparison.verdict:
        case "no pairs":
            return _without_pairs(comparison, first, second)
        case "equal":
            return f"{first} and {second} gave the same value with every one of {comparison.difference.n} paired seeds."
        case "diverged":
            return _with_diverged(comparison, first, second)
        case "too few seeds":
            floor = f"n is too small: {smallest_text(comparison)}. {_wanted(comparison, first, second)}"
            return f"{floor} {_by_t(comparison)}".rstrip()
        case "not told apart":
            told = f"{first} and {second} cannot be told apart with {_pairs(comparison)} ({_p(comparison)})"
            return f"{told}. {_wanted(comparison, first, second)}"
        case "better" | "worse" as verdict:
            by = interval_text(_as_size(comparison.difference))
            return f"{first} is {verdict} than {second} by {by} ({_pairs(comparison)}, {_p(comparison)})."


def _pairs(comparison: "Comparison") -> str:
    n = comparison.difference.n
    return f"n = {n} paired {'seed' if n == 1 else 'seeds'}"


def _p(comparison: "Comparison") -> str:
    holm = f", {p_text(comparison.p_adjusted)} by Holm over {comparison.tests} tests" if comparison.tests > 1 else ""
    return f"p = {p_text(comparison.test.p)}{holm}"


def smallest_text(comparison: "Comparison") -> str:
    """What the permutation test can say at best with so few pairs."""
    test, tests = comparison.test, comparison.tests
    text = f"with {_pairs(comparison)} the smallest possible p of the permutation test is {p_text(test.smallest)}"
    return f"{text}, {p_text(min(1.0, test.smallest * tests))} by Holm over {tests} tests" if tests > 1 else text


def _by_t(comparison: "Comparison") -> str:
    """What the t interval says where the permutation test cannot say anything."""
    low, high = comparison.difference.low, comparison.difference.high
    if low is None or high is None or low <= 0 <= high or comparison.tests > 1:
        return ""
    return "The t interval leaves out 0, but that counts only if the differences are normal."


def _wanted(comparison: "Comparison", first: str, second: str) -> str:
    """Who is ahead, and what it would take to tell."""
    ahead, needed, n = _ahead(comparison, first, second), comparison.needed, comparison.difference.n
    if needed is not None and needed > n:
        return f"{ahead}; about {needed:,} paired seeds would be needed if the difference is as observed."
    least = fewest_pairs(ALPHA / comparison.tests)
    return f"{ahead}; it takes at least {least} paired seeds." if least > n else f"{ahead}."


def _ahead(comparison: "Comparison", first: str, second: str) -> str:
    lead = comparison.lead or 0.0
    if lead == 0:
        return "The difference is 0 so far"
    return f"{first} is {'ahead of' if lead > 0 else 'behind'} {second} by {number_text(abs(lead), 3)} so far"


def _without_pairs(comparison: "Comparison", first: str, second: str) -> str:
    unpaired = comparison.unpaired
    for side, name in ((comparison.pairing.first, first), (comparison.pairing.second, second)):
        if not side.finite:
            return f"Nothing can be compared: no run of {name} has a number."
    return (
        f"Nothing can be paired: no seed has a number on both sides. The means of {first} and {second}, as of "
        f"independent runs, differ by {interval_text(unpaired)} (n = {unpaired.n[0]} and {unpaired.n[1]}, Welch's "
        "interval)."
    )


def _with_diverged(comparison: "Comparison", first: str, second: str) -> str:
    """The metric has no worst value, so these runs are in no mean; who is ahead is so among survivors."""
    sides = zip(
        comparison.unbounded, (comparison.pairing.first, comparison.pairing.second), (first, second), strict=True
    )
    gone = " and ".join(f"{count} of {len(side.values)} runs of {name}" for count, side, name in sides if count)
    return (
        f"It is open which one is better: {gone} diverged, which the study counts as worse than any number, and the "
        f"metric has no worst value to put into a mean. Without them: {_ahead(comparison, first, second)} "
        f"({_pairs(comparison)}, {_p(comparison)})."
    )


def _as_size(interval: MeanInterval) -> MeanInterval:
    """An interval of a difference as one of its size."""
    if interval.mean is None or interval.low is None or interval.high is None or interval.mean >= 0:
        return interval
    return MeanInterval(interval.n, -interval.mean, -interval.high, -interval.low)


def place_text(comparison: "Comparison") -> str:
    """Where both were compared: `at the end of each run (budget 1,500 steps)`, `at 500 steps`."""
    level, unit = comparison.pairing.level, comparison.pairing.unit
    if level is None:
        return f"at the end of each run (budget {comparison.first.study['budget']['amount']:,} {unit})"
    return f"at {level:,.0f} {unit}" if level == int(level) else f"at {level:,.1f} {unit}"


def without_number_text(side: "SideValues") -> str:
    """The runs of a side that are no plain numbers: `1 diverged, 2 failed`; empty if there are none."""
    counts = {"diverged": side.diverged, "failed": side.failed, "missing": side.missing}
    return ", ".join(f"{len(seeds)} {kind}" for kind, seeds in counts.items() if seeds)


def p_text(p: float) -> str:
    """A p value to three digits: 0.25, 0.0312, 1e-05."""
    return number_text(p, 3)


def improvement_text(improvement: Improvement) -> str:
    """`0.83 [0.55, 0.95]`."""
    if improvement.probability is None or improvement.low is None or improvement.high is None:
        return ""
    return f"{improvement.probability:.2f} [{improvement.low:.2f}, {improvement.high:.2f}]"
