"""What low-rank adapters are, and how many numbers they have. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rung.settings import StrictModel
from trainables.models.decoder_config import DecoderConfig, flops_per_token

Targets = Literal["attention", "feedforward", "attention,feedforward"]


class LowRank(StrictModel):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): W x becomes W x + (alpha / rank) B A x, W frozen."""

    rank: int = Field(default=8, gt=0)
    """Rows of A, columns of B."""
    alpha: float = Field(default=16.0, gt=0)
    """What B A x is multiplied by, times `rank`: a greater rank alone does not make its output larger."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability of what A reads."""


class LoraConfig(LowRank):
    """Low-rank adaptation of a decoder."""

    targets: Targets = "attention"
    """Which layers have adapters. `attention`: the projection to Q, K and V, which is one matrix, and that of the mixed
    values. `feedforward`: the two matrices of the MLP, three with `swiglu`."""


def target_layers(config: LoraConfig, decoder: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the layers of each block that have adapters, by the ends of their names."""
    width, hidden = decoder.width, decoder.hidden
    layers = {}
    if "attention" in config.targets:
        layers |= {"attention.qkv": (width, 3 * width), "attention.output": (width, width)}
    if "feedforward" in config.targets:
        layers |= {"expand": (width, hidden), "contract": (hidden, width)}
        if decoder.mlp == "swiglu":
            layers["gate"] = (width, hidden)
    return layers


def adapter_parameters(config: LoraConfig, decoder: DecoderConfig) -> int:
    """Numbers in all adapters of a decoder, which are all that is trained."""
    return decoder.layers * config.rank * sum(map(sum, target_layers(config, decoder).values()))


def training_flops_per_token(config: LoraConfig, decoder: DecoderConfig, vocabulary: int, length: int) -> float:
    """Floating-point operations of a training step over sequences of `length`, divided by their tokens.

    Backward costs the frozen weights as much as forward does, because only the gradient of what they read is computed,
    and the adapters twice as much.
    """
    return 2 * flops_per_token(decoder, vocabulary, length) + 6.0 * adapter_parameters(config, decoder)
