"""`ExperimentConfig`: an experiment's settings under the names of the course's experiment files. Imports no torch.

    config = ExperimentConfig(experiment_name="test", experiment_id="abc123", vocab_size=10000)
    config = ExperimentConfig.from_json("trainables/tinystories/configs/quick_test.json", experiment_name="test")

Whatever these names cannot say is said under `overrides`, by the dotted paths of the trainable `tinystories`, as in a
study file: `{"model.norm": "post", "accumulation": 4}`. A key that does not exist is an error, except under `metadata`,
which is kept and never read. All that is wrong with a file is said in one message.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator, model_validator

from rung.errors import RungError, StorageError
from rung.results.files import replace_file
from rung.settings import StrictModel

DESCRIBING = ("experiment_id", "experiment_name", "description", "tags", "metadata")
"""Keys that change no number."""


class ExperimentConfig(StrictModel):
    """Settings of one experiment; the defaults are those of the original.

    Raises:
        RungError: on construction, naming every problem.
    """

    experiment_name: str = ""
    """Its name; a plain one, since it names a folder."""
    experiment_id: str = ""
    """Told apart by this; empty: `run_experiment` takes a hash of what determines the numbers."""
    description: str = ""
    """What is being tested, for the experiment log."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""

    dataset: str = "TinyStories"
    """What the data is called; it only labels. Where it lies say `train_data_path` and `val_data_path`."""
    train_data_path: str = ""
    """Training tokens: a `.npy` or `.bin` file of unsigned 16-bit integers, read as a memory map, or a folder made by
    `python -m trainables.tinystories.prepare`. A relative path starts at the working directory, or else at the data
    folder (RUNG_DATA, or `data`)."""
    val_data_path: str = ""
    """Validation tokens, likewise. Empty with a folder, which holds both."""

    vocab_size: int = Field(default=10_000, gt=0, le=65_536)
    """Tokens of the tokenizer."""
    context_length: int = Field(default=512, gt=0)
    """Tokens that the model sees at once."""
    d_model: int = Field(default=512, gt=0)
    """Width."""
    num_layers: int = Field(default=6, gt=0)
    """Blocks."""
    num_heads: int = Field(default=8, gt=0)
    """Attention heads; must divide `d_model`."""
    d_ff: int = Field(default=2048, gt=0)
    """Width of the feed-forward layer."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary positions."""

    batch_size: int = Field(default=32, gt=0)
    """Sequences in a step."""
    max_iterations: int = Field(default=10_000, gt=0)
    """Optimizer steps, exactly; the cosine ends there, too."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak learning rate."""
    min_learning_rate: float = Field(default=3e-5, ge=0)
    """Learning rate at the end of the cosine."""
    warmup_iters: int = Field(default=100, ge=0)
    """Steps of linear warm-up from 0."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, on every parameter."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay rate of AdamW's first moment."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay rate of AdamW's second moment."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """Largest L2 norm of the whole gradient; null: no clipping."""

    device: str | None = None
    """A torch device; null: the first GPU, or else the CPU."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What matrix products are computed in; parameters and optimizer stay in float32."""
    seed: int = Field(default=42, ge=0)
    """Seed of the initial weights and of the order of the data."""

    log_interval: int = Field(default=10, gt=0)
    """Steps between two rows of the training loss."""
    eval_interval: int = Field(default=100, gt=0)
    """Steps between two evaluations."""
    checkpoint_interval: int = Field(default=1000, gt=0)
    """Steps between two checkpoints that are kept."""

    overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """Further settings of the trainable `tinystories` by dotted path; they win over the keys above."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """Anything; it is kept with the experiment and has no effect."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = {str(each["loc"][0]) for each in error.errors() if each["loc"]}
            lines = problems(error)
            if wrong:  # pydantic has not looked at what must fit together
                right = {name: value for name, value in values.items() if name not in wrong}
                lines += [f"  {text}" for text in _misfits(ExperimentConfig.model_construct(**right), wrong)]
            raise RungError("\n".join(["this experiment is not well described:", *lines])) from error

    @field_validator("*", mode="before")
    @classmethod
    def _no_text_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        is_number = info.field_name is not None and type(cls.model_fields[info.field_name].default) in (int, float)
        if is_number and isinstance(value, str):
            raise ValueError(f"expected a number, got the text {json.dumps(value)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentConfig:
        wrong = _misfits(self)
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], **changes: Any) -> ExperimentConfig:
        """The settings of a file, with `changes` in their place.

        Raises:
            RungError: what is wrong with the file or the changes, all of it in one message.
            StorageError: the file cannot be read.
        """
        content = read_json(Path(path))
        if not isinstance(content, dict):
            raise RungError(f"{path} must hold one object of settings, not a {type(content).__name__}")
        try:
            return cls(**{**content, **changes})
        except RungError as error:
            raise RungError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as JSON values."""
        return self.model_dump(mode="json")

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the settings as a file that `from_json` reads. Raises StorageError."""
        replace_file(Path(path), json.dumps(self.to_dict(), indent=2).encode() + b"\n")

    def numbers(self) -> dict[str, Any]:
        """The settings that determine the numbers of the run."""
        return {name: value for name, value in self.to_dict().items() if name not in DESCRIBING}

    def with_id(self) -> ExperimentConfig:
        """The same with an `experiment_id`, if it has none: 8 hex digits of the SHA-256 of `numbers`."""
        if self.experiment_id:
            return self
        text = json.dumps(self.numbers(), sort_keys=True)
        return self.model_copy(update={"experiment_id": hashlib.sha256(text.encode()).hexdigest()[:8]})


def _misfits(config: ExperimentConfig, unknown: Collection[str] = ()) -> list[str]:
    """What does not fit together; settings that are `unknown` fit everything."""
    heads, width = config.num_heads, config.d_model
    warmup, steps = config.warmup_iters, config.max_iterations
    lowest, peak = config.min_learning_rate, config.learning_rate
    name = config.experiment_name
    found = [
        (("num_heads", "d_model"), width % heads, f"num_heads ({heads}) must divide d_model ({width})"),
        (
            ("warmup_iters", "max_iterations"),
            warmup >= steps,
            f"warmup_iters ({warmup}) must be below max_iterations ({steps})",
        ),
        (
            ("min_learning_rate", "learning_rate"),
            lowest > peak,
            f"min_learning_rate ({lowest}) must not exceed learning_rate ({peak})",
        ),
        (
            ("experiment_name",),
            Path(name).name != name,
            f"experiment_name ({name!r}) must be a plain name: it names a folder",
        ),
    ]
    return [text for names, is_wrong, text in found if is_wrong and not set(names) & set(unknown)]


def problems(error: ValidationError) -> list[str]:
    """One line for each of pydantic's errors; an unknown key comes with the nearest known one."""
    return [_problem(each) for each in error.errors()]


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises StorageError, with the line of a mistake."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not valid JSON: {error}") from error


def _problem(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, ExperimentConfig.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "what rung is not to read belongs under `metadata`"
        return f"  {name}: there is no such setting; {hint}"
    text = str(error["msg"]).removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"  {name}: {text}{shown}" if name else f"  {text}"
