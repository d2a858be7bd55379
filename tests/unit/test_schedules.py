"""Learning-rate schedules against hand-worked numbers and torch's own."""

from __future__ import annotations

import pytest
import torch

from rung.settings import ScheduleConfig
from rung.training.schedules import PlateauState, learning_rate


def test_none_is_constant() -> None:
    assert {learning_rate(ScheduleConfig(), 0.3, step) for step in range(1000)} == {0.3}


def test_step_decays_each_period() -> None:
    config = ScheduleConfig(kind="step", every=100, factor=0.1)
    rates = [learning_rate(config, 1.0, step) for step in (0, 99, 100, 199, 200)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_step_counts_epochs_when_told_to() -> None:
    config = ScheduleConfig(kind="step", every=2, factor=0.5, unit="epoch")
    rates = [learning_rate(config, 1.0, step, steps_per_epoch=10) for step in (0, 19, 20, 40)]
    assert rates == [1.0, 1.0, 0.5, 0.25]
    with pytest.raises(ValueError, match="endless stream"):
        learning_rate(config, 1.0, 0)


def test_cosine_equals_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-5)
    config = ScheduleConfig(kind="cosine", length=50, minimum=1e-5)
    for step in range(50):
        assert learning_rate(config, 1e-3, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
    assert learning_rate(config, 1e-3, 10_000) == pytest.approx(1e-5)


def test_cosine_without_length_spans_the_budget() -> None:
    config = ScheduleConfig(kind="cosine", minimum=0)
    assert learning_rate(config, 1.0, 500, total_steps=1000) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"give schedule\.length"):
        learning_rate(config, 1.0, 0)


def test_linear_equals_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=40)
    config = ScheduleConfig(kind="linear", warmup=10, warmup_from="zero", minimum=0)
    for step in range(40):
        rate = learning_rate(config, 1e-3, 10 + step, total_steps=50)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
    assert learning_rate(config, 1.0, 5, total_steps=50) == 0.5
    with pytest.raises(ValueError, match=r"kind is linear .* give schedule\.length"):
        learning_rate(config, 1.0, 10)


def test_warmup_rises_to_the_peak_and_never_starts_at_zero() -> None:
    config = ScheduleConfig(warmup=4)
    assert [learning_rate(config, 1.0, step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_plateau_equals_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    config, state = ScheduleConfig(kind="plateau", factor=0.1, patience=2, minimum=0), PlateauState()
    losses = [5, 4, 4, 4, 4, 3, 3.1, 3.2, 3.3, 3.4, 2.99999, 2.9]
    for loss in losses:
        theirs.step(loss)
        state.observe(config, loss)
        assert learning_rate(config, 1.0, 0, plateau_factor=state.factor) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )


def test_plateau_counts_a_missing_value_as_flat() -> None:
    config, state = ScheduleConfig(kind="plateau", patience=0), PlateauState()
    state.observe(config, None)
    assert state.factor == pytest.approx(0.1)
