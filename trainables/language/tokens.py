"""Text as token ids on disk, memory-mapped: `train-00000.bin`, ... and a manifest that is written last.

A shard is token ids as little-endian uint16 and nothing else. `manifest.json` says how many there are, of which
vocabulary and made from what; a folder without one is unfinished. `FolderWriter` (`token_writer`) makes such folders.
Imports no torch.

    folder = TokenFolder.open(data_root() / "tinystories")
    folder.tokens("train").windows(np.array([0, 1000]), 257)
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from rung.errors import RungError
from rung.settings import StrictModel
from rung.training.environment import DATA_VARIABLE

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
TOKEN_TYPE = np.dtype("<u2")
MOST_TOKENS = 65_536
"""A vocabulary whose ids fit into 16 bits has no more."""

Split = Literal["train", "validation"]


def data_root() -> Path:
    """Where prepared data lies: the environment variable RUNG_DATA, else `data` in the working directory."""
    return Path(os.environ.get(DATA_VARIABLE) or "data")


class ShardRecord(StrictModel):
    """One file of token ids."""

    file: str
    """Its name."""
    tokens: int = Field(gt=0)
    """Token ids in it."""
    sha256: str
    """Of the file."""


class SplitRecord(StrictModel):
    """One split."""

    tokens: int = Field(ge=0)
    """Token ids, ends of documents included."""
    bytes: int = Field(ge=0)
    """Bytes of the text that they stand for."""
    documents: int = Field(ge=0)
    """Documents."""
    shards: tuple[ShardRecord, ...]
    """Its files, in order."""


class Manifest(StrictModel):
    """What a folder of tokens holds."""

    format: Literal[1] = 1
    """Version of this layout."""
    vocabulary: int = Field(gt=0, le=MOST_TOKENS)
    """Different token ids: 0 ... vocabulary - 1."""
    tokenizer: str | None = None
    """File of the tokenizer in the folder, if it has one."""
    tokenizer_sha256: str | None = None
    """Of that file."""
    end: int | None = None
    """The token that ends a document."""
    source: dict[str, str | int | float]
    """What the tokens were made from."""
    splits: dict[str, SplitRecord]
    """`train` and `validation`."""


class Tokens:
    """The token ids of one split, in the order of its text, over one or several shards.

    Args:
        shards: one-dimensional arrays of token ids, usually memory-mapped.
    """

    def __init__(self, shards: Sequence[NDArray[np.uint16]]) -> None:
        self._shards = list(shards)
        self._ends = list(accumulate(len(shard) for shard in self._shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """(len(starts), length): the `length` tokens from each start on. They may reach over the end of a shard.

        Raises:
            IndexError: one reaches beyond the end of the split.
        """
        if len(starts) and not 0 <= starts.min() <= starts.max() <= len(self) - length:
            raise IndexError(f"windows of {length} from {starts.min()} to {starts.max()} of {len(self)} tokens")
        rows = np.empty((len(starts), length), dtype=np.int64)
        for row, start in zip(rows, starts.tolist(), strict=True):
            self._read(start, row)
        return rows

    def _read(self, start: int, row: NDArray[np.int64]) -> None:
        """Fills `row` with the tokens from `start` on."""
        shard, filled = bisect_right(self._ends, start), 0
        while filled < len(row):
            end = self._ends[shard]
            piece = self._shards[shard][start - end + len(self._shards[shard]) :][: len(row) - filled]
            row[filled : filled + len(piece)] = piece
            start, filled, shard = start + len(piece), filled + len(piece), shard + 1


@dataclass(frozen=True)
class TokenFolder:
    """A finished folder of tokens."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> TokenFolder:
        """The folder at a path.

        Raises:
            RungError: there is none, it is unfinished, or its manifest cannot be read.
        """
        try:
            text = (path / MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            what = f"is unfinished: it has no {MANIFEST}" if path.is_dir() else "does not exist"
            raise RungError(f"the data folder {path} {what}") from error
        except OSError as error:
            raise RungError(f"{path / MANIFEST} cannot be read: {error.strerror}") from error
        try:
            return cls(path, Manifest.model_validate_json(text))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise RungError(f"{path / MANIFEST} is not a manifest of this version of rung: {problems}") from error

    @property
    def tokenizer(self) -> Path | None:
        """The tokenizer's file, if the folder has one."""
        return None if self.manifest.tokenizer is None else self.path / self.manifest.tokenizer

    @property
    def files(self) -> list[Path]:
        """Everything that belongs to the folder, the manifest first."""
        shards = [self.path / shard.file for split in self.manifest.splits.values() for shard in split.shards]
        return [self.path / MANIFEST, *([self.tokenizer] if self.tokenizer else []), *shards]

    def tokens(self, split: Split) -> Tokens:
        """The token ids of a split, memory-mapped.

        Raises:
            RungError: there is no such split, or a shard is missing or not of the size in the manifest.
        """
        record = self.manifest.splits.get(split)
        if record is None:
            raise RungError(f"{self.path} has no split {split!r}: it has {', '.join(self.manifest.splits)}")
        return Tokens([self._shard(shard) for shard in record.shards])

    def _shard(self, shard: ShardRecord) -> NDArray[np.uint16]:
        path = self.path / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.tokens * TOKEN_TYPE.itemsize:
            found = "is missing" if size is None else f"has {size:,} bytes"
            raise RungError(
                f"{path} {found}, and the manifest says {shard.tokens * TOKEN_TYPE.itemsize:,} bytes: "
                "the folder was changed or copied in part; remove it and prepare it again"
            )
        return np.memmap(path, dtype=TOKEN_TYPE, mode="r")


def open_tokens(folder: Path, split: Split) -> Tokens:
    """The token ids of a split of the folder at a path; errors as of `TokenFolder`."""
    return TokenFolder.open(folder).tokens(split)
