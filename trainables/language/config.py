"""The configuration that every family of language models has. Imports no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from rung.settings import TrainableConfig
from trainables.models.decoder_config import DecoderConfig


class LanguageConfig(TrainableConfig):
    """A decoder that learns to predict the next token of a text."""

    model: DecoderConfig = DecoderConfig()
    """The decoder."""
    context: int = Field(default=256, gt=0)
    """Tokens that the model reads at once: the length of a training window."""
    batch_size: int = Field(default=32, gt=0)
    """Windows in a training batch, those of all parts and workers together."""
    data_seed: int | None = Field(default=None, ge=0)
    """Seed of the training windows. Empty: the run's own seed, so that the seeds of a configuration differ in what they
    read, too; an integer gives all runs the same windows in the same order."""
    evaluation_tokens: int = Field(default=131_072, gt=0)
    """Tokens that are predicted when a split is evaluated: windows of `context`, evenly spaced over the split, the same
    in every run; the whole split if it has no more."""
    evaluation_batch_size: int = Field(default=32, gt=0)
    """Windows that are evaluated at once; changes speed and memory only."""

    @model_validator(mode="after")
    def _batch_can_be_split(self) -> LanguageConfig:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation ({self.accumulation}) takes a batch apart by its windows, of which there are "
                f"{self.batch_size} (batch_size)"
            )
        return self
