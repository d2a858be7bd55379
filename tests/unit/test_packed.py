"""Runs trained together: each computes what it would alone, whoever is beside it, and ends and resumes by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.errors import RungError
from rung.trainable import Loss, find_trainable
from rung.training.assignment import Goal, Target
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.pack import Pack
from rung.training.packed import Member, train_together
from rung.training.run import Report, Run
from rung.training.stacking import take_apart
from tests.toy import Toy, ToyConfig

GOAL = Goal("steps", 12, "validation/loss", "min")
SMALL = {"evaluation": {"first": 2, "every": 5}}
TOY: dict[str, Any] = {"trainable": "tests.toy:Toy"}
GPT: dict[str, Any] = {"modulus": 5, "model": {"kind": "gpt", "layers": 2, "width": 8, "heads": 2}}
LSTM: dict[str, Any] = {"modulus": 5, "model": {"kind": "lstm", "layers": 2, "width": 8}}
MIXED = {"modulus": 3, "orders": [2, 3], "batch_size": 7}
MODELS = {
    "toy": TOY,
    "gpt": GPT,
    "gpt of mixed orders, tied": {**MIXED, "model": {**GPT["model"], "tie_embeddings": True}},
    "lstm": LSTM,
    "lstm of mixed orders, tied": {**MIXED, "model": {**LSTM["model"], "tie_embeddings": True}},
}


class Memory(NullRecorder):
    """Keeps what was reported, by step."""

    def __init__(self) -> None:
        self.reports: dict[int, dict[str, float]] = {}

    def report(self, run: Run, report: Report) -> None:
        self.reports[report.step] = report.metrics


def make(values: dict[str, Any], seed: int = 0, goal: Goal = GOAL, **changes: Any) -> Run:
    values = {**SMALL, **values, **changes}
    kind = find_trainable(values.pop("trainable", "modular_arithmetic"))
    return Run(kind(kind.Config.model_validate(values), seed), f"c-s{seed}", goal)


def together(runs: Sequence[Run], level: float = math.inf) -> list[dict[int, dict[str, float]]]:
    """Trains them, and returns their reports."""
    memories = [Memory() for _ in runs]
    train_together([Member(run, memory) for run, memory in zip(runs, memories, strict=True)], level)
    return [memory.reports for memory in memories]


def equal(run: Run, other: Run) -> bool:
    """Bit for bit, with the states of the optimizers."""
    ours, theirs = run.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    states = [(ours[i][name], theirs[i][name]) for i in ours for name in ours[i]]
    parameters = zip(run.model.parameters(), other.model.parameters(), strict=True)
    return ours.keys() == theirs.keys() and all(torch.equal(a, b) for a, b in (*states, *parameters))


def distance(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """Relative, over all together."""
    flat, other = (torch.cat([t.detach().flatten().double() for t in each]) for each in (tensors, others))
    return float((flat - other).norm() / other.norm())


# What a step computes.


def packed_gradients(runs: Sequence[Run]) -> list[tuple[float, list[torch.Tensor]]]:
    """Loss and gradients of each run at its first batch."""
    pack = Pack(runs)
    batches, structures = zip(*(take_apart(run.stream.at(0, run.model)) for run in runs), strict=True)
    assert len(set(structures)) == 1
    gradients = pack.gradients(structures[0], batches)
    return [(loss, pack.layout.split(row)) for loss, row in zip(gradients.losses, gradients.rows_NP, strict=True)]


@pytest.mark.parametrize("shares", [True, False], ids=["shared beginnings", "none shared"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 4e-7)])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "toy"])
def test_losses_and_gradients_are_those_of_each_run_alone(
    name: str, dtype: torch.dtype, tolerance: float, shares: bool
) -> None:
    def built(seed: int) -> Run:
        enough = {"modulus": 5 if "mixed" in name else 7, "batch_size": 45}  # rows for sharing to pay
        run = make(MODELS[name], seed, **(enough if shares else {}))
        assert (run.trainable.training_items.prefix is not None) == shares  # type: ignore[attr-defined]
        run.model.to(dtype)
        return run

    packed = packed_gradients([built(seed) for seed in range(3)])
    for seed, (loss, gradients) in enumerate(packed):
        run = built(seed)
        alone = run.trainable.loss(run.model, run.stream.at(0, run.model)).value
        alone.backward()  # type: ignore[no-untyped-call]
        assert loss == pytest.approx(alone.item(), rel=tolerance)
        assert distance(gradients, [p.grad for p in run.model.parameters() if p.grad is not None]) < tolerance


ENGINE: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"kind": "sgd", "learning_rate": 0.1, "weight_decay": 0.1}},
    "momentum": {"optimizer": {"kind": "momentum", "learning_rate": 0.1, "weight_decay": 0.1}},
    "adam": {"optimizer": {"kind": "adam", "learning_rate": 0.01, "weight_decay": 0.1}},
    "adamw": {"optimizer": {"kind": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}},
    "clipped": {"gradient_clip": 0.01},
    "not clipped": {"gradient_clip": None},
    "scheduled": {"schedule": {"kind": "cosine", "warmup": 3}},
    "plateau": {"schedule": {"kind": "plateau", "patience": 0, "threshold": 0.9}},
    "grokfast": {"optimizer": {"grokfast": {"kind": "ema"}}},
    "grokfast over a window": {"optimizer": {"grokfast": {"kind": "ma", "window": 3}}},
}


@pytest.mark.parametrize("values", ENGINE.values(), ids=ENGINE)
def test_a_pack_trains_like_its_runs_alone(values: dict[str, Any]) -> None:
    packed = [make({**TOY, **values}, seed) for seed in range(3)]
    reports = together(packed)
    for seed, run in enumerate(packed):
        alone, memory = make({**TOY, **values}, seed), Memory()
        train(alone, math.inf, memory)
        assert distance(list(run.model.parameters()), list(alone.model.parameters())) < 1e-5
        assert reports[seed].keys() == memory.reports.keys()
        for step, metrics in memory.reports.items():
            assert reports[seed][step] == pytest.approx(metrics, rel=1e-3, abs=1e-6)
        assert (run.progress.step, run.progress.tokens) == (alone.progress.step, alone.progress.tokens)
        assert (run.progress.ended_by, run.progress.best_step) == (alone.progress.ended_by, alone.progress.best_step)


def test_bf16_is_respected() -> None:
    values = {**GPT, "precision": "bf16"}
    runs = [make(values, seed) for seed in range(2)]
    reports = together(runs)
    plain = together([make(GPT, seed) for seed in range(2)])
    for seed, report in enumerate(reports):
        alone, memory = make(values, seed), Memory()
        train(alone, math.inf, memory)
        assert report[12]["train/loss"] == pytest.approx(memory.reports[12]["train/loss"], rel=0.02)
        assert report[12]["train/loss"] != plain[seed][12]["train/loss"]


class Frozen(Toy):
    """With a parameter and a buffer that are drawn for each run and not trained."""

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        model = super().model(generator)
        model.offset = torch.nn.Parameter(torch.randn((), generator=generator), requires_grad=False)
        model.register_buffer("scale", torch.randn((), generator=generator))
        return model

    def loss(self, model: Any, batch: Any) -> Loss:
        return Loss((model(batch.x) * model.scale + model.offset - batch.y).square().mean(), tokens=1)


def test_what_is_not_trained_may_differ_between_runs_and_stays() -> None:
    packed, alone = ([Run(Frozen(ToyConfig(), seed), f"c-s{seed}", GOAL) for seed in range(2)] for _ in range(2))
    together(packed)
    for run, other in zip(packed, alone, strict=True):
        frozen = other.model.state_dict()["offset"].clone()
        train(other, math.inf, NullRecorder())
        assert distance(list(run.model.parameters()), list(other.model.parameters())) < 1e-5
        assert torch.equal(run.model.state_dict()["offset"], frozen)


# Independence.


@pytest.mark.parametrize("values", MODELS.values(), ids=MODELS)
def test_a_run_does_not_depend_on_its_neighbours(values: dict[str, Any]) -> None:
    def trained(*seeds: int) -> dict[int, tuple[Run, dict[int, dict[str, float]]]]:
        runs = [make(values, seed) for seed in seeds]
        return dict(zip(seeds, zip(runs, together(runs), strict=True), strict=True))

    expected = trained(0, 1, 2, 3)
    for seeds in ((0,), (1, 7), (2, 0, 9), (3, 5, 1, 4)):
        for seed, (run, reports) in trained(*seeds).items():
            if seed in expected:
                assert equal(run, expected[seed][0]), (seed, seeds)
                assert reports == expected[seed][1], (seed, seeds)


def test_configurations_of_one_shape_may_share_a_pack() -> None:
    changes: list[dict[str, Any]] = [
        {"optimizer": {"learning_rate": 0.1, "weight_decay": 0.5, "beta2": 0.9}},
        {"optimizer": {"learning_rate": 0.01}, "gradient_clip": 0.1},
        {"optimizer": {"learning_rate": 0.05}, "gradient_clip": None, "schedule": {"kind": "cosine"}},
    ]
    runs = [make({**TOY, **change}) for change in changes]
    reports = together(runs)
    for change, run, report in zip(changes, runs, reports, strict=True):
        alone = make({**TOY, **change})
        assert [report] == together([alone])
        assert equal(run, alone)
    assert "gradient_norm" not in reports[2][12]
    assert reports[0][12]["learning_rate"] == 0.1


@pytest.mark.parametrize("change", [{"model": {"width": 5}}, {"batch_size": 9}, {"precision": "bf16"}])
def test_what_computes_something_else_cannot_share_a_pack(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"c-s0 and c-s1 differ in {next(iter(change))} and cannot be in one pack"):
        Pack([make(TOY), make({**TOY, **change}, 1)])


def test_a_pack_has_one_kind_of_optimizer() -> None:
    with pytest.raises(ValueError, match="one kind"):
        Pack([make(TOY), make(TOY, 1, optimizer={"kind": "sgd"})])


# Ending.


def test_a_run_that_reaches_its_target_leaves_and_the_others_go_on() -> None:
    expected = [make(TOY, seed) for seed in range(3)]
    losses = [{step: metrics["validation/loss"] for step, metrics in report.items()} for report in together(expected)]
    target = Target("validation/loss", losses[1][5], "min")
    runs = [make(TOY, seed, replace(GOAL, target=target if seed == 1 else None)) for seed in range(3)]
    together(runs)
    assert (runs[1].progress.ended_by, runs[1].progress.step) == ("target", 5)
    assert equal(runs[0], expected[0])
    assert equal(runs[2], expected[2])
    # Nothing that is left keeps the memory of the pack alive.
    parameters = [*runs[0].model.parameters(), *runs[1].model.parameters()]
    assert all(p.untyped_storage().nbytes() == p.nbytes for p in parameters)


def test_a_run_that_diverges_leaves_without_the_step() -> None:
    expected = [make(TOY, seed) for seed in (0, 2)]
    together(expected)
    runs = [make(TOY, seed, diverge_for_seed=1) for seed in range(3)]
    reports = together(runs)
    progress = runs[1].progress
    assert (progress.status, progress.ended_by, progress.step) == ("diverged", "divergence", 3)
    assert list(reports[1]) == [0, 1, 2]
    assert all(torch.isfinite(parameter).all() for parameter in runs[1].model.parameters())
    assert equal(runs[0], expected[0])
    assert equal(runs[2], expected[1])


def test_a_pack_whose_runs_all_diverge_is_empty() -> None:
    run = make(TOY, 1, diverge_for_seed=1)
    together([run])
    assert run.progress.status == "diverged"


@pytest.mark.parametrize("unit", ["tokens", "epochs"])
def test_budgets_in_other_units(unit: Any) -> None:
    runs = [make(TOY, seed, replace(GOAL, unit=unit, amount=1)) for seed in range(2)]
    together(runs)
    assert [run.progress.step for run in runs] == ([1, 1] if unit == "tokens" else [10, 10])


def test_each_run_is_charged_its_share_of_the_time() -> None:
    runs = [make(TOY, seed, replace(GOAL, unit="wall_clock", amount=0.2), seconds_per_step=0.01) for seed in range(4)]
    begin = time.perf_counter()
    together(runs)
    assert all(run.progress.ended_by == "budget" for run in runs)
    assert sum(run.progress.wall_seconds for run in runs) <= time.perf_counter() - begin


# Resuming.


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("stop", [1, 7])
def test_resumed_equals_uninterrupted(kind: str, stop: int, tmp_path: Path) -> None:
    values = {**TOY, "optimizer": {"kind": kind, "learning_rate": 0.02, "weight_decay": 0.1}}
    expected = [make(values, seed) for seed in range(3)]
    reports = together(expected)
    runs = [make(values, seed) for seed in range(3)]
    before = together(runs, stop)
    for run in runs:
        save_checkpoint(run, tmp_path / run.run_id)
    again = [make(values, seed) for seed in range(3)]
    for run in again:
        load_checkpoint(run, latest_checkpoint(tmp_path / run.run_id) or tmp_path)
    after = together(again)
    for seed in range(3):
        assert equal(again[seed], expected[seed])
        assert reports[seed].items() <= (before[seed] | after[seed]).items()


class SavesAfterStep(Memory):
    """Checkpoints in the middle of a pack's work."""

    def __init__(self, step: int, directory: Path) -> None:
        super().__init__()
        self.step, self.directory = step, directory

    def after_step(self, run: Run) -> None:
        if run.progress.step == self.step:
            save_checkpoint(run, self.directory / run.run_id)


