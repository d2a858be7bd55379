"""The report's page: whole, honest and safe for a study in any state."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from rung.errors import StorageError
from rung.results.query import StudyResults, load
from rung.results.report import render, write_report
from rung.results.report_facts import plan_in_words, savings, troubles
from rung.results.report_tables import configuration_table
from rung.results.rungs import configuration_state, rung_counts
from rung.results.snapshot import Snapshot, take_snapshot
from rung.results.statistics import MeanInterval
from rung.results.verdict import verdict
from tests.made_up_studies import SECONDS_PER_STEP, MadeUp, write_study
from tests.synthetic import PLAN, write_synthetic_study

HOSTILE = "<script>alert('x')</script> & \"quoted\""
_VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Row:
    """One row of a table: its text by column, and the full-precision numbers in it."""

    cells: list[str] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)


class Page(HTMLParser):
    """What a page holds, after checking that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.tags: set[str] = set()
        self.tables: dict[str, list[Row]] = {}
        self.captions: dict[str, str] = {}
        self.figures = 0
        self.labels: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._table = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, dict(attrs))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self._open.append(tag)
        self._note(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        inside = self._open[-1] if self._open else ""
        if inside in ("h1", "h2", "h3"):
            level, words = self.headings[-1]
            self.headings[-1] = (level, words + data)
        if "caption" in self._open:
            self.captions[self._table] += data
        elif self._table and {"td", "th"} & set(self._open):
            self.tables[self._table][-1].cells[-1] += data

    def _note(self, tag: str, attrs: dict[str, str | None]) -> None:
        self.tags.add(tag)
        if attrs.get("id"):
            self.ids.append(attrs["id"] or "")
        self.references += [value for name in ("src", "href", "action") if (value := attrs.get(name))]
        assert not any(name.startswith("on") for name in attrs)
        if tag in ("h1", "h2", "h3"):
            self.headings.append((int(tag[1]), ""))
        if tag == "svg":
            self.figures += 1
            self.labels.append(attrs["aria-label"] or "")
        if tag == "table":
            self._table = attrs["id"] or ""
            self.tables[self._table], self.captions[self._table] = [], ""
        if tag == "tr":
            self.tables[self._table].append(Row())
        if tag in ("td", "th"):
            self.tables[self._table][-1].cells.append("")
            self.tables[self._table][-1].numbers.append([])
        if tag == "data":
            self.tables[self._table][-1].numbers[-1].append(float(attrs["value"] or ""))


def _report(results: StudyResults) -> Page:
    """Write a report and check what is true of each."""
    path = write_report(results)
    assert path == results.directory / "report" / "report.html"
    text = path.read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    outside = [reference for reference in page.references if not reference.startswith(("#", "data:"))]
    assert outside == []
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)
    assert "http" not in "".join(text.split("<pre>")[::2])
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "img"}
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(level <= before + 1 for before, level in pairwise(levels))
    assert all(page.labels)
    assert all(page.captions.values())
    return page


def _column(page: Page, table: str, title: str) -> list[str]:
    heads = next(row.cells for row in page.tables[table] if title in row.cells)
    rows = page.tables[table][page.tables[table].index(next(r for r in page.tables[table] if r.cells == heads)) + 1 :]
    return [" ".join(row.cells[heads.index(title)].split()) for row in rows]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return load(write_synthetic_study(tmp_path_factory.mktemp("report")))


@pytest.fixture(scope="module")
def page(synthetic: StudyResults) -> Page:
    return _report(synthetic)


# -------------------------------------------------------------------------------------- a finished study


def test_page_has_every_section_and_figure(page: Page) -> None:
    assert [words for level, words in page.headings if level < 3] == [
        "synthetic",
        "Overview",
        "Learning curves",
        "Seeds",
        "Rungs",
        "Learning and generalisation",
        "Configurations",
        "What the models write",
        "Cost",
        "Failures and divergences",
        "Provenance",
    ]
    assert page.figures == 5


