"""Comparisons of configurations and studies: what is compared with what, where, and what is concluded."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import rung
from rung.errors import RungError, StorageError
from rung.results.compare import compare_named, compare_studies, compare_with_best
from rung.results.comparison import Comparison
from rung.results.conclusions import conclusion
from rung.results.export import export
from rung.results.query import StudyResults
from rung.results.render_compare import render_families
from rung.results.statistics import mean_interval
from rung.results.store import TableWriter
from tests.synthetic import write_synthetic_study
from tests.unit.test_store import NOW, configuration_row


@dataclass(frozen=True)
class Made:
    """A run: the metric's value at some steps, and how it ended."""

    curve: Mapping[int, float | None]
    status: str = "completed"
    ended_by: str = "budget"


def end(value: float) -> Made:
    """A run that came to its end with this value."""
    return Made({0: 0.0, 50: value / 2, 100: value})


def stopped(value: float, step: int = 10) -> Made:
    return Made({0: 0.0, step: value}, "stopped", "scheduler")


DIVERGED, FAILED = Made({0: 0.0, 10: 0.5}, "diverged", "divergence"), Made({0: 0.0, 10: 0.5}, "failed", "error")


@dataclass(frozen=True)
class Study:
    """Runs by configuration and seed; lists count seeds from 0."""

    runs: Mapping[str, Sequence[Made] | Mapping[int, Made]]
    confirm: Mapping[str, Sequence[Made]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metric: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)


def write(directory: Path, study: Study) -> StudyResults:
    """The study on disk, loaded."""
    metric = {"name": "accuracy", "mode": "max", "select": "last", "across_seeds": "mean", "diverged": "worst"}
    seeds = max(len(runs) for runs in study.runs.values())
    description = {"format": 1, "study": directory.name, "swept": [], "metric": metric | dict(study.metric)}
    description |= {"seeds": list(range(seeds)), "rungs": [10, 100]}
    description |= {"budget": {"unit": "steps", "amount": 100} | dict(study.budget)}
    directory.mkdir(parents=True)
    (directory / "study.json").write_text(json.dumps(description))
    with TableWriter(directory, "configurations", "driver") as configurations:
        for index, name in enumerate(study.runs):
            row = {**configuration_row(name), "plan_index": index, "label": f"label of {name}"}
            row["config_json"] = json.dumps(study.configs.get(name, {"model": {"kind": name}, "modulus": 31}))
            configurations.add({**row, "study": directory.name})
    with TableWriter(directory, "runs", "driver") as runs, TableWriter(directory, "metrics", "all") as metrics:
        for phase, all_runs in (("search", study.runs), ("confirm", study.confirm)):
            for name, given in all_runs.items():
                by_seed = given if isinstance(given, Mapping) else dict(enumerate(given))
                for seed, made in by_seed.items():
                    number = seed + (1_000_000_000 if phase == "confirm" else 0)
                    _write_run(runs, metrics, directory.name, name, number, phase, made)
    return rung.load(directory)


def _write_run(
    runs: TableWriter, metrics: TableWriter, study: str, config_id: str, seed: int, phase: str, made: Made
) -> None:
    about = {"study": study, "config_id": config_id, "run_id": f"{config_id}-s{seed}-{phase}", "seed": seed}
    about |= {"phase": phase}
    for step, value in made.curve.items():
        progress = {"step": step, "epoch": None, "tokens": step * 10, "wall_seconds": step / 7 + seed}
        metrics.add({**about, **progress, "reported_at": NOW, "accuracy": value})
    value = None if made.status in ("diverged", "failed") else list(made.curve.values())[-1]
    machine = {"parameters": 1, "replication": "serial", "threads": 1, "device": "cpu", "host": "here"}
    ending = {"status": made.status, "ended_by": made.ended_by, "value": value, "revision": 1, "updated_at": NOW}
    runs.add({**about, **progress, **machine, **ending})


def only(comparisons: list[Comparison]) -> Comparison:
    (comparison,) = comparisons
    return comparison


def shown(families: Any, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_families(families, width))
    return console.export_text()


