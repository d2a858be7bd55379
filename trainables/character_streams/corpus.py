"""The text of a run as tokens: made from a stream, read from a text file, or prepared in a folder. Imports no torch.

    Corpus      train, validation     uint16 token ids of the splits
                codec                 text to tokens and back
                validation_lines      what answers are asked of

A stream needs no files: its text is a pure function of configuration and data seed, made in about a second.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from trainables.character_streams.config import CharacterStreamsConfig, StreamConfig
from trainables.character_streams.meta import META, Meta, read_meta
from trainables.character_streams.stream import Stream, taken
from trainables.character_streams.vocabulary import GPT2_PADDED, Characters, Gpt2Tokens
from trainables.language.codec import Codec
from trainables.language.tokens import Split, data_root

UNKNOWN_TEXT = 96
"""Characters that a text is taken to have while it is not there: printable ASCII and the line end. For plans only."""

CHECKED_TOKENS = 2**24
"""Tokens of a split without characters that are compared with the vocabulary: its first ones."""

BINS: dict[Split, str] = {"train": "train.bin", "validation": "val.bin"}


@dataclass(frozen=True)
class Corpus:
    """The two splits of a text, and what its lines are."""

    splits: dict[Split, NDArray[np.uint16]]
    """Token ids."""
    codec: Codec | None
    """Text to tokens and back; None: the tokens are GPT-2's and its tokenizer is not there."""
    stream: Stream | None
    """What the lines were drawn from; None: a text, or a folder that does not say."""

    @property
    def line_end(self) -> int | None:
        """The token that ends a line, if the tokens are characters."""
        return (
            self.codec.encode("\n")[0] if isinstance(self.codec, Characters) and "\n" in self.codec.characters else None
        )

    def lines(self, split: Split, count: int) -> list[str]:
        """At most `count` whole lines of a split, evenly spaced over it."""
        begins = self.line_starts(split)
        if len(begins) < 2:
            return []
        whole = len(begins) - 1  # the last may have no end
        chosen = np.unique(np.linspace(0, whole - 1, min(count, whole)).astype(np.int64))
        tokens = self.splits[split]
        assert self.codec is not None
        return [self.codec.decode(tokens[begins[at] : begins[at + 1] - 1].tolist()) for at in chosen]

    def line_starts(self, split: Split) -> NDArray[np.int64]:
        """Where lines begin, and where one would begin after the last line end."""
        if self.line_end is None:
            return np.zeros(0, dtype=np.int64)
        ends = np.flatnonzero(self.splits[split] == self.line_end)
        return np.concatenate([np.zeros(1, dtype=np.int64), ends + 1])

    def answers(self, split: Split) -> NDArray[np.bool_]:
        """Which tokens belong to an answer: what follows the prompt of its line, line end included, (tokens,).

        Raises:
            RungError: the text has no prompt rule.
        """
        if self.stream is None or self.stream.prompt is None or self.codec is None:
            raise RungError("loss_on: answer needs a stream with a prompt rule; this text has none")
        tokens, begins = self.splits[split], self.line_starts(split).tolist()
        text = self.codec.decode(tokens.tolist())
        wanted = np.ones(len(tokens), dtype=np.bool_)
        lengths: dict[str, int] = {}
        if begins[-1] == len(text):
            begins.pop()  # nothing follows the last line end
        for begin, end in zip(begins, [*begins[1:], len(text) + 1], strict=True):
            line = text[begin : end - 1]
            if line not in lengths:
                lengths[line] = len(self.stream.prompt(line))
            wanted[begin : begin + lengths[line]] = False
        return wanted


def corpus(config: CharacterStreamsConfig, data_seed: int) -> Corpus:
    """The text of a configuration; kept in memory, because the runs of a study share it.

    Raises:
        RungError: there is no such text, or it does not fit the configuration.
    """
    if config.data is not None:
        return _read(locate(config.data), config)
    parts = config.model_dump_json(include={"stream", "characters", "validation_fraction", "held_out"})
    return _made(parts, data_seed)


def locate(path: str) -> Path:
    """Where data of that name is: as it stands if absolute, else below the data root."""
    return data_root() / Path(path).expanduser()


def vocabulary_size(config: CharacterStreamsConfig) -> int:
    """Different tokens. A guess (`UNKNOWN_TEXT`) while a text is not there."""
    if config.data is None:
        return len(_characters_of(config.stream.model_dump_json(), config.characters))
    path = locate(config.data)
    if path.is_dir():
        meta = read_meta(path)
        return _gpt2_vocabulary(config) if meta is None else len(meta.characters)
    return len(_characters_in(path, path.stat().st_mtime_ns)) if path.is_file() else UNKNOWN_TEXT


def _gpt2_vocabulary(config: CharacterStreamsConfig) -> int:
    """That of the weights to begin with, if those are transformers', else what nanoGPT takes."""
    described = locate(config.initial_weights) / "config.json" if config.initial_weights else None
    if described is None or not described.is_file():
        return GPT2_PADDED
    return int(json.loads(described.read_text(encoding="utf-8")).get("vocab_size", GPT2_PADDED))


def stream_of(config: CharacterStreamsConfig) -> Stream | None:
    """What the lines of a configuration are drawn from; None: a text, or a folder that does not say or is not there."""
    if config.data is None:
        return config.stream.stream()
    path = locate(config.data)
    meta = read_meta(path) if path.is_dir() else None
    return None if meta is None else _stream_of(meta, path)


