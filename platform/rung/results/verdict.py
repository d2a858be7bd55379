"""What a study says, in sentences: who is best, whether that is confirmed, and how far it can be trusted.

A study that asks for a confirmation has a winner only by its fresh seeds; before they are through, the page and the
terminal say who leads the search. Of chance no more is claimed than `rung compare` does. Nothing heavy is imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rung.results.comparison import Telling, tells_apart, tests_of_best
from rung.results.conclusions import p_text
from rung.results.confirmation import Confirmation
from rung.results.export import interval_text
from rung.results.significance import ALPHA, fewest_pairs, holm, paired_differences, sign_flip_test
from rung.results.statistics import MeanInterval, mean_interval
from rung.results.tables import ConfigurationSummary


def verdict(
    study: Mapping[str, Any],
    search: Sequence[ConfigurationSummary],
    confirmation: Confirmation | None,
    *,
    live: bool,
) -> list[str]:
    """The best configuration and how far that can be trusted, in sentences, the most important first.

    Args:
        study: study.json.
        search: the summary of the search, best first.
        confirmation: as `read_confirmation` finds it.
        live: whether a driver is at work.
    """
    if not search or search[0].mean is None:
        return ["No run has a value yet, so there is no best configuration."]
    if confirmation is None or not study.get("confirm"):
        return _of_search(study, search, confirmation, live)
    if confirmation.is_over:
        return _of_confirmation(study, search, confirmation)
    return _before_confirmation(study, search, confirmation)


# ----------------------------------------------------------------------------------- a study without confirm


def _of_search(
    study: Mapping[str, Any], search: Sequence[ConfigurationSummary], confirmation: Confirmation | None, live: bool
) -> list[str]:
    best, metric = search[0], study["metric"]
    so_far = " so far" if live or not all(entry.has_ended for entry in search) else ""
    sentences = [f"Best{so_far}: {best.label}, with {_value(metric, best)}.", *_reservations(metric, best)]
    if len(search) > 1:
        sentences += [*_ahead(search, metric), *_optimism(search, confirmation)]
    return sentences


def _reservations(metric: Mapping[str, Any], best: ConfigurationSummary) -> list[str]:
    sentences = []
    if metric.get("across_seeds", "mean") != "mean":
        sentences.append(f"Configurations are ranked by the {metric['across_seeds']} over their seeds.")
    if best.diverged:
        sentences.append(f"This mean leaves out {plural(best.diverged, 'run')} that diverged.")
    return sentences


def _ahead(search: Sequence[ConfigurationSummary], metric: Mapping[str, Any]) -> list[str]:
    """How far the best is ahead of the second, seed by seed; nothing if they were not trained alike, or if one has
    diverged runs that count as worse than any number."""
    best, second = search[:2]
    if any(entry.running or entry.stopped or entry.score is None for entry in (best, second)):
        return []
    (lead,) = leads_over(best, [second], metric, tests_of_best(len(search)))
    return _lead_in_words(lead) if lead.interval.n > 1 else []


def _optimism(search: Sequence[ConfigurationSummary], confirmation: Confirmation | None) -> list[str]:
    confirmed = confirmation.by_id.get(search[0].config_id) if confirmation else None
    chosen = f"This value is that of the best of {len(search)}, chosen by the same runs that it is measured on"
    if confirmed is None or confirmed.confirm.mean is None:
        return [
            f"{chosen}: it is optimistic until it is confirmed on fresh seeds.",
            "To confirm it, add `confirm: {top: 2, seeds: 16}` to the study file and run it again.",
        ]
    fresh = confirmed.confirm
    return [f"{chosen}, so it is optimistic; on fresh seeds it is {interval_text(fresh.interval)} (n = {fresh.n})."]


# -------------------------------------------------------------------------------------- a study with confirm


def _before_confirmation(
    study: Mapping[str, Any], search: Sequence[ConfigurationSummary], confirmation: Confirmation
) -> list[str]:
    leader, metric = search[0], study["metric"]
    top, fresh = plural(confirmation.top, "configuration"), plural(len(confirmation.seeds), "fresh seed")
    if not all(entry.has_ended for entry in search):
        return [
            f"No winner yet: {leader.label} leads the search so far, with {_value(metric, leader)}.",
            *_reservations(metric, leader),
            f"When the search is over, the best {top} of {len(search)} are trained again on {fresh} each, "
            "and only those values say which one is best.",
        ]
    if not confirmation.planned:
        return [f"No winner: the search led to no configuration that could be confirmed. {leader.label} leads it."]
    return [
        f"No winner yet: {leader.label} leads the search, with {_value(metric, leader)}, and is not confirmed yet.",
        *_reservations(metric, leader),
        f"{confirmation.done} of {confirmation.planned} confirm runs are done ({top} on {fresh} each). The value of "
        f"the search is that of the best of {len(search)}, chosen by the same runs that it is measured on, so it is "
        "optimistic.",
    ]


def _of_confirmation(
    study: Mapping[str, Any], search: Sequence[ConfigurationSummary], confirmation: Confirmation
) -> list[str]:
    entries, metric = confirmation.entries, study["metric"]
    best = entries[0].confirm
    if best.mean is None:
        return ["No winner: none of the confirm runs has a value."]
    # One without a score has diverged runs that count as worse than anything: it is no rival.
    rivals = [entry.confirm for entry in entries[1:] if entry.confirm.score is not None]
    compared = sum(entry.confirm.n > 0 or entry.confirm.score is not None for entry in entries)
    leads = leads_over(best, rivals, metric, tests_of_best(compared))
    return [
        *_winner(metric, best, leads),
        *_reservations(metric, best),
        *(_lead_in_words(leads[0]) if leads else []),
        *([] if rivals else ["No other one was confirmed: nothing says that the second is worse."]),
        *_order_in_words(search, confirmation),
        *_shrinkage(search, confirmation),
        *_missing(confirmation),
        *_earlier(confirmation),
    ]


def _winner(metric: Mapping[str, Any], best: ConfigurationSummary, leads: Sequence["Lead"]) -> list[str]:
    what = "mean with 95\u00a0% Student-t interval" if best.n > 1 else "without an interval"
    value = f"{metric['name']} {interval_text(best.interval)} on {plural(best.n, 'fresh seed')} ({what})"
    level = [lead.label for lead in leads if not lead.is_told]
    if not level:
        return [f"Confirmed best: {best.label}, with {value}."]
    return [
        f"No single winner: on fresh seeds {best.label} and {' and '.join(level)} cannot be told apart.",
        f"{best.label} has {value}.",
    ]


def _order_in_words(search: Sequence[ConfigurationSummary], confirmation: Confirmation) -> list[str]:
    """That fresh seeds have changed the order, where they have."""
    now = [entry.config_id for entry in confirmation.entries]
    before = [entry for entry in search if entry.config_id in now]
    if [entry.config_id for entry in before] == now:
        return []
    if before[0].config_id == now[0]:
        return ["Behind it, fresh seeds order the confirmed configurations otherwise than the search did."]
    return [f"The order has changed: the search had {before[0].label} first."]


def _shrinkage(search: Sequence[ConfigurationSummary], confirmation: Confirmation) -> list[str]:
    """How much the search flattered the best of its own that was confirmed."""
    leader = next(entry for entry in search if entry.config_id in confirmation.by_id)
    shrinkage = confirmation.by_id[leader.config_id].shrinkage
    if shrinkage.mean is None:
        return []
    if shrinkage.low is None or shrinkage.high is None:
        return [f"On fresh seeds {leader.label} is worse than in the search by {interval_text(shrinkage)}."]
    how = f"{interval_text(shrinkage)} (Welch's 95\u00a0% interval)"
    if shrinkage.low > 0:
        return [f"On fresh seeds {leader.label} is worse than in the search by {how}: so much of that was optimism."]
    if shrinkage.high < 0:
        return [f"On fresh seeds {leader.label} is better than in the search; the shrinkage is {how}."]
    return [f"The shrinkage of {leader.label}, search against fresh seeds, is {how}: not told from none."]


def _missing(confirmation: Confirmation) -> list[str]:
    """Which confirm runs the values leave out, beside those of the best."""
    sentences = [
        f"{entry.label} had {plural(entry.confirm.diverged, 'confirm run')} that diverged and that its mean leaves out."
        for entry in confirmation.entries[1:]
        if entry.confirm.diverged
    ]
    if not confirmation.failed:
        return sentences
    return [
        *sentences,
        f"{confirmation.failed} of {plural(confirmation.planned, 'confirm run')} failed and are missing from these "
        "values; the same command tries them again.",
    ]


def _earlier(confirmation: Confirmation) -> list[str]:
    names = [entry.label for entry in confirmation.earlier]
    return [f"Confirmed earlier, for another choice, and not compared: {', '.join(names)}."] if names else []


# --------------------------------------------------------------------------------------------------- leads


@dataclass(frozen=True, slots=True)
class Lead:
    """How far the best configuration is ahead of another one, paired by seed."""

    label: str
    """Of the other one."""
    interval: MeanInterval
    """Of the differences, positive where the best is better; Student's t, 95 %."""
    p: float
    """Of the permutation test, adjusted for `tests` tests."""
    tests: int
    telling: Telling

    @property
    def is_told(self) -> bool:
        """Whether the seeds tell that the best is better."""
        return self.telling == "told apart" and (self.interval.mean or 0.0) > 0


