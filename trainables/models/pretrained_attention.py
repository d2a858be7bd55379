"""Attention of transformers' models on a CPU, in fp32 whatever its inputs are in.

torch's kernel for the CPU is several times slower in bf16, its backward pass above all: of a training step of a small
Qwen3 in bf16 it took 37 %.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainables.models.attention import attention_precision

NAME = "sdpa_at_least_fp32"
"""What transformers calls it."""


def attend_in_fp32(model: PreTrainedModel) -> None:
    """Has a model that attends by `sdpa` do it in fp32, in place, if it is on a CPU; else does nothing."""
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' `sdpa` with the type of `query` outside and at least fp32 inside."""
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_precision(attention_mask)
    with torch.autocast(query.device.type, enabled=False):
        mixed, _ = sdpa_attention_forward(
            module, *(attention_precision(each) for each in (query, key, value)), attention_mask, **settings
        )
    return mixed.to(query.dtype), None
