"""nanoGPT's workflow on rung's engine: new, prepare, train, resume, sample, compare, report, bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rung.errors import RungError
from tests.unit.test_nanogpt_readers import gpt2_folder, save_checkpoint
from trainables.character_streams.__main__ import main
from trainables.character_streams.meta import META, read_meta
from trainables.character_streams.nanogpt import training
from trainables.character_streams.nanogpt.curves import colours
from trainables.character_streams.nanogpt.prepare import prepare
from trainables.character_streams.nanogpt.run_folder import read_record, read_summary
from trainables.character_streams.nanogpt.run_view import read_run
from trainables.character_streams.nanogpt.sampling import answers_of
from trainables.character_streams.nanogpt.utilization import PEAKS, peak_of, utilization
from trainables.language.metrics_csv import MetricsCsv, read_metrics

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "config/basic.py --n_layer=1 --n_head=2 --n_embd=8 --block_size=12 --batch_size=3 --eval_iters=2 --eval_interval=5 "
    "--warmup_iters=2 --lr_decay_iters=12 --log_interval=3 --answers=7"
)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an experiment, with its data prepared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNG_DATA", raising=False)
    assert main(["new", "spaces"]) == 0
    monkeypatch.chdir(tmp_path / "spaces")
    prepare(f"{tmp_path}/spaces/data/basic/prepare.py:lines", Path("data/basic"), seed=1, characters=3000)
    return tmp_path / "spaces"


def run(*more: str, verb: str = "train") -> int:
    return main([verb, *SMALL.split(), *more])


def untimed(path: Path) -> list[dict[str, float | None]]:
    return [{name: value for name, value in row.items() if name != "wall_seconds"} for row in read_metrics(path)]


def test_the_scaffold_is_whole_and_not_written_over(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {str(path.relative_to(experiment)) for path in experiment.rglob("*")}
    assert {"README.md", "config/basic.py", "data/basic/prepare.py", "out", "data/basic/train.bin"} <= names
    assert main(["new", str(experiment)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_prepare_writes_what_it_says(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "insert-spaces", "--out=data/easy", "--seed=4", "--longest=2", "--characters=2000"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "First 20 lines:"
    assert "vocabulary size: 8" in printed
    assert any(line.startswith("entropy of the lines: ") for line in printed)
    train, validation = (np.fromfile(f"data/easy/{name}.bin", dtype=np.uint16) for name in ("train", "val"))
    assert f"{len(train) + len(validation):,}" in printed[21]
    meta = read_meta(Path("data/easy"))
    assert meta is not None
    assert "".join(meta.characters[token] for token in train[:30]).startswith("\n".join(printed[1:3]))
    assert meta.stream is not None
    assert (meta.stream["longest"], meta.data_seed, meta.lengths["val.bin"]) == (2, 4, len(validation))
    assert not list(Path("data").rglob("*.pkl"))


def test_prepare_refuses_with_reasons(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, complaint in (
        (["insert-space"], "did you mean 'insert-spaces'"),
        (["insert-spaces", "--longst=3"], "longst: unknown key (did you mean 'longest'?)"),
        (["data/basic/prepare.py:lines", "--shortest=3"], "no option 'shortest': it takes longest"),
    ):
        assert main(["prepare", *arguments]) == 2
        assert complaint in capsys.readouterr().err


def test_a_run_takes_exactly_its_iterations_and_leaves_its_files(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--max_iters=12") == 0
    out = experiment / "out" / "basic"
    printed = capsys.readouterr().out
    assert "step 0: train loss" in printed
    assert "completed after 12 iterations" in printed
    rows = read_metrics(out / "metrics.csv")
    evaluated = [row["iter"] for row in rows if row["val/loss"] is not None]
    assert evaluated == [0, 5, 10, 12]
    assert [row["iter"] for row in rows if row["val/loss"] is None] == [3, 6, 9, 12]
    assert {"train/loss", "val/loss", "val/accuracy", "lr", "mfu", "batch/loss"} <= rows[0].keys()
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["status"], summary["iterations"]) == ("completed", 12)
    assert summary["best_val_loss"] == min(row["val/loss"] for row in rows if row["val/loss"])
    record = json.loads((out / "config.json").read_text())
    assert (record["seed"], record["vocabulary"], record["keys"]["max_iters"]) == (1337, 8, 12)
    assert record["parameters"] == sum(tensor.numel() for tensor in load_file(out / "model.safetensors").values())
    assert not [path for path in out.rglob("*") if path.suffix in (".pt", ".pkl")]


@pytest.mark.parametrize("step", [5, 7])  # at an evaluation, which comes after the checkpoint, and between two
def test_a_resumed_run_equals_an_uninterrupted_one(
    step: int, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--max_iters=12", "--out_dir=out/straight", "--dropout=0.2") == 0

    class Killed(Exception):
        pass

    def kill(self: Any, run: Any) -> None:
        if run.progress.step == step:
            training.save_checkpoint(run, self._out_dir / "checkpoints")
        if run.progress.step == 9:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training._Recorder, "after_step", kill)
        with pytest.raises(Killed):
            run("--max_iters=12", "--out_dir=out/killed", "--dropout=0.2")
    assert run("--max_iters=12", "--out_dir=out/killed", "--dropout=0.2", "--init_from=resume") == 0
    assert untimed(Path("out/straight/metrics.csv")) == untimed(Path("out/killed/metrics.csv"))
    straight, killed = (load_file(f"out/{name}/model.safetensors") for name in ("straight", "killed"))
    assert all(torch.equal(tensor, killed[name]) for name, tensor in straight.items())


def test_resuming_extends_and_refuses_another_run(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--max_iters=6") == 0
    assert run("--max_iters=8", "--init_from=resume", "--learning_rate=1e-4") == 0
    printed = capsys.readouterr().out
    assert "iteration 6 of 8" in printed
    assert "optimizer.learning_rate is 0.0001 from here on, and was 0.001" in printed
    assert run("--max_iters=9", "--init_from=resume", "--n_layer=2", "--batch_size=4") == 2
    error = capsys.readouterr().err
    assert "batch_size 3 -> 4" in error
    assert "model.layers 1 -> 2" in error
    assert run("--max_iters=3") == 0  # from scratch: begun anew
    assert "begun anew" in capsys.readouterr().out
    assert [row["iter"] for row in read_metrics(Path("out/basic/metrics.csv"))][-1] == 3
    assert run("--out_dir=out/none", "--init_from=resume") == 2
    assert "holds neither a run of ours" in capsys.readouterr().err


def test_the_model_is_the_best_or_the_newest(experiment: Path) -> None:
    rate = "--learning_rate=0.3"  # gets worse and worse
    assert run("--max_iters=10", rate, "--decay_lr=False", "--out_dir=out/best") == 0
    assert run("--max_iters=10", rate, "--decay_lr=False", "--out_dir=out/newest", "--always_save_checkpoint=True") == 0
    best, newest = (json.loads(Path(f"out/{name}/summary.json").read_text()) for name in ("best", "newest"))
    assert best["best_iteration"] == best["model_iteration"] < 10
    assert newest["model_iteration"] == 10
    one, other = (load_file(f"out/{name}/model.safetensors") for name in ("best", "newest"))
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


def test_eval_only_and_accumulation(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--eval_only=True") == 0
    printed = capsys.readouterr().out
    assert "step 0: train loss" in printed
    assert not (experiment / "out" / "basic" / "summary.json").exists()
    assert run("--max_iters=5") == 0
    capsys.readouterr()
    assert run("--eval_only=True") == 0  # init_from=scratch: not the run that lies in out_dir, which stays
    assert capsys.readouterr().out.splitlines()[-1] in printed
    assert (experiment / "out" / "basic" / "summary.json").exists()
    assert run("--eval_only=True", "--init_from=resume") == 0
    assert "step 5: train loss" in capsys.readouterr().out
    assert run("--max_iters=3", "--gradient_accumulation_steps=2", "--dtype=bfloat16") == 0
    assert "72 tokens per iteration" in capsys.readouterr().out


def add_a_run_of_nanogpt(experiment: Path) -> None:
    """Its data set `letters`, and its checkpoint in out/theirs."""
    letters = experiment / "data" / "letters"
    letters.mkdir()
    for name in ("train.bin", "val.bin"):
        (np.arange(200, dtype=np.uint16) % 5).tofile(letters / name)
    (letters / META).write_text(json.dumps({"characters": "\nabcd"}))
    (experiment / "out" / "theirs").mkdir()
    save_checkpoint(experiment / "out" / "theirs" / "ckpt.pt", bias=False)


def test_a_checkpoint_of_nanogpt_is_gone_on_from(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_a_run_of_nanogpt(experiment)
    command = ("--dataset=letters", "--out_dir=out/theirs", "--block_size=4", "--init_from=resume")
    assert run(*command, "--max_iters=9") == 0
    printed = capsys.readouterr().out
    assert "weights of iteration 7" in printed
    assert "completed after 9 iterations" in printed
    config = json.loads((experiment / "out" / "theirs" / "config.json").read_text())["config"]
    assert (config["model"]["layers"], config["model"]["width"], config["context"]) == (2, 8, 4)
    assert run(*command, "--max_iters=11") == 0
    assert "iteration 9 of 11" in capsys.readouterr().out  # now from our own checkpoint, in its shape


def test_training_goes_on_from_gpt2(
    experiment: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shape, its vocabulary and its weights; the data are its tokens, without a meta file; block_size is cut."""
    monkeypatch.setenv("RUNG_DATA", str(experiment / "data"))
    gpt2_folder((experiment / "data" / "models" / "gpt2"), "")
    (experiment / "data" / "owt").mkdir()
    for name in ("train.bin", "val.bin"):
        (np.arange(200, dtype=np.uint16) % 5).tofile(experiment / "data" / "owt" / name)
    assert run("--dataset=owt", "--init_from=gpt2", "--block_size=4", "--max_iters=2", "--n_embd=64") == 0
    printed = capsys.readouterr().out
    assert "vocabulary 5" in printed
    config = json.loads((experiment / "out" / "basic" / "config.json").read_text())["config"]
    model = config["model"]
    assert (model["layers"], model["width"], model["bias"], config["context"]) == (2, 8, True, 4)
    trained = load_file(experiment / "out" / "basic" / "model.safetensors")["positions.weight"]
    theirs = load_file(experiment / "data" / "models" / "gpt2" / "model.safetensors")["wpe.weight"]
    assert torch.allclose(trained, theirs[:4], atol=0.01)  # two steps from where it began
    record = read_record(experiment / "out" / "basic")
    assert record is not None
    assert not answers_of(record.config, record.seed, experiment / "out" / "basic", 1)  # it is read, and has no lines
    assert run("--dataset=owt", "--init_from=resume", "--block_size=4", "--max_iters=3", "--n_embd=64") == 0
    assert "iteration 2 of 3" in capsys.readouterr().out
    assert run("--dataset=owt", "--init_from=gpt2", "--block_size=7") == 2
    assert "block_size 7 is longer" in capsys.readouterr().err


