"""`rung replay`: the same numbers again, for whatever has become of a run; and what it says when they are others."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from rung.errors import RungError
from rung.plan import make_plan
from rung.provenance import record_launch
from rung.results.store import TableWriter
from rung.study import load_study, study_json
from rung.training.replication import start
from rung.tuning.goal import assignment_of
from rung.tuning.replay import Code, replay
from rung.tuning.replay_report import ReplayReport, compare
from rung.tuning.retraining import train_again
from rung.tuning.run_record import find_record
from rung.tuning.study_directory import configuration_rows, write_study
from tests.toy import Batch, Toy

SEEDS = 2


def train(
    directory: Path,
    levels: Sequence[float] = (10, 40),
    status: str | None = None,
    *,
    recorded: bool = False,
    **changes: Any,
) -> Path:
    """One launch of a study with one configuration, up to the last of `levels`, as a trial trains it.

    `status` is what the driver makes of runs that have not ended: `running`, or `stopped`; `recorded`: with a record
    of the launch and a copy of the code.
    """
    phase = changes.pop("phase", "search")
    content = {
        "study": directory.name,
        "trainable": "tests.toy:Toy",
        "base": {"evaluation": {"first": 1, "every": 7}} | changes.pop("base", {}),
        "seeds": SEEDS,
        "budget": {"steps": 40},
        "metric": {"name": "validation/loss", "mode": "min"},
        "storage": str(directory.parent),
        **changes,
    }
    directory.mkdir(exist_ok=True)
    (directory / "file.yaml").write_text(yaml.safe_dump(content))
    study = load_study(directory / "file.yaml")
    plan = make_plan(study)
    (configuration,) = plan.configurations
    write_study(directory, study, plan, "")
    launch = None
    if recorded:
        launch = record_launch(directory, study_json(study, plan), study.trainable, threads=1).number
    assignment = dataclasses.replace(assignment_of(study, plan, configuration, launch), phase=phase)
    with TableWriter(directory, "configurations", "driver") as configurations:
        configurations.add(next(configuration_rows(study, [configuration], launch)))
    replication = start(assignment)
    for level in levels:
        rows = replication.advance(level)
    replication.close()
    with TableWriter(directory, "runs", "driver") as runs:
        for row in rows:
            changed = {"status": status, "ended_by": "scheduler" if status == "stopped" else None} if status else {}
            runs.add({**row, "attempt": launch or 1, "revision": 0, **(changed if row["status"] == "running" else {})})
    return directory


def again(directory: Path, seed: int = 1, suffix: str = "") -> ReplayReport:
    (wanted,) = [run for run in run_ids(directory) if run.endswith(f"-s{seed}{suffix}")]
    report = replay(wanted, str(directory), lambda text: None, present=True)
    assert isinstance(report, ReplayReport)
    return report


def run_ids(directory: Path) -> list[str]:
    from rung.results.query import load

    return [run_id for (run_id,) in load(directory).runs.select("run_id").fetchall()]


LOSS = {"name": "validation/loss", "mode": "min"}

WAYS = {
    "at rungs of its own": {"levels": (10, 20, 40)},
    "without an evaluation at step 1": {"base": {"evaluation": {"every": 5}}},
    "stopped": {"levels": (10, 20), "status": "stopped"},
    "interrupted between its evaluations": {"levels": (10, 16), "status": "running"},
    "packed": {"replication": "packed"},
    "confirmed, with dropout": {"phase": "confirm", "base": {"model": {"dropout": 0.3}}},
    "in epochs, judged by its last three": {
        "budget": {"epochs": 4},
        "levels": (1, 2, 4),
        "metric": {**LOSS, "select": "mean_of_last", "window": 3},
        "base": {"schedule": {"kind": "cosine"}},
    },
    "in tokens, judged by its best": {
        "budget": {"tokens": 300},
        "levels": (100, 300),
        "metric": {**LOSS, "select": "best"},
    },
    "with a target that it has at once": {"budget": {"steps": 40, "target": {"value": 40.0}}},
    "with a target that it comes to": {"budget": {"steps": 40, "target": {"value": 0.3}}},
    "with a plateau schedule": {
        "base": {"schedule": {"kind": "plateau", "metric": "validation/loss", "patience": 1}, "noise": 3.0}
    },
    "failed": {"base": {"raise_for_seed": 1}},
    "failed after a rung": {"base": {"raise_for_seed": 1}, "levels": (2, 40)},
    "diverged in training": {"base": {"diverge_for_seed": 1}},
    "diverged at an evaluation": {"base": {"blow_up_for_seed": 1}, "levels": (10, 40)},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_gives_the_same_numbers_again(tmp_path: Path, way: str) -> None:
    directory = train(tmp_path / "toy", **WAYS[way])  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    report = again(directory, suffix="-confirm" if way.startswith("confirmed") else "")
    assert report.is_identical, report.render()
    few = {"failed": 2, "failed after a rung": 3, "diverged in training": 2, "with a target that it has at once": 1}
    assert report.reports == few[way] if way in few else report.reports >= 3
    assert re.match(r"identical: \d+ reports?, \d metrics each; ", report.render())
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_seconds_do_not_come_back_but_steps_do(tmp_path: Path) -> None:
    directory = train(tmp_path / "toy", levels=(0.05, 1), budget={"wall_clock": 1}, base={"seconds_per_step": 0.03})
    shown: list[str] = []
    (wanted,) = [run for run in run_ids(directory) if run.endswith("-s1")]
    report = replay(wanted, str(directory), shown.append, present=True)
    assert isinstance(report, ReplayReport)
    assert not report.differences, report.render()
    assert "as many steps as it took then" in shown[-1]


@pytest.mark.parametrize("first", [10, 14])
def test_a_run_that_a_later_launch_has_extended(tmp_path: Path, first: int) -> None:
    # At the end of the first budget the run is evaluated as at an end: that may count as its best, also at a step
    # (10) where no evaluation was due.
    metric = {"name": "validation/loss", "mode": "min", "select": "best"}
    train(tmp_path / "toy", levels=(first,), budget={"steps": first}, metric=metric, recorded=True)
    directory = train(tmp_path / "toy", levels=(40,), budget={"steps": 40}, metric=metric, recorded=True)
    record = find_record(run_ids(directory)[0], str(directory))
    assert {report["launch"] for report in record.reports} == {1, 2}
    report = again(directory)
    assert report.is_identical, report.render()


def test_changed_arithmetic_is_found_with_step_and_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = train(tmp_path / "toy", recorded=True)
    draw = Toy.at

    def changed(self: Toy, position: int, policy: Any) -> Batch:
        batch = draw(self, position, policy)
        return batch if position < 20 else dataclasses.replace(batch, y=batch.y + 0.01)

    monkeypatch.setattr(Toy, "at", changed)
    report = again(directory)
    assert not report.is_identical
    assert report.differences[0].step == 21
    assert "validation/loss" in {each.name for each in report.differences if each.step == 21}
    text = report.render()
    assert re.match(r"different: 4 of 9 reports differ, first at step 21", text), text
    assert re.search(r"  validation/loss: \S+ on record, \S+ here \(difference \S+e-\d+\)", text)
    assert "  value: " in text
    assert "as far as it is on record" in text


def test_a_changed_environment_is_told(tmp_path: Path) -> None:
    directory = train(tmp_path / "toy", recorded=True)
    path = directory / "provenance.json"
    record = json.loads(path.read_text())
    launch = record["launches"][0]
    launch["processor"], launch["versions"]["torch"] = "another one", "1.0"
    launch["environment"]["CUDA_VISIBLE_DEVICES"] = "3"
    launch["data"] = [{"path": str(tmp_path / "words"), "bytes": 3, "modified_ns": 1, "sha256": "ab" * 32}]
    path.write_text(json.dumps(record))
    report = again(directory)
    assert report.is_identical
    text = report.render()
    assert "processor: another one then, " in text
    assert "torch: 1.0 then, " in text
    assert "CUDA_VISIBLE_DEVICES: 3 then, not set now" in text
    assert "words: sha256 abababababab then, No such file" in text


def test_changed_code_is_named(tmp_path: Path) -> None:
    directory = train(tmp_path / "toy", recorded=True)
    (copy,) = [path for path in (directory / "code").iterdir() if path.is_dir()]
    toy = copy / "tests" / "toy.py"
    toy.chmod(0o644)
    toy.write_text(toy.read_text() + "\n")
    report = again(directory)
    assert [name for name, _, _ in report.environment] == ["code"]
    assert "tests/toy.py" in report.render()


def test_reports_of_launches_with_different_code_are_told(tmp_path: Path) -> None:
    train(tmp_path / "toy", levels=(20,), budget={"steps": 20}, recorded=True)
    directory = train(tmp_path / "toy", levels=(40,), recorded=True)
    path = directory / "provenance.json"
    record = json.loads(path.read_text())
    record["launches"][0]["code"]["hash"] = "0" * 12
    path.write_text(json.dumps(record))
    text = again(directory).render()
    assert re.search(r"code of its reports: 000000000000 of launch 1, \w{12} of launch 2 then, only that of", text)


def test_a_lost_report_is_a_difference(tmp_path: Path) -> None:
    directory = train(tmp_path / "toy")
    record = find_record(run_ids(directory)[0], str(directory))
    lost = dataclasses.replace(record, reports=[each for each in record.reports if each["step"] != 14])
    report = compare(lost, train_again(lost), Code(None))
    assert [(each.step, each.name, each.there) for each in report.differences] == [(14, "report", "none")]


def test_a_run_is_found_by_the_beginning_of_its_id_in_all_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "first")
    train(tmp_path / "second", base={"noise": 0.2})
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path))
    first, second = (sorted(run_ids(tmp_path / name)) for name in ("first", "second"))
    assert find_record(second[1]).directory == tmp_path / "second"
    with pytest.raises(RungError, match=f"2 runs have an id that begins .*:\n  {first[0]}  seed 0, study first"):
        find_record(first[0][:-3])
    with pytest.raises(RungError, match=f"no run is called .* did you mean {first[0]}"):
        find_record(first[0].replace(first[0][5], "x"))
    with pytest.raises(RungError, match="the 4 runs of the 2 studies"):
        find_record("z")
    train(tmp_path / "third")
    with pytest.raises(RungError, match="--study NAME"):
        find_record(first[0])
    assert find_record(first[0], "third").directory == tmp_path / "third"


def test_a_run_without_reports_cannot_be_compared(tmp_path: Path) -> None:
    directory = train(tmp_path / "toy", levels=(10,), base={"raise_for_seed": 1})
    for part in (directory / "tables" / "metrics").iterdir():
        part.unlink()
    with pytest.raises(RungError, match="has not reported anything"):
        again(directory)


def test_a_configuration_that_the_present_code_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = train(tmp_path / "toy")
    monkeypatch.setattr(Toy, "Config", type(Toy.Config.__name__, (Toy.Config.__base__,), {}))
    with pytest.raises(RungError, match="without --present the recorded code is run"):
        again(directory)


def test_the_way_from_a_row_to_its_code_is_as_the_page_shows_it(tmp_path: Path) -> None:
    directory = train(tmp_path / "small", recorded=True)
    page = (Path(__file__).resolve().parents[2] / "docs" / "provenance.md").read_text()
    (sql,) = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    sql = sql.replace("results/small", str(directory)).replace("validation/accuracy", "validation/loss")
    sql = re.sub(r"run_id = '.*'.*", f"run_id = '{run_ids(directory)[0]}' AND step = 40", sql)
    ((step, _, launch, _, _, _, _, _, code),) = duckdb.sql(sql).fetchall()
    assert (step, launch) == (40, 1)
    assert (directory / code / "rung" / "training" / "loop.py").is_file()
