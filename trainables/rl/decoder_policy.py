"""How rung's own decoder is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from trainables.models.decoder import Decoder
from trainables.models.generation import write_decoder
from trainables.rl.policy import Written
from trainables.rl.reference import reference_policy


class DecoderPolicy:
    """See `Policy`.

    Args:
        end: the token that ends a response.
        decode: from tokens to text.
        pad: fills rows up; never drawn unless it is `end`.
        forbidden: further tokens that are never drawn.
    """

    def __init__(
        self, *, end: int, decode: Callable[[Sequence[int]], str], pad: int = 0, forbidden: Collection[int] = ()
    ) -> None:
        self.end = end
        self.pad = pad
        self._decode = decode
        self._forbidden = {pad, *forbidden} - {end}

    def logits(self, model: nn.Module, tokens_BS: torch.Tensor, first: int) -> torch.Tensor:
        """See `Policy`."""
        logits_BSV: torch.Tensor = model(tokens_BS)
        return logits_BSV[:, first:]

    def write(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        group: int,
        tokens: int,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        seed: int,
        numbers: Sequence[int],
        batch_size: int | None,
    ) -> list[list[Written]]:
        """See `Policy`. A response that the decoder has no room for is cut off there.

        Raises:
            RungError: as `write_decoder`.
        """
        assert isinstance(model, Decoder)
        written: list[list[Written]] = write_decoder(
            model,
            prompts,
            group=group,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            numbers=numbers,
            batch_size=batch_size,
            stop=(self.end,),
            forbidden=self._forbidden,
        )
        return written

    def reference(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """See `Policy`."""
        return reference_policy(model)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Policy`."""
        return self._decode(tokens[:-1] if tokens and tokens[-1] == self.end else tokens)
