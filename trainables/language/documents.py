"""Text files as pieces that end where documents end, so that several processes can read them and none holds a file.

A document is what stands up to and including a separator, `<|endoftext|>` unless told otherwise; what follows the last
one counts as a document too if there is more in it than white space. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from rung.errors import RungError
from trainables.language.bpe import END_OF_TEXT

CHUNK_BYTES = 4_000_000
"""About how much of a file is read at once."""

_BLOCK_BYTES = 65_536
"""How much is read at once in the search for the end of a document."""


class Chunk(Protocol):
    """Some whole documents; crosses process borders."""

    @property
    def separator(self) -> str:
        """What stands at the end of each document."""
        ...

    def read(self) -> str:
        """Their text.

        Raises:
            RungError: it cannot be read, or is no UTF-8.
        """
        ...


@dataclass(frozen=True)
class FileChunk:
    """The bytes from `begin` to before `end` of a file."""

    path: Path
    """The file."""
    begin: int
    """Position of the first byte."""
    end: int
    """Position behind the last byte."""
    separator: str = END_OF_TEXT
    """What stands at the end of each document."""

    def read(self) -> str:
        """The text, with its line ends as they are."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.begin)
                return file.read(self.end - self.begin).decode("utf-8")
        except OSError as error:
            raise RungError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise RungError(
                f"{self.path} is not UTF-8: byte {self.begin + error.start:,} is 0x{error.object[error.start]:02x}. "
                "Convert it first, for instance with iconv"
            ) from error


@dataclass(frozen=True)
class Documents:
    """The documents of a chunk."""

    texts: list[str]
    """Without their separators."""
    ended: int
    """How many of them had one: all, or all but the last."""


def documents_of(chunk: Chunk) -> Documents:
    """A chunk's documents; the last one is left out if it is empty, as behind a separator at the end of a file."""
    texts = chunk.read().split(chunk.separator)
    ended = len(texts) - 1
    return Documents(texts if texts[-1] else texts[:-1], ended)


def cut(path: Path, separator: str = END_OF_TEXT, chunk_bytes: int = CHUNK_BYTES) -> list[FileChunk]:
    """A file in chunks of about `chunk_bytes`, or of one document where that is longer.

    Raises:
        RungError: the file cannot be read, is empty, or has no separator.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            ends = list(_ends(file, size, separator.encode(), chunk_bytes))
    except OSError as error:
        raise RungError(f"{path} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise RungError(f"{path} is empty")
    chunks = [FileChunk(path, begin, end, separator) for begin, end in zip([0, *ends], ends, strict=False)]
    if len(chunks) == 1 and separator not in chunks[0].read():
        raise RungError(
            f"{path} has no {separator!r}, which ends a document: write it behind every document, or say with "
            r"--separator what stands between them (--separator '\n\n': paragraphs)"
        )
    return chunks


def hold_out(chunks: Sequence[FileChunk], share: float) -> tuple[list[FileChunk], list[FileChunk]]:
    """A file's chunks for training and, from its end, those of about `share` of it for validation.

    Raises:
        RungError: there is but one document.
    """
    path, separator, size = chunks[0].path, chunks[0].separator, chunks[-1].end
    border, wanted = size, math.floor(size * (1 - share))
    with path.open("rb") as file:
        while not _has_text(file, border):
            if wanted == 0:
                raise RungError(f"{path} has but one document, so none can be held out: give a file for validation")
            border = _end_of_document(file, wanted, size, separator.encode())
            wanted //= 2
    train = [FileChunk(path, c.begin, min(c.end, border), separator) for c in chunks if c.begin < border]
    held_out = [FileChunk(path, max(c.begin, border), c.end, separator) for c in chunks if c.end > border]
    return train, held_out


def _has_text(file: IO[bytes], begin: int) -> bool:
    """Whether there is more than white space from `begin` on."""
    file.seek(begin)
    return bool(file.read(_BLOCK_BYTES).strip())


def _ends(file: IO[bytes], size: int, separator: bytes, chunk_bytes: int) -> Iterator[int]:
    end = 0
    while end < size:
        end = _end_of_document(file, min(size, end + chunk_bytes), size, separator)
        yield end


def _end_of_document(file: IO[bytes], begin: int, size: int, separator: bytes) -> int:
    """The first end of a document at or after `begin`: that of the file if there is no other."""
    position, overlap = max(0, begin - len(separator)), b""
    file.seek(position)
    while block := file.read(_BLOCK_BYTES):
        window = overlap + block
        found = window.find(separator)
        if found >= 0:
            return position - len(overlap) + found + len(separator)
        position += len(block)
        overlap = window[-(len(separator) - 1) :] if len(separator) > 1 else b""
    return size
