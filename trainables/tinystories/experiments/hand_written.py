"""Places for hand-written notes in a generated Markdown file, kept byte for byte when it is generated again.

    <!-- notes: NAME -->
    whatever was written
    <!-- end of notes: NAME -->

Text is handled as latin-1, so that every byte is a character and comes out as it went in, whatever its encoding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rung.errors import RungError, StorageError

GENERAL = "general"
"""The place at the top of the file."""

_MARK = re.compile(r"^<!-- (end of )?notes: (.+?) -->[ \t\r]*\n?", re.MULTILINE)


def read_notes(path: Path) -> dict[str, str]:
    """What was written into each place of a file; of a file that has no place for notes all of it, as `general`.

    Raises:
        RungError: a mark has no counterpart, so that nobody can tell what is to be kept.
        StorageError: it cannot be read.
    """
    try:
        text = path.read_bytes().decode("latin-1")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    marks = list(_MARK.finditer(text))
    if not marks:
        return {GENERAL: text} if text.strip() else {}
    notes: dict[str, str] = {}
    for begin, end in zip(marks[::2], [*marks[1::2], None], strict=False):
        name = begin[2]
        if begin[1] or end is None or not end[1] or end[2] != name or _text(name) in notes:
            line = text.count("\n", 0, begin.start()) + 1
            raise RungError(
                f"{path}:{line}: {begin[0].strip()} is not followed by its own `<!-- end of notes: {name} -->`, or is "
                "there twice: put the marks right, so that no note gets lost, and run this again"
            )
        notes[_text(name)] = text[begin.end() : end.start()]
    return notes


def place(name: str, notes: Mapping[str, str]) -> str:
    """A place with what was written into it, in latin-1 like the notes."""
    written = notes.get(name, "\n")
    if not written.endswith("\n"):
        written += "\n"  # only text that was taken over whole
    return f"<!-- notes: {_bytes(name)} -->\n{written}<!-- end of notes: {_bytes(name)} -->"


def to_file(text: str, notes: Mapping[str, str]) -> bytes:
    """The bytes of a generated text in which `{{notes NAME}}` stands for each place."""
    return re.sub(r"\{\{notes (.+?)\}\}", lambda found: place(_text(found[1]), notes), _bytes(text)).encode("latin-1")


def _bytes(text: str) -> str:
    """A text as the characters of its UTF-8 bytes."""
    return text.encode().decode("latin-1")


def _text(characters: str) -> str:
    return characters.encode("latin-1").decode(errors="replace")
