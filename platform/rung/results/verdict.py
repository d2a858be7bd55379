"""What a study says, in sentences: who is best, whether that is confirmed, and how far it can be trusted.

A study that asks for a confirmation has a winner only by its fresh seeds; before they are through, the page and the
terminal say who leads the search. Nothing heavy is imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rung.results.confirmation import Confirmation, ConfirmedSummary
from rung.results.export import interval_text
from rung.results.significance import paired_interval
from rung.results.statistics import MeanInterval, Mode
from rung.results.tables import ConfigurationSummary

_ERROR = 0.05
"""Of all comparisons with the best together."""


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
        sentences += [*_ahead(search, metric["mode"]), *_optimism(search, confirmation)]
    return sentences


def _reservations(metric: Mapping[str, Any], best: ConfigurationSummary) -> list[str]:
    sentences = []
    if metric.get("across_seeds", "mean") != "mean":
        sentences.append(f"Configurations are ranked by the {metric['across_seeds']} over their seeds.")
    if best.diverged:
        sentences.append(f"This mean leaves out {plural(best.diverged, 'run')} that diverged.")
    return sentences


def _ahead(search: Sequence[ConfigurationSummary], mode: Mode) -> list[str]:
    """How far the best is ahead of the second, seed by seed; nothing if they were not trained alike."""
    best, second = search[:2]
    if best.running or second.running or second.stopped or second.mean is None:
        return []
    lead = paired_lead(best, second, mode)
    if lead.mean is None or lead.low is None:
        return []
    if lead.mean <= 0:
        return [f"Seed by seed it is no better than the second, {second.label} (n = {lead.n})."]
    telling = "which these seeds tell from chance" if lead.low > 0 else "which these seeds do not tell from chance"
    return [
        f"Seed by seed it is ahead of the second, {second.label}, by {interval_text(lead)} "
        f"(95\u00a0% Student-t interval of the paired differences, n = {lead.n}), {telling}."
    ]


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
    rivals = [entry for entry in entries[1:] if entry.confirm.score is not None]
    leads = _leads(best, rivals, metric["mode"])
    return [
        *_winner(metric, best, leads),
        *_reservations(metric, best),
        *_lead_in_words(leads),
        *([] if rivals else ["No other one was confirmed: nothing says that the second is worse."]),
        *_order_in_words(search, confirmation),
        *_shrinkage(search, confirmation),
        *_missing(confirmation),
    ]


def _winner(
    metric: Mapping[str, Any], best: ConfigurationSummary, leads: Sequence[tuple[ConfirmedSummary, MeanInterval]]
) -> list[str]:
    what = "mean with 95\u00a0% Student-t interval" if best.n > 1 else "without an interval"
    value = f"{metric['name']} {interval_text(best.interval)} on {plural(best.n, 'fresh seed')} ({what})"
    level = [rival.label for rival, lead in leads if lead.low is None or lead.low <= 0]
    if not level:
        return [f"Confirmed best: {best.label}, with {value}."]
    return [
        f"No single winner: on fresh seeds {best.label} and {' and '.join(level)} cannot be told apart.",
        f"{best.label} has {value}.",
    ]


def _leads(
    best: ConfigurationSummary, rivals: Sequence[ConfirmedSummary], mode: Mode
) -> list[tuple[ConfirmedSummary, MeanInterval]]:
    """How far the best is ahead of each of the others, seed by seed; Bonferroni's intervals where there are several."""
    confidence = 1 - _ERROR / max(1, len(rivals))
    return [(rival, paired_lead(best, rival.confirm, mode, confidence)) for rival in rivals]


def _lead_in_words(leads: Sequence[tuple[ConfirmedSummary, MeanInterval]]) -> list[str]:
    """How far the best is ahead of the second on fresh seeds."""
    if not leads:
        return []
    second, lead = leads[0]
    if lead.mean is None:
        return [f"It has no fresh seed in common with the second, {second.label}."]
    if lead.mean <= 0:
        return [f"Paired by seed it is no better than the second, {second.label} (n = {lead.n})."]
    ahead = f"Paired by seed it is ahead of the second, {second.label}, by {interval_text(lead)}"
    if lead.low is None:
        return [f"{ahead} (n = {lead.n}, so without an interval)."]
    several = f", widened for {len(leads)} comparisons (Bonferroni)" if len(leads) > 1 else ""
    telling = "which these seeds tell from chance" if lead.low > 0 else "which these seeds do not tell from chance"
    return [f"{ahead} (95\u00a0% Student-t interval of the differences, n = {lead.n}{several}), {telling}."]


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


# ------------------------------------------------------------------------------------------------- helpers


def paired_lead(
    best: ConfigurationSummary, other: ConfigurationSummary, mode: Mode, confidence: float = 0.95
) -> MeanInterval:
    """How much better `best` is than `other`, over the seeds of which both have a value; positive is better."""
    theirs = dict(zip(other.seeds, other.values, strict=True))
    paired = [theirs.get(seed) for seed in best.seeds]
    ahead, behind = (best.values, paired) if mode == "max" else (paired, best.values)
    return paired_interval(ahead, behind, confidence)


def plural(count: int, noun: str) -> str:
    """`1 run`, `12 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _value(metric: Mapping[str, Any], entry: ConfigurationSummary) -> str:
    return f"{metric['name']} {interval_text(entry.interval)} ({_interval_in_words(entry.interval)})"


def _interval_in_words(interval: MeanInterval) -> str:
    if interval.low is None:
        return f"n = {interval.n}, so without an interval: nothing tells it from luck"
    return f"mean with 95\u00a0% Student-t interval, n = {interval.n}"
