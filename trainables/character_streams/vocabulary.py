"""Characters as tokens, and GPT-2's byte-level BPE for folders that hold its tokens. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rung.errors import RungError

GPT2_TOKENS = 50_257
"""Tokens of GPT-2's vocabulary, the end of a document among them."""
GPT2_PADDED = 50_304
"""What nanoGPT makes of it when a data set has no `meta.pkl`: the next multiple of 64, for speed."""
GPT2_END = 50_256
"""`<|endoftext|>`."""


class Characters:
    """One token for each character, numbered in their order.

    Args:
        characters: all that can come up, each once.
    """

    end: int | None = None
    """Characters go on without an end."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._tokens = {character: token for token, character in enumerate(characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            RungError: it has characters that are not in the vocabulary.
        """
        try:
            return [self._tokens[character] for character in text]
        except KeyError:
            unknown = "".join(sorted(set(text) - set(self.characters)))
            raise RungError(
                f"the model does not know the characters {unknown!r}; it knows {self.characters!r}"
            ) from None

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens."""
        return "".join(self.characters[token] for token in tokens)


class Gpt2Tokens:
    """GPT-2's byte-level BPE, read from a folder with its `tokenizer.json`, or its `vocab.json` and `merges.txt`.

    Raises:
        RungError: the folder has neither.
    """

    end: int | None = GPT2_END

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        if (folder / "tokenizer.json").is_file():
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            return
        names = [folder / "vocab.json", folder / "merges.txt"]
        if not all(name.is_file() for name in names):
            raise RungError(
                f"{folder} has no meta.json, so its tokens are GPT-2's; put GPT-2's tokenizer.json (or vocab.json and "
                "merges.txt) there to read and write text. Nothing is downloaded"
            )
        self._tokenizer = Tokenizer(models.BPE.from_file(str(names[0]), str(names[1])))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        tokens: list[int] = self._tokenizer.encode(text).ids
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; those that only fill up the vocabulary (`GPT2_PADDED`) are left out."""
        text: str = self._tokenizer.decode([token for token in tokens if token < GPT2_TOKENS])
        return text
