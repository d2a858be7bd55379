"""The configuration of group-relative policy optimization. Imports no torch.

Methods by name, as settings of `ObjectiveConfig`; what is not named is as in the default:

    GRPO (Shao et al. 2024, arXiv 2402.03300)       aggregation: sequence, kl: k3
    Dr. GRPO (Liu et al. 2025, arXiv 2503.20783)    scale: none, aggregation: constant
    DAPO (Yu et al. 2025, arXiv 2503.14476)         clip_high: 0.28, flat_groups: skip, truncated: mask
    GSPO (Zheng et al. 2025, arXiv 2507.18071)      ratio: sequence, aggregation: sequence, clip_low: 3e-4,
                                                    clip_high: 4e-4, with several steps for each rollout
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rung.settings import StrictModel, TrainableConfig

Scale = Literal["group", "batch", "none"]
Ratio = Literal["token", "sequence", "none"]
Aggregation = Literal["sequence", "token", "constant", "sum"]
Kl = Literal["none", "k3", "k3_weighted", "full"]


class RolloutConfig(StrictModel):
    """How the policy writes what it learns from, and how often it learns from it."""

    prompts: int = Field(default=8, gt=0)
    """Different prompts in a rollout."""
    group: int = Field(default=8, ge=2)
    """Responses to each prompt; they are judged against each other, so there are at least two."""
    tokens: int = Field(default=256, gt=0)
    """Most tokens of a response."""
    temperature: float = Field(default=1.0, gt=0)
    """What logits are divided by when responses are drawn."""
    top_k: int | None = Field(default=None, gt=0)
    """Only so many of the likeliest tokens are drawn from; empty: all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Only the likeliest tokens that together have this probability; empty: all."""
    passes: int = Field(default=1, gt=0)
    """How often every response of a rollout is learnt from (mu in the GRPO paper)."""
    minibatches: int = Field(default=1, gt=0)
    """Optimizer steps in one pass: the prompts of a rollout are dealt out to so many."""
    generation_batch_size: int | None = Field(default=None, gt=0)
    """Responses that are written at once; changes speed and memory only. Empty: the whole rollout."""

    @model_validator(mode="after")
    def _every_step_has_a_prompt(self) -> RolloutConfig:
        if self.minibatches > self.prompts:
            raise ValueError(
                f"minibatches ({self.minibatches}) deals out the prompts of a rollout, of which there are "
                f"{self.prompts} (prompts): at most as many"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps that a rollout serves."""
        return self.passes * self.minibatches

    @property
    def responses(self) -> int:
        """Responses in a rollout."""
        return self.prompts * self.group


class ObjectiveConfig(StrictModel):
    """What is minimised, given responses and rewards."""

    scale: Scale = "group"
    """What a reward's distance from its group's mean is divided by: the group's standard deviation, that of all rewards
    of the rollout, or nothing."""
    ratio: Ratio = "token"
    """How far the policy has moved since it wrote a response: token by token, for the response as a whole (the
    geometric mean over its tokens, GSPO), or not asked (`none`: the plain policy gradient, log-probability times
    advantage)."""
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """Ratios below 1 minus this are not pushed further down."""
    clip_high: float = Field(default=0.2, ge=0)
    """Ratios above 1 plus this are not pushed further up ("clip higher" where it is more than `clip_low`)."""
    aggregation: Aggregation = "token"
    """How tokens become one number. `sequence`: mean over the tokens of each response, then over responses. `token`:
    mean over all tokens. `constant`: sum over all tokens, divided by responses times `rollout.tokens`. `sum`: sum over
    the tokens of each response, then mean over responses."""
    kl: Kl = "none"
    """How the distance from the reference policy is measured at each token. That is the one that training began with,
    or a model without its adapters. `k3`: the estimate exp(d) - d - 1 with d = log p_reference - log p of the token
    (Schulman 2020, joschu.net/blog/kl-approx.html). `k3_weighted`: the same times the ratio of the token, so that its
    gradient, too, is right on average (DeepSeek-V3.2, arXiv 2512.02556). `full`: the sum over the vocabulary."""
    kl_coefficient: float = Field(default=0.05, ge=0)
    """What that distance is multiplied by (beta)."""
    flat_groups: Literal["keep", "skip"] = "keep"
    """Groups whose rewards are all equal say nothing about which response was better. `keep`: they count in means with
    advantages of 0. `skip`: they are left out of everything but the counts."""
    truncated: Literal["keep", "mask"] = "keep"
    """Responses that came to no end within `rollout.tokens`. `mask`: they are judged, but not learnt from."""
    tempered: bool = True
    """Whether log-probabilities are those of the distribution that was drawn from, up to `top_k` and `top_p`: logits
    divided by `rollout.temperature`. Otherwise those at temperature 1."""

    @property
    def is_estimated(self) -> bool:
        """Whether the distance from the reference policy is estimated from the tokens that were drawn."""
        return self.kl in ("k3", "k3_weighted")


class GroupRelativeConfig(TrainableConfig):
    """What every family has that is trained so."""

    rollout: RolloutConfig = RolloutConfig()
    """What the policy writes, and how often it learns from it."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What is minimised."""
    data_seed: int | None = Field(default=None, ge=0)
    """Seed of the order of problems. Empty: the run's own seed."""

    @model_validator(mode="after")
    def _ratio_compares_like_with_like(self) -> GroupRelativeConfig:
        rollout, objective = self.rollout, self.objective
        compares = objective.ratio != "none" or objective.kl == "k3_weighted"
        if rollout.steps > 1 and compares and not objective.tempered and rollout.temperature != 1:
            raise ValueError(
                f"objective.tempered: false with {rollout.steps} steps per rollout: the ratio compares with the "
                "log-probabilities that tokens were drawn with, which are those at rollout.temperature "
                f"({rollout.temperature:g}). Set tempered to true or temperature to 1"
            )
        return self

    @model_validator(mode="after")
    def _responses_can_be_split(self) -> GroupRelativeConfig:
        rows = self.rollout.responses // self.rollout.minibatches
        if self.accumulation > rows:
            raise ValueError(
                f"accumulation ({self.accumulation}) takes a batch apart by its responses, of which there are {rows} "
                "(rollout.prompts x group / minibatches)"
            )
        return self
