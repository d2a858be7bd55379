"""Losses and gradients on a fixed batch against TRL's GRPOTrainer, of all variants that both have."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from rung.trainable import Loss
from tests.tiny_model import tiny_model_folder
from trainables.rl.config import ObjectiveConfig, RolloutConfig
from trainables.rl.objective import group_relative_loss
from trainables.rl.policy import Written
from trainables.rl.problems import Place, Problem
from trainables.rl.rollout import Response, Rollout

MOST, TEMPERATURE, GROUP, LONGEST = 8, 0.7, 3, 4
REWARDS = [1.0, 0.0, 0.5, 0.25, 0.25, 2.0]
LENGTHS = [8, 3, 5, 1, 8, 2]
HAS_ENDED = [False, True, True, True, True, True]
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GRPO": ({"aggregation": "sequence"}, {"loss_type": "grpo"}),
    "GRPO with k3": (
        {"aggregation": "sequence", "kl": "k3", "kl_coefficient": 0.3},
        {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": False},
    ),
    "GRPO with k3, weighted": (
        {"aggregation": "sequence", "kl": "k3_weighted", "kl_coefficient": 0.3},
        {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": True},
    ),
    "GRPO, truncated masked": (
        {"aggregation": "sequence", "truncated": "mask"},
        {"loss_type": "grpo", "mask_truncated_completions": True},
    ),
    "BNPO": ({"aggregation": "token"}, {"loss_type": "bnpo"}),
    "DAPO, truncated masked": (
        {"aggregation": "token", "clip_high": 0.28, "truncated": "mask"},
        {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": True},
    ),
    "Dr. GRPO": ({"aggregation": "constant"}, {"loss_type": "dr_grpo"}),
    "GSPO": (
        {"aggregation": "sequence", "ratio": "sequence", "clip_low": 0.03, "clip_high": 0.04},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.03, "epsilon_high": 0.04},
    ),
    "LUSPO": (
        {"aggregation": "sum", "ratio": "sequence"},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ),
}
"""Settings of the same loss here and there."""


class LogitsPolicy:
    """What the loss asks of a policy: a transformers model in rows without padding at the left."""

    pad = 0

    def logits(self, model: nn.Module, tokens_BS: torch.Tensor, first: int) -> torch.Tensor:
        logits_BTV: torch.Tensor = model(input_ids=tokens_BS).logits[:, first:]
        return logits_BTV


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer of a tiny Qwen3."""
    trl = pytest.importorskip("trl", reason="TRL is the other side of this comparison, and no dependency")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    datasets = pytest.importorskip("datasets", reason="TRL brings it")
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"), std=0.3)
    config = trl.GRPOConfig(
        output_dir=str(folder / "out"),
        num_generations=GROUP,
        per_device_train_batch_size=len(REWARDS),
        max_completion_length=MOST,
        temperature=TEMPERATURE,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    return trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=lambda **columns: [0.0] * len(columns["prompts"]),
        args=config,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a"] * len(REWARDS)}),
    )


