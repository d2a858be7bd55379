"""What cannot be read is named and kept beside; the rest goes on, and no number is lost that can be made again."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError, StorageError
from rung.locks import FileLock
from rung.results.damage import (
    damaged_files,
    find_damage,
    incomplete_writers,
    set_aside,
    set_aside_file,
)
from rung.results.parts import parts
from rung.results.query import load
from rung.results.store import TableWriter, compact
from rung.results.views import UnreadablePartWarning, dicts
from rung.training.assignment import Assignment, Goal
from rung.training.checkpoint_files import MARKER, STATE, TENSORS, latest_checkpoint
from rung.training.replication import start
from tests.synthetic import write_synthetic_study
from tests.toy import Toy
from tests.unit.test_store import event_row, metric_row, part_names, steps_seen

METRICS = ("validation/loss", "validation/accuracy", "learning_rate", "batch/mse")


# ------------------------------------------------------------------------------------------------ parts


def written(directory: Path, writer: str = "c1", steps: int = 40) -> Path:
    """The path of a new part."""
    random.seed(0)
    with TableWriter(directory, "metrics", writer) as table:
        for step in range(steps):
            table.add(metric_row(step, f"{writer}-s0", loss=random.random()))
    return parts(directory, "metrics")[-1].path


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"garbage" * 100)


def flipped_rows(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[120] ^= 4  # in the first column's page, behind an intact footer
    path.write_bytes(bytes(content))


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pointing_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "damage", [truncated, emptied, overwritten, flipped_rows, replaced_by_a_folder, pointing_nowhere]
)
def test_a_damaged_part_is_found_named_and_kept_beside(tmp_path: Path, damage: Any) -> None:
    written(tmp_path, "c1")
    written(tmp_path, "c2")
    first, second = (part.path for part in parts(tmp_path, "metrics"))
    damage(second)
    (found,) = find_damage(tmp_path)
    assert (found.table, found.writer, found.path) == ("metrics", "c2", second)
    assert str(found).startswith(f"{second} cannot be read: ")
    assert len(found.reason) > 5
    (kept,) = set_aside([found])
    assert kept.name == "c2.0001.000001.parquet.damaged"
    assert damaged_files(tmp_path) == [kept]
    assert find_damage(tmp_path) == []
    assert parts(tmp_path, "metrics")[0].path == first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {row["run_id"] for row in dicts(load(tmp_path).metrics)} == {"c1-s0"}


def test_whole_parts_and_foreign_files_are_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    compact(tmp_path, minimum=1)
    written(tmp_path)
    for name in ("notes.txt", "c1.0001.000001.parquet.bak", "copy.parquet", ".c1.0001.000009.parquet.tmp"):
        (path.parent / name).write_text("something else")
    (tmp_path / "tables" / "holiday").mkdir()
    (tmp_path / "tables" / "runs").write_text("no folder")
    assert find_damage(tmp_path) == []
    assert find_damage(tmp_path / "nowhere") == []


def test_nothing_that_was_set_aside_is_overwritten(tmp_path: Path) -> None:
    for _ in range(3):
        truncated(written(tmp_path))
        set_aside(find_damage(tmp_path))  # and the next writer uses the name of the part again
    names = sorted(path.name for path in damaged_files(tmp_path))
    assert names == [f"c1.0001.000001.parquet.damaged{end}" for end in ("", "-2", "-3")]


def test_who_has_lost_rows(tmp_path: Path) -> None:
    truncated(written(tmp_path, "c1"))
    assert incomplete_writers(tmp_path, find_damage(tmp_path), ["c1", "c2"]) == {"c1"}
    set_aside(find_damage(tmp_path))
    for writer in ("c1", "c2"):
        written(tmp_path, writer)
    compact(tmp_path)
    written(tmp_path, "c2")  # a later attempt: its first one went with the others
    written(tmp_path, "c3")
    truncated(parts(tmp_path, "metrics")[-1].path)
    assert incomplete_writers(tmp_path, find_damage(tmp_path), ["c1", "c2", "c3", "c4"]) == {"c1", "c2", "c4"}


def test_damage_in_the_drivers_tables_takes_no_reports_along(tmp_path: Path) -> None:
    written(tmp_path)
    with TableWriter(tmp_path, "events", "driver") as events:
        events.add(event_row("launch"))
    truncated(parts(tmp_path, "events")[0].path)
    (found,) = find_damage(tmp_path)
    assert (found.table, found.writer) == ("events", "driver")
    assert incomplete_writers(tmp_path, [found], ["c1"]) == set()


def test_with_one_part_of_the_decisions_all_of_them_go(tmp_path: Path) -> None:
    study = write_synthetic_study(tmp_path)
    (whole,) = parts(study, "decisions")
    damaged = whole.path.with_name("driver.0009.000001.parquet")
    damaged.write_bytes(b"")
    first, second = find_damage(study)
    assert {first.path, second.path} == {whole.path, damaged}
    assert "builds on those before it" in str(next(each for each in (first, second) if each.path == whole.path))
    set_aside([first, second])
    assert load(study).decisions.fetchall() == []


def test_an_attempt_whose_part_is_damaged_is_not_used_again_before_it_is_set_aside(tmp_path: Path) -> None:
    truncated(written(tmp_path))
    assert TableWriter(tmp_path, "metrics", "c1").attempt == 2


@pytest.mark.parametrize("verb", ["status", "results"])
def test_the_light_verbs_name_what_is_damaged(tmp_path: Path, verb: str) -> None:
    study = write_synthetic_study(tmp_path)
    broken = parts(study, "events")[0].path
    truncated(broken)
    command = [sys.executable, "-m", "rung", verb, str(study)]
    environment = {**os.environ, "COLUMNS": "400"}
    before = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = before.stderr.splitlines()
    if verb == "status":  # the other does not look at the events
        assert len(lines) == 1, before.stderr
        assert lines[0].startswith(f"warning: {broken} cannot be read and is left out: ")
    set_aside(find_damage(study))
    after = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert after.stderr == ""
    assert f"damaged and set aside: tables/events/{broken.name}.damaged" in after.stdout


# ------------------------------------------------------------------------------------------ checkpoints


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    config = Toy.Config.model_validate({"evaluation": {"first": 2, "every": 5}, "model": {"dropout": 0.1}})
    return Assignment(
        directory=str(tmp_path),
        study="toy",
        trainable="tests.toy:Toy",
        config_id="c0123456789ab",
        config=config.model_dump(mode="json"),
        seeds=(0, 1),
        goal=Goal("steps", 20, "validation/loss", "min"),
        checkpoint_seconds=1000.0,
        keep_stopped=True,  # saved where they are left, and not at every step
    )


def trained(assignment: Assignment, *levels: int) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The rows at the last level, and what was set aside on the way."""
    replication = start(assignment)
    try:
        rows = [replication.advance(level) for level in levels][-1]
        return rows, replication.set_aside()
    finally:
        replication.close()


