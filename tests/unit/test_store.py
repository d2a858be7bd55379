"""Writing tables: parts, crashes, compaction, and what is refused."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rung.errors import StorageError
from rung.results.parts import COMPACTED, parts, table_directory
from rung.results.query import load
from rung.results.schema import TABLES
from rung.results.store import TableWriter, compact, next_attempt
from rung.results.views import UnreadablePartWarning

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def metric_row(step: int, run_id: str = "c1-s0", **metrics: object) -> dict[str, object]:
    identity = {"study": "demo", "config_id": "c1", "run_id": run_id, "seed": 0, "phase": "search"}
    progress = {"step": step, "epoch": float(step), "tokens": 64 * step, "wall_seconds": 0.1 * step}
    return {**identity, **progress, "reported_at": NOW, **metrics}


def event_row(message: str) -> dict[str, object]:
    return {"study": "demo", "time": NOW, "kind": "launch", "message": message}


def configuration_row(config_id: str, **config: object) -> dict[str, object]:
    row = {"study": "demo", "trainable": "toy", "config_id": config_id, "label": config_id, "plan_index": 0}
    values = {f"config.{path}": value for path, value in config.items()}
    return {**row, "sample": 0, "created_at": NOW, "config_json": "{}", **values}


def steps_seen(directory: Path) -> list[int]:
    return [step for (step,) in load(directory).query("SELECT step FROM metrics ORDER BY step").fetchall()]


def part_names(directory: Path, table: str = "metrics") -> list[str]:
    return [part.path.name for part in parts(directory, table)]


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ------------------------------------------------------------------------------------------------ parts


def test_parts_are_named_by_writer_attempt_and_sequence(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        writer.add(metric_row(1, loss=0.5))
        first = writer.flush()
        writer.add(metric_row(2, loss=0.4))
    with TableWriter(tmp_path, "metrics", "c1") as again:
        again.add(metric_row(3, loss=0.3))
    assert first == tmp_path / "tables" / "metrics" / "c1.0001.000001.parquet"
    assert part_names(tmp_path) == ["c1.0001.000001.parquet", "c1.0001.000002.parquet", "c1.0002.000001.parquet"]


def test_nothing_is_written_for_no_rows(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        assert writer.flush() is None
    assert os.listdir(table_directory(tmp_path, "metrics")) == []


def test_a_part_is_written_after_a_thousand_rows(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "metrics", "c1")
    for step in range(999):
        writer.add(metric_row(step))
    assert part_names(tmp_path) == []
    writer.add(metric_row(999))
    assert steps_seen(tmp_path) == list(range(1000))


def test_a_part_is_written_at_most_every_five_seconds(tmp_path: Path) -> None:
    clock = Clock()
    writer = TableWriter(tmp_path, "metrics", "c1", clock=clock)
    writer.add(metric_row(1))
    clock.now += 4.9
    writer.add(metric_row(2))
    assert part_names(tmp_path) == []
    clock.now += 0.1
    writer.add(metric_row(3))
    assert steps_seen(tmp_path) == [1, 2, 3]
    clock.now += 4.9
    writer.add(metric_row(4))
    assert steps_seen(tmp_path) == [1, 2, 3]


def test_a_rare_row_is_seen_at_once(tmp_path: Path) -> None:
    clock = Clock()
    writer = TableWriter(tmp_path, "metrics", "c1", clock=clock)
    for step in range(3):
        clock.now += 10
        writer.add(metric_row(step))
        assert steps_seen(tmp_path) == list(range(step + 1))


@pytest.mark.parametrize(("age", "patience"), [(0, 5), (1000, 20), (100_000, 60)])
def test_rows_wait_longer_in_an_older_writer(tmp_path: Path, age: float, patience: float) -> None:
    clock = Clock()
    writer = TableWriter(tmp_path, "metrics", "c1", clock=clock)
    clock.now += age
    writer.add(metric_row(1))
    writer.flush()
    clock.now += 0.95 * patience
    writer.add(metric_row(2))
    assert len(part_names(tmp_path)) == 1
    clock.now += 0.1 * patience
    writer.add(metric_row(3))
    assert len(part_names(tmp_path)) == 2


def test_attempts_count_over_all_tables_of_a_writer(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "runs", "driver"), TableWriter(tmp_path, "events", "driver") as events:
        events.add(event_row("first launch"))
    assert next_attempt(tmp_path, "driver") == 2
    assert TableWriter(tmp_path, "runs", "driver").attempt == 2
    assert next_attempt(tmp_path, "c1") == 1


def test_the_attempt_is_filled_in(tmp_path: Path) -> None:
    for attempt in (1, 2):
        with TableWriter(tmp_path, "events", "driver") as writer:
            writer.add(event_row(f"launch {attempt}"))
    seen = load(tmp_path).query("SELECT attempt, message FROM events ORDER BY attempt").fetchall()
    assert seen == [(1, "launch 1"), (2, "launch 2")]


def test_a_writer_with_a_given_attempt_goes_on_in_its_sequence(tmp_path: Path) -> None:
    for step in (1, 2):
        with TableWriter(tmp_path, "metrics", "c1", attempt=7) as writer:
            writer.add(metric_row(step))
    assert part_names(tmp_path) == ["c1.0007.000001.parquet", "c1.0007.000002.parquet"]


def test_every_part_carries_the_schema_version(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "events", "driver") as writer:
        writer.add(event_row("launch"))
    (part,) = parts(tmp_path, "events")
    assert pq.read_metadata(part.path).metadata[b"rung.schema"] == b"1"


# ----------------------------------------------------------------------------------------------- values


def test_metrics_that_are_missing_or_not_finite_are_null(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        writer.add(metric_row(1, loss=float("nan"), accuracy=np.float32(0.5)))
        writer.add(metric_row(2, loss=float("inf"), accuracy=None))
        writer.add(metric_row(3, loss=np.array(2.0)))
    seen = load(tmp_path).query("SELECT loss, accuracy FROM metrics ORDER BY step").fetchall()
    assert seen == [(None, 0.5), (None, None), (2.0, None)]


def test_a_metric_that_appears_late_is_null_before(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        writer.add(metric_row(1))
        writer.flush()
        writer.add(metric_row(2, late=1))
    assert load(tmp_path).query("SELECT late FROM metrics ORDER BY step").fetchall() == [(None,), (1.0,)]


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        ((True, None), (True, None), pa.bool_()),
        ((3, None), (3, None), pa.int64()),
        ((3, 0.5), (3.0, 0.5), pa.float64()),
        (("gpt", "lstm"), ("gpt", "lstm"), pa.string()),
        ((None, None), (None, None), pa.null()),
        (("auto", 8), ("auto", "8"), pa.string()),
        ((True, 8), ("true", "8"), pa.string()),
        (([2, 3], {"a": 1}), ("[2, 3]", '{"a": 1}'), pa.string()),
        ((2**70, 1), (str(2**70), "1"), pa.string()),
        ((float("inf"), 1.0), (float("inf"), 1.0), pa.float64()),
    ],
)
def test_configuration_values_are_typed(
    tmp_path: Path, values: tuple[object, ...], expected: tuple[object, ...], kind: pa.DataType
) -> None:
    with TableWriter(tmp_path, "configurations", "driver") as writer:
        for index, value in enumerate(values):
            writer.add(configuration_row(f"c{index}", swept=value))
    (part,) = parts(tmp_path, "configurations")
    column = pq.read_table(part.path)["config.swept"]
    assert column.type == kind
    assert tuple(column.to_pylist()) == expected


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("events", {"mesage": "typo"}, "events has no column 'mesage'"),
        ("events", {"message": None}, "events.message must have a value"),
        ("events", {"message": 3}, "events.message takes string, got 3"),
        ("events", {"time": datetime(2026, 1, 5)}, r"events.time takes timestamp.*time zone"),
        ("events", {"attempt": 1.5}, "events.attempt takes int64, got 1.5"),
        ("events", {"attempt": 2**70}, "events.attempt takes int64"),
        ("metrics", {"loss": "low"}, "metric 'loss' must be a number, got 'low'"),
        ("metrics", {"wall_seconds": float("nan")}, "metrics.wall_seconds must have a value"),
        ("configurations", {"model.kind": "gpt"}, "configurations has no column 'model.kind'"),
    ],
)
def test_a_wrong_row_is_refused_when_it_is_given(
    tmp_path: Path, table: str, change: dict[str, object], message: str
) -> None:
    good = {"events": event_row("good"), "metrics": metric_row(1), "configurations": configuration_row("c1")}
    with TableWriter(tmp_path, table, "driver") as writer:
        writer.add(good[table])
        with pytest.raises(ValueError, match=message):
            writer.add({**good[table], **change})
    assert load(tmp_path).query(f"SELECT count(*) FROM {table}").fetchall() == [(1,)]


def test_columns_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        writer.add(metric_row(1, loss=1.0))
        for name in ("Loss", "STEP"):
            with pytest.raises(ValueError, match="differ only in case"):
                writer.add({**metric_row(2), name: 2.0})
    assert steps_seen(tmp_path) == [1]


@pytest.mark.parametrize(
    ("table", "writer"), [("metric", "c1"), ("metrics", "c1.x"), ("metrics", "../c1"), ("metrics", "compacted")]
)
def test_a_wrong_table_or_writer_is_refused(tmp_path: Path, table: str, writer: str) -> None:
    with pytest.raises(ValueError, match=r"no table|must be of letters|is the name of"):
        TableWriter(tmp_path, table, writer)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------- storage that refuses


def test_a_place_that_cannot_be_written_to_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    directory = tmp_path / "file" / "demo"
    with pytest.raises(StorageError, match=r"cannot write to .*file/demo/tables/metrics: Not a directory"):
        TableWriter(directory, "metrics", "c1")


def test_a_folder_that_vanishes_is_a_storage_error(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "metrics", "c1")
    shutil.rmtree(tmp_path / "tables")
    writer.add(metric_row(1))
    with pytest.raises(StorageError, match=r"cannot write .*c1.0001.000001.parquet: No such file or directory"):
        writer.flush()


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A disk that takes `size` bytes per file: writing beyond it fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_that_could_not_be_written_wait_for_the_next_flush(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "metrics", "c1")
    writer.add(metric_row(1, loss=0.5))
    with no_file_larger_than(100), pytest.raises(StorageError, match=r"c1.0001.000001.parquet: File too large"):
        writer.flush()
    assert os.listdir(table_directory(tmp_path, "metrics")) == []  # not even a temporary file
    writer.add(metric_row(2, loss=0.4))
    writer.close()
    assert steps_seen(tmp_path) == [1, 2]


def test_two_processes_under_one_name_and_attempt_do_not_overwrite_each_other(tmp_path: Path) -> None:
    one, other = (TableWriter(tmp_path, "metrics", "c1") for _ in range(2))
    one.add(metric_row(1))
    one.flush()
    other.add(metric_row(2))
    with pytest.raises(StorageError, match="another process writes under the same name"):
        other.flush()
    assert steps_seen(tmp_path) == [1]


# ---------------------------------------------------------------------------------------------- crashes

WRITE_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from rung.results.store import TableWriter
from tests.unit.test_store import metric_row

writer = TableWriter(Path(sys.argv[1]), "metrics", "c1", flush_rows=20)
for step in count():
    writer.add(metric_row(step, **{f"metric_{i}": step / (i + 1) for i in range(20)}))
"""


