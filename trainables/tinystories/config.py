"""The configuration of a TinyStories run. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from rung.settings import EvaluationConfig, OptimizerConfig, ScheduleConfig
from trainables.language.config import LanguageConfig
from trainables.language.tokens import MOST_TOKENS
from trainables.models.decoder_config import DecoderConfig


class TinyStoriesConfig(LanguageConfig):
    """The 17 million parameter model of the course handout (Stanford CS336, spring 2025, assignment 1, section 7).

    With its embedding it has 22,696,448. 10,000 steps of the default batch are its 327,680,000 tokens.
    """

    data: str = Field(default="tinystories", min_length=1, pattern=r"^[^/\\]+$")
    """The folder of tokens below the data folder (RUNG_DATA, or `data`)."""
    vocabulary: int = Field(default=10_000, gt=0, le=MOST_TOKENS)
    """Tokens of the model; it must be the vocabulary of the data."""
    model: DecoderConfig = DecoderConfig(
        layers=4,
        width=512,
        heads=16,
        norm="pre",
        norm_kind="rms",
        norm_epsilon=1e-5,
        positions="rope",
        rope_theta=10_000.0,
        mlp="swiglu",
        bias=False,
        tie_embeddings=False,
        initialisation="truncated_normal",
    )
    """The decoder."""
    context: int = Field(default=256, gt=0)
    """Tokens that the model reads at once: the length of a training window."""
    batch_size: int = Field(default=128, gt=0)
    """Windows in a training batch, those of all parts and workers together."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", learning_rate=3e-3, weight_decay=0.1)
    """Optimizer and its constants. The handout leaves the learning rate open; 1e-2 is the best published one."""
    schedule: ScheduleConfig = ScheduleConfig(kind="cosine", warmup=100, warmup_from="zero", minimum_fraction=0.1)
    """Learning-rate schedule: 1 % of the steps up, then down to a tenth."""
    evaluation: EvaluationConfig = EvaluationConfig(every=200)
    """Evaluation points."""
