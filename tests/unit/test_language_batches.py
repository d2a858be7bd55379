"""Windows: training batches that follow from seed and position, evaluation windows that never change, their losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rung.errors import RungError
from trainables.language.batches import Windows, WindowStream, fixed_windows
from trainables.language.evaluation import bits_per_byte, mean_loss, mean_losses, perplexity
from trainables.language.losses import language_loss
from trainables.language.tokens import Tokens
from trainables.tinystories import TinyStories

TOKENS = Tokens([np.arange(100, dtype=np.uint16), np.arange(100, 250, dtype=np.uint16)])
"""Every token is its own place."""


def stream(seed: int = 0, **options: object) -> WindowStream:
    return WindowStream(TOKENS, batch_size=6, context=10, seed=seed, **options)  # type: ignore[arg-type]


def test_a_batch_follows_from_seed_and_position() -> None:
    batch = stream().at(7)
    other = stream()
    for position in range(7):
        other.at(position)
    assert torch.equal(batch.inputs_BS, other.at(7).inputs_BS)
    assert not torch.equal(batch.inputs_BS, stream().at(8).inputs_BS)
    assert not torch.equal(batch.inputs_BS, stream(seed=1).at(7).inputs_BS)
    assert batch.inputs_BS.shape == batch.targets_BS.shape == (6, 10)
    assert torch.equal(batch.targets_BS, batch.inputs_BS + 1)
    assert batch.weights_BS is None


def test_windows_begin_everywhere_and_nowhere_else() -> None:
    starts = {int(start) for position in range(400) for start in stream().at(position).inputs_BS[:, 0]}
    assert starts == set(range(240))


def test_starts_and_weights_follow_the_tokens() -> None:
    weights = (np.arange(250) % 3 == 0).astype(np.uint8)
    batch = stream(weights=weights, starts=np.array([0, 30, 239, 240, 249])).at(0)
    assert set(batch.inputs_BS[:, 0].tolist()) <= {0, 30, 239}
    assert batch.weights_BS is not None
    assert torch.equal(batch.weights_BS, (batch.targets_BS % 3 == 0).float())


def test_fixed_windows_are_spread_over_the_split() -> None:
    windows = fixed_windows(TOKENS, context=10, count=40)
    assert windows.inputs_BS[:, 0].tolist() == [0, 79, 159, 239]
    every = fixed_windows(TOKENS, context=10, count=10**9)
    firsts = every.inputs_BS[:, 0]
    assert len(every) == 24
    assert (firsts[1:] - firsts[:-1]).min() >= 10
    assert fixed_windows(TOKENS, context=10, count=1, starts=np.array([5, 245])).inputs_BS[:, 0].tolist() == [5]


@pytest.mark.parametrize("context", [250, 1000])
def test_a_split_without_room_is_refused(context: int) -> None:
    with pytest.raises(RungError, match=r"250 tokens has no room for a window of"):
        fixed_windows(TOKENS, context=context, count=10)
    with pytest.raises(RungError, match="no room"):
        WindowStream(TOKENS, batch_size=2, context=10, seed=0, starts=np.array([245]))


class Bigram(nn.Module):
    """Logits that depend on the last token only."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(250, 250, _weight=torch.randn(250, 250, generator=torch.Generator().manual_seed(1)))

    def forward(self, tokens_BS: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.table(tokens_BS)
        return logits


def weighted() -> Windows:
    return fixed_windows(TOKENS, context=10, count=120, weights=np.arange(250) % 5)


def test_the_mean_does_not_depend_on_chunks() -> None:
    model = Bigram()
    for windows in (weighted(), fixed_windows(TOKENS, context=10, count=120)):
        whole = language_loss(model(windows.inputs_BS), windows).item()
        assert mean_loss(model, windows, 5) == pytest.approx(whole, rel=1e-6)
        assert mean_loss(model, windows, 100) == pytest.approx(whole, rel=1e-6)


def test_the_mean_of_all_targets_is_told_beside_that_of_some() -> None:
    model, windows = Bigram(), weighted()
    every = fixed_windows(TOKENS, context=10, count=120)
    mean, weighted_mean = mean_losses(model, windows, 5)
    assert (mean, None) == mean_losses(model, every, 5)
    assert mean == mean_loss(model, every, 5)
    assert weighted_mean == mean_loss(model, windows, 5) != mean


def test_nothing_to_learn_is_a_loss_of_zero() -> None:
    windows = weighted()
    nothing = Windows(windows.inputs_BS, windows.targets_BS, torch.zeros_like(windows.inputs_BS).float())
    loss = language_loss(Bigram()(windows.inputs_BS), nothing)
    assert loss.item() == 0.0


def split(windows: Windows, count: int) -> Sequence[tuple[Windows, float]]:
    trainable: Any = object.__new__(TinyStories)  # which needs no data for it
    parts: Sequence[tuple[Windows, float]] = trainable.parts(windows, count)
    return parts


@pytest.mark.parametrize("windows", [weighted(), fixed_windows(TOKENS, context=10, count=120)])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_parts_make_the_whole(windows: Windows, count: int) -> None:
    model = Bigram()
    parts = split(windows, count)
    assert len(parts) == count
    assert sum(fraction for _, fraction in parts) == pytest.approx(1, abs=1e-12)
    assert torch.equal(torch.cat([part.inputs_BS for part, _ in parts]), windows.inputs_BS)
    language_loss(model(windows.inputs_BS), windows).backward()  # type: ignore[no-untyped-call]
    expected, model.table.weight.grad = model.table.weight.grad, None
    for part, fraction in parts:
        (fraction * language_loss(model(part.inputs_BS), part)).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model.table.weight.grad, expected, rtol=1e-5, atol=1e-8)


def test_more_parts_than_rows_are_refused() -> None:
    with pytest.raises(RungError, match="12 windows cannot be split into 13 parts"):
        split(weighted(), 13)


def test_measures_that_follow_from_a_loss() -> None:
    # A token of two bytes that is as likely as any other of 65,536.
    assert bits_per_byte(math.log(65_536), tokens=10, text_bytes=20) == pytest.approx(8)
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(1e4) == math.inf
