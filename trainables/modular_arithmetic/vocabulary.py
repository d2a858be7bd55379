"""The tokens of modular arithmetic, and items as token ids and as readable text. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rung.errors import RungError


class Vocabulary:
    """p number tokens, then operator, `=`, BOS, EOS and PAD: p + 5 tokens, a number being its own id."""

    def __init__(self, modulus: int, operator: str) -> None:
        self.modulus = modulus
        self.operator = modulus
        self.equals = modulus + 1
        self.bos = modulus + 2
        self.eos = modulus + 3
        self.pad = modulus + 4
        self.tokens = [*map(str, range(modulus)), operator, "=", "BOS", "EOS", "PAD"]
        self._ids = {token: index for index, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of "3 + 5 = 8" (blanks are free), framed by BOS and EOS; without its result ("3 + 5 =") it has no EOS.

        Raises:
            RungError: it contains something that is no token, or is no question or item.
        """
        shape = r"\s*\d+(\s*OP\s*\d+)+\s*=\s*(\d+\s*)?".replace("OP", re.escape(self.tokens[self.operator]))
        if not re.fullmatch(shape, text):
            operator = self.tokens[self.operator]
            raise RungError(f"{text!r} is not of the form '3 {operator} 5 = 8' or '3 {operator} 5 ='")
        ids = [self.bos]
        for token in re.findall(r"\d+|\D", re.sub(r"\s", "", text)):
            if token not in self._ids:
                raise RungError(f"{token} in {text!r} is not a number below {self.modulus}")
            ids.append(self._ids[token])
        return ids if ids[-1] == self.equals else [*ids, self.eos]

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text of one sequence: "3 + 5 = 8". BOS, EOS and PAD are left out."""
        special = {self.bos, self.eos, self.pad}
        return " ".join(self.tokens[index] for index in ids if index not in special)

    def labels(self, ids: Sequence[int]) -> list[str]:
        """One label per token, special ones included: for the axes of a figure."""
        return [self.tokens[index] for index in ids]
