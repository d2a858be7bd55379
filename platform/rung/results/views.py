"""A study's tables as DuckDB relations: parts put together, types made equal, duplicates left out, damage set aside.

The columns of parts differ: a metric that appears late, a configuration value that is an integer here and a double
there, reserved columns that an older version did not have. DuckDB's own `union_by_name` would turn a bool beside an
integer into a number, so the types are settled here: null gives way to anything, integers beside doubles become
doubles, and any other mixture becomes text.

Only DuckDB is imported: it reads Parquet itself, in a quarter of the time that importing pyarrow takes.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.results.parts import Part, parts
from rung.results.schema import TABLES, ColumnType, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

Kinds = dict[str, str]
"""The columns of a part or a table, and their DuckDB types."""

_SQL_TYPES: dict[ColumnType, str] = {
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}
_NULL = '"NULL"'
"""DuckDB's type of a column that holds nothing but null."""


class UnreadablePartWarning(UserWarning):
    """A part is damaged and its rows are missing from what is read."""


def open_connection() -> "DuckDBPyConnection":
    """An in-memory DuckDB that shows times in UTC and never fetches an extension from the network."""
    import duckdb

    return duckdb.connect(config={"TimeZone": "UTC", "autoinstall_known_extensions": "false"})


def read_parts(
    connection: "DuckDBPyConnection", table: Table, sources: Sequence[Part]
) -> tuple["DuckDBPyRelation", list[Part]]:
    """The rows of one study's parts of a table, each once and sorted by key, and the parts that could be read."""
    paths = [os.fspath(part.path) for part in sources]
    schemas = part_schemas(connection, paths)
    columns = _merged_columns(table, schemas.values())
    order = ", ".join(f"{quote(name)} NULLS FIRST" for name in table.key or table.column_names)
    relation = connection.sql(f"{_table_sql(table, schemas, columns)} ORDER BY {order}")
    return relation, [part for part, path in zip(sources, paths, strict=True) if path in schemas]


def dicts(relation: Any) -> list[dict[str, Any]]:
    """The rows of a relation. Not by way of Arrow: importing pyarrow takes longer than any light verb."""
    columns = relation.columns
    return [dict(zip(columns, row, strict=True)) for row in relation.fetchall()]


@dataclass
class Views:
    """The views `configurations`, `runs`, ... of a connection over one or many studies, renewed on demand.

    The same configuration in two studies is two things: rows are de-duplicated within each study's directory.
    """

    connection: "DuckDBPyConnection"
    directories: Sequence[Path]
    _schemas: dict[str, Kinds] = field(default_factory=dict)
    _damaged: dict[str, tuple[int, int]] = field(default_factory=dict)
    _shown: dict[str, list[list[str]]] = field(default_factory=dict)

    def refresh(self) -> None:
        """Let every view see the parts that are there now. Costs a listing of the folders if nothing has changed."""
        for table in TABLES.values():
            # Again if a part went between listing and reading it: its rows are in a part that was not listed yet.
            while not self._refresh(table):
                pass

    def _refresh(self, table: Table) -> bool:
        listing = [self._listing(directory, table) for directory in self.directories]
        if self._shown.get(table.name) == listing:
            return True
        new = [path for paths in listing for path in paths if path not in self._schemas]
        found = part_schemas(self.connection, new)
        self._schemas.update(found)
        missing = [path for path in new if path not in found]
        if not all(map(os.path.lexists, missing)):
            return False
        self._damaged.update((path, _signature(path)) for path in missing)
        self._show(
            table,
            [{path: self._schemas[path] for path in paths if path in self._schemas} for paths in listing],
        )
        self._shown[table.name] = [[path for path in paths if path in self._schemas] for paths in listing]
        return True

    def _listing(self, directory: Path, table: Table) -> list[str]:
        paths = [os.fspath(part.path) for part in parts(directory, table.name)]
        return [path for path in paths if path not in self._damaged or self._damaged[path] != _signature(path)]

    def _show(self, table: Table, studies: Sequence[Mapping[str, Kinds]]) -> None:
        columns = _merged_columns(table, (schema for study in studies for schema in study.values()))
        selects = [_table_sql(table, study, columns) for study in studies if study]
        sql = " UNION ALL ".join(f"({select})" for select in selects or [_table_sql(table, {}, columns)])
        self.connection.execute(f"CREATE OR REPLACE VIEW {quote(table.name)} AS {sql}")


