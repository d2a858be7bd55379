"""One contract for every trainable: the same questions are asked of each registered one, and of the toy.

Same seed, same numbers; N steps straight are k steps, a checkpoint and the rest; evaluation does not disturb training;
a bad configuration is refused with everything that is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rung.trainable import Trainable, find_trainable
from rung.training.assignment import Goal
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.loop import NullRecorder, evaluate, train
from rung.training.packed import Member, train_together
from rung.training.run import Report, Run
from tests.expressions import SMALL_EXPRESSIONS
from tests.stories import SMALL_STORIES, few_stories
from tests.word_problems import small_word_problems
from trainables.rl.config import GroupRelativeConfig

OF_WHAT_IS_WRITTEN = {"validation/step_accuracy"}
"""Of steps in answers, and fresh weights write none."""
LETTERS = {"own": {"letters": {"function": "tests.word_problems:letters"}}}
"""A reward that fresh weights get a part of."""

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "toy": ("tests.toy:Toy", {"model": {"dropout": 0.2}}),
    "gpt": ("modular_arithmetic", {"modulus": 5, "model": {"kind": "gpt", "layers": 2, "width": 8, "heads": 2}}),
    "gpt in batches, with dropout": (
        "modular_arithmetic",
        {"modulus": 5, "batch_size": 4, "model": {"kind": "gpt", "layers": 1, "width": 8, "heads": 2, "dropout": 0.3}},
    ),
    "lstm": ("modular_arithmetic", {"modulus": 5, "model": {"kind": "lstm", "layers": 2, "width": 8}}),
    "gpt in bf16, with an averaged gradient": (
        "modular_arithmetic",
        {
            "modulus": 5,
            "precision": "bf16",
            "optimizer": {"grokfast": {"kind": "ema"}},
            "model": {"kind": "gpt", "layers": 1, "width": 8, "heads": 2},
        },
    ),
    "lstm in bf16, with a window of gradients": (
        "modular_arithmetic",
        {
            "modulus": 5,
            "precision": "bf16",
            "optimizer": {"grokfast": {"kind": "ma", "window": 4}},
            "model": {"kind": "lstm", "layers": 1, "width": 8},
        },
    ),
    "lstm of mixed orders": (
        "modular_arithmetic",
        {
            "modulus": 3,
            "orders": [2, 3],
            "batch_size": 8,
            "model": {"kind": "lstm", "layers": 2, "width": 8, "dropout": 0.3},
        },
    ),
    "stories": ("tinystories", SMALL_STORIES),
    "stories in bf16, with dropout and post-norm": (
        "tinystories",
        {
            **SMALL_STORIES,
            "precision": "bf16",
            "model": {**SMALL_STORIES["model"], "dropout": 0.2, "norm": "post", "positions": "learned", "mlp": "gelu"},
        },
    ),
    "characters, windows anywhere": (
        "trainables.character_streams:CharacterStreams",
        {
            "stream": {"longest": 2, "alphabet": "abc"},
            "characters": 2000,
            "context": 12,
            "batch_size": 4,
            "evaluation_tokens": 120,
            "answers": 9,
            "optimizer": {"decay": "all"},
            "model": {"layers": 1, "width": 8, "heads": 2},
        },
    ),
    "answers of characters, with dropout and held-out lines": (
        "trainables.character_streams:CharacterStreams",
        {
            "stream": {"name": "addition", "digits": 1, "reverse_target": True},
            "characters": 2000,
            "held_out": "lines",
            "loss_on": "answer",
            "windows": "lines",
            "context": 12,
            "batch_size": 4,
            "evaluation_tokens": 120,
            "answers": 9,
            "accumulation": 2,
            "model": {"layers": 1, "width": 8, "heads": 2, "dropout": 0.2},
        },
    ),
    "expressions in buckets, with dropout": (
        "trainables.arithmetic:Arithmetic",
        {**SMALL_EXPRESSIONS, "batch_size": 6, "model": {**SMALL_EXPRESSIONS["model"], "dropout": 0.2}},
    ),
    "solutions of packed expressions": (
        "trainables.arithmetic:Arithmetic",
        {**SMALL_EXPRESSIONS, "mode": "instruction", "format": "v1", "batching": "packed", "batch_size": 2},
    ),
    "adapters for expressions, with dropout and accumulation": (
        "trainables.arithmetic:Arithmetic",
        {
            **SMALL_EXPRESSIONS,
            "mode": "instruction",
            "batch_size": 4,
            "accumulation": 2,
            "adapter": {"rank": 2, "dropout": 0.2, "targets": "attention,feedforward"},
        },
    ),
    "answers to expressions, with a copy as the reference": (
        "trainables.arithmetic:ArithmeticGrpo",
        {
            **{name: value for name, value in SMALL_EXPRESSIONS.items() if name != "batch_size"},
            "rewards": LETTERS,
            "rollout": {"prompts": 2, "group": 3, "tokens": 6, "passes": 2, "minibatches": 2},
            "objective": {"kl": "k3", "aggregation": "sequence"},
        },
    ),
    "answers to expressions that never end, in bf16": (
        "trainables.arithmetic:ArithmeticGrpo",
        {
            **{name: value for name, value in SMALL_EXPRESSIONS.items() if name != "batch_size"},
            "data_mode": "generated",
            "rewards": LETTERS,
            "rollout": {"prompts": 2, "group": 3, "tokens": 6},
            "objective": {"kl": "full", "ratio": "none"},
            "precision": "bf16",
            "accumulation": 2,
        },
    ),
    "word problems with adapters on a pretrained model": (
        "trainables.word_problems:WordProblems",
        {
            "objective": {"kl": "k3"},
            "rollout": {"prompts": 2, "group": 2, "tokens": 3, "passes": 2},
            "decoding": {"tokens": 2, "samples": 1, "ks": [1]},
        },
    ),
}
EVALUATION = {"first": 2, "every": 5}
STEPS = 17


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The stories that some of them read."""
    folder = tmp_path_factory.mktemp("data")
    few_stories(folder)
    word_problems = small_word_problems(folder)
    name, values = SMALL["word problems with adapters on a pretrained model"]
    SMALL["word problems with adapters on a pretrained model"] = (name, {**word_problems, **values})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_DATA", str(folder))
        yield


