"""`metrics.csv` of a run: one row per step that is logged or evaluated, on disk as soon as it is known.

A cell without a value is empty. What a run that goes on will write again is taken out first. Imports no torch.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rung.errors import StorageError
from rung.results.files import replace_file

Row = dict[str, float | None]


class MetricsCsv:
    """The file, open for appending.

    Args:
        path: its place.
        columns: the first counts steps.
        evaluation: the column that only rows of an evaluation fill.
        keep: the last step whose rows stay, and the last whose evaluation does; None: the file begins anew.

    Raises:
        StorageError: it cannot be written, or is another table.
    """

    def __init__(self, path: Path, columns: Sequence[str], evaluation: str, keep: tuple[int, int] | None) -> None:
        self._path = path
        self._columns = columns
        rows = read_metrics(path) if keep is not None and path.exists() else []
        step, evaluated = keep or (-1, -1)
        self.kept = [
            row for row in rows if (row[columns[0]] or 0) <= (step if row.get(evaluation) is None else evaluated)
        ]
        """The rows that were there already and stay."""
        try:
            replace_file(path, self._text(self.kept, header=True).encode())
            self._file: TextIO = path.open("a", buffering=1, encoding="utf-8", newline="")
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from error

    def add(self, row: Mapping[str, float | None]) -> None:
        """Appends a row in one write."""
        try:
            self._file.write(self._text([row], header=False))
            self._file.flush()
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def _text(self, rows: Sequence[Mapping[str, float | None]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow(self._columns)
        for row in rows:
            writer.writerow([_cell(row.get(column)) for column in self._columns])
        return text.getvalue()


def read_metrics(path: Path) -> list[Row]:
    """The whole rows of a file, also while it is being written.

    Raises:
        StorageError: it cannot be read or is no such table.
    """
    try:
        content = path.read_text(encoding="utf-8")
        whole = content[: content.rfind("\n") + 1]
        return [
            {name: float(cell) if cell else None for name, cell in row.items()}
            for row in csv.DictReader(io.StringIO(whole))
        ]
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{path} cannot be read as metrics: {error}") from error


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
