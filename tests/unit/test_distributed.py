"""Several processes that train one run together, without Ray: two of them, over gloo, on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rung.errors import RungError, StorageError, StudyError
from rung.results.query import load
from rung.study import Study, load_study
from rung.training.assignment import Assignment, Goal
from rung.training.distributed import _Averaged
from rung.training.replication import start
from rung.training.run import Run
from rung.training.team import Alone
from rung.tuning.capacity import check_resources, groups_that_fit, local_cores
from rung.tuning.group_replication import GroupReplication
from rung.tuning.mailbox import Advance, Begin, Complaint, Order, State
from rung.tuning.worker_group import WorkerGroup, WorkersLost
from tests.team import Job, train_together
from tests.toy import Toy, ToyConfig

STEPS = 20
JOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "uneven": {"batch_size": 9, "accumulation": 2},
    "dropout": {"model": {"dropout": 0.3}},
    "interrupted": {"model": {"dropout": 0.3}},
    "diverging": {"diverge_for_seed": 1},
    "raising": {"raise_for_seed": 1},
    "past_the_team": {},
    "by_the_clock": {},
}
"""What differs from the toy's defaults."""


def assignment(directory: Path, name: str) -> Assignment:
    config = ToyConfig.model_validate({"evaluation": {"every": 5}, **JOBS[name]})
    return Assignment(
        directory=str(directory / name),
        study=name,
        trainable="tests.team:PastTheTeam" if name == "past_the_team" else "tests.toy:Toy",
        config_id="c000000000001",
        config=config.model_dump(mode="json"),
        seeds=(0, 1),
        goal=Goal("steps", STEPS, "validation/loss", "min", wall_clock=0.01 if name == "by_the_clock" else None),
        checkpoint_seconds=60.0,
    )


