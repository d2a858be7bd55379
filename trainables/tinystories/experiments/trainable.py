"""The trainable of a single experiment: the decoder of `tinystories` on token files named by path.

A path is a `.npy` or `.bin` file of unsigned 16-bit token ids, which is memory-mapped, or a folder made by
`python -m trainables.tinystories.prepare`, which also brings the tokenizer. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.trainable import Loss
from trainables.language.codec import Codec
from trainables.language.tokens import TOKEN_TYPE, Split, TokenFolder, Tokens, data_root
from trainables.language.trainable import LanguageTrainable
from trainables.tinystories.config import TinyStoriesConfig
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.settings import to_trainable

if TYPE_CHECKING:
    from torch import nn

    from trainables.language.batches import Windows

_CHUNK = 1 << 24


class ExperimentTrainable(LanguageTrainable[TinyStoriesConfig]):
    """One experiment's run: what `TinyStories` is, on data that lies anywhere.

    Args:
        config: the configuration.
        seed: of the run.
        device: a torch device name.
        tokens: of both splits.
        folder: the prepared folder of the training tokens, if they lie in one.
    """

    Config: ClassVar[type[TrainableConfig]] = TinyStoriesConfig

    def __init__(
        self,
        config: TinyStoriesConfig,
        seed: int,
        device: str = "cpu",
        *,
        tokens: Mapping[Split, Tokens],
        folder: TokenFolder | None = None,
    ) -> None:
        super().__init__(config, seed, device)
        self._tokens = tokens
        self._folder = folder

    @classmethod
    def vocabulary(cls, config: TinyStoriesConfig) -> int:
        """As configured."""
        return config.vocabulary

    def tokens(self, split: Split) -> Tokens:
        """The tokens of a split."""
        return self._tokens[split]

    @cached_property
    def codec(self) -> Codec:
        """The tokenizer of the prepared folder. Raises RungError for token files, which have none."""
        if self._folder is None or self._folder.tokenizer is None:
            raise RungError(
                "this experiment was trained on token files without a tokenizer: name a folder made by "
                "`python -m trainables.tinystories.prepare` in train_data_path"
            )
        from trainables.language.bpe import BytePairCodec

        return BytePairCodec.of(self._folder)

    def loss(self, model: nn.Module, batch: Windows) -> Loss:
        """The loss, also as a metric, so that evaluations report the loss of the last batch as well."""
        loss = super().loss(model, batch)
        return replace(loss, metrics={**loss.metrics, "loss": loss.value})


def build_trainable(experiment: ExperimentConfig, device: str) -> ExperimentTrainable:
    """The trainable of an experiment, with its data opened and looked through.

    Raises:
        RungError: settings that cannot be trained, or data that is not there or does not fit; it names all problems.
    """
    config = to_trainable(experiment)
    train, validation = experiment.train_data_path, experiment.val_data_path
    if not train:
        raise RungError(
            "train_data_path is empty: name a file of token ids (.npy, .bin), or a folder made by "
            "`python -m trainables.tinystories.prepare`"
        )
    if not validation and locate(train).is_file():
        raise RungError(f"val_data_path is empty, and train_data_path ({train}) is no folder that holds both splits")
    tokens: dict[Split, Tokens] = {}
    wrong = []
    named: tuple[tuple[Split, str, str], ...] = (
        ("train", "train_data_path", train),
        ("validation", "val_data_path", validation or train),
    )
    for split, key, path in named:
        try:
            tokens[split] = _open(locate(path), split, experiment)
        except RungError as error:
            if str(error) not in "".join(wrong):  # one folder for both
                wrong.append(f"{key}: {error}")
    if wrong:
        raise RungError("\n".join(wrong))
    folder = TokenFolder.open(locate(train)) if locate(train).is_dir() else None
    return ExperimentTrainable(config, experiment.seed, device, tokens=tokens, folder=folder)


def locate(path: str) -> Path:
    """Where the data of a path lies: there, or below the data folder (RUNG_DATA, or `data`)."""
    return Path(path) if Path(path).exists() or not (data_root() / path).exists() else data_root() / path


def data_files(experiment: ExperimentConfig) -> list[Path]:
    """The files that an experiment reads."""
    paths = [locate(path) for path in (experiment.train_data_path, experiment.val_data_path) if path]
    return [file for path in paths for file in (TokenFolder.open(path).files if path.is_dir() else [path])]


def _open(path: Path, split: Split, experiment: ExperimentConfig) -> Tokens:
    if path.is_dir():
        folder = TokenFolder.open(path)
        if folder.manifest.vocabulary != experiment.vocab_size:
            raise RungError(
                f"{path} has a vocabulary of {folder.manifest.vocabulary:,}, and vocab_size is "
                f"{experiment.vocab_size:,}: set it to the former, or prepare other data"
            )
        return folder.tokens(split)
    array = _file(path)
    _check(array, path, experiment)
    return Tokens([array])


def _file(path: Path) -> NDArray[np.uint16]:
    """The token ids of a file, memory-mapped."""
    if not path.is_file():
        raise RungError(
            f"{path} does not exist: name a file of token ids (.npy, .bin), or make a folder of them with "
            "`python -m trainables.tinystories.prepare`"
        )
    try:
        if path.suffix == ".npy":
            array: NDArray[np.uint16] = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".bin":
            array = np.memmap(path, dtype=TOKEN_TYPE, mode="r")
        else:
            raise RungError(f"{path} must end in .npy or .bin, or be a folder")
    except (OSError, ValueError) as error:
        raise RungError(f"{path} cannot be read as token ids: {error}") from error
    if array.ndim != 1 or array.dtype.kind != "u" or array.dtype.itemsize > TOKEN_TYPE.itemsize:
        raise RungError(f"{path} holds {array.dtype} of shape {array.shape}: token ids are one row of uint16")
    return array


def _check(array: NDArray[np.uint16], path: Path, experiment: ExperimentConfig) -> None:
    """Raises RungError for tokens outside the vocabulary, or too few of them. A gigabyte takes half a second."""
    needed = experiment.context_length + 1
    if len(array) < needed:
        raise RungError(f"{path} holds {len(array):,} tokens, fewer than one window of {needed:,}")
    highest = max(int(array[start : start + _CHUNK].max()) for start in range(0, len(array), _CHUNK))
    if highest >= experiment.vocab_size:
        raise RungError(
            f"{path} holds the token {highest:,}, and vocab_size is {experiment.vocab_size:,}: it must be larger, or "
            "the file was made with another tokenizer"
        )
