"""Reads back what wandb has written offline: the records of a `.wandb` file (LevelDB's log framing)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = 7
"""Bytes: of the file, and of every piece of a record."""


@dataclass
class OfflineRun:
    """A run as its file has it."""

    path: Path
    wandb_id: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    """None: the file ends in the middle of the run."""

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The rows of the newest table of samples."""
        table = json.loads((self.path.parent / "files" / self.summary["sample/table"]["path"]).read_text())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def read_offline(folder: Path) -> dict[str, OfflineRun]:
    """The offline runs below a folder, by W&B id. Fails where a run has two files."""
    runs = [_read(path) for path in sorted(folder.glob("offline-run-*/*.wandb"))]
    assert len({run.wandb_id for run in runs}) == len(runs)
    return {run.wandb_id: run for run in runs}


def _read(path: Path) -> OfflineRun:
    run = OfflineRun(path)
    for data in _records(path.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run.wandb_id, run.project, run.group = told.run_id, told.project, told.run_group
            run.job_type, run.name, run.notes = told.job_type, told.display_name, told.notes
            run.tags, run.config = tuple(told.tags), _items(told.config.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "metric":
            run.step_metrics[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a file; one that is not whole ends it."""
    assert content[:4] == b":W&B"
    pieces, at = b"", HEADER
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block is padding
            at += BLOCK - at % BLOCK
            continue
        check, length, kind = content[at : at + 4], int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        piece = content[at + HEADER : at + HEADER + length]
        if not kind or len(piece) < length:
            return
        assert zlib.crc32(bytes([kind]) + piece) == int.from_bytes(check, "little"), "a damaged record"
        pieces, at = pieces + piece, at + HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""
