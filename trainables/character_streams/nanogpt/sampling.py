"""`sample`: texts from a trained model, all of them in one batch with a cache.

A text depends on the seed and its number alone, not on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.errors import RungError
from trainables.character_streams.config import CharacterStreamsConfig
from trainables.character_streams.nanogpt.experiment import data_path, precision_of, weights_path
from trainables.character_streams.nanogpt.keys import Keys
from trainables.character_streams.nanogpt.run_folder import MODEL, read_record
from trainables.character_streams.trainable import CharacterStreams
from trainables.character_streams.vocabulary import Gpt2Tokens
from trainables.character_streams.weights import CHECKPOINT, gpt2_shape, load_weights, put, read_checkpoint
from trainables.language.codec import Codec
from trainables.language.command_line import choose_device
from trainables.language.trainable import LanguageTrainable
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig
from trainables.models.generation import generate


@dataclass(frozen=True)
class Trained:
    """A model that can write."""

    model: Decoder
    codec: Codec


def sample_from_keys(keys: Keys) -> list[str]:
    """The texts, each with what it begins with.

    Raises:
        RungError: there is no model, or it does not know a character of `start`.
    """
    from rung.training.precision import precision

    device = choose_device(keys.device)
    trained = load_trained(keys, device)
    start = _start(keys.start)
    prompt = trained.codec.encode(start)
    if not prompt:
        raise RungError("start is empty: a model goes on from at least one token")
    name: Any = precision_of(keys, device)
    with precision(name, device):
        rows = generate(
            trained.model,
            [prompt] * keys.num_samples,
            max_new_tokens=keys.max_new_tokens,
            temperature=keys.temperature,
            top_k=keys.top_k,
            seed=keys.seed,
        )
    return [start + trained.codec.decode(row) for row in rows]


def load_trained(keys: Keys, device: str) -> Trained:
    """The model of `out_dir`, ours or nanoGPT's, or GPT-2's (`init_from`).

    Raises:
        RungError: there is none.
    """
    if keys.init_from not in ("scratch", "resume"):
        path = weights_path(keys.init_from)
        if path.suffix == ".pt":
            return _of_checkpoint(path, keys, device)
        shape = gpt2_shape(path)
        return Trained(_decoder(shape, path, device), Gpt2Tokens(path))
    out_dir = Path(keys.out_dir)
    record = read_record(out_dir)
    if record is not None and (out_dir / MODEL).is_file():
        return of_run(record.config, record.seed, out_dir, device)
    if (out_dir / CHECKPOINT).is_file():
        return _of_checkpoint(out_dir / CHECKPOINT, keys, device)
    raise RungError(f"{out_dir} holds no trained model ({MODEL}, or nanoGPT's {CHECKPOINT}): train one first")


def of_run(config: CharacterStreamsConfig, seed: int, out_dir: Path, device: str = "cpu") -> Trained:
    """The model that a run of ours has written."""
    trainable = CharacterStreams(config, seed, device)
    return Trained(_written_model(trainable, out_dir), trainable.codec)


def answers_of(config: CharacterStreamsConfig, seed: int, out_dir: Path, count: int) -> Sequence[tuple[str, str, bool]]:
    """What a run's model answers to some validation lines: prompt, answer, whether it is right."""
    trainable = CharacterStreams(config.model_copy(update={"shown": count}), seed)
    model = _written_model(trainable, out_dir)
    with torch.no_grad():
        return [(each.prompt, each.response, each.reward == 1) for each in trainable.generations(model)]


def _written_model(trainable: CharacterStreams, out_dir: Path) -> Decoder:
    """The model of a run as its `model.safetensors` has it; the weights that it began with are not looked at."""
    generator = torch.Generator(device=trainable.device).manual_seed(0)
    model = LanguageTrainable.model(trainable, generator)
    assert isinstance(model, Decoder)
    load_weights(model, out_dir / MODEL)
    return model.eval()


def _of_checkpoint(path: Path, keys: Keys, device: str) -> Trained:
    """nanoGPT's checkpoint, with the characters of the data set that it was trained on."""
    from trainables.character_streams.corpus import corpus

    theirs = read_checkpoint(path)
    model = _decoder(dict(theirs.model_args), None, device)
    put(model, theirs.tensors, path)
    dataset = str(theirs.config.get("dataset", keys.dataset))
    codec = corpus(CharacterStreamsConfig(data=str(data_path(dataset))), 0).codec
    if codec is None:
        raise RungError(f"{path} was trained on GPT-2's tokens: put GPT-2's tokenizer.json into {data_path(dataset)}")
    return Trained(model.eval(), codec)


def _decoder(shape: dict[str, Any], path: Path | None, device: str) -> Decoder:
    config = DecoderConfig(
        layers=shape["n_layer"], heads=shape["n_head"], width=shape["n_embd"], bias=bool(shape["bias"])
    )
    generator = torch.Generator(device=device).manual_seed(0)
    model = Decoder(config, vocabulary=shape["vocab_size"], length=shape["block_size"], generator=generator)
    if path is not None:
        load_weights(model, path)
    return model.eval()


def _start(start: str) -> str:
    if not start.startswith("FILE:"):
        return start
    path = Path(start.removeprefix("FILE:"))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RungError(f"start: {path} cannot be read: {error}") from error
