"""The loss of group-relative policy optimization, over the tokens of responses.

    loss = sum over tokens of weight * (term + kl_coefficient * divergence)

with the weight from `rollout.token_weights`, the term from `policy_terms` and the divergence from `divergence.py`. All
three depend on the distribution at `rollout.temperature` unless `tempered` is false.

Leaves out losses of another form (CISPO, SAPO), a bonus for entropy and a second limit for ratios far above 1.

Shape suffixes: B rows, T targets, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn

from rung.trainable import Loss
from trainables.rl.batch import RolloutBatch
from trainables.rl.config import ObjectiveConfig, RolloutConfig
from trainables.rl.divergence import full, k3, log_distribution, log_probability_and_entropy
from trainables.rl.policy import Policy


def group_relative_loss(
    policy: Policy, model: nn.Module, batch: RolloutBatch, rollout: RolloutConfig, objective: ObjectiveConfig
) -> Loss:
    """The loss of a batch, with metrics: those of the rollout, and means over all tokens that are learnt from.

    Metrics: `entropy` of the policy in nats; `sampler_gap`, the mean absolute difference between the log-probability of
    a token here and when it was drawn, which is rounding at a rollout's first step and then also how far the policy
    has moved; `clipped`, the share of tokens whose ratio is out of bounds, where it can be; `kl`, if it is measured,
    and then `policy_loss`, the loss without it.
    """
    temperature = rollout.temperature if objective.tempered else 1.0
    is_response_BT, written_BT = batch.is_response_BT, batch.of_targets(batch.written_BS)
    reference_BTV = _reference(policy, model, batch, temperature) if objective.kl == "full" else None
    logits_BTV = policy.logits(model, batch.inputs_BS, batch.first)
    log_BT, entropy_BT = log_probability_and_entropy(logits_BTV, batch.targets_BT, temperature)
    # What is padding counts nothing, but infinity times nothing would be something.
    log_BT, written_BT = log_BT.where(is_response_BT, 0.0), written_BT.where(is_response_BT, 0.0)
    old_BT = log_BT.detach() if batch.is_on_policy else written_BT
    terms_BT, is_clipped_BT = policy_terms(log_BT, old_BT, batch.advantages_B, is_response_BT, objective)
    shares_BT = is_response_BT * batch.shares_B[:, None]
    metrics = {"entropy": (entropy_BT * shares_BT).sum()}
    if temperature == rollout.temperature:
        metrics["sampler_gap"] = ((log_BT.detach() - written_BT).abs() * shares_BT).sum()
    if objective.ratio != "none" and rollout.steps > 1:
        metrics["clipped"] = (is_clipped_BT * shares_BT).sum()
    weights_BT = is_response_BT * batch.weights_B[:, None]
    if objective.kl != "none":
        metrics["policy_loss"] = (terms_BT.detach() * weights_BT).sum()
        if reference_BTV is None:
            divergence_BT = _k3(log_BT, old_BT, batch, objective)
        else:
            divergence_BT = full(log_distribution(logits_BTV, temperature), reference_BTV)
        terms_BT = terms_BT + objective.kl_coefficient * divergence_BT
        metrics["kl"] = (divergence_BT.detach() * shares_BT).sum()
    value = (terms_BT * weights_BT).sum()
    # The engine reports a loss only where it logs, and trackers want it in every row.
    return Loss(value, tokens=batch.tokens, metrics={**batch.figures, **metrics, "loss": value.detach()})


def policy_terms(
    log_BT: torch.Tensor,
    old_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    is_response_BT: torch.Tensor,
    objective: ObjectiveConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is minimised at each token (B, T), and whether its ratio r is out of bounds where that ends the gradient.

    `none`: -A log p (Williams 1992). `token`: -min(r A, clip(r, 1 - low, 1 + high) A) with r = p / p_old of the token
    (Schulman et al. 2017, PPO, arXiv 1707.06347, equation 7; high > low is DAPO's clip-higher, arXiv 2503.14476,
    section 3.1). `sequence`: the same with the geometric mean of the token ratios of a response in place of each (Zheng
    et al. 2025, GSPO, arXiv 2507.18071, equations 5 and 7).

    Args:
        log_BT: log-probabilities with their graph; 0 outside of responses.
        old_BT: those when the tokens were written, likewise.
        advantages_B: A of each response.
        is_response_BT: which targets count.
        objective: says which.
    """
    advantages_B1 = advantages_B[:, None]
    if objective.ratio == "none":
        return -advantages_B1 * log_BT, torch.zeros_like(is_response_BT)
    log_ratio_BT = log_BT - old_BT
    if objective.ratio == "sequence":
        lengths_B1 = is_response_BT.sum(1, keepdim=True).clamp(min=1)
        log_ratio_BT = (log_ratio_BT.sum(1, keepdim=True) / lengths_B1).expand_as(log_ratio_BT)
    ratio_BT = log_ratio_BT.exp()
    low, high = 1 - objective.clip_low, 1 + objective.clip_high
    terms_BT = -torch.min(ratio_BT * advantages_B1, ratio_BT.clamp(low, high) * advantages_B1)
    is_below_BT, is_above_BT = (ratio_BT < low) & (advantages_B1 < 0), (ratio_BT > high) & (advantages_B1 > 0)
    return terms_BT, is_below_BT | is_above_BT


def _k3(log_BT: torch.Tensor, old_BT: torch.Tensor, batch: RolloutBatch, objective: ObjectiveConfig) -> torch.Tensor:
    assert batch.reference_BS is not None
    estimate_BT = k3(log_BT, batch.of_targets(batch.reference_BS))
    return estimate_BT * (log_BT - old_BT).exp() if objective.kl == "k3_weighted" else estimate_BT


def _reference(policy: Policy, model: nn.Module, batch: RolloutBatch, temperature: float) -> torch.Tensor:
    """Log-probabilities (B, T, V) of all tokens under the reference policy."""
    with policy.reference(model) as reference, torch.no_grad():
        return log_distribution(policy.logits(reference, batch.inputs_BS, batch.first), temperature)
