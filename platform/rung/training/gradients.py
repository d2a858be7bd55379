"""The gradient of one batch: at once, in parts one after another, or in parts over a team of processes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from rung.trainable import Loss
from rung.training.run import Run


def backward(run: Run, batch: Any) -> Loss:
    """Puts the gradient of a batch into the run's parameters, where nothing may stand before.

    Returns:
        The loss of the whole batch, over all parts and processes.

    Raises:
        RungError: the batch has to be split and the trainable cannot do so.
    """
    team = run.team
    losses = []
    parts = _share(run, batch)
    for index, (part, fraction) in enumerate(parts):
        # Gradients are averaged over the team once, together with the last backward pass.
        more_to_come = index + 1 < len(parts)
        with team.without_averaging(run.training_model) if more_to_come else nullcontext():
            with run.precision:
                loss = run.trainable.loss(run.training_model, part)
            weight = fraction * team.size  # the average over the team divides by its size
            run.scaling.backward(loss.value if weight == 1 else loss.value * weight)
        losses.append((loss, fraction))
    if team.size == len(losses) == 1:
        return losses[0][0]
    return _combined(run, losses)


def _share(run: Run, batch: Any) -> list[tuple[Any, float]]:
    """The parts of a batch that this process computes, with their fractions of the whole."""
    count = run.config.accumulation * run.team.size
    if count == 1:
        return [(batch, 1.0)]
    return list(run.trainable.parts(batch, count))[run.team.rank :: run.team.size]


def _combined(run: Run, losses: list[tuple[Loss, float]]) -> Loss:
    """Sums over parts and processes; a metric counts like the loss, by fractions."""
    names = list(losses[0][0].metrics)
    rows = [
        torch.stack([loss.value.detach(), *(loss.metrics[name].detach() for name in names)]).double() * fraction
        for loss, fraction in losses
    ]
    tokens = sum(loss.tokens for loss, _ in losses)
    total = torch.stack(rows).sum(0)
    total = run.team.sum(torch.cat([total, total.new_tensor([tokens])]))
    value, *metrics, tokens_read = total.unbind()
    return Loss(value, tokens=round(tokens_read.item()), metrics=dict(zip(names, metrics, strict=True)))
