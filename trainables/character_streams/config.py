"""The configuration of a character-stream run, with everything that can be wrong about one. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from rung.errors import RungError
from rung.explain import nearest
from rung.settings import EvaluationConfig, OptimizerConfig, ScheduleConfig, StrictModel
from trainables.character_streams.stream import Stream, own_stream
from trainables.character_streams.streams import BUILT_IN
from trainables.language.config import LanguageConfig

Scalar = bool | int | float | str


class StreamConfig(StrictModel):
    """Which stream of lines, and how difficult it is."""

    name: str = "insert-spaces"
    """`insert-spaces`, `count-by-twos`, `translation`, `alphabet`, `students`, `copy`, `reverse`, `sort`, `mixed` or
    `addition`; a function of your own is `package.module:function` or `path/to/file.py:function` (see `stream`)."""
    alphabet: str = Field(default="abcde", min_length=1)
    """Letters of random words (`insert-spaces`, `copy`, `reverse`, `sort`, `mixed`)."""
    shortest: int = Field(default=1, gt=0)
    """Fewest letters of a random word."""
    longest: int = Field(default=3, gt=0)
    """Most letters of a random word; lengths are uniform."""
    digits: int = Field(default=2, gt=0)
    """`addition`: most digits of a number, which is uniform from 0 on."""
    reverse_target: bool = False
    """`addition`: whether the sum is written with its ones first, the order in which it can be worked out."""
    start_below: int = Field(default=100, gt=0)
    """`count-by-twos`: what the first number of a line lies below."""
    step: int = Field(default=2, gt=0)
    """`count-by-twos`: from number to number."""
    numbers: int = Field(default=4, ge=2)
    """`count-by-twos`: numbers in a line."""
    options: dict[str, Scalar] = Field(default={})
    """Keywords for a function of your own; sweep them as `stream.options.<name>`."""

    @field_validator("alphabet")
    @classmethod
    def _letters_are_plain(cls, alphabet: str) -> str:
        if len(set(alphabet)) < len(alphabet) or set(alphabet) & set(" :\n"):
            raise ValueError(f"letters must be different and neither space, colon nor line end, got {alphabet!r}")
        return alphabet

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if name not in BUILT_IN and not all(name.rpartition(":")[::2]):
            raise ValueError(
                f"no stream is called {name!r} ({nearest(name, BUILT_IN)}); your own is package.module:function or "
                "path/to/file.py:function"
            )
        return name

    @model_validator(mode="after")
    def _fields_are_used(self) -> StreamConfig:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) must not be above longest ({self.longest})")
        used = BUILT_IN[self.name][1] if self.is_built_in else ("options",)
        unused = [
            name
            for name, field in type(self).model_fields.items()
            if name != "name" and name not in used and getattr(self, name) != field.default
        ]
        if unused:
            looks = f"it looks at {', '.join(used)}" if used else "it has no options"
            raise ValueError(f"stream {self.name} does not look at {', '.join(unused)}: {looks}")
        return self

    @property
    def is_built_in(self) -> bool:
        """Whether it comes with rung."""
        return self.name in BUILT_IN

    def stream(self) -> Stream:
        """The stream.

        Raises:
            RungError: a function of the user's cannot be found or does not take the options.
        """
        if self.is_built_in:
            return BUILT_IN[self.name][0](self)
        return own_stream(self.name, self.options)


class CharacterStreamsConfig(LanguageConfig):
    """A stream of characters, learnt by nanoGPT's decoder. The defaults are those of the course experiment that it
    comes from (`basic.py`): 4 layers of 128, 0.79 M parameters, 64 characters of context, 2,000 iterations."""

    stream: StreamConfig = StreamConfig()
    """What is learnt, unless `data` is given."""
    data: str | None = None
    """A text file, or a folder with `train.bin`, `val.bin` and `meta.json` (or nanoGPT's `meta.pkl`; without either the
    tokens are GPT-2's), in place of a stream. Absolute, or below the data root (RUNG_DATA, else `data`)."""
    characters: int = Field(default=1_200_000, ge=100)
    """Characters that are made of a stream, line ends included; a whole line more rather than one less."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Part of the lines (of a stream) or of the text (of a text file) that is for validation. nanoGPT's Shakespeare has
    0.1. A folder is split already."""
    held_out: Literal["none", "lines"] = "none"
    """`none`: the last lines are for validation; where lines come up again and again, training has seen them all.
    `lines`: this part of the different lines is kept out of training wherever they come up."""
    loss_on: Literal["all", "answer"] = "all"
    """`all`: every character is learnt. `answer`: only what follows a line's prompt, line end included."""
    windows: Literal["random", "lines"] = "random"
    """Where training windows begin: anywhere, as in nanoGPT, or at the beginnings of lines."""
    answers: int = Field(default=200, gt=0)
    """Validation lines whose answers the model writes, greedily, to be checked at every evaluation."""
    shown: int = Field(default=10, ge=0)
    """How many of them go into the table `generations`."""
    initial_weights: str | None = None
    """Weights to begin with: a folder of transformers' GPT-2 (`config.json`, `model.safetensors`), a nanoGPT `ckpt.pt`
    or a `model.safetensors` of ours. The model must have that shape; learned positions are cut to `context`. Found like
    `data`."""
    context: int = Field(default=64, gt=0)
    """Characters that the model reads at once."""
    batch_size: int = Field(default=12, gt=0)
    """Windows in a training batch, those of all parts and workers together."""
    evaluation_tokens: int = Field(default=15_360, gt=0)
    """Characters of each split that losses are taken over: evenly spaced windows, the same in every run with the same
    text. The default is as many as nanoGPT draws with `eval_iters` 20."""
    evaluation_batch_size: int = Field(default=120, gt=0)
    """Windows that are evaluated at once; changes speed and memory only."""
    optimizer: OptimizerConfig = OptimizerConfig(
        kind="adamw", learning_rate=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99, decay="matrices"
    )
    """Optimizer and its constants."""
    schedule: ScheduleConfig = ScheduleConfig(kind="cosine", warmup=100, minimum=1e-4)
    """Learning-rate schedule: cosine over the whole budget."""
    evaluation: EvaluationConfig = EvaluationConfig(every=100)
    """Evaluation points."""

    @model_validator(mode="after")
    def _lines_are_known(self) -> CharacterStreamsConfig:
        if self.data is not None and self.held_out == "lines":
            raise ValueError("held_out: lines is for streams; the lines of a text are no independent draws")
        if self.data is not None and self.stream != StreamConfig():
            raise ValueError(f"data ({self.data}) takes the place of a stream: leave one of the two out")
        if self.loss_on == "answer" and self.data is None and self.known_stream().prompt is None:
            raise ValueError(
                f"loss_on: answer needs to know where a line's answer begins, and stream {self.stream.name} has no "
                "prompt rule: give one with @stream(prompt=...)"
            )
        return self

    def known_stream(self) -> Stream:
        """The stream; a complaint about it is one about the configuration.

        Raises:
            ValueError: it cannot be found.
        """
        try:
            return self.stream.stream()
        except RungError as error:
            raise ValueError(str(error)) from error
