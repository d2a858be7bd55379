"""The plan: counts, order, rungs, cost, and that a large one is quick."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rung.configuration import expansion_of
from rung.cost import ASSUMED_OVERHEAD, ASSUMED_RATE, checkpoint_bytes, evaluations, rows, run_seconds, steps_at
from rung.errors import StudyError
from rung.plan import Plan, make_plan
from rung.plan_view import duration, quantity, render
from rung.settings import EvaluationConfig
from rung.study import Study
from rung.trainable import Workload
from tests.toy_arithmetic import ToyArithmetic

ROOT = Path(__file__).resolve().parents[2]


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "study": "toy",
        "trainable": "tests.toy_arithmetic:ToyArithmetic",
        "seeds": 2,
        "budget": {"steps": 900},
        "metric": {"name": "validation/accuracy", "mode": "max"},
    }
    return make_plan(Study.model_validate(values | changes))


def shown(planned: Plan, *, listed: bool = False, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render(planned, list_configurations=listed))
    return console.export_text()


GRID = {"model.layers": [1, 2, 3], "modulus": [5, 7, 11, 13]}
DRAW = {"optimizer.learning_rate": {"loguniform": [1e-4, 1e-2]}}


# Counts.


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"space": GRID | DRAW, "samples": 8, "seeds": 8},
            "3 x 4 x 8 samples = 96 configurations, x 8 seeds = 768 runs",
        ),
        ({"space": GRID}, "3 x 4 = 12 configurations, x 2 seeds = 24 runs"),
        ({"space": {"modulus": [5, 7]}, "seeds": 1}, "2 configurations, x 1 seed = 2 runs"),
        ({"space": GRID | {"optimizer.weight_decay": [0.5]}}, "3 x 4 = 12 configurations, x 2 seeds = 24 runs"),
        ({}, "1 configuration, x 2 seeds = 2 runs"),
        ({"space": DRAW, "samples": 1000}, "1,000 configurations, x 2 seeds = 2,000 runs"),
        (
            {"space": {"model.kind": ["gpt", "lstm"], "model.heads": {"grid": [2, 4], "when": {"model.kind": "gpt"}}}},
            "2 x 2 = 4 combinations, of which 3 differ: 3 configurations, x 2 seeds = 6 runs",
        ),
        (
            {"space": DRAW, "samples": 20, "searcher": {"name": "optuna"}},
            "20 configurations chosen by optuna, x 2 seeds = 40 runs",
        ),
    ],
)
def test_the_product_explains_the_numbers(changes: dict[str, Any], text: str) -> None:
    assert plan(**changes).product == text


def test_an_adaptive_search_has_no_planned_configurations_but_examples() -> None:
    found = plan(space=DRAW, samples=500, searcher={"name": "optuna"})
    assert found.configurations == ()
    assert (found.count, found.runs, len(found.examples)) == (500, 1000, 64)
    assert found.cost.most_steps == 900 * 1000


def test_the_order_of_starting_is_fixed_and_shuffled() -> None:
    space = {"modulus": list(range(2, 42))}
    order = [configuration.index for configuration in plan(space=space).configurations]
    assert sorted(order) == list(range(40))
    assert order == [configuration.index for configuration in plan(space=space).configurations]
    assert order != [configuration.index for configuration in plan(space=space, draw_seed=1).configurations]
    # Neither rising nor falling: half of the neighbours rise.
    rising = sum(low < high for low, high in pairwise(order))
    assert 12 <= rising <= 28


def test_more_values_do_not_change_the_order_of_those_there_were() -> None:
    before = [c.config_id for c in plan(space={"modulus": [5, 7, 11]}).configurations]
    after = [c.config_id for c in plan(space={"modulus": [2, 5, 13, 7, 11]}).configurations]
    assert [config_id for config_id in after if config_id in before] == before


def test_where_nothing_is_compared_the_longest_start_first() -> None:
    space = {"model.layers": [1, 3, 2], "modulus": [5, 11, 7]}
    found = plan(space=space, scheduler={"name": "fifo"})
    seconds = [run_seconds(each, ToyArithmetic, found.unit, 900) for each in found.configurations]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == 3
    assert sorted(each.index for each in found.configurations) == list(range(9))
    equal = {"optimizer.weight_decay": [0.1 * step for step in range(40)]}
    tied = plan(space=equal, scheduler={"name": "fifo"})
    assert tied.configurations == plan(space=equal).configurations, "those that take equally long stay shuffled"


def test_a_refused_configuration_is_an_error() -> None:
    with pytest.raises(StudyError, match="modulus=6: operator / needs a prime modulus"):
        plan(base={"operator": "/"}, space={"modulus": [5, 6]})


def test_the_complete_base_is_given_even_if_it_is_no_configuration_by_itself() -> None:
    base = plan(base={"operator": "/", "modulus": 6}, space={"modulus": [5]}).base
    assert (base["modulus"], base["operator"], base["optimizer"]["weight_decay"]) == (6, "/", 1.0)


# Rungs.


def test_a_study_without_early_stopping_has_one_rung() -> None:
    found = plan(space=GRID)
    assert found.rungs == (900,)
    assert [(rung.level, rung.configurations) for rung in found.climb] == [(900, 12)]


@pytest.mark.parametrize(
    ("scheduler", "rungs"),
    [
        ({"name": "asha", "grace": 100}, (100, 300, 900)),
        ({"name": "asha"}, (100, 300, 900)),
        ({"name": "asha", "grace": 100, "reduction_factor": 2}, (100, 200, 400, 900)),
        ({"name": "hyperband", "grace": 300}, (300, 900)),
    ],
)
def test_rungs_are_geometric_and_end_with_the_budget(scheduler: dict[str, Any], rungs: tuple[int, ...]) -> None:
    assert plan(space=GRID, scheduler=scheduler).rungs == rungs


def test_a_small_budget_still_has_rungs() -> None:
    assert plan(budget={"epochs": 2}, scheduler={"name": "asha"}).rungs == (1, 2)


def test_expected_survivors_of_synchronous_halving() -> None:
    found = plan(space=GRID, scheduler={"name": "synchronous_halving", "grace": 100})
    assert [rung.configurations for rung in found.climb] == [12, 4, 2]
    # 12 to step 100, 4 from there to 300, 2 from there to 900, each with 2 seeds.
    assert found.cost.expected_steps == 2 * (12 * 100 + 4 * 200 + 2 * 600)
    assert found.cost.most_steps == 2 * 12 * 900


def test_expected_survivors_of_hyperband_count_every_bracket() -> None:
    found = plan(space=GRID, scheduler={"name": "hyperband", "grace": 100})
    at_start = sum(len(bracket.configurations) for bracket in found.scheduler().brackets())
    assert found.climb[0].configurations == at_start == 12
    assert 1 < found.climb[-1].configurations < 12


@pytest.mark.parametrize("name", ["asha", "median_stopping", "synchronous_halving", "hyperband", "fifo"])
def test_every_scheduler_can_be_planned(name: str) -> None:
    found = plan(space=GRID, scheduler={"name": name})
    levels = [rung.configurations for rung in found.climb]
    assert levels[0] == 12
    assert levels == sorted(levels, reverse=True)
    assert f"scheduler {name}" in shown(found)


# Cost.


@pytest.mark.parametrize("first", [0, 1, 7, 200])
@pytest.mark.parametrize("every", [1, 5, 100])
@pytest.mark.parametrize("steps", [1, 5, 99, 100, 101])
def test_evaluations_are_counted_as_the_loop_makes_them(first: int, every: int, steps: int) -> None:
    config = EvaluationConfig(first=first, every=every)
    made = sum(config.is_due(step) or step == steps for step in range(steps + 1))
    assert evaluations(config, steps) == made
    for log_every in (1, 4, 7):
        logging = EvaluationConfig(first=first, every=every, log_every=log_every)
        between = sum(logging.is_logged(step) for step in range(1, steps))
        assert rows(logging, steps) == made + between


def test_steps_of_a_budget() -> None:
    workload = Workload(parameters=1, tokens_per_step=100, flops_per_step=1.0, steps_per_epoch=7)
    assert steps_at("steps", 5, workload) == 5
    assert steps_at("epochs", 5, workload) == 35
    assert steps_at("tokens", 101, workload) == 2
    assert steps_at("wall_clock", 60, workload) == 0
    with pytest.raises(ValueError, match="endless"):
        steps_at("epochs", 5, Workload(parameters=1, tokens_per_step=1, flops_per_step=1.0))


def test_cost_of_one_configuration_by_hand() -> None:
    base = {"evaluation": {"every": 90}, "model": {"layers": 2}}
    found = plan(base=base, resources={"concurrent": 1}).cost
    steps, evaluated = 900, 11
    flops = steps * 2e6 + evaluated * 1e6
    seconds = 2 * ((steps + evaluated) * ASSUMED_OVERHEAD + flops / ASSUMED_RATE)
    assert found.expected_steps == 2 * steps
    assert found.expected_flops == pytest.approx(2 * flops)
    assert found.wall_seconds == pytest.approx(seconds)
    assert found.core_hours == pytest.approx(seconds / 3600)
    assert found.rows == 2 * evaluated
    assert found.checkpoint_bytes == found.kept_bytes == 2 * 12 * 2000


@pytest.mark.parametrize(("kind", "numbers"), [("none", 0), ("ema", 1), ("ma", 9)])
def test_what_grokfast_keeps_of_each_parameter_is_on_disk_too(kind: str, numbers: int) -> None:
    optimizer = {"optimizer.grokfast": {"kind": kind, "window": 8}}
    (only,) = plan(base=optimizer).configurations
    assert checkpoint_bytes(only.config) == 4 * (3 + numbers)


def test_wall_time_is_at_least_that_of_the_longest_configuration() -> None:
    found = plan(space={"model.layers": [1, 1000]})
    alone = plan(base={"model.layers": 1000}).cost.wall_seconds
    assert found.cost.concurrent >= 1
    assert alone is not None
    assert found.cost.wall_seconds is not None
    assert found.cost.wall_seconds >= alone


def test_a_budget_of_time_costs_that_time() -> None:
    found = plan(budget={"wall_clock": 60}, resources={"concurrent": 1}).cost
    assert (found.wall_seconds, found.most_steps, found.expected_flops) == (120, None, None)
    assert found.rows > 0


def test_nothing_is_assumed_of_gpus() -> None:
    found = plan(resources={"gpus": 0.5})
    assert found.cost.wall_seconds is None
    assert "not estimated for GPUs" in shown(found)


@pytest.mark.parametrize(("keep", "kept"), [("none", 0), ("best", 2 * 12 * 3000), ("all", 2 * 12 * 6000)])
def test_what_is_kept_of_checkpoints(keep: str, kept: int) -> None:
    found = plan(space={"model.layers": [1, 2, 3]}, checkpoints={"keep": keep}).cost
    assert found.kept_bytes == kept
    assert found.checkpoint_bytes == 2 * 12 * 6000


LAYERS = {"model.layers": [1, 2, 3]}
RUN = 12 * 1000
"""Bytes of a run's checkpoint for each layer."""