CLEAR = [0.91, 0.92, 0.93, 0.92, 0.95, 0.9]
WEAK = [0.51, 0.55, 0.5, 0.53, 0.56, 0.5]


# ------------------------------------------------------------------------------------- two configurations


def test_two_configurations_are_compared_by_seed(tmp_path: Path) -> None:
    runs = {"ca": [end(v) for v in CLEAR], "cb": [end(v) for v in WEAK]}
    found = only(write(tmp_path / "demo", Study(runs)).compare("ca", "cb"))
    assert found.difference == mean_interval(np.array(CLEAR) - np.array(WEAK))
    assert found.pairing.seeds == (0, 1, 2, 3, 4, 5)
    assert (found.pairing.phase, found.pairing.level) == ("search", None)
    assert (found.test.p, found.p_adjusted, found.tests) == (2 / 64, 2 / 64, 1)
    assert found.improvement.probability == 1.0
    assert found.verdict == "better"
    assert conclusion(found).startswith("A is better than B by 0.3967 [0.3760, 0.4173]")
    assert "(n = 6 paired seeds, p = 0.0312)" in conclusion(found)
    assert found.differing == (("model.kind", "ca", "cb"),)
    turned = only(rung.load(tmp_path / "demo").compare("cb", "ca"))
    assert turned.verdict == "worse"
    assert conclusion(turned).startswith("A is worse than B by 0.3967 [0.3760, 0.4173]")


def test_less_is_better_where_the_study_says_so(tmp_path: Path) -> None:
    runs = {"ca": [end(v) for v in CLEAR], "cb": [end(v) for v in WEAK]}
    found = only(write(tmp_path / "demo", Study(runs, metric={"mode": "min"})).compare("ca", "cb"))
    assert found.verdict == "worse"
    assert found.lead is not None
    assert found.lead < 0 < (found.difference.mean or 0)
    assert found.improvement.probability == 0.0


def test_three_seeds_are_too_few_whatever_they_show(tmp_path: Path) -> None:
    runs = {"ca": [end(v) for v in CLEAR[:3]], "cb": [end(v) for v in WEAK[:3]]}
    found = only(write(tmp_path / "demo", Study(runs)).compare("ca", "cb"))
    assert found.verdict == "too few seeds"
    assert conclusion(found) == (
        "n is too small: with n = 3 paired seeds the smallest possible p of the permutation test is 0.25. "
        "A is ahead of B by 0.4 so far; about 6 paired seeds would be needed if the difference is as observed. "
        "The t interval leaves out 0, but that counts only if the differences are normal."
    )


def test_what_cannot_be_told_apart_says_how_many_seeds_it_would_take(tmp_path: Path) -> None:
    noise = [0.1, -0.1, 0.12, -0.05, 0.08, -0.02, 0.04, -0.03]
    runs = {"ca": [end(0.5 + v) for v in noise], "cb": [end(0.5) for _ in noise]}
    found = only(write(tmp_path / "demo", Study(runs)).compare("ca", "cb"))
    assert found.verdict == "not told apart"
    assert found.needed is not None
    assert found.needed > 20
    assert f"about {found.needed} paired seeds would be needed" in conclusion(found)
    assert "cannot be told apart with n = 8 paired seeds" in conclusion(found)


def test_equal_runs_are_equal_and_one_pair_says_nothing(tmp_path: Path) -> None:
    same = write(tmp_path / "same", Study({"ca": [end(0.5)] * 6, "cb": [end(0.5)] * 6}))
    assert conclusion(only(same.compare("ca", "cb"))) == "A and B gave the same value with every one of 6 paired seeds."
    single = only(write(tmp_path / "one", Study({"ca": [end(0.5)], "cb": [end(0.4)]})).compare("ca", "cb"))
    assert single.verdict == "too few seeds"
    assert single.difference.low is None
    assert "at least 6 paired seeds" in conclusion(single)


