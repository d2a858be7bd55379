"""Shows what `rung clean` would delete, or has deleted."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from rung.results.disk import folder_bytes
from rung.results.query import StudyResults
from rung.results.render import render_rows
from rung.results.retention import Keep
from rung.results.text import quantity
from rung.tuning.cleaning import Removal


def render_removals(
    results: StudyResults, removals: Sequence[Removal], keep: Keep, *, command: str | None
) -> RenderableType:
    """The removals of a study as a table, with what is lost.

    Args:
        results: the study.
        removals: what can go, or has gone.
        keep: which checkpoints stay.
        command: what deletes them; None: they have been deleted.
    """
    name = results.study["study"]
    if not removals:
        return Text(f"{name}: nothing to clean (checkpoints kept: {keep})")
    rows = [
        {
            "what": removal.what,
            "files": f"{len(removal.paths):,}",
            "size": f"{quantity(removal.bytes)}B",
            "what is lost": removal.loss or "nothing",
        }
        for removal in removals
    ]
    total = quantity(sum(removal.bytes for removal in removals))
    title = f"{name}: checkpoints kept: {keep}"
    table = render_rows(rows, title, folded=("what", "what is lost"))
    left = folder_bytes(results.directory)
    if command is None:
        return Group(table, Text(f"deleted {total}B; {quantity(left)}B are left in {results.directory}"))
    return Group(
        table,
        Text(f"{total}B of {quantity(left)}B could go; tables, report and study files stay. Nothing was deleted."),
        Text.assemble("delete them: ", (command, "bold")),
    )
