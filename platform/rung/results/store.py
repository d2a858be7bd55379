"""Writing a study's tables so that they can be read at any moment, and putting their parts together at the end.

Every row has one writer: the trial process of a configuration writes its `metrics` and `generations`, the driver all
other tables. What is written twice after a crash is sorted out by readers (`views.py`) with the keys of `schema.py`;
nothing here takes a row away that counts.

Left out on purpose: locking (that a study has one driver is the driver's care) and threads (a writer belongs to one).
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rung.results.parts import (
    COMPACTED,
    Part,
    part_path,
    parts,
    prepare_folder,
    publish,
    remove,
    table_directory,
)
from rung.results.rows import arrow_table, checked_row
from rung.results.schema import ATTEMPTS_KEY, SCHEMA_KEY, SCHEMA_VERSION, TABLES, Table

_COMPRESSION = "zstd"
_ROWS_PER_GROUP = 100_000


class TableWriter:
    """Appends rows to one table of a study, as the only process that writes under the name `writer`.

    Rows become a part when 1000 are waiting, or when one comes `flush_seconds` or more after the last part was
    written: frequent rows share a part, rare ones are seen at once. Call `flush` where rows must be safe, as before
    every checkpoint. While a writer grows old, `flush_seconds` grows to 2 % of its age, at most a minute: a day's
    sweep would leave tens of thousands of small files.

        with TableWriter(study_directory, "metrics", config_id) as metrics:
            metrics.add({"study": "demo", "run_id": run_id, "step": 100, ..., "train/loss": 0.31})
    """

    def __init__(
        self,
        directory: Path,
        table: str,
        writer: str,
        attempt: int | None = None,
        *,
        flush_rows: int = 1000,
        flush_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the table's folder. `attempt` is `next_attempt(directory, writer)` unless it is given.

        Raises StorageError if the folder cannot be made or written to, ValueError for an unknown table or a writer's
        name that cannot be part of a file name.
        """
        if table not in TABLES:
            raise ValueError(f"there is no table {table!r}, only {', '.join(TABLES)}")
        if writer == COMPACTED:
            raise ValueError(f"writer {writer!r} is the name of parts that were put together")
        self.directory = Path(directory)
        self.table = TABLES[table]
        self.writer = writer
        part_path(self.directory, table, writer, 1, 1)  # refuses a bad name before a file bears it
        prepare_folder(table_directory(self.directory, table), writer)
        self.attempt = next_attempt(self.directory, writer) if attempt is None else attempt
        self._sequence = self._last_sequence()
        self._spellings: dict[str, str] = {}
        self._rows: list[dict[str, object]] = []
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._clock = clock
        self._opened_at = self._flushed_at = clock()

    def add(self, row: Mapping[str, object]) -> None:
        """Take one row; `attempt` is filled in if the table has it and the row does not.

        Integers may be numpy's, numbers anything that float() takes, times datetimes with a zone. A double that is
        not finite becomes null. Raises ValueError for a value of the wrong type, a missing one or an unknown column,
        and StorageError if a part was due and could not be written: its rows wait for the next flush.
        """
        now = self._clock()
        row = checked_row(self.table, {"attempt": self.attempt, **row} if self._has_attempt else row)
        self._check_spelling(row)
        self._rows.append(row)
        patience = max(self._flush_seconds, min(60.0, 0.02 * (now - self._opened_at)))
        if len(self._rows) >= self._flush_rows or now - self._flushed_at >= patience:
            self.flush()

    def flush(self) -> Path | None:
        """Write the waiting rows as one part and return its path, None if none wait. Raises StorageError."""
        import pyarrow.parquet as pq

        if not self._rows:
            return None
        rows = arrow_table(self.table, self._rows).replace_schema_metadata(_metadata())
        path = part_path(self.directory, self.table.name, self.writer, self.attempt, self._sequence + 1)
        publish(path, lambda file: pq.write_table(rows, file, compression=_COMPRESSION, write_page_checksum=True))
        self._sequence += 1
        self._rows.clear()
        self._flushed_at = self._clock()
        return path

    def close(self) -> None:
        """Write what still waits. Raises StorageError. Nothing is held open: a closed writer can go on."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _has_attempt(self) -> bool:
        return "attempt" in self.table.column_names

    def _check_spelling(self, row: Mapping[str, object]) -> None:
        for name in row:
            known = self._spellings.setdefault(name.lower(), name)
            if name != known:
                raise ValueError(f"columns {known!r} and {name!r} differ only in case: SQL takes them for one")

    def _last_sequence(self) -> int:
        """Not 0 if the attempt's number was given and another writer object has used it before."""
        existing = parts(self.directory, self.table.name)
        mine = (part.sequence for part in existing if (part.writer, part.attempt) == (self.writer, self.attempt))
        return max(mine, default=0)