def test_samples_come_in_a_batch_and_depend_on_their_seed(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--max_iters=3") == 0
    capsys.readouterr()

    def texts(*more: str) -> list[str]:
        assert run("--max_new_tokens=30", *more, verb="sample") == 0
        return capsys.readouterr().out.split("\n---------------\n")[:-1]

    three = texts("--num_samples=3", "--start=a:")
    assert [text[:2] for text in three] == ["a:"] * 3
    assert all(len(text) == 32 for text in three)
    assert texts("--num_samples=1", "--start=a:") == three[:1]
    assert texts("--num_samples=1", "--start=a:", "--seed=1") != three[:1]
    Path("prompt.txt").write_text("abc: ")
    greedy = texts("--num_samples=2", "--start=FILE:prompt.txt", "--temperature=0")
    assert greedy[0] == greedy[1]
    assert run("--start=xyz", verb="sample") == 2
    assert "does not know the characters 'xyz'" in capsys.readouterr().err


def test_compare_report_and_bench(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--max_iters=6") == 0
    assert run("--max_iters=5", "--out_dir=out/other", "--learning_rate=3e-3", "--seed=1") == 0
    capsys.readouterr()
    assert main(["compare", "out/basic", "out/other"]) == 0
    printed = capsys.readouterr().out
    seconds = [f"{read_summary(Path('out', name))['wall_seconds']:.1f}" for name in ("basic", "other")]
    assert f"| seconds, with evaluation | {seconds[0]} | {seconds[1]} |" in printed  # what train has printed
    views = {name: read_run(Path("out", name)) for name in ("basic", "other")}
    both = colours([views["basic"], views["other"]])
    assert colours([views["other"], views["basic"]]) == both[::-1]  # whatever the order, or the company
    assert colours([views["other"]]) == both[1:]
    for line in ("| optimizer.learning_rate | 0.001 | 0.003 |", "| seed | 1337 | 1 |", "| iterations | 6 | 5 |"):
        assert line in printed
    assert "| answers right, last |" in printed
    assert "| 5 |" in printed  # both were evaluated there
    assert Path("compare.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["report"]) == 0
    report = Path("report.md").read_text()
    assert "2 runs. The lowest validation loss" in report
    assert "optimizer.learning_rate 0.001 -> 0.003; seed 1337 -> 1" in report
    assert "### out/other" in report
    assert Path("report.png").exists()
    assert main(["compare", "out/basic", "nowhere"]) == 2
    assert run("--real_data=False", verb="bench") == 0
    assert "tokens/s" in capsys.readouterr().out


def test_every_problem_is_told_without_a_traceback(experiment: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "trainables.character_streams",
            "train",
            "config/basic.py",
            "--max_iter=3",
            "--wandb_log=1",
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "NANOGPT_CONFIG": "configurator.py"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--max_iter=3: unknown key (did you mean 'max_iters'?)" in done.stderr
    assert "these commands write no W&B run" in done.stderr


def test_metrics_are_readable_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsCsv(path, ["iter", "val/loss"], "val/loss", keep=None)
    first.add({"iter": 0, "val/loss": 2.0})
    first.add({"iter": 5, "val/loss": None})
    assert read_metrics(path) == [{"iter": 0, "val/loss": 2.0}, {"iter": 5, "val/loss": None}]
    with path.open("a") as file:
        file.write("7,1.")  # cut off by a kill
    assert len(read_metrics(path)) == 2
    second = MetricsCsv(path, ["iter", "val/loss"], "val/loss", keep=(3, 3))
    assert read_metrics(path) == [{"iter": 0, "val/loss": 2.0}]
    first.close()
    second.close()


def test_utilization_knows_its_devices() -> None:
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("NVIDIA L40S") == 362e12
    assert peak_of("NVIDIA L40") is None  # not in the table, and no L4
    assert peak_of("Some processor") is None
    assert utilization(312e12, 2.0, PEAKS["A100"]) == 0.5
    assert utilization(1.0, 1.0, None) is None


def test_a_moved_experiment_is_gone_on_with(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its data and nanoGPT's checkpoint that it began with are found where they are now, from any folder."""
    add_a_run_of_nanogpt(experiment)
    theirs = ("--dataset=letters", "--out_dir=out/theirs", "--block_size=4", "--init_from=resume")
    assert run(*theirs, "--max_iters=8") == 0
    assert run("--max_iters=3") == 0
    written = json.loads((experiment / "out" / "theirs" / "config.json").read_text())["config"]
    assert (written["data"], written["initial_weights"]) == ("data/letters", "out/theirs/ckpt.pt")
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    experiment.rename(moved)
    monkeypatch.chdir(moved)
    capsys.readouterr()
    assert run(*theirs, "--max_iters=9") == 0
    assert "iteration 8 of 9" in capsys.readouterr().out
    assert run("--max_iters=4", "--init_from=resume") == 0
    assert "iteration 3 of 4" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    record = read_record(moved / "out" / "basic")
    assert record is not None
    assert record.config.data == str(moved / "data" / "basic")


def test_data_outside_the_experiment_stay_where_they_are(experiment: Path, tmp_path: Path) -> None:
    (experiment / "data").rename(tmp_path / "data")
    assert run("--max_iters=1", f"--dataset={tmp_path}/data/basic") == 0
    assert run("--max_iters=1", f"--dataset={tmp_path}/data/basic", f"--out_dir={tmp_path}/out") == 0
    for out_dir in (experiment / "out" / "basic", tmp_path / "out"):
        assert json.loads((out_dir / "config.json").read_text())["config"]["data"] == str(tmp_path / "data" / "basic")


def test_without_a_folder_nothing_is_invented(experiment: Path) -> None:
    with pytest.raises(RungError, match=r"fields of|unknown key"):
        prepare("copy", Path("x"), lengths=3)
