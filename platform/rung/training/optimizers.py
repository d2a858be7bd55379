"""Builds the torch optimizer that a configuration asks for. Every parameter is decayed alike: no groups."""

from __future__ import annotations

import torch
from torch import nn

from rung.settings import OptimizerConfig


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `config` over the trainable parameters of `model`.

    Adam and AdamW use torch's fused kernel, one pass over all parameters, on every device that has it.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.kind in ("sgd", "momentum"):
        momentum = config.momentum if config.kind == "momentum" else 0.0
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=momentum, weight_decay=config.weight_decay)
    adam = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return adam(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
