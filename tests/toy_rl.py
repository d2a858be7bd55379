"""Reinforcement learning small enough to learn in a second: write the letter that was asked for.

A decoder of one layer reads `<bos>` and a letter, and is rewarded for each letter of its response that is the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from rung.settings import TrainableConfig
from rung.trainable import Metric, Workload
from trainables.models.decoder_config import DecoderConfig, flops_per_token, parameter_count
from trainables.models.lora_config import LoraConfig
from trainables.rl.config import GroupRelativeConfig
from trainables.rl.problems import Problem, Problems, Timetable, flops_per_step, tokens_per_step
from trainables.rl.rewards import Judgement, Reward, judge
from trainables.rl.trainable import GroupRelative

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.rl.decoder_policy import DecoderPolicy

LETTERS = "abcd"
PAD, BEGIN, END, FIRST = 0, 1, 2, 3
"""Tokens; letters follow."""
VOCABULARY = FIRST + len(LETTERS)


def as_text(tokens: Sequence[int]) -> str:
    """Tokens as letters."""
    return "".join(LETTERS[token - FIRST] for token in tokens)


class LettersConfig(GroupRelativeConfig):
    """What is learnt with what."""

    model: DecoderConfig = DecoderConfig(layers=1, width=16, heads=2, tie_embeddings=False)
    """The decoder."""
    adapter: LoraConfig | None = None
    """Adapters; none: all of it is trained."""
    is_endless: bool = False
    """Whether problems never come to an end."""


def same_letters(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Share of the right letter."""
    return [response.count(answer) / max(1, len(response)) for response, answer in zip(responses, answers, strict=True)]


def shortness(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    """1 for one letter, 0 for many."""
    return [1 / max(1, len(response)) for response in responses]


class Letters(GroupRelative[LettersConfig]):
    """The trainable."""

    Config: ClassVar[type[TrainableConfig]] = LettersConfig

    @classmethod
    def metrics(cls, config: LettersConfig) -> Mapping[str, Metric]:
        return {"validation/reward": Metric("max", "share of right letters", worst=0.0)}

    @classmethod
    def workload(cls, config: LettersConfig) -> Workload:
        forward = flops_per_token(config.model, VOCABULARY, 8)
        count = None if config.is_endless else len(LETTERS)
        return Workload(
            parameters=parameter_count(config.model, VOCABULARY, 8),
            tokens_per_step=round(tokens_per_step(config.rollout, 2)),
            flops_per_step=flops_per_step(config.rollout, config.objective, 2, forward, 3 * forward),
            steps_per_epoch=Timetable(count, config.rollout).steps_per_epoch,
        )

    @property
    def policy(self) -> DecoderPolicy:
        from trainables.rl.decoder_policy import DecoderPolicy

        return DecoderPolicy(end=END, pad=PAD, forbidden=(BEGIN,), decode=as_text)

    def problems(self) -> Problems:
        return self.problem if self.config.is_endless else [self.problem(number) for number in range(len(LETTERS))]

    def problem(self, number: int) -> Problem:
        letter = number % len(LETTERS)
        return Problem([BEGIN, FIRST + letter], LETTERS[letter], LETTERS[letter])

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> Judgement:
        rewards = [Reward("letters", same_letters), Reward("short", shortness, 0.1)]
        return judge(rewards, [each.prompt for each in problems], responses, [each.answer for each in problems])

    def fresh(self, generator: torch.Generator) -> nn.Module:
        from trainables.models.decoder import Decoder
        from trainables.models.lora import add_adapters

        model: nn.Module = Decoder(self.config.model, vocabulary=VOCABULARY, length=8, generator=generator)
        if self.config.adapter is not None:
            add_adapters(model, self.config.adapter, generator)
        return model

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        problems = [self.problem(number) for number in range(len(LETTERS))]
        written = self.policy.write(
            model,
            [problem.tokens for problem in problems],
            group=1,
            tokens=self.config.rollout.tokens,
            temperature=0.0,
            top_k=None,
            top_p=None,
            seed=0,
            numbers=range(len(problems)),
            batch_size=None,
        )
        texts = [self.policy.decode(group[0].tokens) for group in written]
        rewards = same_letters([], texts, [problem.answer for problem in problems])
        return {"validation/reward": sum(rewards) / len(rewards)}