def part_schemas(connection: "DuckDBPyConnection", paths: Sequence[str]) -> dict[str, Kinds]:
    """The columns of each part, by path. A damaged part is left out with an UnreadablePartWarning that names it.

    A part that has gone since it was listed (its rows have moved into a compacted part) is left out in silence.
    """
    import duckdb

    if not paths:
        return {}
    try:
        return _read_schemas(connection, paths)
    except duckdb.Error as error:
        if len(paths) > 1:  # find the damaged ones by halving: they are few
            half = len(paths) // 2
            return part_schemas(connection, paths[:half]) | part_schemas(connection, paths[half:])
        if os.path.lexists(paths[0]):
            message = f"{paths[0]} cannot be read and is left out: {error}"
            warnings.warn(message, UnreadablePartWarning, stacklevel=2)
        return {}


def quote(name: str) -> str:
    """A name as an SQL identifier: `validation/accuracy` becomes `"validation/accuracy"`."""
    return '"' + name.replace('"', '""') + '"'


def _read_schemas(connection: "DuckDBPyConnection", paths: Sequence[str]) -> dict[str, Kinds]:
    # The first row of each file is the root of its schema; by position, since a column may be called anything.
    rows = connection.sql(
        f"SELECT file_name, name, duckdb_type FROM parquet_schema({_file_list(paths)}) WHERE column_id > 0"
    ).fetchall()
    schemas: dict[str, Kinds] = {path: {} for path in paths}
    for path, name, kind in rows:
        schemas[path][name] = kind
    return schemas


def _merged_columns(table: Table, schemas: Iterable[Kinds]) -> Kinds:
    """Every column of the table: the reserved ones in order, then the extra ones by name with their common type."""
    reserved: Kinds = {column.name: _SQL_TYPES[column.type] for column in table.columns}
    extra: Kinds = {}
    spellings: dict[str, str] = {}  # for SQL "Loss" and "loss" are one column
    for name, kind in sorted({column for schema in schemas for column in schema.items()}):
        if name not in reserved:
            name = spellings.setdefault(name.lower(), name)
            extra[name] = _common_type(extra.get(name, _NULL), kind)
    return reserved | extra


def _common_type(one: str, other: str) -> str:
    if one == other or other == _NULL:
        return one
    if one == _NULL:
        return other
    return "DOUBLE" if {one, other} == {"BIGINT", "DOUBLE"} else "VARCHAR"


def _table_sql(table: Table, schemas: Mapping[str, Kinds], columns: Kinds) -> str:
    """A query for all rows of one study's table, each once, with exactly these columns."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for path, schema in schemas.items():
        groups.setdefault(tuple(schema.items()), []).append(path)
    if not groups:
        return f"SELECT {_select_list({}, columns)} WHERE false"
    rows = " UNION ALL ".join(
        f"SELECT {_select_list(dict(schema), columns)} "
        f"FROM read_parquet({_file_list(paths)}, hive_partitioning = false)"
        for schema, paths in groups.items()
    )
    if not table.key:
        return f"SELECT DISTINCT * FROM ({rows})"
    key = ", ".join(quote(name) for name in table.key)
    order = ", ".join(f"{quote(name)} {end} NULLS LAST" for name, end in map(str.split, table.keep))
    return f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1"


def _select_list(present: Kinds, columns: Kinds) -> str:
    spelled = {name.lower() for name in present}

    def term(name: str, kind: str) -> str:
        source = quote(name) if name.lower() in spelled else "NULL"
        return f"CAST({source} AS {kind}) AS {quote(name)}"

    return ", ".join(term(name, kind) for name, kind in columns.items())


def _file_list(paths: Sequence[str]) -> str:
    """A DuckDB list of files, taken literally: without the brackets DuckDB expands `*`, `?` and `[` in a path."""
    literal = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]", "'": "''"})
    return "[" + ", ".join(f"'{path.translate(literal)}'" for path in paths) + "]"


def _signature(path: str) -> tuple[int, int]:
    """What changes when a damaged part is replaced by a whole one; zeros for a part that has gone."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)
