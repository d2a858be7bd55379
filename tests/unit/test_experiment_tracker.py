"""The files of an experiment: rows that survive, statistics, resuming, logs and pictures, and the documented calls."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError, StorageError
from trainables.tinystories import experiment_tracker
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiment_logger import ExperimentLogger
from trainables.tinystories.experiment_tracker import ExperimentTracker
from trainables.tinystories.experiments.directory import load_experiment
from trainables.tinystories.experiments.metrics_file import MetricRow, MetricsFile, merged, read_rows

HEADER = "step,wallclock_time,elapsed_time,train_loss,val_loss,val_perplexity,learning_rate,tokens_per_sec"

AS_DOCUMENTED = """
config = ExperimentConfig(
    experiment_name="test",
    experiment_id="abc123",
    vocab_size=10000,
    # ... other config
)

tracker = ExperimentTracker("test", config, Path("./output"))

# Log metrics
tracker.log_step(
    step=100,
    train_loss=2.5,
    val_loss=2.7,
    learning_rate=3e-4,
    tokens_per_sec=5000.0
)

# Finalize and save
tracker.finalize()

from trainables.tinystories.experiment_logger import ExperimentLogger

logger = ExperimentLogger(
    experiment_name="test",
    config=config,
    output_dir=Path("./output")
)

# Log training step
logger.log_training_step(
    step=100,
    train_loss=2.5,
    learning_rate=3e-4,
    tokens_per_sec=5000.0
)

# Log validation step
logger.log_validation_step(
    step=100,
    val_loss=2.7,
    val_perplexity=14.88
)

# Finalize (auto-generates plots)
logger.finalize()

from trainables.tinystories.experiment_logger import compare_experiments

experiment_dirs = [
    Path("output"),
    Path("output"),
]

compare_experiments(
    experiment_dirs,
    output_path=Path("comparison.png"),
    experiment_names=["Baseline", "Experiment 2"]
)
"""
"""The original's examples, under our import paths."""


