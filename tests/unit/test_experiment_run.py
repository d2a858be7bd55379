"""Experiments through the engine: exact steps, checkpoints, refusals, kills, and going on from another experiment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rung.errors import RungError, StorageError
from rung.training.assignment import Goal
from rung.training.checkpoints import save_model
from rung.training.run import Run
from tests.stories import VOCABULARY, few_stories
from trainables.tinystories import check_setup
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiment_logger import ExperimentLogger
from trainables.tinystories.experiments import recorder
from trainables.tinystories.experiments.directory import load_experiment
from trainables.tinystories.experiments.metrics_file import read_rows
from trainables.tinystories.experiments.run import run_experiment
from trainables.tinystories.experiments.sections import result
from trainables.tinystories.experiments.trainable import build_trainable
from trainables.tinystories.run_experiment import main
from trainables.tinystories.sample_experiment import load_model
from trainables.tinystories.sample_experiment import main as sample

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "vocab_size": 16,
    "context_length": 8,
    "d_model": 16,
    "num_layers": 1,
    "num_heads": 2,
    "d_ff": 32,
    "batch_size": 4,
    "max_iterations": 23,
    "learning_rate": 1e-2,
    "min_learning_rate": 1e-3,
    "warmup_iters": 3,
    "log_interval": 2,
    "eval_interval": 5,
    "checkpoint_interval": 10,
    "overrides": {"evaluation_tokens": 64},
}


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here; only `first` draws, which begins before this."""
    monkeypatch.setattr(ExperimentLogger, "plot", lambda self, status: [])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Token files in both formats."""
    folder = tmp_path_factory.mktemp("data")
    tokens = np.arange(2000, dtype=np.uint16) ** 2 % 13
    np.save(folder / "train.npy", tokens[:1800])
    tokens[1800:].tofile(folder / "validation.bin")
    return {"train_data_path": str(folder / "train.npy"), "val_data_path": str(folder / "validation.bin")}


@pytest.fixture(scope="module")
def first(data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment that has come to its end; tests leave it as it is."""
    return run_experiment("first", experiment(data), tmp_path_factory.mktemp("runs") / "first")


def experiment(data: dict[str, str], **changes: Any) -> ExperimentConfig:
    return ExperimentConfig(**{**SMALL, **data, **changes})


def numbers(directory: Path) -> list[tuple[Any, ...]]:
    """The rows without what depends on the clock."""
    rows = read_rows(directory / "metrics.csv")
    return [(row.step, row.train_loss, row.val_loss, row.val_perplexity, row.learning_rate) for row in rows]


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def same_weights(one: Path, other: Path, name: str) -> bool:
    first, second = load_file(one / "checkpoints" / name), load_file(other / "checkpoints" / name)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_an_experiment_leaves_its_files_and_takes_exactly_its_steps(first: Path) -> None:
    directory = first
    assert (directory / "loss_curves.png").read_bytes()[:4] == (directory / "lr_schedule.png").read_bytes()[:4]
    rows = read_rows(directory / "metrics.csv")
    assert [row.step for row in rows] == [0, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20, 22, 23]
    assert [row.step for row in rows if row.val_loss is not None] == [0, 5, 10, 15, 20, 23]
    assert [row.step for row in rows if row.train_loss is None] == [0]  # every other row has the loss of its batch
    assert rows[-1].learning_rate == pytest.approx(1e-3)
    assert all(row.tokens_per_sec is not None for row in rows[1:])
    kept = ["best.json", "best.safetensors", "final.safetensors"]
    assert checkpoints(directory) == [*kept, "step-0000000010", "step-0000000020", "step-0000000023"]
    found = load_experiment(directory)
    assert (found.status, found.statistics["total_steps"]) == ("completed", 23)
    assert found.summary["parameters"]["total"] == sum(
        tensor.numel() for tensor in load_file(directory / "checkpoints" / "final.safetensors").values()
    )
    best = json.loads((directory / "checkpoints" / "best.json").read_text())
    assert best == {
        "step": found.statistics["val_loss"]["best_step"],
        "val_loss": found.statistics["val_loss"]["best"],
    }
    launch = json.loads((directory / "provenance.json").read_text())["launches"][0]
    assert launch["configuration"]["context"] == 8
    assert [len(file["sha256"]) for file in launch["data"]] == [64, 64]


