"""Whole runs of a tiny policy: it learns, resumes within a rollout, keeps its reference, and works in a team."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file

from rung.errors import RungError
from rung.results.query import load
from rung.training.assignment import Assignment, Goal
from rung.training.checkpoint_files import TENSORS, latest_checkpoint
from rung.training.checkpoints import load_checkpoint, read_weights, save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.replication import start
from rung.training.run import Report, Run
from rung.training.team import Alone
from tests.team import Job, train_together
from tests.toy_rl import BEGIN, FIRST, Letters, LettersConfig
from trainables.rl.batch import RolloutBatch
from trainables.rl.reference import reference_policy
from trainables.rl.rewards import Judgement

T = TypeVar("T")

ROLLOUT = {"prompts": 3, "group": 4, "tokens": 4, "temperature": 0.9}
DROPOUT = {"layers": 1, "width": 16, "heads": 2, "dropout": 0.2}


def make(seed: int = 0, steps: int = 8, **values: Any) -> Run:
    settings = {"rollout": ROLLOUT, "evaluation": {"every": 3, "log_every": 1}, **values}
    config = LettersConfig.model_validate({"optimizer": {"learning_rate": 1e-2}, **settings})
    return Run(Letters(config, seed), f"c-s{seed}", Goal("steps", steps, "validation/reward", "max"))


class Memory(NullRecorder):
    """Keeps all rows, by step."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def report(self, run: Run, report: Report) -> None:
        self.rows[report.step] = report.metrics

    log = report


def trained(run: Run, level: float = math.inf) -> dict[int, dict[str, float]]:
    memory = Memory()
    train(run, level, memory)
    return memory.rows


def test_it_learns() -> None:
    run = make(seed=1, steps=25, rollout={"prompts": 4, "group": 16, "tokens": 4}, evaluation={"every": 25})
    rows = trained(run)
    assert rows[0]["validation/reward"] < 0.3
    assert rows[25]["validation/reward"] > 0.6


SEVERAL_STEPS = {"rollout": {**ROLLOUT, "passes": 2, "minibatches": 2}, "objective": {"kl": "k3"}, "model": DROPOUT}
CASES: dict[str, dict[str, Any]] = {
    "one step per rollout": {"objective": {"kl": "full"}},
    "several steps per rollout, with dropout": SEVERAL_STEPS,
    "adapters, endless problems": {**SEVERAL_STEPS, "adapter": {"rank": 2, "dropout": 0.1}, "is_endless": True},
    "accumulation in bf16": {**SEVERAL_STEPS, "accumulation": 2, "precision": "bf16"},
}


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_interrupted_equals_straight(values: dict[str, Any], tmp_path: Path) -> None:
    whole, state = make(**values), torch.random.get_rng_state()
    expected = trained(whole)
    for stop in (2, 3, 5):
        first, second = make(**values), make(**values)
        rows = trained(first, stop)
        save_checkpoint(first, tmp_path / str(stop))
        checkpoint = latest_checkpoint(tmp_path / str(stop))
        assert checkpoint is not None
        load_checkpoint(second, checkpoint)
        rows |= trained(second)
        assert {step: rows[step] for step in expected if step != stop} == {
            step: row for step, row in expected.items() if step != stop
        }
        found = second.model.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in whole.model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn from the global generator


def test_a_checkpoint_holds_a_rollout_only_as_long_as_it_is_needed(tmp_path: Path) -> None:
    run = make(rollout={**ROLLOUT, "passes": 2})
    held = []
    for step in (1, 2):
        train(run, step, NullRecorder())
        tensors = load_file(save_checkpoint(run, tmp_path) / TENSORS)
        held.append(any("rollout/" in name for name in tensors))
    assert held == [True, False]


def test_the_sampler_and_the_trainer_agree() -> None:
    rows = trained(make(objective={"kl": "k3"}))
    assert all(row["batch/sampler_gap"] < 1e-6 for step, row in rows.items() if step > 0)
    assert rows[1]["batch/kl"] == pytest.approx(0, abs=1e-6)
    assert rows[8]["batch/kl"] > 1e-4


def test_rewards_add_up_over_an_epoch() -> None:
    rows = trained(make(steps=4))  # an epoch of four problems is two rollouts, of three and of one
    first, second, third = (rows[step]["batch/epoch/accumulated_reward"] for step in (1, 2, 3))
    means = [rows[step]["batch/rewards/mean"] for step in (1, 2, 3)]
    assert [first, second - first, third] == pytest.approx([12 * means[0], 4 * means[1], 12 * means[2]], rel=1e-5)
    assert rows[2]["batch/epoch/mean_reward"] == pytest.approx(second / 16, rel=1e-5)
    assert rows[1]["batch/rewards/mean"] == pytest.approx(
        rows[1]["batch/rewards/letters"] + 0.1 * rows[1]["batch/rewards/short"], rel=1e-5
    )


def test_how_much_is_written_at_once_changes_nothing_but_rounding() -> None:
    def written(size: int | None) -> RolloutBatch:
        run = make(rollout={**ROLLOUT, "generation_batch_size": size}, objective={"kl": "k3"})
        batch: RolloutBatch = run.stream.at(0, run.model)
        return batch

    whole, parts = written(None), written(2)
    assert whole.tokens_BS.equal(parts.tokens_BS)
    torch.testing.assert_close(whole.written_BS, parts.written_BS)


