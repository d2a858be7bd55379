"""What a family of models that is trained by group-relative policy optimization derives from, before its own base:

    class WordProblems(GroupRelative[WordProblemsConfig]):
    class ArithmeticGrpo(GroupRelative[ArithmeticGrpoConfig], Arithmetic):

A family says how its models write (`policy`), what they are asked (`problems`), what a response is worth (`judge`) and
how a model is made (`fresh`); metrics, workload and evaluation are its own as ever. Importing this module does not
import torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rung.trainable import Loss, Trainable
from trainables.rl.config import GroupRelativeConfig
from trainables.rl.problems import Problem, ProblemOrder, Problems

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.rl.batch import RolloutBatch
    from trainables.rl.policy import Policy
    from trainables.rl.rewards import Judgement
    from trainables.rl.stream import RolloutStream

GroupRelativeConfigT = TypeVar("GroupRelativeConfigT", bound=GroupRelativeConfig)


class GroupRelative(Trainable[GroupRelativeConfigT, "RolloutBatch"]):
    """Batches are rollouts of the policy, the loss is that of `config.objective`."""

    # What a family answers.

    @property
    @abstractmethod
    def policy(self) -> Policy:
        """How the family's models are asked."""

    @abstractmethod
    def problems(self) -> Problems:
        """What the policy is asked while it learns: a set of problems, or an endless stream of them."""

    @abstractmethod
    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> Judgement:
        """What each response is worth, in total and by each reward function: response i answers problem i. The
        responses of a group stand side by side."""

    @abstractmethod
    def fresh(self, generator: torch.Generator) -> nn.Module:
        """A model as `Trainable.model` makes it, without a copy of the reference policy."""

    # What follows from it.

    @classmethod
    def packing_obstacle(cls, config: GroupRelativeConfigT) -> str | None:
        """Every run writes what it learns from."""
        return "each run writes its own rollouts"

    @classmethod
    def idle(cls, config: GroupRelativeConfigT) -> Mapping[str, str]:
        """Coefficients and bounds of what the objective does not have."""
        rollout, objective = config.rollout, config.objective
        found = {}
        if objective.kl == "none":
            found["objective.kl_coefficient"] = "objective.kl is none"
        bounds = ("objective.clip_low", "objective.clip_high")
        if objective.ratio == "none":
            found |= dict.fromkeys(bounds, "objective.ratio is none")
        elif rollout.steps == 1:
            found |= dict.fromkeys(bounds, "with one step for each rollout (passes x minibatches) every ratio is 1")
        return found

    @classmethod
    def splitting_obstacle(cls, config: GroupRelativeConfigT, parts: int) -> str | None:
        """None: parts that a small rollout has no responses for count nothing."""
        return None

    def model(self, generator: torch.Generator) -> nn.Module:
        """A fresh model; it carries a frozen copy of itself if the distance from it is asked for and the model has no
        adapters that can be switched off."""
        from trainables.rl.reference import carry_copy, needs_copy

        model = self.fresh(generator)
        if needs_copy(model, self.config.objective):
            carry_copy(model, generator)
        return model

    def begin_from(self, model: nn.Module, weights: Mapping[str, torch.Tensor], config: Any) -> None:
        """Takes the weights over, without the other run's reference policy: the reference is where this run begins."""
        from trainables.rl.reference import copy_apart, without_reference

        with copy_apart(model):
            super().begin_from(model, without_reference(weights), config)

    def batches(self) -> RolloutStream:
        """Rollouts of the policy."""
        from trainables.rl.stream import RolloutStream

        config = self.config
        data_seed = self.seed if config.data_seed is None else config.data_seed
        return RolloutStream(
            policy=self.policy,
            problems=ProblemOrder(self.problems(), config.rollout, data_seed),
            judge=self.judge,
            rollout=config.rollout,
            objective=config.objective,
            rows_at_once=-(-config.rollout.responses // (config.rollout.minibatches * config.accumulation)),
            seed=self.seed,
            device=self.device,
        )

    def loss(self, model: nn.Module, batch: RolloutBatch) -> Loss:
        """See `objective.py`."""
        from trainables.rl.objective import group_relative_loss

        return group_relative_loss(self.policy, model, batch, self.config.rollout, self.config.objective)

    def parts(self, batch: RolloutBatch, count: int) -> Sequence[tuple[RolloutBatch, float]]:
        """Responses, about as many tokens in each part; where there are fewer responses than parts, some that count
        nothing are added."""
        return batch.parts(count)
