"""Merges an adapter into the model that it was trained on: the result is an ordinary model, which needs no adapter.

    python -m trainables.arithmetic.merge_lora_adapter \\
        --base-checkpoint models/foundational_20260101_120000/best_model.safetensors \\
        --adapter-path models/instruction_lora_20260101_140000/lora_adapter \\
        --output-path models/instruction_lora_20260101_140000/merged_model.safetensors

The adapter may come from peft itself (`save_pretrained`) as long as it is plain LoRA on a decoder of ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import RungError
from trainables.arithmetic.model_settings import FILE, ModelSettings
from trainables.language.command_line import guarded

if TYPE_CHECKING:
    from trainables.arithmetic.config import ArithmeticConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    merge(chosen.base_checkpoint, chosen.adapter_path, chosen.output_path)
    print(f"{chosen.base_checkpoint} with {chosen.adapter_path} is now {chosen.output_path}")
    return 0


def merge(base: Path, adapter: Path, output: Path) -> None:
    """Writes the model that computes what `base` with an adapter does.

    Args:
        base: a model, see `model_folder.load_model`.
        adapter: a folder with an adapter, or the safetensors file in it.
        output: a safetensors file; its folder may be that of the run that trained the adapter.

    Raises:
        RungError: one of them is not there, they do not belong together, or the output's folder is another model's.
        StorageError: a file cannot be read or written.
    """
    from trainables.arithmetic.model_folder import find_model, save_model_folder
    from trainables.arithmetic.preparation import ensure_tokenizer
    from trainables.models.adapter_folder import apply_adapter
    from trainables.models.lora import merged_weights

    stored = find_model(base)
    weights = apply_adapter(adapter, merged_weights(stored.weights, stored.config.adapter), str(base))
    tokenizer = stored.tokenizer or ensure_tokenizer(stored.config)
    save_model_folder(output, weights, _described(output.parent, stored.config), tokenizer)


def _described(folder: Path, config: ArithmeticConfig) -> ArithmeticConfig:
    """The configuration to be written into a folder: what it says of adapters there is true of the other weights in it,
    and does not disturb weights that have none."""
    there = ModelSettings.read(folder / FILE).to_config() if (folder / FILE).is_file() else None
    if there is None:
        return config.model_copy(update={"adapter": None})
    if (there.model, there.context, there.format) != (config.model, config.context, config.format):
        raise RungError(f"{folder / FILE} describes another model than the one to be merged: choose another folder")
    return there


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.merge_lora_adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base-checkpoint", required=True, type=Path, help="the model that the adapter was trained on")
    parser.add_argument("--adapter-path", required=True, type=Path, help="the adapter's folder, or the file in it")
    parser.add_argument("--output-path", required=True, type=Path, help="the merged model, a safetensors file")
    return parser


if __name__ == "__main__":
    guarded(main)