def test_what_would_stay_with_each_choice_is_shown() -> None:
    found = plan(space=LAYERS, checkpoints={"keep": 2}, scheduler={"name": "synchronous_halving", "grace": 100})
    by_choice = found.cost.kept_by_choice
    expected = found.climb[-1].configurations * 2 * 2 * RUN  # of the mean configuration, which has two layers
    assert by_choice == {"none": 0, "best": 6 * RUN, "2": 12 * RUN, "completed": expected, "all": 12 * RUN}
    assert found.cost.kept_bytes == 12 * RUN
    assert "144 kB while it runs, 144 kB of them kept (best 2)" in shown(found)
    assert "kept: none 0 B, best 72 kB, 2 144 kB, completed" in shown(found)


def test_fresh_seeds_take_room_too() -> None:
    found = plan(space=LAYERS, confirm={"top": 2, "seeds": 5}).cost.kept_by_choice
    assert found["best"] == (2 + 5) * 3 * RUN
    assert found["all"] == found["completed"] == 2 * 6 * RUN + 2 * 5 * 3 * RUN


def test_seeds_that_never_join_take_no_room() -> None:
    scheduler = {"name": "synchronous_halving", "grace": 100}
    found = plan(space=LAYERS, seeds={"start": 2, "full": 8}, scheduler=scheduler)
    levels = [*found.climb, None]
    runs = sum(
        (here.configurations - (above.configurations if above else 0)) * found.seeds_at(here.level)
        for here, above in pairwise(levels)
        if here is not None
    )
    assert 3 * 2 < runs < 3 * 8
    assert found.cost.checkpoint_bytes == pytest.approx(runs * 2 * RUN, abs=1)