def test_without_common_seeds_nothing_is_paired(tmp_path: Path) -> None:
    runs = {"ca": {0: end(0.9), 1: end(0.8)}, "cb": {2: end(0.4), 3: end(0.5)}}
    found = only(write(tmp_path / "demo", Study(runs)).compare("ca", "cb"))
    assert (found.verdict, found.difference.n) == ("no pairs", 0)
    assert "differ by 0.400" in conclusion(found)
    assert "Welch" in conclusion(found)
    assert found.improvement.n == (2, 2)
    assert "missing" in shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))


def test_from_twenty_pairs_on_interquartile_means_are_compared_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 24)
    runs = {"ca": [end(v + 0.1) for v in values], "cb": [end(v) for v in values[::-1]]}
    study = write(tmp_path / "demo", Study(runs))
    found = only(study.compare("ca", "cb"))
    assert found.interquartile is not None
    assert found.interquartile.mean == pytest.approx(0.1)
    assert found.test.smallest == 1e-5  # drawn, from a fixed seed
    assert only(study.compare("ca", "cb")).test == found.test
    assert "interquartile" in shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))


# --------------------------------------------------------------------------- failed and diverged, by policy


def with_accidents() -> dict[str, list[Made]]:
    weak = [end(v) for v in WEAK]
    return {"ca": [end(v) for v in CLEAR], "cb": [*weak[:4], DIVERGED, FAILED]}


def test_a_failed_run_costs_its_pair_and_is_counted(tmp_path: Path) -> None:
    found = only(write(tmp_path / "demo", Study(with_accidents(), metric={"diverged": "ignore"})).compare("ca", "cb"))
    assert found.difference.n == 4
    assert (found.pairing.second.diverged, found.pairing.second.failed) == ((4,), (5,))
    row = found.as_row()
    assert (row["other_failed"], row["other_diverged"], row["failed"]) == (1, 1, 0)
    text = shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))
    assert "1 diverged, 1 failed" in text
    assert "left out, as the study says" in text


def test_a_diverged_run_counts_as_the_worst_value_where_there_is_one(tmp_path: Path) -> None:
    found = only(write(tmp_path / "demo", Study(with_accidents(), metric={"worst_value": 0.0})).compare("ca", "cb"))
    assert found.pairing.seeds == (0, 1, 2, 3, 4)
    assert found.pairing.second.finite[4] == 0.0
    assert "count as the worst value, 0" in shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))


def test_survivors_do_not_make_a_configuration_better(tmp_path: Path) -> None:
    runs = {"ca": [*(end(v) for v in CLEAR), DIVERGED], "cb": [end(v) for v in [*WEAK, 0.5]]}
    study = write(tmp_path / "demo", Study(runs))
    found = only(study.compare("ca", "cb"))
    assert found.test.p < 0.05
    assert found.verdict == "diverged"
    assert conclusion(found).startswith("It is open which one is better: 1 of 7 runs of A diverged")
    assert found.improvement.probability == pytest.approx(6 / 7)  # the diverged run loses to all
    assert only(study.compare("cb", "ca")).verdict == "diverged"
    # If it is the worse one that diverged, the better one is better all the more.
    mirrored = {"ca": [end(v) for v in [*CLEAR, 0.9]], "cb": [*(end(v) for v in WEAK), DIVERGED]}
    assert only(write(tmp_path / "mirrored", Study(mirrored)).compare("ca", "cb")).verdict == "better"


# ----------------------------------------------------------------------------------------- where to compare


def test_a_stopped_configuration_is_compared_where_it_was_stopped(tmp_path: Path) -> None:
    full = [Made({0: 0.0, 10: 0.3 + 0.01 * seed, 50: 0.6, 100: 0.9}) for seed in range(3)]
    study = write(tmp_path / "demo", Study({"ca": full, "cb": [stopped(0.4 + 0.02 * seed) for seed in range(3)]}))
    found = only(study.compare("ca", "cb"))
    assert found.pairing.level == 10
    assert found.pairing.first.finite == pytest.approx({0: 0.3, 1: 0.31, 2: 0.32})
    assert found.difference.mean == pytest.approx(0.31 - 0.42)
    assert "at 10 steps" in shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))


