"""What a decoder can be, how many parameters it has and what it costs, from numbers alone. Imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from rung.settings import StrictModel

MATRICES_OF_MLP = {"gelu": 2, "silu": 2, "swiglu": 3}


class DecoderConfig(StrictModel):
    """A decoder-only transformer without its vocabulary and length. The defaults are nanoGPT's block at the size of
    its CPU example (https://github.com/karpathy/nanoGPT, `config/train_shakespeare_char.py` and README)."""

    layers: int = Field(default=4, gt=0)
    """Blocks, each of attention and MLP."""
    width: int = Field(default=128, gt=0)
    """Width D of embedding and residual stream."""
    heads: int = Field(default=4, gt=0)
    """Attention heads; they divide `width`."""
    feed_forward: int | None = Field(default=None, gt=0)
    """Width of the MLP's hidden layer. Empty: 4 D; for `swiglu` 8/3 D, which is about as many parameters, to the
    nearest multiple of 64 (1,344 for D = 512, as in the handout of Stanford CS336, assignment 1, section 3.5.2)."""
    norm: Literal["none", "pre", "post"] = "pre"
    """`pre`: before attention and MLP, and once more before the classifier (Xiong et al. 2020, arXiv 2002.04745).
    `post`: after each sum with the residual stream, and nowhere else (Vaswani et al. 2017, arXiv 1706.03762).
    `none`: nowhere."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """`layer`: LayerNorm, with a bias if `bias`. `rms`: RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467), computed in
    fp32, never with a bias."""
    norm_epsilon: float = Field(default=1e-5, gt=0)
    """Added to the variance or mean square."""
    positions: Literal["learned", "sinusoidal", "rope", "none"] = "learned"
    """`learned`: a vector for each position, added to the embedding. `sinusoidal`: fixed vectors (Vaswani et al. 2017,
    section 3.5). `rope`: queries and keys are rotated (Su et al. 2021, arXiv 2104.09864). `none`: only the causal mask
    tells positions apart (Kazemnejad et al. 2023, arXiv 2305.19466)."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """`rope` only: base of the wavelengths."""
    mlp: Literal["gelu", "silu", "swiglu"] = "gelu"
    """Non-linearity between the two matrices of the MLP: exact GELU, SiLU, or SiLU of a third matrix as a gate
    (Shazeer 2020, arXiv 2002.05202)."""
    bias: bool = False
    """Whether attention, MLP and LayerNorm have biases; the classifier has none."""
    tie_embeddings: bool = True
    """Whether the classifier's weight is the token embedding."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability: on the embedding, and on what attention and MLP add to the residual stream."""
    initialisation: Literal["gpt2", "truncated_normal"] = "gpt2"
    """`gpt2`: N(0, 0.02^2), and 0.02 / sqrt(2 layers) for what is added to the residual stream. `truncated_normal`:
    variance 2 / (inputs + outputs) for linear layers, 1 for embeddings, cut at 3 standard deviations (CS336 handout,
    section 3.4.1); an embedding that is tied is drawn as the classifier. Biases are zero in both."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> DecoderConfig:
        if self.width % self.heads:
            fitting = [heads for heads in range(1, self.width + 1) if self.width % heads == 0]
            nearest = min(fitting, key=lambda heads: abs(heads - self.heads))
            raise ValueError(
                f"{self.heads} heads do not divide a width of {self.width}: "
                f"the nearest number of heads that does is {nearest}"
            )
        return self

    @model_validator(mode="after")
    def _rope_has_pairs(self) -> DecoderConfig:
        if self.positions == "rope" and self.width // self.heads % 2:
            raise ValueError(
                f"rope rotates pairs, so a head must have an even width: {self.width} / {self.heads} heads is "
                f"{self.width // self.heads}"
            )
        return self

    @property
    def hidden(self) -> int:
        """Width F of the MLP's hidden layer."""
        if self.feed_forward is not None:
            return self.feed_forward
        if self.mlp == "swiglu":
            return 64 * max(1, math.floor(8 * self.width / (3 * 64) + 0.5))
        return 4 * self.width

    @property
    def norms(self) -> int:
        """Normalisations in the whole decoder."""
        return {"none": 0, "pre": 2 * self.layers + 1, "post": 2 * self.layers}[self.norm]


def parameter_breakdown(config: DecoderConfig, vocabulary: int, length: int) -> dict[str, int]:
    """Trainable parameters by part.

    The parts are `token_embedding`, `position_embedding`, `attention`, `mlp`, `norms` and `head`; a tied head has none
    of its own. `total` is their sum, `without_embeddings` leaves both embeddings out, and `without_positions` the
    position embedding only, which is how nanoGPT counts.
    """
    width, hidden, bias = config.width, config.hidden, int(config.bias)
    matrices = MATRICES_OF_MLP[config.mlp]
    attention = 4 * width * width + bias * 4 * width
    mlp = matrices * width * hidden + bias * ((matrices - 1) * hidden + width)
    norm = width * (2 if config.bias and config.norm_kind == "layer" else 1)
    parts = {
        "token_embedding": vocabulary * width,
        "position_embedding": length * width if config.positions == "learned" else 0,
        "attention": config.layers * attention,
        "mlp": config.layers * mlp,
        "norms": config.norms * norm,
        "head": 0 if config.tie_embeddings else vocabulary * width,
    }
    total = sum(parts.values())
    positions = parts["position_embedding"]
    return {
        **parts,
        "total": total,
        "without_embeddings": total - parts["token_embedding"] - positions,
        "without_positions": total - positions,
    }


def parameter_count(config: DecoderConfig, vocabulary: int, length: int) -> int:
    """Trainable parameters of the whole decoder."""
    return parameter_breakdown(config, vocabulary, length)["total"]


def flops_per_token(config: DecoderConfig, vocabulary: int, length: int) -> float:
    """Floating-point operations of a forward pass over a sequence of `length`, divided by its tokens; a training step
    takes three times as many.

    2 for every weight of a matrix product, and 4 D length for every layer's attention, which counts the masked half as
    well (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
    """
    weights = config.layers * (4 * config.width**2 + MATRICES_OF_MLP[config.mlp] * config.width * config.hidden)
    weights += vocabulary * config.width
    return float(2 * weights + 4 * config.layers * length * config.width)
