"""Rollouts: which problems they have, how they are dealt out to steps, and how a batch is taken apart."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rung.errors import RungError
from trainables.rl.batch import RolloutBatch
from trainables.rl.config import GroupRelativeConfig, ObjectiveConfig, RolloutConfig
from trainables.rl.objective import group_relative_loss
from trainables.rl.policy import Written
from trainables.rl.problems import Place, Problem, ProblemOrder, Timetable, flops_per_step, tokens_per_step
from trainables.rl.rollout import Response, Rollout

# Problems.


def _problem(number: int) -> Problem:
    return Problem([1, number], str(number), str(number))


@pytest.mark.parametrize("problems", [1, 4, 5, 6, 7])
@pytest.mark.parametrize(("passes", "minibatches"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_timetable_is_what_counting_gives(problems: int, passes: int, minibatches: int) -> None:
    rollout = RolloutConfig(prompts=3, passes=passes, minibatches=minibatches)
    expected, number = [], 0
    for _ in range(2):  # epochs
        for begin in range(0, problems, 3):
            dealt = min(minibatches, problems - begin)
            steps = passes * dealt
            expected += [(number, step, step % dealt, dealt, step == steps - 1) for step in range(steps)]
            number += 1
    table = Timetable(problems, rollout)
    places = [table.place(step) for step in range(len(expected))]
    assert [(p.rollout, p.step, p.minibatch, p.minibatches, p.is_last) for p in places] == expected
    assert table.steps_per_epoch == len(expected) // 2


def test_every_epoch_takes_every_problem_once_in_another_order() -> None:
    order = ProblemOrder([_problem(number) for number in range(10)], RolloutConfig(prompts=4), seed=3)
    rollouts = [[problem.prompt for problem in order.of(number)] for number in range(6)]
    assert [len(rollout) for rollout in rollouts] == [4, 4, 2, 4, 4, 2]
    first, second = (list(itertools.chain(*rollouts[begin : begin + 3])) for begin in (0, 3))
    assert sorted(first) == sorted(second) == [str(number) for number in range(10)]
    assert first != second
    again = ProblemOrder([_problem(number) for number in range(10)], RolloutConfig(prompts=4), seed=3)
    assert [problem.prompt for problem in again.of(4)] == rollouts[4]  # whatever was asked for before
    other = ProblemOrder([_problem(number) for number in range(10)], RolloutConfig(prompts=4), seed=4)
    assert [problem.prompt for problem in other.of(0)] != rollouts[0]


def test_an_endless_stream_is_taken_in_order() -> None:
    order = ProblemOrder(_problem, RolloutConfig(prompts=3, passes=2), seed=0)
    assert [problem.prompt for problem in order.of(7)] == ["21", "22", "23"]
    assert order.timetable.steps_per_epoch is None
    assert order.timetable.place(15) == Place(rollout=7, step=1, minibatches=1, is_last=True)
    assert order.timetable.epoch(7) == 0


def test_no_problems_are_refused() -> None:
    with pytest.raises(RungError, match="no problems"):
        ProblemOrder([], RolloutConfig(), seed=0)


def test_costs_by_hand() -> None:
    rollout = RolloutConfig(prompts=2, group=3, tokens=10, passes=2, minibatches=2)
    assert tokens_per_step(rollout, 5.0) == 3 * 15
    # Written once in four steps: 2 prompts of 5, 6 responses of 10; learnt: 45 tokens, three times forward.
    assert flops_per_step(rollout, ObjectiveConfig(), 5.0, 1.0, 3.0) == 70 / 4 + 135
    assert flops_per_step(rollout, ObjectiveConfig(kl="k3"), 5.0, 1.0, 3.0) == 70 / 4 + 135 + 45 / 2
    assert flops_per_step(rollout, ObjectiveConfig(kl="full"), 5.0, 1.0, 3.0) == 70 / 4 + 135 + 45


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rollout": {"group": 1}}, "greater than or equal to 2"),
        ({"rollout": {"prompts": 2, "minibatches": 3}}, "at most as many"),
        ({"rollout": {"prompts": 2, "group": 2, "minibatches": 2}, "accumulation": 3}, "of which there are 2"),
        ({"rollout": {"passes": 2, "temperature": 0.8}, "objective": {"tempered": False}}, "Set tempered to true"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        GroupRelativeConfig.model_validate(settings)


# Batches.

PROMPTS = [[1], [2, 3], [4, 4, 4], [5]]
REWARDS = [1.0, 0.0, 0.5, 0.5, 0.0, 2.0, 0.0, 1.0]
"""Of two responses to each prompt: the second group is flat."""
RESPONSES = [[2, 3, 4], [4], [1, 4], [3, 3, 2], [1], [2, 2], [3, 2, 1, 4], [5]]
HAS_ENDED = [True, True, True, True, True, False, True, True]


def _rollout(rewards: list[float] = REWARDS) -> Rollout:
    responses = [
        Response(Written(tokens, [-0.1 * (row + 1)] * len(tokens), ended), [-0.2 * (row + 1)] * len(tokens))
        for row, (tokens, ended) in enumerate(zip(RESPONSES, HAS_ENDED, strict=True))
    ]
    problems = [Problem(prompt, "", "") for prompt in PROMPTS]
    return Rollout.of(problems, [responses[begin : begin + 2] for begin in range(0, 8, 2)], rewards, pad=0)


def _batch(rewards: list[float] = REWARDS, place: Place | None = None, **objective: Any) -> RolloutBatch:
    settings = RolloutConfig(prompts=4, group=2, tokens=4, passes=2)
    return _rollout(rewards).batch(place or Place(0, 0, 1, False), settings, ObjectiveConfig(**objective), {}, "cpu")


def _rows(batch: RolloutBatch) -> list[list[int]]:
    return [row[:length] for row, length in zip(batch.tokens_BS.tolist(), batch.lengths, strict=True)]


def test_rows_that_move_nothing_are_left_out_and_count_all_the_same() -> None:
    batch = _batch(aggregation="token")
    kept = [0, 1, 4, 5, 6, 7]
    rows = [PROMPTS[row // 2] + RESPONSES[row] for row in kept]
    assert _rows(batch) == sorted(rows, key=len)
    assert batch.weights_B.tolist() == pytest.approx([1 / 17] * 6)  # all tokens, those of the flat group as well
    assert batch.shares_B.tolist() == pytest.approx([1 / 12] * 6)
    assert batch.tokens == 17 + 14  # the whole rollout's: responses, and prompts twice
    assert len(_batch(kl="full").lengths) == len(_batch(kl="k3").lengths) == 8  # there the flat ones are drawn back
    assert len(_batch(kl="k3", truncated="mask").lengths) == 7


def test_skipped_groups_do_not_count() -> None:
    assert _batch(aggregation="token", flat_groups="skip").weights_B.tolist() == pytest.approx([1 / 12] * 6)
    assert _batch(aggregation="sum", flat_groups="skip").weights_B.tolist() == pytest.approx([1 / 6] * 6)
    assert len(_batch(kl="k3", flat_groups="skip").lengths) == 6


def test_groups_are_dealt_out_whole() -> None:
    dealt = [_rows(_batch(place=Place(0, step, 2, False))) for step in range(4)]
    rows = [PROMPTS[row // 2] + RESPONSES[row] for row in range(8)]
    assert [sorted(each) for each in dealt[:2]] == [sorted(rows[:2]), sorted(rows[4:])]
    assert dealt[2:] == dealt[:2]
    assert [_batch(place=Place(0, step, 2, False)).tokens for step in range(2)] == [15, 16]
    skipped = [_rows(_batch(place=Place(0, step, 2, False), flat_groups="skip")) for step in range(2)]
    assert [sorted(each) for each in skipped] == [sorted(rows[:2]), sorted(rows[4:])]


def test_figures_by_hand() -> None:
    figures = _rollout().figures({"short": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]})
    assert {name: value.item() for name, value in figures.items() if name != "rewards/std"} == {
        "rewards/mean": 0.625,
        "rewards/min": 0.0,
        "rewards/max": 2.0,
        "rewards/short": 0.25,
        "flat_groups": 0.25,
        "response_tokens": 17 / 8,
        "truncated": 1 / 8,
    }


class Bigrams(nn.Module):
    """Logits of the next token for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.table_VV = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens_BS: torch.Tensor) -> torch.Tensor:
        return self.table_VV[tokens_BS]


