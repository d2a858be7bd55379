"""Result tables as text: CSV and JSON with full precision for machines, Markdown and LaTeX rounded for people."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from rung.errors import RungError
from rung.results.statistics import DifferenceInterval, MeanInterval, Spread

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "json", "markdown", "latex"]


class TableRow(Protocol):
    """One row of a result table, once in numbers and once as a person wants to read it."""

    def as_row(self) -> dict[str, object]:
        """Every column with its value, numbers in full precision, None for what is missing."""

    def as_text(self) -> dict[str, str]:
        """Fewer columns, rounded: means with their spread, counts as "2/3"."""


def export(
    rows: "Sequence[TableRow] | Sequence[Mapping[str, object]] | pd.DataFrame", format: str, digits: int = 4
) -> str:
    """A result table as text that ends in a newline.

    Args:
        rows: rows of `tables`, plain mappings from column to value, or a DataFrame (its index is left out).
        format: csv, json (a list of objects), markdown or latex (booktabs, everything escaped).
        digits: significant digits of numbers in markdown and latex.

    Raises RungError for another format.
    """
    match format:
        case "csv":
            return _csv(_plain(rows))
        case "json":
            return json.dumps(_plain(rows), indent=2, ensure_ascii=False) + "\n"
        case "markdown":
            return _markdown(_texts(rows, digits))
        case "latex":
            return _latex(_texts(rows, digits))
    raise RungError(f"there is no format {format!r}, only {', '.join(get_args(Format))}")


# ------------------------------------------------------------------------------------- numbers as text


def number_text(value: float, digits: int = 4) -> str:
    """A number to `digits` significant digits, integers in full: 0.9312, 12346, 1.5e-07."""
    if isinstance(value, int):
        return str(value)
    if 10**digits <= abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def spread_text(spread: Spread) -> str:
    """`mean ± std`, to the second digit of the standard deviation: "5650 ± 150"."""
    if spread.mean is None:
        return ""
    if spread.std is None:
        return number_text(spread.mean)
    mean, std = _rounded(spread.mean, spread.std, scale=spread.std, digits=2)
    return f"{mean} ± {std}"


def interval_text(interval: MeanInterval | DifferenceInterval) -> str:
    """`mean [low, high]`, to the third digit of half the interval: "0.871 [0.802, 0.940]"."""
    if interval.mean is None:
        return ""
    if interval.low is None or interval.high is None:
        return number_text(interval.mean)
    half = (interval.high - interval.low) / 2
    mean, low, high = _rounded(interval.mean, interval.low, interval.high, scale=half, digits=3)
    return f"{mean} [{low}, {high}]"


def _rounded(*values: float, scale: float, digits: int) -> list[str]:
    """The values with as many decimals as show `digits` digits of `scale`."""
    if scale <= 1e-12 * max(map(abs, values)):  # spread by a rounding error, if at all
        return [number_text(value) for value in values]
    decimals = digits - 1 - math.floor(math.log10(scale))
    if decimals > 8:
        return [f"{value:.{digits}g}" for value in values]
    return [f"{value:.{max(0, decimals)}f}" for value in values]


# --------------------------------------------------------------------------------------- cells as text


def _plain(rows: Any) -> list[dict[str, Any]]:
    """Rows of JSON values: None, bool, int, float, str and lists of them."""
    return [{str(name): _plain_value(value) for name, value in row.items()} for row in _mappings(rows, "as_row")]


def _texts(rows: Any, digits: int) -> list[dict[str, str | None]]:
    """Rows of text, None for what is missing."""
    plain = _mappings(rows, "as_text")
    return [{str(name): _cell_text(_plain_value(value), digits) for name, value in row.items()} for row in plain]


def _mappings(rows: Any, method: str) -> Iterable[Mapping[str, object]]:
    if hasattr(rows, "to_dict"):  # a DataFrame, without importing pandas to find out
        rows = rows.to_dict(orient="records")
    return [row if isinstance(row, Mapping) else getattr(row, method)() for row in rows]


def _plain_value(value: Any) -> Any:
    if hasattr(value, "item") and not hasattr(value, "__len__"):  # a numpy scalar
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_plain_value(item) for item in value]
    if isinstance(value, datetime):
        # pandas' NaT is a datetime that is not equal to itself.
        return value.isoformat() if value == value else None
    return None if value != value else str(value)


def _cell_text(value: Any, digits: int) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return number_text(value, digits)
    if isinstance(value, list):
        return ", ".join(_cell_text(item, digits) or "–" for item in value)
    return json.dumps(value, ensure_ascii=False)


def _columns(rows: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


# --------------------------------------------------------------------------------------------- formats


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()})
    return text.getvalue()


def _markdown(rows: Sequence[Mapping[str, str | None]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    columns = _columns(rows)
    rulers = ["---:" if _is_numeric(rows, column) else "---" for column in columns]
    lines = [line(map(_markdown_escape, columns)), f"|{'|'.join(rulers)}|"]
    lines += [line(_markdown_escape(row.get(column) or "–") for column in columns) for row in rows]
    return "\n".join(lines) + "\n"


def _latex(rows: Sequence[Mapping[str, str | None]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"{' & '.join(cells)} \\\\"

    columns = _columns(rows)
    alignment = "".join("r" if _is_numeric(rows, column) else "l" for column in columns)
    lines = [
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        line(map(_latex_escape, columns)),
        "\\midrule",
    ]
    lines += [line(_latex_escape(row.get(column) or "–") for column in columns) for row in rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _is_numeric(rows: Sequence[Mapping[str, str | None]], column: str) -> bool:
    """Whether every cell that is not empty is made of numbers: such a column is aligned at the right."""
    cells = [cell for row in rows if (cell := row.get(column))]
    return bool(cells) and all(map(_NUMBERS.fullmatch, cells))


_NUMBERS = re.compile(r"-?\d[-+\de., /±–\[\]]*")


def _markdown_escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "≥": r"$\geq$",
        "Δ": r"$\Delta$",
        "–": "--",
        "\n": " ",
    }
)


def _latex_escape(text: str) -> str:
    return text.translate(_LATEX_ESCAPES)
