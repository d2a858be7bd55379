"""Rows for terminals of any width: a table where it fits, else one block under the other. Nothing is ever cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

Row = Mapping[str, object]


def fits(rows: Sequence[Row], width: int) -> bool:
    """Whether a table of these rows, its columns two blanks apart, has room in `width` columns."""
    names = rows[0] if rows else ()
    widest = [max(cell_len(text) for text in (name, *(_text(row[name]) for row in rows))) for name in names]
    return sum(widest) + 2 * len(widest) <= width


def render_blocks(rows: Sequence[Row], title: str, width: int, label: str) -> RenderableType:
    """Each row as a block: its `label` on a line of its own, and below it, indented, every other column that is not
    empty, by name; as many on a line as `width` columns hold."""
    blocks = Text(title, "italic")
    for row in rows:
        blocks.append("\n" + textwrap.fill(_text(row[label]) or "-", width), "bold")
        for line in _lines(row, label, width - 2):
            blocks.append(f"\n  {line}")
    return blocks


def _lines(row: Row, label: str, width: int) -> Iterator[str]:
    line = ""
    for name, value in row.items():
        if name == label or not _text(value):
            continue
        item = _text(value) if name in ("id", "reason") else f"{name} {_text(value)}"
        if line and cell_len(line) + 2 + cell_len(item) > width:
            yield line
            line = ""
        line = f"{line}  {item}" if line else item
        if cell_len(line) > width:
            yield from textwrap.wrap(line, width, subsequent_indent="  ")
            line = ""
    if line:
        yield line


def _text(value: object) -> str:
    return "" if value is None else str(value)
