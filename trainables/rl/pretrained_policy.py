"""Pretrained causal language models of transformers as a policy.

Shape suffixes: B rows, S positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from trainables.models.chat import Chat
from trainables.models.pretrained_generation import write_pretrained
from trainables.rl.policy import Written
from trainables.rl.reference import reference_policy


class PretrainedPolicy:
    """See `Policy`.

    Args:
        chat: the model's tokenizer; it says which tokens end a response, and which are never written.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.pad = chat.pad

    def logits(self, model: nn.Module, tokens_BS: torch.Tensor, first: int) -> torch.Tensor:
        """See `Policy`. Causal attention and no mask: what is filled up at the right changes nothing before it."""
        output = model(input_ids=tokens_BS, use_cache=False, logits_to_keep=tokens_BS.shape[1] - first)
        logits_BSV: torch.Tensor = output.logits
        return logits_BSV

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
        """See `Policy`."""
        return write_pretrained(
            cast(PreTrainedModel, model),
            prompts,
            group=group,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            numbers=numbers,
            batch_size=batch_size,
            stop=self._chat.ends,
            forbidden=self._chat.forbidden,
        )

    def reference(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """See `Policy`: the model with its adapters off, or the copy that one without adapters carries along."""
        return reference_policy(model)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Policy`."""
        return self._chat.decode(tokens)
