"""Stages: studies whose runs start from the checkpoints of another study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rung.errors import RungError, StudyError
from rung.plan import make_plan
from rung.results.query import load
from rung.results.views import dicts
from rung.start import UNKNOWN, assumed, stage_study
from rung.study import Study, load_study
from rung.training.checkpoint_files import TENSORS, latest_checkpoint
from rung.tuning.replay import replay
from rung.tuning.study_directory import open_study
from tests.launching import launch, reports, runs, train_search

FIRST: dict[str, Any] = {
    "study": "first",
    "trainable": "tests.toy:Toy",
    "base": {"evaluation": {"every": 10}},
    "space": {"model.width": [3, 6]},
    "seeds": 2,
    "budget": {"steps": 20},
    "metric": {"name": "validation/loss"},
    "checkpoints": {"keep": "all", "seconds": 0},
}
SECOND: dict[str, Any] = {
    "study": "second",
    "trainable": "tests.toy:Toy",
    "start": {"study": "first"},
    "base": {"evaluation": {"every": 10}},
    "seeds": 2,
    "budget": {"steps": 10},
    "metric": {"name": "validation/loss"},
    "checkpoints": {"keep": "all"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the first study in it."""
    storage = tmp_path_factory.mktemp("storage")
    launch(write(storage, FIRST))
    return storage


