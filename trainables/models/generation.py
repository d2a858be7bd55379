"""Text from a decoder: many prompts at once, with a cache of keys and values.

What is common to all models, and what "at once" changes, is in `continuation.py`. With and without the cache a row is
the same up to rounding.

Shape suffixes: B rows, C columns (padding, prompt and new tokens), S those of them that are read, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from rung.errors import RungError
from trainables.models.continuation import Continuation, Reader, check_tokens, write, writing
from trainables.models.decoder import Decoder
from trainables.models.key_value_cache import KeyValueCache
from trainables.models.sampling import Sampler, uniform_numbers
from trainables.models.snapshot import of_decoder, product_type
from trainables.models.snapshot_reader import SnapshotReader
from trainables.rl.policy import Written


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    forbidden: Collection[int] = (),
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    use_cache: bool = True,
) -> list[list[int]]:
    """Continues every prompt.

    Past the model's length it sees the last `length` tokens, as nanoGPT does: then every new token costs a pass over
    all of them, since all have moved. Rows are as long as the longest one, so put prompts of like length together.

    Args:
        model: evaluated as it is, in the precision around this call; its mode is restored.
        prompts: tokens of each row, at least one; B rows.
        max_new_tokens: most tokens to add to each row, one number for all or one for each.
        temperature, top_k, top_p: see `Sampler`; a temperature of 0 is greedy.
        stop: tokens after which a row is finished.
        forbidden: tokens that are never chosen.
        seed: a row draws from a generator made from (seed, its number).
        numbers: of the rows, where prompts are generated in parts or in another order; None: 0, 1, 2, ...
        use_cache: False computes every pass anew; for tests and measurements.

    Returns:
        The new tokens of each row, with the stop token as the last if one was met.

    Raises:
        RungError: an empty prompt, a token outside the vocabulary, a setting out of its range, or a model that has
            diverged.
    """
    sampler = Sampler(temperature, top_k, top_p, frozenset(forbidden))
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(limits) != len(prompts):
        raise RungError(f"max_new_tokens has {len(limits)} numbers for {len(prompts)} prompts")
    if min(limits, default=0) < 0:
        raise RungError(f"max_new_tokens must be 0 or more, got {min(limits)}")
    check_tokens(model.vocabulary, prompts, stop, forbidden)
    if seed < 0:
        raise RungError(f"seed must be 0 or more, got {seed}")
    if max(limits, default=0) == 0:
        return [[] for _ in prompts]
    rows = range(len(prompts)) if numbers is None else numbers
    uniform_BT = uniform_numbers(seed, rows, max(limits)).to(model.embedding.weight.device)
    with writing(model):
        seen = [prompt[-model.length :] for prompt in prompts]
        continued = Continuation(DecoderReader(model, use_cache), seen, limits).run(sampler, uniform_BT, stop)
    return [row.tokens for row in continued]


def write_decoder(
    model: Decoder,
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

    Arguments, results and errors are those of `write`, for a decoder. A response also ends where the decoder has no
    room left for it: it reads prompt and response but the last token, without sliding.
    """
    return write(
        model,
        _reader(model),
        prompts,
        group=group,
        tokens=tokens,
        length=model.length,
        sampler=Sampler(temperature, top_k, top_p, frozenset(forbidden)),
        seed=seed,
        numbers=numbers,
        batch_size=batch_size,
        stop=stop,
    )


def _reader(model: Decoder) -> Reader:
    """The quickest that reads this model within its length."""
    dtype = product_type(model)
    snapshot = None if dtype is None else of_decoder(model, dtype)
    return DecoderReader(model) if snapshot is None else SnapshotReader(snapshot)


class DecoderReader:
    """A decoder as a `Reader`: past its length it sees the last `length` tokens of each row.

    Args:
        model: the decoder.
        use_cache: False computes every pass anew.
    """

    def __init__(self, model: Decoder, use_cache: bool = True) -> None:
        self.model, self.use_cache = model, use_cache
        self.device, self.vocabulary = model.embedding.weight.device, model.vocabulary
        self.cache: KeyValueCache | None = None

    def begin(self, padding: Sequence[int], columns: int) -> None:
        """See `Reader`."""
        self.padding, self.most_padding = list(padding), max(padding)
        self.padding_B = torch.tensor(self.padding, device=self.device)
        if self.use_cache:  # the last column is chosen, and not looked at
            self.cache = KeyValueCache(min(columns - 1, self.model.length + self.most_padding))

    def logits(self, tokens_BC: torch.Tensor) -> torch.Tensor:
        """See `Reader`."""
        length, end = self.model.length, tokens_BC.shape[1]
        # A row begins behind its padding, so there may be more columns than the longest row has tokens.
        begin = 0 if end - min(self.padding) <= length else end - length
        cache = self.cache if begin == 0 else None  # past the model's length all positions have moved
        known = 0 if cache is None else cache.filled
        padding_B = (self.padding_B - begin).clamp(min=0) if self.most_padding > begin else None
        hidden_BSD = self.model.hidden_states(tokens_BC[:, begin + known :], cache=cache, padding_B=padding_B)
        logits_BV: torch.Tensor = self.model.classifier(hidden_BSD[:, -1])
        return logits_BV

    def keep(self, rows: torch.Tensor) -> None:
        """See `Reader`."""
        self.padding_B, self.padding = self.padding_B[rows], [self.padding[row] for row in rows.tolist()]
        if self.cache is not None:
            self.cache.keep(rows)
