"""What a run of reinforcement learning costs, from a glimpse at what is asked. Imports no torch."""

from __future__ import annotations

from rung.trainable import Workload
from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.grpo_config import ArithmeticGrpoConfig
from trainables.arithmetic.grpo_problems import ItemStream, corpus_items
from trainables.arithmetic.trace import prompt
from trainables.arithmetic.workload import vocabulary
from trainables.models.decoder_config import flops_per_token, parameter_count
from trainables.models.lora_config import adapter_parameters, training_flops_per_token
from trainables.rl.problems import Timetable, flops_per_step, tokens_per_step

_GLIMPSE, _CHARACTERS_A_TOKEN = 100, 2
"""Expressions that are looked at, and about how long a token is."""


def workload(config: ArithmeticGrpoConfig) -> Workload:
    """Answers count as being as long as the solutions that were taught: an estimate."""
    glimpse = [ItemStream(config, 0)(number) for number in range(_GLIMPSE)]
    asked, written = (
        sum(map(len, texts)) / (_GLIMPSE * _CHARACTERS_A_TOKEN)
        for texts in ([prompt(item.expression, config.format) for item in glimpse], map(solution_of, glimpse))
    )
    tokens, length = vocabulary(config), max(1, min(config.context, round(asked + written)))
    rollout = config.rollout.model_copy(update={"tokens": max(1, min(config.rollout.tokens, round(written)))})
    forward = flops_per_token(config.model, tokens, length)
    adapter, whole = config.adapter, parameter_count(config.model, tokens, config.context)
    training = 3 * forward if adapter is None else training_flops_per_token(adapter, config.model, tokens, length)
    problems = len(corpus_items(config)) if config.data_mode == "instruction" else None
    return Workload(
        parameters=whole if adapter is None else adapter_parameters(adapter, config.model),
        tokens_per_step=round(tokens_per_step(rollout, asked)),
        flops_per_step=flops_per_step(rollout, config.objective, asked, forward, training),
        steps_per_epoch=Timetable(problems, config.rollout).steps_per_epoch,
        evaluation_flops=config.evaluation_items * length * forward,
        frozen=whole if adapter is not None or config.objective.kl != "none" else 0,
    )
