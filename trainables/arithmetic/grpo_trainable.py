"""Expressions worked out step by step, learnt from whether the results are right. Importing this module does not import
torch.

A study of it starts from one of `arithmetic` (`start`), from which it has model, tokenizer, format, context and corpus.
The policy writes answers to expressions, each is judged by `config.rewards`, and it learns by `config.objective`
(`trainables/rl`). Validation is greedy; every answer to it becomes a row of the table `generations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from rung.settings import TrainableConfig
from rung.trainable import Generation, Metric, Workload
from trainables.arithmetic.answers import METRICS, Evaluation
from trainables.arithmetic.evaluation_config import DecodingConfig
from trainables.arithmetic.generator import Item
from trainables.arithmetic.grpo_config import ArithmeticGrpoConfig
from trainables.arithmetic.grpo_problems import ItemStream, corpus_items, problem_of, validation_items
from trainables.arithmetic.preparation import ensure_tokenizer
from trainables.arithmetic.trainable import Arithmetic
from trainables.rl.problems import Problem, Problems
from trainables.rl.rewards import Judgement, judge
from trainables.rl.trainable import GroupRelative

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.language.remembered import Remembered
    from trainables.rl.policy import Policy

_REPORTED = {"exact_match": "reward_rate"}
"""What measures of answers are called here, where that is not their name."""


class ArithmeticGrpo(GroupRelative[ArithmeticGrpoConfig], Arithmetic):
    """A decoder that learns from its own answers.

    What it is asked can come from elsewhere: a derived class says so with `tokenizer`, `asked` and `held_out`.
    """

    Config: ClassVar[type[TrainableConfig]] = ArithmeticGrpoConfig
    config: ArithmeticGrpoConfig

    @classmethod
    def metrics(cls, config: ArithmeticGrpoConfig) -> Mapping[str, Metric]:  # type: ignore[override]
        """Of greedy answers to held-out expressions of the sizes that are asked."""
        found = {name: Metric(*what) for name, what in METRICS.items()}
        return {f"validation/{_REPORTED.get(name, name)}": metric for name, metric in found.items()}

    @classmethod
    def workload(cls, config: ArithmeticGrpoConfig) -> Workload:  # type: ignore[override]
        """An estimate: answers count as being as long as the solutions that were taught."""
        from trainables.arithmetic.grpo_workload import workload

        return workload(config)

    @classmethod
    def prepare(  # type: ignore[override]
        cls, configs: Sequence[ArithmeticGrpoConfig], say: Callable[[str], None]
    ) -> None:
        """Tokenizers, where they are not there."""
        for config in configs:
            ensure_tokenizer(config, say)

    @classmethod
    def inherited(cls, config: Any) -> Mapping[str, Any]:
        """As of `Arithmetic`, but without dropout: the policy that learns is the one that writes."""
        taken = super().inherited(config)
        return {**taken, "model": {**taken["model"], "dropout": 0.0}}

    # What it is asked.

    def asked(self) -> Sequence[Item]:
        """The expressions of the corpus that it is asked while it learns, all of them valid."""
        return corpus_items(self.config)

    def held_out(self) -> Sequence[Item]:
        """The expressions that it is evaluated on, all of them valid."""
        return validation_items(self.config)

    def problems(self) -> Problems:
        """See `ArithmeticGrpoConfig.data_mode`."""
        tokenizer, config = self.tokenizer, self.config
        if config.data_mode == "instruction":
            return [problem_of(item, tokenizer, config.format) for item in self.asked()]
        stream = ItemStream(config, self.seed if config.data_seed is None else config.data_seed)
        return lambda number: problem_of(stream(number), tokenizer, config.format)

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> Judgement:
        """What each answer is worth by `config.rewards`."""
        prompts, answers = [problem.prompt for problem in problems], [problem.answer for problem in problems]
        return judge(self.config.rewards.functions(), prompts, responses, answers)

    # The four questions, as far as `GroupRelative` leaves them open.

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """A `Decoder`, with adapters if there are to be any."""
        return Arithmetic.model(self, generator)

    @cached_property
    def policy(self) -> Policy:
        """The decoder, which never writes what no solution has."""
        from trainables.rl.decoder_policy import DecoderPolicy

        tokenizer = self.tokenizer
        return DecoderPolicy(
            end=tokenizer.end,
            decode=tokenizer.decode,
            pad=tokenizer.pad,
            forbidden=(tokenizer.unknown, tokenizer.begin),
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Held-out expressions, answered greedily; a model that has diverged answers nothing."""
        from trainables.language.remembered import is_finite

        if not is_finite(model):
            return dict.fromkeys(self.metrics(self.config), math.nan)
        measured = self._evaluation(model).metrics()
        return {f"validation/{_REPORTED.get(name, name)}": value for name, value in measured.items()}

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """Every answer to them."""
        from trainables.language.remembered import is_finite

        return [answer.generation for answer in self._evaluation(model).answers] if is_finite(model) else ()

    @cached_property
    def _evaluation(self) -> Remembered[Evaluation]:
        from trainables.language.remembered import Remembered

        return Remembered(self._answers)

    def _answers(self, model: nn.Module) -> Evaluation:
        from trainables.arithmetic.evaluation import evaluate_items
        from trainables.models.decoder import Decoder

        assert isinstance(model, Decoder)
        decoding = DecodingConfig(tokens=self.config.rollout.tokens, batch_size=self.config.evaluation_batch_size)
        return evaluate_items(model, self.tokenizer, self._held_out, format=self.config.format, decoding=decoding)

    @cached_property
    def _held_out(self) -> Sequence[Item]:
        return self.held_out()
