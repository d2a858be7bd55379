"""Builds the torch optimizer that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rung.settings import OptimizerConfig


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `config` over the trainable parameters of `model`.

    Adam and AdamW use torch's fused kernel, one pass over all parameters, on every device that has it.
    """
    groups = _groups(config, [parameter for parameter in model.parameters() if parameter.requires_grad])
    if config.kind in ("sgd", "momentum"):
        momentum = config.momentum if config.kind == "momentum" else 0.0
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=momentum)
    adam = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return adam(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)


def _groups(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameters with their weight decay: one group, or the decayed ones and the others."""
    if config.decay == "all":
        return [{"params": list(parameters), "weight_decay": config.weight_decay}]
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    others = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
