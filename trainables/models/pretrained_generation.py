"""Text from a causal language model of transformers: many prompts at once, with a cache of keys and values.

What is common to all models, and what "at once" changes, is in `continuation.py`. Prompts are padded at the left, and
positions begin behind the padding. In place of `generate`, since that goes on with finished rows until the last one
has ended, computes a prompt once for each response, copies the cache for every token, and forgets with which
probability a token was drawn.

Shape suffixes: B rows, C columns (padding, prompt and new tokens), H heads, S positions, E width of a head.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from trainables.models.continuation import Reader, write
from trainables.models.key_value_cache import KeyValueCache
from trainables.models.sampling import Sampler
from trainables.models.snapshot import of_pretrained, product_type
from trainables.models.snapshot_reader import SnapshotReader
from trainables.rl.policy import Written


def write_pretrained(
    model: PreTrainedModel,
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
    stop: Collection[int],
    forbidden: Collection[int] = (),
) -> list[list[Written]]:
    """`group` responses to each prompt, with the log-probability of each token.

    Arguments, results and errors are those of `write`, for a causal language model, with or without adapters. `stop`
    are its end tokens; `forbidden` should hold the padding token and those that begin a text, unless they are also end
    tokens: the gradient of a drawn padding token, whose embedding is zero, is about a thousand times too large.
    """
    return write(
        model,
        _reader(model),
        prompts,
        group=group,
        tokens=tokens,
        length=_length(model),
        sampler=Sampler(temperature, top_k, top_p, frozenset(forbidden)),
        seed=seed,
        numbers=numbers,
        batch_size=batch_size,
        stop=stop,
    )


class PretrainedReader:
    """A causal language model as a `Reader`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        embedding = model.get_input_embeddings().weight
        self.device, self.vocabulary = embedding.device, embedding.shape[0]

    def begin(self, padding: Sequence[int], columns: int) -> None:
        """See `Reader`."""
        self.read = 0
        self.padding_B1 = torch.tensor(padding, device=self.device)[:, None]
        self.is_padded = max(padding) > 0
        self.column_C = torch.arange(columns, device=self.device)
        self.cache = DynamicCache(config=self.model.config)
        # The last column is chosen, and not looked at. Layers of other kinds (sliding windows) stay as they are.
        self.cache.layers = [
            _Layer(columns - 1) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]

    def logits(self, tokens_BC: torch.Tensor) -> torch.Tensor:
        """See `Reader`."""
        known, self.read = self.read, tokens_BC.shape[1]
        position_BS, mask_BC = self.column_C[None, known : self.read], None
        if self.is_padded:
            position_BS = (position_BS - self.padding_B1).clamp(min=0)
            mask_BC = (self.column_C[: self.read] >= self.padding_B1).long()
        output = self.model(
            input_ids=tokens_BC[:, known:],
            position_ids=position_BS,
            attention_mask=mask_BC,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def keep(self, rows: torch.Tensor) -> None:
        """See `Reader`."""
        self.padding_B1 = self.padding_B1[rows]
        self.cache.batch_select_indices(rows)


class _Layer(DynamicLayer):
    """Keys and values of one layer in memory that grows now and then, where transformers' own is copied every time."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.memory = KeyValueCache(length)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Keys and values (B, H, S, E) of all positions, given those of new ones."""
        self.is_initialized = True
        self.keys, self.values = self.memory.extend(0, key_states, value_states)
        self.memory.filled = self.keys.shape[2]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.memory.filled

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.memory.keep(indices)
        self.keys = self.values = None


def _reader(model: PreTrainedModel) -> Reader:
    """The quickest that reads this model."""
    dtype = product_type(model)
    snapshot = None if dtype is None else of_pretrained(model, dtype)
    return PretrainedReader(model) if snapshot is None else SnapshotReader(snapshot)


def _length(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config(decoder=True).max_position_embeddings)
