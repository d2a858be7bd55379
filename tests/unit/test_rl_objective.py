"""The objective of group-relative policy optimization against numbers worked out by hand and a plain formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import torch
from torch import nn

from trainables.rl.advantages import advantages, is_flat
from trainables.rl.batch import RolloutBatch
from trainables.rl.config import Aggregation, Kl, ObjectiveConfig, Ratio, RolloutConfig
from trainables.rl.divergence import entropy, full, k3, log_distribution, log_probability_and_entropy, of_tokens
from trainables.rl.objective import group_relative_loss, policy_terms
from trainables.rl.policy import Written
from trainables.rl.problems import Place, Problem
from trainables.rl.rollout import Response, Rollout, token_weights

LOG2 = math.log(2)


# Advantages.


def test_advantages_by_hand() -> None:
    rewards_NG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    root3 = math.sqrt(3)
    # The second group: mean 1.5, variance (2.25 + 3 * 0.25) / 4 = 0.75, standard deviation sqrt(3) / 2.
    by_group = [[1, -1, -1, 1], [root3, -1 / root3, -1 / root3, -1 / root3], [0, 0, 0, 0]]
    unscaled = [[0.5, -0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5], [0, 0, 0, 0]]
    # All rewards: mean 16/12, mean square 1 (2) + 9 + 3 + 16 = 30 / 12.
    spread = math.sqrt(30 / 12 - (16 / 12) ** 2)
    for scale, expected in [("group", by_group), ("none", unscaled)]:
        found = advantages(rewards_NG, scale)  # type: ignore[arg-type]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)
    by_batch = torch.tensor(unscaled, dtype=torch.float64) / spread
    torch.testing.assert_close(advantages(rewards_NG, "batch"), by_batch, rtol=1e-7, atol=1e-7)


def test_rewards_that_differ_by_rounding_only_are_flat() -> None:
    rewards_NG = torch.tensor([[0.1 + 0.2, 0.3, 0.3], [0.3, 0.3, 0.31]], dtype=torch.float64)
    assert is_flat(rewards_NG).tolist() == [True, False]
    assert advantages(rewards_NG, "group")[0].tolist() == [0.0, 0.0, 0.0]


# Weights.


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sequence", [1 / 12, 1 / 6, 0.0]),  # three responses, of 4, 2 and no tokens that count
        ("token", [1 / 6, 1 / 6, 0.0]),
        ("constant", [1 / 24, 1 / 24, 0.0]),
        ("sum", [1 / 3, 1 / 3, 0.0]),
    ],
)
def test_weights_of_tokens_by_hand(aggregation: Aggregation, expected: list[float]) -> None:
    assert token_weights(torch.tensor([4, 2, 0]), aggregation, most=8).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_no_tokens_weigh_nothing(aggregation: Aggregation) -> None:
    assert token_weights(torch.tensor([0, 0]), aggregation, most=8).tolist() == [0.0, 0.0]
    assert token_weights(torch.tensor([], dtype=torch.int64), aggregation, most=8).tolist() == []


# Terms.


def _terms(ratios: Sequence[float], advantage: float, **settings: Any) -> tuple[list[float], list[bool]]:
    log_BT = torch.tensor([ratios], dtype=torch.float64).log()
    is_response_BT = torch.ones_like(log_BT, dtype=torch.bool)
    terms_BT, is_clipped_BT = policy_terms(
        log_BT - 1, torch.zeros_like(log_BT) - 1, torch.tensor([advantage]), is_response_BT, ObjectiveConfig(**settings)
    )
    return terms_BT[0].tolist(), is_clipped_BT[0].tolist()


def test_clipped_ratios_by_hand() -> None:
    terms, clipped = _terms([1.5, 0.5, 1.1], 2.0)
    assert terms == pytest.approx([-2.4, -1.0, -2.2])
    assert clipped == [True, False, False]
    terms, clipped = _terms([1.5, 0.5, 1.1], -2.0)
    assert terms == pytest.approx([3.0, 1.6, 2.2])
    assert clipped == [False, True, False]


def test_clip_higher_by_hand() -> None:
    terms, clipped = _terms([1.5, 1.25], 2.0, clip_high=0.28)
    assert terms == pytest.approx([-2.56, -2.5])
    assert clipped == [True, False]


def test_ratio_of_a_response_is_the_geometric_mean_of_its_tokens() -> None:
    terms, clipped = _terms([4.0, 1.0], 1.0, ratio="sequence", clip_high=9.0)
    assert terms == pytest.approx([-2.0, -2.0])
    assert clipped == [False, False]
    assert _terms([4.0, 1.0], 1.0, ratio="sequence", clip_high=4e-4)[0] == pytest.approx([-1.0004, -1.0004])


def test_ratio_of_a_response_leaves_padding_out() -> None:
    log_BT, mask_BT = torch.tensor([[math.log(4.0), 0.0, 0.0]]), torch.tensor([[True, False, False]])
    objective = ObjectiveConfig(ratio="sequence", clip_high=9.0)
    terms_BT, _ = policy_terms(log_BT, torch.zeros(1, 3), torch.ones(1), mask_BT, objective)
    assert terms_BT[0, 0].item() == pytest.approx(-4.0)


def test_plain_policy_gradient_by_hand() -> None:
    assert _terms([1.5], 2.0, ratio="none")[0] == pytest.approx([-2.0 * (math.log(1.5) - 1)])


# Divergences.


def test_divergences_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), reference = (1/4, 1/4, 1/2), and token 0 was drawn.
    log_BTV = torch.tensor([[[0.5, 0.25, 0.25]]], dtype=torch.float64).log()
    reference_BTV = torch.tensor([[[0.25, 0.25, 0.5]]], dtype=torch.float64).log()
    assert entropy(log_BTV).item() == pytest.approx(1.5 * LOG2)
    assert full(log_BTV, reference_BTV).item() == pytest.approx(0.5 * LOG2 - 0.25 * LOG2)
    drawn = torch.tensor([[0]])
    found = k3(of_tokens(log_BTV, drawn), of_tokens(reference_BTV, drawn))
    assert found.item() == pytest.approx(0.5 + LOG2 - 1)  # d = log(1/4) - log(1/2)


def test_k3_is_the_divergence_on_average() -> None:
    log_V, reference_V = (torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    log_V, reference_V = log_V.double().log_softmax(-1), reference_V.double().log_softmax(-1)
    assert (log_V.exp() * k3(log_V, reference_V)).sum().item() == pytest.approx(full(log_V, reference_V).item())


@pytest.mark.parametrize("is_weighted", [True, False])
def test_gradient_of_k3_on_average(is_weighted: bool) -> None:
    draws = (torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1))
    logits_V, reference_V = next(draws).requires_grad_(), next(draws).log_softmax(-1)
    log_V = logits_V.log_softmax(-1)
    estimate_V = k3(log_V, reference_V) * ((log_V - log_V.detach()).exp() if is_weighted else 1.0)
    on_average = torch.autograd.grad((log_V.detach().exp() * estimate_V).sum(), logits_V, retain_graph=True)[0]
    distance = full(log_V, reference_V) if is_weighted else full(reference_V, log_V)
    torch.testing.assert_close(on_average, torch.autograd.grad(distance, logits_V)[0])


def test_entropy_in_parts_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    log_BTV = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    whole = entropy(log_BTV)
    monkeypatch.setattr("trainables.rl.divergence.ELEMENTS", 7)
    assert entropy(log_BTV).equal(whole)


@pytest.mark.parametrize("elements", [1, 13, 1 << 24])
def test_what_keeps_no_distribution_finds_the_same(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.rl.divergence.ELEMENTS", elements)
    generator = torch.Generator().manual_seed(0)
    logits_BTV = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    tokens_BT = torch.randint(5, (3, 2), generator=generator)
    log_BT, entropy_BT = log_probability_and_entropy(logits_BTV, tokens_BT, 0.7)
    log_BTV = log_distribution(logits_BTV, 0.7)
    torch.testing.assert_close(log_BT, of_tokens(log_BTV, tokens_BT))
    torch.testing.assert_close(entropy_BT, entropy(log_BTV))
    assert not entropy_BT.requires_grad
    assert torch.autograd.gradcheck(lambda logits: log_probability_and_entropy(logits, tokens_BT, 0.7)[0], logits_BTV)


def test_temperature_divides_logits() -> None:
    logits_BTV = torch.tensor([[[0.0, LOG2]]], dtype=torch.bfloat16)
    assert log_distribution(logits_BTV, 0.5).exp()[0, 0].tolist() == pytest.approx([1 / 5, 4 / 5], rel=1e-2)
    assert log_distribution(logits_BTV, 0.5).dtype == torch.float32


# The whole.

WIDTH = 5
"""Tokens of the vocabulary."""


class Table(nn.Module):
    """Logits of the next token for each token."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table_VV = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))

    def forward(self, tokens_BS: torch.Tensor) -> torch.Tensor:
        return self.table_VV[tokens_BS]


