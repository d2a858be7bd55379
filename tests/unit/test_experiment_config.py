"""Settings of experiments: the original's names and defaults, what is refused, and what they train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError, StorageError
from rung.settings import EvaluationConfig, OptimizerConfig, ScheduleConfig
from rung.training.schedules import learning_rate
from trainables.language.dotted import changes
from trainables.models.decoder_config import parameter_count
from trainables.tinystories.config import TinyStoriesConfig
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.settings import from_trainable, to_trainable

CONFIGS = Path(__file__).resolve().parents[2] / "trainables" / "tinystories" / "configs"

DOCUMENTED = {
    "description": "Brief description of what is being tested",
    "dataset": "TinyStories",
    "vocab_size": 10000,
    "context_length": 512,
    "d_model": 768,
    "num_layers": 12,
    "num_heads": 12,
    "d_ff": 3072,
    "rope_theta": 10000.0,
    "batch_size": 64,
    "max_iterations": 10000,
    "learning_rate": 0.0006,
    "min_learning_rate": 6e-05,
    "warmup_iters": 500,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.999,
    "grad_clip": 1.0,
    "train_data_path": "cs336_basics/artifacts/datasets/tinystories_train_tokens.npy",
    "val_data_path": "cs336_basics/artifacts/datasets/tinystories_tokens.npy",
    "device": None,
    "dtype": "float32",
    "seed": 42,
    "log_interval": 50,
    "eval_interval": 200,
    "checkpoint_interval": 1000,
}
"""The configuration file of the original's description."""


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "experiment.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_defaults_are_the_originals() -> None:
    defaults = ExperimentConfig().to_dict()
    shape = ("vocab_size", "context_length", "num_layers", "d_model", "num_heads", "d_ff", "rope_theta")
    assert [defaults[name] for name in shape] == [10_000, 512, 6, 512, 8, 2048, 10_000.0]
    training = ("batch_size", "max_iterations", "learning_rate", "min_learning_rate", "warmup_iters", "weight_decay")
    assert [defaults[name] for name in training] == [32, 10_000, 3e-4, 3e-5, 100, 0.1]
    rest = ("beta1", "beta2", "grad_clip", "device", "dtype", "seed")
    assert [defaults[name] for name in rest] == [0.9, 0.999, 1.0, None, "float32", 42]
    assert [defaults[f"{name}_interval"] for name in ("log", "eval", "checkpoint")] == [10, 100, 1000]


def test_the_documented_file_is_read_and_written_back(tmp_path: Path) -> None:
    config = ExperimentConfig.from_json(written(tmp_path, DOCUMENTED), experiment_name="mine")
    assert {name: config.to_dict()[name] for name in DOCUMENTED} == DOCUMENTED
    config.to_json(tmp_path / "again.json")
    assert ExperimentConfig.from_json(tmp_path / "again.json") == config


def test_all_that_is_wrong_is_said_in_one_message(tmp_path: Path) -> None:
    content = {**DOCUMENTED, "d_modle": 3, "colour": "red", "learning_rate": -1, "batch_size": True, "dtype": "int8"}
    with pytest.raises(RungError) as caught:
        ExperimentConfig.from_json(written(tmp_path, content))
    text = str(caught.value)
    assert "experiment.json" in text
    assert "d_modle: there is no such setting; did you mean 'd_model'?" in text
    assert "colour: there is no such setting; what rung is not to read belongs under `metadata`" in text
    assert "learning_rate: Input should be greater than 0, got -1" in text
    assert "batch_size: expected a number, got the boolean true" in text
    assert "dtype: Input should be 'float32', 'bfloat16' or 'float16', got 'int8'" in text


def test_keys_types_and_combinations_come_in_one_message() -> None:
    with pytest.raises(RungError) as caught:
        ExperimentConfig(learning_rat=1e-3, dtype="float31", batch_size="16", num_heads=5, warmup_iters=20_000)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 5
    for part in (
        "learning_rat: there is no such setting; did you mean 'learning_rate'?",
        "dtype: Input should be 'float32', 'bfloat16' or 'float16', got 'float31'",
        'batch_size: expected a number, got the text "16"',
        "num_heads (5) must divide d_model (512)",
        "warmup_iters (20000) must be below max_iterations (10000)",
    ):
        assert any(part in line for line in lines), part
    with pytest.raises(RungError) as caught:
        ExperimentConfig(num_heads="many", d_model=100, grad_clip="1")  # 8 heads, the default, are not asked for
    assert len(str(caught.value).splitlines()) == 3


def test_values_that_do_not_fit_together_are_refused_together() -> None:
    with pytest.raises(RungError) as caught:
        ExperimentConfig(num_heads=7, warmup_iters=50, max_iterations=50, min_learning_rate=1, experiment_name="a/b")
    text = str(caught.value)
    for part in (r"num_heads (7) must divide", "warmup_iters (50)", "min_learning_rate (1.0)", "a plain name"):
        assert part in text


