"""What run_grpo_training is about to do: all is read, checked and fits together, and nothing has been written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

from rung.errors import RungError
from rung.trainable import Loss, Workload
from trainables.arithmetic.corpus_config import CorpusConfig
from trainables.arithmetic.corpus_file import read_parts
from trainables.arithmetic.generator import Item
from trainables.arithmetic.grpo_config import ArithmeticGrpoConfig
from trainables.arithmetic.grpo_problems import ItemStream, validation_items
from trainables.arithmetic.grpo_settings import GENERATED, GrpoSettings
from trainables.arithmetic.grpo_trainable import ArithmeticGrpo
from trainables.arithmetic.model_folder import find_model, load_tokenizer
from trainables.arithmetic.model_settings import ModelSettings
from trainables.arithmetic.questions import item_of
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.training_folder import STEP, Measures, entries
from trainables.arithmetic.training_plan import Plan, refuse_another_shape
from trainables.language.command_line import choose_device
from trainables.language.metrics_csv import Row
from trainables.rl.problems import Timetable

Items = Sequence[Item]

ANSWERS = Measures(
    steps={
        "policy_loss": "batch/policy_loss",
        "kl_divergence": "batch/kl",
        "total_loss": "batch/loss",
        "avg_reward": "batch/rewards/mean",
        "reward_rate": "batch/rewards/exact",
        "flat_groups": "batch/flat_groups",
        "generated_tokens": "batch/response_tokens",
        "entropy": "batch/entropy",
        "gradient_norm": "gradient_norm",
    },
    evaluated={
        "val_reward_rate": "validation/reward_rate",
        "val_parse_success": "validation/parse_success",
        "val_step_accuracy": "validation/step_accuracy",
        "val_generated_tokens": "validation/generated_tokens",
    },
    mode="max",
    log="grpo_training_log.json",
)
"""What is written down of such a run."""


class FileArithmeticGrpo(ArithmeticGrpo):
    """One run on expressions from anywhere.

    Args:
        config: the configuration; what it says about corpus and tokenizer is not looked at.
        seed: of the run.
        device: a torch device name.
        tokenizer: in place of the configuration's.
        asked: expressions that it learns from, valid ones.
        held_out: those that it is evaluated on, likewise.
    """

    def __init__(
        self,
        config: ArithmeticGrpoConfig,
        seed: int,
        device: str = "cpu",
        *,
        tokenizer: Tokenizer,
        asked: Items,
        held_out: Items,
    ) -> None:
        super().__init__(config, seed, device)
        self._tokenizer, self._asked, self._examined = tokenizer, asked, held_out

    @classmethod
    def workload(cls, config: ArithmeticGrpoConfig) -> Workload:  # type: ignore[override]
        """Nothing: a configuration does not know the expressions. A run of this class counts its budget in steps."""
        return Workload(parameters=0, tokens_per_step=0, flops_per_step=0.0)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The one that was given."""
        return self._tokenizer

    def asked(self) -> Items:
        """Those that were given."""
        return self._asked

    def held_out(self) -> Items:
        """Those that were given, as many as `evaluation_items`."""
        return self._examined[: self.config.evaluation_items]

    def loss(self, model: Any, batch: Any) -> Loss:
        """The loss, also as a metric, so that the recorder sees that of every step."""
        loss = super().loss(model, batch)
        return replace(loss, metrics={"policy_loss": loss.value, **loss.metrics, "loss": loss.value})


@dataclass(frozen=True)
class GrpoPlan(Plan):
    """A run of run_grpo_training."""

    measures: ClassVar[Measures] = ANSWERS

    def log(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """An entry for each `log_every` steps."""
        found = entries(rows, self._log_every, self.measures)
        seconds = [0.0, *(entry["wall_seconds"] or 0.0 for entry in found)]
        steps = [0, *(entry[STEP] for entry in found)]
        return [
            {
                "epoch": entry[STEP] / self.steps_per_epoch,
                **entry,
                "step_time": (seconds[index + 1] - seconds[index]) / (steps[index + 1] - steps[index]),
            }
            for index, entry in enumerate(found)
        ]

    def shown(self, row: Row) -> str:
        """An evaluation in a line."""
        right, parsed = row["val_reward_rate"], row["val_parse_success"]
        if right is None or parsed is None:
            return "the model has diverged"
        return f"validation reward rate {100 * right:.1f} %, with a result {100 * parsed:.1f} %"

    def say_step(self, rows: Sequence[Row]) -> None:
        """A line for each `log_every` steps."""
        step = int(rows[-1][STEP] or 0)
        if step % self._log_every == 0:
            entry = entries(rows[-2 * self._log_every :], self._log_every, self.measures)[-1]
            rate, flat, length = (entry[name] or 0.0 for name in ("reward_rate", "flat_groups", "generated_tokens"))
            print(
                f"step {step:,}: reward rate {100 * rate:.1f} %, {100 * flat:.0f} % of the groups without a signal, "
                f"{length:.0f} tokens an answer",
                flush=True,
            )

    @property
    def _log_every(self) -> int:
        assert isinstance(self.settings, GrpoSettings)
        return self.settings.log_every


def plan(settings: GrpoSettings, model: ModelSettings | None) -> GrpoPlan:
    """Reads what is to be asked, and checks that everything belongs together.

    Args:
        settings: of the command.
        model: its shape; None: that of the checkpoint, which it must be anyway.

    Raises:
        RungError: something is not there, or does not fit.
        StorageError: a file cannot be read.
    """
    device = choose_device(settings.device)
    start = find_model(settings.checkpoint, device)
    tokenizer = load_tokenizer(start, settings.checkpoint, settings.tokenizer)
    config = ArithmeticGrpoConfig(
        model=start.config.model.model_copy(update={"dropout": 0.0}),
        context=start.config.context,
        format=start.config.format,
        corpus=_drawn_from(settings),
        **settings.to_values(),
    )
    if model is not None:
        refuse_another_shape(settings, model.to_config(), start.config)
    asked, held_out = _items(settings, config)
    trainable = FileArithmeticGrpo(config, settings.seed, device, tokenizer=tokenizer, asked=asked, held_out=held_out)
    steps = Timetable(len(asked), config.rollout).steps_per_epoch
    assert steps is not None
    return GrpoPlan(settings, trainable, start, steps_per_epoch=steps, items=len(asked), held_out=len(held_out))


def _drawn_from(settings: GrpoSettings) -> CorpusConfig:
    return CorpusConfig(
        max_depth=settings.max_depth,
        smallest=settings.num_range_min,
        largest=settings.num_range_max,
        invalid_rate=0,
        seed=settings.seed,
    )


def _items(settings: GrpoSettings, config: ArithmeticGrpoConfig) -> tuple[Items, Items]:
    """What is learnt from, and what is held out."""
    if settings.corpus is None:
        stream = ItemStream(config, settings.seed)
        return [stream(number) for number in range(settings.num_samples or GENERATED)], validation_items(config)
    parts = read_parts(settings.corpus, settings.validation_fraction)
    asked, held_out = (
        [item for text in part if (item := item_of(text.expression)).answer is not None] for part in parts
    )
    if not asked or not held_out:
        raise RungError(f"{settings.corpus} has no valid expressions to learn from and to validate on")
    return list(islice(asked, settings.num_samples)), held_out