@pytest.mark.parametrize("values", [TOY, {**GPT, "batch_size": 5}], ids=["toy", "gpt"])
def test_runs_at_different_steps_go_on_together(values: dict[str, Any], tmp_path: Path) -> None:
    """The gpt has batches of 5, 5 and 2 items: the same step of the pack is of different sizes."""
    expected = [make(values, seed) for seed in range(3)]
    together(expected)
    for seed, step in enumerate((4, 9, 5)):
        train_together([Member(make(values, seed), SavesAfterStep(step, tmp_path))], step + 1)
    runs = [make(values, seed) for seed in range(3)]
    for run in runs:
        load_checkpoint(run, latest_checkpoint(tmp_path / run.run_id) or tmp_path)
    assert [run.progress.step for run in runs] == [4, 9, 5]
    together(runs)
    for run, other in zip(runs, expected, strict=True):
        assert equal(run, other)


def test_levels_in_many_short_calls_change_nothing() -> None:
    expected, runs = ([make(TOY, seed) for seed in range(2)] for _ in range(2))
    together(expected)
    for level in (1, 4, 4, 9, 12):
        together(runs, level)
    assert all(equal(run, other) for run, other in zip(runs, expected, strict=True))


def test_serial_goes_on_from_a_checkpoint_of_a_pack_and_back(tmp_path: Path) -> None:
    runs = [make(GPT, seed) for seed in range(2)]
    together(runs, 6)
    alone = make(GPT, 1)
    train(alone, math.inf, NullRecorder())
    save_checkpoint(runs[1], tmp_path)
    resumed = make(GPT, 1)
    load_checkpoint(resumed, latest_checkpoint(tmp_path) or tmp_path)
    train(resumed, 9, NullRecorder())
    together([resumed])
    assert distance(list(resumed.model.parameters()), list(alone.model.parameters())) < 1e-4


