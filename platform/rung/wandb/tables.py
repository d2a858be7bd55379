"""Reads of a study's tables what a W&B view needs, one configuration at a time, also while they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.results.parts import COMPACTED, Part, parts
from rung.results.query import StudyResults
from rung.results.schema import TABLES
from rung.results.views import dicts, open_connection, read_parts

Row = dict[str, Any]

_ID_LENGTH = 13
"""Of a configuration's id, with which the names of all that write its rows begin."""


class StudyTables:
    """The tables of a study as they stand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._results = StudyResults(directory)
        self._connection = open_connection()

    @property
    def study(self) -> Mapping[str, Any]:
        """study.json. Raises StorageError."""
        return self._results.study

    def birth(self) -> str:
        """When the study began, which no other one of its name shares: the time of its first event."""
        (first,) = self._results.query("SELECT min(time) FROM events").fetchall()[0]
        return "" if first is None else str(first.isoformat())

    def configurations(self) -> dict[str, Row]:
        """Rows of `configurations` by id."""
        return {row["config_id"]: row for row in dicts(self._results.configurations)}

    def runs(self) -> dict[str, list[Row]]:
        """Rows of `runs` by configuration."""
        found: dict[str, list[Row]] = {}
        for row in dicts(self._results.runs.order("config_id, run_id")):
            found.setdefault(row["config_id"], []).append(row)
        return found

    def stamps(self) -> dict[str, tuple[str, ...]]:
        """The files that hold a configuration's reports and texts: others, once there are new ones."""
        found: dict[str, list[str]] = {}
        for table in ("metrics", "generations"):
            for part in self._parts(table):
                found.setdefault(part.writer[:_ID_LENGTH], []).append(part.path.name)
        together = found.pop(COMPACTED, [])
        return {config_id: (*together, *names) for config_id, names in found.items()}

    def rows(self, table: str, config_id: str) -> dict[str, list[Row]]:
        """A configuration's rows of `metrics` or `generations` by run, in the order of their keys."""
        sources = [part for part in self._parts(table) if part.writer == COMPACTED or part.writer.startswith(config_id)]
        relation, _ = read_parts(self._connection, TABLES[table], sources)
        found: dict[str, list[Row]] = {}
        for row in dicts(relation.filter(f"config_id = '{config_id}'")):
            found.setdefault(row["run_id"], []).append(row)
        return found

    def _parts(self, table: str) -> list[Part]:
        """The parts of a table; of each writer none without those that it had made before. A listing that is made while
        files appear may have a later one and lack an earlier one: hence two."""
        newest = {part.writer: part for part in parts(self.directory, table)}
        listed = parts(self.directory, table)
        return [
            part
            for part in listed
            if part.writer == COMPACTED or (part.writer in newest and part <= newest[part.writer])
        ]
