"""Weights from elsewhere for our decoder: nanoGPT's `ckpt.pt`, transformers' GPT-2, and `model.safetensors` of ours.

`ckpt.pt` is a pickle and is read with torch's restricted loader (`weights_only=True`), which makes tensors and plain
containers and refuses everything else. Nothing is downloaded.

    format                  names                      linear weights
    nanoGPT, ckpt.pt        transformer.h.0.ln_1 ...   (outputs, inputs), like ours
    transformers, folder    h.0.ln_1 ...               (inputs, outputs): Conv1D, turned here
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rung.errors import RungError

CHECKPOINT, CONFIG, WEIGHTS = "ckpt.pt", "config.json", "model.safetensors"

_NAMES = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.output",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "expand",
    "mlp.c_proj": "contract",
}
"""Parts of a block, theirs and ours."""
_BLOCK = re.compile(r"h\.(\d+)\.(.+)\.(weight|bias)")
_OUTER = {"wte.weight": "classifier.weight", "wpe.weight": "positions.weight", "ln_f.weight": "norm.weight"}
_OUTER["ln_f.bias"] = "norm.bias"


@dataclass(frozen=True)
class NanoGptCheckpoint:
    """What nanoGPT's `ckpt.pt` holds, as far as it is used."""

    tensors: Mapping[str, torch.Tensor]
    """Weights under our names."""
    model_args: Mapping[str, Any]
    """`n_layer`, `n_head`, `n_embd`, `block_size`, `bias`, `vocab_size`, `dropout`."""
    iteration: int
    best_validation_loss: float | None
    config: Mapping[str, Any]
    """nanoGPT's settings of the run."""


def read_checkpoint(path: Path) -> NanoGptCheckpoint:
    """nanoGPT's checkpoint at a path.

    Raises:
        RungError: it cannot be read, holds more than tensors and plain data, or is not nanoGPT's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise RungError(f"{path} is refused: it holds more than tensors and plain data. {reason}") from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise RungError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not {"model", "model_args"} <= content.keys():
        raise RungError(f"{path} is not a checkpoint of nanoGPT: it should hold model and model_args")
    best = content.get("best_val_loss")
    return NanoGptCheckpoint(
        tensors=renamed(content["model"], path),
        model_args=content["model_args"],
        iteration=int(content.get("iter_num", 0)),
        best_validation_loss=None if best is None else float(best),
        config=content.get("config") or {},
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts weights into a decoder; learned positions beyond its length are left out.

    Args:
        model: a `Decoder`.
        path: a `ckpt.pt`, a `model.safetensors` of ours, or a folder of transformers with both its files.

    Raises:
        RungError: they cannot be read or belong to a model of another shape.
    """
    if path.is_dir() and not (path / WEIGHTS).is_file() and (path / CHECKPOINT).is_file():
        path = path / CHECKPOINT
    if path.suffix == ".pt":
        tensors: Mapping[str, torch.Tensor] = read_checkpoint(path).tensors
    else:
        tensors = _safetensors(path / WEIGHTS if path.is_dir() else path)
    put(model, tensors, path)


def put(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Puts tensors under our names into a decoder.

    Raises:
        RungError: names or shapes differ.
    """
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name not in _twins(model)}
    given = dict(tensors)
    if "positions.weight" in wanted and "positions.weight" in given:
        given["positions.weight"] = given["positions.weight"][: len(wanted["positions.weight"])]
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - given.keys())]
    problems += [f"{name} has no place" for name in sorted(given.keys() - wanted.keys())]
    problems += [
        f"{name} is {tuple(given[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise RungError(f"the weights of {path} are those of another model: {'; '.join(problems[:4])}{more}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(given[name])


def gpt2_shape(folder: Path) -> dict[str, Any]:
    """nanoGPT's names and values of the shape of a transformers GPT-2 folder. Needs no torch.

    Raises:
        RungError: there is no GPT-2 there.
    """
    lacking = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if lacking:
        raise RungError(
            f"{folder} lacks {' and '.join(lacking)}: it should hold a GPT-2 as transformers saves it. "
            "Nothing is downloaded: copy the two files there"
        )
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    try:
        return {
            "n_layer": int(values["n_layer"]),
            "n_head": int(values["n_head"]),
            "n_embd": int(values["n_embd"]),
            "block_size": int(values["n_positions"]),
            "vocab_size": int(values["vocab_size"]),
            "bias": True,
        }
    except KeyError as error:
        kind = values.get("model_type", "unknown")
        raise RungError(f"{folder / CONFIG} is no GPT-2 (model_type {kind}): it has no {error}") from error


def renamed(tensors: Mapping[str, torch.Tensor], path: Path, *, turned: bool = False) -> dict[str, torch.Tensor]:
    """GPT-2's tensors under our names. Masks that are stored with the weights are left out.

    Args:
        tensors: as nanoGPT or transformers name them.
        path: for errors.
        turned: whether linear weights are (inputs, outputs), as in transformers.

    Raises:
        RungError: one has a name that GPT-2 does not have.
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("_orig_mod.").removeprefix("transformer.")
        if plain == "lm_head.weight" or re.fullmatch(r"h\.\d+\.attn\.(bias|masked_bias)", plain):
            continue  # the first is tied to wte, the others are the causal mask
        block = _BLOCK.fullmatch(plain)
        if plain in _OUTER:
            found[_OUTER[plain]] = tensor
        elif block and block[2] in _NAMES:
            is_linear = turned and block[3] == "weight" and not block[2].startswith("ln_")
            found[f"blocks.{block[1]}.{_NAMES[block[2]]}.{block[3]}"] = tensor.t() if is_linear else tensor
        else:
            raise RungError(f"{path}: {name} is no weight of GPT-2")
    return found


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RungError(f"{path} cannot be read: {error}") from error
    is_gpt2 = any(name.removeprefix("transformer.").startswith("wte.") for name in tensors)
    if is_gpt2:
        return renamed(tensors, path, turned=True)
    if "embedding.weight" in tensors and "classifier.weight" not in tensors:
        tensors["classifier.weight"] = tensors.pop("embedding.weight")  # tied weights are stored once
    return tensors


def _twins(model: nn.Module) -> set[str]:
    """Names of tensors that stand in the state dict under another name, too."""
    is_tied = model.classifier.weight is model.embedding.weight
    return {"embedding.weight"} if is_tied else set()
