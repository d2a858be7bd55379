"""`metrics.csv` of an experiment: one row per logged step, appended while it runs. Imports no torch.

    step,wallclock_time,elapsed_time,train_loss,val_loss,val_perplexity,learning_rate,tokens_per_sec

`step` counts optimizer steps done; `wallclock_time` is seconds and `elapsed_time` minutes of training so far, over all
attempts; losses are nats per token; a cell without a value, or with one that is not finite, is empty. Every row is one
write to the system, so the file can be read at any moment and loses nothing to a kill. What a loss of power leaves of a
last row is cut off when the experiment goes on. Several rows may be about one step; `merged` puts them together.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import IO

from rung.errors import StorageError
from rung.results.files import replace_file

COLUMNS = (
    "step",
    "wallclock_time",
    "elapsed_time",
    "train_loss",
    "val_loss",
    "val_perplexity",
    "learning_rate",
    "tokens_per_sec",
)


@dataclass(frozen=True)
class MetricRow:
    """What was logged at one step; None: not measured there."""

    step: int
    """Optimizer steps done."""
    wallclock_time: float
    """Seconds of training and evaluation up to here, over all attempts."""
    train_loss: float | None = None
    """Loss of the step's batch, nats per token."""
    val_loss: float | None = None
    """Loss on the validation slice, nats per token."""
    val_perplexity: float | None = None
    """e to the power of `val_loss`."""
    learning_rate: float | None = None
    tokens_per_sec: float | None = None

    def line(self) -> str:
        """The row as it stands in the file, its end included."""
        step, seconds, *measured = astuple(self)
        return ",".join([str(step), repr(float(seconds)), repr(seconds / 60), *map(_cell, measured)]) + "\n"


class MetricsFile:
    """The file of one experiment, open for appending. An unfinished last row is cut off.

    Raises:
        StorageError: it cannot be read or written, or is another table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = _repaired(path)
        self._file = self._opened()

    def append(self, row: MetricRow) -> None:
        """Adds a row; when this returns it survives the process."""
        line, end = row.line().encode(), self._file.tell()
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk took only a part of a row")
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.rows.append(row)

    def keep_until(self, step: int, evaluated_step: int | None = None) -> None:
        """Drops rows after `step`, and evaluations after `evaluated_step`: what a resumed run is going to repeat."""
        last = step if evaluated_step is None else evaluated_step
        kept = [row for row in self.rows if row.step <= (step if row.val_loss is None else last)]
        if len(kept) == len(self.rows):
            return
        self.close()
        replace_file(self.path, csv_text(kept).encode())
        self.rows = kept
        self._file = self._opened()

    def close(self) -> None:
        """Lets go of the file; may be called more than once."""
        self._file.close()

    def _opened(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab", buffering=0)
            if file.tell() == 0:
                file.write(_header().encode())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from error
        return file


def read_rows(path: Path) -> list[MetricRow]:
    """The whole rows of a file, in its order, also while it is being written.

    Raises:
        StorageError: it cannot be read, or is another table.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return _parsed(content[: content.rfind(b"\n") + 1], path)


def csv_text(rows: Iterable[MetricRow]) -> str:
    """A whole file."""
    return "".join([_header(), *(row.line() for row in rows)])


def merged(rows: Iterable[MetricRow]) -> list[MetricRow]:
    """One row per step, by step: of several values for one cell the last counts, of the times too."""
    found: dict[int, MetricRow] = {}
    for row in rows:
        before = found.get(row.step)
        found[row.step] = row if before is None else _together(before, row)
    return [found[step] for step in sorted(found)]


def finite(value: float | None) -> float | None:
    """The value, or None for what is not a finite number."""
    return float(value) if value is not None and math.isfinite(value) else None


def _together(before: MetricRow, after: MetricRow) -> MetricRow:
    values = {}
    for field in fields(MetricRow):
        newer = getattr(after, field.name)
        values[field.name] = getattr(before, field.name) if newer is None else newer
    return MetricRow(**values)


def _header() -> str:
    return ",".join(COLUMNS) + "\n"


def _cell(value: float | None) -> str:
    return "" if finite(value) is None else repr(float(value))  # type: ignore[arg-type]


def _repaired(path: Path) -> list[MetricRow]:
    """The whole rows of a file, after cutting off an unfinished last one; none if there is no file."""
    if not path.exists():
        return []
    rows = read_rows(path)
    try:
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    return rows


def _parsed(content: bytes, path: Path) -> list[MetricRow]:
    if not content:
        return []
    header, *lines = csv.reader(io.StringIO(content.decode(errors="replace")))
    if tuple(header) != COLUMNS:
        raise StorageError(f"{path} is not the metrics of an experiment: its columns should be {','.join(COLUMNS)}")
    try:
        return [_row(line) for line in lines]
    except (ValueError, TypeError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error


def _row(cells: Sequence[str]) -> MetricRow:
    step, seconds, _, *measured = cells
    return MetricRow(int(step), float(seconds), *(float(cell) if cell else None for cell in measured))
