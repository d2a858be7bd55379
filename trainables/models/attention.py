"""Causal attention over queries, keys and values that are already projected and split into heads.

Attention kernels know nothing of torch.func: under vmap each would be called once per run, in a loop. Here the runs
become further rows of one call, forward and backward.

Shape suffixes: B rows, H heads, Q queries, K keys, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function
from torch.nn import functional as F


def attend(
    q_BHQE: torch.Tensor, k_BHKE: torch.Tensor, v_BHKE: torch.Tensor, mask_B1QK: torch.Tensor | None = None
) -> torch.Tensor:
    """The values mixed by causal attention, (B, H, Q, E); the queries belong to the last Q of the K positions.

    A `mask` (bool, which keys a query may look at) takes the place of the causal one; torch.func cannot transform that.
    """
    if mask_B1QK is not None:
        return _attend(q_BHQE, k_BHKE, v_BHKE, mask_B1QK)
    if torch._C._are_functorch_transforms_active():  # what torch's own Function.apply asks
        # Under autocast, projections that are mapped come in different types.
        kind = torch.promote_types(q_BHQE.dtype, k_BHKE.dtype)
        mixed: torch.Tensor = _Attend.apply(q_BHQE.to(kind), k_BHKE.to(kind), v_BHKE.to(kind))  # type: ignore[no-untyped-call]
        return mixed
    return _attend(q_BHQE, k_BHKE, v_BHKE)


def split_heads(x_BSD: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, H, S, E), a view of (B, S, D)."""
    return x_BSD.unflatten(-1, (heads, -1)).transpose(1, 2)


def causal_mask(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """(queries, keys) bool: which keys each of the last `queries` positions may look at."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def padding_mask(padding_B: torch.Tensor, queries: int, keys: int) -> torch.Tensor:
    """(B, 1, queries, keys) bool: the causal mask of the last `queries` positions without each row's first padding_B.

    A padding position looks at itself, since a softmax over nothing would be NaN.
    """
    every_K = torch.arange(keys, device=padding_B.device)
    query_Q1 = every_K[keys - queries :, None]
    is_seen = (every_K >= padding_B[:, None, None, None]) & (every_K <= query_Q1)
    return is_seen | (every_K == query_Q1)


def attention_precision(x: torch.Tensor) -> torch.Tensor:
    """What is attended to, in the type it is computed in: on a CPU at least fp32, as bf16 is several times slower."""
    return x.float() if x.device.type == "cpu" and x.dtype.itemsize < 4 else x


def _attend(
    q_BHQE: torch.Tensor, k_BHKE: torch.Tensor, v_BHKE: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    if q_BHQE.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # The CPU's kernel is several times slower in bf16 than in fp32.
        with torch.autocast("cpu", enabled=False):
            return _attend(q_BHQE.float(), k_BHKE.float(), v_BHKE.float(), mask)
    queries, keys = q_BHQE.shape[2], k_BHKE.shape[2]
    if mask is None and queries == keys:
        return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, is_causal=True)
    if mask is None and queries > 1:
        mask = causal_mask(queries, keys, q_BHQE.device)
    return F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask)


class _Attend(Function):
    """`attend` with a batching rule."""

    @staticmethod
    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.autocast(q.device.type, enabled=False):  # the backward pass is outside, and must see the same
            return _attend(q, k, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _AttendBackward.apply(gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
        folded = _fold(inputs, in_dims, info.batch_size)
        mixed: torch.Tensor = _Attend.apply(*folded)  # type: ignore[no-untyped-call]
        return mixed.unflatten(0, (info.batch_size, -1)), 0


class _AttendBackward(Function):
    """The gradients of `attend` to its three inputs. The forward pass is repeated, since each kernel keeps something
    else of it; next to the projections it costs little."""

    @staticmethod
    def forward(gradient: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
            mixed = _attend(*inputs)
        return torch.autograd.grad(mixed, inputs, gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: tuple[torch.Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise NotImplementedError("attention has no second derivative")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], int]:
        folded = _fold(inputs, in_dims, info.batch_size)
        gradients = _AttendBackward.apply(*folded)  # type: ignore[no-untyped-call]
        return tuple(each.unflatten(0, (info.batch_size, -1)) for each in gradients), 0


def _fold(inputs: tuple[torch.Tensor, ...], in_dims: tuple[int | None, ...], size: int) -> list[torch.Tensor]:
    """The inputs with the mapped dimension, of `size`, and the rows in one dimension."""
    return [
        (tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
        for tensor, dim in zip(inputs, in_dims, strict=True)
    ]
