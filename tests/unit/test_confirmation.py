"""Search and confirmation side by side: what is compared, who is called the winner, and when nobody is."""

import functools
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from rung.results.compare import compare_with_best
from rung.results.confirmation import Confirmation, read_confirmation, result_rows, to_confirm
from rung.results.export import export
from rung.results.plots import draw
from rung.results.query import load
from rung.results.render import render_status, render_summary
from rung.results.report_facts import overview
from rung.results.report_table import MISSING
from rung.results.report_tables import confirm_table, cost_table
from rung.results.snapshot import Snapshot, take_snapshot
from rung.results.verdict import verdict
from tests.made_up_studies import MadeUp, write_study

SEARCH = {0: [0.90, 0.94, 0.92], 1: [0.96, 0.95, 0.94], 2: [0.80, 0.82, 0.81]}
"""What each configuration reaches on the seeds of the search; the second leads."""
near = functools.partial(pytest.approx, abs=1e-4)
"""As near as the made-up curves get to where they lead."""
FRESH = {0: [0.93, 0.95, 0.94, 0.94, 0.93, 0.95], 1: [0.89, 0.91, 0.90, 0.90, 0.89, 0.91]}
"""What the two best reach on fresh seeds, which turn them round: six, the fewest that can tell two apart."""
SEEDS = [10**9 + number for number in range(6)]


def made_up(
    search: Mapping[int, list[float]] = SEARCH, fresh: Mapping[int, list[float]] = FRESH, **changes: Any
) -> MadeUp:
    """A study with these values, its curves so long that they get there."""
    values = {(index, "search"): each for index, each in search.items()}
    values |= {(index, "confirm"): each for index, each in fresh.items()}
    about: dict[str, Any] = {"seeds": 3, "fresh": 6, "steps": (0, 100_000), "rungs": (100_000,)}
    return MadeUp({"a": list("xyz")[: len(search)]}, confirmed=tuple(fresh), values=values, **about | changes)


def snapshot_of(tmp_path: Path, study: MadeUp) -> Snapshot:
    return take_snapshot(load(write_study(tmp_path / "study", study)))


def phase_of(snapshot: Snapshot) -> Confirmation:
    assert snapshot.confirmation is not None
    return snapshot.confirmation


def said(snapshot: Snapshot) -> str:
    sentences = verdict(snapshot.study, snapshot.search, snapshot.confirmation, live=snapshot.live)
    return " ".join(sentences).replace("\u00a0", " ")


def shown(rendered: Any, width: int = 130) -> str:
    file = io.StringIO()
    Console(width=width, file=file).print(rendered)
    return file.getvalue()


# --------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("mode", ["max", "min"])
def test_shrinkage_is_how_much_the_search_flattered(tmp_path: Path, mode: str) -> None:
    study = made_up(metric={"mode": mode}, study={"confirm": {"top": 3, "seeds": SEEDS}})
    entry = phase_of(snapshot_of(tmp_path, study)).by_id[study.config_id(1)]
    assert entry.search.mean == near(0.95)
    assert entry.confirm.mean == near(0.90)
    expected = stats.ttest_ind(SEARCH[1], FRESH[1], equal_var=False)
    sign = 1 if mode == "max" else -1
    low, high = sorted(sign * end for end in expected.confidence_interval())
    assert entry.shrinkage.mean == near(sign * 0.05)
    assert (entry.shrinkage.low, entry.shrinkage.high) == (near(low), near(high))


def test_one_that_was_stopped_has_no_shrinkage(tmp_path: Path) -> None:
    """Its value in the search belongs to a smaller budget."""
    study = made_up(stopped={1: 100_000}, study={"confirm": {"top": 3, "seeds": [10**9]}})
    snapshot = snapshot_of(tmp_path, study)
    entry = phase_of(snapshot).by_id[study.config_id(1)]
    assert (entry.shrinkage.mean, entry.shrinkage.low) == (None, None)
    assert entry.as_text()["search n"] == "3/3, 3 stopped"
    (picture,) = [each for each in draw(snapshot) if each.name == "confirm"]
    assert "stopped at 100k" in picture.summary