class BigramPolicy:
    """What the loss asks of a policy."""

    def logits(self, model: nn.Module, tokens_BS: torch.Tensor, first: int) -> torch.Tensor:
        assert 0 <= first < tokens_BS.shape[1]
        logits_BTV: torch.Tensor = model(tokens_BS)[:, first:]
        return logits_BTV


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 9])
@pytest.mark.parametrize("objective", [{}, {"kl": "k3", "truncated": "mask", "aggregation": "sequence"}], ids=str)
def test_parts_add_up_to_the_whole(objective: dict[str, Any], count: int) -> None:
    model, batch, settings = Bigrams(), _batch(**objective), RolloutConfig(prompts=4, group=2, tokens=4, passes=2)

    def loss(part: RolloutBatch) -> Any:
        return group_relative_loss(BigramPolicy(), model, part, settings, ObjectiveConfig(**objective))  # type: ignore[arg-type]

    whole, parts = loss(batch), [(loss(part), fraction) for part, fraction in batch.parts(count)]
    assert len(parts) == count
    assert sum(fraction for _, fraction in parts) == pytest.approx(1)
    total = sum(fraction * part.value for part, fraction in parts)
    assert total.item() == pytest.approx(whole.value.item(), abs=1e-6)
    assert sum(part.tokens for part, _ in parts) == whole.tokens
    for name, value in whole.metrics.items():
        combined = sum(fraction * part.metrics[name] for part, fraction in parts)
        assert combined.item() == pytest.approx(value.item(), abs=1e-6), name
    gradients = [torch.autograd.grad(each, model.table_VV)[0] for each in (whole.value, total)]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_parts_have_about_as_many_tokens() -> None:
    batch = _batch(kl="k3")
    parts = [part for part, _ in batch.parts(3)]
    assert batch.lengths == (2, 2, 4, 4, 4, 5, 5, 5)
    assert [part.lengths for part in parts] == [(2, 2, 4, 4), (4, 5), (5, 5)]
    assert [part.tokens_BS.shape for part in parts] == [(4, 4), (2, 5), (2, 5)]  # and no more padding than they need


@pytest.mark.parametrize("flat_groups", ["keep", "skip"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_rollout_without_signal_is_a_step_without_gradient(flat_groups: str, count: int) -> None:
    model, batch = Bigrams(), _batch([0.5] * 8, flat_groups=flat_groups)
    for part, _ in batch.parts(count):
        settings = RolloutConfig(prompts=4, group=2, tokens=4, passes=2)
        loss = group_relative_loss(BigramPolicy(), model, part, settings, ObjectiveConfig())  # type: ignore[arg-type]
        loss.value.backward()
        assert loss.value.item() == 0
        assert loss.tokens > 0  # or a budget of tokens would never be used up
    assert model.table_VV.grad is not None
    assert not model.table_VV.grad.any()
