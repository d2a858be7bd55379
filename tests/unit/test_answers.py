"""Answers before and after: who is compared with whom, what is counted, and what is said about it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rung.results.answers import ConfigurationChange, changes_between, changes_in, read_answers
from rung.results.answers_figure import MAX_ROWS, answers_picture
from rung.results.answers_tables import ChangeTables
from rung.results.answers_words import Names, conclusions, judged, p_phrase
from rung.results.compare import compare_configurations, compare_named, find_configuration
from rung.results.figure_style import styled
from rung.results.mcnemar import PairedAnswers, mcnemar, mcnemar_mid
from rung.results.query import StudyResults, load
from rung.results.render_compare import render_families
from rung.results.statistics import mean_interval
from rung.results.written import newest_texts
from tests.made_up_answers import Answered, single, write_answered_study
from tests.made_up_studies import FRESH, MadeUp

ONE = MadeUp({"model.kind": ["gpt"]}, seeds=1)
TWO = MadeUp({"model.kind": ["gpt", "lstm"]}, seeds=1)
THREE_SEEDS = MadeUp({"model.kind": ["gpt"]}, seeds=3)

BEFORE = single(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0)
AFTER = single(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
COUNTS = PairedAnswers(both_right=2, gained=8, lost=1, both_wrong=1)


def study(tmp_path: Path, made_up: MadeUp, *answered: Answered, name: str = "demo") -> StudyResults:
    return load(write_answered_study(tmp_path / name, made_up, answered))


def changes(results: StudyResults) -> list[ConfigurationChange]:
    return changes_in(read_answers(results))


def only(found: Sequence[ConfigurationChange]) -> ConfigurationChange:
    (change,) = found
    return change


# ----------------------------------------------------------------------------------------- what is counted


def test_first_and_last_recorded_answers_are_compared(tmp_path: Path) -> None:
    between = Answered(single(*[0] * 12), step=100)
    change = only(changes(study(tmp_path, ONE, Answered(AFTER, step=1000), between, Answered(BEFORE, step=0))))
    (run,) = change.runs
    assert (run.before.step, run.after.step, run.counts) == (0, 1000, COUNTS)
    assert (change.before.mean, change.after.mean) == (3 / 12, 10 / 12)
    assert change.difference == COUNTS.difference
    assert (run.all_answers, run.unpaired, change.is_over_seeds) == (None, (0, 0), False)


def test_of_several_answers_the_first_counts_and_the_mean_stands_beside(tmp_path: Path) -> None:
    before = [[False, True], [False, False], *[[True, True]] * 8]
    after = [[True, False], [False, True], *[[True, True]] * 8]
    change = only(changes(study(tmp_path, ONE, Answered(before), Answered(after, step=1000))))
    (run,) = change.runs
    assert run.counts == PairedAnswers(both_right=8, gained=1, lost=0, both_wrong=1)
    assert run.all_answers is not None
    old, new, difference = run.all_answers
    assert old == mean_interval([0.5, 0, *[1] * 8])
    assert new == mean_interval([0.5, 0.5, *[1] * 8])
    assert difference == mean_interval([0, 0.5, *[0] * 8])
    assert run.after.samples == 2


def test_questions_asked_once_are_counted_apart(tmp_path: Path) -> None:
    first, last = Answered(single(*[1] * 11), step=0), Answered(single(*[1] * 14), step=1000)
    (run,) = only(changes(study(tmp_path, ONE, first, last))).runs
    assert (run.counts.n, run.unpaired) == (11, (0, 3))


def test_a_few_sample_texts_are_no_test(tmp_path: Path) -> None:
    few = single(*[1] * 9)
    assert changes(study(tmp_path, ONE, Answered(few), Answered(few, step=1000))) == []
    assert changes(study(tmp_path, ONE, name="without")) == []


def test_rewards_other_than_0_and_1_do_not_say_what_is_right(tmp_path: Path) -> None:
    weighted = Answered(AFTER, step=1000, reward=3.5)
    assert read_answers(study(tmp_path, ONE, Answered(BEFORE), weighted)) == []


def test_over_seeds_the_mean_is_of_runs(tmp_path: Path) -> None:
    after = [AFTER, single(*[1] * 12), single(*[0] * 6, *[1] * 6)]
    answered = [Answered(BEFORE, seed=seed) for seed in range(3)]
    answered += [Answered(right, seed=seed, step=1000) for seed, right in enumerate(after)]
    change = only(changes(study(tmp_path, THREE_SEEDS, *answered)))
    assert change.is_over_seeds
    assert change.after == mean_interval([10 / 12, 1, 0.5])
    assert change.difference == mean_interval(np.array([10, 12, 6]) / 12 - 3 / 12)
    assert [run.after.seed for run in change.runs] == [0, 1, 2]


def test_runs_that_ended_badly_are_named_and_left_out(tmp_path: Path) -> None:
    made_up = MadeUp(
        {"model.kind": ["gpt"]}, seeds=3, ended={(0, 1): ("diverged", 100, ""), (0, 2): ("failed", 100, "no memory")}
    )
    answered = [Answered(right, seed=s, step=t) for s in range(3) for t, right in ((0, BEFORE), (100, AFTER))]
    change = only(changes(study(tmp_path, made_up, *answered)))
    assert [run.after.seed for run in change.runs] == [0]
    assert change.left_out == ("seed 1 diverged", "seed 2 failed")
    table = ChangeTables(judged([change]), "t").runs()
    assert "seed 1 diverged\nseed 2 failed" in table.rows[0][0].note
    assert "named and left out" in table.caption


def test_fresh_seeds_count_where_there_are_any(tmp_path: Path) -> None:
    made_up = MadeUp({"model.kind": ["gpt", "lstm"]}, seeds=1, confirmed=(1,), fresh=1)
    runs = [(0, 0), (1, 0), (1, FRESH)]
    answered = [Answered(right, c, s, t) for c, s in runs for t, right in ((0, BEFORE), (1000, AFTER))]
    found = changes(study(tmp_path, made_up, *answered))
    assert [(change.phase, change.runs[0].after.seed) for change in found] == [("search", 0), ("confirm", FRESH)]


def test_configurations_come_in_the_order_of_the_ranking(tmp_path: Path) -> None:
    answered = [Answered(right, c, 0, t) for c in (0, 1) for t, right in ((0, BEFORE), (1000, AFTER))]
    results = study(tmp_path, TWO, *answered)
    ids = [TWO.config_id(index) for index in (1, 0)]
    assert [answers.config_id for answers in read_answers(results, ids)] == ids
    assert [answers.config_id for answers in read_answers(results)] == ids[::-1]


# ----------------------------------------------------------------------------------------------- two studies


def test_the_configuration_that_was_asked_the_same_is_the_one_before(tmp_path: Path) -> None:
    others = [f"What is 2 + {number}?" for number in range(12)]
    before = study(tmp_path, TWO, Answered(BEFORE, 0, prompts=others), Answered(BEFORE, 1), name="before")
    after = study(tmp_path, TWO, Answered(AFTER, 0), Answered(AFTER, 1, prompts=others), name="after")
    found = changes_between(read_answers(before), read_answers(after))
    assert [(change.label, change.origin) for change in found] == [("kind=gpt", "kind=lstm"), ("kind=lstm", "kind=gpt")]
    assert all(change.runs[0].counts == COUNTS for change in found)


def test_among_equals_the_same_label_is_the_one_before(tmp_path: Path) -> None:
    before = study(tmp_path, TWO, Answered(BEFORE, 0), Answered(BEFORE, 1), name="before")
    after = study(tmp_path, TWO, Answered(AFTER, 1), name="after")
    assert only(changes_between(read_answers(before), read_answers(after))).origin == "kind=lstm"


def test_other_questions_are_not_compared(tmp_path: Path) -> None:
    mostly_others = [f"What is {1 if number < 11 else 2} + {number}?" for number in range(24)]
    before = study(tmp_path, ONE, Answered(single(*[1] * 24)), name="before")
    after = study(tmp_path, ONE, Answered(single(*[1] * 24), prompts=mostly_others), name="after")
    assert changes_between(read_answers(before), read_answers(after)) == []


# ---------------------------------------------------------------------------------------------------- words


def test_p_values_of_a_page_are_adjusted_together(tmp_path: Path) -> None:
    answered = [Answered(right, c, 0, t) for c in (0, 1) for t, right in ((0, BEFORE), (1000, AFTER))]
    found = judged(changes(study(tmp_path, TWO, *answered)))
    p = mcnemar(8, 1)
    assert [change.p_adjusted for change in found] == [(2 * p,), (2 * p,)]
    assert found[0].told == (0, 0)  # 0.039 alone, 0.078 for two
    assert judged([found[0].found], choices=3)[0].p_adjusted == (3 * p,)


def test_what_is_said_of_one_run_and_of_several(tmp_path: Path) -> None:
    alone = judged(changes(study(tmp_path, ONE, Answered(BEFORE), Answered(AFTER, step=1000), name="one")))
    text = " ".join(conclusions(alone))
    assert text.startswith("kind=gpt: of 12 questions 10 are answered right at step 1,000 and 3 at step 0, ")
    assert "8 changed to right and 1 to wrong: more than chance (McNemar's exact test, p = 0.0391)." in text
    answered = [Answered(right, seed=s, step=t) for s in range(3) for t, right in ((0, BEFORE), (1000, AFTER))]
    several = judged(changes(study(tmp_path, THREE_SEEDS, *answered, name="three")))
    text = " ".join(conclusions(several, Names("instruction", "grpo", "in")))
    assert "in grpo: 0.8333" in text
    assert "means over 3 seeds with Student-t intervals" in text
    assert "0 of 3 answer better by more than chance" in text  # 0.039 three times
    assert p_phrase(1e-12) == "p < 1e-06"


def test_the_tables_have_a_row_for_every_configuration_and_for_every_run(tmp_path: Path) -> None:
    answered = [Answered(right, seed=s, step=t) for s in range(3) for t, right in ((0, BEFORE), (1000, AFTER))]
    found = judged(changes(study(tmp_path, THREE_SEEDS, *answered)))
    tables = ChangeTables(found, "t", links={found[0].found.runs[1].after.run_id: "answers.html#it"})
    means, runs = tables.means(), tables.runs()
    assert means is not None
    assert [[number.value for number in cell.numbers] for cell in means.rows[0][1:]] == [
        *([3], [0.25], [10 / 12], [pytest.approx(7 / 12)], [0], [0])
    ]
    assert "training with other seeds" in means.caption
    assert [row[1].text for row in runs.rows] == ["0", "1", "2"]
    assert {len(row) for row in runs.rows} == {len(runs.columns)}
    assert runs.folded
    titles = [column.title for column in runs.columns]
    gained, p = titles.index("to right"), titles.index("McNemar's p")
    assert (runs.rows[1][gained].text, runs.rows[1][gained].link) == ("8", "answers.html#it-to-right")
    assert runs.rows[0][gained].numbers[0].value == 8
    assert runs.rows[0][p].numbers[0].value == mcnemar(8, 1)
    assert runs.rows[0][p].note == f"Holm {3 * mcnemar(8, 1):.3g}\nmid-p {mcnemar_mid(8, 1):.3g}"


def test_the_figure_draws_every_run_and_says_what_it_shows(tmp_path: Path) -> None:
    kinds = [f"k{index}" for index in range(MAX_ROWS + 2)]
    made_up = MadeUp({"model.kind": kinds}, seeds=2)
    answered = [
        Answered(right, c, s, t)
        for c in range(len(kinds))
        for s in range(2)
        for t, right in ((0, BEFORE), (1000, AFTER))
    ]
    with styled():
        picture = answers_picture(changes(study(tmp_path, made_up, *answered)))
    assert picture is not None
    shares, changed = picture.figure.axes
    points = [tuple(each.get_offsets()[0]) for each in shares.collections]
    assert len(points) == 2 * 2 * MAX_ROWS
    assert {round(float(x), 4) for x, _ in points} == {0.25, 0.8333}
    assert [round(bar.get_width(), 4) for bar in changed.patches if bar.get_width() not in (0, 1)][:2] == [
        0.6667,
        -0.0833,
    ]
    assert f"The first {MAX_ROWS} of {len(kinds)} configurations are shown." in picture.caption
    assert "Student-t" in picture.caption
    with styled():
        assert answers_picture([]) is None


# ------------------------------------------------------------------------------------------------ rung compare


def shown(families: Sequence[object], width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_families(families, width))  # type: ignore[arg-type]
    return console.export_text()


def test_compare_makes_the_paired_test_where_both_answered_the_same(tmp_path: Path) -> None:
    results = study(tmp_path, TWO, Answered(AFTER, 0, step=1000), Answered(BEFORE, 1, step=1000))
    sides = [find_configuration(results, name) for name in ("kind=gpt", "kind=lstm")]
    text = shown([compare_configurations(*sides)])
    assert "answers to the same questions, the first answer to each, phase search" in text
    assert "8 questions are answered right by A only and 1 by B only, more than chance" in " ".join(text.split())
    other = study(tmp_path, TWO, Answered(AFTER, 0, step=1000), name="alone")
    sides = [find_configuration(other, name) for name in ("kind=gpt", "kind=lstm")]
    assert "answers to the same questions" not in shown([compare_configurations(*sides)])


def test_compare_with_the_best_counts_all_pairs(tmp_path: Path) -> None:
    made_up = MadeUp({"model.kind": ["gpt", "lstm", "rnn"]}, seeds=1)
    answered = [Answered(right, c, step=1000) for c, right in enumerate((AFTER, BEFORE, BEFORE))]
    study(tmp_path, made_up, *answered)
    text = shown(compare_named([str(tmp_path / "demo")]))
    assert "Answers to the same questions" in text
    assert f"p {3 * mcnemar(8, 1):.3g}" in text


def test_compare_over_seeds_says_what_each_run_says(tmp_path: Path) -> None:
    made_up = MadeUp({"model.kind": ["gpt", "lstm"]}, seeds=3)
    answered = [Answered(right, c, s, 1000) for c, right in enumerate((AFTER, BEFORE)) for s in range(3)]
    results = study(tmp_path, made_up, *answered)
    sides = [find_configuration(results, name) for name in ("kind=gpt", "kind=lstm")]
    text = " ".join(shown([compare_configurations(*sides)]).split())
    assert "mean over 3 seeds: 0.5833" in text
    assert "A answers better by more than chance in 0 of 3" in text


def test_the_report_shows_one_answer_to_each_question(tmp_path: Path) -> None:
    """The first, which is the greedy one where there are several."""
    directory = write_answered_study(tmp_path / "several", ONE, [Answered([[True, False, False]] * 8)])
    study = load(directory)
    (run,) = newest_texts(study, study.summary())
    assert [(text.gold, text.is_right) for text in run.texts] == [(str(1 + number), True) for number in range(6)]