def test_confirmed_ones_stand_in_the_order_of_fresh_seeds(tmp_path: Path) -> None:
    study = made_up()
    snapshot = snapshot_of(tmp_path, study)
    assert [entry.config_id for entry in snapshot.search] == [
        study.config_id(1),
        study.config_id(0),
        study.config_id(2),
    ]
    confirmation = phase_of(snapshot)
    assert [entry.config_id for entry in confirmation.entries] == [study.config_id(0), study.config_id(1)]
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (12, 12, True)
    rows = result_rows(snapshot.study, snapshot.search, snapshot.confirm)
    assert [row.search.config_id for row in rows] == [study.config_id(index) for index in (0, 1, 2)]


def test_runs_on_the_way_have_no_value_on_fresh_seeds(tmp_path: Path) -> None:
    study = made_up(
        confirm_ended={(0, 3): ("running", 0, ""), (1, 0): ("failed", 0, "lost"), (1, 1): ("diverged", 0, "")}
    )
    confirmation = phase_of(snapshot_of(tmp_path, study))
    going, broken = (confirmation.by_id[study.config_id(index)].confirm for index in (0, 1))
    assert (going.n, going.planned, going.values[3]) == (5, 6, None)
    assert going.mean == near(0.94)
    assert (broken.n, broken.failed, broken.diverged, broken.score) == (4, 1, 1, None)
    assert (confirmation.done, confirmation.planned, confirmation.is_over) == (11, 12, False)


def test_what_has_not_begun_is_planned(tmp_path: Path) -> None:
    waiting = made_up(fresh={1: FRESH[1]}, study={"confirm": {"top": 2, "seeds": SEEDS}})
    confirmation = phase_of(snapshot_of(tmp_path, waiting))
    assert (confirmation.top, confirmation.planned, confirmation.done, confirmation.is_over) == (2, 12, 6, False)


def test_those_that_came_to_their_end_are_confirmed_before_those_that_were_stopped(tmp_path: Path) -> None:
    study = made_up(fresh={}, stopped={1: 100_000})
    snapshot = snapshot_of(tmp_path, study)
    assert [entry.config_id for entry in to_confirm(snapshot.search, 2)] == [study.config_id(0), study.config_id(2)]
    assert [entry.config_id for entry in to_confirm(snapshot.search, 3)][2] == study.config_id(1)
    running = [replace(entry, running=1, completed=2, stopped=0) for entry in snapshot.search]
    assert to_confirm(running, 3) == []


def test_a_study_of_an_older_version_has_no_confirmation(tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path, made_up(fresh={}))
    older = {key: value for key, value in snapshot.study.items() if key != "confirm"}
    assert read_confirmation(older, snapshot.search, []) is None


# -------------------------------------------------------------------------- when choice, seeds or budget change


def ids(study: MadeUp, *indices: int) -> list[str]:
    return [study.config_id(index) for index in indices]


def test_what_was_confirmed_for_another_choice_is_shown_and_not_compared(tmp_path: Path) -> None:
    """Two were confirmed; the study asks for one now. The other one is better on fresh seeds."""
    study = made_up(study={"confirm": {"top": 1, "seeds": SEEDS}})
    snapshot = snapshot_of(tmp_path, study)
    confirmation = phase_of(snapshot)
    assert [entry.config_id for entry in confirmation.entries] == ids(study, 1)
    assert [entry.config_id for entry in confirmation.earlier] == ids(study, 0)
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (6, 6, True)
    words = said(snapshot)
    assert words.startswith("Confirmed best: a=y")
    assert "No other one was confirmed" in words
    assert words.endswith("Confirmed earlier, for another choice, and not compared: a=x.")
    results = load(snapshot.directory)
    (family,) = compare_with_best(results)
    assert [(c.first.label, c.second.label, c.pairing.phase) for c in family.comparisons] == [
        ("a=y", "a=x", "search"),
        ("a=y", "a=z", "search"),
    ]
    table = confirm_table(snapshot, {})
    assert table is not None
    assert (table.rows[1][0].text, table.rows[1][5].note) == (MISSING, "confirmed earlier\nnot compared")
    assert "confirmed earlier" in shown(render_summary(results, 200), 200)
    rows = json.loads(export(result_rows(results.study, results.summary(), results.summary("confirm")), "json"))
    assert [row["confirm_compared"] for row in rows] == [True, False, None]
    assert "to confirm: 6 completed" in " ".join(fact.text for fact in overview(snapshot))


