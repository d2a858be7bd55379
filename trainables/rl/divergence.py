"""Measures of distributions over tokens, in nats. Shape suffixes: B rows, T positions, V vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

ELEMENTS = 1 << 24
"""Numbers that a temporary tensor may have here; whole distributions of large vocabularies take gigabytes."""


def log_distribution(logits_BTV: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities (B, T, V) of all tokens, in fp32 at least."""
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    if temperature != 1:
        logits_BTV = logits_BTV / temperature
    return torch.log_softmax(logits_BTV, -1)


def of_tokens(log_BTV: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
    """The log-probability (B, T) of each token."""
    return log_BTV.gather(-1, tokens_BT[..., None])[..., 0]


def entropy(log_BTV: torch.Tensor) -> torch.Tensor:
    """H(p) = - sum p log p, (B, T), without a gradient."""
    return torch.cat([-(part.exp() * part).sum(-1) for part in _parts(log_BTV.detach())])


def _parts(values_BTV: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A few rows at a time."""
    parts: tuple[torch.Tensor, ...] = torch.split(values_BTV, max(1, ELEMENTS // max(1, values_BTV[0].numel())))
    return parts


def log_probability_and_entropy(
    logits_BTV: torch.Tensor, tokens_BT: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `of_tokens` and `entropy` of `log_distribution` give, which is kept for no backward pass.

    Of the distributions only the logits stay in memory, in their own precision.
    """
    found: tuple[torch.Tensor, torch.Tensor] = _OfLogits.apply(  # type: ignore[no-untyped-call]
        logits_BTV, tokens_BT, temperature
    )
    return found


class _OfLogits(torch.autograd.Function):
    """See `log_probability_and_entropy`. The gradient of log p_i by the logits is (1_i - p) / temperature."""

    @staticmethod
    def forward(
        context: Any, logits_BTV: torch.Tensor, tokens_BT: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        context.save_for_backward(logits_BTV, tokens_BT)
        context.temperature = temperature
        parts = _parts(logits_BTV)
        rows, logs, entropies = len(parts[0]), [], []
        for part, tokens in zip(parts, torch.split(tokens_BT, rows), strict=True):
            log_BTV = log_distribution(part, temperature)
            logs.append(of_tokens(log_BTV, tokens))
            entropies.append(entropy(log_BTV))
        entropy_BT = torch.cat(entropies)
        context.mark_non_differentiable(entropy_BT)
        return torch.cat(logs), entropy_BT

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient_BT: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None]:
        logits_BTV, tokens_BT = context.saved_tensors
        gradient_BTV = torch.empty_like(logits_BTV)
        parts = _parts(logits_BTV)
        split = (torch.split(each, len(parts[0])) for each in (tokens_BT, gradient_BT, gradient_BTV))
        pieces = zip(parts, *split, strict=True)
        for part, tokens, gradient, target in pieces:
            scaled_BT1 = gradient[..., None] / context.temperature
            change_BTV = log_distribution(part, context.temperature).exp_().mul_(-scaled_BT1)
            target.copy_(change_BTV.scatter_add_(-1, tokens[..., None], scaled_BT1))
        return gradient_BTV, None, None


def k3(log_BT: torch.Tensor, reference_BT: torch.Tensor) -> torch.Tensor:
    """An estimate of KL(p || reference) from the tokens drawn, (B, T): exp(d) - d - 1 with d = log p_reference - log p.

    Unbiased where the tokens are drawn from p, never negative, of little variance (Schulman 2020,
    joschu.net/blog/kl-approx.html; GRPO's, Shao et al. 2024, arXiv 2402.03300, equation 4). Its gradient is another
    matter: (1 - p_reference / p) grad log p, on average that of KL(reference || p). Times the ratio p / p_old, with its
    gradient, it is on average that of KL(p || reference) (DeepSeek-V3.2, arXiv 2512.02556).
    """
    distance_BT = reference_BT - log_BT
    return distance_BT.exp() - distance_BT - 1


def full(log_BTV: torch.Tensor, reference_BTV: torch.Tensor) -> torch.Tensor:
    """KL(p || reference) = sum p (log p - log p_reference) over the vocabulary, (B, T), at the positions written."""
    return (log_BTV.exp() * (log_BTV - reference_BTV)).sum(-1)
