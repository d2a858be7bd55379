"""The configuration of an evaluation of the arithmetic language model. Imports no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from rung.settings import StrictModel
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.corpus_config import TestConfig


class DecodingConfig(StrictModel):
    """How answers are written. Greedy unless it says otherwise."""

    tokens: int | None = Field(default=None, gt=0)
    """Most new tokens of an answer. Empty: as many as the model's context has room for, which is a limit anyway."""
    temperature: float = Field(default=0.0, ge=0)
    """What logits are divided by; 0: always the likeliest token."""
    top_k: int | None = Field(default=None, gt=0)
    """Only so many of the likeliest tokens. Empty: all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Only the likeliest tokens that have this probability together. Empty: all."""
    samples: int = Field(default=1, gt=0)
    """Answers to each item. More than one takes a temperature: greedily they would all be the same."""
    ks: tuple[int, ...] = (1,)
    """The k of every pass@k: the probability that one of k answers is right. At most `samples`."""
    batch_size: int = Field(default=64, gt=0)
    """Answers that are written at once; changes speed and memory only."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""

    @model_validator(mode="after")
    def _samples_differ(self) -> DecodingConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same: raise temperature, or take 1")
        return self

    @model_validator(mode="after")
    def _ks_are_possible(self) -> DecodingConfig:
        wrong = [k for k in self.ks if not 1 <= k <= self.samples]
        if wrong:
            raise ValueError(
                f"ks: pass@{wrong[0]} takes at least {wrong[0]} samples of each item, there are {self.samples}"
            )
        return self


class ArithmeticEvaluationConfig(ArithmeticConfig):
    """A model that is tested and not trained."""

    test: TestConfig = TestConfig()
    """What it is tested on; no item of it is in any corpus."""
    decoding: DecodingConfig = DecodingConfig()
    """How answers are written."""
