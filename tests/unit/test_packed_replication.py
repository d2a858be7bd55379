"""Packed replication as a study asks for it: planned, trained, recorded, resumed, and refused where it cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError, StorageError, StudyError
from rung.plan import make_plan
from rung.results.query import load
from rung.results.views import dicts
from rung.study import load_study
from rung.training.assignment import Assignment
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.replication import start
from rung.tuning.goal import assignment_of
from rung.tuning.study_directory import write_study

STUDY = """\
study: packed
trainable: tests.toy:Toy
base:
  evaluation: {first: 2, every: 5}
space:
  model.width: [4]
seeds: 3
replication: packed
budget: {steps: 12}
metric: {name: validation/loss}
checkpoints: {seconds: 0}
"""


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    path = tmp_path / "packed.yaml"
    path.write_text(STUDY)
    study = load_study(path, [f"storage={tmp_path}"])
    plan = make_plan(study)
    write_study(study.directory, study, plan, STUDY)
    return assignment_of(study, plan, plan.configurations[0])


def changed(assignment: Assignment, **values: Any) -> Assignment:
    return dataclasses.replace(assignment, config={**assignment.config, **values})


def trained(assignment: Assignment, *levels: int) -> list[dict[str, Any]]:
    replication = start(assignment)
    try:
        return [replication.advance(level) for level in levels][-1]
    finally:
        replication.close()


def test_a_study_is_trained_rung_by_rung_and_its_rows_say_how(assignment: Assignment) -> None:
    rows = trained(assignment, 4, 12)
    assert [(row["seed"], row["status"], row["step"]) for row in rows] == [(s, "completed", 12) for s in range(3)]
    assert {row["replication"] for row in rows} == {"packed"}
    metrics = dicts(load(Path(assignment.directory)).metrics)
    reported = sorted((row["seed"], row["step"]) for row in metrics)
    assert reported == [(seed, step) for seed in range(3) for step in (0, 1, 2, 4, 5, 10, 12)]
    assert all(latest_checkpoint(assignment.checkpoints(seed)) for seed in range(3))


def test_it_goes_on_from_its_checkpoints_to_the_same_numbers(assignment: Assignment) -> None:
    expected = trained(dataclasses.replace(assignment, config_id="c000000000000"), 12)
    trained(assignment, 5)
    rows = trained(assignment, 12)
    assert [row["value"] for row in rows] == [row["value"] for row in expected]


def test_seeds_that_join_later_train_up_to_the_others(assignment: Assignment) -> None:
    expected = trained(dataclasses.replace(assignment, config_id="c000000000000"), 12)
    replication = start(assignment)
    assert [(row["seed"], row["step"]) for row in replication.advance(4, seeds=1)] == [(0, 4)]
    assert [(row["seed"], row["step"]) for row in replication.advance(8, seeds=2)] == [(0, 8), (1, 8)]
    assert not replication.has_ended
    rows = replication.advance(12)
    replication.close()
    assert [row["value"] for row in rows] == [row["value"] for row in expected]


def test_serial_goes_on_where_a_pack_stopped(assignment: Assignment) -> None:
    packed = trained(assignment, 5)
    serial = trained(dataclasses.replace(assignment, replication="serial"), 12)
    assert [row["step"] for row in packed] == [5, 5, 5]
    assert [(row["step"], row["replication"]) for row in serial] == [(12, "serial")] * 3


def test_runs_that_fail_or_diverge_do_not_take_the_others_along(assignment: Assignment) -> None:
    expected = {row["seed"]: row for row in trained(assignment, 12)}
    other = changed(assignment, raise_for_seed=0, diverge_for_seed=1)
    rows = trained(dataclasses.replace(other, config_id="c000000000000"), 6, 12)
    assert [(row["status"], row["step"]) for row in rows] == [("failed", 3), ("diverged", 3), ("completed", 12)]
    assert "the toy raises for seed 0" in str(rows[0]["error"])
    assert rows[2]["value"] == expected[2]["value"]


def test_a_full_disk_ends_everything(assignment: Assignment) -> None:
    with pytest.raises(StorageError, match="disk is full"):
        trained(changed(assignment, fill_disk_at=4), 12)


def test_solo_tells_the_first_error(assignment: Assignment) -> None:
    replication = start(changed(assignment, raise_for_seed=1), catch=False)
    with pytest.raises(ArithmeticError, match="seed 1"):
        replication.advance(12)
    replication.close()


def test_what_cannot_be_packed_is_refused_with_its_line(tmp_path: Path, assignment: Assignment) -> None:
    path = tmp_path / "dropout.yaml"
    path.write_text(STUDY.replace("model.width: [4]", "model.dropout: [0.0, 0.1, 0.2]"))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    (message,) = str(caught.value).splitlines()
    assert message.startswith(f"{path}:8: replication: runs cannot be trained together in 2 of 3 configurations")
    assert message.endswith("dropout draws its masks run by run (replication: serial)")
    with pytest.raises(RungError, match=r"dropout draws .* use replication: serial"):
        trained(changed(assignment, model={"width": 4, "dropout": 0.5}), 12)


def test_modular_arithmetic_says_that_dropout_cannot_be_packed() -> None:
    from trainables.modular_arithmetic import ModularArithmetic
    from trainables.modular_arithmetic.config import ModularArithmeticConfig

    config = ModularArithmeticConfig.model_validate({"model": {"dropout": 0.1}})
    assert ModularArithmetic.packing_obstacle(config) == "dropout draws its masks run by run"
    assert ModularArithmetic.packing_obstacle(ModularArithmeticConfig()) is None


def test_a_loss_that_cannot_be_mapped_fails_its_runs_with_what_to_do(assignment: Assignment) -> None:
    rows = trained(dataclasses.replace(assignment, trainable="tests.unit.test_packed:Looks"), 12)
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert all(str(row["error"]).endswith("whether the error is another one") for row in rows)
