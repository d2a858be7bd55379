"""Expressions worked out step by step, as a trainable.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.trainable import Generation, Loss, Metric, Sampling, Trainable, Workload
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.preparation import ensure_sequences, ensure_tokenizer
from trainables.arithmetic.sequences import Sequences, fitting
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import expression_of, verify
from trainables.language.tokens import Split

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.arithmetic.batches import SequenceStream
    from trainables.arithmetic.examination import Examination
    from trainables.language.batches import Windows

SHOWN = 5
"""Solutions that are recorded while a model learns."""


class Arithmetic(Trainable[ArithmeticConfig, "Windows"]):
    """A decoder that learns to work out expressions.

    Corpus, tokenizer and token ids are a function of the configuration, so there are no data files to record.
    What it reads can come from elsewhere: a derived class says so with `tokenizer` and `sequences`.
    """

    Config: ClassVar[type[TrainableConfig]] = ArithmeticConfig

    @classmethod
    def metrics(cls, config: ArithmeticConfig) -> Mapping[str, Metric]:
        """Of validation items, which are none that are trained on."""
        learnt = "solutions, given the problems" if config.mode == "instruction" else "problems and solutions"
        return {
            "validation/loss": Metric("min", f"mean negative log-likelihood of the tokens of {learnt}, nats"),
            "validation/token_accuracy": Metric(
                "max", "share of the tokens of solutions that are the likeliest after the right ones", worst=0
            ),
            "validation/trace_accuracy": Metric(
                "max",
                "share of items whose every token of the solution is the likeliest, so that greedy decoding writes it "
                "without a mistake; items longer than the context count as wrong",
                worst=0,
            ),
        }

    @classmethod
    def workload(cls, config: ArithmeticConfig) -> Workload:
        """Exact once the corpus has been made; an estimate from a few items before."""
        from trainables.arithmetic.workload import workload

        return workload(config)

    @classmethod
    def packing_obstacle(cls, config: ArithmeticConfig) -> str | None:
        """Dropout masks come from each run's own generator, one mask at a time."""
        drops = config.model.dropout or (config.adapter is not None and config.adapter.dropout)
        return "dropout draws its masks run by run" if drops else None

    @classmethod
    def splitting_obstacle(cls, config: ArithmeticConfig, parts: int) -> str | None:
        """None: parts that a small batch has no rows for count nothing."""
        return None

    @classmethod
    def prepare(cls, configs: Sequence[ArithmeticConfig], say: Callable[[str], None]) -> None:
        """Corpora, tokenizers and token ids; says what is too long, or raises RungError if that is too much."""
        told: set[str] = set()
        for config in configs:
            folder = ensure_sequences(config, say)
            note = fitting(Sequences.load(folder, "train"), config.context, config.most_cut).note
            if note is not None and note not in told:
                told.add(note)
                say(note)

    @classmethod
    def inherited(cls, config: Any) -> Mapping[str, Any]:
        """What the weights were trained with: model, tokenizer, format, context, and what they were trained on."""
        if not isinstance(config, ArithmeticConfig):
            raise RungError("what was trained there is no model of expressions (trainable: arithmetic)")
        values = config.model_dump(mode="json")
        tokenizer = values["tokenizer"] | {"corpus": values["tokenizer"]["corpus"] or values["corpus"]}
        names = ("model", "format", "context", "corpus")
        return {name: values[name] for name in names} | {"tokenizer": tokenizer}

    # What is read.

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return Tokenizer.load(ensure_tokenizer(self.config))

    def sequences(self, split: Split) -> Sequences:
        """All items of a split, however long."""
        return Sequences.load(ensure_sequences(self.config), split)

    # The four questions.

    def model(self, generator: torch.Generator) -> nn.Module:
        """A `Decoder` on the device of `generator`, with adapters if there are to be any."""
        from trainables.models.decoder import Decoder

        config = self.config
        model: nn.Module = Decoder(
            config.model, vocabulary=self.tokenizer.size, length=config.context, generator=generator
        )
        if config.adapter is not None:
            from trainables.models.lora import add_adapters

            add_adapters(model, config.adapter, generator)
        return model

    def begin_from(self, model: nn.Module, weights: Mapping[str, torch.Tensor], config: Any) -> None:
        """Takes the weights over; adapters that were trained there are merged into them first, and the reference policy
        that a run of `ArithmeticGrpo` carries along is left behind."""
        from trainables.models.lora import load_base, merged_weights
        from trainables.rl.reference import without_reference

        load_base(model, merged_weights(without_reference(weights), config.adapter))

    def batches(self) -> SequenceStream:
        """Items of the training split in random order, pass after pass."""
        from trainables.arithmetic.batches import SequenceStream

        config = self.config
        return SequenceStream(
            fitting(self.sequences("train"), config.context, config.most_cut).sequences,
            batching=config.batching,
            batch_size=config.batch_size,
            batch_tokens=config.batch_tokens,
            context=config.context,
            only_solutions=config.mode == "instruction",
            seed=self.seed if config.data_seed is None else config.data_seed,
            device=self.device,
        )

    def loss(self, model: nn.Module, batch: Windows) -> Loss:
        """Mean over the targets of the batch."""
        from trainables.language.losses import language_loss

        return Loss(language_loss(model(batch.inputs_BS), batch), tokens=batch.inputs_BS.numel())

    def parts(self, batch: Windows, count: int) -> Sequence[tuple[Windows, float]]:
        """Rows, as evenly as they divide; where there are fewer than parts, rows without targets are added."""
        from trainables.arithmetic.batches import with_rows
        from trainables.language.batches import row_parts

        return row_parts(with_rows(batch, count), count)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The first items of the validation split, in one forward pass."""
        return self.examination.metrics(model)

    @cached_property
    def examination(self) -> Examination:
        """What is evaluated on."""
        from trainables.arithmetic.examination import Examination

        config = self.config
        return Examination(
            self.sequences("validation").take(slice(config.evaluation_items)),
            context=config.context,
            only_solutions=config.mode == "instruction",
            batch_size=config.evaluation_batch_size,
            device=self.device,
        )

    # What it writes.

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """Solutions of a few validation items, with what is wrong in them."""
        from trainables.language.remembered import is_finite

        if not is_finite(model):
            return ()
        fits = self.examination.sequences
        chosen = [fits.of(index) for index in range(min(SHOWN, len(fits)))]
        prompts = [tokens[: fits.prompts[index]].tolist() for index, tokens in enumerate(chosen)]
        room = max(len(tokens) for tokens in chosen)
        written = self.continuations(model, prompts, Sampling(tokens=room, temperature=0.0))
        return [
            self._generation(prompt, response, tokens[len(prompt) :].tolist())
            for prompt, response, tokens in zip(prompts, written, chosen, strict=True)
        ]

    def _generation(self, prompt: list[int], response: list[int], right: list[int]) -> Generation:
        """A row of the table: 1 for a right result, and what is wrong in the steps."""
        asked, text, solution = (self.tokenizer.decode(tokens) for tokens in (prompt, response, right))
        expression = expression_of(asked)
        found = verify(expression, text)
        gold = verify(expression, solution).answer
        return Generation(asked, text, extracted=found.answer, gold=gold, reward=float(found.is_right))

    def complete(self, model: nn.Module, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the model writes after each prompt, up to its end or `sampling.tokens` tokens."""
        encoded = [[self.tokenizer.begin, *self.tokenizer.encode(prompt)] for prompt in prompts]
        return [self.tokenizer.decode(row) for row in self.continuations(model, encoded, sampling)]

    def solve(self, model: nn.Module, problem: str) -> str:
        """Steps and result of an expression, greedily, and what is wrong in them."""
        from trainables.arithmetic.solving import solve
        from trainables.models.decoder import Decoder

        assert isinstance(model, Decoder)
        return solve(model, self.tokenizer, self.config.format, problem)

    def continuations(self, model: nn.Module, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
        """The tokens that the model writes after each prompt, up to and with `<eos>`."""
        from trainables.language.trainable import LanguageTrainable

        return LanguageTrainable.continuations(model, prompts, sampling, self.tokenizer.end)