def kill_a_writer(directory: Path, minimum_parts: int, delay: float) -> None:
    """Start a process that writes without end, and kill it `delay` seconds after it has made some parts."""
    before = len(part_names(directory))
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(directory)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(part_names(directory)) < before + minimum_parts:
            assert process.poll() is None, "the writer ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_kill_9_leaves_only_whole_parts(tmp_path: Path) -> None:
    for attempt, delay in enumerate((0.0, 0.0013, 0.0031), start=1):
        kill_a_writer(tmp_path, minimum_parts=5, delay=delay)
        mine = [part for part in parts(tmp_path, "metrics") if part.attempt == attempt]
        assert [part.sequence for part in mine] == list(range(1, len(mine) + 1))
        steps = [step for part in mine for step in pq.read_table(part.path)["step"].to_pylist()]
        assert steps == list(range(20 * len(mine)))
    longest = max(part.sequence for part in parts(tmp_path, "metrics"))
    assert steps_seen(tmp_path) == list(range(20 * longest))


def test_what_a_killed_writer_left_half_done_is_not_read_and_then_cleared(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        writer.add(metric_row(1))
    (part,) = parts(tmp_path, "metrics")
    half = part.path.with_name(".c1.0001.000002.parquet.tmp")
    half.write_bytes(part.path.read_bytes()[:-20])
    other = part.path.with_name(".c2.0001.000001.parquet.tmp")
    other.write_bytes(b"PAR1")  # of a writer that may be alive
    assert steps_seen(tmp_path) == [1]
    TableWriter(tmp_path, "metrics", "c1")
    assert not half.exists()
    assert other.exists()


# ------------------------------------------------------------------------------------------- compaction


def crashed_study(directory: Path) -> None:
    """Two attempts of one configuration that overlap in steps 3 and 4, beside another one."""
    for attempt, steps in ((1, range(5)), (2, range(3, 8))):
        with TableWriter(directory, "metrics", "c1", attempt, flush_rows=2) as writer:
            for step in steps:
                writer.add(metric_row(step, loss=attempt + step / 10))
    with TableWriter(directory, "metrics", "c2", flush_rows=2) as writer:
        for step in range(4):
            writer.add(metric_row(step, run_id="c2-s0", accuracy=step / 4))


ALL_METRICS = "SELECT run_id, step, attempt, loss, accuracy FROM metrics ORDER BY run_id, step"


def test_compaction_leaves_one_part_with_every_row_once(tmp_path: Path) -> None:
    crashed_study(tmp_path)
    before = load(tmp_path).query(ALL_METRICS).fetchall()
    assert [row[1] for row in before] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert [row[2] for row in before[:8]] == [1, 1, 1, 2, 2, 2, 2, 2]
    compact(tmp_path)
    assert part_names(tmp_path) == ["compacted.0001.000001.parquet"]
    (part,) = parts(tmp_path, "metrics")
    assert pq.read_metadata(part.path).num_rows == 12
    assert pq.read_metadata(part.path).metadata[b"rung.schema"] == b"1"
    assert load(tmp_path).query(ALL_METRICS).fetchall() == before


def test_compaction_interrupted_anywhere_shows_every_row_once(tmp_path: Path) -> None:
    crashed_study(tmp_path)
    before = load(tmp_path).query(ALL_METRICS).fetchall()
    old = {part.path: part.path.read_bytes() for part in parts(tmp_path, "metrics")}
    compact(tmp_path)
    for killed_after in range(len(old) + 1):  # so many old parts are gone
        for path, content in list(old.items())[killed_after:]:
            path.write_bytes(content)
        assert load(tmp_path).query(ALL_METRICS).fetchall() == before
        compact(tmp_path)  # the next one ends what the interrupted one began
        assert len(part_names(tmp_path)) == 1
        assert load(tmp_path).query(ALL_METRICS).fetchall() == before


def test_compaction_killed_while_it_writes_changes_nothing(tmp_path: Path) -> None:
    crashed_study(tmp_path)
    names = part_names(tmp_path)
    with no_file_larger_than(1500), pytest.raises(StorageError, match=r"compacted.0001.000001.parquet"):
        compact(tmp_path)
    assert part_names(tmp_path) == names


def test_attempts_go_on_counting_after_compaction(tmp_path: Path) -> None:
    crashed_study(tmp_path)
    compact(tmp_path)
    compact(tmp_path, minimum=1)  # a compacted part that is compacted again remembers too
    assert part_names(tmp_path) == ["compacted.0001.000002.parquet"]
    with TableWriter(tmp_path, "metrics", "c1") as writer:
        assert writer.attempt == 3
        writer.add(metric_row(7, loss=9.0))
    assert load(tmp_path).query("SELECT loss FROM metrics WHERE run_id = 'c1-s0' AND step = 7").fetchall() == [(9,)]


def test_compaction_leaves_later_parts_of_a_living_writer_alone(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "metrics", "c1", flush_rows=1)
    for step in range(3):
        writer.add(metric_row(step))
    compact(tmp_path)
    writer.add(metric_row(3))
    assert part_names(tmp_path) == ["c1.0001.000004.parquet", "compacted.0001.000001.parquet"]
    assert steps_seen(tmp_path) == [0, 1, 2, 3]


def test_compaction_leaves_a_damaged_part_in_its_place(tmp_path: Path) -> None:
    crashed_study(tmp_path)
    damaged = parts(tmp_path, "metrics")[0].path
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.warns(UnreadablePartWarning, match=damaged.name):
        compact(tmp_path)
    assert part_names(tmp_path) == [damaged.name, "compacted.0001.000001.parquet"]


def test_compaction_keeps_a_column_without_values_open_for_any_type(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "configurations", "driver", flush_rows=1) as writer:
        writer.add(configuration_row("c1", warmup=None))
        writer.add(configuration_row("c2", warmup=None))
    compact(tmp_path)
    (part,) = parts(tmp_path, "configurations")
    assert pq.read_schema(part.path).field("config.warmup").type == pa.null()
    with TableWriter(tmp_path, "configurations", "driver") as writer:
        writer.add(configuration_row("c3", warmup=10))
    assert load(tmp_path).query('SELECT sum("config.warmup" + 1) FROM configurations').fetchall() == [(11,)]


def test_compaction_of_every_table_keeps_types_and_times(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "events", "driver", flush_rows=1) as writer:
        for message in ("one", "two", "two"):
            writer.add(event_row(message))
    schema = pq.read_schema(parts(tmp_path, "events")[0].path)
    compact(tmp_path)
    (part,) = parts(tmp_path, "events")
    assert part.writer == COMPACTED
    assert pq.read_schema(part.path).equals(schema)
    assert pq.read_table(part.path)["message"].to_pylist() == ["one", "two"]  # equal rows are one row


def test_compaction_of_an_empty_study_does_nothing(tmp_path: Path) -> None:
    compact(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert all(parts(tmp_path, table) == [] for table in TABLES)
