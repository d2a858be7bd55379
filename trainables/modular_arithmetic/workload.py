"""What a run of modular arithmetic costs, from the configuration alone. Imports no torch."""

from __future__ import annotations

from rung.trainable import Workload
from trainables.modular_arithmetic.config import ModelConfig, ModularArithmeticConfig


def parameter_count(config: ModularArithmeticConfig, *, embeddings: bool = True) -> int:
    """Trainable parameters; without `embeddings`, those of the token embedding are left out.

    Positions are fixed and count nowhere. A tied classifier's weight counts as the embedding.
    """
    model, vocabulary = config.model, config.vocabulary_size
    count = model.layers * _layer_parameters(model)
    if not model.tie_embeddings:
        count += model.width * vocabulary
    if model.classifier_bias:
        count += vocabulary
    return count + embeddings * model.width * vocabulary


def workload(config: ModularArithmeticConfig) -> Workload:
    """Parameters, tokens, and FLOPs of the plain dense computation: all positions of all items.

    6 per weight and token for a step (forward 2, backward 4; Kaplan et al. 2020, arXiv 2001.08361, section
    2.1), attention scores on top. The implementation itself does less, because it leaves out what no loss
    reads.
    """
    rows = min(config.batch_size, config.train_items())
    return Workload(
        parameters=parameter_count(config),
        tokens_per_step=rows * config.length,
        flops_per_step=3 * rows * _forward_flops(config),
        steps_per_epoch=config.steps_per_epoch,
        evaluation_flops=config.items() * _forward_flops(config),
    )


def _layer_parameters(model: ModelConfig) -> int:
    width = model.width
    if model.kind == "lstm":
        return 4 * (2 * width * width + width)
    attention, mlp, norms = 4 * (width * width + width), 8 * width * width, 4 * width
    return attention + mlp + norms


def _forward_flops(config: ModularArithmeticConfig) -> float:
    """Of one item of the longest order."""
    model, length = config.model, config.length
    weights = model.layers * (12 if model.kind == "gpt" else 8) * model.width**2
    weights += model.width * config.vocabulary_size
    scores = model.layers * 4 * length * model.width if model.kind == "gpt" else 0
    return float(length * (2 * weights + scores))