def test_figures_lie_beside_the_page(synthetic: StudyResults, page: Page) -> None:
    names = ["learning_curves", "loss_and_accuracy", "parameter_norm", "rungs", "seeds"]
    files = sorted(path.name for path in (synthetic.directory / "report").iterdir())
    assert files == sorted(["report.html", *(f"{name}.{kind}" for name in names for kind in ("png", "svg"))])


def test_configuration_table_is_the_summary(synthetic: StudyResults, page: Page) -> None:
    summary = synthetic.summary()
    rows = page.tables["table-configurations"][1:]
    assert len(rows) == len(summary) == 4
    for place, (row, entry) in enumerate(zip(rows, summary, strict=True), start=1):
        assert row.numbers[0] == [place]
        assert entry.label in row.cells[1]
        assert entry.config_id in row.cells[1]
        assert row.cells[3].strip() == f"{entry.n}/{entry.planned}"
        assert row.numbers[4] == [entry.mean]
        assert row.numbers[5] == [value for value in entry.values if value is not None]
        assert row.numbers[6] == [entry.level]
        assert row.numbers[9] == [entry.wall_seconds / 3600]


def test_states_are_told(page: Page) -> None:
    assert _column(page, "table-configurations", "state") == [
        "completed",
        "completed",
        "stopped",
        "completed 1 completed, 1 diverged, 1 failed",
    ]
    assert "7 completed, 3 stopped, 1 diverged, 1 failed" in page.text


def test_grokking_table_counts_what_is_censored(synthetic: StudyResults, page: Page) -> None:
    rows = page.tables["table-grokking"][2:]
    for row, expected in zip(rows, synthetic.grokking(), strict=True):
        assert row.numbers[3] == [expected.spreads["L_train"].mean]
        assert row.numbers[11:13] == [
            [expected.spreads["t_f(A)_validation"].mean],
            [expected.spreads["delta_t(A)"].mean],
        ]
    late = _column(page, "table-grokking", "≥ 0.9")[1]
    assert late.endswith("not reached 1/3")
    assert _column(page, "table-grokking", "≥ 0.99")[2] == "– not reached 3/3"


def test_decisions_are_all_there(synthetic: StudyResults, page: Page) -> None:
    reasons = [row[0] for row in synthetic.decisions.order('"order"').select("reason").fetchall()]
    assert _column(page, "table-decisions", "reason") == reasons
    assert _stripped(page.tables["table-rungs"])[1:] == [
        ["1,000", "4", "3", "1", "0", "0"],
        ["3,000", "3", "3", "0", "0", "0"],
        ["10,000", "3", "0", "0", "0", "3"],
    ]


def _stripped(rows: list[Row]) -> list[list[str]]:
    return [[" ".join(cell.split()) for cell in row.cells] for row in rows]


def test_verdict_is_honest(page: Page) -> None:
    assert "Best: gpt, weight_decay=1.0, with validation/accuracy 1 [1, 1]" in page.text
    assert "which takes at least 8 seeds to tell from chance" in page.text
    assert "optimistic until it is confirmed on fresh seeds" in page.text


def test_plan_is_a_product(page: Page) -> None:
    assert "2 × 2 = 4 configurations, × 3 seeds = 12 runs" in page.text


def test_cost_adds_up(page: Page) -> None:
    rows = {
        cells[0]: row
        for cells, row in zip(_stripped(page.tables["table-cost"]), page.tables["table-cost"], strict=True)
    }
    assert rows["all"].numbers[1] == [12]
    assert rows["all"].numbers[2] == [76_800]
    assert rows["all"].numbers[5][0] == pytest.approx(76_800 * 0.01 / 3600)
    # 3 runs stopped at 1,000 of 10,000 steps; 76,800 were taken.
    assert "Stopping 3 runs early saved about 0.075 core-hours and 27,000 steps, 26\u00a0% of" in page.text


def test_failures_are_told_with_their_texts(page: Page) -> None:
    assert "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed" in page.text
    assert f"{PLAN[2].label}, seed 1, step 2,300 ({PLAN[2].config_id}-s1)" in page.text