class Trained:
    """What two processes have trained, each job in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        jobs = [Job(assignment(directory, name), (12 if name == "interrupted" else STEPS,)) for name in JOBS]
        jobs.append(Job(assignment(directory, "interrupted"), (STEPS,)))
        rows = train_together(jobs, workers=2)
        self.rows = dict(zip([*JOBS, "interrupted"], rows, strict=True))

    def reports(self, name: str) -> dict[tuple[int, int], tuple[float, ...]]:
        return reports(self.directory / name)


def reports(directory: Path) -> dict[tuple[int, int], tuple[float, ...]]:
    """By seed and step: what was reported."""
    columns = 'seed, step, "validation/loss", "batch/mse", gradient_norm, tokens'
    rows = load(directory).metrics.filter("step > 0").select(columns).fetchall()
    return {(seed, step): tuple(values) for seed, step, *values in rows}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("name", ["plain", "uneven"])
def test_the_curve_is_that_of_one_process_within_rounding(trained: Trained, name: str, tmp_path: Path) -> None:
    alone = start(assignment(tmp_path, name))
    assert [row["workers"] for row in alone.advance(STEPS)] == [1, 1]
    alone.close()
    expected, found = reports(tmp_path / name), trained.reports(name)
    assert found.keys() == expected.keys()
    assert len(found) == 2 * STEPS / 5
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=2e-6), key
    assert [row["workers"] for row in trained.rows[name]] == [2, 2]


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_been_interrupted(trained: Trained) -> None:
    whole, interrupted = trained.reports("dropout"), trained.reports("interrupted")
    assert {key: interrupted[key] for key in whole} == whole
    assert interrupted.keys() - whole.keys() == {(0, 12), (1, 12)}  # where it was stopped it was evaluated
    assert {row["attempt"] for row in trained.rows["interrupted"]} == {2}


def test_each_process_draws_dropout_masks_of_its_own() -> None:
    class Rank(Alone):
        def __init__(self, rank: int) -> None:
            self.rank = rank

    def masks(rank: int, step: int) -> torch.Tensor:
        config = ToyConfig.model_validate(JOBS["dropout"])
        run = Run(Toy(config, seed=3), "run", Goal("steps", STEPS, "validation/loss", "min"), Rank(rank))
        run.progress.step = step
        run.draw_apart()
        return torch.rand(8, generator=run.generator)

    drawn = [masks(rank, step) for rank, step in ((0, 4), (1, 4), (2, 4), (1, 5))]
    assert len({tuple(each.tolist()) for each in drawn}) == 4
    assert torch.equal(masks(1, 4), masks(1, 4))


def test_divergence_is_agreed_on(trained: Trained) -> None:
    first, second = trained.rows["diverging"]
    assert (first["status"], first["step"]) == ("completed", STEPS)
    assert (second["status"], second["diverged_step"]) == ("diverged", 3)


def test_all_go_by_the_same_clock(trained: Trained) -> None:
    """Else one process would wait for ever for another that has left the loop."""
    assert {row["ended_by"] for row in trained.rows["by_the_clock"]} == {"wall_clock"}


def test_a_run_that_raises_in_every_process_fails_alone(trained: Trained) -> None:
    first, second = trained.rows["raising"]
    assert (first["status"], first["step"]) == ("completed", STEPS)
    assert second["status"] == "failed"
    assert "the toy raises for seed 1" in second["error"]


def test_weights_that_come_apart_are_noticed(trained: Trained) -> None:
    for row in trained.rows["past_the_team"]:
        assert row["status"] == "failed"
        assert "must call the model it is given" in row["error"]


def test_a_loss_may_look_at_the_model_but_not_call_its_parts() -> None:
    class Model(nn.Module):
        length = 7

        def hidden(self) -> None:
            pass

    model = _Averaged(Model(), torch.device("cpu"))
    assert model.length == 7
    with pytest.raises(RungError, match=r"the loss calls hidden\(\) of the model"):
        model.hidden()
    with pytest.raises(AttributeError, match="nothing"):
        _ = model.nothing


# ------------------------------------------------------------------------------------- what the end of workers means


class Script(WorkerGroup):
    """A group whose workers end as it stands written, instead of real ones; the integration test kills those."""

    def __init__(self, *ends: WorkersLost) -> None:
        self.ends = list(ends)
        self.orders: list[Order] = []
        self.greeting = None

    def ask(self, order: Order) -> State:
        self.orders.append(order)
        if self.ends and isinstance(order, Advance):
            raise self.ends.pop(0)
        return State()


DEATH = WorkersLost("rank 1: actor died", [Complaint(0, "RuntimeError: connection closed", seed=0)], silent=[1])


def test_after_a_death_other_workers_begin_again_and_go_on(tmp_path: Path) -> None:
    group = Script(DEATH)
    replication = GroupReplication(group, assignment(tmp_path, "plain"), retries=1)
    replication.advance(10, 2)
    assert [type(order).__name__ for order in group.orders] == ["Begin", "Advance", "Begin", "Advance"]
    assert replication.failed == {}  # that the other one could not go on alone was no error of its run
    (restart,) = replication.restarts()
    assert restart.startswith("a worker died (rank 1)")
    assert replication.restarts() == []


def test_workers_that_die_too_often_are_given_up(tmp_path: Path) -> None:
    replication = GroupReplication(Script(DEATH, DEATH), assignment(tmp_path, "plain"), retries=1)
    with pytest.raises(RungError, match="died too often, last of them rank 1"):
        replication.advance(10, 2)


def test_a_run_that_raises_in_one_worker_alone_fails_and_the_others_go_on(tmp_path: Path) -> None:
    group = Script(WorkersLost("", [Complaint(1, "MemoryError: none left", seed=1), Complaint(0, "lost", seed=1)], []))
    replication = GroupReplication(group, assignment(tmp_path, "plain"), retries=0)
    replication.advance(10, 2)
    assert replication.failed == {1: "MemoryError: none left"}
    begun = [order for order in group.orders if isinstance(order, Begin)]
    assert [order.failed for order in begun] == [{}, {1: "MemoryError: none left"}]


def test_the_runs_are_opened_anew_only_for_failures_that_are_news(tmp_path: Path) -> None:
    group = Script()
    replication = GroupReplication(group, assignment(tmp_path, "plain"), retries=1)
    first, failed = Begin(assignment(tmp_path, "plain"), {}), {1: "MemoryError: none left"}
    replication.give_up({})
    assert group.orders == [first]
    for _ in range(2):
        replication.give_up(failed)
        assert group.orders == [first, dataclasses.replace(first, failed=failed)]


def test_storage_that_cannot_be_written_is_no_death(tmp_path: Path) -> None:
    group = Script(WorkersLost("", [Complaint(0, "the disk is full", is_storage=True)], []))
    replication = GroupReplication(group, assignment(tmp_path, "plain"), retries=1)
    with pytest.raises(StorageError, match="the disk is full"):
        replication.advance(10, 2)


# -------------------------------------------------------------------------------------------- what a study may ask for


def study(tmp_path: Path, *changes: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: s\ntrainable: tests.toy:Toy\nseeds: 2\nbudget: {steps: 9}\nmetric: {name: validation/loss}\n"
    )
    return load_study(path, changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("resources.workers=2", "resources.gpus=0.5"), "2 workers cannot have 0.5 GPUs each"),
        (("resources.workers=2", "resources.gpus=2"), "2 workers cannot have 2 GPUs each"),
        (("resources.workers=2", "replication=packed"), "several workers train one seed together"),
        (("resources.workers=2", "trainable=tests.unit.test_distributed:Whole"), "Whole does not say how"),
    ],
)
def test_what_workers_cannot_do_is_refused_in_the_plan(tmp_path: Path, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study(tmp_path, *changes)


class Whole(Toy):
    """A toy whose batches cannot be split."""

    parts = Toy.__mro__[1].parts


def test_more_than_there_is_is_refused_before_anything_starts(tmp_path: Path) -> None:
    asked = study(tmp_path, "resources.workers=4", "resources.cpus=2")
    with pytest.raises(RungError, match=r"asks for 8 CPUs \(4 workers with 2 each\), but this Ray has 2"):
        check_resources(asked, {"CPU": 2.0})
    check_resources(asked, {"CPU": 8.0})


def test_as_many_groups_train_at_a_time_as_fit_onto_the_machines(tmp_path: Path) -> None:
    asked = study(tmp_path, "resources.workers=2", "resources.cpus=3")
    assert groups_that_fit(asked, [{"CPU": 8.0}, {"CPU": 8.0}]) == 2
    assert groups_that_fit(asked, [{"CPU": 3.0}, {"CPU": 4.0}]) == 1
    with pytest.raises(RungError, match="have room for 1 of them"):
        groups_that_fit(asked, [{"CPU": 5.0}, {"CPU": 2.0}])  # 7 CPUs, but no worker is spread over machines
    with_gpus = study(tmp_path, "resources={workers: 2, gpus: 1}")
    assert groups_that_fit(with_gpus, [{"CPU": 64.0, "GPU": 4.0}, {"CPU": 8.0}]) == 2
    capped = study(tmp_path, "resources={workers: 2, concurrent: 1}")
    assert groups_that_fit(capped, [{"CPU": 64.0}]) == 1
    assert local_cores(capped) <= 2
