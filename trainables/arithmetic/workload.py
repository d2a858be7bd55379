"""What a run costs, from the lengths of its sequences. Imports no torch."""

from __future__ import annotations

import numpy as np

from rung.trainable import Workload
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.layout import Layout
from trainables.arithmetic.preparation import expected, sequences_of, tokenizer_of
from trainables.arithmetic.sequences import Sequences, fitting
from trainables.models.decoder_config import flops_per_token, parameter_count
from trainables.models.lora_config import adapter_parameters, training_flops_per_token


def vocabulary(config: ArithmeticConfig) -> int:
    """Tokens of the tokenizer; before it has been learnt, of one that was learnt from a few items."""
    tokenizer = tokenizer_of(config)
    return expected(config)[0] if tokenizer is None else tokenizer.size


def workload(config: ArithmeticConfig) -> Workload:
    """Tokens count padding, and are the mean over a pass; before the corpus has been made, they are an estimate."""
    folder, tokens = sequences_of(config), vocabulary(config)
    if folder is None:
        positions = np.resize(expected(config)[1].positions, config.corpus.samples)
    else:
        positions = fitting(Sequences.load(folder, "train"), config.context, 1.0).sequences.positions
    layout = Layout.of(
        np.minimum(positions, config.context), config.batching, config.batch_size, config.context, config.batch_tokens
    )
    per_step = round(layout.positions / layout.batches)
    length = config.context if config.batching == "packed" else max(1, round(float(positions.mean())))
    forward = flops_per_token(config.model, tokens, length)
    adapter, whole = config.adapter, parameter_count(config.model, tokens, config.context)
    if adapter is None:
        parameters, training = whole, 3 * forward
    else:
        parameters = adapter_parameters(adapter, config.model)
        training = training_flops_per_token(adapter, config.model, tokens, length)
    evaluated = min(config.evaluation_items, config.corpus.validation_samples) * float(positions.mean())
    return Workload(
        parameters=parameters,
        tokens_per_step=per_step,
        flops_per_step=per_step * training,
        steps_per_epoch=layout.batches,
        evaluation_flops=evaluated * forward,
        frozen=0 if adapter is None else whole,
    )
