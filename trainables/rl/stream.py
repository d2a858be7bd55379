"""The stream of rollouts: the policy writes, the responses are judged, and optimizer steps learn from them.

The processes of a team each write the responses to some of the problems, and tell the others; rewards are those that
rank 0 has found. So the batch is the same everywhere, and is split as any other.

Shape suffixes: R rows of a rollout, B rows, S positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import repeat

import numpy as np
import torch
from torch import nn

from rung.training.team import Alone, Team
from trainables.rl.batch import RolloutBatch
from trainables.rl.config import ObjectiveConfig, RolloutConfig
from trainables.rl.policy import Policy, Written
from trainables.rl.problems import Problem, ProblemOrder
from trainables.rl.reading import has_diverged, log_probabilities
from trainables.rl.rewards import Judgement
from trainables.rl.rollout import Response, Rollout

_DRAWS = 5
"""The stream of random numbers that responses are drawn from, apart from others made from the same seed."""

Judge = Callable[[Sequence[Problem], Sequence[str]], Judgement]


class RolloutStream:
    """The stream of training batches.

    Args:
        policy: how the model is asked.
        problems: which problems each rollout has.
        judge: what responses are worth.
        rollout, objective: the settings.
        rows_at_once: responses that the reference policy reads at once.
        seed: of the draws.
        device: where the batches go.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        problems: ProblemOrder,
        judge: Judge,
        rollout: RolloutConfig,
        objective: ObjectiveConfig,
        rows_at_once: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.policy = policy
        self.problems = problems
        self.judge = judge
        self.rollout = rollout
        self.objective = objective
        self.rows_at_once = rows_at_once
        self.seed = seed
        self.device = device
        self._team: Team = Alone()
        self._number = -1
        """Of the rollout that is held."""
        self._held: Rollout | None = None
        self._is_used_up = True
        self._figures: dict[str, torch.Tensor] = {}
        self._epoch = -1
        self._sums = torch.zeros(2, dtype=torch.float64)
        """Of the epoch so far: rewards, and responses."""

    def join(self, team: Team) -> None:
        """See `rung.trainable.Shared`."""
        self._team = team

    def at(self, position: int, policy: nn.Module) -> RolloutBatch:
        """What optimizer step `position` learns from; `policy` writes if a rollout begins with it."""
        place = self.problems.timetable.place(position)
        if self._held is None or self._number != place.rollout:
            self._write(place.rollout, policy)
        assert self._held is not None
        self._is_used_up = place.is_last
        return self._held.batch(place, self.rollout, self.objective, self._figures, self.device)

    def _write(self, number: int, model: nn.Module) -> None:
        problems = self.problems.of(number)
        self._number = number
        if has_diverged(self.policy, model, problems[0].tokens, self.device):
            self._held = Rollout.of_nothing(problems, self.rollout.group, self.policy.pad)
            self._figures = {}
            return
        mine = range(self._team.rank, len(problems), self._team.size)
        told = self._team.all_of(self._responses([problems[index] for index in mine], mine, number, model))
        groups = [told[index % len(told)][index // len(told)] for index in range(len(problems))]
        asked = [problem for problem, group in zip(problems, groups, strict=True) for _ in group]
        texts = [self.policy.decode(response.written.tokens) for group in groups for response in group]
        judgement = self._team.first(lambda: self.judge(asked, texts))
        self._held = Rollout.of(problems, groups, judgement.total, self.policy.pad)
        self._figures = self._held.figures(judgement.parts) | self._of_epoch(number, self._held.rewards_NG)

    def _of_epoch(self, number: int, rewards_NG: torch.Tensor) -> dict[str, torch.Tensor]:
        """Metrics of the epoch up to and with a rollout."""
        epoch = self.problems.timetable.epoch(number)
        if epoch != self._epoch:
            self._epoch, self._sums = epoch, torch.zeros(2, dtype=torch.float64)
        self._sums = self._sums + torch.tensor([rewards_NG.sum(), rewards_NG.numel()], dtype=torch.float64)
        total, count = self._sums
        return {"epoch/accumulated_reward": total.clone(), "epoch/mean_reward": total / count}

    def _responses(
        self, problems: Sequence[Problem], indices: Sequence[int], number: int, model: nn.Module
    ) -> list[list[Response]]:
        """What this process writes: the groups of some problems, which have these places in the rollout."""
        if not problems:
            return []
        words = np.random.SeedSequence([self.seed, _DRAWS, number]).generate_state(1, np.uint64)
        groups = self.policy.write(
            model,
            [problem.tokens for problem in problems],
            group=self.rollout.group,
            tokens=self.rollout.tokens,
            temperature=self.rollout.temperature,
            top_k=self.rollout.top_k,
            top_p=self.rollout.top_p,
            seed=int(words[0] >> 1),
            numbers=list(indices),
            batch_size=self.rollout.generation_batch_size,
        )
        references = self._references(problems, groups, model)
        return [[Response(written, next(references)) for written in group] for group in groups]

    def _references(
        self, problems: Sequence[Problem], groups: Sequence[Sequence[Written]], model: nn.Module
    ) -> Iterator[list[float]]:
        """Log-probabilities of the tokens of each response under the reference policy; of none if nobody asks."""
        if not self.objective.is_estimated:
            return repeat([])
        asked = zip(problems, groups, strict=True)
        pairs = [(problem.tokens, each.tokens) for problem, group in asked for each in group]
        temperature = self.rollout.temperature if self.objective.tempered else 1.0
        with self.policy.reference(model) as reference:
            found = log_probabilities(self.policy, reference, pairs, temperature, self.rows_at_once, self.device)
        return iter(found)

    def state(self) -> dict[str, torch.Tensor]:
        """Sums of the epoch, and the rollout if steps to come learn from it."""
        kept = {"number": torch.tensor(self._number), "epoch": torch.tensor(self._epoch), "sums": self._sums}
        if self._held is None or self._is_used_up:
            return kept
        kept |= {f"rollout/{field.name}": getattr(self._held, field.name) for field in fields(self._held)}
        return kept | {f"figure/{name}": figure for name, figure in self._figures.items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on where `state` was taken."""
        self._number, self._epoch = int(state["number"]), int(state["epoch"])
        self._sums = state["sums"].cpu()
        held = {name: state.get(f"rollout/{name}") for name in (field.name for field in fields(Rollout))}
        self._held = None
        if all(tensor is not None for tensor in held.values()):
            self._held = Rollout(**{name: tensor.cpu() for name, tensor in held.items() if tensor is not None})
            self._is_used_up = False
        self._figures = {
            name.removeprefix("figure/"): tensor.cpu() for name, tensor in state.items() if name.startswith("figure/")
        }