def test_provenance_is_complete(page: Page) -> None:
    (row,) = _stripped(page.tables["table-launches"])[1:]
    assert row[:3] == [
        "2026-01-05 09:00:00 UTC",
        "0123456789abcdef0123456789abcdef01234567 no uncommitted changes",
        "rung run search_spaces/modular_arithmetic/synthetic.yaml",
    ]
    assert row[-1] == "python 3.11.7, rung 0.1.0, ray 2.60.0, torch 2.13.0"
    assert "reduction_factor: 3" in page.text  # the study file itself


def test_same_rows_same_page(synthetic: StudyResults, page: Page) -> None:
    path = synthetic.directory / "report" / "report.html"
    before = path.read_bytes()
    write_report(load(synthetic.directory))
    assert path.read_bytes() == before


# --------------------------------------------------------------------------------- studies in other states


def test_study_without_a_row(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "empty", MadeUp({"a": [1, 2]}))
    shutil.rmtree(directory / "tables")
    page = _report(load(directory))
    assert page.figures == 0
    assert "No configuration has been planned yet." in page.text
    assert "No run has a value yet" in page.text
    assert "No launch was recorded." in page.text


def test_planned_study_without_a_run(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "planned", MadeUp({"a": [1, 2]}))
    for table in ("runs", "metrics"):
        shutil.rmtree(directory / "tables" / table)
    page = _report(load(directory))
    assert _column(page, "table-configurations", "state") == ["waiting", "waiting"]
    assert "8 not started" in page.text
    assert "No run has begun yet." in page.text


def test_unfinished_study(tmp_path: Path) -> None:
    ended = {(0, 1): ("running", 300, ""), (1, 0): ("running", 100, ""), (1, 1): ("running", -1, "")}
    directory = write_study(tmp_path / "half", MadeUp({"a": [1, 2]}, seeds=2, ended=ended))
    page = _report(load(directory))
    assert "Best so far: a=1" in page.text
    assert _column(page, "table-configurations", "state") == ["unfinished 1 completed, 1 running", "unfinished"]
    assert "This study is running." not in page.text
    with _driver(directory):
        page = _report(load(directory))
    assert "This study is running." in page.text
    assert _column(page, "table-configurations", "state")[1] == "running"


@contextmanager
def _driver(directory: Path) -> Iterator[None]:
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_study_with_one_seed(tmp_path: Path) -> None:
    page = _report(load(write_study(tmp_path / "one", MadeUp({"a": ["x", "y"]}, seeds=1))))
    assert "n = 1, so without an interval: nothing tells it from luck" in page.text
    assert "ahead of" not in page.text


def test_study_in_which_everything_failed(tmp_path: Path) -> None:
    text = f"Traceback (most recent call last):\n  File x\nValueError: {HOSTILE}"
    ended = {(index, seed): ("failed", 200 * index - 1, text) for index in range(3) for seed in range(2)}
    page = _report(load(write_study(tmp_path / "failed", MadeUp({"a": [1, 2, 3]}, seeds=2, ended=ended))))
    assert "No run has a value yet" in page.text
    assert _column(page, "table-configurations", "state") == ["failed"] * 3
    assert f"ValueError: {HOSTILE}" in page.text
    assert page.text.count("Traceback (most recent call last)") == 1  # the same text once, with all its runs
    assert "a=3, seed 1, step 300" in page.text