class Clock:
    """Stands in for the clock of the tracker."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(experiment_tracker, "time", clock)
    return clock


def tracker(directory: Path, **settings: Any) -> ExperimentTracker:
    return ExperimentTracker("test", ExperimentConfig(**settings), directory)


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_documented_calls_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"Path": Path}
    exec("from trainables.tinystories.experiment_tracker import ExperimentTracker, ExperimentConfig", names)
    exec(AS_DOCUMENTED, names)
    assert {path.name for path in (tmp_path / "output").iterdir()} == {
        "config.json",
        "metrics.csv",
        "metrics.json",
        "summary.json",
        "training.log",
        "loss_curves.png",
        "lr_schedule.png",
    }
    summary = json.loads((tmp_path / "output" / "summary.json").read_text())
    assert (summary["experiment_name"], summary["status"]) == ("test", "completed")
    assert summary["config"] == json.loads((tmp_path / "output" / "config.json").read_text())
    assert summary["statistics"]["val_loss"]["best"] == 2.7
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
    assert "Experiment 2" in capsys.readouterr().out


def test_every_row_is_on_disk_at_once_with_exactly_these_columns(tmp_path: Path, clock: Clock) -> None:
    log = tracker(tmp_path)
    clock.now += 90
    log.log_step(step=10, train_loss=2.5, learning_rate=3e-4, tokens_per_sec=5000.0)
    assert (tmp_path / "metrics.csv").read_text() == f"{HEADER}\n10,90.0,1.5,2.5,,,0.0003,5000.0\n"
    log.log_step(step=20, val_loss=2.0)
    assert table(tmp_path)[1]["val_perplexity"] == repr(math.exp(2.0))
    assert load_experiment(tmp_path).status == "running"
    log.close()


def test_what_is_not_finite_is_empty_and_no_number(tmp_path: Path) -> None:
    log = tracker(tmp_path)
    log.log_step(step=1, train_loss=math.nan, val_loss=math.inf, learning_rate=0.1)
    log.finalize("diverged")
    assert [table(tmp_path)[0][name] for name in ("train_loss", "val_loss", "val_perplexity")] == ["", "", ""]
    assert json.loads((tmp_path / "metrics.json").read_text())[0]["train_loss"] is None
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert "train_loss" not in summary["statistics"]


def test_statistics_are_those_of_the_rows(tmp_path: Path) -> None:
    log = tracker(tmp_path)
    for step, train, validation in ((0, None, 9.0), (10, 8.0, None), (20, 4.0, 5.0), (30, 3.0, 6.0)):
        log.log_step(step, train_loss=train, val_loss=validation, wallclock_time=120.0 * step)
    log.finalize()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["statistics"] == {
        "total_steps": 30,  # the last optimizer step, not the number of rows
        "total_wallclock_time": 3600.0,
        "total_wallclock_hours": 1.0,
        "train_loss": {"min": 3.0, "max": 8.0, "mean": 5.0, "final": 3.0, "initial": 8.0},
        "val_loss": {"min": 5.0, "max": 9.0, "mean": 20 / 3, "final": 6.0, "best": 5.0, "best_step": 20},
    }
    assert summary["metrics_count"] == 4


def test_config_json_is_complete_and_makes_the_same_experiment(tmp_path: Path) -> None:
    tracker(tmp_path, d_model=64, tags=["a"]).close()
    assert ExperimentConfig.from_json(tmp_path / "config.json") == ExperimentConfig(d_model=64, tags=["a"])
    assert json.loads((tmp_path / "config.json").read_text()).keys() == ExperimentConfig.model_fields.keys()


# Going on.


def test_rows_stay_and_the_clock_goes_on(tmp_path: Path, clock: Clock) -> None:
    first = tracker(tmp_path)
    clock.now += 60
    first.log_step(step=10, train_loss=3.0)
    first.close()
    clock.now += 10_000  # the machine was off
    second = tracker(tmp_path)
    clock.now += 30
    second.log_step(step=20, train_loss=2.0)
    second.finalize()
    assert [(row["step"], row["wallclock_time"]) for row in table(tmp_path)] == [("10", "60.0"), ("20", "90.0")]


def test_a_torn_last_row_is_cut_off(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    first.log_step(step=10, train_loss=3.0, wallclock_time=1.0)
    first.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("20,2.0,0.03")
    assert [row.step for row in read_rows(tmp_path / "metrics.csv")] == [10]  # whoever reads now sees whole rows
    second = tracker(tmp_path)
    second.log_step(step=20, train_loss=2.0, wallclock_time=2.0)
    second.close()
    assert [row["train_loss"] for row in table(tmp_path)] == ["3.0", "2.0"]


def test_a_loop_that_comes_back_to_a_step_replaces_its_rows(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    for step in (10, 20, 30):
        first.log_step(step, train_loss=float(step))
    first.close()
    second = tracker(tmp_path)
    second.log_step(20, train_loss=2.0)
    second.log_step(20, val_loss=1.0)
    second.close()
    assert [(row["step"], row["train_loss"]) for row in table(tmp_path)] == [("10", "10.0"), ("20", "2.0"), ("20", "")]
    assert [row.train_loss for row in load_experiment(tmp_path).rows] == [10.0, 2.0]


def test_a_finished_experiment_is_not_overwritten(tmp_path: Path) -> None:
    log = tracker(tmp_path)
    log.log_step(30, train_loss=1.0)
    log.finalize()
    again = tracker(tmp_path)
    with pytest.raises(RungError, match="finished at step 30: step 10 would spoil it"):
        again.log_step(10, train_loss=5.0)
    again.log_step(40, train_loss=0.5)
    again.finalize()
    assert [row["step"] for row in table(tmp_path)] == ["30", "40"]


def test_the_documented_calls_can_be_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"Path": Path, "ExperimentConfig": ExperimentConfig, "ExperimentTracker": ExperimentTracker}
    monkeypatch.setattr(ExperimentLogger, "plot", lambda self, status: [])
    calls = AS_DOCUMENTED.partition("from trainables.tinystories.experiment_logger import compare")[0]
    exec(calls, names)
    files = [tmp_path / "output" / name for name in ("metrics.csv", "metrics.json", "summary.json")]
    before = [file.read_bytes() for file in files]
    exec(calls, names)
    assert [row["step"] for row in table(tmp_path / "output")] == ["100"]
    assert [file.read_bytes() for file in files] == before


def test_a_finished_experiment_takes_no_other_values_and_no_other_name(tmp_path: Path) -> None:
    log = tracker(tmp_path)
    log.log_step(30, train_loss=1.0, wallclock_time=3.0)
    log.finalize()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = tracker(tmp_path)
    assert again.log_step(30, train_loss=1.0) == MetricRow(30, 3.0, train_loss=1.0)  # as it stands, not once more
    for measured in ({"train_loss": 2.0}, {"train_loss": 1.0, "val_loss": 1.0}):
        with pytest.raises(RungError, match=rf"{tmp_path} holds this experiment, finished at step 30: step 30 would"):
            again.log_step(30, **measured)
    again.finalize("diverged")
    with pytest.raises(RungError, match="holds the experiment test, completed at step 30, and this one is called"):
        ExperimentTracker("other", ExperimentConfig(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_another_experiment_is_refused(tmp_path: Path) -> None:
    tracker(tmp_path, learning_rate=1e-3).close()
    with pytest.raises(RungError, match=r"holds another experiment \(learning_rate 0.001 -> 0.01\)"):
        tracker(tmp_path, learning_rate=1e-2)
    tracker(tmp_path, learning_rate=1e-3, description="said later").close()
    assert json.loads((tmp_path / "config.json").read_text())["description"] == "said later"


def test_another_table_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RungError, match=r"no config\.json"):
        tracker(tmp_path)
    with pytest.raises(StorageError, match="is not the metrics of an experiment"):
        MetricsFile(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text() == "a,b\n1,2\n"


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(f"{HEADER}\n10,x,1.5,2.5,,,,\n")
    with pytest.raises(StorageError, match=r"metrics\.csv is damaged"):
        read_rows(tmp_path / "metrics.csv")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        tracker(tmp_path / "file" / "run")


def test_several_rows_of_one_step_are_put_together() -> None:
    rows = [MetricRow(2, 1.0, train_loss=3.0), MetricRow(1, 0.5), MetricRow(2, 2.0, val_loss=4.0)]
    assert merged(rows) == [MetricRow(1, 0.5), MetricRow(2, 2.0, train_loss=3.0, val_loss=4.0)]


# The logger.


def test_the_best_is_kept_over_attempts(tmp_path: Path) -> None:
    config = ExperimentConfig()
    first = ExperimentLogger("test", config, tmp_path)
    first.log_validation_step(step=10, val_loss=2.0)
    first.close()
    second = ExperimentLogger("test", config, tmp_path)
    second.log_validation_step(step=20, val_loss=3.0)
    assert (second.best_val_loss, second.best_val_step) == (2.0, 10)
    second.finalize()
    assert json.loads((tmp_path / "summary.json").read_text())["statistics"]["val_loss"]["best_step"] == 10


def test_each_experiment_has_its_own_log_and_pythons_logging_hears_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = logging.getLogger("mine")
    with caplog.at_level(logging.INFO):
        one = ExperimentLogger("one", ExperimentConfig(), tmp_path / "one", python_logger=own)
        other = ExperimentLogger("other", ExperimentConfig(), tmp_path / "other")
        one.log_training_step(step=1, train_loss=1.25, learning_rate=0.1)
        other.log_training_step(step=2, train_loss=2.25, learning_rate=0.1)
    one.close()
    other.close()
    assert "step 1 | loss 1.2500 | learning rate 0.1" in (tmp_path / "one" / "training.log").read_text()
    assert "step 2" not in (tmp_path / "one" / "training.log").read_text()
    assert [record.name for record in caplog.records] == ["mine", "rung.experiments"]


def test_without_a_loss_there_is_no_picture_and_no_error(tmp_path: Path) -> None:
    logger = ExperimentLogger("test", ExperimentConfig(), tmp_path)
    logger.finalize()
    assert not list(tmp_path.glob("*.png"))
    assert json.loads((tmp_path / "summary.json").read_text())["statistics"]["total_steps"] == 0
