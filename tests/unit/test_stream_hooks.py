"""What reinforcement learning asks of the engine: streams that remember and share their work, partial checkpoints."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from rung.results.query import load
from rung.trainable import Generation, weights_of
from rung.training.assignment import Assignment, Goal
from rung.training.checkpoint_files import TENSORS, latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.replication import start
from rung.training.run import Run
from rung.training.team import Team
from tests.toy import Batch, Toy, ToyConfig

GOAL = Goal("steps", 12, "validation/loss", "min")


class Remembering:
    """Three steps learn from the labels that the model gave before the first of them."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.labels = torch.zeros(0)
        self.precisions: list[bool] = []
        self.teams: list[Team] = []

    def join(self, team: Team) -> None:
        self.teams.append(team)

    def at(self, position: int, policy: nn.Module) -> Batch:
        assert policy.training
        self.precisions.append(torch.is_autocast_enabled("cpu"))
        batch = Toy.at(self.toy, position - position % 3, policy)
        if position % 3 == 0:
            self.labels = (batch.y + 0.1 * policy(batch.x)).detach()
        return Batch(batch.x, self.labels, position)

    def state(self) -> dict[str, torch.Tensor]:
        return {"labels": self.labels}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.labels = state["labels"]


class Rollouts(Toy):
    """A toy with such a stream, which keeps its weight and makes its bias again."""

    def batches(self) -> Any:
        return Remembering(self)

    def model(self, generator: torch.Generator) -> nn.Module:
        model = super().model(generator)
        model.bias.requires_grad_(False)
        return model

    def kept(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        return {"weight": weights_of(model)["weight"]}

    def generations(self, model: nn.Module) -> list[Generation]:
        return [Generation("bias?", "0", gold="0", reward=1.0)]


def run_of(**values: Any) -> Run:
    return Run(Rollouts(ToyConfig.model_validate(values), 0), "run", GOAL)


def test_a_stream_goes_on_in_the_middle_of_what_it_remembers(tmp_path: Path) -> None:
    straight, first = run_of(), run_of()
    train(straight, math.inf, NullRecorder())
    train(first, 5, NullRecorder())
    save_checkpoint(first, tmp_path)
    second = run_of()
    load_checkpoint(second, latest_checkpoint(tmp_path) or tmp_path)
    train(second, math.inf, NullRecorder())
    assert torch.equal(straight.model.weight, second.model.weight)
    forgetful = run_of()
    load_checkpoint(forgetful, latest_checkpoint(tmp_path) or tmp_path)
    forgetful.stream.labels = torch.zeros(8)
    train(forgetful, math.inf, NullRecorder())
    assert not torch.equal(straight.model.weight, forgetful.model.weight)


def test_a_checkpoint_holds_what_is_kept(tmp_path: Path) -> None:
    run = run_of()
    train(run, 4, NullRecorder())
    tensors = load_file(save_checkpoint(run, tmp_path) / TENSORS)
    assert {name for name in tensors if name.startswith("model/")} == {"model/weight"}
    assert "stream/labels" in tensors


def test_a_stream_works_in_the_precision_of_the_run_and_with_its_team() -> None:
    for name, is_reduced in (("fp32", False), ("bf16", True)):
        run = run_of(precision=name)
        train(run, 2, NullRecorder())
        assert run.stream.precisions == [is_reduced] * 2
        assert [(team.rank, team.size, team.all_of("x")) for team in run.stream.teams] == [(0, 1, ["x"])]


def _assignment(folder: Path, **values: Any) -> Assignment:
    return Assignment(
        study="hooks",
        trainable="tests.unit.test_stream_hooks:Rollouts",
        config_id="c000000000000",
        config=ToyConfig.model_validate(values).model_dump(mode="json"),
        seeds=(0, 1),
        goal=GOAL,
        directory=str(folder),
    )


def test_texts_are_recorded_at_every_evaluation_on_request(tmp_path: Path) -> None:
    for name, expected in (("rungs", [12]), ("every", [0, 5, 10, 12])):
        replication = start(_assignment(tmp_path / name, evaluation={"every": 5, "generations": name}))
        replication.advance(12.0)
        replication.close()
        steps = load(tmp_path / name).query("SELECT DISTINCT step FROM generations ORDER BY step").fetchall()
        assert steps == [(step,) for step in expected]


def test_a_run_that_has_ended_frees_its_memory(tmp_path: Path) -> None:
    replication = start(_assignment(tmp_path))
    replication.advance(4.0)
    models = [weakref.ref(replication._run(seed).model) for seed in (0, 1)]
    assert all(model() is not None for model in models)
    rows = replication.advance(12.0)
    assert all(model() is None for model in models)
    again = replication.advance(12.0)
    assert [(row["step"], row["parameters"], row["status"]) for row in again] == [(12, 4, "completed")] * 2
    assert [row["value"] for row in again] == [row["value"] for row in rows]
    replication.close()
