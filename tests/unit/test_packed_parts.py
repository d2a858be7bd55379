"""What a pack is made of: batches as one, tensors in a row, optimizers of many runs, attention with a batching rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F

from rung.errors import RungError
from rung.settings import OptimizerConfig
from rung.training.layout import Layout
from rung.training.optimizers import build_optimizer
from rung.training.packed_optimizers import pack_optimizers
from rung.training.stacking import put_together, take_apart
from trainables.models.attention import attend


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Batches.


class Pair(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any


@dataclass(frozen=True)
class Nested:
    """A frozen dataclass with a field that its constructor does not take."""

    x: torch.Tensor
    rest: Any
    count: int = field(init=False, default=3)

    def __post_init__(self) -> None:
        assert self.x.dim() == 1  # which a mapped tensor need not be


@pytest.mark.parametrize("put", [tuple, list, lambda items: Pair(*items), lambda items: dict(enumerate(items))])
def test_a_batch_is_taken_apart_and_put_together(put: Any) -> None:
    x, y = torch.ones(2), torch.zeros(3)
    batch = Nested(x, put([y, {"text": None, "more": (1, x)}]))
    tensors, structure = take_apart(batch)
    assert [each is other for each, other in zip(tensors, (x, y, x), strict=True)] == [True] * 3
    again = put_together(structure, [torch.ones(4, 2), y, y])
    assert type(again.rest) is type(batch.rest)
    assert (again.x.shape, again.count) == ((4, 2), 3)
    assert take_apart(again.rest)[1] == take_apart(put([y, {"text": None, "more": (1, y)}]))[1]


def test_structures_tell_apart_what_cannot_be_stacked() -> None:
    x = torch.ones(2)
    batches = [(x, 1), (x, 1.0), (x, True), [x, 1], (torch.ones(3), 1), (x.long(), 1), (x, None), {0: x, 1: 1}, x]
    structures = [take_apart(batch)[1] for batch in batches]
    assert [structures.index(structure) for structure in structures[3:]] == list(range(3, len(batches)))
    assert len({*structures}) == len(batches)
    assert take_apart((torch.zeros(2), 1))[1] == structures[0]


def test_a_batch_of_something_else_is_refused() -> None:
    with pytest.raises(RungError, match=r"a batch holds a object, .* use replication: serial"):
        take_apart((torch.ones(2), object()))


# Rows.


def test_rows_hold_what_was_put_in_and_share_its_memory() -> None:
    runs = [[random(3, 5, seed=seed), random(seed=seed + 10), random(64, seed=seed + 20)] for seed in range(2)]
    layout = Layout(runs[0])
    stacked = layout.stack(runs)
    assert stacked.shape[1] % 64 == 0
    for row, tensors in zip(stacked, runs, strict=True):
        views = layout.split(row)
        assert all(torch.equal(a, b) for a, b in zip(views, tensors, strict=True))
        assert all((view.data_ptr() - stacked.data_ptr()) % 512 == 0 for view in views)
    layout.split(stacked[1])[0].zero_()
    assert stacked[1, :15].eq(0).all()
    assert stacked[0, :15].ne(0).all()


# Optimizers.

CONSTANTS: list[dict[str, Any]] = [
    {"learning_rate": 0.1, "weight_decay": 0.3},
    {"learning_rate": 0.01, "weight_decay": 0.0, "beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3, "momentum": 0.5},
    {"learning_rate": 0.001, "weight_decay": 1.0},
]


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam", "adamw"])
def test_steps_are_those_of_torch(kind: Any) -> None:
    """Runs with their own constants, which have taken 0, 1 and 4 steps before they are packed."""

    def model(seed: int) -> nn.Module:
        module = nn.Linear(3, 2)
        module.weight.data, module.bias.data = random(2, 3, seed=seed), random(2, seed=seed + 50)
        return module

    def step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], seed: int) -> None:
        for index, parameter in enumerate(parameters):
            parameter.grad = random(*parameter.shape, seed=seed + index)
        optimizer.step()

    configs = [OptimizerConfig(kind=kind, **constants) for constants in CONSTANTS]
    packed, alone = ([model(seed) for seed in range(3)] for _ in range(2))
    optimizers, others = (
        [build_optimizer(config, module) for config, module in zip(configs, modules, strict=True)]
        for modules in (packed, alone)
    )
    for modules, each in ((packed, optimizers), (alone, others)):
        for run, taken in enumerate((0, 1, 4)):
            for count in range(taken):
                step(each[run], list(modules[run].parameters()), 100 * run + 10 * count)

    layout = Layout(list(packed[0].parameters()))
    weights = layout.stack([list(module.parameters()) for module in packed])
    optimizer = pack_optimizers(optimizers, layout)
    for count in range(5, 8):
        gradients = [
            [random(2, 3, seed=100 * run + 10 * count), random(2, seed=100 * run + 10 * count + 1)] for run in range(3)
        ]
        optimizer.update(weights, layout.stack(gradients))
        for run in range(3):
            step(others[run], list(alone[run].parameters()), 100 * run + 10 * count)
            views = zip(layout.split(weights[run]), alone[run].parameters(), strict=True)
            for view, parameter in views:
                torch.testing.assert_close(view, parameter.detach(), rtol=1e-13, atol=1e-14)
    for run in range(3):
        ours, theirs = optimizers[run].state_dict()["state"], others[run].state_dict()["state"]
        for index, state in theirs.items():
            for name, value in state.items():
                if value is not None:
                    torch.testing.assert_close(ours[index][name], value, rtol=1e-13, atol=1e-14)


# Attention.


@pytest.mark.parametrize("queries", [6, 2])
def test_mapped_attention_is_attention_run_by_run(queries: int) -> None:
    runs, rows, heads, keys, width = 3, 4, 2, 6, 5
    q, k, v = (random(runs, rows, heads, n, width, seed=n) for n in (queries, keys, keys))
    weight = random(rows, heads, queries, width, seed=9)

    def score(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (attend(q, k, v) * weight).sum()

    def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        hidden = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
        scores = (q @ k.mT / width**0.5).masked_fill(hidden, -torch.inf)
        return (scores.softmax(-1) @ v * weight).sum()

    torch.testing.assert_close(vmap(score)(q, k, v), vmap(written_out)(q, k, v))
    gradients = vmap(grad(score, argnums=(0, 1, 2)))(q, k, v)
    expected = vmap(grad(written_out, argnums=(0, 1, 2)))(q, k, v)
    torch.testing.assert_close(gradients, expected)
    # Mapped over another dimension, and keys that all runs share.
    shared = vmap(grad(score, argnums=(0, 1)), in_dims=(2, None, 0))(q.movedim(0, 2), k[0], v)
    expected = vmap(grad(written_out, argnums=(0, 1)), in_dims=(0, None, 0))(q, k[0], v)
    torch.testing.assert_close(shared, expected)


def test_attention_that_is_not_mapped_is_torchs() -> None:
    q = random(2, 2, 6, 4).requires_grad_()
    mixed = attend(q, q, q)
    assert torch.equal(mixed, F.scaled_dot_product_attention(q, q, q, is_causal=True))
    assert mixed.grad_fn is not None
    assert "ScaledDotProduct" in mixed.grad_fn.name()