@pytest.fixture
def storage(trained: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "results"
    shutil.copytree(trained, copy)
    return copy


def write(storage: Path, study: dict[str, Any], **changes: Any) -> Path:
    path = storage.parent / f"{study['study']}.yaml"
    path.write_text(yaml.safe_dump({**study, "storage": str(storage), **changes}))
    return path


def stage(path: Path, *overrides: str) -> Study:
    return stage_study(load_study(path, overrides))


def weights(storage: Path, study: str, run_id: str) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(storage / study / "checkpoints" / run_id)
    assert checkpoint is not None
    tensors = load_file(checkpoint / TENSORS)
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model/")}


def best(storage: Path) -> str:
    return load(storage / "first").summary()[0].config_id


def test_every_seed_starts_from_the_same_seed_of_the_best(storage: Path) -> None:
    study = stage(write(storage, SECOND, budget={"steps": 0}))
    (only,) = make_plan(study).configurations
    assert only.config.start is not None
    assert only.config.start.configuration == best(storage)
    launch(storage.parent / "second.yaml")
    assert set(runs(storage / "second", "status", "step").values()) == {("completed", 0)}
    for seed in (0, 1):
        before = weights(storage, "first", f"{best(storage)}-s{seed}")
        after = weights(storage, "second", f"{only.config_id}-s{seed}")
        assert all(torch.equal(before[name], after[name]) for name in before)
        ends = reports(storage / "first", "validation/loss")[f"{best(storage)}-s{seed}", 20]
        assert reports(storage / "second", "validation/loss")[f"{only.config_id}-s{seed}", 0] == ends


def test_training_goes_on_from_there_and_is_replayed(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(write(storage, SECOND))
    losses = reports(storage / "second", "validation/loss")
    run_id = next(iter(losses))[0]
    assert losses[run_id, 10] < losses[run_id, 0]
    monkeypatch.setenv("RUNG_STORAGE", str(storage))
    report = replay(run_id, str(storage / "second"), print, present=True)
    assert not isinstance(report, int)
    assert report.is_identical


def test_what_the_weights_decide_is_taken_over_and_what_the_study_says_lies_above(storage: Path) -> None:
    width = {row["config_id"]: row["config.model.width"] for row in dicts(load(storage / "first").configurations)}
    (only,) = make_plan(stage(write(storage, SECOND, base={"batch_size": 5}))).configurations
    assert only.config.model.width == width[best(storage)]  # type: ignore[attr-defined]
    assert only.config.batch_size == 5  # type: ignore[attr-defined]
    launch(write(storage, SECOND, base={"model.width": 5}))
    errors = {error for (error,) in runs(storage / "second", "error").values()}
    assert all("checkpoint of another shape: weight is" in error and "and 5 here" in error for error in errors)


def test_the_best_several_are_a_dimension_each_with_what_it_takes_over(storage: Path) -> None:
    start = {"study": "first", "configuration": {"top": 2}}
    path = write(storage, SECOND, start=start, space={"optimizer.learning_rate": [0.01, 0.1]})
    planned = make_plan(stage(path)).configurations
    assert len(planned) == 4
    assert {each.config.model.width for each in planned} == {3, 6}  # type: ignore[attr-defined]
    assert all(each.label.startswith("start=c") or each.label.startswith("c") for each in planned)
    launch(path, "seeds=1", "budget.steps=0")
    assert {status for (status,) in runs(storage / "second", "status").values()} == {"completed"}


@pytest.mark.parametrize("name", ["id", "beginning", "label"])
def test_one_configuration_by_name(storage: Path, name: str) -> None:
    worst = load(storage / "first").summary()[-1]
    chosen = {"id": worst.config_id, "beginning": worst.config_id[:6], "label": worst.label}[name]
    (only,) = make_plan(stage(write(storage, SECOND, start={"study": "first", "configuration": chosen}))).configurations
    assert only.config.start is not None
    assert only.config.start.configuration == worst.config_id


def test_other_weights_make_another_study_and_the_old_one_stays(storage: Path) -> None:
    path = write(storage, SECOND)
    launch(path, "seeds=1")
    launch(path)  # nothing has changed, so the other seed joins
    before = runs(storage / "second", "value")
    assert len(before) == 2
    shutil.rmtree(storage / "first")
    launch(write(storage, FIRST, base={"evaluation": {"every": 10}, "noise": 0.2}))
    study = stage(path)
    assert study.study.startswith("second-")
    assert study.study == stage(path).study
    launch(path)
    after = runs(study.directory, "value")
    assert len(after) == 2
    assert not after.keys() & before.keys()
    assert runs(storage / "second", "value") == before


def test_other_weights_of_one_of_several_make_another_study(storage: Path) -> None:
    path = write(storage, SECOND, start={"study": "first", "configuration": {"top": 2}}, seeds=1)
    launch(path)
    assert stage(path).study == "second"
    launch(write(storage, FIRST, budget={"steps": 30}))  # the same configurations, trained on
    study = stage(path)
    assert study.study.startswith("second-")
    assert study.study == stage(path).study


def test_a_run_begins_with_no_other_weights_than_were_planned(storage: Path) -> None:
    study = stage(write(storage, SECOND, seeds=1))
    checkpoint = latest_checkpoint(storage / "first" / "checkpoints" / f"{best(storage)}-s0")
    assert checkpoint is not None
    tensors = load_file(checkpoint / TENSORS)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, checkpoint / TENSORS)
    opened = open_study(study.directory.resolve(), study, make_plan(study), "")
    train_search(opened)
    ((status, error),) = runs(study.directory, "status", "error").values()
    assert status == "failed"
    assert "it has changed since" in error


def test_a_study_that_starts_from_none_that_has_run_can_be_planned(tmp_path: Path) -> None:
    first, second = (load_study(write(tmp_path, each)) for each in (FIRST, SECOND))
    study = assumed(second, make_plan(first))
    (only,) = make_plan(study).configurations
    assert only.config.start is not None
    assert only.config.start.weights == UNKNOWN
    assert only.config.model.width == 3  # type: ignore[attr-defined]


def test_what_is_missing_is_said(storage: Path) -> None:
    with pytest.raises(RungError, match="second starts from nowhere, which has not been run"):
        stage(write(storage, SECOND, start={"study": "nowhere"}))
    with pytest.raises(RungError, match="cannot start from itself"):
        stage(write(storage, SECOND, start={"study": "second"}))
    with pytest.raises(RungError, match=r"left no checkpoint: c\w+-s2, c\w+-s3\. Run first with as many seeds"):
        stage(write(storage, SECOND, seeds=4))
    with pytest.raises(RungError, match=r"left no checkpoint: c\w+-s1000000000-confirm"):
        stage(write(storage, SECOND, confirm={"top": 1, "seeds": 1}))
    with pytest.raises(RungError, match="has no configuration 'cfff'"):
        stage(write(storage, SECOND, start={"study": "first", "configuration": "cfff"}))
    with pytest.raises(RungError, match=r"the best 3 of first: 2 came to their end"):
        stage(write(storage, SECOND, start={"study": "first", "configuration": {"top": 3}}))
    with pytest.raises(StudyError, match="top"):
        load_study(write(storage, SECOND, start={"study": "first", "configuration": {"top": 0}}))
    launch(write(storage, {**FIRST, "study": "half"}), most=1)
    with pytest.raises(RungError, match="half has not come to its end"):
        stage(write(storage, SECOND, start={"study": "half"}))


def test_nothing_is_compared_in_0_steps(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing is trained in 0 steps"):
        load_study(write(tmp_path, SECOND, budget={"steps": 0}, scheduler={"name": "asha"}))
