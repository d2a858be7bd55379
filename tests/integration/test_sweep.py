"""A whole sweep on a real local Ray, through the command line, and what it leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

import rung as rung_package
from tests.integration.conftest import ROOT, Rung

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def finished(module_rung: Rung) -> tuple[Rung, str]:
    """The toy study, run to its end, with what the command printed."""
    return module_rung, module_rung("run", module_rung.study())


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    """The raw rows of a table, as anybody's DuckDB sees them, without rung."""
    if not list(path.glob(f"tables/{table}/*.parquet")):
        return []
    relation = duckdb.connect().sql(f"SELECT * FROM read_parquet('{path}/tables/{table}/*.parquet')")
    columns = relation.columns
    return [dict(zip(columns, row, strict=True)) for row in relation.fetchall()]


def test_every_run_is_accounted_for(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    runs = {row["run_id"]: row for row in rows(rung.results(), "runs")}
    assert len(runs) == 6 * 3
    by_status: dict[str, set[int]] = {}
    for row in runs.values():
        by_status.setdefault(row["status"], set()).add(row["step"])
    # Halving by 2 at 10 and 20 of 40 steps: of 6 configurations 3 go on, then 2, and those end with the budget.
    assert sorted(row["step"] for row in runs.values()) == [10] * 9 + [20] * 3 + [40] * 6
    assert by_status == {"stopped": {10, 20}, "completed": {40}}


def test_all_seeds_of_a_configuration_stop_together(finished: tuple[Rung, str]) -> None:
    steps: dict[str, set[int]] = {}
    for row in rows(finished[0].results(), "runs"):
        steps.setdefault(row["config_id"], set()).add(row["step"])
    assert all(len(reached) == 1 for reached in steps.values())


def test_every_report_is_a_row_and_none_stands_twice(finished: tuple[Rung, str]) -> None:
    metrics = rows(finished[0].results(), "metrics")
    keys = [(row["run_id"], row["step"]) for row in metrics]
    assert len(keys) == len(set(keys))
    steps = {step for run, step in keys if run == keys[0][0]}
    assert {0, 1, 2, 5, 10} <= steps
    assert all(row["validation/loss"] > 0 for row in metrics)


def test_decisions_say_who_was_stopped_and_why(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    decisions = rows(rung.results(), "decisions")
    assert [(d["level"], d["decision"]) for d in sorted(decisions, key=lambda d: d["order"])].count((10, "stop")) == 3
    stopped = {d["config_id"] for d in decisions if d["decision"] == "stop"}
    assert stopped == {r["config_id"] for r in rows(rung.results(), "runs") if r["status"] == "stopped"}
    shown = rung("status", "toy", "--decisions")
    for decision in decisions:
        assert decision["config_id"] in shown
    assert "ranks" in shown


def test_the_decided_value_is_the_mean_over_the_seeds(finished: tuple[Rung, str]) -> None:
    path = finished[0].results()
    metrics = {(row["run_id"], row["step"]): row["validation/loss"] for row in rows(path, "metrics")}
    for decision in rows(path, "decisions"):
        values = [metrics[f"{decision['config_id']}-s{seed}", decision["level"]] for seed in range(3)]
        assert decision["value"] == pytest.approx(sum(values) / 3, rel=1e-12)
        assert decision["seeds"] == 3


def test_the_command_ends_with_a_table_and_a_report(finished: tuple[Rung, str]) -> None:
    rung, printed = finished
    assert "6 configurations" in printed
    assert "3/3" in printed
    assert (rung.results() / "report" / "report.html").exists()
    assert "Traceback" not in printed


def test_results_query_and_notebook_agree(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    listed = json.loads(rung("results", "toy", "--format", "json"))
    best = listed[0]
    sql = f"SELECT avg(value) AS mean FROM runs WHERE config_id = '{best['config_id']}' AND status = 'completed'"
    assert json.loads(rung("query", sql, "--format", "json"))[0]["mean"] == pytest.approx(best["mean"], rel=1e-12)
    study = rung_package.load(rung.results())
    assert len(study.metrics.df()) == len(rows(rung.results(), "metrics"))
    assert study.runs.to_arrow_table().num_rows == 18


def test_running_again_does_nothing_twice(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    before = {table: rows(rung.results(), table) for table in ("metrics", "runs", "decisions", "configurations")}
    assert "nothing left to do" in rung("run", rung.study())
    assert {table: rows(rung.results(), table) for table in before} == before


def test_another_study_of_the_same_name_is_refused(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    base = {"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}, "noise": 0.5}
    message = rung("run", rung.study(base=base), code=2)
    assert "a study called 'toy' that this one cannot go on with" in message
    assert re.search(r"base\.noise: 0\.1 there, 0\.5 now", message)
    assert "storage" in message


def test_only_the_best_configuration_keeps_its_checkpoints(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    best = json.loads(rung("results", "toy", "--format", "json"))[0]["config_id"]
    kept = {path.name for path in (rung.results() / "checkpoints").iterdir() if path.is_dir()}
    assert kept == {f"{best}-s{seed}" for seed in range(3)}


def test_training_in_this_process_gives_the_same_numbers(finished: tuple[Rung, str]) -> None:
    rung, _ = finished
    best = json.loads(rung("results", "toy", "--format", "json"))[0]["config_id"]
    rung("train", rung.study(), "--configuration", best)
    columns = ("run_id", "step", "validation/loss", "validation/accuracy", "learning_rate", "gradient_norm")
    there, here = (
        {tuple(row[name] for name in columns) for row in rows(path, "metrics") if row["config_id"] == best}
        for path in (rung.results(), rung.results("toy.solo"))
    )
    # The sweep has evaluations at its rungs as well; all others are equal to the last bit.
    assert here <= there
    assert len(here) == 3 * (3 + 8)


def test_training_again_in_this_process_replaces_what_was_there(rung: Rung) -> None:
    rung("train", rung.study(seeds=1))
    rung("train", rung.study(seeds=1, budget={"steps": 20}))
    assert max(row["step"] for row in rows(rung.results("toy.solo"), "metrics")) == 20
    assert {row["step"] for row in rows(rung.results("toy.solo"), "runs")} == {20}


def test_optuna_chooses_configurations_and_goes_on_with_them(rung: Rung) -> None:
    space = {
        "optimizer.learning_rate": {"loguniform": [1e-4, 1.0]},
        "optimizer.kind": {"choice": ["adam", "momentum"]},
        "optimizer.momentum": {"uniform": [0.1, 0.9], "when": {"optimizer.kind": "momentum"}},
    }
    common = {"space": space, "seeds": 2, "searcher": {"name": "optuna"}, "scheduler": {"name": "asha", "grace": 10}}
    study = rung.study(samples=5, **common)
    rung("run", study)
    configurations = rows(rung.results(), "configurations")
    assert len({row["config_id"] for row in configurations}) == 5
    assert len(rows(rung.results(), "runs")) == 10
    assert all(row["config.optimizer.momentum"] == 0.9 for row in configurations if "adam" in row["label"])
    assert "nothing left to do" in rung("run", study)


def test_seeds_race_the_best_are_confirmed_and_more_can_be_asked_for(rung: Rung) -> None:
    scheduler = {"name": "asha", "grace": 10, "reduction_factor": 2}
    output = rung("run", rung.study(seeds={"start": 1, "full": 3}, scheduler=scheduler, confirm={"top": 2, "seeds": 2}))
    runs = rows(rung.results(), "runs")
    confirmed = [row for row in runs if row["phase"] == "confirm"]
    assert sorted(row["seed"] for row in confirmed) == [10**9, 10**9, 10**9 + 1, 10**9 + 1]
    assert all(row["status"] == "completed" and row["step"] == 40 for row in confirmed)
    assert len({row["config_id"] for row in confirmed}) == 2
    levels = {row["level"]: row["seeds"] for row in rows(rung.results(), "decisions")}
    assert levels == {10: 1, 20: 2}
    assert "confirmation: 4 of 4 runs on fresh seeds are done" in output

    more = {"seeds": {"start": 1, "full": 4}, "confirm": {"top": 2, "seeds": 3}}
    output = rung("run", rung.study(scheduler=scheduler, **more))
    assert "new: seeds: 3 become 4" in output
    after = {row["run_id"]: row for row in rows(rung.results(), "runs")}
    assert {(row["run_id"], row["value"]) for row in confirmed} <= {(key, row["value"]) for key, row in after.items()}
    through = {row["config_id"] for row in runs if row["status"] == "completed" and row["phase"] == "search"}
    assert all(after[f"{config_id}-s3"]["status"] == "completed" for config_id in through)
    stopped = {row["config_id"] for row in runs if row["status"] == "stopped"}
    assert not any(f"{config_id}-s3" in after for config_id in stopped)


def test_hyperband_runs_a_study_to_its_end(rung: Rung) -> None:
    """It pauses configurations, as synchronous halving does; rules that do not are tried without Ray, too."""
    rung("run", rung.study(scheduler={"name": "hyperband", "grace": 10, "reduction_factor": 2}))
    runs = rows(rung.results(), "runs")
    assert len(runs) == 18
    statuses = {row["status"] for row in runs}
    assert statuses <= {"completed", "stopped"}
    assert "completed" in statuses


def test_ray_workers_in_the_repository_find_python_s_own_platform(rung: Rung) -> None:
    code = f"""
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         runtime_env={{"working_dir": {str(ROOT / "platform")!r}, "env_vars": {{"PYTHONPATH": {str(ROOT)!r}}}}})
@ray.remote
def look():
    import platform, uuid, torch
    return platform.python_version(), platform.__file__
version, file = ray.get(look.remote())
assert "site-packages" not in file and "rung" not in file, file
print("FOUND", version)
"""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env=rung.environment,
    )
    assert "FOUND" in done.stdout, done.stderr
