"""Writes a folder of tokens: shards as they come, then the manifest, and only then the folder's own name.

    with FolderWriter(data_root() / "letters", shard_tokens=SHARD_TOKENS) as writer:
        writer.add("train", ids, text_bytes=len(text), documents=1)
        writer.finish(vocabulary=27, source={"made_by": "an alphabet"})

Nothing is ever mixed: what is being written lies in `<name>.unfinished`, which a later attempt begins anew, and a
folder that exists is refused. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rung.errors import RungError, StorageError
from rung.locks import FileLock
from trainables.language.tokens import (
    MANIFEST,
    TOKEN_TYPE,
    TOKENIZER,
    Manifest,
    ShardRecord,
    Split,
    SplitRecord,
    TokenFolder,
)

SHARD_TOKENS = 100_000_000
"""Tokens in a shard: files of 200 MB."""

_LOCK = "lock"


class FolderWriter:
    """A folder of tokens in the making; a context manager that removes what is unfinished when something is raised.

    Args:
        path: where the folder is going to be.
        shard_tokens: most tokens in a file.

    Raises:
        RungError: there is something at `path`, or another process is writing it.
        StorageError: files cannot be written.
    """

    def __init__(self, path: Path, *, shard_tokens: int = SHARD_TOKENS) -> None:
        refuse_existing(path)
        self.path = path
        self.unfinished = path.with_name(f"{path.name}.unfinished")
        with _writing(path.parent):
            self.unfinished.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.unfinished / _LOCK, wait=0.5)
        with _writing(self.unfinished):
            for leftover in self.unfinished.iterdir():
                if leftover.name != _LOCK:
                    leftover.unlink()
        self._shard_tokens = shard_tokens
        self._splits: dict[Split, _SplitWriter] = {}
        self._tokenizer: str | None = None

    def add(self, split: Split, tokens: ArrayLike, *, text_bytes: int, documents: int) -> None:
        """Appends token ids to a split, with the bytes of text and the documents that they stand for.

        Raises:
            RungError: one is no integer from 0 to 65,535.
        """
        ids = np.asarray(tokens)
        if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > np.iinfo(TOKEN_TYPE).max):
            raise RungError(f"token ids are integers from 0 to 65535, got {ids.min()} to {ids.max()} ({ids.dtype})")
        if split not in self._splits:
            self._splits[split] = _SplitWriter(self.unfinished, split, self._shard_tokens)
        writer = self._splits[split]
        writer.bytes += text_bytes
        writer.documents += documents
        with _writing(self.unfinished):
            writer.append(ids.astype(TOKEN_TYPE))

    def tokens(self, split: Split) -> int:
        """Tokens added to a split so far."""
        return self._splits[split].tokens if split in self._splits else 0

    def add_tokenizer(self, content: bytes, name: str = TOKENIZER) -> Path:
        """Puts the tokenizer's file into the folder; returns where it is until the folder is finished."""
        self._tokenizer = name
        with _writing(self.unfinished):
            (self.unfinished / name).write_bytes(content)
        return self.unfinished / name

    def finish(
        self, *, vocabulary: int, source: Mapping[str, str | int | float], end: int | None = None
    ) -> TokenFolder:
        """Writes the manifest and gives the folder its name.

        Args:
            vocabulary: how many token ids there are.
            source: what the tokens were made from.
            end: the token that ends a document.
        """
        tokenizer = None if self._tokenizer is None else (self.unfinished / self._tokenizer).read_bytes()
        manifest = Manifest(
            vocabulary=vocabulary,
            tokenizer=self._tokenizer,
            tokenizer_sha256=None if tokenizer is None else hashlib.sha256(tokenizer).hexdigest(),
            end=end,
            source=dict(source),
            splits={split: writer.close() for split, writer in self._splits.items()},
        )
        with _writing(self.unfinished):
            (self.unfinished / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
            (self.unfinished / _LOCK).unlink()
            self.unfinished.rename(self.path)
        return TokenFolder(self.path, manifest)

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._splits.values():
            writer.close()
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self._lock.release()


def refuse_existing(path: Path) -> None:
    """Raises RungError if there is something at the path of a new folder of tokens."""
    if not path.exists():
        return
    what = "is a finished folder of tokens" if (path / MANIFEST).exists() else "exists"
    raise RungError(f"{path} {what}: nothing is ever added to one. Choose another name, or remove it first")


class _SplitWriter:
    """The shards of one split."""

    def __init__(self, folder: Path, split: Split, shard_tokens: int) -> None:
        self.bytes = 0
        self.documents = 0
        self._folder = folder
        self._split = split
        self._shard_tokens = shard_tokens
        self._shards: list[_ShardWriter] = []

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self._shards)

    def append(self, ids: NDArray[np.uint16]) -> None:
        while len(ids):
            room = self._shard_tokens - self._shards[-1].tokens if self._shards else 0
            if room == 0:
                self.close()
                self._shards.append(_ShardWriter(self._folder / f"{self._split}-{len(self._shards):05d}.bin"))
                continue
            self._shards[-1].append(ids[:room])
            ids = ids[room:]

    def close(self) -> SplitRecord:
        for shard in self._shards:
            shard.close()
        return SplitRecord(
            tokens=self.tokens,
            bytes=self.bytes,
            documents=self.documents,
            shards=tuple(ShardRecord(file=s.path.name, tokens=s.tokens, sha256=s.hash) for s in self._shards),
        )


class _ShardWriter:
    """One file of token ids, hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb")

    @property
    def hash(self) -> str:
        return self._digest.hexdigest()

    def append(self, ids: NDArray[np.uint16]) -> None:
        content = ids.tobytes()
        self._file.write(content)
        self._digest.update(content)
        self.tokens += len(ids)

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns an error of the file system into one that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write to {folder}: {reason}. RUNG_DATA says where data lies") from error
