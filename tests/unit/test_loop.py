"""The training loop: evaluation points, budgets, exact resume, divergence; nothing disturbs a run's numbers."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.errors import StorageError
from rung.training.assignment import Goal, Target
from rung.training.checkpoint_files import MARKER, STATE, TENSORS, latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint, save_model
from rung.training.loop import NullRecorder, train
from rung.training.run import Report, Run
from tests.toy import Toy, ToyConfig

GOAL = Goal(unit="steps", amount=30, metric="validation/loss", mode="min")
CONFIG = ToyConfig.model_validate({"evaluation": {"first": 3, "every": 10}, "model": {"dropout": 0.2}})


class Memory(NullRecorder):
    """Keeps reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, run: Run, report: Report) -> None:
        self.reports.append(report)

    @property
    def numbers(self) -> list[tuple[int, dict[str, float]]]:
        return [(report.step, report.metrics) for report in self.reports]


def make_run(config: ToyConfig = CONFIG, seed: int = 0, goal: Goal = GOAL) -> Run:
    return Run(Toy(config, seed), f"c-s{seed}", goal)


def straight(config: ToyConfig = CONFIG, seed: int = 0, goal: Goal = GOAL) -> tuple[Run, Memory]:
    run, memory = make_run(config, seed, goal), Memory()
    train(run, math.inf, memory)
    return run, memory


def with_changes(config: ToyConfig, **changes: Any) -> ToyConfig:
    return ToyConfig.model_validate({**config.model_dump(), **changes})


def test_evaluates_at_the_first_steps_then_periodically_and_at_the_end() -> None:
    run, memory = straight(goal=replace(GOAL, amount=25))
    assert [report.step for report in memory.reports] == [0, 1, 2, 3, 10, 20, 25]
    assert run.progress.ended_by == "budget"
    assert run.progress.status == "completed"


def test_takes_exactly_the_steps_of_the_budget() -> None:
    run, _ = straight()
    assert run.progress.step == 30


def test_same_seed_same_numbers_other_seed_other_numbers() -> None:
    assert straight()[1].numbers == straight()[1].numbers
    assert straight(seed=1)[1].numbers != straight()[1].numbers


def test_a_neighbour_in_the_same_process_changes_nothing() -> None:
    run, other, memory = make_run(), make_run(seed=5), Memory()
    for level in range(1, 31):
        train(run, level, NullRecorder() if level % 10 and level > 3 else memory)
        train(other, level, NullRecorder())
        torch.rand(level)  # the global generator is nobody's
    assert {step: m["validation/loss"] for step, m in memory.numbers} == {
        step: m["validation/loss"] for step, m in straight()[1].numbers if step in dict(memory.numbers)
    }


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("stop", [1, 13, 29])
def test_resumed_equals_uninterrupted(kind: str, stop: int, tmp_path: Path) -> None:
    config = with_changes(CONFIG, optimizer={"kind": kind, "learning_rate": 0.02, "weight_decay": 0.1})
    expected, reports = straight(config)
    first, before = make_run(config), Memory()
    train(first, stop, before)
    save_checkpoint(first, tmp_path)

    second, after = make_run(config), Memory()
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    load_checkpoint(second, checkpoint)
    train(second, math.inf, after)

    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    joined = dict(before.numbers) | dict(after.numbers)
    for step, metrics in reports.numbers:
        assert joined[step] == metrics, step


def test_a_checkpoint_between_two_evaluations_of_one_step_does_not_repeat_the_evaluation(
    tmp_path: Path,
) -> None:
    run, memory = make_run(), Memory()
    train(run, 10, memory)
    save_checkpoint(run, tmp_path)
    again = make_run()
    load_checkpoint(again, latest_checkpoint(tmp_path) or tmp_path)
    train(again, 20, memory)
    steps = [report.step for report in memory.reports]
    assert steps == sorted(set(steps))


class SavesAfterStep(Memory):
    """Checkpoints right after an update, before the evaluation that may follow it."""

    def __init__(self, step: int, directory: Path) -> None:
        super().__init__()
        self.step, self.directory = step, directory

    def after_step(self, run: Run) -> None:
        if run.progress.step == self.step:
            save_checkpoint(run, self.directory)


