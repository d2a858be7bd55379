"""What a training command is about to do: all is read, checked and fits together, and nothing has been written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rung.errors import RungError
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.corpus import FILES
from trainables.arithmetic.corpus_file import read_halves
from trainables.arithmetic.file_trainable import FileArithmetic
from trainables.arithmetic.model_folder import StoredModel, find_model, load_tokenizer, tokenizer_file
from trainables.arithmetic.model_settings import ModelSettings
from trainables.arithmetic.sequences import fitting
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trainable import Arithmetic
from trainables.arithmetic.training_folder import SOLUTIONS, Measures, epochs
from trainables.arithmetic.training_settings import CommandSettings, TrainingSettings
from trainables.language.command_line import choose_device
from trainables.language.metrics_csv import Row


@dataclass(frozen=True)
class Plan:
    """A run that is about to begin or to go on; nothing has been written yet."""

    settings: CommandSettings
    trainable: Arithmetic
    start: StoredModel | None
    """What it begins with; None: fresh weights."""
    steps_per_epoch: int
    items: int
    """Items that are learnt from in an epoch."""
    held_out: int
    """Items that are held out."""

    measures: ClassVar[Measures] = SOLUTIONS

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.settings.num_epochs * self.steps_per_epoch

    @property
    def inputs(self) -> list[Path]:
        """The files that it reads."""
        corpus = self.settings.corpus
        files = [] if corpus is None else [corpus]
        if corpus is not None and corpus.is_dir():
            files = [corpus / name for name in FILES.values()]
        begun_with = [] if self.start is None else [self.start.file]
        return [*files, tokenizer_file(self.settings.tokens_by), *begun_with]

    def log(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The content of the log."""
        return epochs(rows, self.steps_per_epoch)

    def shown(self, row: Row) -> str:
        """An evaluation in a line."""
        loss, right = row["val_loss"], row["val_trace_accuracy"]
        whole = "" if right is None else f", solutions without a mistake {100 * right:.1f} %"
        return f"validation loss {'not finite' if loss is None else f'{loss:.4f}'}{whole}"

    def say_step(self, rows: Sequence[Row]) -> None:
        """Says what there is to say about the step of the last row: here, nothing."""


def plan(settings: TrainingSettings, model: ModelSettings | None) -> Plan:
    """Reads what is to be trained on, and checks that everything belongs together.

    Args:
        settings: of the command.
        model: its shape and format; None: those of the checkpoint that it begins with, or else the defaults.

    Raises:
        RungError: something is not there, or does not fit.
        StorageError: a file cannot be read.
    """
    device = choose_device(settings.device)
    start = None if settings.checkpoint is None else find_model(settings.checkpoint, device)
    tokenizer = Tokenizer.load(settings.tokenizer_path)
    if start is not None and settings.checkpoint is not None:
        tokenizer = load_tokenizer(start, settings.checkpoint, settings.tokenizer_path)
    if model is not None and model.vocab_size not in (None, tokenizer.size):
        raise RungError(
            f"--model-config says that vocab_size is {model.vocab_size:,}, and the tokenizer {settings.tokenizer_path} "
            f"has {tokenizer.size:,} tokens: leave vocab_size out, or take the other tokenizer"
        )
    config = _config(settings, model, start)
    halves = read_halves(settings.corpus, settings.validation_fraction, tokenizer, config)
    try:
        fit = fitting(halves["train"], config.context, config.most_cut)
    except RungError as error:
        raise RungError(f"{error}. Here context is --max-seq-length, and most_cut is --most-cut") from error
    if fit.note is not None:
        print(f"warning: {fit.note}")
    halves["train"] = fit.sequences
    trainable = FileArithmetic(config, settings.seed, device, tokenizer=tokenizer, halves=halves)
    return Plan(
        settings,
        trainable,
        start,
        steps_per_epoch=trainable.batches().layout.batches,
        items=len(fit.sequences),
        held_out=len(halves["validation"]),
    )


def _config(settings: TrainingSettings, model: ModelSettings | None, start: StoredModel | None) -> ArithmeticConfig:
    """What is trained, as the engine sees it."""
    shape = (model or ModelSettings()).to_config() if start is None else start.config
    if start is not None and model is not None:
        refuse_another_shape(settings, model.to_config(), shape)
        shape = model.to_config()
    names = ("model", "context", "format")
    return ArithmeticConfig(**{name: getattr(shape, name) for name in names}, **settings.to_values())


def refuse_another_shape(settings: CommandSettings, wanted: ArithmeticConfig, there: ArithmeticConfig) -> None:
    """Raises RungError unless a checkpoint has the model that is described; dropout may differ."""
    plain = there.model.model_copy(update={"dropout": wanted.model.dropout, "feed_forward": there.model.hidden})
    if (wanted.model, wanted.context) != (plain, there.context):
        raise RungError(
            f"--model-config describes a model of another shape than {settings.checkpoint}: leave it out, the "
            "checkpoint says what it is"
        )
