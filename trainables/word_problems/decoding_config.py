"""How test questions are answered. Imports no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from rung.settings import StrictModel


class DecodingConfig(StrictModel):
    """How test questions are answered: once greedily, and `samples` times drawn."""

    tokens: int = Field(default=256, gt=0)
    """Most new tokens of an answer."""
    samples: int = Field(default=0, ge=0)
    """Answers to each question that are drawn beside the greedy one."""
    temperature: float = Field(default=0.5, gt=0)
    """What logits are divided by when they are drawn."""
    top_k: int | None = Field(default=None, gt=0)
    """Only so many of the likeliest tokens are drawn from; empty: all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Only the likeliest tokens that together have this probability; empty: all."""
    ks: tuple[int, ...] = ()
    """The k of every pass@k and majority vote over the drawn answers, at most `samples`. The greedy pass@1 is always
    reported."""
    batch_size: int | None = Field(default=64, gt=0)
    """Answers that are written at once; changes speed and memory only. Empty: all."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""

    @model_validator(mode="after")
    def _ks_are_possible(self) -> DecodingConfig:
        wrong = [k for k in self.ks if k < 1 or k > max(1, self.samples)]
        if wrong:
            raise ValueError(
                f"ks: pass@{wrong[0]} takes at least {wrong[0]} drawn answers to each question, and samples is "
                f"{self.samples}"
                if wrong[0] >= 1
                else f"ks: pass@{wrong[0]} is not defined: k is at least 1"
            )
        return self