def test_a_finished_experiment_keeps_its_name(data: dict[str, str], first: Path) -> None:
    directory = first
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(RungError, match=r"holds this experiment already, completed at step 23: choose another name"):
        run_experiment("first", experiment(data), directory)
    with pytest.raises(RungError, match=r"another experiment \(max_iterations 23 -> 46\)"):
        run_experiment("first", experiment(data, max_iterations=46), directory)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


KILLED_AT_17 = """
import os, runpy, signal
from trainables.tinystories.experiments.recorder import ExperimentRecorder

def die(self, run):
    take(self, run)
    if run.progress.step == 17:
        os.kill(os.getpid(), signal.SIGKILL)

take, ExperimentRecorder.after_step = ExperimentRecorder.after_step, die
runpy.run_module("trainables.tinystories.run_experiment", run_name="__main__")
"""
"""The command, in a process that is killed between two rows and two checkpoints."""


def test_the_same_command_after_a_kill_goes_on_to_the_same_numbers(
    data: dict[str, str], first: Path, tmp_path: Path
) -> None:
    config = experiment(data)
    config.to_json(tmp_path / "experiment.json")
    arguments = ["--name", "killed", "--config", "experiment.json", "--description", "to be killed"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_17, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    killed = tmp_path / "runs" / "killed"
    assert read_rows(killed / "metrics.csv")[-1].step == 16
    assert checkpoints(killed)[-1] == "step-0000000010"
    assert load_experiment(killed).statistics["total_steps"] == 16  # what is known of it
    with (killed / "metrics.csv").open("a") as file:
        file.write("41,3.0,0.")
    run_experiment("killed", config, killed)
    assert numbers(killed) == numbers(first)
    assert same_weights(killed, first, "best.safetensors")
    assert same_weights(killed, first, "final.safetensors")
    times = [row.wallclock_time for row in read_rows(killed / "metrics.csv")]
    assert times == sorted(times)
    assert len(json.loads((killed / "provenance.json").read_text())["launches"]) == 2


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [5, 22])
def test_checkpoints_between_the_intervals_are_gone_on_from_and_go(
    step: int, data: dict[str, str], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 0.0)

    def die(self: Any, run: Run) -> None:
        take(self, run)
        if run.progress.step == step:
            raise Killed

    take = recorder.ExperimentRecorder.after_step
    with monkeypatch.context() as patch:
        patch.setattr(recorder.ExperimentRecorder, "after_step", die)
        with pytest.raises(Killed):
            run_experiment("killed", experiment(data), tmp_path / "killed")
    assert f"step-{step:010d}" in checkpoints(tmp_path / "killed")
    unfinished = load_experiment(tmp_path / "killed")
    assert unfinished.statistics["total_steps"] == step  # the row of step 5 comes after its checkpoint
    assert unfinished.status == "running"
    killed = run_experiment("killed", experiment(data), tmp_path / "killed")
    assert numbers(killed) == numbers(first)
    assert checkpoints(killed) == checkpoints(first)


