"""The study key `tracking`, where its rows would go, what W&B is told about a run. Nothing here imports wandb."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import rung.wandb.tables
from rung.errors import RungError, StudyError
from rung.extension import BegunStudy, extended
from rung.plan import make_plan
from rung.results.parts import parts
from rung.results.store import compact
from rung.study import load_study, study_json
from rung.tracking import TrackingChoice, WandbChoice, tracked
from rung.wandb.description import Stage, default_project, describe, other_names, stage_of
from rung.wandb.destination import destination_of
from rung.wandb.messages import cause
from rung.wandb.mirror import Mirror
from rung.wandb.sender import history_row
from rung.wandb.tables import StudyTables
from tests.synthetic import PLAN, write_synthetic_study

STUDY = """
study: toy
trainable: tests.toy:Toy
base: {{evaluation: {{every: 5}}}}
space: {{optimizer.learning_rate: {{grid: [0.01, 0.1]}}}}
seeds: 2
budget: {{steps: 10}}
metric: {{name: validation/loss}}
storage: {storage}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(STUDY.format(storage=tmp_path / "results"))
    return path


# The key.


def test_tracking_is_off_unless_a_study_asks_for_it(file: Path, tmp_path: Path) -> None:
    assert load_study(file).tracking.wandb is None
    assert load_study(file, ["tracking.wandb={}"]).tracking.wandb == WandbChoice()
    with tracked(TrackingChoice(), tmp_path, console=None) as nothing:  # type: ignore[arg-type]
        assert nothing is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tracking.wandb.projct=x", "did you mean 'project'"),
        ("tracking.wandb.mode=ofline", "did you mean 'offline'"),
        ("tracking.wandb.project=a/b", "tracking.wandb.project"),
        ("tracking.wandb.samples=-1", "tracking.wandb.samples"),
        (f"tracking.wandb.tags=['{'x' * 65}']", "tracking.wandb.tags"),
        ("tracking.mlflow={}", "unknown key"),
    ],
)
def test_mistakes_in_it_are_named(file: Path, override: str, says: str) -> None:
    with pytest.raises(StudyError, match="tracking") as caught:
        load_study(file, [override])
    assert says in str(caught.value)


def test_it_may_come_and_go_without_another_study(file: Path) -> None:
    without, with_it = load_study(file), load_study(file, ["tracking.wandb={}"])
    for before, after in ((without, with_it), (with_it, without)):
        begun = BegunStudy(file.parent, study_json(before, make_plan(before)), frozenset())
        assert extended(make_plan(after), begun)[1] == []
    kept = study_json(with_it, make_plan(with_it))["tracking"]
    assert WandbChoice.model_validate(kept["wandb"]) == WandbChoice()


# Where rows go.


