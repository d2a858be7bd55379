"""Byte-level BPE for `tokenizers`: how a text is cut into words is that of GPT-2 (Radford et al. 2019).

Every text has an encoding, and decoding it gives the same bytes. One special token, `<|endoftext|>`, ends documents;
it has the id 0. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from trainables.language.merges import learn_merges
from trainables.language.tokens import MOST_TOKENS, TokenFolder
from trainables.language.words import pre_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
BYTES = 256
"""Tokens that every vocabulary has beside the end of a document: the single bytes."""


def train_tokenizer(counts: Mapping[str, int], vocabulary: int) -> Tokenizer:
    """Learns a vocabulary from counted words (`words.count_words`), in which a special token counts as text.

    Token 0 ends documents, the next 256 are the single bytes, the others come in the order of their merges.

    Args:
        counts: how often each word occurs. Their order plays no part.
        vocabulary: tokens to end with, `<|endoftext|>` and the 256 bytes included.

    Raises:
        RungError: the vocabulary is too small or too large for 16 bits, or larger than the words can give.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if not BYTES + 1 <= vocabulary < MOST_TOKENS:
        raise RungError(
            f"a vocabulary of {vocabulary:,} is not possible: it holds {END_OF_TEXT} and the 256 single bytes, so at "
            f"least {BYTES + 1}, and token ids are stored in 16 bits, so at most {MOST_TOKENS - 1:,}"
        )
    texts = [END_OF_TEXT, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    ids = {text: index for index, text in enumerate(texts)}
    cut = pre_tokenizer()
    words = {
        tuple(ids[byte] for text, _ in cut.pre_tokenize_str(word) for byte in text): count
        for word, count in counts.items()
    }
    merges = learn_merges(words, ids, texts, vocabulary)
    if len(texts) < vocabulary:
        raise RungError(
            f"the text gives no more than {len(texts):,} tokens: then every word is one token. Ask for at most "
            f"{len(texts):,}, or give more text, for a vocabulary of {vocabulary:,}"
        )
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


class BytePairCodec:
    """A trained tokenizer as text to tokens and back.

    Args:
        tokenizer: one that `train_tokenizer` made.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end: int | None = tokenizer.token_to_id(END_OF_TEXT)

    @classmethod
    def of(cls, folder: TokenFolder) -> BytePairCodec:
        """The tokenizer of a folder of tokens.

        Raises:
            RungError: it has none.
        """
        from tokenizers import Tokenizer

        if folder.tokenizer is None:
            raise RungError(f"{folder.path} has no tokenizer, so its tokens cannot be turned into text")
        return cls(Tokenizer.from_file(str(folder.tokenizer)))

    def encode(self, text: str) -> list[int]:
        """Token ids; `<|endoftext|>` in the text is the special token."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """The text, the ends of documents included. Bytes that are no UTF-8 become U+FFFD."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text


def token_bytes(folder: TokenFolder) -> NDArray[np.int64]:
    """(vocabulary,): the bytes of text that each token stands for, 0 for the end of a document."""
    tokenizer = BytePairCodec.of(folder).tokenizer
    lengths = np.zeros(folder.manifest.vocabulary, dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        # In byte-level BPE every byte is written as one character.
        lengths[index] = 0 if token == END_OF_TEXT else len(token)
    return lengths