class TablePolicy:
    """What the loss asks of a policy."""

    pad = 0

    def __init__(self, reference: nn.Module) -> None:
        self._reference = reference

    def logits(self, model: nn.Module, tokens_BS: torch.Tensor, first: int) -> torch.Tensor:
        logits_BTV: torch.Tensor = model(tokens_BS)[:, first:]
        return logits_BTV

    @contextmanager
    def reference(self, model: nn.Module) -> Iterator[nn.Module]:
        yield self._reference


MODEL, BEFORE, REFERENCE = (Table(seed) for seed in (0, 1, 2))
PROMPTS = [[1], [2, 3]]
RESPONSES = [[[2, 3, 4], [4]], [[1, 4], [3, 3, 2, 4]]]
REWARDS = [1.0, 0.0, 0.25, 0.5]
HAS_ENDED = [True, True, False, True]


def _log_probabilities(model: nn.Module, prompt: Sequence[int], response: Sequence[int], temperature: float) -> Any:
    """What `policy_terms` gets, row by row and without padding."""
    tokens = torch.tensor([*prompt, *response])
    log_SV = (model(tokens[:-1]) / temperature).log_softmax(-1)[len(prompt) - 1 :]
    return log_SV, log_SV.gather(1, torch.tensor(response)[:, None])[:, 0]


