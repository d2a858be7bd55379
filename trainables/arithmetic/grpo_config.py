"""The configuration of arithmetic by reinforcement learning. Imports no torch.

The method of the system that this family grew out of (`reinforce_group` there: one policy-gradient step for each
rollout, no ratio, no clipping, log-probabilities at temperature 1, distance over the whole vocabulary) is

    objective: {scale: group, ratio: none, aggregation: sum, kl: full, kl_coefficient: 0.05, tempered: false}
    rollout: {group: 4, temperature: 0.8, top_k: 50, top_p: 0.9}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.grpo_rewards import ArithmeticRewardsConfig
from trainables.models.decoder_config import DecoderConfig
from trainables.rl.config import GroupRelativeConfig, ObjectiveConfig, RolloutConfig

DataMode = Literal["instruction", "generated"]

_OF_PAIRS = ("batch_size", "batch_tokens", "batching", "most_cut")
"""Settings of training on solutions, which play no part here."""


class ArithmeticGrpoConfig(GroupRelativeConfig, ArithmeticConfig):
    """A decoder that learns from whether its own answers to expressions are right."""

    mode: Literal["instruction"] = "instruction"
    """Answers are written, given the problem."""
    data_mode: DataMode = "instruction"
    """What is asked. `instruction`: the valid expressions of the corpus, in random order, pass after pass. `generated`:
    expressions without end, drawn as those of the corpus are but never invalid, from a seed of their own. Neither has
    any of a test set."""
    least_operators: int = Field(default=0, ge=0)
    """Expressions with fewer operators are not asked while it learns: a model that has been taught gets these right
    nearly always, and learns nothing from them."""
    most_operators: int | None = Field(default=None, ge=0)
    """Nor are expressions with more: their answers are long, and nearly all wrong. Empty: all are."""
    rewards: ArithmeticRewardsConfig = ArithmeticRewardsConfig()
    """What an answer is worth."""
    rollout: RolloutConfig = RolloutConfig(prompts=32, group=8, tokens=512, generation_batch_size=128)
    """What the policy writes, and how often it learns from it."""
    objective: ObjectiveConfig = ObjectiveConfig(flat_groups="skip")
    """What is minimised."""
    model: DecoderConfig = DecoderConfig(layers=6, width=256, heads=8, feed_forward=1_024, bias=True)
    """The decoder, without dropout: the policy that learns is the one that writes."""

    @model_validator(mode="after")
    def _nothing_drops_out(self) -> ArithmeticGrpoConfig:
        if self.model.dropout or (self.adapter is not None and self.adapter.dropout):
            raise ValueError(
                "dropout (model.dropout, adapter.dropout) must be 0: answers are written without it, and the policy "
                "that learns has to be the one that wrote them"
            )
        return self

    @model_validator(mode="after")
    def _operators_in_order(self) -> ArithmeticGrpoConfig:
        if self.most_operators is not None and self.least_operators > self.most_operators:
            raise ValueError(
                f"least_operators ({self.least_operators}) must not be above most_operators ({self.most_operators})"
            )
        most = 2**self.corpus.max_depth - 1
        if self.least_operators > most:
            raise ValueError(
                f"least_operators ({self.least_operators}): an expression of depth {self.corpus.max_depth} "
                f"(corpus.max_depth) has at most {most}"
            )
        return self

    @model_validator(mode="after")
    def _batches_are_rollouts(self) -> ArithmeticGrpoConfig:
        fields = ArithmeticConfig.model_fields
        foreign = [name for name in _OF_PAIRS if getattr(self, name) != fields[name].default]
        if foreign:
            raise ValueError(f"{', '.join(foreign)}: no part of this training, whose batches are rollouts (rollout)")
        return self
