"""Reading studies: find one by name, see its tables as DuckDB relations, query one or many with SQL.

    study = rung.load("demo")
    study.metrics.df()                                       # pandas; .to_arrow_table() for Arrow
    study.query("SELECT status, count(*) FROM runs GROUP BY ALL").show()

    connection = connect("demo", "demo-wide")                # one view per table over both studies

All of it works while a study is being written. Nothing here writes.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import RungError, StorageError
from rung.results.parts import storage_error
from rung.results.schema import TABLES
from rung.results.views import Views, open_connection

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from rung.results.comparison import Comparison
    from rung.results.confirmation import Confirmation
    from rung.results.schema import Phase
    from rung.results.tables import ConfigurationSummary, GrokkingRow

STUDY_FORMAT = 1
"""The `format` of study.json that this version reads."""

_STUDY_FILES = (".yaml", ".yml")


class StudyResults:
    """What a study has left so far: its description and its tables.

    Every property looks again at what is on disk. A relation is lazy: it runs when it is asked for rows, so take it
    anew (`study.metrics`) rather than keep it while the study goes on.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def study(self) -> dict[str, Any]:
        """The resolved study, as in study.json. Raises StorageError if it cannot be read or is of a later format."""
        path = self.directory / "study.json"
        try:
            study: dict[str, Any] = json.loads(path.read_text())
        except OSError as error:
            raise storage_error("cannot read", path, error) from error
        except ValueError as error:
            raise StorageError(f"{path} is not valid JSON: {error}") from error
        if study.get("format", STUDY_FORMAT) > STUDY_FORMAT:
            raise StorageError(f"{path} has format {study['format']}, written by a later version of rung: update rung")
        return study

    @property
    def configurations(self) -> "DuckDBPyRelation":
        """One row per configuration."""
        return self._view("configurations")

    @property
    def runs(self) -> "DuckDBPyRelation":
        """One row per run, as it stands."""
        return self._view("runs")

    @property
    def metrics(self) -> "DuckDBPyRelation":
        """One row per run and report."""
        return self._view("metrics")

    @property
    def decisions(self) -> "DuckDBPyRelation":
        """One row per decision of the scheduler."""
        return self._view("decisions")

    @property
    def generations(self) -> "DuckDBPyRelation":
        """One row per text that a model wrote."""
        return self._view("generations")

    @property
    def events(self) -> "DuckDBPyRelation":
        """One row per event."""
        return self._view("events")

    def query(self, sql: str) -> "DuckDBPyRelation":
        """The result of an SQL query over the tables. Raises RungError with DuckDB's explanation of what is wrong."""
        self._views.refresh()
        return _query(self._views.connection, sql)

    def summary(self, phase: "Phase" = "search") -> "list[ConfigurationSummary]":
        """One entry per configuration, best first; see `tables.summary`."""
        from rung.results.tables import summary

        return summary(self, phase)

    def confirmation(self) -> "Confirmation | None":
        """Search and fresh seeds side by side; None for a study without phase confirm. See `confirmation.py`."""
        from rung.results.confirmation import read_confirmation

        return read_confirmation(self.study, self.summary(), self.summary("confirm"))

    def grokking(self, thresholds: Sequence[float] = (0.9, 0.95, 0.99)) -> "list[GrokkingRow]":
        """Best values and when they were reached, per configuration; see `tables.grokking_table`."""
        from rung.results.tables import grokking_table

        return grokking_table(self, thresholds)

    def compare(self, *configurations: str) -> "list[Comparison]":
        """The first of the configurations (ids, beginnings of ids, or labels) against each of the others; without any,
        the best of the study against all others. See `compare.py`.

        Raises RungError, with near names, for a configuration that is not there.
        """
        from rung.results.compare import compare_configurations, compare_with_best, find_configuration

        if not configurations:
            return [comparison for family in compare_with_best(self) for comparison in family.comparisons]
        return list(compare_configurations(*(find_configuration(self, name) for name in configurations)).comparisons)

    def live(self) -> bool:
        """Whether a driver is working on the study now, that is, holds its lock."""
        try:
            with open(self.directory / "lock") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error("cannot read", self.directory / "lock", error) from error
        return False

    def _view(self, table: str) -> "DuckDBPyRelation":
        self._views.refresh()
        return self._views.connection.view(table)

    @cached_property
    def _views(self) -> Views:
        return Views(open_connection(), [self.directory])