class Fixed:
    """Some responses: what they are, and how likely they were."""

    def __init__(self, vocabulary: int) -> None:
        draw = random.Random(0)
        self.prompts = [[draw.randrange(3, vocabulary) for _ in range(length)] for length in (2, LONGEST)]
        self.responses = [[draw.randrange(3, vocabulary) for _ in range(length)] for length in LENGTHS]
        self.shifts = [[draw.gauss(0, 0.3) for _ in row] for row in self.responses]
        """From the policy's log-probabilities to those when the tokens were drawn, and to the reference's."""

    def prompt(self, row: int) -> list[int]:
        return self.prompts[row // GROUP]

    def log_probabilities(self, model: nn.Module) -> list[list[float]]:
        found = []
        for row, response in enumerate(self.responses):
            tokens = torch.tensor([[*self.prompt(row), *response]])
            with torch.no_grad():
                log_SV = (LogitsPolicy().logits(model, tokens, len(self.prompt(row)) - 1) / TEMPERATURE).log_softmax(-1)
            found.append([log_SV[0, t, token].item() for t, token in enumerate(response)])
        return found


def _shifted(values: list[list[float]], shifts: list[list[float]], by: float) -> list[list[float]]:
    return [[a + by * b for a, b in zip(*rows, strict=True)] for rows in zip(values, shifts, strict=True)]


def _our_loss(model: nn.Module, fixed: Fixed, settings: dict[str, Any], is_on_policy: bool) -> Loss:
    now = fixed.log_probabilities(model)
    old, reference = now if is_on_policy else _shifted(now, fixed.shifts, 1), _shifted(now, fixed.shifts, -2)
    objective = ObjectiveConfig(scale="none", **settings)
    rollout = RolloutConfig(
        prompts=2, group=GROUP, tokens=MOST, temperature=TEMPERATURE, passes=1 if is_on_policy else 2
    )
    responses = [
        Response(Written(tokens, old[row], HAS_ENDED[row]), reference[row] if objective.is_estimated else [])
        for row, tokens in enumerate(fixed.responses)
    ]
    problems = [Problem(prompt, "", "") for prompt in fixed.prompts]
    whole = Rollout.of(problems, [responses[:GROUP], responses[GROUP:]], REWARDS, pad=0)
    batch = whole.batch(Place(0, 0, 1, is_last=is_on_policy), rollout, objective, {}, "cpu")
    return group_relative_loss(LogitsPolicy(), model, batch, rollout, objective)  # type: ignore[arg-type]


def _their_loss(trainer: Any, fixed: Fixed, settings: dict[str, Any], is_on_policy: bool) -> torch.Tensor:
    values = {"loss_type": "grpo", "beta": 0.0, "epsilon": 0.2, "importance_sampling_level": "token", **settings}
    trainer.loss_type, trainer.beta = values["loss_type"], values["beta"]
    trainer.importance_sampling_level = values["importance_sampling_level"]
    trainer.epsilon_low, trainer.epsilon_high = values["epsilon"], values.get("epsilon_high", values["epsilon"])
    trainer.args.use_bias_correction_kl = values.get("use_bias_correction_kl", True)
    trainer.current_gradient_accumulation_steps = 1
    now = fixed.log_probabilities(trainer.model)
    mask = [[1.0] * length + [0.0] * (MOST - length) for length in LENGTHS]
    if values.get("mask_truncated_completions"):
        mask = [row if ended else [0.0] * MOST for row, ended in zip(mask, HAS_ENDED, strict=True)]
    rewards = torch.tensor(REWARDS).view(-1, GROUP)
    inputs = {
        "prompt_ids": _rows([[0] * (LONGEST - len(fixed.prompt(r))) + fixed.prompt(r) for r in range(len(LENGTHS))]),
        "prompt_mask": _rows(
            [[0] * (LONGEST - len(fixed.prompt(r))) + [1] * len(fixed.prompt(r)) for r in range(len(LENGTHS))]
        ),
        "completion_ids": _rows([row + [0] * (MOST - len(row)) for row in fixed.responses]),
        "completion_mask": torch.tensor(mask),
        "advantages": (rewards - rewards.mean(1, keepdim=True)).flatten(),
        "num_items_in_batch": torch.tensor(mask).sum(),
        "ref_per_token_logps": _filled(_shifted(now, fixed.shifts, -2)),
    }
    if not is_on_policy:
        inputs["old_per_token_logps"] = _filled(_shifted(now, fixed.shifts, 1))
    loss: torch.Tensor = trainer._compute_loss(trainer.model, inputs)
    return loss


def _rows(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows)


def _filled(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([row + [0.0] * (MOST - len(row)) for row in rows])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_on_policy", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_are_those_of_trl(trainer: Any, name: str, is_on_policy: bool) -> None:
    ours, theirs = VARIANTS[name]
    model = trainer.model.train()
    fixed = Fixed(model.config.vocab_size)
    losses = [_our_loss(model, fixed, ours, is_on_policy).value, _their_loss(trainer, fixed, theirs, is_on_policy)]
    parameters = list(model.parameters())
    gradients = [torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters)]) for loss in losses]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4, abs=1e-6)
    largest = gradients[1].abs().max().item()
    assert largest > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-4 * largest)
