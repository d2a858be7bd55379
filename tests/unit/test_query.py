"""Reading studies: what is found, what is seen once, what is set aside, and reading beside a writer."""

import fcntl
import json
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import RungError, StorageError
from rung.results.parts import parts
from rung.results.query import connect, load, query_studies, study_names
from rung.results.schema import TABLES, Table
from rung.results.store import TableWriter, compact
from rung.results.views import UnreadablePartWarning, Views, open_connection
from tests.synthetic import write_synthetic_study
from tests.unit.test_store import NOW, configuration_row, event_row, metric_row, part_names

ROOT = Path(__file__).resolve().parents[2]


def write_metrics(directory: Path, *rows: dict[str, object], writer: str = "c1", attempt: int | None = None) -> None:
    with TableWriter(directory, "metrics", writer, attempt) as table:
        for row in rows:
            table.add(row)


def write_study(root: Path, name: str) -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "study.json").write_text(json.dumps({"format": 1, "study": name}))
    return root / name


# ------------------------------------------------------------------------------------- finding a study


def test_a_study_is_found_by_name_directory_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNG_STORAGE", raising=False)
    directory = write_synthetic_study(tmp_path / "results")
    (tmp_path / "anything.yaml").write_text("study: synthetic\nseeds: 3\n")
    for where in ("synthetic", "results/synthetic", directory, "anything.yaml", directory / "study.yaml"):
        assert load(where).directory.resolve() == directory
        assert load(where).study["study"] == "synthetic"


def test_the_storage_root_comes_from_the_call_the_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called, in_file, environment = (write_study(tmp_path / root, "demo") for root in ("called", "file", "env"))
    (tmp_path / "demo.yaml").write_text(f"study: demo\nstorage: {tmp_path}/file\n")
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path / "env"))
    assert load("demo").directory == environment
    assert load("demo.yaml").directory == in_file
    assert load("demo.yaml", storage=tmp_path / "called").directory == called


def test_a_missing_study_names_where_it_looked_and_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNG_STORAGE", raising=False)
    with pytest.raises(StorageError, match=r"'demo'.*results/demo.*Studies in results: none"):
        load("demo")
    for name in ("beta", "alpha"):
        write_study(tmp_path / "results", name)
    (tmp_path / "results" / "not-a-study").mkdir()
    with pytest.raises(StorageError, match=r"'demo'.*results/demo.*Studies in results: alpha, beta$"):
        load("demo")
    assert study_names(tmp_path / "results") == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("study: [", "is not valid YAML"), ("seeds: 3", "has no key 'study'"), ("- study", "has no key 'study'")],
)
def test_a_file_that_names_no_study_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(StorageError, match=message):
        load(tmp_path / "bad.yaml")


