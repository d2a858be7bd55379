"""Byte-pair encoding of expressions and their solutions, over `tokenizers`, kept as JSON.

A text is cut into words first, and no token reaches over the border of two: a digit (or a whole number), a sign, or
letters with single blanks between them, so that a phrase of the language (`Expression now`) can become one token. Each
may have one blank before it, a phrase a line's end instead. What is learnt are the merges within words. The tokens of a
text, put together, are the text, so decoding is exact. The ids 0 to 5 are `<pad> <unk> <bos> <eos> <think> </think>`;
the last two stand in texts, the others never do. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError, StorageError
from trainables.language.merges import learn_merges
from trainables.language.tokens import MOST_TOKENS, TOKEN_TYPE, TOKENIZER

if TYPE_CHECKING:
    import tokenizers

CONTROL = ("<pad>", "<unk>", "<bos>", "<eos>")
"""Tokens that stand in no text; decoding leaves them out."""

TAGS = ("<think>", "</think>")
"""Tokens that stand in texts."""

ALPHABET = "0123456789+-()=: \n" + "".join(sorted(set("EvaluateStepExpressionnowFinalResultEvaluationERROR")))
"""Characters that every tokenizer knows: those of the language."""

Numbers = Literal["digits", "whole"]

_OTHERS = r"[ \n]?[A-Za-z]+(?: [A-Za-z]+)*| ?[-+()=:]|\n| "

_PATTERNS: dict[Numbers, str] = {
    "digits": rf" ?[0-9]|{_OTHERS}",
    "whole": rf" ?[0-9]+|{_OTHERS}",
}
"""The words of a text, in a syntax that Python's expressions and those of `tokenizers` share."""


