"""Which configurations are compared with which: named ones, all with the best of their study, or two studies.

    rung.load("demo").compare("c3f9", "c07b")       # a list with one Comparison
    rung.load("demo").compare()                     # the best against each of the others

Comparisons that answer one question form a family; Holm's p values are over a family.
"""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rung.errors import RungError, StorageError
from rung.results.comparison import Comparison, adjusted, compare_sides, tests_of_best
from rung.results.confirmation import final_order, read_confirmation
from rung.results.pairing import Side, sides
from rung.results.tables import summary

if TYPE_CHECKING:
    from rung.results.query import StudyResults

_NAMED_IN_ERRORS = 8


@dataclass(frozen=True, slots=True)
class Family:
    """Comparisons that answer one question, whose p values are adjusted together."""

    title: str
    comparisons: tuple[Comparison, ...]
    note: str = ""
    """What is to be kept in mind about all of them."""


def compare_configurations(first: Side, *others: Side) -> Family:
    """The first configuration against each of the others.

    Raises RungError if one of them is the first itself, or cannot be compared with it.
    """
    for other in others:
        if (other.config_id, other.results.directory) == (first.config_id, first.results.directory):
            raise RungError(f"{first.config_id} ({first.label}) would be compared with itself; name two configurations")
    return Family(first.label, tuple(adjusted([compare_sides(first, other) for other in others])))


def compare_with_best(results: "StudyResults") -> list[Family]:
    """The best configuration of a study against each of the others, confirmed values and those of the search apart.

    The best is that of phase confirm once that is over. It was picked by the runs that are compared here, so each
    family is adjusted for all pairs of its configurations and not only for those shown: with Holm over k - 1 tests, ten
    equal configurations would show a difference in 14 % of all studies (docs/statistics.md). One that was confirmed for
    an earlier choice is compared by its search.

    Raises RungError if no run has a value, or if there is only one configuration.
    """
    best, everyone = _best(results), list(sides(results).values())
    if len(everyone) < 2:
        raise RungError(f"{best.study_name} has one configuration only: there is nothing to compare it with")
    place = {entry.config_id: index for index, entry in enumerate(summary(results))}
    others = sorted((side for side in everyone if side.config_id != best.config_id), key=lambda s: place[s.config_id])
    confirmation = results.confirmation()
    earlier = {entry.config_id for entry in confirmation.earlier} if confirmation is not None else set()
    found = [
        compare_sides(best, other, "search" if earlier & {best.config_id, other.config_id} else None)
        for other in others
    ]
    families = []
    for phase, many in (("confirm", None), ("search", len(everyone))):
        members = [comparison for comparison in found if comparison.pairing.phase == phase]
        if members:
            count = many or len(members) + 1
            tests = tests_of_best(count)
            note = f"The best was picked by these runs, so p counts all {tests} pairs of {count} configurations."
            note = note if tests > len(members) else ""
            families.append(Family(f"{best.label} (best), {phase}", tuple(adjusted(members, tests)), note))
    return families


def compare_studies(first: "StudyResults", second: "StudyResults") -> list[Family]:
    """The best configuration of one study against the best of another, then every configuration that both have.

    Picking the best of k and of m amounts to k m tests. Raises RungError if a study has no value yet, or if they cannot
    be compared.
    """
    ours, theirs = sides(first), sides(second)
    best = compare_sides(_best(first), _best(second))
    tests = _chosen_from(ours, best) * _chosen_from(theirs, best)
    note = f"Both were picked by the runs that are compared, so p counts all {tests} pairs of their configurations."
    families = [Family("best of each", tuple(adjusted([best], tests)), note if tests > 1 else "")]
    common = [compare_sides(side, theirs[config_id]) for config_id, side in ours.items() if config_id in theirs]
    if common:
        families.append(Family("configurations of both", tuple(adjusted(common))))
    return families


def _chosen_from(configurations: dict[str, Side], best: Comparison) -> int:
    """Among how many configurations the best was chosen by runs of the phase that is compared."""
    return sum(bool(side.runs[best.pairing.phase]) for side in configurations.values())


def _best(results: "StudyResults") -> Side:
    search = summary(results)
    ordered = final_order(search, read_confirmation(results.study, search, summary(results, "confirm")))
    entries = [entry for entry in ordered if entry.mean is not None]
    if entries:
        return sides(results)[entries[0].config_id]
    raise RungError(f"no run of {results.study['study']} has a value yet: there is nothing to compare")


# ------------------------------------------------------------------------------------------------ names


def compare_named(
    names: Sequence[str], study: str | None = None, storage: str | os.PathLike[str] | None = None
) -> list[Family]:
    """What `rung compare` compares.

    Args:
        names: configurations of `study` (an id, the beginning of one, or a label) or STUDY:CONFIGURATION each, of which
            the first is compared with each of the others; or one study or two.
        study: the study that names without one are in.

    Raises RungError, with near names, for what cannot be found.
    """
    from rung.results.query import load

    if study is not None:
        results = load(study, storage)
        if not names:
            return compare_with_best(results)
        return [_compare_found([find_configuration(results, name) for name in names])]
    if names and all(":" in name and not os.path.exists(name) for name in names):
        return [_compare_found([_find_in_its_study(name, storage) for name in names])]
    studies = [_study(name, storage) for name in names]
    if len(studies) == 1:
        return compare_with_best(studies[0])
    if len(studies) == 2:
        return compare_studies(*studies)
    raise RungError("give a study, two studies, or configurations with --study STUDY (or as STUDY:CONFIGURATION)")


def _compare_found(found: Sequence[Side]) -> Family:
    if len(found) < 2:
        raise RungError(f"{found[0].label} is one configuration: name another one to compare it with")
    return compare_configurations(*found)


def _find_in_its_study(name: str, storage: str | os.PathLike[str] | None) -> Side:
    study, _, configuration = name.partition(":")
    return find_configuration(_study(study, storage), configuration)


def _study(name: str, storage: str | os.PathLike[str] | None) -> "StudyResults":
    from rung.results.query import load

    try:
        return load(name, storage)
    except StorageError as error:
        raise StorageError(
            f"{error}. If {name!r} is a configuration, say of which study: --study STUDY, or STUDY:{name}"
        ) from error


def find_configuration(results: "StudyResults", name: str) -> Side:
    """The configuration with this id, with this label, or the only one whose id begins so.

    Raises RungError, with near names, if there is none or more than one.
    """
    everyone = sides(results)
    if name in everyone:
        return everyone[name]
    by_label = [side for side in everyone.values() if side.label == name]
    by_prefix = [side for config_id, side in everyone.items() if name and config_id.startswith(name)]
    for found in (by_label, by_prefix):
        if len(found) == 1:
            return found[0]
        if found:
            raise RungError(f"{name!r} may be any of {_listed(found)}")
    near = difflib.get_close_matches(name, [*everyone, *(side.label for side in everyone.values())], n=3, cutoff=0.5)
    likely = [side for side in everyone.values() if side.config_id in near or side.label in near]
    hint = f"did you mean {_listed(likely)}?" if likely else f"there are {_listed(list(everyone.values()))}"
    raise RungError(f"{results.study['study']} has no configuration {name!r}: {hint}")


def _listed(found: Sequence[Side]) -> str:
    texts = [f"{side.config_id} ({side.label})" for side in found[:_NAMED_IN_ERRORS]]
    more = len(found) - len(texts)
    return ", ".join(texts) + (f" and {more} others" if more else "")