def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    directory = write_study(tmp_path, "demo")
    (directory / "study.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(StorageError, match="format 2, written by a later version of rung"):
        _ = load(directory).study
    (directory / "study.json").write_text("{")
    with pytest.raises(StorageError, match="is not valid JSON"):
        _ = load(directory).study
    (directory / "study.json").unlink()
    (directory / "tables").mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*study.json: No such file"):
        _ = load(directory).study


def test_a_study_is_live_while_a_driver_holds_its_lock(tmp_path: Path) -> None:
    study = load(write_study(tmp_path, "demo"))
    assert not study.live()
    with open(study.directory / "lock", "w") as lock:
        assert not study.live()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert study.live()
    assert not study.live()


# ---------------------------------------------------------------------------------------------- tables


def test_a_study_without_rows_has_every_table_with_its_columns(tmp_path: Path) -> None:
    study = load(write_study(tmp_path, "demo"))
    for name, table in TABLES.items():
        relation = getattr(study, name)
        assert tuple(relation.columns) == table.column_names
        assert relation.fetchall() == []


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # DuckDB 2.0 with pandas 3.1
def test_relations_become_pandas_and_arrow(tmp_path: Path) -> None:
    study = load(write_synthetic_study(tmp_path))
    frame, table = study.metrics.df(), study.metrics.to_arrow_table()
    assert list(frame.columns) == table.column_names
    assert len(frame) == table.num_rows == study.query("SELECT count(*) FROM metrics").fetchall()[0][0]
    assert str(table.schema.field("reported_at").type) == "timestamp[us, tz=UTC]"
    assert frame["validation/accuracy"].dtype == "float64"
    assert study.events.fetchall()[0][1].utcoffset().total_seconds() == 0


def test_the_synthetic_study_has_each_row_once_and_the_later_attempt(tmp_path: Path) -> None:
    directory = write_synthetic_study(tmp_path)
    study = load(directory)
    twice = study.query("SELECT run_id, step FROM metrics GROUP BY ALL HAVING count(*) > 1").fetchall()
    assert twice == []
    written = sum(pq.read_metadata(part.path).num_rows for part in parts(directory, "metrics"))
    seen = study.query("SELECT count(*) FROM metrics").fetchall()[0][0]
    assert written - seen == 10  # steps 4,100 to 5,000 of the run whose process was killed
    attempts = study.query(
        "SELECT attempt, min(step), max(step) FROM metrics WHERE run_id = 'c3f9a1b20d771-s1' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert attempts == [(1, 0, 4000), (2, 4100, 10_000)]
    assert study.query("SELECT status, count(*) FROM runs GROUP BY ALL ORDER BY ALL").fetchall() == [
        ("completed", 7),
        ("diverged", 1),
        ("failed", 1),
        ("stopped", 3),
    ]


def test_a_row_is_seen_once_with_its_highest_attempt(tmp_path: Path) -> None:
    write_metrics(tmp_path, *(metric_row(step, loss=1.0) for step in (1, 2, 3)), attempt=1)
    write_metrics(tmp_path, *(metric_row(step, loss=2.0) for step in (3, 4)), attempt=2)
    seen = load(tmp_path).query("SELECT step, attempt, loss FROM metrics ORDER BY step").fetchall()
    assert seen == [(1, 1, 1.0), (2, 1, 1.0), (3, 2, 2.0), (4, 2, 2.0)]


def test_the_newest_row_of_a_run_is_seen(tmp_path: Path) -> None:
    columns = {column.name: 1 if column.type == "int64" else "x" for column in TABLES["runs"].columns}
    row = {**columns, "epoch": 1.0, "wall_seconds": 1.0, "value": None, "best": None, "updated_at": NOW}
    for attempt, revisions in ((1, 9), (2, 2)):
        with TableWriter(tmp_path, "runs", "driver", attempt) as writer:
            for revision in range(revisions):
                writer.add({**row, "attempt": attempt, "revision": revision, "status": f"{attempt}.{revision}"})
    assert load(tmp_path).query("SELECT status FROM runs").fetchall() == [("2.1",)]


def test_the_first_decision_about_a_configuration_at_a_rung_holds(tmp_path: Path) -> None:
    columns = {column.name: 1 if column.type == "int64" else "x" for column in TABLES["decisions"].columns}
    row = {**columns, "value": 0.5, "threshold": None, "margin": None, "decided_at": NOW}
    with TableWriter(tmp_path, "decisions", "driver") as writer:
        writer.add({**row, "order": 4, "decision": "stop"})
        writer.add({**row, "order": 3, "decision": "continue"})
        writer.add({**row, "order": 5, "level": 2, "decision": "stop"})
    seen = load(tmp_path).query('SELECT level, "order", decision FROM decisions ORDER BY level').fetchall()
    assert seen == [(1, 3, "continue"), (2, 5, "stop")]


def test_events_are_the_same_only_if_all_of_them_is(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "events", "driver") as writer:
        for message in ("one", "one", "two"):
            writer.add(event_row(message))
    assert load(tmp_path).query("SELECT message FROM events ORDER BY ALL").fetchall() == [("one",), ("two",)]


reports = st.lists(
    st.tuples(
        st.sampled_from(["c1-s0", "c1-s1"]),
        st.integers(0, 4),  # step
        st.integers(1, 3),  # attempt
        st.integers(1, 3),  # in which part of the attempt
        st.sampled_from(["loss", "accuracy"]),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda report: report[:3],
)


@settings(max_examples=15, deadline=None)
@given(reports=reports, compacted_after=st.sets(st.integers(0, 8)))
def test_whatever_was_reported_twice_is_seen_once(
    tmp_path_factory: pytest.TempPathFactory,
    reports: list[tuple[str, int, int, int, str]],
    compacted_after: set[int],
) -> None:
    """Per (run, step) the row of the highest attempt, however rows lie in parts and whenever these are put
    together.
    """
    directory = tmp_path_factory.mktemp("study")
    written = sorted(reports, key=lambda report: report[2:4])
    for index, (attempt, part) in enumerate(dict.fromkeys(report[2:4] for report in written)):
        rows = [report for report in written if report[2:4] == (attempt, part)]
        values = [metric_row(step, run_id, **{metric: 10.0 * attempt + part}) for run_id, step, _, _, metric in rows]
        write_metrics(directory, *values, attempt=attempt)
        if index in compacted_after:
            compact(directory, ["metrics"])
    newest = {report[:2]: report for report in written}  # the later in the order of attempts wins
    expected = [
        (*key, attempt, metric, 10.0 * attempt + part) for key, (_, _, attempt, part, metric) in sorted(newest.items())
    ]
    relation = load(directory).metrics
    seen = [dict(zip(relation.columns, row, strict=True)) for row in relation.order("run_id, step").fetchall()]
    metrics = [{m: row[m] for m in ("loss", "accuracy") if row.get(m) is not None} for row in seen]
    found = [
        (row["run_id"], row["step"], row["attempt"], *one.popitem()) for row, one in zip(seen, metrics, strict=True)
    ]
    assert found == expected
    assert not any(metrics)  # no row has taken a value from another


# ---------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_damaged_part_is_set_aside_and_named(tmp_path: Path, keep: int) -> None:
    for step in range(5):
        write_metrics(tmp_path, metric_row(step))
    damaged = parts(tmp_path, "metrics")[2].path
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:keep])
    study = load(tmp_path)
    with pytest.warns(UnreadablePartWarning, match=damaged.name) as caught:
        assert len(study.metrics.fetchall()) == 4
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(study.metrics.fetchall()) == 4  # says it once
    time.sleep(0.01)
    damaged.write_bytes(whole)
    assert len(study.metrics.fetchall()) == 5  # the copy has arrived


def test_a_part_that_points_nowhere_is_damaged(tmp_path: Path) -> None:
    write_metrics(tmp_path, metric_row(1))
    (part,) = parts(tmp_path, "metrics")
    part.path.with_name("c1.0001.000002.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UnreadablePartWarning, match="c1.0001.000002.parquet"):
        assert len(load(tmp_path).metrics.fetchall()) == 1


def test_a_table_of_which_nothing_can_be_read_is_empty(tmp_path: Path) -> None:
    write_metrics(tmp_path, metric_row(1))
    parts(tmp_path, "metrics")[0].path.write_bytes(b"")
    with pytest.warns(UnreadablePartWarning):
        assert load(tmp_path).metrics.fetchall() == []


# ------------------------------------------------------------------------------- reading beside a writer


def test_reading_while_a_writer_writes(tmp_path: Path) -> None:
    """What is seen is always whole: every step from 0 up to some last one, and never less than before."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.unit.test_store import WRITE_FOR_EVER; exec(WRITE_FOR_EVER)", str(tmp_path)],
        cwd=ROOT,
    )
    try:
        while not part_names(tmp_path):
            assert process.poll() is None
            time.sleep(0.01)
        study, counts = load(tmp_path), []
        for _ in range(10):
            count, last = study.query("SELECT count(*), max(step) FROM metrics").fetchall()[0]
            files = f"{tmp_path}/tables/metrics/*.parquet"
            plain = duckdb.execute(f"SELECT count(*) FROM read_parquet('{files}')").fetchall()[0][0]
            assert last == count - 1
            assert plain >= count
            counts.append(count)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_reading_while_parts_are_put_together(tmp_path: Path) -> None:
    for step in range(40):
        write_metrics(tmp_path, metric_row(step), attempt=1)
    study = load(tmp_path)
    done = threading.Event()

    def keep_compacting() -> None:
        for step in range(40, 50):
            write_metrics(tmp_path, metric_row(step), attempt=1)
            compact(tmp_path, ["metrics"])
        done.set()

    thread = threading.Thread(target=keep_compacting)
    thread.start()
    last = 40
    while not done.is_set():
        try:
            (count,) = study.query("SELECT count(*) FROM metrics").fetchall()[0]
        except (duckdb.IOException, RungError):  # parts that had been listed were removed: loud, never fewer rows
            continue
        assert count >= last
        last = count
    thread.join()
    assert len(study.metrics.fetchall()) == 50


class CompactedMeanwhile(Views):
    """Views of a study whose parts are put together right after they were listed for the first time."""

    def _listing(self, directory: Path, table: Table) -> list[str]:
        found = super()._listing(directory, table)
        compact(directory)
        return found


def test_rows_whose_part_has_gone_are_found_in_the_new_one(tmp_path: Path) -> None:
    for step in range(5):
        write_metrics(tmp_path, metric_row(step))
    views = CompactedMeanwhile(open_connection(), [tmp_path])
    views.refresh()
    assert len(views.connection.view("metrics").fetchall()) == 5


def test_a_relation_that_is_held_sees_what_a_later_look_found(tmp_path: Path) -> None:
    write_metrics(tmp_path, metric_row(1))
    study = load(tmp_path)
    held = study.metrics
    write_metrics(tmp_path, metric_row(2, new=1.0))
    assert len(study.metrics.fetchall()) == 2
    assert len(held.fetchall()) == 2


# ------------------------------------------------------------------------------------------ many studies


def two_studies(root: Path) -> tuple[Path, Path]:
    """Two studies of different trainables, one value and one metric of which are of another type in each."""
    arithmetic, stories = write_study(root, "arithmetic"), write_study(root, "stories")
    with TableWriter(arithmetic, "configurations", "driver") as writer:
        writer.add({**configuration_row("c1", modulus=31, warmup=None, decay=1, tied=True), "study": "arithmetic"})
    with TableWriter(stories, "configurations", "driver") as writer:
        writer.add({**configuration_row("c1", vocabulary=4096, warmup=100, decay=0.1, tied=2), "study": "stories"})
        writer.add({**configuration_row("c2", vocabulary=8192, warmup=0, decay=0, tied=3), "study": "stories"})
    write_metrics(arithmetic, {**metric_row(1, accuracy=0.5), "study": "arithmetic"})
    write_metrics(stories, {**metric_row(1, perplexity=20.0), "study": "stories"})
    return arithmetic, stories


def test_studies_of_different_trainables_are_one_set_of_tables(tmp_path: Path) -> None:
    connection = connect(*two_studies(tmp_path))
    configurations = connection.sql("SELECT * FROM configurations ORDER BY study, config_id")
    kinds = dict(zip(configurations.columns, map(str, configurations.types), strict=True))
    assert kinds["config.modulus"] == kinds["config.vocabulary"] == kinds["config.warmup"] == "BIGINT"
    assert kinds["config.decay"] == "DOUBLE"
    assert kinds["config.tied"] == "VARCHAR"  # bool beside integer: not numbers of one kind
    values = configurations.select('study, "config.modulus", "config.warmup", "config.decay", "config.tied"')
    assert values.fetchall() == [
        ("arithmetic", 31, None, 1.0, "true"),
        ("stories", None, 100, 0.1, "2"),
        ("stories", None, 0, 0.0, "3"),
    ]
    metrics = connection.sql("SELECT study, accuracy, perplexity FROM metrics ORDER BY study")
    assert metrics.fetchall() == [("arithmetic", 0.5, None), ("stories", None, 20.0)]
    assert connection.sql("SELECT * FROM generations").fetchall() == []


def test_equal_keys_in_different_studies_are_different_rows(tmp_path: Path) -> None:
    """Also where the studies have one name: a copy that was made on another machine."""
    original = write_study(tmp_path / "here", "demo")
    write_metrics(original, metric_row(1, loss=1.0), metric_row(2, loss=1.0))
    copy = Path(shutil.copytree(original, tmp_path / "there" / "demo"))
    assert len(connect(original, copy).sql("SELECT * FROM metrics").fetchall()) == 4
    assert len(connect(original, original).sql("SELECT * FROM metrics").fetchall()) == 2


def test_studies_are_connected_by_name(tmp_path: Path) -> None:
    two_studies(tmp_path)
    connection = connect("stories", "arithmetic", storage=tmp_path)
    assert connection.sql("SELECT DISTINCT study FROM metrics ORDER BY ALL").fetchall() == [
        ("arithmetic",),
        ("stories",),
    ]
    with pytest.raises(StorageError, match="no study 'nothing'"):
        connect("stories", "nothing", storage=tmp_path)


def test_a_query_is_over_all_studies_unless_some_are_named(tmp_path: Path) -> None:
    query = "SELECT DISTINCT study FROM metrics ORDER BY ALL"
    with pytest.raises(StorageError, match="no study in"):
        query_studies(query, storage=tmp_path)
    two_studies(tmp_path)
    assert query_studies(query, storage=tmp_path).fetchall() == [("arithmetic",), ("stories",)]
    assert query_studies(query, "stories", storage=tmp_path).fetchall() == [("stories",)]
    with pytest.raises(RungError, match="Candidate bindings"):
        query_studies("SELECT valeu FROM runs", storage=tmp_path)


def test_types_that_differ_between_parts_of_one_study_are_made_equal(tmp_path: Path) -> None:
    values: list[object] = [None, 1, 0.5, None]
    for index, value in enumerate(values):
        with TableWriter(tmp_path, "configurations", "driver") as writer:
            writer.add(configuration_row(f"c{index}", swept=value))
    query = 'SELECT "config.swept" FROM configurations ORDER BY config_id'
    assert load(tmp_path).query(query).fetchall() == [(None,), (1.0,), (0.5,), (None,)]
    with TableWriter(tmp_path, "configurations", "driver") as writer:
        writer.add(configuration_row("c4", swept="auto"))
    assert [value for (value,) in load(tmp_path).query(query).fetchall()] == [None, "1", "0.5", None, "auto"]


# ----------------------------------------------------------------------------------------------- queries


def test_a_wrong_query_says_what_is_wrong(tmp_path: Path) -> None:
    study = load(write_synthetic_study(tmp_path))
    with pytest.raises(RungError, match="Candidate bindings"):
        study.query("SELECT valeu FROM runs")
    with pytest.raises(RungError, match=r"a query is one SELECT over the tables.*; this is empty"):
        study.query("-- a comment")


@pytest.mark.parametrize("name", ["with space", "o'brien", "a[1]*b?", "seed=3", 'quo"te', "größe"])
def test_paths_are_taken_literally(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name / "demo"
    write_metrics(directory, metric_row(1, loss=0.5))
    write_metrics(tmp_path / "a1xxb1" / "demo", metric_row(2))  # what a[1]*b? would match as a pattern
    assert load(directory).query("SELECT step, seed FROM metrics").fetchall() == [(1, 0)]


def test_names_of_metrics_are_taken_literally(tmp_path: Path) -> None:
    names = ["validation/order_2/loss", "schema", "a b", "it's", 'say "x"', "select", "config.x", "größe"]
    write_metrics(tmp_path, {**metric_row(1), **{name: index for index, name in enumerate(names)}})
    write_metrics(tmp_path, metric_row(2, other=1.0))
    relation = load(tmp_path).metrics
    row = dict(zip(relation.columns, relation.order("step").fetchall()[0], strict=True))
    assert [row[name] for name in names] == list(range(len(names)))


def test_columns_that_differ_only_in_case_are_one_column(tmp_path: Path) -> None:
    """DuckDB does not tell them apart: two columns would be read as the first one twice."""
    one, other = write_study(tmp_path, "one"), write_study(tmp_path, "other")
    write_metrics(one, metric_row(1, loss=1.0))
    write_metrics(other, metric_row(1, Loss=2.0))
    assert connect(one, other).sql("SELECT loss FROM metrics ORDER BY ALL").fetchall() == [(1.0,), (2.0,)]
    assert len(connect(one, other).view("metrics").columns) == len(load(one).metrics.columns)


def test_reading_needs_no_heavy_library(tmp_path: Path) -> None:
    directory = write_synthetic_study(tmp_path)
    code = f"""
import sys
from rung.results.query import load
from rung.results.tables import export
study = load({str(directory)!r})
export(study.summary(), "markdown"), export(study.grokking(), "latex")
study.query("SELECT * FROM events").fetchall()
heavy = {{"pandas", "pyarrow", "torch", "ray", "scipy.stats", "matplotlib"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("sql", ["DROP VIEW runs", "SELECT 1; SELECT 2", "COPY runs TO '/nowhere/out.csv'"])
def test_a_query_only_reads_and_is_one_statement(tmp_path: Path, sql: str) -> None:
    with pytest.raises(RungError, match="a query is one SELECT"):
        load(write_synthetic_study(tmp_path)).query(sql)


def test_an_unknown_table_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RungError, match="The tables are configurations, runs, metrics"):
        load(write_synthetic_study(tmp_path)).query("SELECT * FROM nope")