def leads_over(
    best: ConfigurationSummary, others: Sequence[ConfigurationSummary], metric: Mapping[str, Any], tests: int
) -> list[Lead]:
    """The leads of the best over each of the others, judged as `rung compare` does: by the sign-flip permutation test,
    adjusted with Holm for `tests` tests.

    Args:
        metric: of study.json. A diverged run takes part with the metric's worst value, if it has one.
        tests: to how many tests having picked the best amounts, `tests_of_best`.
    """
    sign, ours = (1.0 if metric["mode"] == "max" else -1.0), _by_seed(best, metric)
    differences = []
    for other in others:
        theirs = _by_seed(other, metric)
        shared = sorted(ours.keys() & theirs.keys())
        differences.append(
            sign * paired_differences([ours[seed] for seed in shared], [theirs[seed] for seed in shared])
        )
    found = [sign_flip_test(each, np.random.default_rng(0)) for each in differences]
    adjusted = holm([test.p for test in found], tests)
    return [
        Lead(other.label, mean_interval(each), p, tests, tells_apart(test, p, tests))
        for other, each, test, p in zip(others, differences, found, adjusted, strict=True)
    ]


def _by_seed(entry: ConfigurationSummary, metric: Mapping[str, Any]) -> dict[int, float]:
    known = {seed: value for seed, value in zip(entry.seeds, entry.values, strict=True) if value is not None}
    worst = metric.get("worst_value")
    if metric.get("diverged", "worst") != "worst" or worst is None:
        return known
    return known | dict.fromkeys(entry.diverged_seeds, float(worst))


