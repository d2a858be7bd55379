"""Character streams as a trainable: what rung's engine asks of it. Importing this module does not import torch.

Try it with `rung train search_spaces/character_streams/characters-demo.yaml`. Beside losses it reports whether
answers are right, because a model that has learnt what lines look like and nothing else has a handsome loss, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.trainable import Generation, Metric, Reference, Sampling
from trainables.character_streams.answers import Examination, accuracy, character_accuracy, length_accuracy, shown
from trainables.character_streams.config import CharacterStreamsConfig
from trainables.character_streams.corpus import BINS, corpus, locate, stream_of, vocabulary_size
from trainables.character_streams.meta import META, PICKLED_META
from trainables.language.codec import Codec
from trainables.language.find_file import find_file
from trainables.language.tokens import Split, Tokens
from trainables.language.trainable import SPLITS, LanguageTrainable

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN_TEXTS, SHOWN_TOKENS = 3, 200
"""How many texts, of how many characters, show what a model writes that has no questions to answer."""


class CharacterStreams(LanguageTrainable[CharacterStreamsConfig]):
    """A decoder that learns the next character of a stream of lines, or of any text.

    `evaluate` reports the mean loss of all characters of fixed windows of both splits. Of a stream with a prompt rule
    it reports the loss of the answers' characters alone, too, and of one with a checker what part of the answers that
    the model writes is right.
    """

    Config: ClassVar[type[TrainableConfig]] = CharacterStreamsConfig

    def __init__(self, config: CharacterStreamsConfig, seed: int, device: str = "cpu") -> None:
        super().__init__(config, seed, device)
        self.data_seed = seed if config.data_seed is None else config.data_seed
        self.corpus = corpus(config, self.data_seed)

    @classmethod
    def vocabulary(cls, config: CharacterStreamsConfig) -> int:
        """Different characters."""
        return vocabulary_size(config)

    @classmethod
    def metrics(cls, config: CharacterStreamsConfig) -> Mapping[str, Metric]:
        """Those of every language model, and what the stream makes possible. Of data that is not there nothing is
        known: then all are listed, so that `missing` is what one hears of, and not a metric."""
        metrics = dict(super().metrics(config))
        is_unknown = config.data is not None and not locate(config.data).exists()
        stream = stream_of(config)
        has_prompt = is_unknown or (stream is not None and stream.prompt is not None)
        if has_prompt:
            text = (
                "mean negative log-likelihood of the characters of answers, line ends included, validation text, nats"
            )
            metrics["validation/answer_loss"] = Metric("min", text)
        if has_prompt or (stream is not None and stream.check is not None):
            text = "part of the answers to validation prompts, written greedily, that are right to the last character"
            metrics["validation/accuracy"] = Metric("max", text, worst=0.0)
        if has_prompt:
            metrics["validation/character_accuracy"] = Metric(
                "max", "part of the answers' characters, white space apart, that stand where they should", worst=0.0
            )
            metrics["validation/length_accuracy"] = Metric(
                "max", "part of the answers that are as long as the right one", worst=0.0
            )
        return metrics

    @classmethod
    def references(cls, config: CharacterStreamsConfig) -> Mapping[str, Sequence[Reference]]:
        """Entropy of whole lines, which windows that begin anywhere do not come to, and the loss of a model that knows
        the format and guesses."""
        stream = stream_of(config)
        if stream is None:
            return {}
        theory = stream.theory
        whole = _lines(("entropy of the lines", theory.floor), ("format known, answer guessed", theory.plateau))
        answers = _lines(
            ("entropy of the answers", theory.answer_floor), ("format known, answer guessed", theory.answer_plateau)
        )
        found = {f"{split}/loss": whole for split in SPLITS if whole}
        return found | ({"validation/answer_loss": answers} if answers and stream.prompt else {})

    @classmethod
    def data_files(cls, config: CharacterStreamsConfig) -> Sequence[Path]:
        """Text, tokens, vocabulary, weights to begin with, and the file of a stream function of the user's."""
        files = [path for name in (config.data, config.initial_weights) if name for path in _files(locate(name))]
        place = Path(config.stream.name.rpartition(":")[0])
        own = find_file(place) if place.suffix == ".py" else None
        return files if own is None else [*files, own]

    @classmethod
    def missing(cls, config: CharacterStreamsConfig) -> str | None:
        """A text or weights that are not where the configuration says, or a text without the answers to be learnt."""
        if config.data is not None and not locate(config.data).exists():
            return (
                f"data: there is no {locate(config.data)}: put the text file there, or a folder made by "
                "`python -m trainables.character_streams prepare` (RUNG_DATA says where data lies), or leave `data` "
                "out, which takes the place of `stream`"
            )
        if config.initial_weights is not None and not locate(config.initial_weights).exists():
            return f"there are no weights at {locate(config.initial_weights)}: nothing is downloaded, so put them there"
        if config.loss_on == "answer" and ((stream := stream_of(config)) is None or stream.prompt is None):
            return (
                f"loss_on: answer, but {locate(config.data or '')} does not say where answers begin: it takes a folder "
                "made from a stream with a prompt rule by `python -m trainables.character_streams prepare`"
            )
        return None

    @property
    def codec(self) -> Codec:
        """Characters, or GPT-2's tokens."""
        if self.corpus.codec is None:
            raise RungError(f"{self.config.data} holds GPT-2's tokens without its tokenizer.json: it cannot be read")
        return self.corpus.codec

    def tokens(self, split: Split) -> Tokens:
        """The token ids of a split."""
        return Tokens([self.corpus.splits[split]])

    def weights(self, split: Split) -> NDArray[np.bool_] | None:
        """Where only answers are learnt: which characters those are. Evaluation counts all of them."""
        return self.corpus.answers(split) if self.config.loss_on == "answer" else None

    def evaluation_weights(self, split: Split) -> NDArray[np.bool_] | None:
        """Which characters belong to an answer, of validation text; the loss of all of them is reported, too."""
        stream = self.corpus.stream
        has_answers = stream is not None and stream.prompt is not None
        return self.corpus.answers(split) if has_answers and split == "validation" else None

    def starts(self, split: Split) -> NDArray[np.int64] | None:
        """The beginnings of lines, if windows begin there."""
        if self.config.windows == "random":
            return None
        begins = self.corpus.line_starts(split)
        if not len(begins):
            raise RungError("windows: lines needs a text with line ends, and this one has none")
        return begins

    def model(self, generator: torch.Generator) -> nn.Module:
        """A `Decoder`, with the weights to begin with if there are any."""
        made = super().model(generator)
        if self.config.initial_weights is not None:
            from trainables.character_streams.weights import load_weights

            load_weights(made, locate(self.config.initial_weights))
        return made

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses over fixed windows, and the answers to a fixed set of questions."""
        from trainables.language.evaluation import mean_losses, perplexity

        rows, metrics = self.config.evaluation_batch_size, {}
        for split, windows in self.fixed_windows.items():
            metrics[f"{split}/loss"], answer_loss = mean_losses(model, windows, rows)
            if split == "validation" and answer_loss is not None:
                metrics["validation/answer_loss"] = answer_loss
        metrics["validation/perplexity"] = perplexity(metrics["validation/loss"])
        if self.examination is not None:
            metrics.update(
                self._grades(model, self.examination, has_diverged=not math.isfinite(metrics["validation/loss"]))
            )
        return metrics

    def _grades(self, model: nn.Module, examination: Examination, *, has_diverged: bool) -> dict[str, float]:
        grades = {"validation/accuracy": accuracy}
        if examination.has_gold:
            grades["validation/character_accuracy"] = character_accuracy
            grades["validation/length_accuracy"] = length_accuracy
        if has_diverged:
            return dict.fromkeys(grades, math.nan)  # such a model writes nothing
        answers = examination.answers(partial(self._written, model))
        return {name: grade(answers) for name, grade in grades.items()}

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """Some of the answers; of a text, some text."""
        from trainables.language.remembered import is_finite

        if not is_finite(model):
            return ()
        if self.examination is not None:
            return shown(self.examination.answers(partial(self._written, model)), self.config.shown)
        if self.corpus.line_end is None:
            return ()
        prompts = ["\n"] * min(self.config.shown, SHOWN_TEXTS)
        texts = self.complete(model, prompts, Sampling(tokens=SHOWN_TOKENS))
        return [Generation("\n", text) for text in texts]

    @cached_property
    def examination(self) -> Examination | None:
        """The questions; None if nothing says what a right answer is, or there are no lines."""
        stream = self.corpus.stream
        if stream is None or (stream.check is None and stream.prompt is None):
            return None
        lines = self.corpus.lines("validation", self.config.answers)
        return Examination(stream, lines, line_end_first=self.config.windows == "random") if lines else None

    def _written(self, model: nn.Module, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the model writes, up to the first line end."""
        encoded = [self.codec.encode(prompt) for prompt in prompts]
        rows = self.continuations(model, encoded, sampling, self.corpus.line_end)
        return [self.codec.decode(row) for row in rows]


def _lines(*pairs: tuple[str, float | None]) -> list[Reference]:
    return [Reference(label, value) for label, value in pairs if value is not None]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    names = [*BINS.values(), META, PICKLED_META, "config.json", "model.safetensors"]
    return [path / name for name in names if (path / name).is_file()]
