"""Counts words and encodes text in several processes; what comes out does not depend on how many.

Most words of a text have been met before. So a word is looked up, and `tokenizers` is asked once for each new one:
several times as fast as encoding whole documents (docs/tinystories.md). Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.language.bpe import END_OF_TEXT, BytePairCodec
from trainables.language.documents import Chunk, documents_of
from trainables.language.processes import Processes
from trainables.language.tokens import TOKEN_TYPE
from trainables.language.words import count_words, words_of

MOST_WORDS = 500_000
"""Words that a process remembers, about 100 MB, before it begins anew."""


@dataclass(frozen=True)
class EncodedChunk:
    """The token ids of a chunk, ends of documents included, and what they stand for."""

    tokens: NDArray[np.uint16]
    """Ids of all its documents, one after another."""
    text_bytes: int
    """Bytes of UTF-8 of the documents, without separators."""
    documents: int
    """How many; one without an end counts if there is more in it than white space."""


class FastEncoder:
    """Encodes documents just as the tokenizer does, but faster.

    Args:
        codec: a byte-level BPE that `train_tokenizer` made.
    """

    def __init__(self, codec: BytePairCodec) -> None:
        self._codec = codec
        self._words = _Words(codec)

    def encode(self, document: str) -> bytes:
        """The token ids as little-endian uint16."""
        if END_OF_TEXT in document:  # which is one token, whatever its words are
            return _as_bytes(self._codec.encode(document))
        if len(self._words) > MOST_WORDS:
            self._words.clear()
        return b"".join(map(self._words.__getitem__, words_of(document)))

    def encode_chunk(self, chunk: Chunk) -> EncodedChunk:
        """All documents of a chunk, the end token behind each that was ended."""
        documents = documents_of(chunk)
        end = _as_bytes([self._codec.end or 0])
        pieces = [self.encode(text) for text in documents.texts]
        tokens = b"".join(chain.from_iterable((piece, end) for piece in pieces[: documents.ended]))
        tokens += b"".join(pieces[documents.ended :])
        return EncodedChunk(
            tokens=np.frombuffer(tokens, dtype=TOKEN_TYPE),
            text_bytes=sum(len(text.encode()) for text in documents.texts),
            documents=sum(1 for index, text in enumerate(documents.texts) if index < documents.ended or text.strip()),
        )


class Workers(Processes):
    """Processes that count words and encode."""

    def count(self, chunks: Iterable[Chunk]) -> Iterator[Counter[str]]:
        """The words of each chunk, in order; chunks are read by the processes."""
        return self.in_order(_count, chunks)

    def encode(self, tokenizer: Path, chunks: Iterable[Chunk]) -> Iterator[EncodedChunk]:
        """The token ids of each chunk, in order, by the tokenizer of a file that stays as it is."""
        return self.in_order(partial(_encode, tokenizer), chunks)


class _Words(dict[str, bytes]):
    """Words and their token ids; those of a new one are asked of the tokenizer."""

    def __init__(self, codec: BytePairCodec) -> None:
        super().__init__()
        self._codec = codec

    def __missing__(self, word: str) -> bytes:
        self[word] = _as_bytes(self._codec.encode(word))
        return self[word]


def _count(chunk: Chunk) -> Counter[str]:
    return count_words(documents_of(chunk).texts)


def _encode(tokenizer: Path, chunk: Chunk) -> EncodedChunk:
    return _encoder(tokenizer, tokenizer.stat().st_mtime_ns).encode_chunk(chunk)


@lru_cache(maxsize=1)
def _encoder(tokenizer: Path, version: int) -> FastEncoder:
    """This process's encoder, made once for each version of the file."""
    from tokenizers import Tokenizer

    return FastEncoder(BytePairCodec(Tokenizer.from_file(str(tokenizer))))


def _as_bytes(ids: list[int]) -> bytes:
    return np.asarray(ids, dtype=TOKEN_TYPE).tobytes()
