"""What `rung plan` warns of: rungs before a plateau's end, rules that stop nobody, intervals of too few seeds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rung.plan import Plan, make_plan
from rung.plan_view import render
from rung.study import Study, load_study
from rung.trainable import Workload
from tests.shipped import STUDIES
from tests.toy_arithmetic import ToyArithmetic, ToyConfig
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.plateau import plateau

ROOT = Path(__file__).resolve().parents[2]


class Late(ToyArithmetic):
    """Stands still for 40 steps per unit of the modulus; 10 steps are an epoch."""

    @classmethod
    def plateau(cls, config: ToyConfig, metric: str) -> int | None:
        return 40 * config.modulus if metric == "validation/accuracy" and config.modulus > 5 else None

    @classmethod
    def workload(cls, config: ToyConfig) -> Workload:
        return Workload(parameters=1, tokens_per_step=3, flops_per_step=1.0, steps_per_epoch=10)


def plan(trainable: str = f"{__name__}:Late", **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "study": "late",
        "trainable": trainable,
        "space": {"modulus": [5, 7, 11]},
        "seeds": 4,
        "budget": {"steps": 900},
        "metric": {"name": "validation/accuracy", "mode": "max"},
        "scheduler": {"name": "asha", "grace": 100},
    }
    return make_plan(Study.model_validate(values | changes))


def test_rungs_before_the_end_of_a_plateau_are_named_with_what_to_do() -> None:
    assert plan().warnings == (
        "the rung at 100 steps lies before the plateau of validation/accuracy of 2 of the 3 configurations ends (about "
        f"440 steps, as {__name__}:Late says): configurations are stopped there that have only not risen yet. Set "
        "scheduler.grace to 440 or more, or scheduler.name to fifo",
    )


def test_the_plan_shows_its_warnings() -> None:
    console = Console(width=999, file=io.StringIO(), record=True)
    console.print(render(plan()))
    shown = console.export_text()
    assert f"warning: {plan().warnings[0]}." in shown
    console.print(render(plan(scheduler={"name": "fifo"})))
    assert "warning: " not in console.export_text()


def test_the_plan_says_that_confidence_lets_more_go_on() -> None:
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(render(plan(scheduler={"name": "asha", "grace": 300, "confidence": 0.8})))
    shown = console.export_text()
    assert "scheduler asha, confidence 0.8\n" in shown.replace("  ", "").replace(" \n", "\n")
    assert "configurations, at least" in shown


def test_every_early_rung_is_named() -> None:
    (warning,) = plan(scheduler={"name": "synchronous_halving", "grace": 20}).warnings
    assert warning.startswith("the rungs at 20, 60, 180 steps lie before")


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": {"name": "fifo"}},
        {"scheduler": {"name": "asha", "grace": 220}},
        {"space": {"modulus": [3, 5]}},
        {"metric": {"name": "train/loss", "mode": "min"}},
        {"trainable": "tests.toy_arithmetic:ToyArithmetic"},
        {"budget": {"wall_clock": 900}},
    ],
)
def test_nothing_is_wrong(changes: dict[str, Any]) -> None:
    assert plan(**changes).warnings == ()


@pytest.mark.parametrize(
    ("budget", "grace", "text"),
    [
        ({"epochs": 90}, 10, "the rung at 10 epochs lies before"),
        ({"epochs": 90}, 10, "Set scheduler.grace to 44 or more"),
        ({"tokens": 2700}, 300, "Set scheduler.grace to 1320 or more"),
        ({"steps": 400}, 100, "take scheduler fifo, or a longer budget"),
    ],
)
def test_the_advice_is_in_the_unit_of_the_budget(budget: dict[str, int], grace: int, text: str) -> None:
    (warning,) = plan(budget=budget, scheduler={"name": "asha", "grace": grace}).warnings
    assert text in warning


@pytest.mark.parametrize(
    "scheduler",
    [{"name": "asha", "grace": 300, "minimum": 4}, {"name": "median_stopping", "grace": 300}],
)
def test_a_rule_that_can_stop_nobody_is_named(scheduler: dict[str, Any]) -> None:
    (warning,) = plan(scheduler=scheduler).warnings
    assert warning.startswith(f"{scheduler['name']} can stop none of 3 configurations")


@pytest.mark.parametrize(
    ("seeds", "confidence", "text"),
    [
        (1, 0.8, "scheduler.confidence does nothing at the first rung (300 steps)"),
        (2, 0.9, "the 90 % interval of 2 seeds reaches 4.5 standard deviations"),
        ({"start": 2, "full": 8}, 0.9, "the 90 % interval of 2 seeds"),
        (4, 0.9, None),
        (2, 0.5, None),
    ],
)
def test_an_interval_of_too_few_seeds_is_named(seeds: Any, confidence: float, text: str | None) -> None:
    scheduler = {"name": "asha", "grace": 300, "confidence": confidence}
    warnings = plan(seeds=seeds, scheduler=scheduler).warnings
    assert len(warnings) == (text is not None)
    assert text is None or text in warnings[0]


@pytest.mark.parametrize(
    ("confirm", "least"), [({"top": 2, "seeds": 5}, 6), ({"top": 3, "seeds": 6}, 7), ({"top": 9, "seeds": 1}, 7)]
)
def test_too_few_fresh_seeds_to_name_a_winner_are_named(confirm: dict[str, int], least: int) -> None:
    found = plan(scheduler={"name": "fifo"}, confirm=confirm).warnings
    assert [f"Set confirm.seeds to {least} or more" in warning for warning in found] == [True]
    assert not plan(scheduler={"name": "fifo"}, confirm={**confirm, "seeds": least}).warnings
    assert not plan(scheduler={"name": "fifo"}, confirm={"top": 1, "seeds": 1}).warnings


def test_a_confidence_that_nobody_asks_for_is_named() -> None:
    (warning,) = plan(scheduler={"name": "fifo", "confidence": 0.8}).warnings
    assert warning == "fifo compares nobody: scheduler.confidence does nothing"


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_no_shipped_study_is_warned_of(file: Path) -> None:
    plan = make_plan(load_study(file))
    assert plan.warnings == plan.missing  # data that has not been prepared here


# What modular arithmetic says.


def arithmetic(fraction: float = 0.5, metric: str = "validation/accuracy", **optimizer: Any) -> int | None:
    values = {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 1.0} | optimizer
    config = ModularArithmeticConfig.model_validate({"train_fraction": fraction, "optimizer": values})
    return plateau(config, metric)


def test_the_rule_of_thumb_lies_within_a_factor_of_two_of_what_was_measured() -> None:
    """Steps until a quarter of the validation items are right, medians over seeds: see the docstring of `plateau`."""
    measured = {
        arithmetic(): 3000,
        arithmetic(0.8, learning_rate=1e-2): 450,
        arithmetic(0.8, learning_rate=1e-2, weight_decay=0.3): 650,
        arithmetic(weight_decay=0.01, grokfast={"kind": "ema", "start": 500}): 1850,
    }
    for said, steps in measured.items():
        assert said is not None
        assert steps / 2 < said < steps * 2


def test_nothing_is_said_where_there_is_no_experience() -> None:
    assert arithmetic(metric="train/accuracy") is None
    assert arithmetic(metric="parameter_norm") is None
    assert arithmetic(weight_decay=0.0) is None
    assert arithmetic(kind="sgd") is None


def test_more_weight_decay_more_data_and_a_higher_rate_shorten_it_but_not_beyond_a_decay_of_1() -> None:
    reference = arithmetic()
    assert reference is not None
    for shorter in (arithmetic(0.6), arithmetic(learning_rate=3e-3), arithmetic(grokfast={"kind": "ma"})):
        assert shorter is not None
        assert shorter < reference
    assert arithmetic(weight_decay=3.0) == reference


def test_settings_that_change_nothing_are_named() -> None:
    def warned(objective: dict[str, Any], space: dict[str, Any], **rollout: Any) -> tuple[str, ...]:
        study = {
            "study": "answers",
            "trainable": "trainables.arithmetic:ArithmeticGrpo",
            "base": {"objective": objective, "rollout": rollout},
            "space": space,
            "seeds": 1,
            "budget": {"steps": 10},
            "metric": {"name": "validation/reward_rate", "mode": "max"},
            "scheduler": {"name": "fifo"},
        }
        warnings = make_plan(Study.model_validate(study)).warnings
        return tuple(text for text in warnings if "changes nothing" in text)

    swept = {"objective.kl_coefficient": [0.01, 0.1]}
    assert warned({}, swept) == ("objective.kl_coefficient is swept and changes nothing: objective.kl is none",)
    assert warned({}, swept | {"objective.kl": ["none", "k3"]}) == ()
    (given,) = warned({"clip_high": 0.28}, {})
    assert given.startswith("objective.clip_high is given and changes nothing: with one step for each rollout")
    assert warned({"clip_high": 0.28}, {}, passes=2) == ()
    assert len(warned({"clip_high": 0.28, "ratio": "none"}, {}, passes=2)) == 1
