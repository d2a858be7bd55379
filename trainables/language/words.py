"""Text cut into words as byte-level BPE cuts it, and how often each occurs. Imports no torch.

The cuts are those of GPT-2, which `tokenizers` makes as well, in Python's regular expressions: several times as fast,
and a word is then counted or looked up as a whole. Classes of characters differ between versions of Unicode, so it is
done for the characters of `KNOWN` only, for each of which a test compares the two; other texts go to `tokenizers`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

from tokenizers import pre_tokenizers

KNOWN = "".join(map(chr, [*range(0x250), *range(0x2000, 0x2070)]))
"""Characters that have belonged to the same class for long: ASCII first, then Latin and general punctuation."""

_ASCII = 128


def words_of(text: str) -> list[str]:
    """The words of a text, which put together are the text; a blank belongs to the word after it."""
    if text.isascii():
        return _pattern(_ASCII).findall(text)
    if _unknown().search(text):
        return [text[begin:end] for _, (begin, end) in pre_tokenizer().pre_tokenize_str(text)]
    return _pattern(len(KNOWN)).findall(text)


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in some texts; no word reaches over the border of two."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    return counts


@cache
def pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """The same cuts by `tokenizers`, which then writes each byte as a character."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


@cache
def _unknown() -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(KNOWN)}]")


@cache
def _pattern(count: int) -> re.Pattern[str]:
    """For texts of the first `count` known characters, in the original

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+
    (github.com/openai/gpt-2, src/encoder.py).
    """
    characters = KNOWN[:count]
    spaces = re.escape("".join(c for c in characters if c.isspace() and not "\x1c" <= c <= "\x1f"))
    letters, digits = (re.escape("".join(c for c in characters if unicodedata.category(c)[0] == kind)) for kind in "LN")
    return re.compile(
        rf"'(?:[stmd]|re|ve|ll)| ?[{letters}]+| ?[{digits}]+| ?[^{spaces}{letters}{digits}]+"
        rf"|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
    )
