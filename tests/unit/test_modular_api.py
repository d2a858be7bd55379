"""The Python API of modular arithmetic: runs from `Arguments`, their files, resuming, and reading them back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rung.errors import RungError, StorageError
from trainables.modular_arithmetic import ModularArithmetic, ModularArithmeticConfig, api
from trainables.modular_arithmetic.api import Arguments, train_model, train_models
from trainables.modular_arithmetic.experiments import (
    Experiment,
    best_metrics,
    export,
    load_experiment,
    load_experiments,
    models_params,
    processed_metrics,
)
from trainables.modular_arithmetic.inspection import attention_maps, item_results, load_snapshot


def arguments(tmp_path: Path, **changes: Any) -> Arguments:
    small: dict[str, Any] = {
        "p": 7,
        "train_batch_size": 10,
        "embedding_size": 8,
        "hidden_size": 8,
        "num_heads": 2,
        "n_steps": 12,
        "eval_first": 2,
        "eval_period": 5,
        "save_model_step": 5,
        "log_dir": str(tmp_path),
        "exp_name": "demo",
        "verbose": False,
    }
    return Arguments(**{**small, **changes})


def snapshots(directory: Path) -> dict[int, Path]:
    """The snapshots of a run, by step."""
    found = {int(path.name.split("step=")[1].split("_")[0]): path for path in directory.glob("*.safetensors")}
    return dict(sorted(found.items()))


# Arguments.


def test_arguments_have_the_original_names_and_defaults() -> None:
    assert dataclasses.asdict(Arguments()) == {
        "p": 31,
        "operator": "+",
        "r_train": 0.5,
        "operation_orders": [2],
        "train_batch_size": 512,
        "eval_batch_size": 4096,
        "num_workers": 0,
        "model": "lstm",
        "num_heads": 4,
        "num_layers": 2,
        "embedding_size": 128,
        "hidden_size": 128,
        "dropout": 0.0,
        "share_embeddings": False,
        "bias_classifier": True,
        "optimizer": "adamw",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 1.0,
        "scheduler": "none",
        "scheduler_unit": "epoch",
        "n_steps": 10_001,
        "eval_first": 100,
        "eval_period": 100,
        "print_step": 100,
        "save_model_step": 1000,
        "save_statistic_step": 1000,
        "device": "auto",
        "exp_id": 0,
        "exp_name": "default",
        "log_dir": "logs",
        "seed": 42,
        "verbose": True,
    }


def test_default_arguments_are_the_default_configuration_but_for_the_model() -> None:
    config = Arguments(model="gpt", scheduler_unit="step").to_config()
    assert config == ModularArithmeticConfig()


def test_every_argument_reaches_the_configuration() -> None:
    config = Arguments(
        p=11,
        operator="*",
        r_train=0.3,
        operation_orders=[2, 3],
        train_batch_size=7,
        eval_batch_size=8,
        model="gpt",
        num_heads=3,
        num_layers=4,
        embedding_size=12,
        hidden_size=None,
        dropout=0.1,
        share_embeddings=True,
        bias_classifier=False,
        optimizer="momentum",
        lr=0.1,
        momentum=0.5,
        weight_decay=0.25,
        scheduler="step",
        eval_first=3,
        eval_period=9,
    ).to_config()
    assert (config.modulus, config.operator, config.train_fraction, config.orders) == (11, "*", 0.3, (2, 3))
    assert (config.batch_size, config.evaluation_batch_size) == (7, 8)
    assert config.model.model_dump() == {
        "kind": "gpt",
        "layers": 4,
        "width": 12,
        "heads": 3,
        "dropout": 0.1,
        "tie_embeddings": True,
        "classifier_bias": False,
    }
    optimizer = config.optimizer
    assert (optimizer.kind, optimizer.learning_rate, optimizer.momentum) == ("momentum", 0.1, 0.5)
    assert optimizer.weight_decay == 0.25
    assert (config.schedule.kind, config.schedule.unit) == ("step", "epoch")
    assert (config.schedule.every, config.schedule.factor) == (100, 0.1)
    assert (config.evaluation.first, config.evaluation.every) == (3, 9)
    assert Arguments(operation_orders=3).to_config().orders == (3,)
    assert Arguments(scheduler="dummy").to_config().schedule.kind == "none"


def test_an_unknown_attribute_is_refused_with_the_nearest_name() -> None:
    settings = Arguments()
    with pytest.raises(AttributeError, match="'train_batchsize': did you mean 'train_batch_size'"):
        settings.train_batchsize = 3
    settings.lr = 0.1
    assert Arguments().lr == 1e-3  # instances do not leak into each other
    settings.operation_orders.append(3)  # type: ignore[union-attr]
    assert Arguments().operation_orders == [2]


def test_arguments_that_cannot_be_trained_are_refused_under_their_own_names() -> None:
    with pytest.raises(RungError) as caught:
        Arguments(r_train=1.0, train_batch_size=0, num_heads=-1).to_config()
    text = str(caught.value)
    assert "r_train: train_fraction must lie strictly between" in text
    assert "train_batch_size: " in text
    assert "num_heads: " in text
    with pytest.raises(RungError, match="must be equal"):
        Arguments(hidden_size=64).to_config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"exp_name": "a/b"}, "must be a plain name"),
        ({"weight_decay": 0.5}, "weight_decay: not a setting of a run"),
    ],
)
def test_settings_of_a_run_are_checked(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RungError, match=message):
        train_model(arguments(tmp_path), **changes)


# Runs and their files.


def test_train_model_returns_metrics_and_the_directory_with_its_files(tmp_path: Path) -> None:
    metrics, directory = train_model(arguments(tmp_path, exp_id=3))
    assert directory == tmp_path / "demo" / "3"
    assert json.loads((directory / "demo_metrics.json").read_text()) == metrics
    settings = json.loads((directory / "config.json").read_text())
    assert settings["config"] == arguments(tmp_path).to_config().model_dump(mode="json")
    assert (settings["seed"], settings["n_steps"]) == (42, 12)
    assert settings["launch"]["versions"]["torch"]


def test_recorded_are_loss_accuracy_and_norm_per_order_and_pooled_with_steps_epochs_and_times(
    tmp_path: Path,
) -> None:
    metrics, _ = train_model(arguments(tmp_path, operation_orders=[2, 3], train_batch_size=99))
    assert metrics["steps"] == [0, 1, 2, 5, 10, 12]
    assert metrics["epochs"] == [0, 0.5, 1, 2.5, 5, 6]  # 25 + 172 items, 99 to a batch
    assert metrics["operation_orders"] == [2, 3]
    for split, (two, three) in (("train", (25, 172)), ("test", (24, 171))):
        assert metrics[split].keys() == metrics["pooled"][split].keys() == {"loss", "accuracy", "l2_norm"}
        for name, values in metrics[split].items():
            assert np.shape(values) == (2, 6)
            weighted = (two * np.array(values[0]) + three * np.array(values[1])) / (two + three)
            assert metrics["pooled"][split][name] == pytest.approx(weighted)
    assert metrics["avg_step_time"] == metrics["total_time"] / 12
    assert 0 < metrics["total_time"] < 60
    assert metrics["wall_seconds"] == sorted(metrics["wall_seconds"])


@pytest.mark.parametrize("eval_period", [5, 7])
def test_snapshots_at_step_1_each_period_and_the_end_carry_step_accuracy_and_loss(
    eval_period: int, tmp_path: Path
) -> None:
    # With a period of 7, steps 5 and 10 are not evaluated otherwise.
    settings = arguments(tmp_path, eval_period=eval_period)
    metrics, directory = train_model(settings)
    found = snapshots(directory)
    assert list(found) == [1, 5, 10, 12]
    assert 5 in metrics["steps"] or eval_period == 7
    for step, path in found.items():
        model, config, seed = load_snapshot(path)
        with torch.no_grad():
            measured = ModularArithmetic(config, seed).evaluate(model)
        accuracy, loss = measured["validation/accuracy"], measured["validation/loss"]
        assert path.name == f"demo_state_step={step}_acc={accuracy:.6g}_loss={loss:.6g}.safetensors"


@pytest.mark.parametrize("model", ["lstm", "gpt"])
@pytest.mark.parametrize("operator", ["+", "-", "*", "/"])
def test_every_model_and_operator_runs(model: str, operator: str, tmp_path: Path) -> None:
    metrics, _ = train_model(arguments(tmp_path, model=model, operator=operator, operation_orders=[2, 3], n_steps=3))
    assert metrics["status"] == "completed"
    assert metrics["steps"] == [0, 1, 2, 3]


def test_a_configuration_is_trained_like_the_arguments_that_describe_it(tmp_path: Path) -> None:
    settings = arguments(tmp_path)
    metrics, _ = train_model(settings)
    again, directory = train_model(
        settings.to_config(), n_steps=12, seed=42, log_dir=str(tmp_path), exp_name="other", verbose=False
    )
    assert directory == tmp_path / "other" / "0"
    assert again["train"] == metrics["train"]


def test_progress_is_printed_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_model(arguments(tmp_path))
    assert capsys.readouterr().out == ""
    train_model(arguments(tmp_path, exp_id=1, verbose=True, print_step=5))
    lines = capsys.readouterr().out.splitlines()
    assert "  model.width: 8" in lines
    assert [line.split(" |")[0] for line in lines if " | " in line] == ["step 0", "step 5", "step 10", "step 12"]
    assert lines[-1].startswith("completed after 12 steps and ")


# Resuming.


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the trainable raise when it comes to `step`."""
    loss, calls = ModularArithmetic.loss, iter(range(10**6))

    def loss_or_death(self: ModularArithmetic, model: Any, batch: Any) -> Any:
        if next(calls) == step:
            raise Killed
        return loss(self, model, batch)

    monkeypatch.setattr(ModularArithmetic, "loss", loss_or_death)


def numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how a run was interrupted."""
    return {name: metrics[name] for name in ("status", "ended_by", "steps", "epochs", "train", "test", "pooled")}


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1000.0])
@pytest.mark.parametrize("step", [0, 6, 11])
def test_the_same_call_again_continues_an_interrupted_run(
    step: int, checkpoint_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = arguments(tmp_path, save_statistic_step=5, model="gpt", dropout=0.2)
    expected, _ = train_model(settings, exp_name="straight")
    monkeypatch.setattr(api, "CHECKPOINT_SECONDS", checkpoint_seconds)  # after every step, or not at all
    with monkeypatch.context() as patch:
        kill_at(step, patch)
        with pytest.raises(Killed):
            train_model(settings)
    metrics, directory = train_model(settings)
    assert numbers(metrics) == numbers(expected)
    assert list(snapshots(directory)) == [1, 5, 10, 12]


def test_a_finished_run_returns_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = train_model(arguments(tmp_path))
    kill_at(0, monkeypatch)
    assert train_model(arguments(tmp_path)) == (first, tmp_path / "demo" / "0")


def test_more_steps_extend_a_finished_run(tmp_path: Path) -> None:
    expected, _ = train_model(arguments(tmp_path, exp_name="straight", n_steps=20))
    train_model(arguments(tmp_path, n_steps=10))
    metrics, _ = train_model(arguments(tmp_path, n_steps=20))
    assert numbers(metrics) == numbers(expected)


def test_a_directory_with_another_run_is_left_alone(tmp_path: Path) -> None:
    train_model(arguments(tmp_path, scheduler="cosine"))
    with pytest.raises(RungError, match=r"another run \(config.optimizer.weight_decay 1.0 -> 0.5, seed 42 -> 1\)"):
        train_model(arguments(tmp_path, scheduler="cosine", weight_decay=0.5, seed=1))
    with pytest.raises(RungError, match="cannot be cut to 5"):
        train_model(arguments(tmp_path, scheduler="cosine", n_steps=5))
    with pytest.raises(RungError, match="over which its learning rate fell"):
        train_model(arguments(tmp_path, scheduler="cosine", n_steps=50))


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file where a directory belongs")
    with pytest.raises(StorageError, match="demo"):
        train_model(arguments(tmp_path))


# Several seeds, and reading back.


def test_train_models_gives_one_directory_per_seed_numbered_by_index(tmp_path: Path) -> None:
    settings = arguments(tmp_path, seed=5, exp_id=9)
    directories = train_models(settings, seeds=[0, 13, 42])
    assert directories == [tmp_path / "demo" / str(index) for index in range(3)]
    assert [json.loads((each / "config.json").read_text())["seed"] for each in directories] == [0, 13, 42]
    assert (settings.seed, settings.exp_id) == (5, 9)  # the caller's arguments stay as they are
    with pytest.raises(RungError, match="every seed may stand once"):
        train_models(settings, seeds=[1, 1])
    with pytest.raises(RungError, match="at least one seed"):
        train_models(settings, seeds=[])


def test_extra_random_seeds_are_new_and_the_same_at_the_next_call(tmp_path: Path) -> None:
    settings = arguments(tmp_path, n_steps=1)
    directories = train_models(settings, random_seeds=3)
    assert train_models(settings, random_seeds=3) == directories
    seeds = [json.loads((each / "config.json").read_text())["seed"] for each in directories]
    assert seeds[:2] == [0, 42]
    assert len(set(seeds)) == 5


def test_load_experiment_merges_runs_into_arrays_with_mean_and_std_over_seeds(tmp_path: Path) -> None:
    train_models(arguments(tmp_path, operation_orders=[2, 3]), seeds=[0, 13, 42])
    experiment = load_experiment(tmp_path / "demo")
    assert experiment.seeds == [0, 13, 42]
    assert experiment.orders == [2, 3]
    assert experiment.steps.tolist() == [0, 1, 2, 5, 10, 12]
    loss = experiment.values["test"]["loss"]
    assert loss.shape == (3, 2, 6)
    assert experiment.pooled["train"]["l2_norm"].shape == (3, 6)
    np.testing.assert_allclose(experiment.mean("test", "loss"), loss.mean(axis=0))
    np.testing.assert_allclose(experiment.std("test", "loss"), loss.std(axis=0, ddof=1))
    assert experiment.total_time.shape == experiment.average_step_time.shape == (3,)
    with pytest.raises(StorageError, match="holds no runs"):
        load_experiment(tmp_path)


def made_up(accuracy: list[list[float]], loss: list[list[float]]) -> Experiment:
    """An experiment of one order in which training and test differ by 0.1 in loss and one evaluation in accuracy."""
    test = {"accuracy": np.array(accuracy), "loss": np.array(loss), "l2_norm": np.array(loss)}
    train = {"accuracy": np.roll(test["accuracy"], -1, axis=1), "loss": test["loss"] - 0.1, "l2_norm": test["l2_norm"]}
    pooled = {"train": train, "test": test}
    return Experiment(
        name="made up",
        settings=[{"seed": seed, "config": {"orders": [2]}} for seed in range(len(accuracy))],
        steps=np.array([0, 100, 200, 300]),
        epochs=np.array([0.0, 100, 200, 300]),
        values={split: {name: each[:, None] for name, each in values.items()} for split, values in pooled.items()},
        pooled=pooled,
        total_time=np.ones(len(accuracy)),
        average_step_time=np.ones(len(accuracy)),
    )


def test_best_metrics_are_taken_per_run_and_then_over_seeds() -> None:
    accuracy = [[0.0, 0.5, 0.96, 0.96], [0.0, 0.92, 0.9, 0.91]]
    loss = [[3.0, 2.0, 1.0, 1.5], [3.0, 0.5, 0.5, 0.7]]
    best = best_metrics(made_up(accuracy, loss))
    assert best["seeds"] == [0, 1]
    assert best["pooled"] == best["order_2"]
    found = best["pooled"]
    assert found["L_test"] == {"values": [1.0, 0.5], "mean": 0.75, "std": pytest.approx(0.5 / 2**0.5), "n": 2}
    assert found["t_f(L_test)"]["values"] == [200, 100]  # the first of equals
    assert found["A_test"]["values"] == [0.96, 0.92]
    assert found["t_f(A_test)"]["values"] == [200, 100]
    assert found["t_f(A_train)"]["values"] == [100, 0]
    assert found["delta_t(A)"] == {"values": [100, 100], "mean": 100, "std": 0, "n": 2}


def test_threshold_times_are_censored_where_a_run_does_not_get_there() -> None:
    found = best_metrics(made_up([[0, 0.5, 0.96, 0.96], [0, 0.92, 0.9, 0.91]], [[1] * 4] * 2))["pooled"]
    assert found["steps_to(A_test >= 0.9)"]["values"] == [200, 100]
    assert found["steps_to(A_test >= 0.95)"] == {"values": [200, None], "mean": 200, "std": None, "n": 1}
    assert found["steps_to(A_test >= 0.99)"] == {"values": [None, None], "mean": None, "std": None, "n": 0}


def test_a_run_without_a_value_is_left_out_of_the_mean_and_not_counted_as_one() -> None:
    nan = float("nan")
    experiment = made_up([[0, 0.5, nan, nan], [0, 0.9, 0.8, nan]], [[1] * 4] * 2)
    assert experiment.mean("test", "accuracy").tolist()[0] == pytest.approx([0, 0.7, 0.8, nan], nan_ok=True)
    assert experiment.std("test", "accuracy").tolist()[0] == pytest.approx([0, 0.08**0.5, nan, nan], nan_ok=True)
    curves = processed_metrics(experiment)["pooled"]["test"]["accuracy"]
    assert curves["mean"] == [0, 0.7, 0.8, None]


def test_export_writes_best_and_processed_metrics_and_model_sizes(tmp_path: Path) -> None:
    for width in (16, 8):
        train_models(arguments(tmp_path, embedding_size=width, hidden_size=width, exp_name=f"d_{width}", n_steps=2))
    assert list(load_experiments(tmp_path)) == ["d_8", "d_16"]  # in natural order
    written = export(tmp_path)
    assert [path.name for path in written] == ["best_metrics.json", "processed_metrics.json", "models_params.json"]
    best, processed, models = (json.loads(path.read_text()) for path in written)
    assert best.keys() == processed.keys() == models.keys() == {"d_8", "d_16"}
    assert best["d_8"]["pooled"]["L_train"]["n"] == 2
    assert processed["d_8"]["train"]["loss"]["mean"] == [
        load_experiment(tmp_path / "d_8").mean("train", "loss")[0].tolist()
    ]
    # 2 layers of 4 ((8 + 8) 8 + 8), a classifier of 8 x 12 + 12, an embedding of 12 x 8
    assert models["d_8"]["parameters_without_embeddings"] == 2 * 544 + 108
    assert models["d_8"]["parameters"] == 2 * 544 + 108 + 96
    assert models["d_8"] == models_params(load_experiment(tmp_path / "d_8"))


def test_runs_that_differ_in_more_than_their_seed_are_no_experiment(tmp_path: Path) -> None:
    train_model(arguments(tmp_path, n_steps=1))
    train_model(arguments(tmp_path, n_steps=1, exp_id=1, lr=0.5))
    with pytest.raises(RungError, match="differ in more than their seed"):
        load_experiment(tmp_path / "demo")


# Looking into a trained model.


def test_attention_maps_of_items_have_token_labels(tmp_path: Path) -> None:
    _, directory = train_model(arguments(tmp_path, model="gpt", n_steps=1))
    model, config, _ = load_snapshot(snapshots(directory)[1])
    maps = attention_maps(model, config, ["3 + 5 = 1", "0 + 2 = 2"])
    assert maps.weights.shape == (2, 2, 2, 6, 6)
    assert maps.labels == [["BOS", "3", "+", "5", "=", "1"], ["BOS", "0", "+", "2", "=", "2"]]
    assert attention_maps(model, config, ["3 + 5 ="]).weights.shape == (1, 2, 2, 5, 5)
    with pytest.raises(RungError, match="one length"):
        attention_maps(model, config, ["3 + 5 = 1", "3 + 5 ="])


def test_an_lstm_has_no_attention_maps(tmp_path: Path) -> None:
    _, directory = train_model(arguments(tmp_path, n_steps=1))
    model, config, _ = load_snapshot(snapshots(directory)[1])
    with pytest.raises(RungError, match="is an lstm"):
        attention_maps(model, config, ["3 + 5 = 1"])


def test_item_results_agree_with_the_evaluation(tmp_path: Path) -> None:
    settings = arguments(
        tmp_path, model="gpt", operation_orders=[2, 3], lr=0.02, weight_decay=0.0, n_steps=120, share_embeddings=True
    )
    metrics, directory = train_model(settings)
    model, config, seed = load_snapshot(snapshots(directory)[120])
    results = item_results(model, config, seed)
    assert results.keys() == {2, 3}
    for index, order in enumerate((2, 3)):
        found = results[order]
        assert len(found.numbers) == 7**order
        assert found.numbers[:, :-1].tolist() == sorted(found.numbers[:, :-1].tolist())
        for split, rows in (("train", found.trained_on), ("test", ~found.trained_on)):
            assert found.correct[rows].mean() == pytest.approx(metrics[split]["accuracy"][index][-1])
            assert found.loss[rows].mean() == pytest.approx(metrics[split]["loss"][index][-1], rel=1e-5)
        assert (found.predicted == found.numbers[:, -1])[found.correct].all()
    assert results[2].correct.any()


def test_a_snapshot_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing\.safetensors"):
        load_snapshot(tmp_path / "nothing.safetensors")
