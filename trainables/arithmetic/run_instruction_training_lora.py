"""Goes on with a foundational model on problems as prompts, by low-rank adapters: its own weights stay as they are.

    python -m trainables.arithmetic.run_instruction_training_lora \\
        --instruction-corpus-path data/instruction_corpus.jsonl --tokenizer-path data/tokenizer --output-dir models \\
        --foundational-checkpoint models/foundational_20260101_120000/best_model.safetensors \\
        --lora-rank 8 --lora-alpha 16 --lora-target-modules attention --save-merged-model

Leaves a folder models/instruction_lora_<date>_<time> as run_instruction_training does (`training_folder.py`), and in it

    lora_adapter/               the adapters of the best model, as peft reads them (`models/adapter_folder.py`)
    merged_model.safetensors    with --save-merged-model: the best model as an ordinary one

The other weights in it hold the adapters beside what they adapt; evaluation and the solver take any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainables.arithmetic.training_command import command
from trainables.arithmetic.training_settings import InstructionSettings
from trainables.language.command_line import guarded
from trainables.models.lora_config import LoraConfig, Targets

if TYPE_CHECKING:
    from rung.training.run import Run

ADAPTER, MERGED = "lora_adapter", "merged_model.safetensors"


class LoraSettings(InstructionSettings):
    """Settings of run_instruction_training_lora."""

    kind: ClassVar[str] = "instruction_lora"

    num_epochs: int = Field(default=3, gt=0)
    """Passes over the training part of the corpus."""
    lora_rank: int = Field(default=8, gt=0)
    """Rank of the adapters."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """What their output is multiplied by, times the rank."""
    lora_target_modules: Targets = "attention"
    """Layers that have adapters: one of `attention` and `feedforward`, or both, with a comma between them."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability of what adapters read."""
    save_merged_model: bool = False
    """Leave the best model as an ordinary one, too."""

    @property
    def adapter(self) -> LoraConfig:
        """The adapters that are trained."""
        return LoraConfig(
            rank=self.lora_rank,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            targets=self.lora_target_modules,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    return command(
        LoraSettings, "trainables.arithmetic.run_instruction_training_lora", __doc__, arguments, finish=_finish
    )


def _finish(settings: LoraSettings, run: Run, folder: Path) -> None:
    """Leaves the adapters of the best model by themselves, and the model with its adapters merged."""
    from rung.training.checkpoints import save_weights
    from trainables.arithmetic.model_folder import find_model
    from trainables.models.adapter_folder import save_adapter
    from trainables.models.lora import merged_weights

    best = find_model(folder)
    assert best.config.adapter is not None
    save_adapter(best.weights, best.config.adapter, folder / ADAPTER, str(settings.foundational_checkpoint))
    print(f"adapters: {folder / ADAPTER}")
    if settings.save_merged_model:
        save_weights(merged_weights(best.weights, best.config.adapter), folder / MERGED)
        print(f"merged: {folder / MERGED}")


if __name__ == "__main__":
    guarded(main)
