"""Which pretrained model is trained, and what of it. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rung.settings import StrictModel
from trainables.models.lora_config import LowRank

Dtype = Literal["fp32", "bf16", "fp16"]
Layer = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class PretrainedLoraConfig(LowRank):
    """Low-rank adaptation of a pretrained model."""

    rank: int = Field(default=16, gt=0)
    """Rows of A, columns of B."""
    alpha: float = Field(default=32.0, gt=0)
    """What B A x is multiplied by, times `rank`: a greater rank alone does not make its output larger."""
    targets: Literal["all-linear"] | Annotated[tuple[Layer, ...], Field(min_length=1)] = "all-linear"
    """Layers of each block that have adapters, by name. `all-linear`: the four of attention and the three of the MLP,
    as QLoRA found best (Dettmers et al. 2023, arXiv 2305.14314, section 4)."""


class PretrainedConfig(StrictModel):
    """A causal language model that others have trained, as transformers stores it."""

    model: str = Field(min_length=1)
    """A folder with `config.json`, absolute or below the data folder (RUNG_DATA, or `data`); or a name on the Hugging
    Face Hub (`Qwen/Qwen3-0.6B`) of which this machine's cache has the files: nothing is downloaded while training."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; empty: `main`."""
    adapter: PretrainedLoraConfig | None = PretrainedLoraConfig()
    """The low-rank adapters that are trained, everything else being frozen. Empty: all weights are trained."""
    dtype: Dtype | None = None
    """Type of the model's own weights; adapters are always fp32. Empty: bf16 where they are frozen, else fp32, because
    an update of less than 1/256 of a weight is lost in bf16."""
    quantization: Literal["none", "nf4"] = "none"
    """`nf4`: the frozen matrices have 4 bits a number (NormalFloat, Dettmers et al. 2023, arXiv 2305.14314), through
    bitsandbytes; matrix products are computed in `dtype`."""
    double_quantization: bool = True
    """`nf4` only: whether the scales, one for 64 numbers, are quantized as well (.13 instead of .5 bits a number)."""
    gradient_checkpointing: bool = False
    """Whether the backward pass computes what is inside a block anew instead of keeping it: a third more work, and far
    less memory (Chen et al. 2016, arXiv 1604.06174)."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """How attention is computed: torch's fused kernels, the formula as it is written, or the package `flash-attn`."""

    @property
    def weights_dtype(self) -> Dtype:
        """`dtype`, if it is empty as it is then."""
        return self.dtype or ("fp32" if self.adapter is None else "bf16")

    @model_validator(mode="after")
    def _something_can_be_trained(self) -> PretrainedConfig:
        if self.quantization != "none" and self.adapter is None:
            raise ValueError(
                f"quantization {self.quantization} freezes the weights, and without an adapter nothing is left to "
                "train: leave out one of `quantization: nf4` and `adapter: null`"
            )
        return self

    @model_validator(mode="after")
    def _flash_attention_has_half_precision(self) -> PretrainedConfig:
        if self.attention == "flash_attention_2" and self.weights_dtype == "fp32":
            raise ValueError("attention flash_attention_2 knows no fp32: use dtype bf16 or fp16, or attention sdpa")
        return self
