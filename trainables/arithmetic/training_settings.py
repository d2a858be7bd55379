"""Settings of the training commands, under the names and with the defaults of the original. Imports no torch.

`python -m trainables.arithmetic.run_foundational_training --help` lists them; a JSON file (`--config`) may hold any of
them, and the `training_config.json` that a run leaves is such a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from rung.settings import OptimizerConfig, Precision, ScheduleConfig, StrictModel
from trainables.arithmetic.config import Batching
from trainables.models.lora_config import LoraConfig

InputPath = Annotated[Path, AfterValidator(Path.resolve)]
"""Of something that is read: a run that goes on finds it from any working directory."""


class CommandSettings(StrictModel):
    """What every training command has."""

    kind: ClassVar[str]
    """What the folder of a run is called, before its time."""

    output_dir: Path = Path("models")
    """Where the run's folder goes."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate; it rises from 0 during the warm-up and falls to 0 in a straight line."""
    num_epochs: int = Field(default=10, gt=0)
    """Passes over the training part of the corpus."""
    warmup_steps: int = Field(default=1_000, ge=0)
    """Steps of warm-up."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    """Largest L2 norm of the whole gradient; none: no clipping."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay, on every parameter."""
    save_every: int = Field(default=1_000, gt=0)
    """Steps between two checkpoint_step_N.safetensors."""
    eval_every: int = Field(default=500, gt=0)
    """Steps between two evaluations; there is one at the end of each epoch, too."""
    early_stopping_patience: int | None = Field(default=None, gt=0)
    """Evaluations in a row without a better one (a lower validation loss, a higher reward rate) that end training;
    none: off."""
    early_stopping_min_delta: float = Field(default=1e-4, ge=0)
    """By which part of itself the best value must be bettered to count as better."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Part of a corpus file that is held out, by expression; a corpus folder brings its own validation part."""
    evaluation_items: int = Field(default=500, gt=0)
    """Items of the validation part that are evaluated."""
    precision: Precision = "fp32"
    """What matrix products are computed in."""
    device: str = "auto"
    """`cuda`, `cpu`, or `auto`: a GPU if there is one."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, of draws and of the order of items."""

    @property
    def corpus(self) -> Path | None:
        """What is trained on; None: expressions that are drawn."""
        raise NotImplementedError

    @property
    def tokens_by(self) -> Path:
        """The tokenizer, its folder or its file."""
        raise NotImplementedError

    @property
    def checkpoint(self) -> Path | None:
        """The model that training begins with; None: a new one."""
        return None

    def to_values(self) -> dict[str, Any]:
        """What these settings say about the configuration of any trainable."""
        return {
            "optimizer": OptimizerConfig(learning_rate=self.learning_rate, weight_decay=self.weight_decay),
            "schedule": ScheduleConfig(kind="linear", warmup=self.warmup_steps, warmup_from="zero", minimum=0.0),
            "gradient_clip": self.gradient_clip,
            "evaluation_items": self.evaluation_items,
            "evaluation": {"every": self.eval_every},
            "precision": self.precision,
        }


class TrainingSettings(CommandSettings):
    """What the commands have that train on solutions."""

    mode: ClassVar[Literal["foundational", "instruction"]]
    """What is learnt."""

    tokenizer_path: InputPath
    """Folder of the tokenizer, or its tokenizer.json."""
    batch_size: int = Field(default=32, gt=0)
    """Items in a step; with `packed`, rows of max_seq_length tokens."""
    most_cut: float = Field(default=0.001, ge=0, le=1)
    """Share of items longer than max_seq_length above which training is refused; fewer are left out."""
    batching: Batching = "bucketed"
    """How items become batches: in random order, by length, or several in a row."""

    @property
    def corpus(self) -> Path:
        """What is trained on."""
        raise NotImplementedError

    @property
    def tokens_by(self) -> Path:
        """The tokenizer."""
        return self.tokenizer_path

    @property
    def adapter(self) -> LoraConfig | None:
        """Adapters, which alone are trained; None: the whole model is."""
        return None

    def to_values(self) -> dict[str, Any]:
        """What these settings say about an `ArithmeticConfig`."""
        return super().to_values() | {
            "mode": self.mode,
            "adapter": self.adapter,
            "batch_size": self.batch_size,
            "batching": self.batching,
            "most_cut": self.most_cut,
        }


class FoundationalSettings(TrainingSettings):
    """Settings of run_foundational_training."""

    kind: ClassVar[str] = "foundational"
    mode: ClassVar[Literal["foundational", "instruction"]] = "foundational"

    corpus_path: InputPath
    """Corpus: JSONL or plain text, or a folder with train.jsonl and validation.jsonl."""

    @property
    def corpus(self) -> Path:
        """What is trained on."""
        return self.corpus_path


class InstructionSettings(TrainingSettings):
    """Settings of run_instruction_training."""

    kind: ClassVar[str] = "instruction"
    mode: ClassVar[Literal["foundational", "instruction"]] = "instruction"

    instruction_corpus_path: InputPath
    """Corpus: JSONL, or a folder with train.jsonl and validation.jsonl."""
    foundational_checkpoint: InputPath
    """Weights to begin with: a .safetensors file, the folder of a run, or a checkpoint of a study."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak learning rate; it rises from 0 during the warm-up and falls to 0 in a straight line."""
    num_epochs: int = Field(default=5, gt=0)
    """Passes over the training part of the corpus."""
    warmup_steps: int = Field(default=500, ge=0)
    """Steps of warm-up."""
    save_every: int = Field(default=500, gt=0)
    """Steps between two checkpoint_step_N.safetensors."""

    @property
    def corpus(self) -> Path:
        """What is trained on."""
        return self.instruction_corpus_path

    @property
    def checkpoint(self) -> Path:
        """The foundational model."""
        return self.foundational_checkpoint
