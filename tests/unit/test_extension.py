"""Studies that have begun: what may be added to them, that it is what a larger study would be, and what is refused."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError, StorageError
from rung.extension import begun_study, extended
from rung.plan import Plan, make_plan
from rung.results.query import load
from rung.results.views import dicts
from rung.study import load_study
from tests.launching import launch, reports, runs

STUDY = """\
study: toy
trainable: tests.toy:Toy
base:
  model.dropout: 0.1
  evaluation: {every: 5}
space:
  optimizer.learning_rate: [1e-3, 1e-2]
seeds: 2
budget: {steps: 20}
metric: {name: validation/loss}
"""
ASHA = "scheduler={name: asha, grace: 5, reduction_factor: 2}"
METRICS = ("validation/loss", "validation/accuracy", "learning_rate", "gradient_norm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(f"{STUDY}storage: {tmp_path / 'results'}\n")
    return path


def going_on(path: Path, *overrides: str) -> tuple[Plan, list[str]]:
    study = load_study(path, overrides)
    begun = begun_study(study.directory)
    assert begun is not None
    return extended(make_plan(study), begun)


PLAIN = "base.model.dropout=0"
WIDER = "space.optimizer.learning_rate=[1e-3, 1e-2, 1e-1]"


@pytest.mark.parametrize(
    ("overrides", "additions"),
    [
        (["seeds=4"], ["seeds: 2 become 4"]),
        ([WIDER], ["1 configuration beside the 2 that are there"]),
        (["budget.steps=40"], ["budget: 20 become 40 steps"]),
        (
            ["seeds=[1, 0, 7]", WIDER, "budget.steps=40"],
            [
                "1 configuration beside the 2 that are there",
                "seeds: 2 become 3",
                "budget: 20 become 40 steps",
            ],
        ),
    ],
)
def test_an_extended_study_becomes_the_larger_one(path: Path, overrides: list[str], additions: list[str]) -> None:
    launch(path)
    assert going_on(path, *overrides)[1] == additions
    study = launch(path, *overrides)
    assert study.notices == tuple(f"new: {each}" for each in additions)
    launch(path, *overrides, "storage=" + str(path.parent / "at-once"))
    directory, larger = study.directory, path.parent / "at-once" / "toy"
    assert reports(directory, *METRICS) == reports(larger, *METRICS)
    ends = ("status", "ended_by", "step", "value", "best", "best_step")
    assert runs(directory, *ends) == runs(larger, *ends)
    messages = [row["message"] for row in dicts(load(directory).events.filter("kind = 'extended'"))]
    assert sorted(messages) == sorted(additions)


def test_more_samples_keep_the_draws_that_are_there(path: Path) -> None:
    drawn = "space.optimizer.learning_rate={loguniform: [1e-3, 1e-1]}"
    launch(path, drawn, "samples=2", most=1)
    plan, additions = going_on(path, drawn, "samples=5")
    assert (len(plan.configurations), additions) == (5, ["3 configurations beside the 2 that are there"])
    with pytest.raises(RungError, match="draw_seed: 0 there, 1 now"):
        going_on(path, drawn, "samples=5", "draw_seed=1")


def test_a_searcher_may_choose_more_but_not_elsewhere(path: Path) -> None:
    space, optuna = "space.optimizer.learning_rate={loguniform: [1e-3, 1e-1]}", "searcher.name=optuna"
    launch(path, space, optuna, "samples=2")
    assert going_on(path, space, optuna, "samples=3")[1] == ["samples: 2 become 3"]
    with pytest.raises(RungError, match="optuna has learnt from this space"):
        going_on(path, space.replace("1e-1", "1"), optuna, "samples=2")


def test_a_longer_budget_goes_on_from_the_checkpoints_that_are_there(path: Path) -> None:
    directory = launch(path).directory
    kept, *_ = sorted((directory / "checkpoints").glob("c*-s0"))
    for folder in sorted((directory / "checkpoints").glob("c*-s*")):
        if folder != kept:
            shutil.rmtree(folder)
    _, additions = going_on(path, "budget.steps=40")
    assert additions[1] == "3 runs have no checkpoint any more and train again from the start, to the same numbers"
    before = {row["reported_at"] for row in dicts(load(directory).metrics) if row["run_id"] == kept.name}
    launch(path, "budget.steps=40")
    again = dicts(load(directory).metrics.filter("step < 20 AND attempt = 2"))
    assert {row["run_id"] for row in again} == set(runs(directory)) - {kept.name}
    after = {row["reported_at"] for row in dicts(load(directory).metrics) if row["run_id"] == kept.name}
    assert before < after  # nothing of it was trained twice


def test_who_was_stopped_stays_stopped_with_the_seeds_it_had(path: Path) -> None:
    rates = "space.optimizer.learning_rate=[1e-4, 1e-3, 1e-2, 1e-1]"
    directory = launch(path, ASHA, rates).directory
    stopped = {row["config_id"] for row in dicts(load(directory).decisions.filter("decision = 'stop'"))}
    assert stopped
    launch(path, ASHA, rates, "seeds=3", "budget.steps=80")
    for row in dicts(load(directory).runs):
        assert (row["status"], row["seed"]) in {("stopped", 0), ("stopped", 1)} or row["config_id"] not in stopped
    first = dicts(load(directory).decisions.filter("attempt = 1").order('"order"'))
    assert [row["order"] for row in first] == list(range(len(first)))


def test_rungs_stand_and_new_ones_lie_above_the_old_budget(path: Path) -> None:
    grace = "scheduler={name: asha, reduction_factor: 2}"
    assert launch(path, grace).plan.rungs == (5, 10, 20)
    plan, _ = going_on(path, grace, "budget.steps=200")
    assert plan.rungs == (5, 10, 40, 80, 200)
    racing = launch(path, grace, "study=racing", "seeds={start: 2, full: 8}")
    assert racing.plan.seed_counts == (2, 4, 8)
    longer = (grace, "study=racing", "seeds={start: 2, full: 8}", "budget.steps=200")
    assert going_on(path, *longer)[0].seed_counts == (2, 4, 8, 8, 8)
    launch(path, *longer, most=0)
    assert going_on(path, *longer)[0].seed_counts == (2, 4, 8, 8, 8)
    with pytest.raises(RungError, match="seeds join the race in their order"):
        going_on(path, *longer, "seeds={start: 2, full: [1, 0, 2, 3, 4, 5, 6, 7]}")


@pytest.mark.parametrize(
    "overrides",
    [
        ["resources.concurrent=1"],
        ["seeds=[1, 0]"],
        ["checkpoints.keep=all"],
        ["failures.retries=0"],
        ["base.batch_size=8"],  # the default
        ["base.model.width=4.0"],
        ["space.optimizer={learning_rate: {grid: [1e-3, 1e-2]}}"],
        ["metric.mode=min"],
        ["seeds=[0, 1]"],
    ],
)
def test_the_same_study_written_otherwise_has_nothing_new(path: Path, overrides: list[str]) -> None:
    launch(path)
    assert going_on(path, *overrides)[1] == []


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("base.batch_size=4", r"base\.batch_size: 8 there, 4 now \(2 of the 2 configurations there would not be"),
        ("seeds=[0, 2]", r"seeds: \[0, 1\] there, \[0, 2\] now \(its runs with seed 1 are there\)"),
        ("space.optimizer.learning_rate=[1e-3]", r"learning_rate.grid: .* \(1 of the 2 configurations"),
        ("budget.steps=10", r"budget\.steps: 20 there, 10 now \(runs have been trained beyond it\)"),
        ("budget={tokens: 20}", r"budget: 'steps' there, 'tokens' now \(runs there have ended by the other\)"),
        ("metric.select=best", "metric.select: 'last' there, 'best' now .values and decisions there were made by"),
        ("scheduler.name=asha", "scheduler.name: 'fifo' there, 'asha' now .decisions there were made by the other"),
        ("replication=packed", "replication: 'serial' there, 'packed' now .it changes numbers"),
        ("resources.gpus=1", r"resources.gpus: 0.0 there, 1.0 now \(a GPU computes other numbers than a CPU\)"),
    ],
)
def test_what_would_give_rows_another_meaning_is_refused(path: Path, override: str, complaint: str) -> None:
    launch(path, PLAIN)
    before = sorted(each.read_bytes() for each in path.parent.rglob("*.json"))
    with pytest.raises(RungError, match=complaint) as caught:
        launch(path, PLAIN, override)
    assert "Give this one another name (study: ...)" in str(caught.value)
    assert sorted(each.read_bytes() for each in path.parent.rglob("*.json")) == before


def test_other_rungs_and_another_start_of_the_race_are_refused(path: Path) -> None:
    racing = "seeds={start: 1, full: 2}"
    launch(path, ASHA, racing)
    for change, why in (("scheduler.grace=10", "the rungs stand"), ("seeds=2", "decided with so many seeds")):
        with pytest.raises(RungError, match=re.escape(why)):
            going_on(path, ASHA, racing, change)


def test_a_schedule_over_the_whole_budget_cannot_be_made_longer(path: Path) -> None:
    cosine = "base.schedule.kind=cosine"
    launch(path, cosine)
    with pytest.raises(RungError, match=r"budget.steps: 20 there, 40 now \(the cosine schedule has no length"):
        going_on(path, cosine, "budget.steps=40")
    launch(path, cosine, "base.schedule.length=20", "study=fixed")
    assert going_on(path, cosine, "base.schedule.length=20", "study=fixed", "budget.steps=40")[1]


def test_another_number_of_threads_is_said(path: Path) -> None:
    launch(path)
    (notice,) = going_on(path, "resources.cpus=2")[1]
    assert notice == "threads: 1 become 2, which changes the last bits of what is trained from here on"


def test_another_number_of_workers_is_said(path: Path) -> None:
    launch(path)
    (notice,) = going_on(path, "resources.workers=2")[1]
    assert notice == "workers: 1 become 2, which changes last bits and dropout masks of what is trained from here on"


def test_what_hyperband_has_dealt_stays(path: Path) -> None:
    rule = "scheduler={name: hyperband, grace: 5, reduction_factor: 2}"
    launch(path, rule)
    for change in (WIDER, "budget.steps=40"):
        with pytest.raises(RungError, match="hyperband has dealt the configurations to brackets"):
            going_on(path, rule, change)
    assert going_on(path, rule, "seeds=3")[1] == ["seeds: 2 become 3"]


@pytest.mark.parametrize("select", ["last", "best", "mean_of_last"])
def test_an_old_end_between_evaluations_leaves_no_trace_in_values(path: Path, select: str) -> None:
    rule = (f"metric.select={select}", "metric.window=3", "base.evaluation.every=7")
    directory = launch(path, *rule).directory
    launch(path, *rule, "budget.steps=40")
    launch(path, *rule, "budget.steps=40", f"storage={path.parent / 'at-once'}")
    ends = ("status", "ended_by", "step", "value", "best", "best_step")
    assert runs(directory, *ends) == runs(path.parent / "at-once" / "toy", *ends)


def test_a_target_that_may_have_been_met_between_evaluations_fixes_the_budget(path: Path) -> None:
    target = "budget.target={value: 0.001}"
    launch(path, target, "base.evaluation.every=7")
    with pytest.raises(RungError, match="may have met the target at their end, which was no evaluation point"):
        going_on(path, target, "base.evaluation.every=7", "budget.steps=40")


@pytest.mark.parametrize("lose", [lambda path: path.write_text("{"), Path.unlink])
def test_rows_without_a_readable_study_json_are_nobody_s(path: Path, lose: Any) -> None:
    directory = launch(path).directory
    lose(directory / "study.json")
    with pytest.raises(StorageError, match=r"cannot read .*study\.json.*put a copy of it there"):
        launch(path, "metric.name=validation/accuracy")


def test_a_value_that_moves_from_base_into_space_makes_a_wider_space(path: Path) -> None:
    directory = launch(path).directory
    launch(path, "space.model.dropout=[0.1, 0.2]")
    rows: list[dict[str, Any]] = dicts(load(directory).configurations)
    assert len(rows) == 4
    assert all("dropout=" in row["label"] for row in rows)  # labels are those of the wider space


def test_another_confirmation_is_new(path: Path) -> None:
    launch(path)
    confirm = "confirm={top: 1, seeds: 4}"
    assert going_on(path, confirm)[1] == ["confirmation of the best 1 with 4 fresh seeds each"]
    launch(path, confirm, most=0)
    assert going_on(path, confirm)[1] == []
    assert going_on(path, "confirm=null")[1] == ["nothing is confirmed any more; what was stays in the tables"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the user's own; forgotten afterwards, or others would find it imported."""
    own = tmp_path / "code" / "own_toy.py"
    own.parent.mkdir()
    own.write_text("from tests.toy import Toy as Own\n")
    monkeypatch.syspath_prepend(own.parent)
    yield own
    sys.modules.pop("own_toy", None)


def test_code_that_has_changed_is_named(path: Path, own: Path) -> None:
    own_study = ("trainable=own_toy:Own", "study=own")
    launch(path, *own_study)
    assert launch(path, *own_study).notices == ()
    own.write_text("from tests.toy import Toy as Own  # edited\n")
    (notice,) = launch(path, *own_study, "seeds=2").notices
    assert notice.startswith(
        "not as it was at the last launch: own_toy.py. What is trained from here on may have other"
    )
