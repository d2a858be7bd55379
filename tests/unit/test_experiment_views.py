"""Looking at experiments: comparisons, the commands of `analyze`, the experiment log, and exports of studies."""

from __future__ import annotations

import csv
import importlib
import json
import math
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rung.errors import RungError, StorageError
from rung.plan import make_plan
from rung.results.query import load
from rung.study import load_study
from rung.tuning.solo import train_solo
from tests.made_up_studies import MadeUp, write_study
from tests.stories import SMALL_STORIES, few_stories
from trainables.tinystories import analyze, experiment_log, export
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiment_logger import ExperimentLogger, compare_experiments
from trainables.tinystories.experiment_tracker import ExperimentTracker
from trainables.tinystories.experiments.directory import load_experiment
from trainables.tinystories.experiments.figures import Line, write_comparison, write_learning_rates, write_loss_curves
from trainables.tinystories.experiments.metrics_file import MetricRow
from trainables.tinystories.experiments.run import run_experiment
from trainables.tinystories.experiments.settings import to_trainable

PNG = b"\x89PNG"


def tracked(runs: Path, name: str, steps: range, level: float, finish: bool = True, **settings: Any) -> Path:
    """An experiment whose validation loss falls towards `level`, with its training loss logged twice as often."""
    tracker = ExperimentTracker(name, ExperimentConfig(experiment_name=name, **settings), runs / name)
    for step in steps:
        loss = level + math.exp(-step / 100)
        evaluated = loss if step % (2 * steps.step) == 0 else None
        tracker.log_step(step, train_loss=loss - 0.1, val_loss=evaluated, learning_rate=1e-3, wallclock_time=step / 10)
    if finish:
        tracker.finalize()
    tracker.close()
    return runs / name


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three experiments of different lengths and intervals, of which one is unfinished, in the folder `runs`."""
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "runs"
    tracked(found, "baseline", range(0, 301, 10), 2.0, description="as given")
    tracked(found, "higher_lr", range(0, 201, 25), 1.5, learning_rate=1e-2, tags=["x"])
    tracked(found, "running", range(0, 120, 7), 3.0, finish=False, d_model=1024, overrides={"model.norm": "post"})
    return found


# Figures and comparisons.


def test_experiments_of_other_lengths_and_intervals_come_into_one_picture_and_table(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [runs / "running", runs / "baseline", runs / "higher_lr"]
    table = compare_experiments(folders, Path("comparison.png"), experiment_names=["A", "B", "C"])
    assert Path("comparison.png").read_bytes().startswith(PNG)
    assert [(row["experiment"], row["status"], row["steps"]) for row in table] == [
        ("C", "completed", 200),
        ("B", "completed", 300),
        ("A", "running", 119),
    ]
    differing = {"learning_rate": 1e-2, "d_model": 512, "overrides.model.norm": None}
    assert {name: table[0][name] for name in differing} == differing
    assert "num_layers" not in table[0]  # in which they do not differ
    assert "description" not in table[0]
    assert table[1]["val_loss_best"] == pytest.approx(2.0 + math.exp(-3))
    with Path("comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["val_loss_best"]) == table[1]["val_loss_best"]  # in full precision
    assert capsys.readouterr().out.splitlines()[1].startswith("C ")


def test_names_and_folders_must_fit(runs: Path) -> None:
    with pytest.raises(RungError, match="1 experiments and 2 names"):
        compare_experiments([runs / "baseline"], Path("c.png"), ["a", "b"])
    with pytest.raises(RungError, match="at least one experiment"):
        compare_experiments([], Path("c.png"))
    with pytest.raises(StorageError, match="there is no experiment in"):
        compare_experiments([runs], Path("c.png"))


FEW = [MetricRow(0, 0.0, val_loss=9.0)]
MANY = [MetricRow(step, 40.0 * step, 1e3 / (1 + step), 9.0, None, 0.0) for step in range(500)]


@pytest.mark.parametrize(("rows", "count"), [(FEW, 1), (MANY, 9)], ids=["one evaluation", "three decades, nine lines"])
def test_pictures_can_be_drawn_of_little_and_of_much(rows: list[MetricRow], count: int, tmp_path: Path) -> None:
    line = Line("a name $with$ signs_and a great length " * 3, rows, diverged=count > 1)
    assert write_loss_curves(tmp_path / "curves.png", line)
    assert write_comparison(tmp_path / "comparison.png", [line] * count)
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def test_without_values_there_is_no_picture(tmp_path: Path) -> None:
    line = Line("a", [MetricRow(1, 1.0)])
    assert not write_loss_curves(tmp_path / "a.png", line)
    assert not write_learning_rates(tmp_path / "a.png", line)
    assert not write_comparison(tmp_path / "a.png", [line])
    assert not list(tmp_path.iterdir())


# The commands.


def test_analyze_lists_describes_and_compares(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze.main(["list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [
        ["baseline", "completed", "300"],
        ["higher_lr", "completed", "200"],
        ["running", "running", "119"],
    ]
    assert analyze.main(["summary", "--experiments", "higher_lr", str(runs / "running")]) == 0
    described = capsys.readouterr().out
    assert analyze.main(["summary", "higher_lr", str(runs / "running")]) == 0
    assert capsys.readouterr().out == described
    assert "higher_lr: completed" in described
    assert "  val_loss.best_step       200" in described
    assert "  overrides.model.norm     post" in described
    assert analyze.main(["compare", "--experiments", "baseline", "higher_lr", "--output", "table.csv"]) == 0
    assert Path("table.csv").read_text().startswith("experiment,status,learning_rate,steps,")
    assert Path("table.png").read_bytes().startswith(PNG)
    assert capsys.readouterr().out.splitlines()[-2:] == ["picture: table.png", "table: table.csv"]
    tracked(runs, "begun", range(0), 1.0, finish=False)
    assert analyze.main(["compare", "--experiments", "begun", "--output", "begun.csv"]) == 0
    assert "picture: none, since there is no loss yet" in capsys.readouterr().out
    assert not Path("begun.png").exists()
    shutil.rmtree(runs / "begun")
    with pytest.raises(RungError, match="compare wants names of experiments"):
        analyze.main(["compare"])
    with pytest.raises(StorageError, match="there is no experiment in runs/nothing"):
        analyze.main(["summary", "--experiments", "nothing"])
    capsys.readouterr()
    (runs / "baseline" / "metrics.csv").write_text("not,a,table\n")
    assert analyze.main(["list"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "unreadable",
        "completed",
        "running",
    ]
    assert analyze.main(["list", "--runs-dir", "nowhere"]) == 0
    assert "no experiments in nowhere" in capsys.readouterr().out


# The experiment log.


def written_log(*arguments: str) -> str:
    assert experiment_log.main(list(arguments)) == 0
    return Path("EXPERIMENT_LOG.md").read_text()


def test_the_log_says_what_was_tested_changed_and_found(runs: Path) -> None:
    (runs / "higher_lr" / "loss_curves.png").write_bytes(PNG)
    log = written_log()
    section = log[log.index("## higher_lr") :]
    assert "* What is tested: as given" in log
    assert "* Changed from `baseline`: `learning_rate` 0.0003 → 0.01\n" in section
    assert "* Result: completed at step 200, validation loss 1.6353, best 1.6353 at step 200" in section
    assert "[metrics.csv](runs/higher_lr/metrics.csv)" in section
    assert "(runs/higher_lr/loss_curves.png)" in section
    assert "* Result: unfinished, step 119 of 10,000" in log
    assert "`d_model` 512 → 1024, `overrides.model.norm` none → post" in log
    assert "* Date: 20" in log
    assert written_log() == log


def test_what_was_written_by_hand_stays_byte_for_byte(runs: Path) -> None:
    written_log()
    path = Path("EXPERIMENT_LOG.md")
    by_hand = "Läuft gut.\r\n\r\n```\n<b>1 < 2</b>\t\n```  \n".encode() + b"\xff\x00 not UTF-8\n"
    mark = b"<!-- notes: higher_lr -->\n"
    path.write_bytes(path.read_bytes().replace(mark + b"\n", mark + by_hand))
    tracked(runs, "another", range(0, 50, 5), 1.0)
    for _ in range(2):
        experiment_log.main([])
        assert mark + by_hand + b"<!-- end of notes: higher_lr -->" in path.read_bytes()
        assert b"## another" in path.read_bytes()
    (runs / "higher_lr").rename(runs.parent / "moved")
    experiment_log.main([])
    assert mark + by_hand + b"<!-- end of notes: higher_lr -->" in path.read_bytes()
    assert b"Not found this time; its notes are kept." in path.read_bytes()


def test_a_log_without_marks_is_taken_over_and_broken_marks_are_refused(runs: Path) -> None:
    path = Path("EXPERIMENT_LOG.md")
    path.write_text("# My log\n\nKept by hand so far.")
    assert "<!-- notes: general -->\n# My log\n\nKept by hand so far.\n<!-- end of notes: general -->" in written_log()
    broken = path.read_text().replace("<!-- end of notes: baseline -->\n", "")
    path.write_text(broken)
    with pytest.raises(RungError, match=r"EXPERIMENT_LOG\.md:\d+: <!-- notes: baseline --> is not followed by its own"):
        experiment_log.main([])
    assert path.read_text() == broken
    path.write_text("<!-- notes: Läufe -->\none\n<!-- end of notes: Läufe -->\n" * 2)
    with pytest.raises(RungError, match="or is there twice"):
        experiment_log.main([])


def test_the_baseline_can_be_chosen(runs: Path) -> None:
    assert "* Changed from `higher_lr`: `learning_rate` 0.01 → 0.0003" in written_log("--baseline", "higher_lr")
    ExperimentConfig(num_layers=2).to_json("base.json")
    assert "* Changed from `base.json`: `num_layers` 2 → 6\n" in written_log("--baseline", "base.json")
    with pytest.raises(RungError, match="no experiment 'none' to compare with: there are baseline, higher_lr, running"):
        experiment_log.main(["--baseline", "none"])


def test_a_shipped_configuration_says_nothing_of_what_is_tested(runs: Path) -> None:
    shipped = Path(experiment_log.__file__).parent / "configs" / "quick_test.json"
    description = ExperimentConfig.from_json(shipped).description
    tracked(runs, "as_shipped", range(0, 20, 10), 2.0, description=description)
    log = written_log()
    assert description not in log
    assert "* What is tested: (not said)\n" in log[log.index("## as_shipped") :]


def test_studies_have_a_section_with_their_results_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = write_study(tmp_path / "results" / "rates", MadeUp({"optimizer.weight_decay": [0.1, 1.0]}, seeds=3))
    (study / "study.yaml").write_text(
        "# Which decay? <!-- notes: x -->\n# Two of them.\n#\n# Source: none\nstudy: rates\n"
    )
    described = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**described, "base": {"modulus": 7}}))
    log = written_log("--study", "rates")
    assert "## Study rates" in log
    assert "* What is tested: Which decay? &lt;!-- notes: x --> Two of them.\n" in log
    assert "3 seeds, 1,000 steps each, judged by validation/accuracy (max)" in log
    assert "* Changed from the trainable's defaults: `modulus` 31 → 7\n" in log
    assert "| weight_decay=0.1 | 3/3 |" in log
    assert "<!-- notes: study rates -->" in log
    assert written_log("--study", "rates") == log


# Exports of studies.


STUDY = """
study: tiny
trainable: trainables.tinystories:TinyStories
base: {base}
seeds: [1]
budget: {{steps: 12}}
metric: {{name: validation/loss, mode: min}}
"""


def test_runs_of_a_study_get_the_files_of_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNG_DATA", str(tmp_path / "data"))
    few_stories(tmp_path / "data")
    base = {**SMALL_STORIES, "evaluation": {"every": 5, "log_every": 2}, "schedule": {"kind": "cosine", "warmup": 2}}
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY.format(base=json.dumps(base)))
    study = load_study(path)
    train_solo(study, make_plan(study), path.read_text(), None, Console(quiet=True))
    assert export.main(["tiny.solo", "--output-dir", "exported"]) == 0
    (folder,) = Path("exported").iterdir()
    assert folder.name.endswith("-s1")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "loss_curves.png",
        "lr_schedule.png",
        "metrics.csv",
        "metrics.json",
        "summary.json",
    ]
    found = load_experiment(folder)
    assert [row.step for row in found.rows] == [0, 2, 4, 5, 6, 8, 10, 12]
    assert [row.step for row in found.rows if row.val_loss is not None] == [0, 5, 10, 12]
    assert found.rows[1].train_loss is not None
    sql = 'SELECT step, "validation/loss", wall_seconds, tokens FROM metrics'
    reports = {step: report for step, *report in load("tiny.solo").query(sql).fetchall()}
    last = found.rows[-1]
    assert [last.val_loss, last.wallclock_time] == reports[12][:2]
    assert last.tokens_per_sec == pytest.approx((reports[12][2] - reports[10][2]) / (reports[12][1] - reports[10][1]))
    assert found.statistics["total_steps"] == 12
    again = ExperimentConfig.from_json(folder / "config.json")
    assert (again.max_iterations, again.seed, again.d_model, again.log_interval) == (12, 1, 16, 2)
    monkeypatch.setattr(ExperimentLogger, "plot", lambda self, status: [])
    trained = load_experiment(run_experiment("again", again, Path("again")))  # to the same numbers
    assert [(row.step, row.val_loss, row.learning_rate) for row in trained.rows] == [
        (row.step, row.val_loss, row.learning_rate) for row in found.rows
    ]


def test_other_trainables_and_single_runs_are_exported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_up = MadeUp({"optimizer.weight_decay": [0.1, 1.0]}, seeds=2, ended={(1, 1): ("diverged", 300, "")})
    study = load(write_study(tmp_path / "results" / "decays", made_up))
    for picture in ("write_loss_curves", "write_learning_rates"):  # which take long, and another test has them drawn
        monkeypatch.setattr(export, picture, lambda path, line: False)
    (folder,) = export.export_runs(study, tmp_path / "exported", [f"{made_up.config_id(1)}-s1"])
    found = load_experiment(folder)
    assert (found.status, found.statistics["total_steps"], found.summary["step"]) == ("diverged", 300, 300)
    assert found.config["configuration"] == {"optimizer.weight_decay": 1.0}
    assert found.rows[-1].train_loss is not None  # that of its evaluations
    with pytest.raises(RungError, match="decays has no run 'c9'; there are"):
        export.export_runs(study, tmp_path / "exported", ["c9"])


# The page about all this.

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_pages_python_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    assert Path("comparison.png").exists()
    assert Path("runs/with_pictures/loss_curves.png").exists()


def test_the_pages_commands_are_understood_and_its_settings_exist() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python -m ")]
    assert len(commands) >= 8
    for command in commands:
        module, *arguments = shlex.split(command.removeprefix("python -m "), comments=True)
        importlib.import_module(module)._parser().parse_args(arguments)
    for block in blocks("json"):
        to_trainable(ExperimentConfig(**json.loads(block)))
    for name in ExperimentConfig.model_fields:
        assert f"`{name}`" in PAGE.read_text() or name.startswith("experiment_")
