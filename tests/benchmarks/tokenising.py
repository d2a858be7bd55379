"""Byte-level BPE: learning a vocabulary and encoding a text, here and with `tokenizers` used plainly, in MB/s.

    python -m tests.benchmarks.tokenising [FILE ...] [--megabytes 8] [--processes 1 2] [--vocabulary 1000]

The text is made-up stories, or the files given (a separator is not needed: paragraphs are documents). Against
`trainables.language`, with one process and with several, stand `tokenizers` as its own documentation uses it (one
process, a document at a time, its trainer fed document by document) and, on a hundredth of the text, byte-pair encoding
written out in Python as a course asks for it: all pairs counted anew for each merge, merges applied to each word one by
one. Each is timed in turn, three times; the table has the medians, by the clock and, for what happens in one process,
by the processor's time, which other work on the machine does not change. All must agree: on the vocabulary and the
number of tokens of the whole text, and on every token of the hundredth; plain Python, which learns from that alone,
with `tokenizers` when it does so, too. Two minutes on two busy cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from trainables.language.bpe import END_OF_TEXT, train_tokenizer
from trainables.language.documents import FileChunk, cut, documents_of
from trainables.language.encoding import Workers
from trainables.language.words import words_of
from trainables.tinystories.stories import story

ROUNDS = 3
CHUNK_BYTES = 1_000_000


@dataclass
class Text:
    """What is tokenised."""

    chunks: list[FileChunk]
    documents: list[str]
    megabytes: float

    @classmethod
    def of(cls, path: Path) -> Text:
        chunks = cut(path, chunk_bytes=CHUNK_BYTES)
        documents = [text for chunk in chunks for text in documents_of(chunk).texts]
        return cls(chunks, documents, path.stat().st_size / 1e6)


class Ours:
    """`trainables.language` with some processes."""

    def __init__(self, text: Text, pool: Workers, file: Path) -> None:
        self.text, self.pool, self.file = text, pool, file

    def learn(self, size: int) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for counted in self.pool.count(self.text.chunks):
            counts.update(counted)
        tokenizer = train_tokenizer(counts, size)
        self.file.write_text(tokenizer.to_str())
        return tokenizer.get_vocab()

    def encode(self) -> int:
        return sum(len(chunk.tokens) for chunk in self.pool.encode(self.file, self.text.chunks)) - self._ends()

    def tokens(self, text: Text) -> list[int]:
        found = [token for chunk in self.pool.encode(self.file, text.chunks) for token in chunk.tokens.tolist()]
        return [token for token in found if token]  # 0 ends a document

    def _ends(self) -> int:
        return sum(documents_of(chunk).ended for chunk in self.text.chunks)


class Theirs:
    """`tokenizers`, a document at a time."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.tokenizer = Tokenizer(models.BPE())

    def learn(self, size: int) -> dict[str, int]:
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        )
        self.tokenizer.train_from_iterator(iter(self.text.documents), trainer)
        return self.tokenizer.get_vocab()

    def encode(self) -> int:
        return sum(len(self.tokenizer.encode(document).ids) for document in self.text.documents)

    def tokens(self, text: Text) -> list[int]:
        return [token for document in text.documents for token in self.tokenizer.encode(document).ids]


class Plain:
    """Byte-pair encoding written out in Python."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.merges: list[tuple[bytes, bytes]] = []
        self.ids: dict[bytes, int] = {}
        self.encoded: list[int] = []

    def learn(self, size: int) -> int:
        counts = Counter(word for document in self.text.documents for word in words_of(document))
        words = {tuple(bytes([byte]) for byte in word.encode()): times for word, times in counts.items()}
        self.merges, self.ids = [], _bytes_in_order()
        while len(self.ids) < size:
            pairs: Counter[tuple[bytes, bytes]] = Counter()
            for word, times in words.items():
                for pair in pairwise(word):
                    pairs[pair] += times
            if not pairs:
                break
            best = max(pairs, key=lambda pair: (pairs[pair], -self.ids[pair[0]], -self.ids[pair[1]]))
            self.merges.append(best)
            self.ids.setdefault(best[0] + best[1], len(self.ids))
            words = {_merge(word, best): times for word, times in words.items()}
        return len(self.ids)

    def encode(self) -> int:
        self.encoded = []
        for document in self.text.documents:
            for word in words_of(document):
                pieces = tuple(bytes([byte]) for byte in word.encode())
                for merge in self.merges:
                    pieces = _merge(pieces, merge)
                self.encoded += [self.ids[piece] for piece in pieces]
        return len(self.encoded)


def _bytes_in_order() -> dict[bytes, int]:
    """Ids of the end of a document and of the single bytes, in the order of the characters that `tokenizers` writes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    order = [*printable, *(byte for byte in range(256) if byte not in printable)]
    return {END_OF_TEXT.encode(): 0, **{bytes([byte]): index for index, byte in enumerate(order, start=1)}}