@pytest.fixture(params=SMALL)
def case(request: pytest.FixtureRequest) -> tuple[type[Trainable[Any, Any]], Any]:
    name, values = SMALL[request.param]
    kind = find_trainable(name)
    return kind, kind.Config.model_validate({"evaluation": EVALUATION, **values})


class Memory(NullRecorder):
    """Keeps what was reported, by step."""

    def __init__(self) -> None:
        self.reports: dict[int, dict[str, float]] = {}

    def report(self, run: Run, report: Report) -> None:
        self.reports[report.step] = report.metrics


def make(case: tuple[type[Trainable[Any, Any]], Any], seed: int = 0) -> Run:
    kind, config = case
    names = kind.metrics(config)
    metric = "validation/loss" if "validation/loss" in names else next(iter(names))
    goal = Goal("steps", STEPS, metric, names[metric].mode)
    return Run(kind(config, seed), f"c-s{seed}", goal)


def straight(case: Any, seed: int = 0) -> tuple[Run, dict[int, dict[str, float]]]:
    run, memory = make(case, seed), Memory()
    train(run, math.inf, memory)
    return run, memory.reports


def test_same_seed_same_numbers_other_seed_other_numbers(case: Any) -> None:
    assert straight(case, 3)[1] == straight(case, 3)[1]
    assert straight(case, 4)[1] != straight(case, 3)[1]


@pytest.mark.parametrize("stop", [1, 9])
def test_interrupted_equals_straight(case: Any, stop: int, tmp_path: Path) -> None:
    expected, reports = straight(case)
    first, memory = make(case), Memory()
    train(first, stop, memory)
    save_checkpoint(first, tmp_path)
    second = make(case)
    load_checkpoint(second, latest_checkpoint(tmp_path) or tmp_path)
    train(second, math.inf, memory)
    assert {step: memory.reports[step] for step in reports} == reports
    state = second.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.model.state_dict().items())


def test_evaluation_does_not_disturb_training(case: Any) -> None:
    run, other = make(case), make(case)
    for step in range(1, STEPS):
        train(run, step, NullRecorder())
        first, again = evaluate(run, scheduled=False), evaluate(run, scheduled=False)
        assert first.metrics == again.metrics
    train(run, math.inf, NullRecorder())
    train(other, math.inf, NullRecorder())
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), other.model.parameters(), strict=True))


def test_it_reports_what_it_says_it_reports(case: Any) -> None:
    kind, config = case
    _, reports = straight(case)
    own = {"learning_rate", "gradient_norm"}
    told = {name for name in reports[STEPS] if name not in own and not name.startswith("batch/")}
    assert told == set(kind.metrics(config))
    assert all(math.isfinite(value) for name, value in reports[STEPS].items() if name not in OF_WHAT_IS_WRITTEN)
    for name, metric in kind.metrics(config).items():
        values = [report[name] for report in reports.values()]
        if metric.worst is not None and name not in OF_WHAT_IS_WRITTEN:
            assert metric.worst <= min(values) if metric.mode == "max" else max(values) <= metric.worst, name


def test_its_workload_is_that_of_the_model(case: Any) -> None:
    kind, config = case
    run = make(case)
    workload = kind.workload(config)
    assert workload.parameters == run.parameters
    if isinstance(config, GroupRelativeConfig):
        return  # how long answers will be is not known
    # Where batches have unequal lengths, it is their mean over a pass.
    steps = (workload.steps_per_epoch or 1) if hasattr(config, "batching") else 1
    train(run, steps, NullRecorder())
    assert run.progress.tokens == pytest.approx(steps * workload.tokens_per_step, abs=steps - 1)


def test_it_can_be_trained_in_a_pack_or_says_why_not(case: Any) -> None:
    kind, config = case
    if (config.packing_obstacle() or kind.packing_obstacle(config)) is not None:
        return
    (alone, reports), neighbour, same = straight(case), make(case, 1), make(case)
    memory = Memory()
    train_together([Member(neighbour, NullRecorder()), Member(same, memory)], math.inf)
    assert memory.reports.keys() == reports.keys()
    assert memory.reports[1].keys() == reports[1].keys()
    tolerance = 0.02 if config.precision == "bf16" else 1e-4
    assert memory.reports[1]["validation/loss"] == pytest.approx(reports[1]["validation/loss"], rel=tolerance)
    assert same.progress.tokens == alone.progress.tokens


def test_the_global_generator_is_left_alone(case: Any) -> None:
    before = torch.random.get_rng_state()
    straight(case)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_bad_configuration_is_refused_with_all_its_errors(case: Any) -> None:
    kind, _ = case
    with pytest.raises(ValidationError) as caught:
        kind.Config.model_validate({"optimizer": {"learning_rate": -1}, "gradient_clip": 0, "no_such_key": 1})
    places = {".".join(map(str, error["loc"])) for error in caught.value.errors()}
    assert places == {"optimizer.learning_rate", "gradient_clip", "no_such_key"}


def test_configurations_are_frozen_and_their_fields_explained(case: Any) -> None:
    _, config = case
    with pytest.raises(ValidationError, match="frozen"):
        config.gradient_clip = 2.0
    unexplained = [name for name, field in type(config).model_fields.items() if not field.description]
    assert not unexplained
