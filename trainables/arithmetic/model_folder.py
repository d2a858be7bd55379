"""Where a model of expressions lies, and how to get it back.

    models/foundational_20260101_120000/best_model.safetensors   weights, under the names of `models/decoder.py`
                                        model_config.json        shape and format, see `model_settings.py`
                                        tokenizer.json           what the weights were trained with

A checkpoint of a study's run (`results/<study>/checkpoints/<run id>`, or one of the `step-...` in it) does as well: the
study knows its configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rung.errors import RungError, StorageError
from rung.provenance import file_hash
from rung.results.files import replace_file
from rung.trainable import fill, find_trainable
from rung.training.checkpoint_files import TENSORS, is_complete, latest_checkpoint
from rung.training.checkpoints import read_weights, save_weights
from rung.tuning.run_record import find_record
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.model_settings import FILE, ModelSettings
from trainables.arithmetic.preparation import ensure_tokenizer
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.language.tokens import TOKENIZER
from trainables.models.decoder import Decoder
from trainables.models.lora import merged_weights
from trainables.rl.reference import without_reference

Weights = Mapping[str, torch.Tensor]

BEST, FINAL = "best_model.safetensors", "final_model.safetensors"


class LoadedModel(NamedTuple):
    """A model, and what it takes to use it."""

    decoder: Decoder
    """Plain, in evaluation mode: adapters are merged."""
    config: ArithmeticConfig
    """Of the run that trained it; beside `model_config.json` only `model`, `context` and `format` are known."""
    tokenizer: Tokenizer


class StoredModel(NamedTuple):
    """What lies on disk of a model."""

    weights: Weights
    """By name, each tensor once: of tied ones the first name."""
    config: ArithmeticConfig
    file: Path
    """Where the weights stand."""
    tokenizer: Path | None = None
    """Its tokenizer; None: its study makes it."""
    tokenizer_sha256: str | None = None
    """Of the tokenizer that it was trained with, if that is known."""


def save_model_folder(path: Path, weights: Weights, config: ArithmeticConfig, tokenizer: Path) -> None:
    """Writes weights, and beside them what it takes to use them.

    Args:
        path: of the weights, `.../best_model.safetensors`; one folder holds models of one configuration.
        weights: by name, each tensor once: of tied ones the first name.
        config: of the model.
        tokenizer: its file, or the folder with `tokenizer.json`.

    Raises:
        StorageError: something cannot be written.
    """
    describe_model(path.parent, config, tokenizer)
    save_weights(weights, path)


def describe_model(folder: Path, config: ArithmeticConfig, tokenizer: Path) -> None:
    """Writes `model_config.json` and `tokenizer.json` into a folder. Raises StorageError."""
    source = tokenizer_file(tokenizer)
    settings = ModelSettings.of(config, Tokenizer.load(source).size, file_hash(source))
    replace_file(folder / FILE, settings.model_dump_json(indent=2).encode() + b"\n")
    if source.resolve() != (folder / TOKENIZER).resolve():
        replace_file(folder / TOKENIZER, source.read_bytes())


def tokenizer_file(path: Path) -> Path:
    """The tokenizer's file that a path means: itself, or `tokenizer.json` in it."""
    return path / TOKENIZER if path.is_dir() else path


def load_model(path: Path, tokenizer_path: Path | None = None, device: str = "cpu") -> LoadedModel:
    """A model from disk.

    Args:
        path: a `.safetensors` file beside `model_config.json`, the folder of both (its best model, or the final one),
            or a checkpoint of a study's run.
        tokenizer_path: its tokenizer, a file or a folder. None: the one that the model was trained with.
        device: a torch device name.

    Raises:
        RungError: there is no model, its parts do not belong together, or the tokenizer is another one.
        StorageError: a file cannot be read.
    """
    stored = find_model(path, device)
    config = stored.config
    tokenizer = load_tokenizer(stored, path, tokenizer_path)
    generator = torch.Generator(device=device).manual_seed(0)  # nothing of what it draws remains
    decoder = Decoder(config.model, vocabulary=tokenizer.size, length=config.context, generator=generator)
    try:
        fill(decoder, merged_weights(stored.weights, config.adapter))
    except RungError as error:
        raise RungError(f"the weights of {path} are not what {FILE} says: {error}") from error
    return LoadedModel(decoder.eval(), config, tokenizer)


