"""The search space: words and their meaning, draws that stay, conditions, ids that last."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.configuration import Resolver
from rung.identity import config_id
from rung.space import Dimension, Point, expand, in_order
from rung.space_reader import read_space
from tests.toy_arithmetic import ToyArithmetic, ToyConfig

ROOT = Path(__file__).resolve().parents[2]


def dimensions(raw: Any) -> tuple[Dimension, ...]:
    found, problems = read_space(raw)
    assert not problems
    return found


def points(raw: Any, samples: int = 1, draw_seed: int = 0, **base: Any) -> list[dict[str, Any]]:
    return [dict(point.values) for point in expand(dimensions(raw), samples, draw_seed, base.get)]


def drawn(raw: Mapping[str, Any], count: int) -> list[Any]:
    (dimension,) = dimensions({"x": raw})
    return [dimension.drawn(0, sample) for sample in range(count)]


# Grids.


def test_a_grid_is_expanded_like_nested_loops() -> None:
    assert points({"a": [1, 2], "b": {"grid": ["x", "y"]}}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_paths_may_be_nested_or_dotted() -> None:
    nested = dimensions({"model": {"kind": [1], "inner": {"x": {"uniform": [0, 1]}}}})
    assert nested == dimensions({"model.kind": [1], "model.inner.x": {"uniform": [0, 1]}})
    assert [dimension.path for dimension in nested] == ["model.kind", "model.inner.x"]


def test_a_dimension_that_is_null_is_not_swept() -> None:
    assert dimensions({"a": None, "b": [1]}) == dimensions({"b": [1]})
    assert dimensions(None) == ()


def test_an_empty_space_is_one_point() -> None:
    assert points({}) == [{}]


@pytest.mark.parametrize(
    "raw",
    [
        {"grid": [1, "x", None, [2, 3]]},
        {"choice": [1, 2]},
        {"loguniform": [0.1, 1]},
        {"qrandint": [2, 8, 2], "when": {"a.b": 1, "c": [True, "x"]}},
    ],
)
def test_a_dimension_is_read_back_from_its_specification(raw: Mapping[str, Any]) -> None:
    (dimension,) = dimensions({"x.y": raw})
    assert dimensions({"x.y": dimension.specification}) == (dimension,)


# Draws mean what they mean in Ray Tune.


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ({"choice": ["a", "b", None]}, {"a", "b", None}),
        ({"randint": [2, 5]}, {2, 3, 4}),
        ({"qrandint": [5, 17, 4]}, {8, 12, 16}),
        ({"qrandint": [4, 16, 4]}, {4, 8, 12, 16}),
        ({"qrandint": [2, 5, 1]}, {2, 3, 4}),
        ({"lograndint": [1, 5]}, {1, 2, 3, 4}),
        ({"qlograndint": [10, 40, 10]}, {10, 20, 30, 40}),
        ({"quniform": [0, 1, 0.25]}, {0.0, 0.25, 0.5, 0.75, 1.0}),
        ({"qloguniform": [0.1, 0.4, 0.1]}, {0.1, 0.2, 0.3, 0.4}),
    ],
)
def test_the_values_that_can_be_drawn(raw: Mapping[str, Any], values: set[Any]) -> None:
    assert set(drawn(raw, 2000)) == values


TUNE = [
    ("uniform", [-1, 3]),
    ("loguniform", [1e-4, 1e-1]),
    ("quniform", [0, 1, 0.25]),
    ("qloguniform", [0.1, 0.4, 0.1]),
    ("randint", [2, 9]),
    ("qrandint", [5, 17, 4]),
    ("lograndint", [1, 50]),
    ("qlograndint", [10, 200, 10]),
    ("randn", [2, 3]),
    ("qrandn", [0, 2, 0.5]),
    ("choice", [1, 2, 5]),
]


@pytest.mark.parametrize(("word", "arguments"), TUNE, ids=[word for word, _ in TUNE])
def test_draws_are_distributed_as_ray_tune_s(word: str, arguments: list[float]) -> None:
    """Two samples of 4000, compared by their largest difference of distribution functions; 1 % level: 0.036."""
    sample = pytest.importorskip("ray.tune.search.sample")
    build = getattr(sample, word)
    domain = build(arguments) if word == "choice" else build(*arguments)
    theirs = np.sort(np.asarray(domain.sample(size=4000, random_state=np.random.default_rng(0)), dtype=float))
    ours = np.sort(np.asarray(drawn({word: arguments}, 4000), dtype=float))
    # A float product such as 3 * 0.1 may miss the same multiple by one bit.
    grid = np.unique(np.concatenate([ours, theirs])) + 1e-9
    difference = np.searchsorted(ours, grid) / 4000 - np.searchsorted(theirs, grid) / 4000
    assert np.abs(difference).max() < 0.036


@settings(max_examples=60)
@given(
    st.sampled_from(["uniform", "loguniform", "randint", "lograndint"]),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.integers(0, 50),
)
def test_draws_stay_inside_their_bounds(word: str, low: int, width: int, sample: int) -> None:
    (dimension,) = dimensions({"x": {word: [low, low + width]}})
    value = dimension.drawn(3, sample)
    assert low <= value <= low + width
    if "int" in word:
        assert value < low + width
        assert isinstance(value, int)


def test_a_drawn_float_has_at_most_twelve_digits() -> None:
    for value in drawn({"loguniform": [1e-4, 1]}, 50):
        assert float(f"{value:.12g}") == value


# What a draw depends on.


def test_all_cells_of_a_grid_share_the_draws() -> None:
    found = points({"a": [1, 2], "x": {"uniform": [0, 1]}}, samples=3)
    by_cell = {a: [point["x"] for point in found if point["a"] == a] for a in (1, 2)}
    assert by_cell[1] == by_cell[2]
    assert len(set(by_cell[1])) == 3


names = st.sampled_from(["a", "b.c", "model.width", "z"])


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sets(names, min_size=1), st.sets(names), st.integers(1, 4), st.integers(0, 3))
def test_more_dimensions_values_and_samples_leave_the_draws_alone(
    seed: int, old: set[str], new: set[str], samples: int, more: int
) -> None:
    before = points({"g": [1], **{name: {"uniform": [0, 1]} for name in old}}, samples, seed)
    wider = {name: {"uniform": [0, 1]} for name in (*new, *old)}
    after = points({"h": [5, 6], **wider, "g": [1, 2]}, samples + more, seed)
    kept = [{name: point[name] for name in ("g", *old)} for point in after]
    assert all(point in kept for point in before)


def test_draws_depend_on_seed_path_and_sample() -> None:
    raw = {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}
    first, other = points(raw, 2, draw_seed=0), points(raw, 2, draw_seed=1)
    values = [value for point in (*first, *other) for value in point.values()]
    assert len(set(values)) == 8


def test_these_draws_never_change() -> None:
    """Ids are made from draws: a change here would orphan the results of every study."""
    raw = {
        "lr": {"loguniform": [1e-4, 1e-2]},
        "n": {"randint": [0, 1000]},
        "z": {"randn": [0, 1]},
        "c": {"choice": ["a", "b", "c"]},
    }
    assert points(raw, 2) == PINNED_DRAWS


PINNED_DRAWS: list[dict[str, Any]] = [
    {"lr": 0.0010235765715, "n": 188, "z": -0.578785532391, "c": "a"},
    {"lr": 0.00497828138941, "n": 360, "z": -0.770609337739, "c": "b"},
]


# Conditions.

CONDITIONAL = {"model.kind": ["gpt", "lstm"], "model.heads": {"grid": [2, 4], "when": {"model.kind": "gpt"}}}


def test_a_condition_switches_a_dimension_off() -> None:
    assert points(CONDITIONAL) == [
        {"model.kind": "gpt", "model.heads": 2},
        {"model.kind": "gpt", "model.heads": 4},
        {"model.kind": "lstm"},
        {"model.kind": "lstm"},
    ]


def test_a_condition_may_list_values_and_look_at_the_base() -> None:
    raw = {"a": {"grid": [1, 2], "when": {"b": ["x", "y"], "c": True}}}
    assert points(raw, b="y", c=True) == [{"a": 1}, {"a": 2}]
    assert points(raw, b="z", c=True) == [{}, {}]
    assert points(raw, b="y", c=1) == [{}, {}]  # true is not 1


def test_conditions_may_follow_each_other_in_any_order() -> None:
    raw = {"c": {"grid": [5], "when": {"b": 2}}, "b": {"grid": [2], "when": {"a": 1}}, "a": [1, 7]}
    assert points(raw, b=2) == [{"a": 1, "b": 2, "c": 5}, {"a": 7, "c": 5}]
    assert points(raw, b=0) == [{"a": 1, "b": 2, "c": 5}, {"a": 7}]


def test_a_circle_of_conditions_is_refused() -> None:
    found, problems = read_space({"a": {"grid": [1], "when": {"b": 1}}, "b": {"grid": [1], "when": {"a": 1}}})
    assert [problem.path for problem in problems] == [("a", "when")]
    assert len(in_order(found)[1]) == 2


def test_equal_configurations_become_one() -> None:
    expansion = toy({}, CONDITIONAL)
    assert [configuration.label for configuration in expansion] == ["gpt, heads=2", "gpt, heads=4", "lstm"]
    assert expansion[-1].swept == {"model.kind": "lstm", "model.heads": 4}  # the base value
    assert [configuration.index for configuration in expansion] == [0, 1, 2]


# For a searcher.


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"uniform": [0, 2]}, ("float", 0, 2, None, False)),
        ({"qloguniform": [0.1, 0.4, 0.1]}, ("float", 0.1, 0.4, 0.1, True)),
        ({"randint": [2, 9]}, ("integer", 2, 8, None, False)),
        ({"qrandint": [5, 17, 4]}, ("integer", 8, 16, 4, False)),
        ({"qlograndint": [10, 40, 10]}, ("integer", 10, 40, 10, True)),
    ],
)
def test_a_distribution_has_bounds_that_belong_to_it(raw: Mapping[str, Any], expected: tuple[Any, ...]) -> None:
    found = dimensions({"x": raw})[0].distribution()
    assert (found.kind, found.low, found.high, found.step, found.log) == expected


def test_a_distribution_snaps_to_its_step() -> None:
    found = dimensions({"x": {"qlograndint": [10, 40, 10]}})[0].distribution()
    assert [found.snap(value) for value in (3.0, 14.9, 15.1, 99.0)] == [10, 10, 20, 40]


@pytest.mark.parametrize("raw", [{"grid": [1]}, {"randn": [0, 1]}])
def test_what_a_searcher_cannot_use(raw: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be searched"):
        dimensions({"x": raw})[0].distribution()


# Ids.


def resolver(base: Mapping[str, Any], space: Any = None) -> Resolver:
    return Resolver("toy", ToyArithmetic, base, dimensions(space))


def toy(base: Mapping[str, Any], space: Any = None) -> Any:
    made = resolver(base, space)
    expansion = made.expansion(expand(made.dimensions, 1, 0, made.base_value))
    assert not expansion.refused
    return expansion.configurations


def id_of(base: Mapping[str, Any]) -> str:
    return resolver(base).configuration(Point({}, 0), 0).config_id


def test_these_ids_never_change() -> None:
    values = {"modulus": 31, "operator": "+", "orders": [2, 3], "clip": None, "model": {"width": 64, "dropout": 0.1}}
    assert config_id("modular_arithmetic", values) == "cd49b2d94263b"
    assert config_id("modular_arithmetic", {"rate": 1e-4, "text": "größer", "on": True}) == "c95d9f4066e32"


def test_ids_do_not_depend_on_the_process() -> None:
    code = "from tests.unit.test_space import id_of; print(id_of({'modulus': 7, 'model': {'kind': 'lstm'}}))"
    ids = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "platform:."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert ids == {id_of({"modulus": 7, "model": {"kind": "lstm"}})}


numbers = st.sampled_from([1, 1.0, 1e0, "1", "1.0"])


@given(numbers, numbers, st.permutations(["modulus", "operator", "model", "optimizer"]))
def test_ids_do_not_depend_on_spelling(decay: Any, clip: Any, order: list[str]) -> None:
    values = {
        "modulus": 31,  # as the default
        "operator": "+",
        "model": {"width": 64, "kind": "gpt"},
        "optimizer": {"weight_decay": decay},
    }
    spelled = {key: values[key] for key in order} | {"gradient_clip": clip}
    assert id_of(spelled) == id_of({"model": {"width": 64}})


@given(st.integers(2, 10**6), st.integers(2, 10**6))
def test_different_values_have_different_ids(one: int, other: int) -> None:
    assert (id_of({"modulus": one}) == id_of({"modulus": other})) == (one == other)


def test_the_trainable_is_part_of_the_id_and_zero_has_no_sign() -> None:
    assert config_id("a", {"x": 1.0}) != config_id("b", {"x": 1.0})
    assert config_id("a", {"x": -0.0, "y": [-0.0], "z": -0.0}) == config_id("a", {"x": 0.0, "y": [0.0], "z": 0.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        config_id("a", {"x": math.nan})


# Base and defaults.


def test_a_study_keeps_the_trainable_s_own_defaults_beside_what_it_sets() -> None:
    made = resolver({"optimizer": {"learning_rate": 0.5}, "early_stopping": {"patience": 2}})
    config = made.configuration(Point({"schedule.kind": "cosine"}, 0), 0).config
    assert isinstance(config, ToyConfig)
    assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (0.5, 1.0)
    assert config.early_stopping is not None
    assert (config.early_stopping.patience, config.early_stopping.window) == (2, 10)


def test_a_swept_path_may_lead_into_what_is_off_by_default() -> None:
    found = toy({}, {"early_stopping.patience": [3, 4]})
    assert [configuration.config.early_stopping.patience for configuration in found] == [3, 4]
    whole = toy({}, {"optimizer": [{"kind": "sgd"}, {"kind": "adam"}]})
    assert [configuration.config.optimizer.weight_decay for configuration in whole] == [1.0, 1.0]


def test_configurations_share_nothing_that_one_of_them_changes() -> None:
    made = resolver({"model": {"width": 8}}, {"model.layers": [1, 2]})
    before = made.base_value("model")
    first, second = toy({"model": {"width": 8}}, {"model.layers": [1, 2]})
    assert (first.config.model.layers, second.config.model.layers) == (1, 2)
    assert made.base_value("model") == before


def test_columns_are_typed_and_flat() -> None:
    (only,) = toy({"orders": [2, 3], "symmetric": True})
    columns = only.columns()
    assert columns["config.modulus"] == 31
    assert columns["config.symmetric"] is True
    assert columns["config.optimizer.weight_decay"] == 1.0
    assert columns["config.orders"] == "[2, 3]"
    assert columns["config.schedule.length"] is None
    assert "config.early_stopping" not in columns


def test_labels_are_short_and_tell_apart() -> None:
    space = {"model.kind": ["gpt"], "model.layers": [1], "schedule.warmup": [3], "early_stopping.warmup": [4]}
    space |= {
        "operator": ["+"],
        "symmetric": [True],
        "schedule.kind": ["none"],
        "optimizer.learning_rate": [0.00123456],
    }
    (only,) = toy({}, space)
    assert only.label == (
        "gpt, layers=1, schedule.warmup=3, early_stopping.warmup=4, operator=+, symmetric=true, schedule=none, "
        "learning_rate=0.001235"
    )
    assert toy({})[0].label == "base"


def test_what_a_searcher_chose_obeys_the_conditions() -> None:
    made = resolver({}, CONDITIONAL)
    chosen = made.chosen({"model.kind": "lstm", "model.heads": 2}, 7)
    assert (chosen.label, chosen.index, chosen.config.model.heads) == ("lstm", 7, 4)