def next_attempt(directory: Path, writer: str) -> int:
    """1 + the highest attempt of `writer` in any table of the study, compacted parts included.

    A process that writes several tables asks once and gives the number to all its writers.
    """
    highest = 0
    for table in TABLES:
        for part in parts(Path(directory), table):
            if part.writer in (writer, COMPACTED):
                highest = max(highest, _attempts(part).get(writer, 0))
    return highest + 1


def compact(directory: Path, tables: Iterable[str] = tuple(TABLES), minimum: int = 2) -> None:
    """Rewrite each table that has at least `minimum` parts as one part without duplicates, then remove the old ones.

    Safe against a kill at any moment: the new part appears whole before an old one goes, and while both are there
    readers see their rows once. Safe beside living writers, whose later parts are not touched. A part that cannot be
    read is left in its place, with a warning. One process at a time. Raises StorageError.
    """
    for table in tables:
        _compact_table(Path(directory), TABLES[table], minimum)


def _compact_table(directory: Path, table: Table, minimum: int) -> None:
    from rung.results.views import open_connection, read_parts

    old = parts(directory, table.name)
    if len(old) < minimum:
        return
    with open_connection() as connection:
        relation, readable = read_parts(connection, table, old)
        if not readable:
            return
        sequence = 1 + max((part.sequence for part in old if part.writer == COMPACTED), default=0)
        path = part_path(directory, table.name, COMPACTED, 1, sequence)
        publish(path, lambda file: _write_relation(relation, _highest_attempts(readable), file))
    for part in readable:
        remove(part)


def _write_relation(relation: Any, attempts: Mapping[str, int], file: Any) -> None:
    """Stream a DuckDB relation into one Parquet file, so that a table need not fit into memory twice."""
    import pyarrow.parquet as pq

    reader = relation.to_arrow_reader(_ROWS_PER_GROUP)
    schema = reader.schema.with_metadata(_metadata(attempts))
    with pq.ParquetWriter(file, schema, compression=_COMPRESSION, write_page_checksum=True) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _metadata(attempts: Mapping[str, int] | None = None) -> dict[str, str]:
    metadata = {SCHEMA_KEY: str(SCHEMA_VERSION)}
    return metadata if attempts is None else {**metadata, ATTEMPTS_KEY: json.dumps(attempts)}


def _highest_attempts(sources: Iterable[Part]) -> dict[str, int]:
    highest: dict[str, int] = {}
    for part in sources:
        for writer, attempt in _attempts(part).items():
            highest[writer] = max(attempt, highest.get(writer, 0))
    return highest


def _attempts(part: Part) -> dict[str, int]:
    """The highest attempt of each writer whose rows the part holds. A damaged compacted part tells none."""
    import pyarrow.parquet as pq

    if part.writer != COMPACTED:
        return {part.writer: part.attempt}
    try:
        metadata = pq.read_metadata(part.path).metadata or {}
    except (OSError, ValueError):  # ArrowInvalid is a ValueError; reading the table will name the part
        return {}
    return dict(json.loads(metadata.get(ATTEMPTS_KEY.encode(), b"{}")))
