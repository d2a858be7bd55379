"""How much better than its group a response is. Shape suffixes: N groups, G responses of each."""

from __future__ import annotations

import torch

from trainables.rl.config import Scale

EPSILON = 1e-8
"""Added to standard deviations; rewards nearer to each other than this are equal."""


def advantages(rewards_NG: torch.Tensor, scale: Scale) -> torch.Tensor:
    """Advantages (N, G): A_i = (r_i - mean(r)) / (s + 1e-8), with the mean over the group.

    `group`: s is the standard deviation of the group (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). `batch`: that
    of all rewards (Hu et al. 2025, REINFORCE++, arXiv 2501.03262, divides so). `none`: no division (Liu et al. 2025,
    arXiv 2503.20783, section 3.2). Standard deviations are those of a population, divided by G and not by G - 1. Flat
    groups have advantages of exactly 0.
    """
    distances_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
    if scale == "group":
        distances_NG = distances_NG / (rewards_NG.std(1, keepdim=True, correction=0) + EPSILON)
    elif scale == "batch":
        distances_NG = distances_NG / (rewards_NG.std(correction=0) + EPSILON)
    return distances_NG.masked_fill(is_flat(rewards_NG)[:, None], 0.0)


def is_flat(rewards_NG: torch.Tensor) -> torch.Tensor:
    """Whether all rewards of a group are equal (N,): then it says nothing about which response was better."""
    return rewards_NG.amax(1) - rewards_NG.amin(1) <= EPSILON
