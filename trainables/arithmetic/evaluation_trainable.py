"""The last stage of a pipeline: a model is tested and not trained. Importing this module does not import torch.

A study of it starts from another one (`start`), from which it has model, tokenizer and format, and has
`budget: {steps: 0}`. Every answer to the test set becomes a row of the table `generations`;
`python -m trainables.arithmetic.evaluation_report STUDY` breaks them down by what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.trainable import Generation, Metric, Workload
from trainables.arithmetic.answers import METRICS, Evaluation
from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.evaluation_config import ArithmeticEvaluationConfig
from trainables.arithmetic.generator import Item, items
from trainables.arithmetic.preparation import ensure_tokenizer
from trainables.arithmetic.test_sets import test_set
from trainables.arithmetic.trainable import Arithmetic
from trainables.arithmetic.workload import vocabulary
from trainables.models.decoder_config import flops_per_token, parameter_count

if TYPE_CHECKING:
    from torch import nn

    from trainables.arithmetic.batches import SequenceStream
    from trainables.language.remembered import Remembered

_GLIMPSE, _CHARACTERS_A_TOKEN = 100, 2
"""Items that are looked at to estimate what an evaluation costs, and about how long a token is."""


class ArithmeticEvaluation(Arithmetic):
    """Answers of a model to a test set that no corpus shares an expression with."""

    Config: ClassVar[type[TrainableConfig]] = ArithmeticEvaluationConfig
    config: ArithmeticEvaluationConfig

    @classmethod
    def metrics(cls, config: ArithmeticEvaluationConfig) -> Mapping[str, Metric]:  # type: ignore[override]
        """Of the test set."""
        found = {f"test/{name}": Metric(*what) for name, what in METRICS.items()}
        for k in config.decoding.ks:
            text = f"probability that one of {k} answers to an item is right, from {config.decoding.samples} (unbiased)"
            found[f"test/pass@{k}"] = Metric("max", text, 0.0)
        return found

    @classmethod
    def workload(cls, config: ArithmeticEvaluationConfig) -> Workload:  # type: ignore[override]
        """Of writing the taught solutions of some test items, and of no step."""
        tokens = vocabulary(config)
        written = sum(len(solution_of(item)) for item in items(config.test, "test", 0, _GLIMPSE))
        length = max(1, min(written // (_GLIMPSE * _CHARACTERS_A_TOKEN), config.decoding.tokens or config.context))
        answers = config.test.samples * config.decoding.samples
        return Workload(
            parameters=parameter_count(config.model, tokens, config.context),
            tokens_per_step=0,
            flops_per_step=0.0,
            evaluation_flops=answers * length * flops_per_token(config.model, tokens, length),
        )

    @classmethod
    def prepare(  # type: ignore[override]
        cls, configs: Sequence[ArithmeticEvaluationConfig], say: Callable[[str], None]
    ) -> None:
        """Tokenizers, where they are not there."""
        for config in configs:
            ensure_tokenizer(config, say)

    def batches(self) -> SequenceStream:
        """Nothing to train on."""
        stream: SequenceStream = _Nothing()  # type: ignore[assignment]
        return stream

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every item of the test set is answered; a model that has diverged answers nothing."""
        from trainables.language.remembered import is_finite

        if not is_finite(model):
            return dict.fromkeys(self.metrics(self.config), math.nan)
        measured = self.evaluation(model).metrics(self.config.decoding.ks)
        return {f"test/{name}": value for name, value in measured.items()}

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """Every answer."""
        from trainables.language.remembered import is_finite

        if not is_finite(model):
            return ()
        return [answer.generation for answer in self.evaluation(model).answers]

    def evaluation(self, model: nn.Module) -> Evaluation:
        """The answers of a model as it is now; asked twice, they are written once."""
        return self._written(model)

    @cached_property
    def _written(self) -> Remembered[Evaluation]:
        from trainables.language.remembered import Remembered

        return Remembered(self._answers)

    def _answers(self, model: nn.Module) -> Evaluation:
        from trainables.arithmetic.evaluation import evaluate_items
        from trainables.models.decoder import Decoder

        assert isinstance(model, Decoder)
        config = self.config
        return evaluate_items(model, self.tokenizer, self.items, format=config.format, decoding=config.decoding)

    @cached_property
    def items(self) -> Sequence[Item]:
        """The test set."""
        found: Sequence[Item] = test_set(self.config.test)
        return found


class _Nothing:
    """A stream without batches."""

    def at(self, position: int, policy: nn.Module) -> None:
        raise RungError("arithmetic_evaluation tests a model and trains none: give its study `budget: {steps: 0}`")
