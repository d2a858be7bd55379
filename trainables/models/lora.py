"""Low-rank adapters on a decoder (Hu et al. 2021, arXiv 2106.09685), through peft.

W x becomes W x + (alpha / rank) B A x with W frozen. B is zero at first, so that a decoder with fresh adapters computes
what it did without them. Q, K and V are one matrix here, so they share A, and B holds the rows of each. Leaves out
adapters on embeddings and the classifier, and several adapters on one layer.

Names in the state dict: `blocks.0.attention.qkv.weight` of a plain decoder becomes
`blocks.0.attention.qkv.base_layer.weight`, and beside it there are `blocks.0.attention.qkv.lora_A.default.weight`
(rank, inputs) and `blocks.0.attention.qkv.lora_B.default.weight` (outputs, rank). "Plain" below means the names without
adapters. peft takes seconds to import, so it is imported where a model gets adapters; weights alone do not need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from rung.trainable import fill
from trainables.models.decoder import Decoder
from trainables.models.layers import Dropout
from trainables.models.lora_config import LoraConfig, LowRank, target_layers
from trainables.models.quantization import hush_bitsandbytes

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

Weights = Mapping[str, torch.Tensor]

ADAPTER = "default"
"""peft's name for a model's only adapter."""
BASE, DOWN, UP = ".base_layer.", f".lora_A.{ADAPTER}.", f".lora_B.{ADAPTER}."


def add_adapters(model: Decoder, config: LoraConfig, generator: torch.Generator) -> None:
    """Puts adapters into a decoder, in place, and freezes everything else.

    Args:
        model: a plain decoder, on the device of `generator`.
        config: what the adapters are.
        generator: draws A as torch draws linear layers (Kaiming uniform, a = sqrt(5)), and the dropout masks.
    """
    inject_adapters(model, config, list(target_layers(config, model.config)), generator)


def inject_adapters(model: nn.Module, config: LowRank, targets: list[str] | str, generator: torch.Generator) -> None:
    """Likewise for any model with linear layers.

    Args:
        model: on the device of `generator`.
        config: what the adapters are.
        targets: ends of the names of the layers that get them, or one pattern that whole names match.
        generator: see `add_adapters`.
    """
    hush_bitsandbytes()
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    peft_config = PeftConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets
    )
    # On the meta device peft draws nothing from torch's global generator.
    inject_adapter_in_model(peft_config, model, adapter_name=ADAPTER, low_cpu_mem_usage=True)
    for layer in _adapted_layers(model):
        _initialise(layer, generator)
        if config.dropout:
            layer.lora_dropout[ADAPTER] = Dropout(config.dropout, generator)


def _initialise(layer: LoraLayer, generator: torch.Generator) -> None:
    down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    for each in (down, up):
        each.to_empty(device=generator.device)
    nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5), generator=generator)
    nn.init.zeros_(up.weight)


def _adapted_layers(model: nn.Module) -> list[LoraLayer]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Inside, the model is its base, bit for bit."""
    layers = _adapted_layers(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def is_adapter(name: str) -> bool:
    """Whether a name in a state dict is that of an adapter."""
    return DOWN in name or UP in name


def plain_name(name: str) -> str:
    """The name that a weight of the base has in a plain decoder."""
    return name.replace(BASE, ".")


def base_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """The weights of a decoder with adapters without them, by plain names; those of a plain decoder as they are."""
    return {plain_name(name): tensor for name, tensor in weights.items() if not is_adapter(name)}


def merged_weights(weights: Weights, config: LowRank | None) -> dict[str, torch.Tensor]:
    """The weights of the plain decoder that computes the same as one with adapters, up to rounding: W + (alpha / rank)
    B A, by plain names. Without a configuration there are no adapters, and the weights are returned as they are."""
    if config is None:
        return dict(weights)
    merged = base_weights(weights)
    for name, down in weights.items():
        if DOWN in name:
            plain, up = name.replace(DOWN, "."), weights[name.replace(DOWN, UP)]
            product = (up.float() @ down.float()) * (config.alpha / config.rank)
            merged[plain] = (merged[plain].float() + product).to(merged[plain].dtype)
    return merged


def load_base(model: Decoder, weights: Weights) -> None:
    """Puts the weights of a plain decoder into one with adapters, which keeps its adapters, or into a plain one.

    Args:
        model: takes the weights.
        weights: by plain names, each tensor once: of tied ones the first name.

    Raises:
        RungError: they belong to a decoder of another shape.
    """
    own = model.state_dict()
    names = {plain_name(name): name for name in own}
    adapters = {name: tensor for name, tensor in own.items() if is_adapter(name)}
    fill(model, {names.get(name, name): tensor for name, tensor in weights.items()} | adapters)
