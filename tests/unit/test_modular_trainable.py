"""Modular arithmetic as a trainable: loss, accuracy, the engine's promises on it, golden loss curves."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rung.training.assignment import Goal
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.run import Report, Run
from trainables.modular_arithmetic import ModularArithmetic, ModularArithmeticConfig
from trainables.modular_arithmetic.data import Batches
from trainables.modular_arithmetic.losses import item_correct, negative_log_likelihood

SMALL = {
    "modulus": 7,
    "batch_size": 10,
    "model": {"width": 16, "heads": 2},
    "evaluation": {"first": 0, "every": 5},
}
KINDS = ("gpt", "lstm")


class Memory(NullRecorder):
    """Keeps reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, run: Run, report: Report) -> None:
        self.reports.append(report)

    def curve(self, metric: str) -> dict[int, float]:
        return {report.step: report.metrics[metric] for report in self.reports}


def config(**changes: Any) -> ModularArithmeticConfig:
    merged: dict[str, Any] = dict(SMALL)
    for name, value in changes.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    return ModularArithmeticConfig.model_validate(merged)


def make_run(settings: ModularArithmeticConfig, steps: int = 20, seed: int = 0) -> Run:
    goal = Goal(unit="steps", amount=steps, metric="validation/accuracy", mode="max")
    return Run(ModularArithmetic(settings, seed), f"test-s{seed}", goal)


def trained(settings: ModularArithmeticConfig, steps: int = 20, seed: int = 0) -> tuple[Run, Memory]:
    run, memory = make_run(settings, steps, seed), Memory()
    train(run, math.inf, memory)
    return run, memory


# Loss and accuracy.


def test_loss_reads_only_the_result_and_eos() -> None:
    trainable = ModularArithmetic(config(modulus=5, orders=[2, 3]), 0)
    model = trainable.model(torch.Generator().manual_seed(0))
    items = trainable.training_items
    assert items.weights_BT is not None
    logits = model(items.inputs_BS, items.start, items.prefix).detach()
    loss = negative_log_likelihood(logits, items.targets_BT, items.weights_BT)
    noise = 100 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    elsewhere = logits + noise * (items.weights_BT == 0)[..., None]
    torch.testing.assert_close(negative_log_likelihood(elsewhere, items.targets_BT, items.weights_BT), loss)
    by_hand = [
        -sum(row[position].log_softmax(-1)[target] for position, target in enumerate(targets) if weights[position]) / 2
        for row, targets, weights in zip(logits, items.targets_BT, items.weights_BT, strict=True)
    ]
    assert loss.item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)


def test_loss_is_a_mean_over_an_items_tokens_and_then_over_items_with_three_reductions() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3, 4, 9, generator=generator), torch.randint(9, (3, 4), generator=generator)
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    token = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    expected = torch.stack([token[0, 0], token[1, :2].mean(), token[2].mean()])
    torch.testing.assert_close(negative_log_likelihood(logits, targets, weights, "none"), expected)
    torch.testing.assert_close(negative_log_likelihood(logits, targets, weights, "sum"), expected.sum())
    torch.testing.assert_close(negative_log_likelihood(logits, targets, weights), expected.mean())
    torch.testing.assert_close(negative_log_likelihood(logits, targets, None, "none"), token.mean(1))


def test_an_item_is_right_when_every_scored_token_is() -> None:
    targets = torch.tensor([[1, 2], [1, 2], [1, 2], [1, 2]])
    predicted = torch.tensor([[1, 2], [0, 2], [1, 0], [0, 0]])
    logits = torch.nn.functional.one_hot(predicted, 4).float()
    assert item_correct(logits, targets).tolist() == [True, False, False, False]
    weights = torch.tensor([[0.0, 1.0]]).expand(4, 2)
    assert item_correct(logits, targets, weights).tolist() == [True, True, False, False]


def test_the_gradient_is_clipped_at_norm_one() -> None:
    settings = config(optimizer={"learning_rate": 1e-6})
    assert settings.gradient_clip == 1.0
    run, memory = trained(settings, 5)
    assert memory.reports[-1].metrics["gradient_norm"] > 1  # before clipping
    norms = [parameter.grad.norm() for parameter in run.model.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1.0, abs=1e-3)


