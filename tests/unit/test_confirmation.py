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

from rung.results.confirmation import Confirmation, read_confirmation, result_rows, to_confirm
from rung.results.export import export
from rung.results.plots import draw
from rung.results.query import load
from rung.results.render import render_status, render_summary
from rung.results.report_tables import confirm_table, cost_table
from rung.results.snapshot import Snapshot, take_snapshot
from rung.results.verdict import verdict
from tests.made_up_studies import MadeUp, write_study

SEARCH = {0: [0.90, 0.94, 0.92], 1: [0.96, 0.95, 0.94], 2: [0.80, 0.82, 0.81]}
"""What each configuration reaches on the seeds of the search; the second leads."""
near = functools.partial(pytest.approx, abs=1e-4)
"""As near as the made-up curves get to where they lead."""
FRESH = {0: [0.93, 0.95, 0.94, 0.94], 1: [0.89, 0.91, 0.90, 0.90]}
"""What the two best reach on fresh seeds, which turn them round."""


def made_up(
    search: Mapping[int, list[float]] = SEARCH, fresh: Mapping[int, list[float]] = FRESH, **changes: Any
) -> MadeUp:
    """A study with these values, its curves so long that they get there."""
    values = {(index, "search"): each for index, each in search.items()}
    values |= {(index, "confirm"): each for index, each in fresh.items()}
    about: dict[str, Any] = {"seeds": 3, "fresh": 4, "steps": (0, 100_000), "rungs": (100_000,)}
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
    study = made_up(metric={"mode": mode})
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
    assert (confirmation.planned, confirmation.done, confirmation.is_over) == (8, 8, True)
    rows = result_rows(snapshot.study, snapshot.search, snapshot.confirm)
    assert [row.search.config_id for row in rows] == [study.config_id(index) for index in (0, 1, 2)]


def test_runs_on_the_way_have_no_value_on_fresh_seeds(tmp_path: Path) -> None:
    study = made_up(
        confirm_ended={(0, 3): ("running", 0, ""), (1, 0): ("failed", 0, "lost"), (1, 1): ("diverged", 0, "")}
    )
    confirmation = phase_of(snapshot_of(tmp_path, study))
    going, broken = (confirmation.by_id[study.config_id(index)].confirm for index in (0, 1))
    assert (going.n, going.planned, going.values[3]) == (3, 4, None)
    assert going.mean == near(0.94)
    assert (broken.n, broken.failed, broken.diverged, broken.score) == (2, 1, 1, None)
    assert (confirmation.done, confirmation.planned, confirmation.is_over) == (7, 8, False)


def test_what_has_not_begun_is_planned(tmp_path: Path) -> None:
    waiting = made_up(
        fresh={1: FRESH[1]}, study={"confirm": {"top": 2, "seeds": [10**9, 10**9 + 1, 10**9 + 2, 10**9 + 3]}}
    )
    confirmation = phase_of(snapshot_of(tmp_path, waiting))
    assert (confirmation.top, confirmation.planned, confirmation.done, confirmation.is_over) == (2, 8, 4, False)


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


# ------------------------------------------------------------------------------------------------ the words


def test_the_winner_is_that_of_the_fresh_seeds(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up()))
    assert words.startswith("Confirmed best: a=x, with validation/accuracy 0.9400 [")
    assert "on 4 fresh seeds" in words
    assert "Paired by seed it is ahead of the second, a=y, by 0.04" in words
    assert "which these seeds tell from chance" in words
    assert "The order has changed: the search had a=y first." in words
    assert "On fresh seeds a=y is worse than in the search by 0.0500 [" in words
    assert "so much of that was optimism" in words


def test_equal_ones_have_no_winner(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up(fresh={0: [0.9, 0.95, 0.92, 0.91], 1: [0.95, 0.9, 0.91, 0.91]})))
    assert words.startswith("No single winner: on fresh seeds a=x and a=y cannot be told apart.")
    assert "which these seeds do not tell from chance" in words


def test_several_comparisons_take_wider_intervals(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up(fresh={**FRESH, 2: [0.8, 0.8, 0.8, 0.81]})))
    assert "widened for 2 comparisons (Bonferroni)" in words


def test_nobody_has_won_before_all_runs_are_through(tmp_path: Path) -> None:
    words = said(snapshot_of(tmp_path, made_up(confirm_ended={(0, 3): ("running", 0, "")})))
    assert words.startswith("No winner yet: a=y leads the search, with validation/accuracy 0.9500 [")
    assert "not confirmed yet" in words
    assert "7 of 8 confirm runs are done (2 configurations on 4 fresh seeds each)" in words
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
    assert "1 of 8 confirm runs failed and are missing" in words


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
    assert (second[5].text, second[5].note) == ("3/4", "3 completed\n1 running")
    assert [number.text for number in second[9].numbers] == ["–", "0.91", "0.9", "0.9"]
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
    ended = {(index, seed): ("running", -1, "") for index in (0, 1) for seed in range(4)}
    names = [picture.name for picture in draw(snapshot_of(tmp_path, made_up(confirm_ended=ended)))]
    assert "confirm" not in names
    assert "seeds" in names


def test_the_terminal_shows_both_and_what_they_say(tmp_path: Path) -> None:
    results = load(write_study(tmp_path / "study", made_up()))
    text = shown(render_summary(results, 130))
    assert "confirmation: 8 of 8 runs on fresh seeds are done" in text
    assert "0.0500 [" in text
    assert "Confirmed best: a=x" in text
    status = shown(render_status(results))
    assert "runs: 9 completed" in status
    assert "confirmation: 8 of 8 runs done" in status
    assert "disk: tables" in status


def test_exports_hold_both_phases(tmp_path: Path) -> None:
    results = load(write_study(tmp_path / "study", made_up()))
    rows = result_rows(results.study, results.summary(), results.summary("confirm"))
    best, second, other = json.loads(export(rows, "json"))
    assert best["mean"] == near(0.92)
    assert best["confirm_mean"] == near(0.94)
    assert best["confirm_seeds"] == [10**9 + number for number in range(4)]
    assert best["confirm_values"] == near(FRESH[0])
    assert second["shrinkage"] == near(0.05)
    assert other["confirm_mean"] is None
    assert other.keys() == best.keys()
    markdown = export(rows, "markdown").splitlines()
    assert "| confirm n | confirm mean [95 %] | shrinkage [95 %] | fresh seeds |" in markdown[0]
    assert "| 4/4 | 0.9400 [" in markdown[2]


def test_exports_of_a_study_without_confirm_are_those_of_the_search(tmp_path: Path) -> None:
    results = load(write_study(tmp_path / "study", made_up(fresh={}, study={"confirm": None})))
    rows = result_rows(results.study, results.summary(), [])
    for format in ("csv", "json", "markdown", "latex"):
        assert export(rows, format) == export(results.summary(), format)
