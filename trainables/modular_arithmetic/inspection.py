"""Looking into a trained model: attention maps, and which items it gets right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from rung.errors import RungError, StorageError
from trainables.models.gpt import GPT
from trainables.modular_arithmetic.build import build_model
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.data import as_items, split
from trainables.modular_arithmetic.losses import item_correct, item_losses
from trainables.modular_arithmetic.vocabulary import Vocabulary


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of some items."""

    weights: torch.Tensor
    """(items, layers, heads, S, S): weight of each position (row) on each position up to itself (column)."""
    labels: list[list[str]]
    """Per item, the S tokens for the axes of a figure."""


@dataclass(frozen=True)
class ItemResults:
    """How a model does on every single item of one order; N items, in lexical order of their operands."""

    numbers: NDArray[np.int64]
    """(N, order + 1): operands and result."""
    trained_on: NDArray[np.bool_]
    """(N,): whether the item is in the training set."""
    predicted: NDArray[np.int64]
    """(N,): token that the model puts first after `=`; below the modulus it is a number."""
    correct: NDArray[np.bool_]
    """(N,): whether result and EOS are both right."""
    loss: NDArray[np.float64]
    """(N,): mean negative log-likelihood of result and EOS, nats."""


def attention_maps(model: nn.Module, config: ModularArithmeticConfig, samples: Sequence[str]) -> AttentionMaps:
    """The attention of a GPT on items such as "3 + 5 = 8"; all of the same order.

    Raises:
        RungError: the model has no attention, a sample is no item, or the samples differ in length.
    """
    if not isinstance(model, GPT):
        raise RungError("only a gpt has attention maps: this model is an lstm")
    vocabulary = Vocabulary(config.modulus, config.operator)
    # The model reads an item without EOS; a question without its result is read as it is.
    read = [[token for token in vocabulary.encode(sample) if token != vocabulary.eos] for sample in samples]
    if len({len(tokens) for tokens in read}) != 1:
        raise RungError("give at least one sample, and samples of one length: all questions, or all items of one order")
    tokens = torch.tensor(read, device=model.embedding.weight.device)
    weights = model.inspect(tokens).attention
    return AttentionMaps(weights, [vocabulary.labels(each) for each in read])


def item_results(model: nn.Module, config: ModularArithmeticConfig, seed: int) -> dict[int, ItemResults]:
    """Every item of every order, with what the model makes of it.

    Args:
        model: trained with `config`.
        config: of the run.
        seed: of the run; it decides which items were trained on.
    """
    device = str(next(model.parameters()).device)
    training = model.training
    model.eval()
    try:
        data_seed = seed if config.data_seed is None else config.data_seed
        return {order: _results(model, config, order, data_seed, device) for order in config.orders}
    finally:
        model.train(training)


def load_snapshot(path: str | Path) -> tuple[nn.Module, ModularArithmeticConfig, int]:
    """The model of a snapshot that `train_model` wrote, ready for evaluation, with its configuration and seed.

    Raises:
        StorageError: the file or the `config.json` beside it cannot be read.
    """
    path = Path(path)
    try:
        settings = json.loads((path.parent / "config.json").read_text())
        tensors = load_file(path)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the snapshot {path}: {error}") from error
    config = ModularArithmeticConfig.model_validate(settings["config"])
    model = build_model(config, torch.Generator())
    # Tied weights are stored under one of their two names.
    model.load_state_dict(tensors, strict=not config.model.tie_embeddings)
    return model.eval(), config, settings["seed"]


@torch.no_grad()
def _results(model: nn.Module, config: ModularArithmeticConfig, order: int, data_seed: int, device: str) -> ItemResults:
    train, validation = split(config, order, data_seed)
    numbers = np.concatenate([train, validation])
    items = as_items(config, numbers, batch=config.evaluation_batch_size, device=device)
    predicted, correct, loss = [], [], []
    for begin in range(0, len(items), config.evaluation_batch_size):
        chunk = items.at(slice(begin, begin + config.evaluation_batch_size))
        logits = model(chunk.inputs_BS, chunk.start, chunk.prefix)
        predicted.append(logits[:, 0].argmax(dim=-1))
        correct.append(item_correct(logits, chunk.targets_BT))
        loss.append(item_losses(logits, chunk.targets_BT).double())
    rows = np.lexsort(numbers[:, -2::-1].T)
    return ItemResults(
        numbers=numbers[rows],
        trained_on=rows < len(train),
        predicted=torch.cat(predicted).cpu().numpy()[rows],
        correct=torch.cat(correct).cpu().numpy()[rows],
        loss=torch.cat(loss).cpu().numpy()[rows],
    )