# Evaluation.


def test_evaluation_reports_what_metrics_declares_and_chunks_change_nothing() -> None:
    settings = config(orders=[2, 3])
    trainable = ModularArithmetic(settings, 0)
    model = trainable.model(torch.Generator().manual_seed(0)).eval()
    in_chunks = ModularArithmetic(config(orders=[2, 3], evaluation_batch_size=17), 0)
    with torch.no_grad():
        whole, chunked = trainable.evaluate(model), in_chunks.evaluate(model)
    assert whole.keys() == chunked.keys() == ModularArithmetic.metrics(settings).keys()
    assert chunked == pytest.approx(whole, rel=1e-5)


def test_parameter_norm_is_the_l2_norm_of_all_parameters() -> None:
    trainable = ModularArithmetic(config(), 0)
    model = trainable.model(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        measured = trainable.evaluate(model)["parameter_norm"]
    flat = torch.cat([parameter.flatten() for parameter in model.parameters()])
    assert measured == pytest.approx(flat.norm().item(), rel=1e-5)


def test_evaluation_at_step_0_at_each_first_step_then_each_period_and_at_the_end() -> None:
    default = ModularArithmeticConfig().evaluation
    assert (default.first, default.every) == (100, 100)
    _, memory = trained(config(evaluation={"first": 4, "every": 10}), 25)
    assert [report.step for report in memory.reports] == [0, 1, 2, 3, 4, 10, 20, 25]
    assert all({"train/loss", "validation/loss"} <= report.metrics.keys() for report in memory.reports)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_evaluation_does_not_disturb_training(dropout: float) -> None:
    often, _ = trained(config(model={"dropout": dropout}, evaluation={"every": 1}))
    never, _ = trained(config(model={"dropout": dropout}, evaluation={"every": 1000}))
    for name, tensor in often.model.state_dict().items():
        assert torch.equal(tensor, never.model.state_dict()[name]), name


# The engine's promises, on this trainable.


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_numbers_and_no_global_generator_is_touched(kind: str) -> None:
    settings = config(model={"kind": kind, "dropout": 0.2})
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()  # noqa: NPY002
    first, second, other = trained(settings)[1], trained(settings)[1], trained(settings, seed=1)[1]
    assert first.curve("train/loss") == second.curve("train/loss")
    assert first.curve("train/loss") != other.curve("train/loss")
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{}, {"orders": [2, 3], "batch_size": 64, "model": {"dropout": 0.2}}])
def test_resumed_equals_uninterrupted(kind: str, fields: dict[str, Any], tmp_path: Path) -> None:
    settings = config(**{**fields, "model": {"kind": kind, **fields.get("model", {})}})
    straight, expected = trained(settings)
    stopped, memory = make_run(settings), Memory()
    train(stopped, 7, memory)
    save_checkpoint(stopped, tmp_path)
    resumed = make_run(settings)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    load_checkpoint(resumed, checkpoint)
    train(resumed, math.inf, memory)
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert memory.curve("validation/loss").items() >= expected.curve("validation/loss").items()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["none", "step", "cosine", "plateau"])
def test_every_optimizer_and_schedule_trains(optimizer: str, schedule: str) -> None:
    settings = config(
        optimizer={"kind": optimizer, "learning_rate": 0.01},
        schedule={"kind": schedule, "unit": "step", "every": 3, "patience": 0},
    )
    run, memory = trained(settings, 12)
    assert run.progress.status == "completed"
    losses = memory.curve("train/loss")
    assert losses[10] < losses[0]
    rates = set(memory.curve("learning_rate").values())
    if schedule in ("step", "cosine"):
        assert len(rates) > 1
    if schedule == "none":
        assert rates == {0.01}


def test_a_schedule_in_epochs_waits_for_whole_passes_over_the_data() -> None:
    settings = config(schedule={"kind": "step", "unit": "epoch", "every": 1}, evaluation={"every": 1})
    _, memory = trained(settings, 7)  # three steps to an epoch
    rates = [memory.curve("learning_rate")[step] for step in range(7)]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 3 + [1e-5])


