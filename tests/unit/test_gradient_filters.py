"""Grokfast: the paper's formulas, exact resume, and what `none` costs."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rung.settings import GrokfastConfig
from rung.training.assignment import Goal
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.gradient_filters import Gradients, NoFilter, build_gradient_filter
from rung.training.loop import NullRecorder, train
from rung.training.run import Run
from tests.toy import Toy, ToyConfig

GOAL = Goal(unit="steps", amount=40, metric="validation/loss", mode="min")
EMA = {"kind": "ema", "alpha": 0.9, "amplification": 2.0}
MA = {"kind": "ma", "window": 7, "amplification": 5.0}


def gradients(steps: int = 60) -> list[list[torch.Tensor]]:
    """Of two parameters, falling by six orders of magnitude, as they do when training items are known by heart."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 4), ())
    return [[torch.randn(s, generator=generator) * 10 ** (-step / 10) for s in shapes] for step in range(steps)]


def filtered(config: dict[str, Any], given: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    gradient_filter = build_gradient_filter(GrokfastConfig.model_validate(config))
    copies = [[tensor.clone() for tensor in step] for step in given]
    for step in copies:
        gradient_filter.apply(step)
    return copies


def ema(given: list[torch.Tensor], alpha: float, factor: float) -> list[torch.Tensor]:
    mean, out = given[0].double(), []
    for gradient in given:
        mean = alpha * mean + (1 - alpha) * gradient.double()
        out.append(gradient.double() + factor * mean)
    return out


def ma(given: list[torch.Tensor], window: int, factor: float) -> list[torch.Tensor]:
    recent: deque[torch.Tensor] = deque(maxlen=window)
    out = []
    for gradient in given:
        recent.append(gradient.double())
        full = len(recent) == window
        out.append(gradient.double() + (factor * sum(recent) / window if full else 0.0))
    return out


@pytest.mark.parametrize(("config", "formula"), [(EMA, ema), (MA, ma)])
def test_grokfast_is_what_the_paper_says(config: dict[str, Any], formula: Any) -> None:
    given = gradients()
    constant = config["alpha"] if config["kind"] == "ema" else config["window"]
    for place in range(2):
        found = [step[place] for step in filtered(config, given)]
        expected = formula([step[place] for step in given], constant, config["amplification"])
        for step, (one, other) in enumerate(zip(found, expected, strict=True)):
            # Within a window the gradients themselves fall by a factor of 5, and so does what rounding may cost.
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * 10 ** (-step / 10), msg=f"{step}")


def test_off_it_does_not_even_look_at_the_gradients() -> None:
    def untouchable() -> Any:
        raise AssertionError("looked")
        yield

    assert isinstance(build_gradient_filter(GrokfastConfig()), NoFilter)
    NoFilter().apply(untouchable())
    assert NoFilter().state() == {}


@pytest.mark.parametrize("config", [EMA, MA])
def test_a_parameter_without_a_gradient_in_some_steps_does_not_mix_with_others(config: dict[str, Any]) -> None:
    gradient_filter = build_gradient_filter(GrokfastConfig.model_validate(config))
    given = gradients(20)
    for number, (first, second) in enumerate(given):
        step: Gradients = [first.clone() if number % 2 else None, second.clone()]
        gradient_filter.apply(step)
    alone = build_gradient_filter(GrokfastConfig.model_validate(config))
    for first, _ in given[1::2]:
        alone.apply([first.clone()])
    for name, tensor in alone.state().items():
        assert name == "steps" or torch.equal(tensor, gradient_filter.state()[name]), name


@pytest.mark.parametrize("config", [EMA, MA])
def test_before_its_start_it_only_gathers(config: dict[str, Any]) -> None:
    given = gradients()
    at_once, later = filtered(config, given), filtered({**config, "start": 20}, given)
    for step, (one, other, plain) in enumerate(zip(at_once, later, given, strict=True)):
        expected = plain if step < 20 else one
        assert all(torch.equal(a, b) for a, b in zip(other, expected, strict=True)), step


@pytest.mark.parametrize("config", [EMA, MA])
def test_each_element_is_filtered_by_itself(config: dict[str, Any]) -> None:
    """Stacked runs are filtered as each run alone, bit for bit."""
    given = gradients()
    stacked = [
        [torch.stack([a, b]) for a, b in zip(*pair, strict=True)] for pair in zip(given, given[::-1], strict=True)
    ]
    alone, other = filtered(config, given), filtered(config, given[::-1])
    for both, one, two in zip(filtered(config, stacked), alone, other, strict=True):
        for a, b, c in zip(both, one, two, strict=True):
            assert torch.equal(a, torch.stack([b, c]))


def make_run(grokfast: dict[str, Any], clip: float | None = 1.0, **optimizer: Any) -> Run:
    values = {"optimizer": {"learning_rate": 0.02, **optimizer, "grokfast": grokfast}, "gradient_clip": clip}
    return Run(Toy(ToyConfig.model_validate(values), 0), "c-s0", GOAL)


@pytest.mark.parametrize("stop", [1, 6, 7, 23])
@pytest.mark.parametrize("config", [EMA, MA, {**EMA, "start": 10}, {**MA, "start": 10}])
def test_resumed_equals_uninterrupted(config: dict[str, Any], stop: int, tmp_path: Path) -> None:
    straight, first, second = make_run(config), make_run(config), make_run(config)
    train(straight, math.inf, NullRecorder())
    train(first, stop, NullRecorder())
    save_checkpoint(first, tmp_path)
    load_checkpoint(second, latest_checkpoint(tmp_path) or tmp_path)
    train(second, math.inf, NullRecorder())
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    for name, tensor in straight.gradient_filter.state().items():
        assert torch.equal(tensor, second.gradient_filter.state()[name]), name


def test_it_reaches_the_optimizer() -> None:
    plain, amplified = make_run({}), make_run(EMA)
    train(plain, 20, NullRecorder())
    train(amplified, 20, NullRecorder())
    assert not torch.equal(plain.model.get_parameter("weight"), amplified.model.get_parameter("weight"))


def test_clipping_bounds_what_comes_out_of_the_filter() -> None:
    run = make_run({**EMA, "amplification": 1e4}, clip=1e-3, kind="sgd", learning_rate=1.0)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    train(run, 1, NullRecorder())
    moved = math.sqrt(sum(((a - b) ** 2).sum().item() for a, b in zip(before, run.model.parameters(), strict=True)))
    assert moved == pytest.approx(1e-3, rel=1e-4)
    assert float(run.step_metrics["gradient_norm"]) > 100


@pytest.mark.parametrize("wrong", [{"alpha": 1}, {"window": 0}, {"amplification": -1}, {"kind": "mean"}, {"start": -1}])
def test_constants_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GrokfastConfig.model_validate(wrong)
