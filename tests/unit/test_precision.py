"""bf16: matrix products in bfloat16, everything else in fp32, and the same promises as in fp32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.trainable import find_trainable
from rung.training.assignment import Goal
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.loop import NullRecorder, evaluate, train
from rung.training.run import Run

GOAL = Goal(unit="steps", amount=12, metric="validation/loss", mode="min")
MODELS = ["gpt", "lstm"]


def make_run(kind: str, precision: str = "bf16", **changes: Any) -> Run:
    values = {"modulus": 7, "precision": precision, "model": {"kind": kind, "layers": 2, "width": 16}, **changes}
    trainable = find_trainable("modular_arithmetic")
    return Run(trainable(trainable.Config.model_validate(values), 0), "c-s0", GOAL)


def trained(kind: str, precision: str) -> Run:
    run = make_run(kind, precision)
    train(run, math.inf, NullRecorder())
    return run


@pytest.mark.parametrize("kind", MODELS)
def test_products_are_bf16_and_all_that_lasts_is_fp32(kind: str) -> None:
    run = make_run(kind)
    seen: list[torch.dtype] = []
    layer = run.model.get_submodule("classifier")
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train(run, 3, NullRecorder())
    assert set(seen) == {torch.bfloat16}
    kept = [*run.model.parameters(), *(parameter.grad for parameter in run.model.parameters())]
    kept += [value for state in run.optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in kept if tensor is not None} == {torch.float32}


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_is_computed_in_fp32(kind: str) -> None:
    run = make_run(kind)
    with run.precision:
        loss = run.trainable.loss(run.model, run.stream.at(0, run.model))
    assert loss.value.dtype == torch.float32
    # A loss that was rounded to bfloat16 on its way would end in 16 zero bits.
    assert loss.value.detach().view(torch.int32).item() & 0xFFFF


@pytest.mark.parametrize("kind", MODELS)
def test_it_changes_results_within_what_bf16_may(kind: str) -> None:
    low, full = trained(kind, "bf16"), trained(kind, "fp32")
    one, other = (evaluate(run, scheduled=False).metrics["train/loss"] for run in (low, full))
    assert one != other
    assert one == pytest.approx(other, rel=0.05)


def test_the_precision_ends_with_the_step() -> None:
    run = trained("gpt", "bf16")
    evaluate(run, scheduled=False)
    assert not torch.is_autocast_enabled("cpu")
    neighbour = torch.ones(2, 2) @ torch.ones(2, 2)
    assert neighbour.dtype == torch.float32


@pytest.mark.parametrize("kind", MODELS)
def test_resumed_equals_uninterrupted(kind: str, tmp_path: Path) -> None:
    straight, first, second = trained(kind, "bf16"), make_run(kind), make_run(kind)
    train(first, 5, NullRecorder())
    save_checkpoint(first, tmp_path)
    load_checkpoint(second, latest_checkpoint(tmp_path) or tmp_path)
    train(second, math.inf, NullRecorder())
    state = second.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in straight.model.state_dict().items())