def _merge(word: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    merged, place = [], 0
    while place < len(word):
        if word[place : place + 2] == pair:
            merged.append(pair[0] + pair[1])
            place += 2
        else:
            merged.append(word[place])
            place += 1
    return tuple(merged)


def main() -> None:
    """Prints one table for each text."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [_made_up(folder / "stories.txt", options.megabytes)] if not options.files else []
        paths += [_with_ends(path, folder / path.name) for path in options.files]
        for path in paths:
            _table(path, folder, options.vocabulary, options.processes)


def _table(path: Path, folder: Path, size: int, processes: Sequence[int]) -> None:
    text = Text.of(path)
    part = path.with_suffix(".part")
    beginning = text.chunks[0].read().encode()[: max(1, int(text.megabytes * 1e4))]
    part.write_text(beginning.decode(errors="ignore") + END_OF_TEXT, encoding="utf-8")
    small = Text.of(part)
    pools = {count: Workers(count) for count in processes}
    ours = {count: Ours(text, pool, folder / f"{count}.json") for count, pool in pools.items()}
    theirs, plain = Theirs(text), Plain(small)
    for each in ours.values():
        each.learn(300)  # starts the processes
    times: dict[str, list[list[float]]] = {}
    results = []
    for _ in range(ROUNDS):
        results = [
            _time(times, f"here, {count} process{'es' if count > 1 else ''}", each, text.megabytes, size)
            for count, each in ours.items()
        ]
        results.append(_time(times, "tokenizers", theirs, text.megabytes, size))
        _time(times, "plain Python, 1/100 of the text", plain, small.megabytes, size)
    assert all(result == results[0] for result in results), "they disagree"
    assert all(each.tokens(small) == theirs.tokens(small) for each in ours.values()), "they encode differently"
    _check_plain(plain, size)
    for pool in pools.values():
        pool.__exit__()
    print(f"\n{path.name}: {text.megabytes:.1f} MB, {len(text.documents):,} documents, {size:,} tokens\n")
    print(
        "| | learning, MB/s | encoding, MB/s | learning, MB per CPU s | encoding, MB per CPU s |\n|---|---|---|---|---|"
    )
    for name, rounds in times.items():
        medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
        shown = medians if "processes" not in name else medians[:2]  # those of other processes are not known here
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in shown)} |{' - | - |' * (len(shown) == 2)}")


def _check_plain(plain: Plain, size: int) -> None:
    """Whether plain Python gives the tokens of `tokenizers` where both learn from the same part."""
    reference = Theirs(plain.text)
    assert len(reference.learn(size)) == len(plain.ids), "plain Python learns another vocabulary"
    assert reference.tokens(plain.text) == plain.encoded, "plain Python encodes differently"


def _time(
    times: dict[str, list[list[float]]], name: str, competitor: Ours | Theirs | Plain, megabytes: float, size: int
) -> tuple[object, object]:
    """Appends the speeds of learning and encoding, by the clock and by the processor; returns what came out."""
    learnt, *learning = _timed(lambda: competitor.learn(size))
    encoded, *encoding = _timed(competitor.encode)
    seconds = [seconds for pair in zip(learning, encoding, strict=True) for seconds in pair]
    times.setdefault(name, []).append([megabytes / each for each in seconds])
    return learnt, encoded


def _timed(function: Callable[[], object]) -> tuple[object, float, float]:
    start, cpu_start = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - start, time.process_time() - cpu_start


def _made_up(path: Path, megabytes: float) -> Path:
    with path.open("w", encoding="utf-8") as file:
        index = 0
        while file.tell() < megabytes * 1e6:
            file.write(f"{story(0, index).text}\n{END_OF_TEXT}\n")
            index += 1
    return path


def _with_ends(source: Path, path: Path) -> Path:
    """A copy with `<|endoftext|>` between paragraphs."""
    path.write_text(source.read_text(encoding="utf-8").replace("\n\n", END_OF_TEXT), encoding="utf-8")
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--megabytes", type=float, default=8.0, help="of made-up stories")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vocabulary", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