def _batch(rollout: RolloutConfig, objective: ObjectiveConfig, place: Place, model: nn.Module = BEFORE) -> RolloutBatch:
    """A rollout that the model `BEFORE` wrote."""
    rows = iter(HAS_ENDED)
    problems = [Problem(prompt, "", "") for prompt in PROMPTS]
    groups = []
    for prompt, responses in zip(PROMPTS, RESPONSES, strict=True):
        group = []
        for response in responses:
            temperature = rollout.temperature if objective.tempered else 1.0
            with torch.no_grad():
                _, written = _log_probabilities(model, prompt, response, rollout.temperature)
                _, reference = _log_probabilities(REFERENCE, prompt, response, temperature)
            asked = reference.tolist() if objective.is_estimated else []
            group.append(Response(Written(response, written.tolist(), next(rows)), asked))
        groups.append(group)
    whole = Rollout.of(problems, groups, REWARDS, pad=0)
    return whole.batch(place, rollout, objective, whole.figures({}), "cpu")


def _plain(rollout: RolloutConfig, objective: ObjectiveConfig, is_on_policy: bool) -> torch.Tensor:
    """The loss as the papers write it: response by response, token by token."""
    temperature = rollout.temperature if objective.tempered else 1.0
    losses, counts = [], []
    for index, (row, ended) in enumerate(zip(itertools.chain(*RESPONSES), HAS_ENDED, strict=True)):
        prompt, group = PROMPTS[index // 2], REWARDS[index // 2 * 2 : index // 2 * 2 + 2]
        spread = {
            "group": abs(group[0] - group[1]) / 2,
            "none": 1.0,
            "batch": float(torch.tensor(REWARDS).std(correction=0)),
        }
        advantage = (REWARDS[index] - sum(group) / 2) / spread[objective.scale]
        log_TV, new = _log_probabilities(MODEL, prompt, row, temperature)
        with torch.no_grad():
            reference_TV, reference = _log_probabilities(REFERENCE, prompt, row, temperature)
            _, old = _log_probabilities(MODEL if is_on_policy else BEFORE, prompt, row, temperature)
        ratio = (new - old).exp() if objective.ratio == "token" else (new - old).mean().exp().expand(len(row))
        terms = []
        for t in range(len(row)):
            clipped = ratio[t].clamp(1 - objective.clip_low, 1 + objective.clip_high)
            term = -torch.minimum(ratio[t] * advantage, clipped * advantage)
            if objective.ratio == "none":
                term = -advantage * new[t]
            if objective.kl in ("k3", "k3_weighted"):
                distance = reference[t] - new[t]
                weight = (new[t] - old[t]).exp() if objective.kl == "k3_weighted" else 1.0
                term = term + objective.kl_coefficient * weight * (distance.exp() - distance - 1)
            if objective.kl == "full":
                p = log_TV[t].exp()
                term = term + objective.kl_coefficient * (p * (log_TV[t] - reference_TV[t])).sum()
            terms.append(term)
        is_learnt = ended or objective.truncated == "keep"
        losses.append(torch.stack(terms) * is_learnt)
        counts.append(len(row) * is_learnt)
    if objective.aggregation == "sequence":
        return torch.stack([loss.mean() for loss in losses]).mean()
    total = torch.cat(losses).sum()
    divisor = {"token": sum(counts), "constant": len(losses) * rollout.tokens, "sum": len(losses)}
    return total / divisor[objective.aggregation]


CASES = [
    {"ratio": ratio, "aggregation": aggregation, "kl": kl}
    for ratio, aggregation, kl in itertools.product(get_args(Ratio), get_args(Aggregation), get_args(Kl))
]
CASES += [
    {"scale": "none"},
    {"scale": "batch"},
    {"truncated": "mask"},
    {"truncated": "mask", "aggregation": "sequence"},
]
CASES += [{"tempered": False, "ratio": "none", "kl": kl} for kl in ("k3", "full")]


@pytest.mark.parametrize("is_on_policy", [True, False])
@pytest.mark.parametrize("settings", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_loss_and_gradient_are_those_of_the_plain_formula(settings: dict[str, Any], is_on_policy: bool) -> None:
    objective = ObjectiveConfig(**{"kl_coefficient": 0.3, "clip_low": 0.4, "clip_high": 0.7, **settings})
    rollout = RolloutConfig(prompts=2, group=2, tokens=6, temperature=0.7, passes=1 if is_on_policy else 2)
    batch = _batch(rollout, objective, Place(0, 0, 1, is_last=is_on_policy))
    losses = [
        group_relative_loss(TablePolicy(REFERENCE), MODEL, batch, rollout, objective).value,  # type: ignore[arg-type]
        _plain(rollout, objective, is_on_policy),
    ]
    gradients = [torch.autograd.grad(loss, MODEL.table_VV)[0] for loss in losses]
    # Weights and log-probabilities of a batch are fp32, hence no more than that.
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5, abs=1e-7)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def test_metrics_by_hand() -> None:
    objective, rollout = ObjectiveConfig(kl="k3", clip_low=0.1, clip_high=0.1), RolloutConfig(passes=2, tokens=6)
    batch = _batch(rollout, objective, Place(0, 0, 1, is_last=False))
    metrics = group_relative_loss(TablePolicy(REFERENCE), MODEL, batch, rollout, objective).metrics  # type: ignore[arg-type]
    assert {name: metrics[name].item() for name in ("rewards/mean", "rewards/min", "rewards/max", "truncated")} == {
        "rewards/mean": 0.4375,
        "rewards/min": 0.0,
        "rewards/max": 1.0,
        "truncated": 0.25,
    }
    assert metrics["rewards/std"].item() == pytest.approx(math.sqrt((1 + 0.0625 + 0.25) / 4 - 0.4375**2))
    assert metrics["response_tokens"].item() == 2.5
    gaps, entropies, kls, clipped = [], [], [], []
    for index, row in enumerate(itertools.chain(*RESPONSES)):
        log_TV, new = _log_probabilities(MODEL, PROMPTS[index // 2], row, 1.0)
        _, old = _log_probabilities(BEFORE, PROMPTS[index // 2], row, 1.0)
        _, reference = _log_probabilities(REFERENCE, PROMPTS[index // 2], row, 1.0)
        gaps.append((new - old).abs())
        entropies.append(-(log_TV.exp() * log_TV).sum(-1))
        kls.append((reference - new).exp() - (reference - new) - 1)
        ratio, is_better = (new - old).exp(), index in (0, 3)
        clipped.append((ratio > 1.1 if is_better else ratio < 0.9).double())
    for name, values in {"sampler_gap": gaps, "entropy": entropies, "kl": kls, "clipped": clipped}.items():
        assert metrics[name].item() == pytest.approx(torch.cat(values).mean().item(), rel=1e-5), name


def test_padding_of_no_probability_does_no_harm() -> None:
    model = Table(0)
    with torch.no_grad():
        model.table_VV[:, 0] = -1e4  # the token that rows are filled up with
    objective, rollout = ObjectiveConfig(kl="k3"), RolloutConfig(passes=2, tokens=6)
    batch = _batch(rollout, objective, Place(0, 0, 1, is_last=False))
    loss = group_relative_loss(TablePolicy(REFERENCE), model, batch, rollout, objective)  # type: ignore[arg-type]
    loss.value.backward()
    assert loss.value.isfinite()
    assert model.table_VV.grad is not None
    assert model.table_VV.grad.isfinite().all()
