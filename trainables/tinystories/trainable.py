"""TinyStories as a trainable: byte-level BPE tokens of a text whose documents end with `<|endoftext|>`.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.trainable import Generation, Metric, Reference, Sampling
from trainables.language.codec import Codec
from trainables.language.tokens import Split, TokenFolder, Tokens, data_root
from trainables.language.trainable import LanguageTrainable
from trainables.tinystories.config import TinyStoriesConfig
from trainables.tinystories.sources import MADE_UP, SOURCES

if TYPE_CHECKING:
    from torch import nn

BEGINNING = "Once upon a time"
"""The prompt of the stories that are recorded while a model learns."""

STORIES = Sampling(tokens=100, temperature=0.8, top_p=0.95, seed=0)
"""How they are drawn."""

STORY_COUNT = 3


class TinyStories(LanguageTrainable[TinyStoriesConfig]):
    """A decoder that learns to write stories.

    `evaluate` reports what every language model reports, and the validation loss in bits per byte of text.
    """

    Config: ClassVar[type[TrainableConfig]] = TinyStoriesConfig

    def __init__(self, config: TinyStoriesConfig, seed: int, device: str = "cpu") -> None:
        super().__init__(config, seed, device)
        self.folder = TokenFolder.open(_path(config))
        obstacle = _mismatch(config, self.folder)
        if obstacle is not None:
            raise RungError(obstacle)

    @classmethod
    def vocabulary(cls, config: TinyStoriesConfig) -> int:
        """As configured; it is checked against the data."""
        return config.vocabulary

    @classmethod
    def metrics(cls, config: TinyStoriesConfig) -> Mapping[str, Metric]:
        """Those of every language model, and `validation/bits_per_byte`."""
        text = "validation/loss in bits per byte of the text, comparable between tokenizers"
        return {**super().metrics(config), "validation/bits_per_byte": Metric("min", text)}

    @classmethod
    def data_files(cls, config: TinyStoriesConfig) -> Sequence[Path]:
        """The manifest, the tokenizer and the shards."""
        try:
            return TokenFolder.open(_path(config)).files
        except RungError:
            return [_path(config) / "manifest.json"]

    @classmethod
    def missing(cls, config: TinyStoriesConfig) -> str | None:
        """The data, or data of the configured vocabulary."""
        try:
            return _mismatch(config, TokenFolder.open(_path(config)))
        except RungError as error:
            return f"{error}: make it with `{_command(config)}`"

    @classmethod
    def references(cls, config: TinyStoriesConfig) -> Mapping[str, Sequence[Reference]]:
        """Of made-up stories, what there was to choose in them; that is no less than the entropy of whole stories, and
        windows do not show where a story begins."""
        try:
            manifest = TokenFolder.open(_path(config)).manifest
        except RungError:
            return {}
        nats, validation = manifest.source.get("validation_nats"), manifest.splits["validation"]
        if not isinstance(nats, float):
            return {}
        return {"validation/loss": [Reference("choices of the grammar", nats / validation.tokens)]}

    def tokens(self, split: Split) -> Tokens:
        """The tokens of a split of the data."""
        return self.folder.tokens(split)

    @cached_property
    def codec(self) -> Codec:
        """The byte-level BPE of the data."""
        from trainables.language.bpe import BytePairCodec

        return BytePairCodec.of(self.folder)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses over the fixed windows; a story's end counts as a token and as no bytes."""
        from trainables.language.evaluation import bits_per_byte

        metrics = super().evaluate(model)
        tokens = self.fixed_windows["validation"].targets_BS.numel()
        metrics["validation/bits_per_byte"] = bits_per_byte(metrics["validation/loss"], tokens, self._text_bytes)
        return metrics

    @cached_property
    def _text_bytes(self) -> int:
        """Bytes of the text that the fixed validation windows predict."""
        from trainables.language.bpe import token_bytes

        lengths = token_bytes(self.folder)
        return int(lengths[self.fixed_windows["validation"].targets_BS.cpu().numpy()].sum())

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """A few stories that begin alike."""
        stories = self.complete(model, [BEGINNING] * STORY_COUNT, STORIES)
        return [Generation(prompt=BEGINNING, response=story) for story in stories]


def _path(config: TinyStoriesConfig) -> Path:
    return data_root() / config.data


def _mismatch(config: TinyStoriesConfig, folder: TokenFolder) -> str | None:
    found = folder.manifest.vocabulary
    if found == config.vocabulary:
        return None
    return (
        f"the data in {folder.path} has a vocabulary of {found:,}, and the configuration says {config.vocabulary:,}: "
        f"set vocabulary: {found}, or prepare data of the other vocabulary under another name and set data to it"
    )


def _command(config: TinyStoriesConfig) -> str:
    is_made_up = config.data.startswith(MADE_UP)
    if is_made_up or config.data in SOURCES:
        options = "made-up" if is_made_up else config.data
    else:
        options = "text --train FILE"
    options += f" --vocabulary {config.vocabulary}"
    if config.data not in (MADE_UP, *SOURCES):
        options += f" --out {config.data}"
    return f"python -m trainables.tinystories.prepare {options}"
