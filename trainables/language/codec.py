"""How a family turns text into token ids and back. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Codec(Protocol):
    """Text to token ids and back."""

    @property
    def end(self) -> int | None:
        """The token that ends a document, if there is one: generation stops at it."""
        ...

    def encode(self, text: str) -> list[int]:
        """The token ids of a text.

        Raises:
            RungError: it has characters that the codec does not know.
        """
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids. Bytes that are no UTF-8 become U+FFFD."""
        ...