def test_what_is_unknown_may_stand_under_metadata() -> None:
    config = ExperimentConfig(metadata={"colour": "red"}, tags=["a"])
    assert config.metadata == {"colour": "red"}
    assert config.numbers() == ExperimentConfig().numbers()


@pytest.mark.parametrize(
    ("content", "message"), [("{,", "not valid JSON"), ("[1]", "must hold one object of settings, not a list")]
)
def test_files_that_hold_no_settings_are_named(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RungError, match=message):
        ExperimentConfig.from_json(written(tmp_path, content))
    with pytest.raises(StorageError, match=r"nowhere\.json: No such file"):
        ExperimentConfig.from_json(tmp_path / "nowhere.json")


def test_the_id_follows_from_what_determines_the_numbers() -> None:
    one = ExperimentConfig(experiment_name="a", description="b").with_id()
    assert one.experiment_id == ExperimentConfig(experiment_name="c").with_id().experiment_id
    assert one.experiment_id != ExperimentConfig(seed=1).with_id().experiment_id
    assert ExperimentConfig(experiment_id="abc123").with_id().experiment_id == "abc123"


def test_it_trains_the_courses_decoder_and_schedule() -> None:
    config = to_trainable(ExperimentConfig(**DOCUMENTED))
    model = config.model
    assert (model.norm, model.norm_kind, model.positions, model.mlp) == ("pre", "rms", "rope", "swiglu")
    assert (model.bias, model.tie_embeddings, model.initialisation) == (False, False, "truncated_normal")
    assert (config.optimizer.kind, config.optimizer.beta2, config.gradient_clip) == ("adamw", 0.999, 1.0)
    assert (config.evaluation.every, config.evaluation.log_every, config.precision) == (200, 50, "fp32")
    rates = [
        learning_rate(config.schedule, config.optimizer.learning_rate, step, total_steps=10_000)
        for step in (0, 250, 500, 5250, 10_000, 10_001)
    ]
    assert rates == pytest.approx([0, 3e-4, 6e-4, 3.3e-4, 6e-5, 6e-5])


SHIPPED = {
    "tinystories_17m_handout": (22_696_448, 327_680_000),
    "tinystories_128m_course": (128_625_408, 327_680_000),
    "quick_test": (9_316_608, 4_096_000),
    "made_up_stories": (234_816, 819_200),
}
"""Parameters, and tokens that are trained on."""


def test_shipped_configurations_are_what_they_say() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == SHIPPED.keys()
    for name, (parameters, tokens) in SHIPPED.items():
        experiment = ExperimentConfig.from_json(CONFIGS / f"{name}.json")
        config = to_trainable(experiment)
        assert parameter_count(config.model, config.vocabulary, config.context) == parameters
        assert experiment.batch_size * experiment.context_length * experiment.max_iterations == tokens
        assert f"{parameters:,}" in experiment.description


def test_overrides_reach_every_setting_of_the_trainable() -> None:
    config = to_trainable(ExperimentConfig(overrides={"model.norm": "post", "accumulation": 4}))
    assert (config.model.norm, config.accumulation) == ("post", 4)


def test_unknown_and_wrong_overrides_are_named() -> None:
    with pytest.raises(RungError) as caught:
        to_trainable(ExperimentConfig(overrides={"model.nrm": "pre", "accumulation": 0, "optimizer.beta1": 3}))
    text = str(caught.value)
    assert "no setting 'model.nrm'; did you mean 'model.norm'?" in text
    assert "overrides: accumulation: Input should be greater than 0" in text
    assert "beta1: Input should be less than 1" in text


VARIANTS = {
    "defaults": {},
    "post-norm": {"model": {"norm": "post", "width": 64, "heads": 4}},
    "SiLU, tied": {"model": {"mlp": "silu", "tie_embeddings": True, "feed_forward": None}, "precision": "bf16"},
    "constant rate": {"schedule": ScheduleConfig(kind="none"), "gradient_clip": None},
    "fraction": {"schedule": ScheduleConfig(kind="cosine", warmup=9, warmup_from="zero", minimum_fraction=0.1)},
    "long warm-up": {"schedule": ScheduleConfig(kind="cosine", warmup=5000)},
    "early stopping": {"early_stopping": {"metric": "validation/loss"}, "data_seed": 3, "accumulation": 2},
    "evaluation": {"evaluation": EvaluationConfig(every=7, first=3)},
    "sgd": {"optimizer": OptimizerConfig(kind="sgd", learning_rate=1e-6)},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_configuration_of_the_trainable_can_be_said_as_an_experiment(name: str) -> None:
    config = TinyStoriesConfig.model_validate(VARIANTS[name])
    experiment = from_trainable(config, max_iterations=1000, seed=7)
    again = to_trainable(experiment)
    differing = changes(config.model_dump(mode="json"), again.model_dump(mode="json"))
    differing.pop("model.feed_forward", None)  # said in numbers
    assert differing == {}
    assert again.model.hidden == config.model.hidden
    assert (experiment.max_iterations, experiment.seed) == (1000, 7)
    assert ExperimentConfig(**json.loads(json.dumps(experiment.to_dict()))) == experiment