def _lead_in_words(lead: Lead) -> list[str]:
    """How far the best is ahead of the second, and whether that is more than chance."""
    interval, n = lead.interval, lead.interval.n
    if interval.mean is None:
        return [f"It has no seed in common with the second, {lead.label}."]
    if interval.mean <= 0:
        return [f"Paired by seed it is no better than the second, {lead.label} (n = {n})."]
    how = f"95\u00a0% Student-t interval, n = {n}" if n > 1 else "n = 1, so without an interval"
    return [
        f"Paired by seed it is ahead of the second, {lead.label}, by {interval_text(interval)} ({how}), "
        f"{_telling_in_words(lead)}."
    ]


def _telling_in_words(lead: Lead) -> str:
    if lead.telling == "too few seeds":
        return f"which takes at least {fewest_pairs(ALPHA / lead.tests)} seeds to tell from chance"
    several = f", adjusted for {lead.tests} tests" if lead.tests > 1 else ""
    verb = "tell" if lead.is_told else "do not tell"
    return f"which these seeds {verb} from chance (p = {p_text(lead.p)}{several})"


# ------------------------------------------------------------------------------------------------- helpers


def plural(count: int, noun: str) -> str:
    """`1 run`, `12 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _value(metric: Mapping[str, Any], entry: ConfigurationSummary) -> str:
    return f"{metric['name']} {interval_text(entry.interval)} ({_interval_in_words(entry.interval)})"


def _interval_in_words(interval: MeanInterval) -> str:
    if interval.low is None:
        return f"n = {interval.n}, so without an interval: nothing tells it from luck"
    return f"mean with 95\u00a0% Student-t interval, n = {interval.n}"
