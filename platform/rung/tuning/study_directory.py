"""The two files that say which study a directory holds: `study.yaml` as written, `study.json` resolved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rung.errors import RungError, StorageError
from rung.plan import Plan, PlannedConfiguration
from rung.results.files import replace_file
from rung.study import Study, differences, study_json


def open_directory(directory: Path, study: Study, plan: Plan, text: str) -> None:
    """Makes `directory` the one of this study, or checks that it is.

    Raises:
        RungError: another study lives there; names what differs and how to go on.
        StorageError: it cannot be read or written.
    """
    path = directory / "study.json"
    if not path.exists():
        write_study(directory, study, plan, text)
        return
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    changed = differences(stored, study_json(study, plan))
    if changed:
        lines = "\n".join(f"  {key}: {old!r} there, {new!r} now" for key, old, new in changed[:8])
        more = f"\n  and {len(changed) - 8} more" if len(changed) > 8 else ""
        raise RungError(
            f"{directory} holds the results of another study called {study.study!r}:\n{lines}{more}\n"
            "Give this one another name (study: ...), another place (--set storage=DIR), or remove that directory"
        )


def write_study(directory: Path, study: Study, plan: Plan, text: str) -> None:
    """Writes both files.

    Raises:
        StorageError: they cannot be written.
    """
    replace_file(directory / "study.yaml", text.encode())
    replace_file(directory / "study.json", json.dumps(study_json(study, plan), indent=2).encode())


def configuration_rows(study: Study, configurations: Iterable[PlannedConfiguration]) -> Iterator[dict[str, object]]:
    """Rows of the table `configurations`."""
    for configuration in configurations:
        yield {
            "study": study.study,
            "trainable": study.trainable,
            "config_id": configuration.config_id,
            "label": configuration.label,
            "plan_index": configuration.index,
            "sample": configuration.sample,
            "created_at": datetime.now(UTC),
            "config_json": configuration.config.model_dump_json(),
            **configuration.columns(),
        }
