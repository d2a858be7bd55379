"""From rows as Python has them to Arrow tables: types checked, missing and non-finite numbers made null.

A row is checked when it is given, where the traceback shows who gave it, and not when its part is written.
"""

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rung.results.schema import CONFIG_PREFIX, Column, ColumnType, Table


def checked_row(table: Table, row: Mapping[str, object]) -> dict[str, object]:
    """The row with every reserved column of the table, converted to its type, and its extra columns behind them.

    Raises ValueError for a value of the wrong type, a missing one and a column that the table does not have.
    """
    values = {column.name: _reserved_value(table, column, row.get(column.name)) for column in table.columns}
    for name, value in row.items():
        if name not in values:
            values[name] = _extra_value(table, name, value)
    return values


def arrow_table(table: Table, rows: Sequence[Mapping[str, object]]) -> Any:
    """A pyarrow.Table of checked rows: reserved columns first, then the extra ones in order of appearance.

    An extra column that a row does not have is null there.
    """
    import pyarrow as pa

    types = _arrow_types()
    arrays = {column.name: pa.array([row[column.name] for row in rows], types[column.type]) for column in table.columns}
    for name in dict.fromkeys(name for row in rows for name in row if name not in arrays):
        values = [row.get(name) for row in rows]
        arrays[name] = _config_array(values) if table.extra == "config" else pa.array(values, types["double"])
    return pa.table(arrays)


def _reserved_value(table: Table, column: Column, value: object) -> object:
    if value is not None:
        try:
            value = _CONVERT[column.type](value)
        except (TypeError, ValueError) as error:
            message = f"{table.name}.{column.name} takes {column.type}, got {value!r}: {error}"
            raise ValueError(message) from error
    if value is None and not column.nullable:
        raise ValueError(f"{table.name}.{column.name} must have a value: {column.doc}")
    return value


def _extra_value(table: Table, name: str, value: object) -> object:
    if table.extra == "metrics" and name:
        try:
            return None if value is None else _double(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metric {name!r} must be a number, got {value!r}") from error
    if table.extra == "config" and name.startswith(CONFIG_PREFIX):
        return _config_value(value)
    raise ValueError(f"table {table.name} has no column {name!r}")


def _config_value(value: object) -> bool | int | float | str | None:
    """A configuration's value as one of the plain types, from which enums and numpy's float derive."""
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str.__str__(value)
        case _:
            return json.dumps(value, default=str)


def _config_array(values: Sequence[object]) -> Any:
    """An Arrow array of bool, int64, double or string; of type null if no value is there.

    Integers among doubles become doubles. Any other mixture becomes text, strings as they are and the rest as JSON,
    such as a dimension `choice: [auto, 8]`.
    """
    import pyarrow as pa

    types = _arrow_types()
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {bool}:
        return pa.array(values, types["bool"])
    if kinds == {int} and all(_fits_int64(value) for value in values if isinstance(value, int)):
        return pa.array(values, types["int64"])
    if kinds <= {int, float} and float in kinds:
        return pa.array([None if value is None else float(value) for value in values], types["double"])  # type: ignore[arg-type]
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(texts, types["string"])


def _arrow_types() -> dict[ColumnType, Any]:
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }


def _fits_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _int64(value: Any) -> int:
    number = operator.index(value)
    if not _fits_int64(number):
        raise ValueError("does not fit into 64 bits")
    return number


def _double(value: Any) -> float | None:
    """A float, or None for NaN and the infinities, which an SQL average would silently spread."""
    number = float(value)
    return number if math.isfinite(number) else None


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return str.__str__(value)


def _timestamp(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError("not a datetime with a time zone")
    return value.astimezone(UTC)


_CONVERT: dict[ColumnType, Callable[[Any], Any]] = {
    "bool": bool,
    "int64": _int64,
    "double": _double,
    "string": _string,
    "timestamp": _timestamp,
}
