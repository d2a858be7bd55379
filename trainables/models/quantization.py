"""Frozen weights in 4 bits through bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).

bitsandbytes quantizes the matrices of the blocks while transformers loads them; embeddings, norms and classifier keep
their type. Imported where a model is quantized, since it is no dependency of the project.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def nf4(dtype: torch.dtype, *, double: bool) -> BitsAndBytesConfig:
    """What transformers quantizes by while it loads.

    Args:
        dtype: of the matrix products.
        double: whether the scales are quantized as well.
    """
    from transformers import BitsAndBytesConfig

    hush_bitsandbytes()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
    )


def hush_bitsandbytes() -> None:
    """Before it is imported, as peft does wherever it is installed: it would warn about a kernel that is not used."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def keep_layout(model: nn.Module) -> None:
    """Keeps bitsandbytes from repacking weights in place.

    On processors with AVX-512 BF16 a forward pass in evaluation mode without gradients would repack every matrix for a
    kernel of its own, and training would go on with those bits as if they were in the order of before: gradients are
    wrong without a word (0.32 is the cosine with the right one, seen with bitsandbytes 0.50.2). Whoever writes or
    evaluates between two steps, as GRPO does, meets it. Without the repacking both modes compute the same, bit for bit.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
