"""Settings of run_grpo_training, under the names and with the defaults of the original. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainables.arithmetic.grpo_config import DataMode
from trainables.arithmetic.training_settings import CommandSettings, InputPath
from trainables.rl.config import ObjectiveConfig, RolloutConfig

Algorithm = Literal["reinforce_group", "grpo", "dr_grpo", "dapo", "gspo"]

OBJECTIVES: dict[Algorithm, dict[str, Any]] = {
    "reinforce_group": {"scale": "group", "ratio": "none", "aggregation": "sum", "kl": "full", "tempered": False},
    "grpo": {"aggregation": "sequence", "kl": "k3"},
    "dr_grpo": {"scale": "none", "aggregation": "constant"},
    "dapo": {"aggregation": "token", "clip_high": 0.28, "flat_groups": "skip"},
    "gspo": {"ratio": "sequence", "aggregation": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
}
"""What each algorithm is in terms of `ObjectiveConfig`."""

GENERATED = 1_024
"""Expressions of an epoch that are drawn, if it is not said otherwise."""


class GrpoSettings(CommandSettings):
    """Settings of run_grpo_training."""

    kind: ClassVar[str] = "grpo"

    tokenizer: InputPath
    """Folder of the tokenizer, or its tokenizer.json."""
    sft_checkpoint: InputPath
    """Weights to begin with, which are also the reference policy: a .safetensors file, the folder of a run, or a
    checkpoint of a study."""
    data_mode: DataMode = "instruction"
    """What is asked: the valid expressions of a corpus, or expressions that are drawn."""
    instruction_corpus: InputPath | None = None
    """Corpus of `instruction`: JSONL, or a folder with train.jsonl and validation.jsonl."""
    num_samples: int | None = Field(default=None, gt=0)
    """Expressions of an epoch: the first ones of the corpus, none: all of it; or drawn ones, none: 1,024."""
    filter_invalid_instruction: bool = False
    """Kept for old command lines: invalid expressions are never asked, since no answer to them is a number."""
    max_depth: int = Field(default=5, ge=0, le=8)
    """Greatest depth of expressions that are drawn."""
    num_range_min: int = Field(default=1, ge=0)
    """Their smallest number."""
    num_range_max: int = Field(default=20, ge=0)
    """Their largest number."""
    batch_size: int = Field(default=8, gt=0)
    """Expressions whose answers are learnt from at once."""
    gradient_accumulation_steps: int = Field(default=1, gt=0)
    """So many times that many expressions are a step."""
    num_candidates: int = Field(default=4, ge=2)
    """Answers to each expression."""
    candidate_sub_batch_size: int | None = Field(default=None, gt=0)
    """Answers that are written at once; none: all of a step."""
    max_gen_length: int = Field(default=512, gt=0)
    """Most tokens of an answer."""
    temperature: float = Field(default=0.8, gt=0)
    """What logits are divided by when answers are drawn."""
    top_k: int | None = Field(default=50, gt=0)
    """Only so many of the likeliest tokens are drawn from; none: all."""
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    """Only the likeliest tokens that have this probability together; none: all."""
    algorithm: Algorithm = "reinforce_group"
    """What is minimised: `reinforce_group` is the original's; the others are those of their papers."""
    kl_penalty_coef: float = Field(default=0.05, ge=0)
    """What the distance from the reference policy is multiplied by, with `reinforce_group` and `grpo`; 0: no
    distance."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate; it rises from 0 during the warm-up and falls to 0 in a straight line."""
    num_epochs: int = Field(default=3, gt=0)
    """Passes over the expressions."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps of warm-up."""
    save_every: int = Field(default=500, gt=0)
    """Steps between two checkpoint_step_N.safetensors."""
    eval_every: int = Field(default=250, gt=0)
    """Steps between two evaluations; there is one at the beginning and one at the end of each epoch, too."""
    log_every: int = Field(default=10, gt=0)
    """Steps that one entry of the log, and one line on the screen, tells about."""

    @property
    def corpus(self) -> Path | None:
        """Where the expressions are; None: they are drawn."""
        return self.instruction_corpus if self.data_mode == "instruction" else None

    @property
    def tokens_by(self) -> Path:
        """The tokenizer."""
        return self.tokenizer

    @property
    def checkpoint(self) -> Path:
        """The model that training begins with."""
        return self.sft_checkpoint

    @property
    def objective(self) -> ObjectiveConfig:
        """What is minimised."""
        values = OBJECTIVES[self.algorithm] | {"kl_coefficient": self.kl_penalty_coef}
        return ObjectiveConfig.model_validate(values if self.kl_penalty_coef else values | {"kl": "none"})

    def to_values(self) -> dict[str, Any]:
        """What these settings say about an `ArithmeticGrpoConfig`."""
        rollout = RolloutConfig(
            prompts=self.batch_size * self.gradient_accumulation_steps,
            group=self.num_candidates,
            tokens=self.max_gen_length,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            generation_batch_size=self.candidate_sub_batch_size,
        )
        return super().to_values() | {
            "data_mode": self.data_mode,
            "rollout": rollout,
            "objective": self.objective,
            "accumulation": self.gradient_accumulation_steps,
        }

    @model_validator(mode="after")
    def _corpus_is_there_if_it_is_asked_for(self) -> GrpoSettings:
        if self.data_mode == "instruction" and self.instruction_corpus is None:
            raise ValueError("--data-mode instruction asks the expressions of a corpus: name it (--instruction-corpus)")
        if self.num_range_min > self.num_range_max:
            raise ValueError(
                f"--num-range-min ({self.num_range_min}) must not be above --num-range-max ({self.num_range_max})"
            )
        return self