def load(where: str | os.PathLike[str], storage: str | os.PathLike[str] | None = None) -> StudyResults:
    """The results of a study: `where` is its directory, its YAML file, or its name below the storage root.

    The storage root is `storage`, else the YAML file's `storage:`, else $RUNG_STORAGE, else `results`. Raises
    StorageError, naming where it looked and what is there, if there is no such study.
    """
    return StudyResults(_locate(where, storage))


def connect(*studies: str | os.PathLike[str], storage: str | os.PathLike[str] | None = None) -> "DuckDBPyConnection":
    """A DuckDB connection with one view per table over all the given studies (as for `load`), told apart by `study`.

    A column that only some of the studies have is null in the others. The views show the parts that are there now;
    connect again to see later ones. Raises StorageError for a missing study.
    """
    directories = dict.fromkeys(_locate(study, storage).resolve() for study in studies)
    views = Views(open_connection(), list(directories))
    views.refresh()
    return views.connection


def query_studies(
    sql: str, *studies: str | os.PathLike[str], storage: str | os.PathLike[str] | None = None
) -> "DuckDBPyRelation":
    """The result of an SQL query over several studies (as for `connect`), or over all below the storage root if none
    is named.

    Raises RungError with DuckDB's explanation if the query is wrong, StorageError for a missing study.
    """
    root = storage_root(storage)
    named = studies or tuple(root / name for name in study_names(root))
    if not named:
        raise StorageError(f"there is no study in {root}")
    return _query(connect(*named, storage=storage), sql)


def study_names(root: Path) -> list[str]:
    """The names of the studies below a storage root, sorted; none if the root is not there."""
    try:
        return sorted(entry.name for entry in root.iterdir() if _is_study(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("cannot read", root, error) from error


def storage_root(storage: str | os.PathLike[str] | None = None) -> Path:
    """Where studies are kept: `storage` if given, else $RUNG_STORAGE, else `results` in the working directory."""
    return Path(storage or os.environ.get("RUNG_STORAGE") or "results")


def _locate(where: str | os.PathLike[str], storage: str | os.PathLike[str] | None) -> Path:
    path = Path(where)
    if _is_study(path):
        return path
    name = os.fspath(where)
    if path.suffix in _STUDY_FILES and path.is_file():
        if path.name == "study.yaml" and _is_study(path.parent):  # the copy that the study keeps of itself
            return path.parent
        name, root_in_file = _name_and_storage(path)
        storage = storage or root_in_file
    root = storage_root(storage)
    if _is_study(root / name):
        return root / name
    present = ", ".join(study_names(root)) or "none"
    raise StorageError(f"no study {name!r}: looked for {path} and {root / name}. Studies in {root}: {present}")


def _query(connection: "DuckDBPyConnection", sql: str) -> "DuckDBPyRelation":
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type.name for statement in statements]
        if kinds != ["SELECT"]:
            raise RungError(f"a query is one SELECT over the tables {', '.join(TABLES)}; this is {kinds or 'empty'}")
        return connection.sql(sql)
    except duckdb.CatalogException as error:
        raise RungError(f"{error}\nThe tables are {', '.join(TABLES)}") from error
    except duckdb.Error as error:
        raise RungError(str(error)) from error


def _is_study(path: Path) -> bool:
    return (path / "study.json").is_file() or (path / "tables").is_dir()


def _name_and_storage(path: Path) -> tuple[str, str | None]:
    """The keys `study` and `storage` of a study file, without checking the rest of it."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("study"), str):
        raise StorageError(f"{path} has no key 'study' with the name of a study")
    storage = content.get("storage")
    return content["study"], None if storage is None else str(storage)