@pytest.mark.parametrize(
    ("mode", "variables", "expected"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_API_KEY": "x"}, "online"),
        ("offline", {"WANDB_API_KEY": "x"}, "offline"),
        ("online", {"WANDB_MODE": "offline", "WANDB_API_KEY": "x"}, "offline"),
        ("offline", {"WANDB_MODE": "run", "WANDB_API_KEY": "x"}, "online"),
        (None, {"WANDB_MODE": "dryrun", "WANDB_API_KEY": "x"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "disabled"),
        ("online", {"WANDB_DISABLED": "true"}, "disabled"),
        (None, {"NETRC": "netrc"}, "online"),
        (None, {"NETRC": "netrc", "WANDB_BASE_URL": "https://wandb.example.org"}, "offline"),
        (None, {"NETRC": "damaged"}, "offline"),
    ],
)
def test_the_mode_is_what_the_machine_and_the_study_say(
    tmp_path: Path, mode: Any, variables: dict[str, str], expected: str
) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret")
    (tmp_path / "damaged").write_text("machine")
    variables = {name: str(tmp_path / text) if name == "NETRC" else text for name, text in variables.items()}
    environment = {"HOME": str(tmp_path), **variables}
    assert destination_of(WandbChoice(mode=mode), "toy", tmp_path, environment).mode == expected


@pytest.mark.parametrize(
    ("mode", "variables", "says"),
    [("online", {}, "there is no key for https://api.wandb.ai"), (None, {"WANDB_MODE": "onlin"}, "expected online")],
)
def test_what_cannot_work_is_refused_before_wandb_asks_for_a_key(
    tmp_path: Path, mode: Any, variables: dict[str, str], says: str
) -> None:
    with pytest.raises(RungError, match=says):
        destination_of(WandbChoice(mode=mode), "toy", tmp_path, {"HOME": str(tmp_path), **variables})


def test_the_study_names_the_project_before_the_machine_does(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team", "WANDB_DIR": str(tmp_path)}
    mine = destination_of(WandbChoice(project="mine"), "toy", tmp_path / "toy", variables)
    theirs = destination_of(WandbChoice(), "toy", tmp_path / "toy", variables)
    neither = destination_of(WandbChoice(), "toy", tmp_path / "toy", {"HOME": str(tmp_path)})
    assert [each.project for each in (mine, theirs, neither)] == ["mine", "theirs", "toy"]
    assert (mine.entity, mine.root, neither.root) == ("team", tmp_path, tmp_path / "toy")


# What a run is called.

CONFIGURATION = {
    "config_id": "c0123456789ab",
    "label": "gpt, weight_decay=0.5",
    "trainable": "tests.toy:Toy",
    "config_json": '{"model": {"width": 4}}',
}
RUN = {"run_id": "c0123456789ab-s3", "config_id": "c0123456789ab", "seed": 3, "phase": "search"}
RESOLVED: dict[str, Any] = {"study": "demo", "trainable": "toy", "seeds": [3], "budget": {}, "metric": {}}


def told(birth: str = "2026-01-01", stage: Stage | None = None, choice: WandbChoice | None = None, **run: Any) -> Any:
    return describe(RESOLVED, birth, stage, choice or WandbChoice(), CONFIGURATION, {**RUN, **run})


def test_a_run_is_found_by_seed_in_the_group_of_its_configuration() -> None:
    found = told(choice=WandbChoice(tags=("homework", "demo"), notes="first try"))
    assert (found.group, found.job_type, found.name) == ("gpt, weight_decay=0.5 (c0123456789ab)", "search", "seed 3")
    assert found.tags == ("demo", "toy", "homework")
    assert found.notes == "first try\ngpt, weight_decay=0.5, seed 3\nrung replay c0123456789ab-s3 --study demo"
    assert found.config["model"] == {"width": 4}
    assert (found.config["seed"], found.config["rung"]["run_id"]) == (3, "c0123456789ab-s3")


def test_its_id_lasts_and_is_that_of_no_other_study_of_the_same_name() -> None:
    assert told().wandb_id == told(choice=WandbChoice(notes="other")).wandb_id
    assert told().wandb_id.startswith("c0123456789ab-s3-")
    assert told("2026-01-02").wandb_id != told().wandb_id


def test_a_stage_is_the_job_type_in_a_pipelines_project() -> None:
    stage = Stage("arithmetic", "instruction")
    assert told(stage=stage).job_type == "instruction"
    assert told(stage=stage, phase="confirm").job_type == "instruction, confirm"
    assert "arithmetic" in told(stage=stage).tags
    assert default_project(RESOLVED, stage) == "arithmetic"
    assert default_project({"study": "demo.solo"}, None) == "demo"


def test_long_labels_and_names_are_cut_to_what_wandb_takes() -> None:
    configuration = {**CONFIGURATION, "label": "x" * 300}
    study = {**RESOLVED, "study": "y" * 100}
    found = describe(study, "", None, WandbChoice(), configuration, RUN)
    assert len(found.group) == 128
    assert found.group.endswith(" (c0123456789ab)")
    assert max(map(len, found.tags)) == 64


def test_the_stage_is_found_from_the_record_of_a_pipeline_beside_the_study(tmp_path: Path) -> None:
    for name, text in {"damaged": "{", "other": '{"pipeline": "other", "stages": []}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.json").write_text(text)
    stages = [{"study": "tuning", "folders": {"tuning": {}, "tuning-1a2b3c": {}}}]
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "pipeline.json").write_text(json.dumps({"pipeline": "whole", "stages": stages}))
    assert stage_of(tmp_path / "tuning-1a2b3c") == Stage("whole", "tuning")
    assert stage_of(tmp_path / "elsewhere") is None


def test_metrics_keep_their_names_where_the_trainable_is_gone() -> None:
    assert other_names({**CONFIGURATION, "trainable": "gone:Gone"}) == {}
    assert other_names({**CONFIGURATION, "config_json": '{"new_field": 1}'}) == {}
    assert other_names(CONFIGURATION) == {}


def test_an_error_is_told_in_one_short_line() -> None:
    assert cause(RungError("no disk.\n  at all.")) == "no disk. at all"
    assert cause(ValueError()) == "ValueError: ValueError"
    assert len(cause(RungError("x" * 1000))) < 310


def test_a_row_has_the_names_that_the_trainable_gives_and_no_missing_metric() -> None:
    report = {"run_id": "c-s0", "attempt": 1, "step": 4, "epoch": None, "tokens": 8, "wall_seconds": 0.5}
    metrics = {"batch/loss": 0.25, "test/pass@1": 0.5, "test/pass@8": None}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    row = history_row({**report, "reported_at": at, **metrics}, {"batch/loss": "grpo_loss"})
    clock = {"timestamp": at.timestamp(), "_timestamp": at.timestamp()}
    assert row == {"step": 4, "tokens": 8, "wall_seconds": 0.5, "grpo_loss": 0.25, "test/pass@1": 0.5, **clock}


# Reading the tables.


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_study(tmp_path_factory.mktemp("studies"))


def test_rows_are_read_once_each_before_and_after_compaction(synthetic: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(synthetic, tmp_path / "copy")
    tables, config_id = StudyTables(directory), PLAN[0].config_id
    rows, stamps, birth = tables.rows("metrics", config_id), tables.stamps(), tables.birth()
    steps = [[row["step"] for row in mine] for mine in rows.values()]
    assert list(rows) == [f"{config_id}-s{seed}" for seed in range(3)]
    assert all(each == sorted(set(each)) for each in steps)  # its process was killed: some were written twice
    compact(directory)
    again = StudyTables(directory)
    assert again.rows("metrics", config_id) == rows
    assert again.birth() == birth
    assert stamps[config_id] != again.stamps().get(config_id)


def test_a_part_is_not_read_before_one_that_its_writer_made_earlier(
    synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that is made while files appear may have the third and lack the second."""
    writer = PLAN[1].config_id
    first, second, third, *_ = [part for part in parts(synthetic, "metrics") if part.writer == writer]
    for listings, read in (
        (([first], [first, third]), [first]),
        (([first, third], [first, second, third]), [first, second, third]),
        (([], [first]), []),
    ):
        answers = iter(listings)
        monkeypatch.setattr(rung.wandb.tables, "parts", lambda *unused, answers=answers: next(answers))
        assert StudyTables(synthetic)._parts("metrics") == read


def test_wandb_is_not_imported_before_there_is_something_to_send(synthetic: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    mirror = Mirror(synthetic)
    for run in itertools.chain.from_iterable(mirror._tables.runs().values()):
        mirror._noted[run["run_id"]] = f"{run['status']} {run['step']} {run['attempt']}.{run['revision']}"
    before = set(sys.modules)
    mirror.update(is_last=True)
    assert "wandb" not in set(sys.modules) - before
    assert not mirror.sent_now