def test_seeds_that_are_no_longer_asked_for_do_not_count(tmp_path: Path) -> None:
    """One was confirmed on six seeds; now two are to be, on three."""
    waiting = made_up(fresh={1: FRESH[1]}, study={"confirm": {"top": 2, "seeds": SEEDS[:3]}})
    snapshot = snapshot_of(tmp_path, waiting)
    confirmation = phase_of(snapshot)
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (6, 3, False)
    assert confirmation.entries[0].confirm.seeds == tuple(SEEDS[:3])
    assert said(snapshot).startswith("No winner yet")


def test_more_seeds_open_the_confirmation_again(tmp_path: Path) -> None:
    confirmation = phase_of(
        snapshot_of(tmp_path, made_up(study={"confirm": {"top": 2, "seeds": [*SEEDS, 10**9 + 6, 10**9 + 7]}}))
    )
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (16, 12, False)


LONGER: dict[str, Any] = {
    "steps": (0, 100_000, 200_000),
    "rungs": (200_000,),
    "confirm_ended": {(0, seed): ("completed", 100_000, "") for seed in range(6)},
}
"""A study with a longer budget, for which a=x has not been confirmed again."""


def test_a_longer_budget_opens_the_confirmation_again(tmp_path: Path) -> None:
    study = made_up(**LONGER)
    confirmation = phase_of(snapshot_of(tmp_path, study))
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (12, 6, False)
    going = confirmation.by_id[study.config_id(0)].confirm
    assert (going.n, going.running) == (0, 6)


def test_what_was_confirmed_with_a_smaller_budget_is_no_rival(tmp_path: Path) -> None:
    study = made_up(**LONGER, study={"confirm": {"top": 1, "seeds": SEEDS}})
    snapshot = snapshot_of(tmp_path, study)
    confirmation = phase_of(snapshot)
    assert confirmation.is_over
    (earlier,) = confirmation.earlier
    assert earlier.note == "confirmed earlier to step 100,000, not compared"
    assert said(snapshot).startswith("Confirmed best: a=y")


def test_it_is_open_who_is_confirmed_while_the_search_goes_on(tmp_path: Path) -> None:
    """A wider space: the two that were confirmed may not be the best."""
    snapshot = snapshot_of(tmp_path, made_up(ended={(2, 0): ("running", 0, "")}))
    confirmation = phase_of(snapshot)
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (12, 12, False)
    assert said(snapshot).startswith("No winner yet: a=y leads the search so far")


# ------------------------------------------------------------------------------------------------ the words


def test_the_winner_is_that_of_the_fresh_seeds(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up()))
    assert words.startswith("Confirmed best: a=x, with validation/accuracy 0.94000 [")
    assert "on 6 fresh seeds" in words
    assert "Paired by seed it is ahead of the second, a=y, by 0.04" in words
    assert "which these seeds tell from chance (p = 0.0312)" in words
    assert "The order has changed: the search had a=y first." in words
    assert "On fresh seeds a=y is worse than in the search by 0.0500 [" in words
    assert "so much of that was optimism" in words


