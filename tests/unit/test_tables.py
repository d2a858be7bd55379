"""Result tables: the order of configurations, what is counted, when runs learnt, and the export formats."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rung.errors import RungError
from rung.results.export import interval_text, number_text, spread_text
from rung.results.query import load
from rung.results.statistics import MeanInterval, Spread, mean_interval, wilson_interval
from rung.results.store import TableWriter
from rung.results.tables import ConfigurationSummary, export, grokking_table, summary, to_frame
from tests.synthetic import PLAN, write_synthetic_study
from tests.unit.test_store import NOW, configuration_row, metric_row


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_study(tmp_path_factory.mktemp("storage"))


def write_study(directory: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]], **study: Any) -> Path:
    """A study whose configurations have these runs, the seeds counting from 0."""
    metric = {"name": "validation/loss", "mode": "min", "select": "last", "across_seeds": "mean"}
    description = {"format": 1, "study": "demo", "swept": [], "metric": metric, "seeds": [0, 1], "rungs": [10, 100]}
    description |= {"budget": {"unit": "steps", "amount": 100}} | study
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "study.json").write_text(json.dumps(description))
    with TableWriter(directory, "configurations", "driver", 1) as configurations:
        for index, config_id in enumerate(runs):
            configurations.add({**configuration_row(config_id), "plan_index": index})
    with TableWriter(directory, "runs", "driver", 1) as table:
        for config_id, rows in runs.items():
            for seed, row in enumerate(rows):
                table.add(run_row(config_id, row.get("seed", seed), row))
    return directory


def run_row(config_id: str, seed: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    identity = {"study": "demo", "config_id": config_id, "run_id": f"{config_id}-s{seed}", "seed": seed}
    progress = {"step": 100, "epoch": 5.0, "tokens": 6400, "wall_seconds": 2.0, "revision": 0}
    machine = {"parameters": 10, "replication": "serial", "threads": 1, "device": "cpu", "host": "here"}
    return {**identity, "phase": "search", "status": "completed", **progress, **machine, "updated_at": NOW, **changes}


def order(directory: Path) -> list[str]:
    return [entry.config_id for entry in summary(load(directory))]


# -------------------------------------------------------------------------------------------- summary


def test_the_summary_of_the_synthetic_study(synthetic: Path) -> None:
    good, late, stopped, broken = summary(load(synthetic))
    assert [entry.label for entry in (good, late, stopped, broken)] == [
        "gpt, weight_decay=1.0",
        "gpt, weight_decay=0.25",
        "lstm, weight_decay=0.25",
        "lstm, weight_decay=1.0",
    ]
    assert good.swept == {"model.kind": "gpt", "optimizer.weight_decay": 1.0}
    assert (good.n, good.planned, good.completed, good.level, good.steps) == (3, 3, 3, 10_000, 10_000)
    assert good.values == (1.0, 1.0, 1.0)
    assert good.wall_seconds == pytest.approx(300.0)
    assert late.interval == mean_interval(late.values)
    assert late.mean is not None
    assert late.mean < 0.75
    assert (stopped.stopped, stopped.level, stopped.steps) == (3, 1000, 1000)
    assert (broken.completed, broken.diverged, broken.failed) == (1, 1, 1)
    assert broken.values[1:] == (None, None)
    assert broken.score is None
    assert (broken.n, broken.low, broken.level) == (1, None, 10_000)


@pytest.mark.parametrize(("mode", "expected"), [("min", ["c2", "c3", "c1"]), ("max", ["c1", "c3", "c2"])])
def test_the_best_mean_comes_first(tmp_path: Path, mode: str, expected: list[str]) -> None:
    metric = {"name": "m", "mode": mode, "select": "last", "across_seeds": "mean"}
    values = {"c1": (3.0, 4.0), "c2": (0.0, 2.0), "c3": (1.4, 1.4)}
    runs: dict[str, Any] = {config_id: [{"value": value} for value in pair] for config_id, pair in values.items()}
    assert order(write_study(tmp_path, runs, metric=metric)) == expected


def test_the_order_follows_the_aggregate_of_the_study(tmp_path: Path) -> None:
    metric = {"name": "m", "mode": "min", "select": "last", "across_seeds": "worst"}
    runs: dict[str, Any] = {"c1": [{"value": 0.0}, {"value": 2.0}], "c2": [{"value": 1.4}, {"value": 1.4}]}
    assert order(write_study(tmp_path, runs, metric=metric)) == ["c2", "c1"]


def test_values_that_are_not_comparable_rank_behind(tmp_path: Path) -> None:
    """No configuration wins by having been stopped early, by its survivors, or by having nothing to show."""
    runs: dict[str, list[dict[str, Any]]] = {
        "nothing": [],
        "unlucky": [{"value": None, "status": "failed"}, {"value": None, "status": "failed"}],
        "survivor": [{"value": 0.1}, {"value": None, "status": "diverged"}],
        "stopped": [{"value": 0.2, "status": "stopped", "step": 10}] * 2,
        "slow": [{"value": 0.9}, {"value": 0.9}],
        "running": [{"value": 0.5, "status": "running", "step": 40}],
        "accident": [{"value": 0.4}, {"value": 0.4}, {"value": None, "status": "failed"}],
        "halved": [{"value": 0.3}, {"value": None, "status": "failed"}],
    }
    expected = ["accident", "running", "slow", "stopped", "survivor", "halved", "nothing", "unlucky"]
    assert order(write_study(tmp_path, runs)) == expected


def test_a_diverged_run_counts_as_the_worst_value_if_the_metric_has_one(tmp_path: Path) -> None:
    runs: dict[str, Any] = {
        "diverged": [{"value": 0.9}, {"value": None, "status": "diverged"}],
        "weak": [{"value": 0.4}, {"value": 0.4}],
        "strong": [{"value": 0.5}, {"value": 0.5}],
    }
    metric = {"name": "m", "mode": "max", "select": "last", "across_seeds": "mean", "worst_value": 0.0}
    assert order(write_study(tmp_path / "bounded", runs, metric=metric)) == ["strong", "diverged", "weak"]
    metric |= {"diverged": "ignore"}
    assert order(write_study(tmp_path / "ignored", runs, metric=metric)) == ["diverged", "strong", "weak"]


def test_seeds_that_have_not_begun_are_planned_and_have_no_value(tmp_path: Path) -> None:
    runs = {"c1": [{"seed": 7, "value": 0.5}, {"seed": 3, "value": 0.7}]}
    (entry,) = summary(load(write_study(tmp_path, runs, seeds=[3, 5, 7])))
    assert (entry.n, entry.planned) == (2, 3)
    assert entry.seeds == (3, 5, 7)
    assert entry.values == (0.7, None, 0.5)


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        ([{"status": "running", "step": 99}, {"status": "running", "step": 10}], 10),
        ([{"status": "running", "step": 99}, {"status": "running", "step": 9}], None),
        ([{"status": "running", "step": 99}, {"status": "diverged", "step": 3}], 10),
        ([{"status": "completed", "step": 42}], 100),  # ended by its target before the budget
        ([{"status": "failed", "step": 99}], None),
        ([], None),
    ],
)
def test_the_level_is_the_rung_that_all_runs_in_the_race_have_reached(
    tmp_path: Path, rows: list[dict[str, Any]], level: int | None
) -> None:
    (entry,) = summary(load(write_study(tmp_path, {"c1": rows})))
    assert entry.level == level


@pytest.mark.parametrize(
    ("unit", "rungs", "level"), [("epochs", [2, 4, 8], 4), ("tokens", [100, 6400], 6400), ("seconds", [3], None)]
)
def test_the_level_is_counted_in_the_unit_of_the_budget(
    tmp_path: Path, unit: str, rungs: list[int], level: int | None
) -> None:
    budget = {"unit": unit, "amount": rungs[-1]}
    directory = write_study(tmp_path, {"c1": [{"status": "running"}]}, budget=budget, rungs=rungs)
    assert summary(load(directory))[0].level == level


def test_confirmation_is_summarised_by_itself(tmp_path: Path) -> None:
    confirm = [{"seed": seed, "phase": "confirm", "run_id": f"c1-s{seed}-confirm", "value": 0.5} for seed in (8, 9, 10)]
    runs: dict[str, list[dict[str, Any]]] = {"c1": [{"value": 0.1}, {"value": 0.1}, *confirm], "c2": [{"value": 0.3}]}
    directory = write_study(tmp_path, runs)
    assert [(e.config_id, e.mean) for e in summary(load(directory))] == [("c1", 0.1), ("c2", 0.3)]
    (entry,) = load(directory).summary(phase="confirm")
    assert (entry.config_id, entry.mean, entry.seeds) == ("c1", 0.5, (8, 9, 10))


@pytest.mark.parametrize(
    ("runs", "seeds_at_start", "n"),
    [
        ([{"value": 0.2, "status": "stopped", "step": 10}] * 2, 2, "2/2"),
        ([{"value": 0.2, "status": "stopped"}] * 3 + [{"status": "diverged"}], 2, "3/4"),
        ([{"value": 0.2, "status": "stopped"}], None, "1/1"),  # later the study got more seeds
        ([{"value": 0.2, "status": "running"}] * 2, 2, "2/8"),
        ([{"value": 0.2}] * 8, 2, "8/8"),
        ([{"value": 0.2}] * 2, None, "2/8"),
        ([{"status": "diverged"}] * 2, 2, "0/2"),
        ([{"status": "diverged"}] * 2, None, "0/8"),
        ([{"status": "failed"}], 2, "0/2"),
        ([], 2, "0/8"),
    ],
)
def test_seeds_that_never_join_are_not_missing(
    tmp_path: Path, runs: list[dict[str, Any]], seeds_at_start: int | None, n: str
) -> None:
    directory = write_study(tmp_path, {"c1": runs}, seeds=list(range(8)), seeds_at_start=seeds_at_start)
    (entry,) = summary(load(directory))
    assert entry.as_text()["n"] == n
    assert len(entry.seeds) == entry.planned


def test_a_summary_becomes_a_frame(synthetic: Path) -> None:
    entries = summary(load(synthetic))
    frame = to_frame(entries)
    assert frame["config_id"].tolist() == [entry.config_id for entry in entries]
    assert frame["config.model.kind"].tolist() == ["gpt", "gpt", "lstm", "lstm"]
    assert frame["values"][0] == [1.0, 1.0, 1.0]
    assert frame["n"].tolist() == [3, 3, 3, 1]


# ------------------------------------------------------------------------------------------- grokking

STEPS = (0, 100, 200, 300)
Curves = dict[str, Sequence[float | None]]


def write_curves(directory: Path, curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Path:
    """A configuration "c1" whose runs have these series at STEPS."""
    write_study(directory, {"c1": []})
    with TableWriter(directory, "metrics", "c1") as writer:
        for run_id, series in curves.items():
            for index, step in enumerate(STEPS):
                writer.add(metric_row(step, run_id, **{name: values[index] for name, values in series.items()}))
    return directory


def test_everything_is_found_per_run_and_then_averaged(tmp_path: Path) -> None:
    losses: dict[str, Sequence[float | None]] = {
        "train/loss": [3.0, 0.1, 0.2, 0.1],
        "validation/loss": [3.0, 4.0, 1.0, 2.0],
    }
    one = {**losses, "train/accuracy": [0.0, 1.0, 1.0, 1.0], "validation/accuracy": [0.0, 0.1, 0.92, 1.0]}
    other: Curves = {**one, "train/accuracy": [0.0, 0.5, 1.0, 1.0], "validation/accuracy": [0.0, 0.96, 0.9, None]}
    (row,) = grokking_table(load(write_curves(tmp_path, {"c1-s0": one, "c1-s1": other})))
    assert (row.n, row.steps) == (2, 300)
    assert row.spreads["L_train"] == Spread(2, 0.1, 0.0)
    assert row.spreads["t_f(L)_train"] == Spread(2, 100.0, 0.0)
    assert row.spreads["t_f(L)_validation"].mean == 200.0
    assert row.spreads["delta_t(L)"].mean == 100.0
    assert row.spreads["A_validation"].mean == pytest.approx(0.98)
    assert row.spreads["t_f(A)_train"].mean == 150.0
    assert row.spreads["t_f(A)_validation"].mean == 200.0  # steps 300 and 100
    delay = row.spreads["delta_t(A)"]
    assert (delay.n, delay.mean) == (2, 50.0)  # of 200 and -100
    assert delay.std == pytest.approx(212.132, abs=1e-3)
    reached = {threshold: (time.reached, time.step.mean) for threshold, time in row.thresholds.items()}
    assert reached == {0.9: (2, 150.0), 0.95: (2, 200.0), 0.99: (1, 300.0)}
    assert row.thresholds[0.99].text == "300 (not reached 1/2)"


def test_the_grokking_table_of_the_synthetic_study(synthetic: Path) -> None:
    rows = load(synthetic).grokking(thresholds=[0.95])
    assert [row.label for row in rows] == [planned.label for planned in PLAN]
    texts = [row.as_text()["t(A ≥ 0.95)"] for row in rows]
    assert texts[0].startswith("4")
    assert texts[1].endswith("(not reached 1/3)")
    assert texts[2:] == ["not reached 3/3", "not reached 3/3"]
    delay = rows[0].spreads["delta_t(A)"]
    assert delay.n == 3
    assert delay.mean is not None
    assert 4000 < delay.mean < 8000
    frame = to_frame(rows)
    assert frame["t_0.95_reached"].tolist() == [3, 2, 0, 0]
    assert frame["A_train"].tolist() == [1.0] * 4


def test_a_series_without_values_has_no_best(tmp_path: Path) -> None:
    series: dict[str, list[float | None]] = {"train/loss": [1.0] * 4, "validation/loss": [None] * 4}
    series |= {"train/accuracy": [0.5] * 4, "validation/accuracy": [0.5] * 4}
    (row,) = grokking_table(load(write_curves(tmp_path, {"c1-s0": series})))
    assert row.spreads["L_validation"] == row.spreads["delta_t(L)"] == Spread(0, None, None)
    assert row.as_text()["L validation"] == ""


def test_other_trainables_have_no_grokking_table(tmp_path: Path) -> None:
    assert grokking_table(load(write_curves(tmp_path, {"c1-s0": {"train/loss": [1.0] * 4}}))) == []
    assert grokking_table(load(write_study(tmp_path / "empty", {"c1": []}))) == []


# --------------------------------------------------------------------------------------------- export


def entry(**changes: Any) -> ConfigurationSummary:
    plain = ConfigurationSummary(
        config_id="c1",
        label="a & b_1",
        swept={"rate": 1e-4},
        planned=3,
        completed=2,
        stopped=0,
        diverged=1,
        failed=0,
        running=0,
        level=100,
        interval=MeanInterval(2, 0.87123, 0.80234, 0.94012),
        score=0.87123,
        seeds=(0, 1, 2),
        values=(0.9, None, 0.842461),
        steps=100,
        wall_seconds=61.7,
    )
    return replace(plain, **changes)


def test_markdown_is_for_people() -> None:
    lines = export([entry(), entry(label="c|d", level=None)], "markdown").splitlines()
    assert lines[0] == "| configuration | n | mean [95 % interval] | seeds | runs | rung | steps | seconds |"
    assert lines[1] == "|---|---:|---:|---:|---|---:|---:|---:|"
    assert lines[2] == (
        "| a & b_1 | 2/3 | 0.8712 [0.8023, 0.9401] | 0.9, –, 0.8425 | 2 completed, 1 diverged | 100 | 100 | 62 |"
    )
    assert lines[3].startswith("| c\\|d |")
    assert lines[3].endswith("| – | 100 | 62 |")


def test_latex_is_escaped_and_uses_booktabs() -> None:
    text = export([{"name": "50% of_a & {b} \\ ~^#$", "value": 0.5}], "latex")
    assert text == (
        "\\begin{tabular}{lr}\n\\toprule\nname & value \\\\\n\\midrule\n"
        "50\\% of\\_a \\& \\{b\\} \\textbackslash{} \\textasciitilde{}\\textasciicircum{}\\#\\$ & 0.5 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def test_csv_and_json_keep_every_digit() -> None:
    rows = [entry(interval=MeanInterval(2, 1 / 3, None, None))]
    (row,) = csv.DictReader(io.StringIO(export(rows, "csv")))
    assert float(row["mean"]) == 1 / 3
    assert row["low"] == ""
    assert json.loads(row["values"]) == [0.9, None, 0.842461]
    (record,) = json.loads(export(rows, "json"))
    assert record["mean"] == 1 / 3
    assert record["low"] is None
    assert record["config.rate"] == 1e-4


def test_plain_rows_and_frames_are_exported_alike() -> None:
    rows: list[dict[str, object]] = [{"x": 1.5, "y": "a", "t": NOW}, {"x": None, "y": None, "t": None}]
    frame = pd.DataFrame(rows)
    for format in ("csv", "json", "markdown", "latex"):
        assert export(frame, format) == export(rows, format)
    assert json.loads(export(rows, "json"))[0]["t"] == "2026-01-05T09:00:00+00:00"


def test_rows_with_different_columns_share_a_table() -> None:
    rows: list[dict[str, object]] = [{"a": 1}, {"b": float("nan"), "a": np.int64(2)}, {"b": [1, None]}]
    assert export(rows, "csv") == 'a,b\n1,\n2,\n,"[1, null]"\n'
    assert export(rows, "markdown").splitlines()[2:] == ["| 1 | – |", "| 2 | – |", "| – | 1, – |"]


def test_exporting_nothing_gives_an_empty_table() -> None:
    assert json.loads(export([], "json")) == []
    assert export([], "csv") == "\n"


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(RungError, match="'xlsx', only csv, json, markdown, latex"):
        export([], "xlsx")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (1.0, "1"),
        (123456, "123456"),
        (12345.6, "12346"),
        (1.5e-7, "1.5e-07"),
        (-0.5, "-0.5"),
        (1e20, "1e+20"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (5650.0, 150.0, "5650 ± 150"),
        (0.00063, 0.00011, "0.00063 ± 0.00011"),
        (0.98765, 0.0123, "0.988 ± 0.012"),
        (1.0, 0.0, "1 ± 0"),
        (1e9, 1e-9, "1000000000 ± 1e-09"),
        (3.0, None, "3"),
        (None, None, ""),
    ],
)
def test_spreads_for_people(mean: float | None, std: float | None, text: str) -> None:
    assert spread_text(Spread(3, mean, std)) == text


def test_intervals_for_people() -> None:
    assert interval_text(MeanInterval(3, 0.871, 0.802, 0.940)) == "0.8710 [0.8020, 0.9400]"
    assert interval_text(MeanInterval(3, 5650.0, 5277.4, 6022.6)) == "5650 [5277, 6023]"
    assert interval_text(MeanInterval(1, 0.5, None, None)) == "0.5"
    assert interval_text(MeanInterval(0, None, None, None)) == ""


def test_the_synthetic_study_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, same, other = (write_synthetic_study(tmp_path / str(i), seed=i // 2) for i in range(3))
    curves = [load(directory).metrics.order("run_id, step").fetchall() for directory in (one, same, other)]
    assert curves[0] == curves[1] != curves[2]
    ((first,),) = load(one).metrics.aggregate("min(reported_at)").fetchall()
    assert datetime(2026, 1, 5, tzinfo=UTC) < first < datetime(2026, 1, 6, tzinfo=UTC)


# ------------------------------------------------------------------------------------- success rates


def test_runs_that_reached_the_target_are_counted_with_wilsons_interval(tmp_path: Path) -> None:
    ends = [("completed", "target"), ("completed", "target"), ("completed", "budget"), ("diverged", "divergence")]
    ends += [("failed", "error"), ("running", None), ("stopped", "scheduler")]
    runs = {"c1": [{"value": 0.5, "status": status, "ended_by": ended_by} for status, ended_by in ends], "c2": []}
    budget = {"unit": "steps", "amount": 100, "target": {"metric": "validation/loss", "value": 0.5, "mode": "min"}}
    first, second = summary(load(write_study(tmp_path / "with", runs, budget=budget)))
    assert first.success is not None
    assert (first.success.reached, first.success.n) == (2, 4)
    assert first.as_row()["reached_target_low"] == wilson_interval(2, 4)[0]
    assert first.as_text()["reached target"] == "2/4 [0.15, 0.85]"
    assert second.as_text()["reached target"] == "0/0"
    without = summary(load(write_study(tmp_path / "without", runs)))[0]
    assert without.success is None
    assert not [name for name in (*without.as_row(), *without.as_text()) if "target" in name]