@lru_cache(maxsize=64)
def _characters_of(stream_json: str, length: int) -> str:
    """The characters of a stream: as it declares them, or those of the text of seed 0."""
    stream = StreamConfig.model_validate_json(stream_json).stream()
    if stream.characters is not None:
        return stream.characters
    return "".join(sorted({"\n"}.union(*map(set, taken(lambda: stream.lines(0), length, stream.name)))))


@lru_cache(maxsize=8)
def _characters_in(path: Path, changed: int) -> str:
    return "".join(sorted(set(_text(path))))


@lru_cache(maxsize=8)
def _made(parts: str, data_seed: int) -> Corpus:
    values: dict[str, Any] = json.loads(parts)
    config = CharacterStreamsConfig.model_validate(values)
    stream = config.stream.stream()
    lines = taken(lambda: stream.lines(data_seed), config.characters, stream.name)
    codec = Characters(_characters_of(config.stream.model_dump_json(), config.characters))
    split = _split_lines(lines, config, data_seed)
    splits = {name: _encoded(codec, "".join(f"{line}\n" for line in part), stream) for name, part in split.items()}
    return Corpus(splits, codec, stream)


def _split_lines(lines: list[str], config: CharacterStreamsConfig, data_seed: int) -> dict[Split, list[str]]:
    """Train and validation lines, in their order."""
    if config.held_out == "none":
        cut = min(max(1, int(len(lines) * (1 - config.validation_fraction))), len(lines) - 1)
        return {"train": lines[:cut], "validation": lines[cut:]}
    different = sorted(set(lines))
    if len(different) < 2:
        raise RungError(f"held_out: lines needs two different lines, and stream {config.stream.name} has one")
    draw = random.Random(f"held out {data_seed}")  # not the numbers that the lines themselves were drawn from
    different.sort(key=lambda line: draw.random())
    count = min(max(1, round(len(different) * config.validation_fraction)), len(different) - 1)
    held = set(different[:count])
    return {
        "train": [line for line in lines if line not in held],
        "validation": [line for line in lines if line in held],
    }


def _encoded(codec: Characters, text: str, stream: Stream) -> NDArray[np.uint16]:
    """Token ids of a text, by a table from code points."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    known = np.array([ord(character) for character in codec.characters], dtype=np.uint32)  # ascending
    tokens = np.searchsorted(known, points)
    strange = known[np.minimum(tokens, len(known) - 1)] != points
    if strange.any():
        raise RungError(
            f"stream {stream.name} yields {chr(points[strange][0])!r} with this seed and not with seed 0, from which "
            "the vocabulary is taken: make more characters, or fewer rare ones"
        )
    return tokens.astype(np.uint16)


def _read(path: Path, config: CharacterStreamsConfig) -> Corpus:
    if path.is_dir():
        return _read_folder(path, config)
    text = _text(path)
    characters = "".join(sorted(set(text)))
    codec = Characters(characters)
    cut = int(len(text) * (1 - config.validation_fraction))
    everything = _encoded(codec, text, Stream(str(path), lambda seed: iter(())))
    return Corpus({"train": everything[:cut], "validation": everything[cut:]}, codec, None)


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RungError(f"the text {path} cannot be read: {error}") from error
    if len(text) < 100:
        raise RungError(f"the text {path} has {len(text)} characters: too few to learn from")
    return text


def _read_folder(path: Path, config: CharacterStreamsConfig) -> Corpus:
    meta = read_meta(path)
    splits = {split: _bin(path / name) for split, name in BINS.items()}
    if meta is None:
        _check_gpt2_tokens(path, splits, _gpt2_vocabulary(config))
        try:
            codec: Codec | None = Gpt2Tokens(path)
        except RungError:
            codec = None  # losses need no text
        return Corpus(splits, codec, None)
    highest = max(int(tokens.max()) for tokens in splits.values())
    if highest >= len(meta.characters):
        raise RungError(f"{path} has token {highest}, and its {META} knows {len(meta.characters)} characters")
    return Corpus(splits, Characters(meta.characters), _stream_of(meta, path))


def _check_gpt2_tokens(path: Path, splits: Mapping[Split, NDArray[np.uint16]], vocabulary: int) -> None:
    """Refuses tokens that the model does not have. A text of gigabytes is not read to its end for that."""
    for split, tokens in splits.items():
        highest = int(tokens[:CHECKED_TOKENS].max())
        if highest >= vocabulary:
            raise RungError(
                f"{path / BINS[split]} has token {highest:,}, and the model has {vocabulary:,} tokens (0 to "
                f"{vocabulary - 1:,}): they were made with another tokenizer than GPT-2's or the initial weights', or "
                f"the folder lacks its {META}"
            )


def _stream_of(meta: Meta, folder: Path) -> Stream | None:
    """The stream that a folder was made from; a function's file is named relative to the folder."""
    if meta.stream is None:
        return None
    config = StreamConfig.model_validate(meta.stream)
    place, colon, function = config.name.rpartition(":")
    if place.endswith(".py"):
        config = config.model_copy(update={"name": f"{folder / place}{colon}{function}"})
    return config.stream()


def _bin(path: Path) -> NDArray[np.uint16]:
    if not path.is_file() or path.stat().st_size < 4 or path.stat().st_size % 2:
        state = f"has {path.stat().st_size:,} bytes" if path.is_file() else "is missing"
        raise RungError(f"{path} {state}: it should hold token ids as uint16, as `prepare` writes them")
    return np.memmap(path, dtype="<u2", mode="r")
