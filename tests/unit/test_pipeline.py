"""Pipelines: their files, the plan of their stages, what a launch trains and leaves alone, and what is shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rung.errors import RungError, StorageError
from rung.pipeline import is_pipeline, load_pipeline
from rung.pipeline_plan import plan_stages
from rung.pipeline_view import render_pipeline_results, render_pipeline_status, render_plans
from rung.results.export import export
from rung.results.pipeline import PipelineResults, find_pipeline
from rung.results.pipeline_report import write_pipeline_report
from rung.results.query import load
from rung.results.views import dicts
from rung.study import Study, load_study
from rung.tuning import pipeline as driver
from rung.tuning.retention import keep_checkpoints
from rung.tuning.study_directory import open_study
from rung.tuning.sweep import Outcome
from tests.launching import runs, train_search

ROOT = Path(__file__).resolve().parents[2]

TOY: dict[str, Any] = {
    "trainable": "tests.toy:Toy",
    "base": {"evaluation": {"every": 5}},
    "seeds": 2,
    "budget": {"steps": 10},
    "metric": {"name": "validation/loss"},
}
FIRST = {"study": "first", **TOY, "space": {"optimizer.learning_rate": [0.01, 0.1]}}
SECOND = {"study": "second", **TOY, "start": {"study": "first"}}
LAST = {**TOY, "study": "last", "start": {"study": "second"}, "budget": {"steps": 0}}


def write(folder: Path, **files: Any) -> Path:
    """Writes study files, and a pipeline of them, whose path is returned; `more` are keys of the pipeline."""
    more = files.pop("more", {})
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    path = folder / "pipeline.yaml"
    stages = [f"{name}.yaml" for name in files]
    path.write_text(yaml.safe_dump({"pipeline": "toys", "stages": stages, **more}, sort_keys=False))
    return path


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


# The file.


def test_what_is_set_closer_to_the_stage_or_later_wins(tmp_path: Path) -> None:
    more = {
        "stages": ["first.yaml", {"study": "second.yaml", "set": {"budget.steps": 20, "base.noise": 1e-05}}],
        "set": {"budget": {"steps": 30}, "seeds": [5, 6], "space.model.width": {"grid": [2, 4]}},
    }
    path = write(tmp_path, first=FIRST, second=SECOND, more=more)
    assert is_pipeline(path)
    assert not is_pipeline(tmp_path / "first.yaml")
    pipeline = load_pipeline(path)
    first, second = (stage.study for stage in pipeline.stages)
    assert (first.budget.steps, second.budget.steps) == (30, 20)
    assert second.base == {"evaluation": {"every": 5}, "noise": 1e-05}
    assert list(first.seeds) == list(second.seeds) == [5, 6]
    assert [dimension.path for dimension in first.dimensions] == ["optimizer.learning_rate", "model.width"]
    assert pipeline.directory == tmp_path / "results" / "toys"
    given = ["second.budget.steps=40", "seeds=3", "second.seeds=2", "second.study=renamed"]
    first, second = (stage.study for stage in load_pipeline(path, given).stages)
    assert (first.budget.steps, second.budget.steps) == (30, 40)
    assert (len(first.seeds), len(second.seeds), second.study) == (3, 2, "renamed")


def test_every_problem_of_every_file_is_named_where_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(yaml.safe_dump({**FIRST, "sedes": 3}, sort_keys=False))
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(SECOND))
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "pipeline: toys\nstages:\n  - first.yaml\n  - study: second.yaml\n    set: {budgt.steps: 3}\n  - third.yaml\n"
        "set:\n  base.evaluation.evry: 5\n"
    )
    with pytest.raises(RungError) as error:
        load_pipeline(path, ["second.seeds=none", "secnd.seeds=2", "sed=2"])
    lines = str(error.value).splitlines()
    expected = [
        "pipeline.yaml:5: stages[1].set.budgt: unknown key (did you mean 'budget'?)",
        "pipeline.yaml:8: set.base.evaluation.evry: unknown key (did you mean 'every'?)",
        "pipeline.yaml:6: stages[2]: third.yaml: there is no such file (in",
        "--set second.seeds=none: seeds: expected how many seeds or a list of them, got 'none'",
        "--set secnd.seeds=2: secnd.seeds: neither a stage of the pipeline nor a key of a study (did you mean",
        "--set sed=2: sed: neither a stage",
        "first.yaml:15: sedes: unknown key (did you mean 'seeds'?)",
    ]
    for text in expected:
        assert any(text.replace("third", f"{tmp_path}/third") in line for line in lines), (text, lines)
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"stages": []}, "pipeline.yaml:2: stages: needs at least 1 item"),
        ({"pipeline": "a/b"}, "the name is also a folder's"),
        ({"stagse": []}, "did you mean 'stages'"),
        ({"pipeline": "first"}, "pipeline: a stage has the same name"),
        (
            {"stages": ["second.yaml", "first.yaml"]},
            "stages[0]: second starts from first, which does not run before it",
        ),
        ({"stages": ["first.yaml", "first.yaml"]}, "stages[1]: two stages are called 'first'"),
        ({"set": {"start.study": "first"}}, "stages[0]: first starts from first, which does not run before it"),
        ({"stages": [{"study": "first.yaml", "set": {"study": "seeds"}}]}, "--set could mean either"),
        ({"stages": ["first.yaml", {"study": "second.yaml", "set": {"storage": "x"}}]}, "the storage of second is x"),
        ({"stages": ["first.yaml", {"study": "second.yaml", "set": {"seeds": 3}}]}, "has seed 2, and first"),
        (
            {"stages": ["first.yaml", {"study": "second.yaml", "set": {"start.configuration.top": 2}}]},
            "starts from 2 of first, which keeps the checkpoints of 1 (checkpoints.keep)",
        ),
        ({"stages": ["first.yaml", {"study": "second.yaml", "set": {"confirm.seeds": 2}}]}, "first, whose runs with"),
    ],
)
def test_stages_that_do_not_fit_together_are_refused(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    path = write(tmp_path, first=FIRST, second=SECOND, more=more)
    with pytest.raises(RungError) as error:
        load_pipeline(path)
    assert says in str(error.value)


def test_a_pipeline_is_no_study(tmp_path: Path) -> None:
    path = write(tmp_path, first=FIRST)
    with pytest.raises(RungError, match=r"pipeline.yaml:1: pipeline: this is a pipeline, where one study is wanted"):
        load_study(path)


# The plan.


def shown(renderable: Any, width: int = 160) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_plan_assumes_what_earlier_stages_have_not_settled_yet(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, first=FIRST, second=SECOND, last=LAST))
    plans = plan_stages(pipeline)
    assert [each.is_assumed for each in plans] == [False, True, True]
    assert plans[1].plan.configurations[0].config.start is not None
    assert not (tmp_path / "results").exists()
    text = shown(render_plans(pipeline, plans, list_configurations=False, width=160))
    assert "2 second  waits  ~ first" in text
    assert "learning_rate=0.1" in shown(render_plans(pipeline, plans, list_configurations=True, width=160))


def test_what_is_outside_of_the_pipeline_must_be_there_before_anything_starts(tmp_path: Path) -> None:
    pipeline = load_pipeline(write(tmp_path, first=FIRST, second={**SECOND, "start": {"study": "elsewhere"}}))
    with pytest.raises(RungError, match=r"stage second: .*elsewhere, which has not been run"):
        plan_stages(pipeline)


# Running, in this process and without Ray; `test_pipeline.py` among the integration tests has Ray.


@dataclass
class Launches:
    """Runs pipelines and notes which studies were opened."""

    opened: list[str]
    interrupted: str = ""
    """Ctrl-C comes when this study is about to be opened."""

    def sweep(self, study: Study, plan: Any, text: str, console: Console, debug: bool = False) -> Outcome:
        """What `run_sweep` does."""
        directory = study.directory.resolve()
        if study.study == self.interrupted:
            raise KeyboardInterrupt
        self.opened.append(study.study)
        opened = open_study(directory, study, plan, text)
        was_complete = opened.search.is_complete
        train_search(opened)
        keep_checkpoints(directory, study.checkpoints.keep)
        return Outcome(directory, dict(opened.search.states), opened.search.failed_runs(), was_complete)

    def run(self, path: Path, *overrides: str) -> tuple[driver.PipelineOutcome, str]:
        """One launch; what it printed."""
        console = Console(file=StringIO(), width=160)
        self.opened.clear()
        outcome = driver.run_pipeline(load_pipeline(path, overrides), console, lambda ended: None)
        return outcome, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    made = Launches([])
    monkeypatch.setattr(driver, "run_sweep", made.sweep)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline of three stages that has run to its end."""
    folder = tmp_path_factory.mktemp("pipeline")
    path = write(folder, first=FIRST, second=SECOND, last=LAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_STORAGE", str(folder / "results"))
        launches = Launches([])
        patch.setattr(driver, "run_sweep", launches.sweep)
        outcome, printed = launches.run(path)
    assert (outcome.failed_stage, outcome.was_complete) == (None, False)
    assert launches.opened == ["first", "second", "last"]
    assert "starts from first: c" in printed
    return folder


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> PipelineResults:
    """A copy of it, in the storage of this test."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("code"))
    return PipelineResults(tmp_path / "results" / "toys")


def states(directory: Path) -> list[str]:
    return [stage.state for stage in PipelineResults(directory).stages()]


def test_an_interrupted_pipeline_goes_on_and_repeats_nothing(
    trained: Path, tmp_path: Path, storage: Path, launches: Launches
) -> None:
    path, toys = write(tmp_path, first=FIRST, second=SECOND), PipelineResults(storage / "toys")
    launches.interrupted = "first"
    with pytest.raises(KeyboardInterrupt):
        launches.run(path)
    text = write_pipeline_report(toys).read_text()
    assert "0 of 2 stages are complete; first was interrupted: the same command goes on." in text
    assert "No stage has begun yet." in text
    assert "<svg" not in text
    assert "interrupted" in shown(render_pipeline_results(toys, 80), 80)

    launches.interrupted = "second"
    with pytest.raises(KeyboardInterrupt):
        launches.run(path)
    assert states(toys.directory) == ["complete", "interrupted"]
    status = shown(render_pipeline_status(toys, decisions=False, width=160))
    assert "go on with: " in status
    assert "2 second  interrupted" in status

    launches.interrupted = ""
    assert not launches.run(path)[0].was_complete
    assert launches.opened == ["second"]
    assert states(toys.directory) == ["complete"] * 2
    assert launches.run(path)[0].was_complete
    assert launches.opened == []
    assert len(toys.record["launches"]) == 4
    for name in ("first", "second"):
        assert runs(storage / name, "value") == runs(trained / "results" / name, "value")


def test_a_changed_input_makes_what_comes_after_it_new_and_more_seeds_do_not(
    finished: PipelineResults, tmp_path: Path, storage: Path, launches: Launches
) -> None:
    path = write(tmp_path, first=FIRST, second=SECOND)
    before = {name: runs(storage / name, "value") for name in ("first", "second")}
    _, printed = launches.run(path, "second.base.noise=0.5")
    (second,) = launches.opened
    assert second.startswith("second-")
    assert "began from other inputs and stays" in printed
    stages = finished.stages()
    assert [stage.folder for stage in stages] == ["first", second]
    assert [stage.earlier for stage in stages] == [(), ("second",)]
    assert stages[1].origins[0].study == "first"

    launches.run(path)  # and back: all of it is there
    assert launches.opened == []
    assert [stage.earlier for stage in finished.stages()] == [(), (second,)]
    assert finished.stages()[1].seconds > 0

    plans = plan_stages(load_pipeline(path, ["first.base.noise=0.5"]))
    assert plans[0].is_renamed
    assert plans[1].is_assumed  # on what the new first stage will have left

    launches.run(path, "seeds=3")
    assert launches.opened == ["first", "second"]
    for name, values in before.items():
        assert values.items() < runs(storage / name, "value").items()


def test_nobody_starts_from_runs_that_have_failed(tmp_path: Path, storage: Path, launches: Launches) -> None:
    path = write(tmp_path, first={**FIRST, "space": {}, "base": {"raise_for_seed": 1}}, second=SECOND)
    outcome, _ = launches.run(path)
    assert outcome.failed_stage == "first"
    assert states(storage / "toys") == ["failed", "waiting"]


def test_a_pipeline_does_not_take_the_folder_of_a_study(
    finished: PipelineResults, tmp_path: Path, launches: Launches
) -> None:
    path = write(tmp_path, second={**FIRST, "study": "other"}, more={"pipeline": "first"})
    with pytest.raises(RungError, match="holds a study: give the pipeline another name"):
        launches.run(path)


# What is shown.


def test_a_pipeline_is_found_by_name_folder_and_file(finished: PipelineResults, tmp_path: Path) -> None:
    directory = finished.directory
    for where in ("toys", directory, tmp_path / "pipeline.yaml", directory / "pipeline.yaml"):
        found = find_pipeline(where)
        assert found is not None, where
        assert found.directory.resolve() == directory
    for where in ("first", tmp_path / "first.yaml", "nowhere", "nowhere.yaml"):
        assert find_pipeline(where) is None
    other = write(tmp_path, first=FIRST, more={"pipeline": "not-begun", "set": {"storage": str(tmp_path / "there")}})
    with pytest.raises(StorageError, match=r"'not-begun' has not begun: looked for .*there/not-begun"):
        find_pipeline(other)


def test_results_name_what_every_stage_started_from_and_reached(finished: PipelineResults) -> None:
    first, second, last = finished.stages()
    assert (first.origins, len(second.origins), len(last.origins)) == ((), 1, 1)
    row = dicts(load(finished.directory.parent / "last").configurations)[0]
    assert last.origins[0].weights == row["config.start.weights"]
    assert second.origins[0].config_id == first.entries[0].config_id
    text = shown(render_pipeline_results(finished, 200), 200)
    assert "3 of 3 stages complete" in text
    assert f"first: {first.entries[0].label}" in text
    stages = json.loads(export(finished.stages(), "json"))
    assert [stage["study"] for stage in stages] == ["first", "second", "last"]
    assert stages[1]["mean"] == pytest.approx(sum(stages[1]["values"]) / 2)
    assert export(finished.stages(), "csv").count("\n") == 4


def test_the_page_leads_to_the_stages_and_escapes_what_users_write(finished: PipelineResults) -> None:
    (finished.directory.parent / "second" / "report").mkdir()
    (finished.directory.parent / "second" / "report" / "report.html").write_text("its page")
    (finished.directory / "pipeline.yaml").write_text("pipeline: <script>alert(1)</script>")
    page = write_pipeline_report(finished)
    text = page.read_text()
    assert "All 3 stages are complete." in text
    assert (page.parent / "stages.png").stat().st_size > 10_000
    assert '<a href="../../second/report/report.html">second</a>' in text
    assert (page.parent / "../../second/report/report.html").resolve().is_file()
    assert "../../last/report" not in text
    assert "<script>" not in text


def test_verbs_that_read_a_pipeline_import_neither_ray_nor_torch(finished: PipelineResults, tmp_path: Path) -> None:
    code = """
import sys
from rung import cli
from rung.results.pipeline import find_pipeline
from rung.results.pipeline_report import write_pipeline_report
for verb in ("plan pipeline.yaml", "status toys", "results toys"):
    cli.app(verb.split(), standalone_mode=False)
print(write_pipeline_report(find_pipeline("toys")))
print("HEAVY:", [name for name in ("ray", "torch") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["HEAVY: []"], done.stdout + done.stderr
    assert "nothing left to do" in done.stdout