def test_the_common_place_is_one_where_all_have_reported(tmp_path: Path) -> None:
    a = Made({0: 0.0, 20: 0.2, 40: 0.4, 60: 0.6}, "running", "")
    b = Made({0: 0.0, 10: 0.1, 20: 0.25, 50: 0.5}, "running", "")
    found = only(write(tmp_path / "demo", Study({"ca": [a], "cb": [b]})).compare("ca", "cb"))
    assert found.pairing.level == 20
    assert found.difference.mean == pytest.approx(-0.05)


def test_seconds_are_never_equal_so_the_last_report_before_counts(tmp_path: Path) -> None:
    budget = {"unit": "seconds", "amount": 100}
    # Seed s reports step x at second x / 7 + s: for seeds 0 and 1 no two reports are at the same second.
    runs = {"ca": [Made({3: 0.1, 16: 0.4}, "stopped")] * 2, "cb": [Made({4: 0.3, 20: 0.9}, "running")] * 2}
    found = only(write(tmp_path / "demo", Study(runs, budget=budget)).compare("ca", "cb"))
    assert found.pairing.level == pytest.approx(16 / 7)
    assert found.pairing.second.finite == {0: 0.3, 1: 0.3}


def test_a_run_that_reached_its_target_keeps_its_value(tmp_path: Path) -> None:
    early = Made({0: 0.0, 5: 0.99}, "completed", "target")
    found = only(write(tmp_path / "demo", Study({"ca": [early], "cb": [stopped(0.4)]})).compare("ca", "cb"))
    assert found.pairing.level == 10
    assert found.difference.mean == pytest.approx(0.59)


@pytest.mark.parametrize(("select", "first"), [("last", 0.2), ("best", 0.8), ("mean_of_last", 0.5)])
def test_the_value_at_a_place_follows_the_select_rule(tmp_path: Path, select: str, first: float) -> None:
    bumpy = Made({0: 0.0, 5: 0.8, 8: None, 10: 0.2, 100: 0.99})
    metric = {"select": select, "window": 2}
    study = Study({"ca": [bumpy], "cb": [stopped(0.1)]}, metric=metric)
    found = only(write(tmp_path / "demo", study).compare("ca", "cb"))
    assert found.pairing.first.finite[0] == pytest.approx(first)


def test_confirmed_values_count_if_both_have_them(tmp_path: Path) -> None:
    runs = {"ca": [end(0.9)] * 2, "cb": [end(0.5)] * 2, "cc": [end(0.4)] * 2}
    confirm = {"ca": [end(0.6), end(0.7), Made({0: 0.0, 10: 0.1}, "running")], "cb": [end(0.5), end(0.5), end(0.5)]}
    study = write(tmp_path / "demo", Study(runs, confirm=confirm))
    both = only(study.compare("ca", "cb"))
    assert both.pairing.phase == "confirm"
    assert both.pairing.seeds == (1_000_000_000, 1_000_000_001)  # the third has not come to its end yet
    assert both.pairing.level is None
    assert both.pairing.first.missing == (1_000_000_002,)
    assert both.difference.mean == pytest.approx(0.15)
    assert only(study.compare("ca", "cc")).pairing.phase == "search"
    assert "phase confirm" in shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))


# ---------------------------------------------------------------------------------------------- families


def test_several_against_one_are_adjusted_together(tmp_path: Path) -> None:
    runs = {"ca": [end(v) for v in CLEAR], "cb": [end(v) for v in WEAK], "cc": [end(v + 0.01) for v in WEAK]}
    found = write(tmp_path / "demo", Study(runs)).compare("ca", "cb", "cc")
    assert [one.tests for one in found] == [2, 2]
    assert [one.p_adjusted for one in found] == [2 * 2 / 64] * 2
    assert [one.verdict for one in found] == ["too few seeds"] * 2
    assert "0.0625 by Holm over 2 tests" in conclusion(found[0])