def test_resuming_between_an_update_and_its_evaluation_loses_nothing_of_the_report(tmp_path: Path) -> None:
    expected = dict(straight()[1].numbers)
    train(make_run(), 12, SavesAfterStep(10, tmp_path))
    run, memory = make_run(), Memory()
    load_checkpoint(run, latest_checkpoint(tmp_path) or tmp_path)
    train(run, math.inf, memory)
    assert memory.numbers[0] == (10, expected[10])
    assert dict(memory.numbers).items() <= expected.items()


@pytest.mark.parametrize("select", ["last", "best", "mean_of_last"])
def test_rungs_off_the_schedule_leave_value_best_and_target_alone(select: Any) -> None:
    _, memory = straight()
    losses = [report.metrics["validation/loss"] for report in memory.reports]
    goal = replace(GOAL, select=select, window=2, target=Target("validation/loss", losses[-2], "min"))
    plain, _ = straight(goal=goal)
    run = make_run(goal=goal)
    for level in (4, 13, 17, 19, 23, 30):
        train(run, level, NullRecorder())
    progress, other = run.progress, plain.progress
    for name in ("step", "value", "best", "best_step", "recent", "ended_by", "status"):
        assert getattr(progress, name) == getattr(other, name), name


def test_a_run_whose_metric_is_not_finite_has_diverged(tmp_path: Path) -> None:
    run, memory = straight(with_changes(CONFIG, blow_up_for_seed=0))
    assert (run.progress.status, run.progress.ended_by, run.progress.value) == ("diverged", "divergence", None)
    assert (memory.reports[-1].step, memory.reports[-1].finite("validation/loss")) == (10, None)


def test_what_a_recorder_takes_is_no_training_time() -> None:
    class Slow(NullRecorder):
        def after_step(self, run: Run) -> None:
            time.sleep(0.02)

        def report(self, run: Run, report: Report) -> None:
            time.sleep(0.02)

    run = make_run()
    started = time.perf_counter()
    train(run, math.inf, Slow())
    assert time.perf_counter() - started > 0.6
    assert run.progress.wall_seconds < 0.4


def test_a_rung_off_the_schedule_is_evaluated_but_does_not_move_plateau_or_early_stopping() -> None:
    config = with_changes(
        CONFIG,
        schedule={"kind": "plateau", "patience": 0, "factor": 0.5, "threshold": 0.9},
        early_stopping={"warmup": 1, "window": 2, "patience": 100},
    )
    plain, _ = straight(config)
    run, memory = make_run(config), Memory()
    for level in (5, 7, 15, 30):
        train(run, level, memory)
    assert {5, 7, 15} <= {report.step for report in memory.reports}
    assert run.progress.plateau == plain.progress.plateau
    assert run.progress.observed == plain.progress.observed
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), plain.model.parameters(), strict=True))


def test_going_back_to_a_rung_that_lies_behind_does_nothing() -> None:
    run, memory = make_run(), Memory()
    train(run, 15, memory)
    count = len(memory.reports)
    train(run, 12, memory)
    train(run, 15, memory)
    assert (run.progress.step, len(memory.reports)) == (15, count)


@pytest.mark.parametrize(("unit", "amount", "steps"), [("epochs", 2, 20), ("tokens", 100, 13), ("steps", 7, 7)])
def test_budgets_in_every_unit(unit: Any, amount: float, steps: int) -> None:
    run, _ = straight(goal=replace(GOAL, unit=unit, amount=amount))
    assert (run.progress.step, run.progress.ended_by) == (steps, "budget")


def test_wall_clock_budget_and_cap_end_a_run() -> None:
    slow = with_changes(CONFIG, seconds_per_step=0.01)
    run, memory = straight(slow, goal=replace(GOAL, unit="wall_clock", amount=0.1))
    assert run.progress.ended_by == "budget"
    assert 0.1 <= run.progress.wall_seconds < 5
    assert memory.reports[-1].step == run.progress.step
    capped, memory = straight(slow, goal=replace(GOAL, amount=100_000, wall_clock=0.1))
    assert (capped.progress.ended_by, capped.progress.status) == ("wall_clock", "completed")
    assert memory.reports[-1].step == capped.progress.step