def numbers(directory: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    return {(r["run_id"], r["step"]): tuple(r[name] for name in METRICS) for r in dicts(load(directory).metrics)}


def cut(checkpoint: Path) -> None:
    (checkpoint / TENSORS).write_bytes((checkpoint / TENSORS).read_bytes()[:-8])


def flip(checkpoint: Path) -> None:
    content = bytearray((checkpoint / TENSORS).read_bytes())
    content[-3] ^= 1  # one bit of a number: nothing but a checksum can tell
    (checkpoint / TENSORS).write_bytes(bytes(content))


def bad_json(checkpoint: Path) -> None:
    (checkpoint / STATE).write_text("{")


def bad_marker(checkpoint: Path) -> None:
    (checkpoint / MARKER).write_bytes(b"\0" * 40)


def missing_file(checkpoint: Path) -> None:
    (checkpoint / STATE).unlink()


def other_keys(checkpoint: Path) -> None:
    state = json.loads((checkpoint / STATE).read_text())
    state["progress"]["mood"] = state["progress"].pop("step")
    (checkpoint / STATE).write_text(json.dumps(state))
    from rung.training.checkpoints import _fingerprint

    marker = {name: _fingerprint(checkpoint / name) for name in (TENSORS, STATE)}
    (checkpoint / MARKER).write_text(json.dumps(marker))


@pytest.mark.parametrize("damage", [cut, flip, bad_json, bad_marker, missing_file, other_keys])
def test_a_damaged_checkpoint_is_set_aside_and_the_numbers_stay_the_same(
    tmp_path: Path, assignment: Assignment, damage: Any
) -> None:
    trained(assignment, 20)
    expected = numbers(tmp_path)
    other = Assignment(**{**vars(assignment), "directory": str(tmp_path / "other")})
    trained(other, 11)
    checkpoint = latest_checkpoint(other.checkpoints(0))
    assert checkpoint is not None
    damage(checkpoint)
    rows, notes = trained(other, 20)
    assert [row["status"] for row in rows] == ["completed", "completed"]
    found = numbers(tmp_path / "other")
    assert {key: found[key] for key in expected} == expected  # 11 is a level of this one only
    ((run_id, message),) = notes
    assert run_id == "c0123456789ab-s0"
    assert message.startswith(str(checkpoint))
    (kept,) = damaged_files(tmp_path / "other")
    assert kept == checkpoint.with_name(f"damaged-{checkpoint.name}")
    assert kept.name in message


def test_the_checkpoint_before_a_damaged_one_is_used(assignment: Assignment, tmp_path: Path) -> None:
    trained(assignment, 11)
    older = latest_checkpoint(assignment.checkpoints(0))
    assert older is not None
    kept = tmp_path / "kept"
    older.rename(kept)
    trained(assignment, 15)
    newer = latest_checkpoint(assignment.checkpoints(0))
    assert newer is not None
    kept.rename(older)
    flip(newer)
    attempt = TableWriter(tmp_path, "metrics", assignment.config_id).attempt
    trained(assignment, 20)
    steps = {row["step"] for row in dicts(load(tmp_path).metrics) if row["attempt"] == attempt and row["seed"] == 0}
    assert min(steps) == 15  # after 11


def test_a_marker_of_the_first_version_holds_sizes_only(assignment: Assignment, tmp_path: Path) -> None:
    trained(assignment, 11)
    checkpoint = latest_checkpoint(assignment.checkpoints(0))
    assert checkpoint is not None
    sizes = {name: (checkpoint / name).stat().st_size for name in (TENSORS, STATE)}
    (checkpoint / MARKER).write_text(json.dumps(sizes))
    assert trained(assignment, 15)[1] == []
    checkpoint = latest_checkpoint(assignment.checkpoints(0))
    assert checkpoint is not None
    (checkpoint / MARKER).write_text(json.dumps({TENSORS: 1, STATE: 1}))
    assert len(trained(assignment, 20)[1]) == 1


def test_a_checkpoint_that_was_never_finished_is_no_damage(assignment: Assignment, tmp_path: Path) -> None:
    trained(assignment, 11)
    checkpoint = latest_checkpoint(assignment.checkpoints(0))
    assert checkpoint is not None
    (checkpoint / MARKER).unlink()  # as a kill leaves it
    rows, notes = trained(assignment, 20)
    assert (rows[0]["status"], notes) == ("completed", [])
    assert damaged_files(tmp_path) == []
    assert [path.name[:15] for path in assignment.checkpoints(0).iterdir()] == ["step-0000000020"]


def test_a_checkpoint_of_another_model_is_refused_and_left_alone(assignment: Assignment, tmp_path: Path) -> None:
    trained(assignment, 11)
    config = {**assignment.config, "model": {"width": 5, "dropout": 0.1}}
    with pytest.raises(StorageError, match=r"another model: weight differ .* Has the trainable's code changed\?"):
        trained(Assignment(**{**vars(assignment), "config": config}), 20)
    assert latest_checkpoint(assignment.checkpoints(0)) is not None
    assert damaged_files(tmp_path) == []


# --------------------------------------------------------------------------------------- locks and clocks


def test_a_lock_file_of_a_dead_process_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text('{"pid": 999999999, "host": "long-gone", "since": "2001-01-01T00:00:00+00:00"}')
    lock = FileLock(path, wait=0.0)
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_a_lock_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*/lock: File too large"):
            FileLock(tmp_path / "lock", wait=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    FileLock(tmp_path / "lock", wait=0.0).release()  # and it is not held


def test_a_lock_goes_with_its_holder(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from rung.locks import FileLock
lock = FileLock(Path({str(tmp_path)!r}) / "lock", wait=0)
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RungError, match=f"process {process.pid}"):
            FileLock(tmp_path / "lock", wait=0.0)
        process.kill()
    FileLock(tmp_path / "lock", wait=2.0).release()


def test_rows_of_a_later_attempt_count_though_the_clock_went_back(tmp_path: Path) -> None:
    now = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    for attempt in (1, 2):
        early = now - timedelta(hours=attempt)
        with TableWriter(tmp_path, "metrics", "c1") as metrics:
            for step in (1, 2):
                metrics.add({**metric_row(step, loss=float(attempt)), "reported_at": early})
    assert load(tmp_path).query("SELECT DISTINCT loss FROM metrics").fetchall() == [(2.0,)]
    compact(tmp_path)
    assert load(tmp_path).query("SELECT DISTINCT loss FROM metrics").fetchall() == [(2.0,)]
    assert steps_seen(tmp_path) == [1, 2]


def test_the_last_revision_of_a_run_counts_though_the_clock_went_back(tmp_path: Path) -> None:
    now = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    row = {"study": "s", "config_id": "c1", "run_id": "c1-s0", "seed": 0, "phase": "search", "step": 1, "tokens": 1}
    row |= {"wall_seconds": 0.1, "replication": "serial", "attempt": 1}
    with TableWriter(tmp_path, "runs", "driver") as runs:
        for revision, status in enumerate(("running", "completed")):
            late = now - timedelta(hours=revision)
            runs.add({**row, "status": status, "revision": revision, "updated_at": late})
    assert [each["status"] for each in dicts(load(tmp_path).runs)] == ["completed"]


def test_a_part_that_is_damaged_before_compaction_is_still_found_after_it(tmp_path: Path) -> None:
    for writer in ("c1", "c2", "c3"):
        written(tmp_path, writer)
    truncated(parts(tmp_path, "metrics")[0].path)
    with pytest.warns(UnreadablePartWarning):
        compact(tmp_path)
    (found,) = find_damage(tmp_path)
    assert found.writer == "c1"
    assert set_aside_file(found.path).name in os.listdir(found.path.parent)
    assert part_names(tmp_path) == ["compacted.0001.000001.parquet"]