def test_the_best_against_the_others_counts_all_pairs(tmp_path: Path) -> None:
    runs = {"cw": [end(v) for v in WEAK], "cbest": [end(v) for v in CLEAR], "cs": [stopped(0.2)] * 6}
    study = write(tmp_path / "demo", Study(runs))
    (family,) = compare_with_best(study)
    assert [one.first.config_id for one in family.comparisons] == ["cbest", "cbest"]
    assert [one.second.config_id for one in family.comparisons] == ["cw", "cs"]
    assert [one.pairing.level for one in family.comparisons] == [None, 10]
    assert {one.tests for one in family.comparisons} == {3}
    assert [one.second.config_id for one in study.compare()] == ["cw", "cs"]
    text = shown([family], 100)
    assert "all 3 pairs of 3 configurations" in text
    assert "n is too small to tell label of cbest from: label of cw; label of cs" in text


def test_confirmed_configurations_are_a_family_of_their_own(tmp_path: Path) -> None:
    runs = {name: [end(0.5 + 0.1 * place)] * 2 for place, name in enumerate(("ca", "cb", "cc", "cd"))}
    confirm = {"cc": [end(v) for v in CLEAR], "cd": [end(v) for v in WEAK]}
    confirmed, searched = compare_with_best(write(tmp_path / "demo", Study(runs, confirm=confirm)))
    # The best is the best on fresh seeds, though another one led the search.
    assert [(c.first.config_id, c.second.config_id, c.tests) for c in confirmed.comparisons] == [("cc", "cd", 1)]
    assert confirmed.comparisons[0].verdict == "better"
    assert [(c.second.config_id, c.tests) for c in searched.comparisons] == [("cb", 6), ("ca", 6)]


def test_two_studies_are_compared_by_their_best_and_what_they_share(tmp_path: Path) -> None:
    ours = write(tmp_path / "one", Study({"ca": [end(v) for v in WEAK], "cb": [end(0.4)] * 6}))
    theirs = write(tmp_path / "two", Study({"cb": [end(0.4)] * 6, "cx": [end(v) for v in CLEAR]}))
    best, common = compare_studies(ours, theirs)
    (one,) = best.comparisons
    assert (one.first.config_id, one.second.config_id, one.tests, one.verdict) == ("ca", "cx", 4, "too few seeds")
    assert [(c.first.config_id, c.second.config_id, c.verdict) for c in common.comparisons] == [("cb", "cb", "equal")]
    text = shown([best, common])
    assert "ca of one" in text
    assert "cx of two" in text
    assert "A and B are the same configuration" in text


def test_a_half_extended_study_is_compared_where_all_have_been(tmp_path: Path) -> None:
    longer = [Made({0: 0.0, 100: value, 200: value + 0.3}) for value in WEAK]
    runs = {"ca": [end(value) for value in CLEAR], "cb": longer}
    found = only(write(tmp_path / "demo", Study(runs, budget={"amount": 200})).compare("ca", "cb"))
    assert found.pairing.level == 100
    assert found.difference == mean_interval(np.array(CLEAR) - np.array(WEAK))


def test_a_smaller_budget_sets_the_place_of_two_studies(tmp_path: Path) -> None:
    write(tmp_path / "short", Study({"ca": [Made({0: 0.0, 50: 0.3})]}, budget={"amount": 50}))
    write(tmp_path / "long", Study({"ca": [Made({0: 0.0, 50: 0.4, 100: 0.9})]}))
    best, _ = compare_named([str(tmp_path / "short"), str(tmp_path / "long")])
    (one,) = best.comparisons
    assert one.pairing.level == 50
    assert one.difference.mean == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"metric": {"name": "loss"}}, "metric.name is accuracy in one and loss"),
        ({"metric": {"select": "best"}}, "metric.select"),
        ({"budget": {"unit": "epochs"}}, "no common place"),
    ],
)
def test_studies_that_are_judged_differently_are_not_compared(tmp_path: Path, other: Any, says: str) -> None:
    one, two = (
        write(tmp_path / "one", Study({"ca": [end(0.5)]})),
        write(tmp_path / "two", Study({"ca": [end(0.5)]}, **other)),
    )
    with pytest.raises(RungError, match=says):
        compare_studies(one, two)


