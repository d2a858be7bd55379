"""Builds the model that a configuration asks for."""

from __future__ import annotations

import torch

from trainables.models.gpt import GPT
from trainables.models.lstm import LSTM
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.vocabulary import Vocabulary


def build_model(config: ModularArithmeticConfig, generator: torch.Generator) -> GPT | LSTM:
    """A freshly initialised model on the device of `generator`, which also draws its dropout masks."""
    model, vocabulary = config.model, Vocabulary(config.modulus, config.operator)
    if model.kind == "lstm":
        return LSTM(
            vocabulary=len(vocabulary),
            layers=model.layers,
            width=model.width,
            dropout=model.dropout,
            padding=vocabulary.pad,
            tie_embeddings=model.tie_embeddings,
            classifier_bias=model.classifier_bias,
            generator=generator,
        )
    return GPT(
        vocabulary=len(vocabulary),
        length=config.length,
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        dropout=model.dropout,
        padding=vocabulary.pad,
        tie_embeddings=model.tie_embeddings,
        classifier_bias=model.classifier_bias,
        generator=generator,
    )
