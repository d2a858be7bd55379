"""What a policy wrote and what it is worth, as tensors, and how it is dealt out to optimizer steps.

Responses that move nothing are not computed: without a distance from the reference these are the flat groups, whose
advantages are 0, and cut-off responses that are masked. They count in the means all the same.

Shape suffixes: N groups, G responses of each, R = N G rows, group by group; B rows of a step; S positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from trainables.rl.advantages import advantages, is_flat
from trainables.rl.batch import RolloutBatch
from trainables.rl.config import Aggregation, ObjectiveConfig, RolloutConfig
from trainables.rl.policy import Written
from trainables.rl.problems import Place, Problem


@dataclass(frozen=True)
class Response:
    """A response, and what the reference policy thinks of it."""

    written: Written
    reference: list[float]
    """Log-probability of each token under the reference policy; empty where nobody asks."""


@dataclass(frozen=True)
class Rollout:
    """All responses of a rollout, on the CPU. Every field is a tensor, so that a checkpoint holds it."""

    tokens_RS: torch.Tensor
    """Prompts and responses, int64, filled up at the right."""
    prompts_R: torch.Tensor
    """Tokens of each row's prompt, int64."""
    lengths_R: torch.Tensor
    """Tokens of prompt and response together, int64."""
    has_ended_R: torch.Tensor
    """Whether the response came to its end."""
    rewards_NG: torch.Tensor
    """fp64."""
    written_RS: torch.Tensor
    """Log-probability of each token when it was drawn, fp32; 0 for prompts and padding."""
    reference_RS: torch.Tensor
    """The same of the reference policy; without columns (R, 0) where nobody asks."""

    @classmethod
    def of(
        cls, problems: Sequence[Problem], groups: Sequence[Sequence[Response]], rewards: Sequence[float], pad: int
    ) -> Rollout:
        """What was written to each problem, with the rewards of all responses, group by group."""
        prompts = [problem.tokens for problem, group in zip(problems, groups, strict=True) for _ in group]
        responses = [response for group in groups for response in group]
        rows = [[*prompt, *response.written.tokens] for prompt, response in zip(prompts, responses, strict=True)]
        counts = list(map(len, prompts))
        references = [response.reference for response in responses]
        return cls(
            tokens_RS=_filled(rows, [0] * len(rows), pad, torch.int64),
            prompts_R=torch.tensor(counts),
            lengths_R=torch.tensor(list(map(len, rows))),
            has_ended_R=torch.tensor([response.written.has_ended for response in responses]),
            rewards_NG=torch.tensor(rewards, dtype=torch.float64).view(len(groups), -1),
            written_RS=_filled([response.written.log_probabilities for response in responses], counts),
            reference_RS=_filled(references, counts) if any(references) else torch.empty(len(rows), 0),
        )

    @classmethod
    def of_nothing(cls, problems: Sequence[Problem], group: int, pad: int) -> Rollout:
        """Of a policy that has diverged, and writes nothing any more: the loss is NaN, which ends the run."""
        nothing = [Response(Written([pad], [math.nan], False), [math.nan])] * group
        return cls.of(problems, [nothing] * len(problems), [math.nan] * (group * len(problems)), pad)

    def batch(
        self,
        place: Place,
        rollout: RolloutConfig,
        objective: ObjectiveConfig,
        figures: Mapping[str, torch.Tensor],
        device: str,
    ) -> RolloutBatch:
        """What a step learns from: the responses of its share of the groups that move something, shortest first."""
        rows_B = self._rows(place, objective)
        learnt_R = self.lengths_R - self.prompts_R
        if objective.truncated == "mask":
            learnt_R = learnt_R * self.has_ended_R
        weights_R = torch.zeros(len(learnt_R))
        weights_R[rows_B] = token_weights(learnt_R[rows_B], objective.aggregation, rollout.tokens)
        advantages_R = advantages(self.rewards_NG, objective.scale).flatten().float()
        moves_B = (learnt_R[rows_B] > 0) & ((advantages_R[rows_B] != 0) | (objective.kl != "none"))
        chosen = rows_B[moves_B]
        chosen = chosen[self.lengths_R[chosen].argsort(stable=True)]
        computed, lengths = int(learnt_R[chosen].sum()), self.lengths_R[chosen].tolist()
        if not computed:  # the model must be asked all the same: a gradient of 0 is one, too
            chosen, lengths, weights_R = torch.tensor([0]), [0], torch.zeros(1)
        width = max(*lengths, int(self.prompts_R[chosen].max()) + 1)
        return RolloutBatch(
            tokens_BS=self.tokens_RS[chosen, :width].to(device),
            prompts=tuple(self.prompts_R[chosen].tolist()),
            lengths=tuple(lengths),
            weights_B=weights_R[chosen].to(device),
            shares_B=torch.full((len(chosen),), 1 / computed if computed else 0.0, device=device),
            advantages_B=advantages_R[chosen].to(device),
            written_BS=self.written_RS[chosen, :width].to(device),
            reference_BS=self.reference_RS[chosen, :width].to(device) if self.reference_RS.numel() else None,
            is_on_policy=place.step == 0 and place.is_last,
            tokens=place.share(int(self.lengths_R.sum())),
            figures={name: figure.float().to(device) for name, figure in figures.items()},
        )

    def _rows(self, place: Place, objective: ObjectiveConfig) -> torch.Tensor:
        """The rows (B,) that a step's means are over."""
        groups_N = torch.arange(len(self.rewards_NG))
        if objective.flat_groups == "skip":
            groups_N = groups_N[~is_flat(self.rewards_NG)]
        count = len(groups_N)
        begin, end = (count * index // place.minibatches for index in (place.minibatch, place.minibatch + 1))
        size = self.rewards_NG.shape[1]
        return (groups_N[begin:end, None] * size + torch.arange(size)).flatten()

    def figures(self, parts: Mapping[str, Sequence[float]]) -> dict[str, torch.Tensor]:
        """Metrics of the rollout, fp64: of rewards in total and by each function, of groups and of responses."""
        rewards_NG = self.rewards_NG
        values = {
            "rewards/mean": rewards_NG.mean(),
            "rewards/std": rewards_NG.std(correction=0),
            "rewards/min": rewards_NG.min(),
            "rewards/max": rewards_NG.max(),
            "flat_groups": is_flat(rewards_NG).double().mean(),
            "response_tokens": (self.lengths_R - self.prompts_R).double().mean(),
            "truncated": 1 - self.has_ended_R.double().mean(),
        }
        named = {f"rewards/{name}": torch.tensor(part, dtype=torch.float64).mean() for name, part in parts.items()}
        return values | named


def token_weights(lengths_B: torch.Tensor, aggregation: Aggregation, most: int) -> torch.Tensor:
    """What each token of a response counts in the loss (B,), fp32, so that the loss is a sum over all tokens.

    Of responses of lengths l_i, B of them:
    `sequence`: 1 / (B l_i), a mean over the tokens of each response, then over responses (Shao et al. 2024, arXiv
    2402.03300, equation 3); `token`: 1 / sum(l), a mean over all tokens (Yu et al. 2025, DAPO, arXiv 2503.14476,
    section 3.3); `constant`: 1 / (B most) (Liu et al. 2025, Dr. GRPO, arXiv 2503.20783, section 3.2);
    `sum`: 1 / B, the log-probability of a response being the sum over its tokens (REINFORCE, Williams 1992).

    Args:
        lengths_B: tokens that count, 0 for a response that is masked.
        aggregation: which of them.
        most: tokens that a response may have.
    """
    lengths_B, rows = lengths_B.double(), max(1, len(lengths_B))
    if aggregation == "sequence":
        weights_B = 1 / (rows * lengths_B.clamp(min=1))
    elif aggregation == "token":
        weights_B = torch.ones_like(lengths_B) / lengths_B.sum().clamp(min=1)
    else:
        weights_B = torch.ones_like(lengths_B) / (rows * (most if aggregation == "constant" else 1))
    return torch.where(lengths_B > 0, weights_B, 0.0).float()


def _filled(
    rows: Sequence[Sequence[float]], begins: Sequence[int], pad: float = 0.0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Rows as one tensor, each from its column on; `pad` everywhere else."""
    width = max(begin + len(row) for begin, row in zip(begins, rows, strict=True))
    filled = torch.full((len(rows), width), pad, dtype=dtype)
    for index, (begin, row) in enumerate(zip(begins, rows, strict=True)):
        filled[index, begin : begin + len(row)] = torch.tensor(row, dtype=dtype)
    return filled
