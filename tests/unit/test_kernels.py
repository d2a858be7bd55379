"""The kernels with a backward pass of their own: gradients by finite differences, and against torch's operations."""

from __future__ import annotations

import pytest
import torch

from trainables.models.attention import attend, split_heads
from trainables.models.recurrence import Recurrence
from trainables.models.short_attention import ShortAttention

HEADS = 2
BEGINNINGS = torch.tensor([1, 0, 1])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def recur(gates: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs: tuple[torch.Tensor, torch.Tensor] = Recurrence.apply(gates * 1, *rest)  # type: ignore[no-untyped-call]
    return outputs


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradients_of_the_recurrence_are_those_of_finite_differences(steps: int) -> None:
    rows, width = 2, 3
    inputs = (
        draw(steps, rows, 4 * width),
        draw(rows, 4 * width),
        draw(rows, width),
        draw(4 * width, width),
    )
    assert torch.autograd.gradcheck(recur, inputs)
    for only in (0, 1):  # one output unused: its gradient is None
        assert torch.autograd.gradcheck(lambda *given, only=only: recur(*given)[only], inputs)


def test_the_recurrence_is_that_of_torch() -> None:
    steps, rows, width = 4, 5, 6
    x, h, c = draw(rows, steps, width), draw(rows, width), draw(rows, width, seed=1)
    weight_x, weight_h, bias = draw(4 * width, width), draw(4 * width, width, seed=1), draw(4 * width)
    gates = torch.nn.functional.linear(x.transpose(0, 1), weight_x, bias)
    y, last = recur(gates, h @ weight_h.T, c, weight_h)
    weights = [weight_x, weight_h, bias, torch.zeros_like(bias)]
    expected, _, expected_last = torch.lstm(x, [h[None], c[None]], weights, True, 1, 0.0, True, False, True)
    torch.testing.assert_close(y.transpose(0, 1), expected)
    torch.testing.assert_close(last, expected_last[0])


def reference(q: torch.Tensor, kv: torch.Tensor, past: torch.Tensor | None, index: torch.Tensor | None) -> torch.Tensor:
    if past is not None and index is not None:
        kv = torch.cat([past[index], kv], dim=1)
    k, v = kv.chunk(2, dim=-1)
    mixed = attend(split_heads(q, HEADS), split_heads(k, HEADS), split_heads(v, HEADS))
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("queries", [1, 2, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_short_attention_is_attention_with_its_gradients(queries: int, shared: bool) -> None:
    rows, own, width = 3, 4, 8
    q, kv = draw(rows, queries, width), draw(rows, own, 2 * width)
    past, index = (draw(2, 3, 2 * width), BEGINNINGS) if shared else (None, None)

    def short(q: torch.Tensor, kv: torch.Tensor, past: torch.Tensor | None) -> torch.Tensor:
        mixed: torch.Tensor = ShortAttention.apply(q, kv, past, index, HEADS)  # type: ignore[no-untyped-call]
        return mixed

    torch.testing.assert_close(short(q, kv, past), reference(q, kv, past, index))
    assert torch.autograd.gradcheck(short, (q, kv, past))


def test_short_attention_stays_in_fp32_under_autocast() -> None:
    q, kv = draw(3, 4, 8, dtype=torch.float32), draw(3, 4, 16, dtype=torch.float32)
    expected = reference(q, kv, None, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.mm(q[0], q[0].T).dtype == torch.bfloat16
        mixed = ShortAttention.apply(q, kv, None, None, HEADS)  # type: ignore[no-untyped-call]
        plain = reference(q, kv, None, None)
    for got in (mixed, plain):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(mixed.sum(), q)[0], torch.autograd.grad(expected.sum(), q)[0], rtol=1e-4, atol=1e-5
    )
