"""The configuration of the arithmetic language model. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rung.settings import StrictModel, TrainableConfig
from trainables.arithmetic.corpus_config import CorpusConfig, Format
from trainables.models.decoder_config import DecoderConfig
from trainables.models.lora_config import LoraConfig

Batching = Literal["padded", "bucketed", "packed"]


class TokenizerConfig(StrictModel):
    """The byte-pair encoding."""

    vocabulary: int = Field(default=1_000, ge=43, lt=65_536)
    """Most tokens: the 6 special ones, the 37 characters of the language, and what merges make of them. There are fewer
    when every word is a token: about 100 with `digits`, about 300 with `whole`."""
    numbers: Literal["digits", "whole"] = "digits"
    """`digits`: each digit is a token of its own. `whole`: frequent numbers are single tokens, which makes sequences a
    seventh shorter."""
    corpus: CorpusConfig | None = None
    """The corpus that it is learnt from, the first 10,000 items of it. Empty: the one to train on."""


class ArithmeticConfig(TrainableConfig):
    """A decoder that learns to evaluate expressions step by step."""

    mode: Literal["foundational", "instruction"] = "foundational"
    """What is learnt. `foundational`: all tokens. `instruction`: those of the solution, given the problem."""
    format: Format = "v2"
    """How problem and solution are joined."""
    corpus: CorpusConfig = CorpusConfig()
    """What is trained on."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes tokens."""
    model: DecoderConfig = DecoderConfig(layers=6, width=256, heads=8, feed_forward=1_024, bias=True, dropout=0.1)
    """The decoder."""
    adapter: LoraConfig | None = None
    """Low-rank adapters, which alone are trained; empty: the whole model is."""
    context: int = Field(default=512, gt=0)
    """Longest sequence, in tokens."""
    batch_size: int = Field(default=32, gt=0)
    """Items in a training batch, on average; with `packed`, rows of `context` tokens."""
    batching: Batching = "bucketed"
    """How items become batches. `padded`: items in random order, each a row as long as the longest of its batch.
    `bucketed`: items of like length together, in batches of about equal numbers of tokens, so that hardly anything is
    padding; a batch of short items has more of them. `packed`: whole items one after another in rows of `context`
    tokens; attention reaches from one into those before it in its row, and only the first begins at position 0."""
    batch_tokens: int | None = Field(default=None, gt=0)
    """`bucketed` only: about so many tokens in a training batch, in place of `batch_size`. An item that is longer is a
    batch by itself."""
    most_cut: float = Field(default=0.001, ge=0, le=1)
    """Share of items longer than `context` above which training is refused; fewer are left out, with a warning. Nothing
    is ever cut off: the end of an item is its answer."""
    data_seed: int | None = Field(default=None, ge=0)
    """Seed of the order of items. Empty: the run's own seed."""
    evaluation_items: int = Field(default=500, gt=0)
    """Items of the validation part that are evaluated: the first ones, all if it has no more."""
    evaluation_batch_size: int = Field(default=64, gt=0)
    """Items that are evaluated at once; changes speed and memory only."""

    @model_validator(mode="after")
    def _only_buckets_count_tokens(self) -> ArithmeticConfig:
        if self.batch_tokens is not None and self.batching != "bucketed":
            raise ValueError(f"batch_tokens is for batching: bucketed, and batching is {self.batching}: use batch_size")
        return self

    @model_validator(mode="after")
    def _batch_can_be_split(self) -> ArithmeticConfig:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation ({self.accumulation}) takes a batch apart by its rows, of which there are "
                f"{self.batch_size} (batch_size)"
            )
        return self
