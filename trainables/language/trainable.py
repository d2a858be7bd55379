"""What a family of language models derives from: model, batches, loss, evaluation and generation over token windows.

A family says where its tokens are (`tokens`), how many different ones there are (`vocabulary`) and how they become
text (`codec`); `weights` and `starts` serve families in which not every token is learnt. Importing this module does
not import torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from rung.errors import RungError
from rung.trainable import Loss, Metric, Sampling, Trainable, Workload
from trainables.language.codec import Codec
from trainables.language.config import LanguageConfig
from trainables.language.tokens import Split, Tokens
from trainables.models.decoder_config import flops_per_token, parameter_count

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from trainables.language.batches import Windows, WindowStream

LanguageConfigT = TypeVar("LanguageConfigT", bound=LanguageConfig)

SPLITS: tuple[Split, ...] = ("train", "validation")


class LanguageTrainable(Trainable[LanguageConfigT, "Windows"]):
    """A decoder that learns the next token of a text.

    `evaluate` reports the mean loss over fixed windows of both splits and the perplexity of the validation text.
    """

    # What a family answers.

    @classmethod
    @abstractmethod
    def vocabulary(cls, config: LanguageConfigT) -> int:
        """Different tokens. Asked without torch and without data."""

    @abstractmethod
    def tokens(self, split: Split) -> Tokens:
        """The token ids of a split."""

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """Text to tokens and back."""

    def weights(self, split: Split) -> NDArray[np.generic] | None:
        """What each token of a split counts as a target, (tokens,); None: all count alike."""
        return None

    def evaluation_weights(self, split: Split) -> NDArray[np.generic] | None:
        """The same for the fixed windows that a split is evaluated on."""
        return self.weights(split)

    def starts(self, split: Split) -> NDArray[np.integer] | None:
        """Where windows of a split may begin, ascending; None: anywhere."""
        return None

    # What follows from it.

    @classmethod
    def metrics(cls, config: LanguageConfigT) -> Mapping[str, Metric]:
        """`train/loss`, `validation/loss` and `validation/perplexity`."""
        slices = "evenly spaced windows, the same in every run"
        return {
            "train/loss": Metric("min", f"mean negative log-likelihood of training tokens, nats, over {slices}"),
            "validation/loss": Metric("min", f"mean negative log-likelihood of validation tokens, nats, over {slices}"),
            "validation/perplexity": Metric("min", "exp of validation/loss"),
        }

    @classmethod
    def workload(cls, config: LanguageConfigT) -> Workload:
        """Backward costs twice what forward does (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""
        vocabulary, tokens = cls.vocabulary(config), config.batch_size * config.context
        forward = flops_per_token(config.model, vocabulary, config.context)
        return Workload(
            parameters=parameter_count(config.model, vocabulary, config.context),
            tokens_per_step=tokens,
            flops_per_step=3.0 * tokens * forward,
            evaluation_flops=2.0 * config.evaluation_tokens * forward,
        )

    @classmethod
    def packing_obstacle(cls, config: LanguageConfigT) -> str | None:
        """Dropout masks come from each run's own generator, one mask at a time."""
        return None if config.model.dropout == 0 else "dropout draws its masks run by run"

    @classmethod
    def splitting_obstacle(cls, config: LanguageConfigT, parts: int) -> str | None:
        """A part is one window at least."""
        return None if parts <= config.batch_size else _too_many_parts(config.batch_size, parts)

    def model(self, generator: torch.Generator) -> nn.Module:
        """A `Decoder` on the device of `generator`."""
        from trainables.models.decoder import Decoder

        model: nn.Module = Decoder(
            self.config.model,
            vocabulary=self.vocabulary(self.config),
            length=self.config.context,
            generator=generator,
        )
        return model

    def batches(self) -> WindowStream:
        """Random windows of the training split."""
        from trainables.language.batches import WindowStream

        config = self.config
        return WindowStream(
            self.tokens("train"),
            batch_size=config.batch_size,
            context=config.context,
            seed=self.seed if config.data_seed is None else config.data_seed,
            device=self.device,
            weights=self.weights("train"),
            starts=self.starts("train"),
        )

    def loss(self, model: nn.Module, batch: Windows) -> Loss:
        """Mean over the targets of the batch."""
        from trainables.language.losses import language_loss

        return Loss(language_loss(model(batch.inputs_BS), batch), tokens=batch.inputs_BS.numel())

    def parts(self, batch: Windows, count: int) -> Sequence[tuple[Windows, float]]:
        """Rows, as evenly as they divide; a part counts as much as its targets do."""
        from trainables.language.batches import row_parts

        if count > len(batch):
            raise RungError(_too_many_parts(len(batch), count))
        return row_parts(batch, count)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The fixed windows of both splits, in chunks; sums are kept in float64."""
        from trainables.language.evaluation import mean_loss, perplexity

        rows = self.config.evaluation_batch_size
        metrics = {f"{split}/loss": mean_loss(model, self.fixed_windows[split], rows) for split in SPLITS}
        metrics["validation/perplexity"] = perplexity(metrics["validation/loss"])
        return metrics

    @cached_property
    def fixed_windows(self) -> dict[Split, Windows]:
        """What each split is evaluated on."""
        from trainables.language.batches import fixed_windows

        return {
            split: fixed_windows(
                self.tokens(split),
                context=self.config.context,
                count=self.config.evaluation_tokens,
                device=self.device,
                weights=self.evaluation_weights(split),
                starts=self.starts(split),
            )
            for split in SPLITS
        }

    def complete(self, model: nn.Module, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the model writes after each prompt, up to the end of a document or `sampling.tokens` tokens."""
        codec = self.codec
        encoded = [codec.encode(prompt) or self._beginning() for prompt in prompts]
        rows = self.continuations(model, encoded, sampling, codec.end)
        return [codec.decode(row[:-1] if row and row[-1] == codec.end else row) for row in rows]

    def _beginning(self) -> list[int]:
        """What stands before a text that has no prompt."""
        if self.codec.end is None:
            raise RungError("an empty prompt gives the model nothing to begin with: write at least one character")
        return [self.codec.end]

    @staticmethod
    def continuations(
        model: nn.Module, prompts: Sequence[Sequence[int]], sampling: Sampling, end: int | None
    ) -> list[list[int]]:
        """The tokens that the model writes after each prompt, up to and with the token `end`, if there is one."""
        from trainables.models.generation import generate

        rows: list[list[int]] = generate(
            model,
            prompts,
            max_new_tokens=sampling.tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            stop=() if end is None else (end,),
            seed=sampling.seed,
        )
        return rows


def _too_many_parts(windows: int, parts: int) -> str:
    return (
        f"a batch of {windows} windows cannot be split into {parts} parts (workers x accumulation): raise batch_size, "
        "or take fewer"
    )