# What cannot be packed.


class Looks(Toy):
    """Looks at a value."""

    def loss(self, model: Any, batch: Any) -> Loss:
        error = (model(batch.x) - batch.y).square().mean()
        return Loss(error * 2 if error.item() > 1 else error, tokens=1)


class Draws(Toy):
    """Draws random numbers."""

    def loss(self, model: Any, batch: Any) -> Loss:
        return Loss((model(batch.x) - torch.rand_like(batch.y)).square().mean(), tokens=1)


class Counts(Toy):
    """Changes a buffer."""

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        model = super().model(generator)
        model.register_buffer("count", torch.zeros(()))
        model.register_forward_pre_hook(lambda module, inputs: module.get_buffer("count").add_(1) and None)
        return model


@pytest.mark.parametrize("kind", [Looks, Draws, Counts])
def test_a_loss_that_cannot_be_mapped_says_what_to_do(kind: type[Toy]) -> None:
    runs = [Run(kind(ToyConfig(), seed), f"c-s{seed}", GOAL) for seed in range(2)]
    with pytest.raises(RungError, match=rf"{kind.__name__}: the loss of 2 runs .* Use replication: serial"):
        together(runs)


def test_a_pack_needs_parameters_of_one_type() -> None:
    run = make(GPT)
    next(run.model.parameters()).data = next(run.model.parameters()).data.double()
    with pytest.raises(RungError, match=r"float32 and torch.float64: use replication: serial"):
        Pack([run])