class Tokenizer:
    """Text to token ids and back.

    Args:
        inner: one that `train_tokenizer` made.

    Raises:
        RungError: it is another one.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        found = [inner.id_to_token(index) for index in range(len(CONTROL) + len(TAGS))]
        cut = json.loads(inner.to_str())["pre_tokenizer"] or {}
        pattern = cut.get("pattern", {}).get("Regex") if cut.get("type") == "Split" else None
        if found != [*CONTROL, *TAGS] or pattern is None:
            raise RungError(
                f"this is no tokenizer of expressions: its first tokens are {' '.join(map(str, found))} and not "
                f"{' '.join([*CONTROL, *TAGS])}. Make one with python -m trainables.arithmetic.train_tokenizer"
            )
        inner.encode_special_tokens = True  # <eos> in a text is no end
        self.inner = inner
        self.pad, self.unknown, self.begin, self.end, self.think, self.end_think = range(len(found))
        self.size: int = inner.get_vocab_size()
        """Tokens there are."""
        self.tokens: list[str] = [inner.id_to_token(index) or "" for index in range(self.size)]
        """What each id stands for."""
        self._texts = ["" if token in CONTROL else token for token in self.tokens]
        self._words = _Words(self)
        self._cut = _cutter(pattern)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """The tokenizer of a file, or the `tokenizer.json` of a folder.

        Raises:
            RungError: there is none, or it is another kind of tokenizer.
        """
        from tokenizers import Tokenizer as Inner

        file = path / TOKENIZER if path.is_dir() else path
        try:
            text = file.read_text(encoding="utf-8")
            inner = Inner.from_str(text)
        except OSError as error:
            raise RungError(f"the tokenizer {file} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # tokenizers raises nothing more special
            raise RungError(f"{file} cannot be read as a tokenizer: {error}") from error
        try:
            return cls(inner)
        except RungError as error:
            raise RungError(f"{file}: {error}") from error

    def save(self, folder: Path) -> Path:
        """Writes `tokenizer.json` into a folder, which is made; returns the file.

        Raises:
            StorageError: it cannot be written.
        """
        file: Path = folder / TOKENIZER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(self.inner.to_str(pretty=True), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{file} cannot be written: {error.strerror or error}") from error
        return file

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, without `<bos>` and `<eos>`.

        Raises:
            RungError: it has characters that the tokenizer does not know; names them.
        """
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> NDArray[np.uint16]:
        """The same as an array."""
        try:
            return np.frombuffer(b"".join(map(self._words.__getitem__, self._cut.findall(text))), dtype=TOKEN_TYPE)
        except _UnknownCharacter:
            raise RungError(self._strangers(text)) from None

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids, control tokens left out."""
        return "".join(self._texts[token] for token in tokens)

    def _strangers(self, text: str) -> str:
        """What is wrong with a text that cannot be encoded."""
        known = set("".join(self._texts[len(CONTROL) + len(TAGS) :]))
        rest = re.sub("|".join(TAGS), "", text)
        strange = list(dict.fromkeys(character for character in rest if character not in known))
        names = ", ".join(map(repr, strange))
        where = rest.find(strange[0])
        return (
            f"the tokenizer does not know {names} in {rest[max(0, where - 20) : where + 20]!r}: it knows "
            f"{''.join(sorted(known - set(' ' + chr(10))))}, blanks and line ends. Was it learnt from another corpus?"
        )


def count_words(texts: Iterable[str], numbers: Numbers) -> Counter[str]:
    """How often each word occurs in some texts, tags left out."""
    cut = _cutter(_PATTERNS[numbers])
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(cut.findall(text))
    for tag in TAGS:
        counts.pop(tag, None)
    return counts


def train_tokenizer(counts: Mapping[str, int], vocabulary: int, numbers: Numbers = "digits") -> Tokenizer:
    """Learns merges from counted words (`count_words`) until there are `vocabulary` tokens, or each word is one.

    Raises:
        RungError: there are no words, or the vocabulary is too small for the single characters or too large for 16
            bits.
    """
    if not counts:
        raise RungError("the corpus is empty: there is nothing that a tokenizer could be learnt from")
    texts = [*CONTROL, *TAGS, *sorted(set(ALPHABET).union(*counts))]
    if not len(texts) <= vocabulary < MOST_TOKENS:
        raise RungError(
            f"a vocabulary of {vocabulary:,} is not possible: {len(CONTROL) + len(TAGS)} special tokens and "
            f"{len(texts) - len(CONTROL) - len(TAGS)} characters make {len(texts)} at least, and token ids are stored "
            f"in 16 bits, so {MOST_TOKENS - 1:,} at most"
        )
    ids = {text: index for index, text in enumerate(texts)}
    words = {tuple(ids[character] for character in word): count for word, count in counts.items()}
    merges = learn_merges(words, ids, texts, vocabulary)
    return Tokenizer(_inner(ids, merges, _PATTERNS[numbers]))


def _inner(ids: dict[str, int], merges: list[tuple[str, str]], pattern: str) -> tokenizers.Tokenizer:
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    inner = Inner(models.BPE(vocab=ids, merges=merges, unk_token="<unk>"))
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    # Not special, so that tools that leave special tokens out of a text keep the tags.
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    inner.decoder = decoders.Fuse()
    return inner


class _UnknownCharacter(Exception):
    """A word has a character that the tokenizer does not know."""


class _Words(dict[str, bytes]):
    """Words and their token ids; `tokenizers` is asked for those of a new one.

    Nearly all words of a text have been met before, and looking one up is several times as fast.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        ids = self._tokenizer.inner.encode(word, add_special_tokens=False).ids
        if self._tokenizer.unknown in ids:
            raise _UnknownCharacter
        self[word] = np.asarray(ids, dtype=TOKEN_TYPE).tobytes()
        return self[word]


def _cutter(pattern: str) -> re.Pattern[str]:
    """Cuts a text into tags, words, and single characters that belong to neither."""
    return re.compile("|".join([*TAGS, pattern, "."]), re.DOTALL)
