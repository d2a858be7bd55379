"""From text to a folder of tokens: learns a vocabulary from the training text, encodes both splits, says what came out.

`prepare` is what a family's own command calls. Memory: a few chunks of text for each process, and every different word
of the training text once. Imports no torch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import RungError
from trainables.language.bpe import END_OF_TEXT, BytePairCodec, train_tokenizer
from trainables.language.documents import Chunk
from trainables.language.encoding import EncodedChunk, Workers
from trainables.language.processes import processors
from trainables.language.token_writer import SHARD_TOKENS, FolderWriter
from trainables.language.tokens import TOKENIZER, Split, TokenFolder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST = 5
"""How many of the longest tokens are shown."""

REPORT_SECONDS = 10.0
"""Seconds between two lines about how far it has come."""


@dataclass(frozen=True)
class Text:
    """What is prepared."""

    chunks: Mapping[Split, Sequence[Chunk]]
    """Pieces of each split, in order."""
    source: Mapping[str, str | int | float]
    """What they are, for the manifest."""


def prepare(
    path: Path,
    text: Text,
    *,
    vocabulary: int,
    tokenizer: Path | None = None,
    processes: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    say: Callable[[str], None] = print,
) -> TokenFolder:
    """Writes the folder of tokens at `path`.

    The same text and vocabulary give the same bytes, whatever the number of processes.

    Args:
        path: a folder that does not exist.
        text: both splits.
        vocabulary: tokens to learn, `<|endoftext|>` and the 256 bytes included.
        tokenizer: one that was learnt before, instead of learning one.
        processes: that encode; None: as many as there are processors.
        shard_tokens: most tokens in a file.
        say: takes lines about how it goes.

    Raises:
        RungError: the folder exists, the text cannot be read or is empty, or the vocabulary cannot be learnt from it.
        StorageError: the folder cannot be written.
    """
    workers = min(processes or processors(), len(text.chunks["train"]))
    with FolderWriter(path, shard_tokens=shard_tokens) as writer, Workers(workers) as pool:
        start = time.perf_counter()
        learnt = _learnt(text, vocabulary, pool, say) if tokenizer is None else _loaded(tokenizer)
        codec = BytePairCodec(learnt)
        file = writer.add_tokenizer(learnt.to_str(pretty=True).encode())
        for split, chunks in text.chunks.items():
            _add(writer, split, pool.encode(file, chunks), say)
        size = learnt.get_vocab_size()
        folder = writer.finish(vocabulary=size, source=text.source, end=codec.end)
        say(f"longest tokens: {', '.join(_longest(codec))}")
        say(f"{path}: a vocabulary of {size:,}, ready after {time.perf_counter() - start:.1f} s")
        return folder


def _learnt(text: Text, vocabulary: int, pool: Workers, say: Callable[[str], None]) -> Tokenizer:
    """A tokenizer learnt from the training text."""
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    for counted in pool.count(text.chunks["train"]):
        counts.update(counted)
    read = sum(len(word.encode()) * times for word, times in counts.items())
    say(f"{len(counts):,} different words among {_megabytes(read, time.perf_counter() - start)}")
    start = time.perf_counter()
    tokenizer = train_tokenizer(counts, vocabulary)
    say(f"learnt {vocabulary:,} tokens in {time.perf_counter() - start:.1f} s")
    return tokenizer


def _loaded(path: Path) -> Tokenizer:
    """The tokenizer of a file, or of a folder of tokens."""
    from tokenizers import Tokenizer

    file = path / TOKENIZER if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more special
        raise RungError(f"{file} cannot be read as a tokenizer: {error}") from error
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise RungError(f"the tokenizer {file} has no {END_OF_TEXT}")
    return tokenizer


def _add(writer: FolderWriter, split: Split, encoded: Iterable[EncodedChunk], say: Callable[[str], None]) -> None:
    """Writes a split as its chunks come."""
    start = told = time.perf_counter()
    done = documents = 0
    for chunk in encoded:
        writer.add(split, chunk.tokens, text_bytes=chunk.text_bytes, documents=chunk.documents)
        done, documents = done + chunk.text_bytes, documents + chunk.documents
        now = time.perf_counter()
        if now - told >= REPORT_SECONDS:
            told = now
            say(f"{split}: {_megabytes(done, now - start)} so far")
    tokens = writer.tokens(split)
    if documents == 0:
        raise RungError(f"the {split} text has no documents, or only empty ones")
    say(
        f"{split}: {documents:,} documents, {tokens:,} tokens, {done / tokens:.2f} bytes a token, "
        f"{_megabytes(done, time.perf_counter() - start)}"
    )


def _megabytes(count: int, seconds: float) -> str:
    return f"{count / 1e6:,.1f} MB in {seconds:.1f} s ({count / 1e6 / seconds:.1f} MB/s)"


def _longest(codec: BytePairCodec) -> list[str]:
    """The longest tokens as text, longest first."""
    vocabulary: dict[str, int] = codec.tokenizer.get_vocab()
    words = sorted((word for word in vocabulary if word != END_OF_TEXT), key=lambda word: (-len(word), word))
    return [repr(codec.decode([vocabulary[word]])) for word in words[:LONGEST]]