def test_hostile_texts_are_only_text(tmp_path: Path) -> None:
    made_up = MadeUp(
        {"a": [HOSTILE, "y\x1b[31m\u202e"]},
        seeds=2,
        ended={(1, 1): ("failed", 300, f"{HOSTILE}\x00")},
        study={"trainable": HOSTILE, "study": f"</title>{HOSTILE}", "scheduler": {"name": HOSTILE, "x": [HOSTILE]}},
        label=f"{{}} {HOSTILE}",
    )
    directory = write_study(tmp_path / "hostile", made_up)
    (directory / "provenance.json").write_text(
        json.dumps({"launches": [{"command": ["rung", HOSTILE], "commit": HOSTILE, "dirty": True}, {}]})
    )
    (directory / "study.yaml").write_bytes(b"study: </pre><script>x\xff\x00")
    page = _report(load(directory))
    assert page.headings[0] == (1, f"</title>{HOSTILE}")
    assert any(HOSTILE in label for label in page.labels)
    assert f"{HOSTILE}\ufffd" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "</pre><script>x" in page.text


def test_damaged_provenance_costs_only_its_section(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "damaged", MadeUp({"a": [1]}, seeds=1))
    (directory / "provenance.json").write_text('{"launches": [')
    (directory / "study.yaml").unlink()
    page = _report(load(directory))
    assert "No launch was recorded." in page.text
    assert "The study file" not in page.text


def test_confirmation_stands_beside_the_search(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "confirmed", MadeUp({"a": ["x", "y", "z"]}, seeds=3, confirmed=(0,)))
    results = load(directory)
    page = _report(results)
    (row,) = page.tables["table-confirm"][2:]
    (searched, *_), (confirmed,) = results.summary(), results.summary("confirm")
    assert row.numbers[4] == [searched.mean]
    assert row.numbers[6] == [confirmed.mean]
    assert [words for _, words in page.headings[1:4]] == ["Overview", "Confirmation", "Learning curves"]
    assert {"confirm.png", "confirm.svg"} <= {path.name for path in (directory / "report").iterdir()}
    assert "so it is optimistic; on fresh seeds it is" in page.text


def test_many_configurations_are_all_in_the_table(tmp_path: Path) -> None:
    count = 60
    made_up = MadeUp(
        {"a": list(range(count)), "b": list(range(count))},
        seeds=2,
        stopped=dict.fromkeys(range(20, count), 100),
    )
    page = _report(load(write_study(tmp_path / "many", made_up)))
    listed = "".join(_column(page, "table-configurations", "configuration"))
    assert all(made_up.config_id(index) in listed for index in range(count))
    assert len(page.tables["table-decisions"]) == 1 + count + 20


def test_study_without_a_description_is_refused(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "gone", MadeUp({"a": [1]}, seeds=1))
    (directory / "study.json").unlink()
    with pytest.raises(StorageError, match=r"study\.json"):
        write_report(load(directory))
    assert not (directory / "report").exists()


def test_page_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "blocked", MadeUp({"a": [1]}, seeds=1))
    (directory / "report" / "report.html").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot write .*report\.html"):
        write_report(load(directory))
    assert not list((directory / "report").glob(".*"))


# ------------------------------------------------------------------------------------------------ sentences


def said(snapshot: Snapshot) -> list[str]:
    return verdict(snapshot.study, snapshot.search, snapshot.confirmation, live=snapshot.live)


def test_plan_that_is_no_product_is_only_counted(tmp_path: Path) -> None:
    space = {"a": {"grid": [1, 2]}, "b": {"loguniform": [1e-4, 1e-2]}}
    made_up = MadeUp({"a": [1, 1, 2], "b": [0.1, 0.2, 0.3]}, seeds=1, study={"space": space, "samples": 2})
    directory = write_study(tmp_path / "conditional", made_up)
    assert plan_in_words(take_snapshot(load(directory))) == "3 configurations, × 1 seed = 3 runs"


def test_plan_with_samples(tmp_path: Path) -> None:
    space = {"a": {"grid": [1, 2]}, "b": {"loguniform": [1e-4, 1e-2]}}
    made_up = MadeUp({"a": [1, 1, 2, 2], "b": [1, 2, 3, 4]}, seeds=2, study={"space": space, "samples": 2})
    snapshot = take_snapshot(load(write_study(tmp_path / "sampled", made_up)))
    assert plan_in_words(snapshot) == "2 × 2 samples = 4 configurations, × 2 seeds = 8 runs"
    assert not savings(snapshot)