def test_a_target_ends_a_run_at_the_evaluation_that_reaches_it() -> None:
    _, memory = straight()
    losses = {report.step: report.metrics["validation/loss"] for report in memory.reports}
    target = Target("validation/loss", losses[20], "min")
    run, _ = straight(goal=replace(GOAL, target=target))
    first = min(step for step, loss in losses.items() if loss <= losses[20])
    assert (run.progress.step, run.progress.ended_by) == (first, "target")


def test_slope_based_early_stopping_ends_a_flat_run() -> None:
    flat = with_changes(
        CONFIG,
        optimizer={"learning_rate": 1e-12},
        evaluation={"first": 0, "every": 1},
        early_stopping={"warmup": 5, "window": 4, "patience": 3, "min_delta": 1e-3},
    )
    run, _ = straight(flat, goal=replace(GOAL, amount=1000))
    # Evaluations 6, 7 and 8 are the first three that may count as flat; the first one is at step 0.
    assert (run.progress.ended_by, run.progress.step) == ("early_stopping", 7)


def test_a_nan_is_a_result_with_its_step() -> None:
    run, memory = straight(with_changes(CONFIG, diverge_for_seed=0))
    assert (run.progress.status, run.progress.ended_by, run.progress.step) == ("diverged", "divergence", 3)
    assert [report.step for report in memory.reports] == [0, 1, 2, 3]
    assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("last", lambda losses: losses[-1]),
        ("best", min),
        ("mean_of_last", lambda losses: math.fsum(losses[-3:]) / 3),
    ],
)
def test_value_follows_the_selection_rule(select: Any, expected: Any) -> None:
    run, memory = straight(goal=replace(GOAL, select=select, window=3))
    losses = [report.metrics["validation/loss"] for report in memory.reports]
    assert run.progress.value == expected(losses)
    assert run.progress.best == min(losses)


def test_gradient_clipping_bounds_the_step() -> None:
    config = with_changes(CONFIG, optimizer={"kind": "sgd", "learning_rate": 1.0}, gradient_clip=1e-3)
    run = make_run(config)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    train(run, 1, NullRecorder())
    moved = math.sqrt(sum(((a - b) ** 2).sum().item() for a, b in zip(before, run.model.parameters(), strict=True)))
    assert moved == pytest.approx(1e-3, rel=1e-4)


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    run = make_run()
    train(run, 10, NullRecorder())
    whole = save_checkpoint(run, tmp_path, keep=3)
    train(run, 20, NullRecorder())
    torn = save_checkpoint(run, tmp_path, keep=3)
    (torn / MARKER).unlink()
    assert latest_checkpoint(tmp_path) == whole
    (whole / MARKER).unlink()
    assert latest_checkpoint(tmp_path) is None


def test_a_torn_newer_checkpoint_does_not_cost_the_whole_older_one(tmp_path: Path) -> None:
    run = make_run()
    train(run, 20, NullRecorder())
    (save_checkpoint(run, tmp_path) / MARKER).unlink()
    again = make_run()
    train(again, 15, NullRecorder())
    whole = save_checkpoint(again, tmp_path)
    assert latest_checkpoint(tmp_path) == whole
    assert list(tmp_path.iterdir()) == [whole]


def test_only_the_newest_checkpoint_is_kept_and_one_step_can_be_saved_twice(tmp_path: Path) -> None:
    run = make_run()
    train(run, 10, NullRecorder())
    save_checkpoint(run, tmp_path)
    second = save_checkpoint(run, tmp_path)
    assert latest_checkpoint(tmp_path) == second
    assert [path.name for path in tmp_path.iterdir()] == [second.name]
    assert {path.name for path in second.iterdir()} == {TENSORS, STATE, MARKER}


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(make_run(), tmp_path)
    other = make_run(with_changes(CONFIG, model={"width": 5}))
    with pytest.raises(StorageError, match="another model: weight differ in name or shape"):
        load_checkpoint(other, latest_checkpoint(tmp_path) or tmp_path)


def test_unwritable_checkpoint_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the checkpoint"):
        save_checkpoint(make_run(), tmp_path / "file" / "below")


def test_saved_weights_are_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = make_run()
    save_model(run, tmp_path / "model.safetensors")
    assert torch.equal(load_file(tmp_path / "model.safetensors")["weight"], run.model.state_dict()["weight"])
