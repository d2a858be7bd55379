"""What says which characters the tokens of a prepared folder are: our `meta.json`, or nanoGPT's `meta.pkl`.

A pickle is a program. This reader runs none of it that could do anything: every name that the file wants to import is
refused, so that only plain containers, numbers and texts come out. Imports no torch.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from rung.errors import RungError
from rung.settings import StrictModel

META, PICKLED_META = "meta.json", "meta.pkl"


class Meta(StrictModel):
    """What `meta.json` holds."""

    format: int = Field(default=1, ge=1, le=1)
    """Version of this layout."""
    characters: str = Field(min_length=1)
    """All characters in the order of their tokens."""
    stream: dict[str, Any] | None = None
    """The `StreamConfig` that the lines were made by; its checker can then be found again."""
    data_seed: int | None = None
    """The seed that the lines were made from."""
    lengths: dict[str, int] = Field(default={})
    """Tokens in each file."""

    @field_validator("characters")
    @classmethod
    def _characters_are_different(cls, characters: str) -> str:
        if len(set(characters)) < len(characters):
            raise ValueError("every character may stand once")
        return characters


def read_meta(folder: Path) -> Meta | None:
    """The folder's `meta.json`, else its `meta.pkl`; None if it has neither.

    Raises:
        RungError: it cannot be read, or the pickle is more than plain data.
    """
    path = folder / META
    try:
        if path.is_file():
            return Meta.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RungError(f"{path} is no {META} of this version of rung: {error}") from error
    pickled = folder / PICKLED_META
    return read_pickled_meta(pickled) if pickled.is_file() else None


def read_pickled_meta(path: Path) -> Meta:
    """nanoGPT's `meta.pkl`, a dictionary with `vocab_size`, `itos` and `stoi`.

    Raises:
        RungError: it cannot be read, asks for anything to be imported, or is no such dictionary.
    """
    try:
        content = PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except RefusedPickle as error:
        raise RungError(f"{path} is refused: {error}. A meta.pkl holds nothing but dictionaries and texts") from error
    except Exception as error:  # a broken pickle can raise anything
        raise RungError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    characters = _characters(content)
    if characters is None:
        raise RungError(f"{path} is no nanoGPT meta.pkl: itos must give one character for each of 0 ... vocab_size - 1")
    return Meta(characters=characters)


def _characters(content: Any) -> str | None:
    table = content.get("itos") if isinstance(content, dict) else None
    if not isinstance(table, dict | list) or not table:
        return None
    try:
        characters = [table[token] for token in range(len(table))]
    except KeyError:
        return None
    plain = all(isinstance(character, str) and len(character) == 1 for character in characters)
    return "".join(characters) if plain and len(set(characters)) == len(characters) else None


class RefusedPickle(pickle.UnpicklingError):
    """A pickle wants something imported."""


class PlainUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, tuples, texts and numbers, and imports nothing at all."""

    def find_class(self, module: str, name: str) -> Any:
        """Always refuses: plain data names no class."""
        raise RefusedPickle(f"it wants to run {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Always refuses."""
        raise RefusedPickle("it refers to objects outside itself")
