"""Byte-level BPE: exact round trips, the tokenizer's own ids at several times its speed, the same from any number of
processes."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from rung.errors import RungError
from tests.stories import few_stories
from trainables.language.bpe import END_OF_TEXT, BytePairCodec, token_bytes, train_tokenizer
from trainables.language.documents import FileChunk, cut, documents_of, hold_out
from trainables.language.encoding import FastEncoder, Workers
from trainables.language.preparation import Text, prepare
from trainables.language.tokens import TOKEN_TYPE, TokenFolder
from trainables.language.words import KNOWN, count_words, words_of
from trainables.tinystories.stories import story

STORIES = [
    "Lily's cat said, \"I'll go!\" They'd gone  away.\n\nThe end. 42 times, it's 3.5.",
    "Tom wouldn't play.\r\n\tTabs, and café – naïve “quotes”… 日本語 🙂 ½ ²",
    "   spaces   at both ends   ",
]


@pytest.fixture(scope="module")
def codec() -> BytePairCodec:
    return BytePairCodec(train_tokenizer(count_words(STORIES * 3), 320))


def fast(codec: BytePairCodec, text: str) -> list[int]:
    ids: list[int] = np.frombuffer(FastEncoder(codec).encode(text), dtype=TOKEN_TYPE).tolist()
    return ids


@settings(max_examples=80, deadline=None)
@given(text=st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("abt's  \n\tLl9'é½–\x1c\xa0"))))
def test_every_text_comes_back_and_both_encoders_agree(text: str, codec: BytePairCodec) -> None:
    ids = codec.encode(text)
    assert codec.decode(ids).encode() == text.encode()
    assert fast(codec, text) == ids


def test_words_are_cut_as_the_tokenizer_cuts_them(codec: BytePairCodec) -> None:
    """Every character of which the fast encoder thinks that it knows it, between letters, digits, signs and blanks."""
    around = [("a", "b"), ("1", "2"), (",", ","), (" ", " "), ("", ""), ("\n", "a"), ("x ", "1"), ("'", "s")]
    for character in KNOWN:
        text = "|".join(f"{before}{character}{after}" for before, after in around)
        assert fast(codec, text) == codec.encode(text), hex(ord(character))


def test_the_end_of_text_is_one_token_and_other_special_words_are_text(codec: BytePairCodec) -> None:
    assert codec.encode(f"a{END_OF_TEXT}b") == [*codec.encode("a"), codec.end, *codec.encode("b")]
    assert fast(codec, f"a{END_OF_TEXT}b") == codec.encode(f"a{END_OF_TEXT}b")
    assert codec.end == 0
    assert len(codec.encode("<|pad|>")) > 1


@pytest.mark.parametrize(("count", "size"), [(3, 330), (400, 1200)])
def test_the_vocabulary_is_that_which_tokenizers_learns(count: int, size: int) -> None:
    texts = STORIES + [story(0, index).text for index in range(count)] + ["aaaaaaa aaaa aaaaa aaa", "ababab bababa"]
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(texts, trainer)
    assert theirs.get_vocab_size() == size
    assert train_tokenizer(count_words(texts), size).get_vocab() == theirs.get_vocab()
    assert train_tokenizer(count_words(reversed(texts)), size).get_vocab() == theirs.get_vocab()


def test_merges_are_those_of_the_most_frequent_pairs() -> None:
    counts = count_words(["low low low low low lower lower newest newest newest widest widest"])
    merged = sorted(train_tokenizer(counts, 257 + 3).get_vocab().items(), key=lambda item: item[1])[257:]
    # l o: 7, then lo w: 7, then blank low: 6 (a blank is written as Ġ).
    assert [token for token, _ in merged] == ["lo", "low", "Ġlow"]


@given(text=st.text())
@settings(max_examples=80, deadline=None)
def test_words_make_the_text(text: str) -> None:
    assert "".join(words_of(text)) == text


@pytest.mark.parametrize("vocabulary", [10, 256, 65_536, 100_000])
def test_impossible_vocabularies_are_refused(vocabulary: int) -> None:
    with pytest.raises(RungError, match=r"at least 257, and token ids are stored in 16 bits, so at most 65,535"):
        train_tokenizer(count_words(STORIES), vocabulary)


def test_a_vocabulary_that_the_text_cannot_give_is_refused() -> None:
    with pytest.raises(RungError, match=r"gives no more than 259 tokens.*at most 259"):
        train_tokenizer(count_words(["ab ab"]), 1000)


def test_bytes_of_tokens_add_up(tmp_path: Path) -> None:
    folder = few_stories(tmp_path)
    codec, lengths = BytePairCodec.of(folder), token_bytes(folder)
    ids = folder.tokens("validation").windows(np.array([0]), len(folder.tokens("validation")))[0]
    assert lengths[ids].sum() == folder.manifest.splits["validation"].bytes
    text = codec.decode(ids)
    assert len(text.replace(END_OF_TEXT, "").encode()) == folder.manifest.splits["validation"].bytes


def text_file(path: Path, count: int = 40, end: str = "\n") -> Path:
    stories = itertools.islice(itertools.cycle(STORIES), count)
    path.write_bytes("".join(f"{story}{number}{END_OF_TEXT}\n" for number, story in enumerate(stories)).encode())
    return path


@pytest.mark.parametrize("chunk_bytes", [1, 100, 777, 10**9])
def test_chunks_are_whole_documents_and_make_the_file(chunk_bytes: int, tmp_path: Path) -> None:
    path = text_file(tmp_path / "t.txt")
    chunks = cut(path, chunk_bytes=chunk_bytes)
    assert "".join(chunk.read() for chunk in chunks).encode() == path.read_bytes()
    assert all(chunk.read().endswith(END_OF_TEXT) for chunk in chunks[:-1])
    assert sum(documents_of(chunk).ended for chunk in chunks) == 40
    train, held_out = hold_out(chunks, 0.2)
    assert "".join(chunk.read() for chunk in train + held_out).encode() == path.read_bytes()
    assert train[-1].read().endswith(END_OF_TEXT)
    assert 0.1 < sum(chunk.end - chunk.begin for chunk in held_out) / path.stat().st_size <= 0.2


def test_a_separator_may_lie_across_two_reads(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("x" * 65_530 + END_OF_TEXT + "y" * 70_000 + END_OF_TEXT + "z")
    assert [chunk.end - chunk.begin for chunk in cut(path, chunk_bytes=10)] == [65_543, 70_013, 1]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    with pytest.raises(RungError, match=r"t\.txt cannot be read: No such file"):
        cut(path)
    path.write_text("")
    with pytest.raises(RungError, match="is empty"):
        cut(path)
    path.write_text("no end")
    with pytest.raises(RungError, match=r"no '<\|endoftext\|>', which ends a document.*--separator"):
        cut(path)
    path.write_text(f"one{END_OF_TEXT}\n")
    with pytest.raises(RungError, match="but one document"):
        hold_out(cut(path), 0.5)
    path.write_bytes(b"abc\xff" + END_OF_TEXT.encode())
    with pytest.raises(RungError, match="not UTF-8: byte 3 is 0xff"):
        cut(path)[0].read()


def prepared(path: Path, source: Path, processes: int, chunk_bytes: int = 500) -> TokenFolder:
    train, validation = hold_out(cut(source, chunk_bytes=chunk_bytes), 0.2)
    text = Text({"train": train, "validation": validation}, {"file": source.name})
    return prepare(path, text, vocabulary=300, processes=processes, shard_tokens=1000, say=lambda line: None)


def test_the_result_does_not_depend_on_processes(tmp_path: Path) -> None:
    source = text_file(tmp_path / "t.txt")
    one = prepared(tmp_path / "one", source, processes=1)
    two = prepared(tmp_path / "two", source, processes=2)
    other = prepared(tmp_path / "other", source, processes=1, chunk_bytes=5000)
    assert len(one.files) > 4
    for file in one.files:
        assert (two.path / file.name).read_bytes() == file.read_bytes()
        assert (other.path / file.name).read_bytes() == file.read_bytes()
    codec = BytePairCodec.of(one)
    tokens = {split: one.tokens(split) for split in ("train", "validation")}
    whole = "".join(codec.decode(each.windows(np.array([0]), len(each))[0]) for each in tokens.values())
    assert whole.encode() == source.read_bytes()
    assert sum(split.documents for split in one.manifest.splits.values()) == 40


class Deadly(FileChunk):
    """A chunk at which whoever reads it is killed."""

    def read(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_a_killed_process_is_an_error(tmp_path: Path) -> None:
    with Workers(2) as pool, pytest.raises(RungError, match="was killed, as happens where memory runs out"):
        list(pool.count([Deadly(tmp_path, 0, 1)]))


def test_a_text_without_words_is_refused(tmp_path: Path) -> None:
    source = text_file(tmp_path / "t.txt")
    blank = tmp_path / "blank.txt"
    blank.write_text("\n")
    text = Text({"train": cut(source), "validation": [FileChunk(blank, 0, 1)]}, {})
    with pytest.raises(RungError, match="the validation text has no documents"):
        prepare(tmp_path / "out", text, vocabulary=300, processes=1, say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_can_be_used_again(tmp_path: Path) -> None:
    folder = few_stories(tmp_path)
    train, validation = hold_out(cut(text_file(tmp_path / "t.txt")), 0.2)
    text = Text({"train": train, "validation": validation}, {})
    again = prepare(tmp_path / "b", text, vocabulary=1, tokenizer=folder.path, processes=1, say=lambda line: None)
    assert again.manifest.tokenizer_sha256 == folder.manifest.tokenizer_sha256
    with pytest.raises(RungError, match="cannot be read as a tokenizer"):
        prepare(tmp_path / "c", text, vocabulary=1, tokenizer=tmp_path / "t.txt", processes=1)