def test_an_experiment_can_begin_where_another_stands(data: dict[str, str], first: Path, tmp_path: Path) -> None:
    longer = experiment(data, max_iterations=30)
    second = run_experiment("second", longer, tmp_path / "second", first)
    third = run_experiment("third", longer, tmp_path / "third", first / "checkpoints" / "step-0000000010")
    assert numbers(second)[:15] == numbers(first)
    assert numbers(third)[:6] == numbers(first)[:6]  # the evaluation of step 10 came after the checkpoint
    assert load_experiment(second).statistics["total_steps"] == 30
    times = [row.wallclock_time for row in read_rows(second / "metrics.csv")]
    assert times == sorted(times)
    shutil.rmtree(second / "checkpoints")  # as if it had been killed before its first one
    (second / "summary.json").unlink()
    run_experiment("second", longer, second, first)
    assert [row[0] for row in numbers(second)] == sorted({row[0] for row in numbers(second)})
    assert "best.safetensors" in checkpoints(third)
    with pytest.raises(RungError, match=r"stands at step 23 \(completed\): there is nothing left"):
        run_experiment("fourth", experiment(data), tmp_path / "fourth", first)
    with pytest.raises(StorageError, match="there is no checkpoint in"):
        run_experiment("fifth", longer, tmp_path / "fifth", tmp_path)
    with pytest.raises(StorageError, match="belongs to another model"):
        run_experiment("sixth", experiment(data, d_model=32), tmp_path / "sixth", first)