@pytest.mark.parametrize("fresh", [3, 5, 6, 8])
@pytest.mark.parametrize("ahead", [0.03, 0.001])
@pytest.mark.parametrize("count", [2, 3])
def test_no_more_is_claimed_than_compare_does(tmp_path: Path, fresh: int, ahead: float, count: int) -> None:
    noise = [0.01, -0.02, 0.015, -0.005, 0.02, 0.0, -0.01, 0.005][:fresh]
    values = {index: [0.9 - ahead * index + (-1) ** index * each / 4 for each in noise] for index in range(count)}
    snapshot = snapshot_of(tmp_path, replace(made_up(fresh=values), fresh=fresh))
    words = said(snapshot)
    family = compare_with_best(load(snapshot.directory))[0]
    assert family.comparisons[0].pairing.phase == "confirm"
    verdicts = [comparison.verdict for comparison in family.comparisons[: count - 1]]
    assert words.startswith("Confirmed best") is (set(verdicts) == {"better"})
    assert ("which these seeds tell from chance" in words) is (verdicts[0] == "better")
    assert ("which takes at least" in words) is (verdicts[0] == "too few seeds")


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_lead_in_the_search_is_judged_as_compare_does(tmp_path: Path, seeds: int) -> None:
    """With three seeds the t interval may leave out zero, yet the smallest p of the permutation test is 0.25."""
    search = {index: [0.9 - 0.1 * index + 0.001 * seed for seed in range(seeds)] for index in range(2)}
    study = made_up(search, {}, seeds=seeds, study={"confirm": None})
    snapshot = snapshot_of(tmp_path, study)
    (family,) = compare_with_best(load(snapshot.directory))
    assert family.comparisons[0].difference.low is not None
    assert family.comparisons[0].difference.low > 0
    expected = {
        3: ("too few seeds", "which takes at least 6 seeds to tell from chance"),
        6: ("better", "which these seeds tell from chance (p = 0.0312)"),
    }
    assert family.comparisons[0].verdict == expected[seeds][0]
    assert expected[seeds][1] in said(snapshot)


def test_diverged_runs_take_part_with_the_worst_value(tmp_path: Path) -> None:
    """One in six: by the survivors alone five pairs would be left."""
    study = made_up(metric={"worst_value": 0.0}, confirm_ended={(1, 0): ("diverged", 0, "")})
    snapshot = snapshot_of(tmp_path, study)
    first, *_ = compare_with_best(load(snapshot.directory))
    assert (first.comparisons[0].difference.n, first.comparisons[0].verdict) == (6, "better")
    assert "n = 6), which these seeds tell from chance" in said(snapshot)


def test_equal_ones_have_no_winner(tmp_path: Path) -> None:
    words = said(
        snapshot_of(
            tmp_path, made_up(fresh={0: [0.9, 0.95, 0.92, 0.91, 0.93, 0.91], 1: [0.95, 0.9, 0.91, 0.91, 0.92, 0.92]})
        )
    )
    assert words.startswith("No single winner: on fresh seeds a=x and a=y cannot be told apart.")
    assert "which these seeds do not tell from chance" in words


def test_the_best_of_three_takes_more_seeds(tmp_path: Path) -> None:
    """It was picked by the runs that are compared, which amounts to three tests."""
    three = {**FRESH, 2: [0.8, 0.8, 0.8, 0.81, 0.8, 0.8]}
    words = said(snapshot_of(tmp_path / "six", made_up(fresh=three)))
    assert words.startswith("No single winner: on fresh seeds a=x and a=y and a=z cannot be told apart.")
    assert "which takes at least 7 seeds to tell from chance" in words
    more = {index: [*values, *values[:2]] for index, values in three.items()}
    words = said(snapshot_of(tmp_path / "eight", replace(made_up(fresh=more), fresh=8)))
    assert words.startswith("Confirmed best: a=x")
    assert "which these seeds tell from chance (p = 0.0234, adjusted for 3 tests)" in words


def test_nobody_has_won_before_all_runs_are_through(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up(confirm_ended={(0, 3): ("running", 0, "")})))
    assert words.startswith("No winner yet: a=y leads the search, with validation/accuracy 0.9500 [")
    assert "not confirmed yet" in words
    assert "11 of 12 confirm runs are done (2 configurations on 6 fresh seeds each)" in words
    assert "best:" not in words.lower()


def test_nobody_has_won_while_the_search_goes_on(tmp_path: Path) -> None:
    study = made_up(fresh={}, ended={(0, 1): ("running", 0, "")}, study={"confirm": {"top": 2, "seeds": [10**9]}})
    words = said(snapshot_of(tmp_path, study))
    assert words.startswith("No winner yet: a=y leads the search so far")
    assert "the best 2 configurations of 3 are trained again on 1 fresh seed each" in words


