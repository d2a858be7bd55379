"""From nanoGPT's keys to a configuration of the trainable, and where its files are. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.errors import RungError
from rung.explain import findings
from trainables.character_streams.config import CharacterStreamsConfig
from trainables.character_streams.nanogpt.keys import Keys
from trainables.language.command_line import choose_device
from trainables.language.tokens import data_root

GPT2_SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def to_config(keys: Keys, device: str) -> CharacterStreamsConfig:
    """The configuration that nanoGPT's keys describe.

    Args:
        keys: checked already, see `keys.refusals`.
        device: the torch device that will be used.

    Raises:
        RungError: the keys ask for something that cannot be trained, or for data that is not there.
    """
    values = {
        "data": str(data_path(keys.dataset)),
        "model": _model(keys),
        "context": keys.block_size,
        "batch_size": keys.batch_size * keys.gradient_accumulation_steps,
        "accumulation": keys.gradient_accumulation_steps,
        "evaluation_tokens": keys.eval_iters * keys.batch_size * keys.block_size,
        "evaluation_batch_size": keys.batch_size,
        "evaluation": {"every": keys.eval_interval, "log_every": keys.log_interval},
        "optimizer": _optimizer(keys),
        "schedule": _schedule(keys),
        "gradient_clip": keys.grad_clip or None,
        "precision": precision_of(keys, device),
        "compile": keys.compile,
        "loss_on": keys.loss_on,
        "windows": keys.windows,
        "answers": keys.answers,
    }
    values |= _initial(keys, values)
    try:
        return CharacterStreamsConfig.model_validate(values)
    except ValidationError as error:
        found = findings(error, CharacterStreamsConfig, values)
        raise RungError("\n".join(f"{'.'.join(map(str, each.path))}: {each.message}" for each in found)) from error


def data_path(dataset: str) -> Path:
    """Where a data set lies: `data/<dataset>` in the working directory or below RUNG_DATA, or a path as it stands.

    Raises:
        RungError: it is nowhere.
    """
    candidates = [Path("data") / dataset, data_root() / dataset, Path(dataset).expanduser()]
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    tried = ", ".join(str(each) for each in dict.fromkeys(candidates))
    raise RungError(
        f"dataset {dataset!r} is not there: looked for {tried}. Make it with its prepare.py, or with "
        "`python -m trainables.character_streams prepare`, from the experiment's folder"
    )


def precision_of(keys: Keys, device: str) -> str:
    """`dtype` in the engine's words; on a GPU the best that it has if nothing is said.

    Raises:
        RungError: float16 is asked of a processor.
    """
    if complaint := _precision_complaint(keys, device):
        raise RungError(complaint)
    if keys.dtype is not None:
        return PRECISIONS[keys.dtype]
    if not device.startswith("cuda"):
        return "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def device_complaints(keys: Keys) -> list[str]:
    """What the machine cannot do of what is asked. Imports torch only where that depends on it."""
    if keys.dtype != "float16" and not (keys.device or "").startswith("cuda"):
        return []
    try:
        complaint = _precision_complaint(keys, choose_device(keys.device))
    except RungError as error:
        complaint = str(error)
    return [complaint] if complaint else []


def _precision_complaint(keys: Keys, device: str) -> str | None:
    if keys.dtype != "float16" or device.startswith("cuda"):
        return None
    return f"dtype: float16 needs a GPU, and the device is {device}; bfloat16 and float32 run anywhere"


def weights_path(init_from: str) -> Path:
    """Where the weights lie that `init_from` names.

    Raises:
        RungError: nowhere.
    """
    named = data_root() / "models" / init_from
    if init_from in GPT2_SIZES and not named.exists():
        raise RungError(
            f"init_from: {init_from} is looked for in {named}, which is not there. Nothing is downloaded: copy "
            "config.json and model.safetensors of that model there (RUNG_DATA says where data lies)"
        )
    path = named if named.exists() else Path(init_from).expanduser()
    if not path.exists():
        raise RungError(
            f"init_from: {init_from!r} is neither scratch nor resume nor one of {', '.join(GPT2_SIZES)}, and there is "
            "no such folder or file"
        )
    return path.resolve()


def _model(keys: Keys) -> dict[str, Any]:
    return {
        "layers": keys.n_layer,
        "heads": keys.n_head,
        "width": keys.n_embd,
        "dropout": keys.dropout,
        "bias": keys.bias,
        "positions": keys.positions,
        "initialisation": keys.initialisation,
    }


def _optimizer(keys: Keys) -> dict[str, Any]:
    return {
        "kind": "adamw",
        "learning_rate": keys.learning_rate,
        "weight_decay": keys.weight_decay,
        "decay": "matrices",
        "beta1": keys.beta1,
        "beta2": keys.beta2,
    }


def _schedule(keys: Keys) -> dict[str, Any]:
    if not keys.decay_lr:
        return {"kind": "none", "warmup": 0}
    return {"kind": "cosine", "warmup": keys.warmup_iters, "length": keys.lr_decay_iters, "minimum": keys.min_lr}


def _initial(keys: Keys, values: dict[str, Any]) -> dict[str, Any]:
    """What weights to begin with change: their model takes the place of n_layer, n_head, n_embd and bias."""
    if keys.init_from in ("scratch", "resume"):
        return {}
    from trainables.character_streams.weights import gpt2_shape, read_checkpoint

    path = weights_path(keys.init_from)
    shape = dict(read_checkpoint(path).model_args) if path.suffix == ".pt" else gpt2_shape(path)
    return initial_values(keys, values, shape, path)


def initial_values(keys: Keys, values: dict[str, Any], shape: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a configuration that begins with weights of that shape (nanoGPT's names).

    Raises:
        RungError: block_size is longer than they are.
    """
    if keys.block_size > shape["block_size"]:
        raise RungError(
            f"block_size {keys.block_size} is longer than that of {path}, {shape['block_size']}: it can only be cut"
        )
    model = {
        **values["model"],
        "layers": shape["n_layer"],
        "heads": shape["n_head"],
        "width": shape["n_embd"],
        "bias": bool(shape["bias"]),
    }
    return {"model": model, "initial_weights": str(path)}