def load_tokenizer(model: StoredModel, path: Path, wanted: Path | None = None) -> Tokenizer:
    """The tokenizer of a model, or another one that is checked to be the same.

    Args:
        model: as it lies on disk.
        path: where, for errors.
        wanted: a file or a folder; None: the model's own.

    Raises:
        RungError: it is not the one that the model was trained with.
    """
    place = wanted or model.tokenizer or ensure_tokenizer(model.config)
    tokenizer, rows = Tokenizer.load(place), model.weights["embedding.weight"].shape[0]
    if tokenizer.size != rows:
        raise RungError(
            f"{path} was trained with {rows:,} tokens, and the tokenizer {place} has {tokenizer.size:,}: they do not "
            "belong together. Name the tokenizer that the model was trained with"
        )
    if model.tokenizer_sha256 not in (None, file_hash(tokenizer_file(place))):
        raise RungError(
            f"{path} was trained with another tokenizer than {place}, of as many tokens: the same ids mean other "
            f"texts. Its own is {model.tokenizer or 'not recorded'}"
        )
    return tokenizer


def find_model(path: Path, device: str = "cpu") -> StoredModel:
    """What lies at a path of `load_model`, with the weights as they are, adapters apart from what they adapt.

    Raises:
        RungError: there is no model.
        StorageError: a file cannot be read.
    """
    if not path.exists():
        raise RungError(f"{path} does not exist: name a .safetensors file, the folder of a model or a checkpoint")
    if path.is_dir() and (path / FILE).is_file():
        path = _weights_in(path)
    if path.is_file():
        return _beside(path, _read_file(path, device), path.parent)
    checkpoint = path if is_complete(path) else latest_checkpoint(path)
    if checkpoint is None:
        raise RungError(f"{path} holds no model: no {FILE}, and no checkpoint of a study's run")
    weights = without_reference(read_weights(checkpoint, device)[0])
    folder = checkpoint.resolve().parent.parent
    if (folder / FILE).is_file():
        return _beside(checkpoint / TENSORS, weights, folder)
    return StoredModel(weights, _studied(checkpoint.resolve()), checkpoint / TENSORS)


def _weights_in(folder: Path) -> Path:
    for name in (BEST, FINAL):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.safetensors"))
    if len(others) != 1:
        there = f"there are {', '.join(each.name for each in others)}" if others else "there is no .safetensors file"
        raise RungError(f"{folder} holds neither {BEST} nor {FINAL}, and {there}: name the file")
    return others[0]


def _read_file(path: Path, device: str) -> Weights:
    try:
        weights: Weights = load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} cannot be read as safetensors: {error}") from error
    return weights


def _beside(path: Path, weights: Weights, folder: Path) -> StoredModel:
    """A model whose description lies in a folder."""
    if not (folder / FILE).is_file():
        raise RungError(f"{path} has no {FILE} beside it, which says what the weights are: put it there")
    settings = ModelSettings.read(folder / FILE)
    return StoredModel(weights, settings.to_config(), path, folder / TOKENIZER, settings.tokenizer_sha256)


def _studied(checkpoint: Path) -> ArithmeticConfig:
    """The configuration of the study's run that a checkpoint belongs to."""
    run, study = checkpoint.parent.name, checkpoint.parent.parent.parent
    record = find_record(run, str(study))
    trainable = str(record.study["trainable"])
    config = find_trainable(trainable).Config.model_validate_json(record.config_json)
    if not isinstance(config, ArithmeticConfig):
        raise RungError(f"{checkpoint} is a model of the trainable {trainable}, and no model of expressions")
    return config