def test_a_refused_beginning_does_not_take_the_name(data: dict[str, str], first: Path, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    with pytest.raises(StorageError, match="there is no checkpoint in"):
        run_experiment("second", experiment(data), folder, tmp_path)
    with pytest.raises(RungError, match="there is nothing left"):
        run_experiment("second", experiment(data), folder, first)
    with pytest.raises(StorageError, match="belongs to another model"):
        run_experiment("second", experiment(data, d_model=32), folder, first)
    damaged = tmp_path / "damaged"
    shutil.copytree(first, damaged)
    (damaged / "metrics.csv").write_text("a,b\n")
    with pytest.raises(StorageError, match="is not the metrics of an experiment"):
        run_experiment("second", experiment(data, max_iterations=24), folder, damaged)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    run_experiment("second", experiment(data, max_iterations=24), folder, first)
    assert load_experiment(folder).statistics["total_steps"] == 24


def test_what_the_device_cannot_do_is_refused_before_anything_is_written(data: dict[str, str], tmp_path: Path) -> None:
    half = experiment(data, dtype="float16", device="cpu")
    with pytest.raises(RungError, match="dtype: float16 needs a GPU, and the device is cpu"):
        run_experiment("half", half, tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_who_begins_where_another_stands_keeps_to_its_own_optimizer(
    data: dict[str, str], first: Path, tmp_path: Path
) -> None:
    changed = experiment(data, max_iterations=30, weight_decay=0.5, beta2=0.9)
    second = run_experiment("second", changed, tmp_path / "second", first)
    state = json.loads((second / "checkpoints" / "step-0000000030" / "state.json").read_text())
    assert [(group["weight_decay"], group["betas"]) for group in state["optimizer"]] == [(0.5, [0.9, 0.9])]


def test_a_divergence_is_a_result(data: dict[str, str], tmp_path: Path) -> None:
    wild = {"learning_rate": 1e30, "grad_clip": None, "overrides": {**SMALL["overrides"], "optimizer.kind": "sgd"}}
    directory = run_experiment("wild", experiment(data, **wild), tmp_path / "wild")
    found = load_experiment(directory)
    assert found.status == "diverged"
    assert found.rows[-1].step == 2
    assert (found.statistics["total_steps"], found.summary["diverged_step"]) == (3, 3)  # not that of the last row
    written = json.loads((directory / "summary.json").read_text())
    assert written["statistics"]["total_steps"] == 3
    assert result(found).startswith("diverged at step 3, ")
    with pytest.raises(RungError, match="holds this experiment already, diverged at step"):
        run_experiment("wild", experiment(data, **wild), directory)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_models_weights_fit_an_uncompiled_one(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the default takes long to import
    config = experiment(data, overrides={**SMALL["overrides"], "compile": True})
    run = Run(build_trainable(config, "cpu"), "compiled", Goal("steps", 1, "validation/loss", "min"))
    assert run.training_model is not run.model  # it would be compiled at its first call
    (tmp_path / "checkpoints").mkdir()
    save_model(run, tmp_path / "checkpoints" / "best.safetensors")
    experiment(data).to_json(tmp_path / "config.json")
    _, model = load_model(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), run.model.parameters(), strict=True))


# Data.


def test_a_prepared_folder_gives_the_numbers_of_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = few_stories(tmp_path / "data")
    monkeypatch.setenv("RUNG_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    small = {**SMALL, "vocab_size": VOCABULARY, "max_iterations": 6}
    files = {
        f"{key}_data_path": f"data/few-stories/{name}-00000.bin"
        for key, name in (("train", "train"), ("val", "validation"))
    }
    from_files = run_experiment("files", ExperimentConfig(**small, **files), tmp_path / "files")
    by_name = ExperimentConfig(**small, train_data_path="few-stories")  # below the data folder
    from_folder = run_experiment("folder", by_name, tmp_path / "runs" / "folder")
    assert numbers(from_files) == numbers(from_folder)
    assert sample(["folder", "--prompt", "Once", "--prompt", "The", "--tokens", "5", "--temperature", "0"]) == 0
    texts = capsys.readouterr().out.split("\n\n")
    assert texts[0].startswith("Once")
    assert texts[1].startswith("The")
    with pytest.raises(RungError, match="token files without a tokenizer"):
        sample([str(from_files)])
    with pytest.raises(RungError, match=r"has a vocabulary of 300, and vocab_size is 16"):
        build_trainable(ExperimentConfig(**{**SMALL, "train_data_path": str(folder.path)}), "cpu")


def test_data_that_does_not_fit_is_named(data: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.full(99, 16, np.uint16))
    np.save(tmp_path / "float.npy", np.zeros(99))
    np.save(tmp_path / "short.npy", np.zeros(8, np.uint16))
    (tmp_path / "text.txt").write_text("no tokens")
    for name, message in {
        "large.npy": "holds the token 16, and vocab_size is 16",
        "float.npy": "holds float64 of shape",
        "short.npy": "holds 8 tokens, fewer than one window of 9",
        "text.txt": "must end in .npy or .bin",
        "none.npy": "does not exist: name a file of token ids",
    }.items():
        with pytest.raises(RungError, match=f"train_data_path: .*{message}"):
            build_trainable(experiment({**data, "train_data_path": str(tmp_path / name)}), "cpu")
    with pytest.raises(RungError, match="train_data_path is empty"):
        build_trainable(experiment({}), "cpu")
    with pytest.raises(RungError, match="val_data_path is empty"):
        build_trainable(experiment({**data, "val_data_path": ""}), "cpu")


# Commands.


def test_the_command_reads_the_file_and_says_how_it_goes(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    experiment(data).to_json(tmp_path / "experiment.json")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "rung.experiments"):
        assert (
            main(["--name", "mine", "--config", "experiment.json", "--output-dir", "custom", "--description", "why"])
            == 0
        )
    config = json.loads((tmp_path / "custom" / "config.json").read_text())
    assert (config["experiment_name"], config["description"]) == ("mine", "why")
    assert len(config["experiment_id"]) == 8
    assert "mine: why" in caplog.messages[0]
    assert "token_embedding 256" in caplog.messages[1]


def test_the_setup_check_says_what_to_do(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setenv("RUNG_DATA", str(tmp_path / "data"))
    assert check_setup.main([]) == 1
    said = capsys.readouterr().out
    assert "no  data" in said
    assert "python -m trainables.tinystories.prepare --help" in said
    assert "hm  threads    OMP_NUM_THREADS=999" in said
    assert "ok  python" in said
    experiment(data).to_json(tmp_path / "experiment.json")
    assert check_setup.main(["--config", "experiment.json"]) == 0
    assert "736 training tokens" in capsys.readouterr().out
    (tmp_path / "data" / "downloads").mkdir(parents=True)  # not everything there is a folder of tokens
    assert check_setup.main([]) == 1
    assert "downloads" not in capsys.readouterr().out
    few_stories(tmp_path / "data")
    assert check_setup.main([]) == 0
    assert "vocabulary 300, train" in capsys.readouterr().out
