"""What a model says to texts that are there already. Shape suffixes: B rows, S positions, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainables.rl.divergence import log_distribution, of_tokens
from trainables.rl.policy import Policy

Pair = tuple[Sequence[int], Sequence[int]]
"""Tokens of a prompt, at least one, and of a response to it."""


def log_probabilities(
    policy: Policy, model: nn.Module, pairs: Sequence[Pair], temperature: float, rows: int, device: str
) -> list[list[float]]:
    """Log-probabilities of the tokens of each response, without gradients, in the precision around this call.

    Args:
        policy: how the model is asked.
        model: in the mode that it is to be asked in.
        pairs: prompts and responses.
        temperature: what logits are divided by.
        rows: responses that are read at once; those of like length are read together.
        device: where the model is.
    """
    found: list[list[float]] = [[] for _ in pairs]
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]) + len(pairs[index][1]))
    for begin in range(0, len(order), rows):
        chosen = order[begin : begin + rows]
        values = _of_rows(policy, model, [pairs[index] for index in chosen], temperature, device)
        for index, row in zip(chosen, values, strict=True):
            found[index] = row
    return found


@torch.no_grad()
def has_diverged(policy: Policy, model: nn.Module, prompt: Sequence[int], device: str) -> bool:
    """Whether a weight that is trained is infinite or NaN, or what the model says to a prompt; its mode is restored."""
    if not all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad):
        return True
    training = model.training
    model.eval()
    try:
        logits_BTV = policy.logits(model, torch.tensor([list(prompt)], device=device), len(prompt) - 1)
    finally:
        model.train(training)
    return not bool(logits_BTV.isfinite().all())


@torch.no_grad()
def _of_rows(
    policy: Policy, model: nn.Module, pairs: Sequence[Pair], temperature: float, device: str
) -> list[list[float]]:
    rows = [[*prompt, *response] for prompt, response in pairs]
    width, first = max(map(len, rows)), min(len(prompt) for prompt, _ in pairs) - 1
    tokens_BS = torch.tensor([row + [policy.pad] * (width - len(row)) for row in rows], device=device)
    log_BTV = log_distribution(policy.logits(model, tokens_BS[:, :-1], first), temperature)
    values_BT = of_tokens(log_BTV, tokens_BS[:, first + 1 :]).tolist()
    begins = [len(prompt) - first - 1 for prompt, _ in pairs]
    return [
        values[begin : begin + len(response)]
        for values, begin, (_, response) in zip(values_BT, begins, pairs, strict=True)
    ]
