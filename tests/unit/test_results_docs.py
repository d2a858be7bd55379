"""docs/results.md says what schema.py says, and its examples run."""

import re
from pathlib import Path

import pytest

from rung.results.query import load
from rung.results.schema import SCHEMA_VERSION, TABLES, markdown
from tests.synthetic import write_synthetic_study

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_documented_with_type_and_meaning(table: str) -> None:
    section = re.search(rf"^### {table}\n(.*?)^(### |<!-- end)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert section, f"no section {table}"
    documented = re.findall(r"^\| `(\w+)` \| (\w+)(, may be null)? \| (.+) \|$", section[1], re.MULTILINE)
    columns = TABLES[table].columns
    assert documented == [
        (column.name, column.type, ", may be null" if column.nullable else "", column.doc) for column in columns
    ]
    assert TABLES[table].rule in section[1]


def test_the_tables_are_those_that_the_module_prints() -> None:
    assert markdown() in DOCUMENT, "run `python -m rung.results.schema` and put its output between the markers"
    assert f"The version of this schema is {SCHEMA_VERSION} " in DOCUMENT


@pytest.mark.parametrize("query", blocks("sql"))
def test_the_example_queries_run(query: str, tmp_path: Path) -> None:
    assert load(write_synthetic_study(tmp_path)).query(query).fetchall()


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # DuckDB 2.0 with pandas 3.1
@pytest.mark.parametrize("code", blocks("python"))
def test_the_examples_in_python_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("demo", "demo-wide"):
        write_synthetic_study(tmp_path / "results", name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNG_STORAGE", raising=False)
    names: dict[str, object] = {}
    exec(code, names)
    seen = load("demo").query("SELECT count(*) FROM metrics").fetchall()[0][0]
    if "metrics" in names:  # the de-duplication that the page shows gives what rung gives
        assert len(names["metrics"]) == seen  # type: ignore[arg-type]
    if "table" in names:
        assert names["table"].num_rows >= seen  # type: ignore[attr-defined]


def test_the_page_shows_queries_and_code() -> None:
    assert len(blocks("sql")) >= 5
    assert len(blocks("python")) >= 5