# Display.


def test_what_is_shown() -> None:
    found = plan(
        space=GRID | DRAW,
        samples=3,
        scheduler={"name": "synchronous_halving", "grace": 100},
        resources={"concurrent": 1},
    )
    text = shown(found)
    for part in (
        "3 x 4 x 3 samples = 36 configurations, x 2 seeds = 72 runs",
        "validation/accuracy (max, last, mean over seeds)",
        "loguniform 0.0001 .. 0.01",
        "scheduler synchronous_halving",
        "steps        16,800 (at most 64,800)",
        "1 configuration at a time",
        "assuming 100 GFLOP/s",
    ):
        assert part in text
    assert found.configurations[0].config_id not in text


def test_configurations_are_listed_in_the_order_of_the_file() -> None:
    found = plan(space=GRID)
    text = shown(found, listed=True)
    places = [text.index(configuration.config_id) for configuration in expansion_of(found.study).configurations]
    assert places == sorted(places)
    assert "layers=3, modulus=13" in text


def test_an_adaptive_search_lists_no_configurations() -> None:
    assert "chosen by optuna while the study runs" in shown(plan(space=DRAW, searcher={"name": "optuna"}), listed=True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (720, "12 min"), (11_100, "3 h 05 min"), (180_000, "2 d 2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 "), (999, "999 "), (1500, "1.5 k"), (2.5e12, "2.5 T"), (1e19, "10 E")]
)
def test_quantities(number: float, text: str) -> None:
    assert quantity(number) == text


# Speed.


def test_ten_thousand_configurations_are_planned_in_seconds() -> None:
    start = time.process_time()
    found = plan(
        space={"model.layers": list(range(1, 11)), "modulus": list(range(2, 52))} | DRAW,
        samples=20,
        scheduler={"name": "synchronous_halving", "grace": 100},
    )
    assert found.count == 10_000
    assert shown(found)
    assert time.process_time() - start < 10  # about 2 on a quiet machine


def test_planning_imports_neither_torch_nor_ray_nor_pandas() -> None:
    code = """
import sys
import rung.plan_view, rung.plan, rung.study, rung.study_schema
study = rung.study.load_study("search_spaces/modular_arithmetic/demo.yaml")
rung.plan_view.render(rung.plan.make_plan(study))
print(sorted({"torch", "ray", "pandas", "duckdb", "pyarrow", "scipy", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
