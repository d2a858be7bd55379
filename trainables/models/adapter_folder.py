"""Adapters as files in peft's own format: `PeftModel.from_pretrained(decoder, folder)` loads them. To write, read and
merge them takes no peft.

    <folder>/adapter_model.safetensors   A and B of every layer; in its header where the base was, and the SHA-256
                                         of its weights
             adapter_config.json         rank, alpha, dropout and layers, under peft's names
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rung.errors import RungError, StorageError
from trainables.models.lora import DOWN, UP, Weights, base_weights, is_adapter, merged_weights
from trainables.models.lora_config import LoraConfig, LowRank

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
BASE_KEY = "base_sha256"
PREFIX, PEFT_DOWN, PEFT_UP = "base_model.model.", ".lora_A.", ".lora_B."


def save_adapter(weights: Weights, config: LoraConfig, folder: Path, base: str) -> None:
    """Writes the adapters of a decoder.

    Args:
        weights: of a decoder with adapters, its base included.
        config: what the adapters are.
        folder: is made if it is not there.
        base: where the base's weights are, for people.

    Raises:
        StorageError: the folder cannot be written.
    """
    layers = {name.split(DOWN)[0].split(".", 2)[2] for name in weights if DOWN in name}
    # Not in the configuration as `base_model_name_or_path`, which peft would ask the Hugging Face Hub about.
    header = {"base": base, BASE_KEY: weights_sha256(base_weights(weights))}
    write_adapter(weights, config, sorted(layers), folder, header)


def write_adapter(
    weights: Weights, config: LowRank, targets: Sequence[str], folder: Path, header: Mapping[str, str], **more: str
) -> None:
    """Writes the adapters among the weights of any model.

    Args:
        weights: other weights in it are left out.
        config: what the adapters are.
        targets: ends of the names of the layers that have them.
        folder: is made if it is not there.
        header: of the file with the tensors.
        more: keys of the configuration beside those of every adapter.

    Raises:
        StorageError: the folder cannot be written.
    """
    adapters = {_peft_name(name): tensor.detach().contiguous() for name, tensor in weights.items() if is_adapter(name)}
    described = {
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(targets),
        **more,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(adapters, folder / TENSORS, metadata=dict(header))
        (folder / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write the adapter to {folder}: {error}") from error


def apply_adapter(path: Path, base: Weights, source: str) -> dict[str, torch.Tensor]:
    """The weights of the plain decoder that computes what `base` with an adapter does.

    Args:
        path: a folder with an adapter, or the safetensors file in it.
        base: weights of a plain decoder.
        source: what they are, for messages.

    Raises:
        RungError: there is no adapter, it is none that can be merged, or it was trained on another base.
    """
    folder = path.parent if path.name == TENSORS else path
    config = _read_config(folder)
    adapters, trained_on = _read_tensors(folder)
    _check_shapes(adapters, config, base, folder, source)
    found = weights_sha256(base)
    if trained_on is not None and trained_on != found:
        raise RungError(
            f"{folder} is an adapter of another base: it was trained on weights with the SHA-256 "
            f"{trained_on[:12]}, and those of {source} have {found[:12]}"
        )
    device = next(iter(base.values())).device
    return merged_weights(dict(base) | {name: tensor.to(device) for name, tensor in adapters.items()}, config)


def weights_sha256(weights: Weights) -> str:
    """SHA-256 of names, types, shapes and values, whatever their order; a tied tensor counts under its first name."""
    places = {tensor.data_ptr(): name for name, tensor in reversed(weights.items())}
    digest = hashlib.sha256()
    for name in sorted(places.values()):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _peft_name(name: str) -> str:
    return PREFIX + name.replace(DOWN, PEFT_DOWN).replace(UP, PEFT_UP)


def _own_name(name: str) -> str:
    return name.removeprefix(PREFIX).replace(PEFT_DOWN, DOWN).replace(PEFT_UP, UP)


def _read_config(folder: Path) -> LoraConfig:
    """Rank and alpha; the layers are those that have tensors."""
    try:
        described: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise RungError(f"{folder} holds no adapter: there must be {CONFIG} and {TENSORS} in it") from None
    except (OSError, ValueError) as error:
        raise RungError(f"{folder / CONFIG} cannot be read: {error}") from error
    _check_plain(described, folder)
    try:
        return LoraConfig(rank=described.get("r"), alpha=described.get("lora_alpha"))
    except ValidationError as error:
        raise RungError(
            f"{folder / CONFIG} does not describe adapters of a decoder: {error.errors()[0]['msg']}"
        ) from error


def _check_plain(described: Mapping[str, Any], folder: Path) -> None:
    """Refuses the variants of LoRA that peft knows and a sum of two matrices does not express."""
    variants = ("use_dora", "use_rslora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save")
    wrong = [name for name in variants if described.get(name)]
    if described.get("bias", "none") != "none":
        wrong.append("bias")
    if described.get("peft_type") != "LORA":
        wrong.append("peft_type")
    if wrong:
        options = ", ".join(f"{name}: {described.get(name)}" for name in wrong)
        raise RungError(f"{folder} holds an adapter that is not plain LoRA ({options}), which cannot be merged here")


def _read_tensors(folder: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """The adapters, and the SHA-256 of the base that they were trained on, if it is known."""
    try:
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {_own_name(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
            return tensors, (file.metadata() or {}).get(BASE_KEY)
    except FileNotFoundError:
        raise RungError(f"{folder} holds no adapter: {TENSORS} is missing in it") from None
    except (OSError, SafetensorError) as error:
        raise RungError(f"{folder / TENSORS} cannot be read: {error}") from error


def _check_shapes(adapters: Weights, config: LoraConfig, base: Weights, folder: Path, source: str) -> None:
    for name, tensor in adapters.items():
        misfit = _misfit(name, tensor, config, base)
        if misfit is not None:
            raise RungError(f"{folder} is an adapter of a model of another shape than {source}: {misfit}")
    halves = [{name.split(half)[0] for name in adapters if half in name} for half in (DOWN, UP)]
    if halves[0] != halves[1] or not halves[0]:
        raise RungError(f"{folder / TENSORS} is not whole: every layer must have an A and a B")


def _misfit(name: str, tensor: torch.Tensor, config: LoraConfig, base: Weights) -> str | None:
    """What is wrong with a matrix of an adapter, if anything is."""
    plain = name.replace(DOWN, ".").replace(UP, ".")
    if plain not in base:
        return f"it has {name}, and there is no {plain}"
    outputs, inputs = base[plain].shape
    expected = (config.rank, inputs) if DOWN in name else (outputs, config.rank)
    if tensor.shape != expected:
        return f"{name} is {tuple(tensor.shape)} and must be {expected}"
    return None
