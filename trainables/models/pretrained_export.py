"""Pretrained models that were trained on, as files that other programs read.

    python -m trainables.models.pretrained_export results/<study>/checkpoints/<run id> merged-model
    python -m trainables.models.pretrained_export results/<study>/checkpoints/<run id> adapter --adapter

The first writes a model without adapters, with tokenizer and chat template; the second the adapters alone, for peft.

Merging into 4-bit weights would round the result to 4 bits once more, so the base is read again in full. That is not
quite what was trained, where the base was quantized while it was trained: adapters make up for its rounding errors too.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch

from rung.errors import RungError, StorageError
from rung.trainable import fill, find_trainable, weights_of
from rung.training.checkpoint_files import is_complete, latest_checkpoint
from rung.training.checkpoints import read_weights
from rung.tuning.run_record import find_record
from trainables.language.command_line import guarded
from trainables.models.adapter_folder import write_adapter
from trainables.models.lora import is_adapter, merged_weights
from trainables.models.pretrained import load_plain, quiet
from trainables.models.pretrained_config import Dtype, PretrainedConfig
from trainables.models.pretrained_files import CONFIG, INDEX, WEIGHTS, PretrainedFolder
from trainables.models.pretrained_shape import adapted_layers, read_shape
from trainables.rl.reference import without_reference

Weights = Mapping[str, torch.Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    config, weights = _trained(chosen.checkpoint)
    if chosen.adapter:
        save_adapter(config, weights, chosen.target)
    else:
        export_merged(config, weights, chosen.target, chosen.dtype)
    print(f"{chosen.target} is what {chosen.checkpoint} has made of {config.model}")
    return 0


def export_merged(config: PretrainedConfig, weights: Weights, target: Path, dtype: Dtype = "bf16") -> None:
    """Writes a model that needs no adapters: for `from_pretrained` of transformers, vLLM, llama.cpp and the like.

    Args:
        config: the model that was trained.
        weights: what `pretrained.kept` gave, from a checkpoint for instance.
        target: a new folder, or an empty one.
        dtype: of the weights that are written.

    Raises:
        RungError: the base is not on this machine, the weights are not those of a run of `config`, or the folder has
            something in it.
        StorageError: it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RungError(f"{target} is there already: give the exported model a folder of its own")
    adapters = {name: tensor for name, tensor in weights.items() if is_adapter(name)}
    if bool(adapters) != (config.adapter is not None):
        has, those = ("none", "with adapters") if adapters else ("adapters", "without")
        raise RungError(f"the configuration has {has}, and these weights are those of a run {those}")
    model = load_plain(config.model_copy(update={"dtype": dtype}))
    fill(model, merged_weights(weights_of(model) | adapters, config.adapter) if adapters else weights)
    try:
        with quiet():
            model.save_pretrained(target)
        for file in PretrainedFolder.of(config).path.iterdir():
            is_weight = file.suffix in (".safetensors", ".bin", ".gguf", ".pth") or file.name in (WEIGHTS, INDEX)
            if file.is_file() and not is_weight and not (target / file.name).exists():
                shutil.copy(file, target)
    except OSError as error:
        raise StorageError(f"cannot write the model to {target}: {error}") from error


def save_adapter(config: PretrainedConfig, weights: Weights, target: Path) -> None:
    """Writes the adapters in peft's format: `PeftModel.from_pretrained(base, target)` loads them.

    Raises:
        RungError: there are none.
        StorageError: the folder cannot be written.
    """
    if config.adapter is None or not any(map(is_adapter, weights)):
        raise RungError(f"all weights of {config.model} were trained, so there is no adapter to write")
    folder = PretrainedFolder.of(config)
    shape = read_shape(folder.read(CONFIG), str(folder.path / CONFIG))
    write_adapter(
        weights,
        config.adapter,
        sorted(adapted_layers(config.adapter, shape)),
        target,
        {"base": config.model},
        task_type="CAUSAL_LM",
        base_model_name_or_path=config.model,
    )


def _trained(path: Path) -> tuple[PretrainedConfig, Weights]:
    """The model of a run, given the folder of its checkpoints or one of them, and what training has made of it."""
    checkpoint = path if is_complete(path) else latest_checkpoint(path)
    if checkpoint is None:
        raise RungError(f"{path} is no checkpoint of a study's run: name results/<study>/checkpoints/<run id>")
    run = checkpoint.resolve().parent
    record = find_record(run.name, str(run.parent.parent))
    trainable = str(record.study["trainable"])
    config = find_trainable(trainable).Config.model_validate_json(record.config_json)
    model = getattr(config, "model", None)
    if not isinstance(model, PretrainedConfig):
        raise RungError(f"{path} is a model of the trainable {trainable}, which trains no pretrained ones")
    return model, without_reference(read_weights(checkpoint)[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.models.pretrained_export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of a study's run, or the folder of its checkpoints")
    parser.add_argument("target", type=Path, help="the folder to write")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="bf16", help="of merged weights (default bf16)")
    parser.add_argument("--adapter", action="store_true", help="write the adapters alone")
    return parser


if __name__ == "__main__":
    guarded(main)