def test_a_clear_lead_is_called_one(tmp_path: Path) -> None:
    metric = {"name": "validation/loss", "mode": "min"}
    made_up = MadeUp({"a": ["x", "y"]}, seeds=6, metric=metric, steps=(0, 10_000), rungs=(10_000,))
    sentences = " ".join(said(take_snapshot(load(write_study(tmp_path / "lead", made_up)))))
    assert "Best: a=x, with validation/loss 0.0003" in sentences
    assert "ahead of the second, a=y, by 0.0003" in sentences
    assert "which these seeds tell from chance" in sentences


def test_equal_configurations_are_not_ahead(tmp_path: Path) -> None:
    snapshot = take_snapshot(load(write_study(tmp_path / "equal", MadeUp({"a": ["x", "y"]}, seeds=3))))
    equal = [replace(e, values=(0.5,) * 3, interval=MeanInterval(3, 0.5, 0.5, 0.5)) for e in snapshot.search]
    assert any("no better than the second" in text for text in said(replace(snapshot, search=equal)))


def test_savings_follow_the_pace_of_the_stopped(tmp_path: Path) -> None:
    made_up = MadeUp({"a": [1, 2]}, seeds=2, stopped={1: 100})
    text = savings(take_snapshot(load(write_study(tmp_path / "saved", made_up))))
    hours = 2 * 900 * SECONDS_PER_STEP / 3600  # two runs stopped 900 steps before the end
    assert f"about {hours:.3g} core-hours and 1,800 steps, 45 %" in text.replace("\u00a0", " ")


def test_waiting_configurations_are_not_decided(tmp_path: Path) -> None:
    made_up = MadeUp({"a": [1, 2, 3]}, seeds=1, stopped={2: 100}, ended={(0, 0): ("running", 400, "")})
    snapshot = take_snapshot(load(write_study(tmp_path / "waiting", made_up)))
    decided = [row for row in snapshot.decisions if row["level"] == 100]
    rungs = rung_counts(
        replace(snapshot, decisions=[row for row in decided if row["config_id"] != made_up.config_id(0)])
    )
    assert [(rung.level, rung.reported, rung.went_on, rung.stopped, rung.not_decided) for rung in rungs[:-1]] == [
        (100, 3, 1, 1, 1)
    ]
    assert rungs[-1].completed == 1


def test_long_errors_are_cut_and_grouped(tmp_path: Path) -> None:
    text = "first\n" + "x" * 50_000 + "\nlast line"
    ended = {(0, seed): ("failed", 100, text) for seed in range(20)}
    snapshot = take_snapshot(load(write_study(tmp_path / "long", MadeUp({"a": [1]}, seeds=20, ended=ended))))
    (trouble,) = troubles(snapshot)
    assert trouble.headline == "last line"
    assert len(trouble.text) < 9000
    assert len(trouble.runs) == 12
    assert trouble.more == 8


def test_states_of_a_configuration(synthetic: StudyResults) -> None:
    entry = synthetic.summary()[0]
    none = {"completed": 0, "stopped": 0, "diverged": 0, "failed": 0, "running": 0}
    cases = {
        "waiting": {},
        "completed": {"completed": 2, "diverged": 1},
        "diverged": {"diverged": 3},
        "failed": {"diverged": 1, "failed": 2},
        "stopped": {"stopped": 2, "failed": 1},
        "unfinished": {"completed": 2},
    }
    for state, counts in cases.items():
        assert configuration_state(replace(entry, **{**none, **counts}), live=False) == state
    assert configuration_state(replace(entry, **{**none, "completed": 2}), live=True) == "running"


def test_page_without_figures_can_be_rendered(synthetic: StudyResults) -> None:
    snapshot = take_snapshot(synthetic)
    page = Page(render(snapshot, [], {}, {}))
    assert page.figures == 0
    assert len(configuration_table(snapshot, {}).rows) == len(page.tables["table-configurations"]) - 1