def test_a_rollout_without_signal_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(self: Letters, problems: Any, responses: Any) -> Judgement:
        return Judgement([0.5] * len(responses), {})

    monkeypatch.setattr(Letters, "judge", flat)
    for flat_groups in ("keep", "skip"):
        run = make(objective={"flat_groups": flat_groups}, optimizer={"learning_rate": 1e-2})
        before = [parameter.clone() for parameter in run.model.parameters()]
        rows = trained(run)
        assert rows[8]["batch/flat_groups"] == 1
        assert run.progress.tokens > 0
        assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize("learning_rate", [1e10, 1e38])
@pytest.mark.parametrize("objective", [{}, {"kl": "k3", "flat_groups": "skip"}, {"kl": "full"}], ids=str)
def test_divergence_is_a_result(objective: dict[str, Any], learning_rate: float) -> None:
    optimizer = {"learning_rate": learning_rate}
    run = make(objective=objective, optimizer=optimizer, gradient_clip=None, evaluation={"every": 100})
    trained(run)
    assert (run.progress.status, run.progress.error) == ("diverged", None)


# The reference policy.


def _logits(model: torch.nn.Module) -> torch.Tensor:
    logits_BSV: torch.Tensor = model(torch.tensor([[BEGIN, FIRST, FIRST + 1]]))
    return logits_BSV.detach()


@pytest.mark.parametrize("values", [{"model": DROPOUT}, {"adapter": {"rank": 2}}], ids=str)
def test_the_reference_is_where_training_began(values: dict[str, Any], tmp_path: Path) -> None:
    run = make(objective={"kl": "k3"}, **values)
    begin = _logits(run.model.eval())
    run.model.train()
    trained(run)
    with reference_policy(run.model) as reference:
        assert _logits(reference).equal(begin)
    assert run.model.training
    assert not _logits(run.model.eval()).equal(begin)
    assert not any(parameter.requires_grad for name, parameter in run.model.named_parameters() if "reference" in name)
    weights, _ = read_weights(save_checkpoint(run, tmp_path))
    assert any(name.startswith("reference.") for name in weights) == ("adapter" not in values)


def test_no_copy_is_made_where_nobody_asks() -> None:
    run = make()
    assert not any("reference" in name for name, _ in run.model.named_parameters())
    with pytest.raises(RungError, match="no reference policy"), reference_policy(run.model):
        pass


@pytest.mark.parametrize("kl", ["none", "k3"])
def test_a_run_that_starts_from_another_has_that_as_its_reference(kl: str) -> None:
    other, run = make(objective={"kl": "k3"}), make(seed=1, objective={"kl": kl})
    trained(other)
    run.trainable.begin_from(run.model, dict(other.trainable.kept(other.model)), other.config)
    assert _logits(run.model).equal(_logits(other.model))
    if kl == "k3":
        with reference_policy(run.model) as reference:
            assert _logits(reference).equal(_logits(other.model))
            assert not any(parameter.requires_grad for parameter in reference.parameters())


# Several processes.


class ThreadTeam(Alone):
    """Threads that play the processes of a team."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, board: list[Any]) -> None:
        self.rank, self.size, self._barrier, self._board = rank, size, barrier, board

    def all_of(self, value: T) -> list[T]:
        self._board[self.rank] = value
        self._barrier.wait()
        values = list(self._board)
        self._barrier.wait()
        return values

    def first(self, value: Callable[[], T]) -> T:
        return self.all_of(value() if self.rank == 0 else None)[0]  # type: ignore[return-value]


@pytest.mark.parametrize("size", [2, 4])
def test_a_team_writes_what_one_process_writes(size: int) -> None:
    values: dict[str, Any] = {"rollout": {**ROLLOUT, "generation_batch_size": 1}, "objective": {"kl": "k3"}}
    barrier, board, batches = threading.Barrier(size), [None] * size, {}

    def work(rank: int) -> None:
        run = make(**values)
        run.stream.join(ThreadTeam(rank, size, barrier, board))
        batches[rank] = [run.stream.at(position, run.model) for position in range(2)]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    run = make(**values)
    alone = [run.stream.at(position, run.model) for position in range(2)]
    for position in range(2):
        for rank in range(size):
            found = batches[rank][position]
            assert found.tokens_BS.equal(alone[position].tokens_BS)
            assert found.advantages_B.equal(alone[position].advantages_B)
            assert found.written_BS.equal(alone[position].written_BS)
            torch.testing.assert_close(found.reference_BS, alone[position].reference_BS)


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    together, alone = ([assignment(tmp_path / where, kl) for kl in ("k3", "full")] for where in ("together", "alone"))
    train_together([Job(each, (STEPS,)) for each in together], workers=2)
    for each in alone:
        replication = start(each)
        replication.advance(STEPS)
        replication.close()
    for found, expected in zip(together, alone, strict=True):
        reports = [load(Path(each.directory)).metrics.order("step").fetchdf() for each in (found, expected)]
        names = [
            name for name in reports[1] if name.startswith("batch/") or name in ("step", "tokens", "gradient_norm")
        ]
        assert len(reports[1]) > 2
        for name in names:
            assert reports[0][name].tolist() == pytest.approx(
                reports[1][name].tolist(), rel=1e-4, abs=1e-5, nan_ok=True
            )


STEPS = 4


def assignment(directory: Path, kl: str) -> Assignment:
    """Of one run in a folder of its own."""
    config = LettersConfig.model_validate(
        {"rollout": {**ROLLOUT, "passes": 2}, "objective": {"kl": kl}, "evaluation": {"first": STEPS}}
    )
    return Assignment(
        directory=str(directory / kl),
        study=kl,
        trainable="tests.toy_rl:Letters",
        config_id="c000000000001",
        config=config.model_dump(mode="json"),
        seeds=(0,),
        goal=Goal("steps", STEPS, "validation/reward", "max"),
        checkpoint_seconds=60.0,
    )
