"""What a corpus of arithmetic items is made of. Imports no torch.

A corpus is a pure function of its configuration: `artifacts.py` keeps it under the hash of these values.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rung.settings import StrictModel

MOST = 1_000_000
"""Largest number: the draws behind them are even enough for so many."""


class ExpressionConfig(StrictModel):
    """The distribution that expressions are drawn from."""

    max_depth: int = Field(default=5, ge=0, le=8)
    """Greatest depth of an expression's tree; its root is at depth 0. A node at this depth is a number, any other node
    one with probability 0.3."""
    smallest: int = Field(default=1, ge=0, le=MOST)
    """Smallest number in an expression."""
    largest: int = Field(default=20, ge=0, le=MOST)
    """Largest number in an expression; numbers between them are equally likely."""
    invalid_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of items whose expression is invalid."""
    node_error_rate: float | None = Field(default=None, ge=0, le=1)
    """Instead of `invalid_rate`: the probability with which each operator of an expression is broken, so that larger
    expressions are invalid more often. Empty: off."""
    seed: int = Field(default=0, ge=0)
    """Seed of the items."""

    @model_validator(mode="after")
    def _numbers_in_order(self) -> ExpressionConfig:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) must not be above largest ({self.largest})")
        return self


class CorpusConfig(ExpressionConfig):
    """A corpus to train on, with a held-out part for validation."""

    samples: int = Field(default=100_000, gt=0)
    """Items to train on."""
    validation_samples: int = Field(default=1_000, gt=0)
    """Items to validate on; no expression of theirs is trained on."""


class TestConfig(ExpressionConfig):
    """A test set: no expression of it is in any corpus, whatever the seeds, and none stands in it twice."""

    __test__ = False  # not a pytest class

    samples: int = Field(default=1_000, gt=0)
    """Items."""
    invalid_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of items whose expression is invalid."""


Format = Literal["v1", "v2"]
"""How problem and solution are joined. `v2`: the prompt is the problem and a line's end, the solution follows. `v1`, as
the system that this one grew out of has it: a foundational text is the solution on one line behind the problem, and an
instruction prompt ends in `<think>` although the solution begins with it too."""