def test_a_flat_curve_ends_a_run_that_asks_for_it() -> None:
    flat = {"patience": 2, "min_delta": 1e-3, "warmup": 4, "window": 3, "metric": "validation/loss"}
    settings = config(optimizer={"learning_rate": 1e-12}, evaluation={"every": 1}, early_stopping=flat)
    run, memory = trained(settings, 100)
    assert run.progress.ended_by == "early_stopping"
    # Evaluations 0, 1, ...: the fifth, at step 4, is the first that may count; patience asks for two.
    assert memory.reports[-1].step == 5
    assert config(early_stopping={}).early_stopping is not None
    assert ModularArithmeticConfig().early_stopping is None


def test_a_run_takes_exactly_its_steps() -> None:
    run, _ = trained(config(), 13)  # three steps to an epoch
    assert run.progress.step == 13
    assert run.progress.ended_by == "budget"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", ["+", "-", "*", "/"])
def test_a_small_table_is_learnt_by_heart(kind: str, operator: str) -> None:
    settings = config(
        modulus=5,
        operator=operator,
        batch_size=512,
        model={"kind": kind, "width": 32},
        optimizer={"learning_rate": 0.01, "weight_decay": 0.0},
    )
    _, memory = trained(settings, 100)
    assert memory.reports[-1].metrics["train/accuracy"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_sharing_beginnings_leaves_the_loss_curve_within_rounding(kind: str) -> None:
    settings = config(batch_size=512, model={"kind": kind})
    shared, plain = make_run(settings), make_run(settings)
    items = ModularArithmetic(settings, 0).training_items
    assert items.prefix is not None
    plain.stream = Batches(items.without_prefix(), 512, data_seed=0)
    curves = []
    for run in (shared, plain):
        memory = Memory()
        train(run, math.inf, memory)
        curves.append(memory.curve("train/loss"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_importing_the_class_and_asking_for_costs_leaves_torch_alone() -> None:
    code = (
        "import sys; from trainables.modular_arithmetic import ModularArithmetic as M;"
        "from trainables.modular_arithmetic import ModularArithmeticConfig as C;"
        "M.metrics(C()); M.workload(C()); import trainables.modular_arithmetic.arguments;"
        "import trainables.modular_arithmetic.experiments; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("kind", KINDS)
def test_workload_says_what_a_run_costs(kind: str) -> None:
    settings = config(model={"kind": kind}, orders=[2, 3])
    run = make_run(settings)
    cost = ModularArithmetic.workload(settings)
    assert cost.parameters == run.parameters
    assert cost.steps_per_epoch == settings.steps_per_epoch == math.ceil((25 + 172) / 10)
    batch = run.stream.at(0, run.model)
    assert cost.tokens_per_step == run.trainable.loss(run.model, batch).tokens == 10 * 8
    weights = run.parameters - run.model.state_dict()["embedding.weight"].numel()
    assert cost.flops_per_step == pytest.approx(6 * weights * cost.tokens_per_step, rel=0.1)
    assert cost.evaluation_flops == pytest.approx(cost.flops_per_step / 3 * settings.items() / 10)


# Golden curves: training loss before the first and after each fourth step, for the whole set as one batch (512) and
# for batches of 10. They hold for this initialisation, split, order of batches and loss.

GOLDEN: dict[tuple[str, int], list[float]] = {
    ("gpt", 512): [2.7859191, 2.5387236, 2.3090421, 2.1066613, 1.9404542, 1.8134099],
    ("gpt", 10): [2.7859191, 2.5664389, 2.3732258, 2.1978052, 2.0431314, 1.9155386],
    ("lstm", 512): [2.3881868, 2.3758943, 2.3631708, 2.3494956, 2.3342184, 2.3165161],
    ("lstm", 10): [2.3881868, 2.3774981, 2.3669848, 2.3559056, 2.343917, 2.3305768],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [512, 10])
def test_golden_loss_curve(kind: str, batch_size: int) -> None:
    settings = config(
        batch_size=batch_size,
        model={"kind": kind},
        evaluation={"every": 4},
    )
    curve = list(trained(settings, 20)[1].curve("train/loss").values())
    assert curve == pytest.approx(GOLDEN[kind, batch_size], rel=1e-5)
    assert curve == list(trained(settings, 20)[1].curve("train/loss").values())  # bit-equal