def test_one_that_diverged_is_no_rival_and_failures_are_told(tmp_path: Path) -> None:
    ended = {(1, 1): ("diverged", 0, ""), (0, 2): ("failed", 0, "lost")}
    words = said(snapshot_of(tmp_path, made_up(confirm_ended=ended)))
    assert words.startswith("Confirmed best: a=x")
    assert "No other one was confirmed" in words
    assert "a=y had 1 confirm run that diverged" in words
    assert "1 of 12 confirm runs failed and are missing" in words


def test_a_study_without_confirm_is_told_of_it(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up(fresh={}, study={"confirm": None})))
    assert words.startswith("Best: a=y")
    assert "optimistic until it is confirmed" in words
    assert "`confirm: {top: 2, seeds: 16}`" in words


# ---------------------------------------------------------------------------------- page, terminal, exports


def test_the_page_puts_both_phases_into_one_table(tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path, made_up(confirm_ended={(1, 0): ("running", 0, "")}))
    table = confirm_table(snapshot, {})
    assert table is not None
    assert table.groups == [("", 1), ("", 1), ("search", 3), ("fresh seeds", 2), ("", 1), ("single seeds", 2)]
    first, second = table.rows
    assert [cell.numbers[0].value for cell in (first[0], first[2])] == [1, 2]
    assert (second[5].text, second[5].note) == ("5/6", "5 completed\n1 running")
    assert [number.text for number in second[9].numbers] == ["–", "0.91", "0.9", "0.9", "0.89", "0.91"]
    cost = cost_table(snapshot)
    assert cost is not None
    assert [row[0].text for row in cost.rows] == [
        "completed",
        "confirm runs, completed",
        "confirm runs, running",
        "all",
    ]


def test_the_figure_draws_every_seed_of_both_phases(tmp_path: Path) -> None:
    (picture,) = [each for each in draw(snapshot_of(tmp_path, made_up())) if each.name == "confirm"]
    (axes,) = picture.figure.axes
    drawn = [offsets[0] for points in axes.collections for offsets in points.get_offsets()]
    every = [value for index in (0, 1) for value in SEARCH[index] + FRESH[index]]
    assert sorted(map(float, drawn)) == near(sorted(every))
    assert "a=x: search 0.9200" in picture.summary
    assert "optimism" in picture.caption


def test_no_figure_before_a_fresh_seed_has_a_value(tmp_path: Path) -> None:
    ended = {(index, seed): ("running", -1, "") for index in (0, 1) for seed in range(6)}
    names = [picture.name for picture in draw(snapshot_of(tmp_path, made_up(confirm_ended=ended)))]
    assert "confirm" not in names
    assert "seeds" in names


def test_the_terminal_shows_both_and_what_they_say(tmp_path: Path) -> None:
    results = load(write_study(tmp_path / "study", made_up()))
    text = shown(render_summary(results, 130))
    assert "confirmation: 12 of 12 runs on fresh seeds are done" in text
    assert "0.0500 [" in text
    assert "Confirmed best: a=x" in text
    status = shown(render_status(results))
    assert "runs: 9 completed" in status
    assert "confirmation: 12 of 12 runs done" in status
    assert "disk: tables" in status


def test_exports_hold_both_phases(tmp_path: Path) -> None:
    results = load(write_study(tmp_path / "study", made_up()))
    rows = result_rows(results.study, results.summary(), results.summary("confirm"))
    best, second, other = json.loads(export(rows, "json"))
    assert best["mean"] == near(0.92)
    assert best["confirm_mean"] == near(0.94)
    assert best["confirm_seeds"] == SEEDS
    assert best["confirm_values"] == near(FRESH[0])
    assert second["shrinkage"] == near(0.05)
    assert other["confirm_mean"] is None
    assert other.keys() == best.keys()
    markdown = export(rows, "markdown").splitlines()
    assert "| confirm n | confirm mean [95 %] | shrinkage [95 %] | fresh seeds |" in markdown[0]
    assert "| 6/6 | 0.94000 [" in markdown[2]


def test_exports_of_a_study_without_confirm_are_those_of_the_search(tmp_path: Path) -> None:
    results = load(write_study(tmp_path / "study", made_up(fresh={}, study={"confirm": None})))
    rows = result_rows(results.study, results.summary(), [])
    for format in ("csv", "json", "markdown", "latex"):
        assert export(rows, format) == export(results.summary(), format)