# ------------------------------------------------------------------------------------------------- names


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("storage")
    write_synthetic_study(root, "demo")
    return root


@pytest.mark.parametrize("name", ["c3f9a1b20d771", "c3", "gpt, weight_decay=1.0"])
def test_a_configuration_is_found_by_id_its_beginning_or_label(storage: Path, name: str) -> None:
    (family,) = compare_named([name, "c07"], "demo", storage)
    assert family.comparisons[0].first.config_id == "c3f9a1b20d771"
    (family,) = compare_named([f"demo:{name}", "demo:c07"], storage=storage)
    assert family.comparisons[0].first.config_id == "c3f9a1b20d771"


@pytest.mark.parametrize(
    ("names", "study", "says"),
    [
        (["c3f9a1b20d717", "c07"], "demo", r"did you mean c3f9a1b20d771 \(gpt, weight_decay=1.0\)"),
        (["zzz", "c07"], "demo", "there are c3f9a1b20d771"),
        (["c", "c07"], "demo", "'c' may be any of c3f9a1b20d771"),
        (["c3f9"], "demo", "name another one"),
        (["c3f9", "c3f9a"], "demo", "compared with itself"),
        (["c3f9", "c07"], None, "--study STUDY, or STUDY:c3f9"),
        (["demo", "demo", "demo"], None, "two studies"),
        ([], None, "give a study"),
        (["demo:c3f9", "nowhere:c07"], None, "no study 'nowhere'"),
    ],
)
def test_what_cannot_be_found_is_explained(storage: Path, names: list[str], study: str | None, says: str) -> None:
    with pytest.raises(RungError, match=says):
        compare_named(names, study, storage)


def test_a_study_that_is_missing_stays_a_storage_error(storage: Path) -> None:
    with pytest.raises(StorageError):
        compare_named(["nowhere"], storage=storage)


# --------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("format", ["csv", "json", "markdown", "latex"])
def test_comparisons_are_exported_as_results_are(storage: Path, format: str) -> None:
    comparisons = rung.load(storage / "demo").compare()
    text = export(comparisons, format)
    assert "gpt, weight" in text
    if format == "json":
        rows = json.loads(text)
        assert [row["n"] for row in rows] == [3, 3, 1]
        assert rows[0]["differing"] == {"optimizer.weight_decay": [1.0, 0.25]}
        assert rows[0]["conclusion"].startswith("n is too small")


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_synthetic_study_is_shown_at_any_width(storage: Path, width: int) -> None:
    families = compare_named(["demo"], storage=storage)
    text = shown(families, width)
    assert max(map(len, text.splitlines())) <= width
    assert "too few seeds" in text
    assert ("P(better)" in text) == (width == 160 or width == 60)


def test_the_single_seeds_are_always_shown(storage: Path) -> None:
    text = shown(compare_named(["c3f9", "cd41"], "demo", storage))
    assert "diverged" in text.split("seed ", 1)[1]
    assert "failed" in text.split("seed ", 1)[1]
    assert "worse than any number" in text
    assert "model.kind" in text


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "statistics.md").read_text()
    write_synthetic_study(tmp_path / "results", "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNG_STORAGE", raising=False)
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["comparisons"][0].verdict == "too few seeds"


def test_who_reached_the_target_is_shown_with_an_interval(tmp_path: Path) -> None:
    early = Made({0: 0.0, 5: 0.99}, "completed", "target")
    target = {"target": {"metric": "accuracy", "value": 0.9, "mode": "max"}}
    runs = {"ca": [early, early, end(0.2), DIVERGED], "cb": [end(0.1)] * 4}
    write(tmp_path / "demo", Study(runs, budget=target))
    text = shown(compare_named(["ca", "cb"], str(tmp_path / "demo")))
    assert "2/4 [0.15, 0.85]" in text
    assert "0/4 [0.00, 0.49]" in text
    table = shown(
        compare_named(["ca", "cb", "cc"], str(write(tmp_path / "three", Study({**runs, "cc": [FAILED] * 4})).directory))
    )
    assert "label of ca: 1 diverged" in table
    assert "label of cc: 4 failed" in table
