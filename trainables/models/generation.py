"""Text from a decoder: many prompts at once, with a cache of keys and values.

Every row is what it would be alone, up to rounding: rows do not see each other, and each draws from a generator of its
own. "Up to rounding" because torch sums in another order for other shapes (about 1e-6 of a logit in fp32), which
changes a token only where two are that close. The same holds with and without the cache.

Leaves out beam search.

Shape suffixes: B rows, C columns (padding, prompt and new tokens), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from rung.errors import RungError
from trainables.models.decoder import Decoder
from trainables.models.key_value_cache import KeyValueCache
from trainables.models.sampling import Sampler, uniform_numbers

FINISHED_SHARE = 0.25
"""Share of finished rows from which on the others go on without them: leaving them behind copies the cache once."""


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
    _check(model, prompts, limits, stop, forbidden)
    if seed < 0:
        raise RungError(f"seed must be 0 or more, got {seed}")
    if max(limits, default=0) == 0:
        return [[] for _ in prompts]
    rows = range(len(prompts)) if numbers is None else numbers
    uniform_BT = uniform_numbers(seed, rows, max(limits)).to(model.embedding.weight.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _Generation(model, prompts, limits, use_cache).run(sampler, uniform_BT, stop)
    finally:
        model.train(training)


def _check(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop: Collection[int],
    forbidden: Collection[int],
) -> None:
    if len(limits) != len(prompts):
        raise RungError(f"max_new_tokens has {len(limits)} numbers for {len(prompts)} prompts")
    if min(limits, default=0) < 0:
        raise RungError(f"max_new_tokens must be 0 or more, got {min(limits)}")
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise RungError(f"prompt {row} is empty: a decoder continues at least one token")
        _check_tokens(f"prompt {row}", prompt, model.vocabulary)
    _check_tokens("stop", stop, model.vocabulary)
    _check_tokens("forbidden", forbidden, model.vocabulary)
    if len(set(forbidden)) == model.vocabulary:
        raise RungError(f"all {model.vocabulary} tokens are forbidden: leave at least one")


def _check_tokens(what: str, tokens: Collection[int], vocabulary: int) -> None:
    wrong = [token for token in tokens if not 0 <= token < vocabulary]
    if wrong:
        raise RungError(f"{what}: tokens lie between 0 and {vocabulary - 1}, got {wrong[0]}")


class _Generation:
    """Rows of tokens that grow to the right, all by one column at a time."""

    def __init__(
        self, model: Decoder, prompts: Sequence[Sequence[int]], limits: Sequence[int], use_cache: bool
    ) -> None:
        device = model.embedding.weight.device
        seen = [list(prompt)[-model.length :] for prompt in prompts]
        self.model = model
        self.begin = self.end = max(map(len, seen))
        self.padding = [self.begin - len(row) for row in seen]
        self.padding_B, self.most_padding = torch.tensor(self.padding, device=device), max(self.padding)
        self.limits = list(limits)
        self.tokens_BC = torch.zeros(len(seen), self.begin + max(limits), dtype=torch.int64, device=device)
        filled = [[0] * count + row for count, row in zip(self.padding, seen, strict=True)]
        self.tokens_BC[:, : self.begin] = torch.tensor(filled, device=device)
        self.cache: KeyValueCache | None = None
        if use_cache:
            columns = self.tokens_BC.shape[1] - 1  # the last token is chosen, and not looked at
            self.cache = KeyValueCache(min(columns, model.length + self.most_padding))
        self.results: list[list[int]] = [[] for _ in seen]
        self.rows = torch.arange(len(seen), device=device)
        """Which rows are still in the batch."""

    def run(self, sampler: Sampler, uniform_BT: torch.Tensor, stop: Collection[int]) -> list[list[int]]:
        """The new tokens of every row."""
        is_finished_B, finished = torch.zeros_like(self.rows, dtype=torch.bool), 0
        stop_tokens = torch.tensor(sorted(stop), dtype=torch.int64, device=self.rows.device)
        while True:
            step = self.end - self.begin
            if step == min(self.limits) or finished >= max(1, FINISHED_SHARE * len(self.rows)):
                is_finished_B |= torch.tensor([step == limit for limit in self.limits], device=self.rows.device)
                self._leave(is_finished_B)
                is_finished_B, finished = is_finished_B[~is_finished_B], 0
            if not len(self.rows):
                return [until_stop(new, stop) for new in self.results]
            logits_BV = self._logits()
            if step == 0 and not logits_BV.isfinite().all():
                raise RungError("the model's logits are not finite, so there is nothing to choose: it has diverged")
            chosen_B = sampler.choose(logits_BV, uniform_BT[self.rows, step])
            self.tokens_BC[:, self.end] = chosen_B
            self.end += 1
            if stop:
                is_finished_B |= torch.isin(chosen_B, stop_tokens)
                finished = int(is_finished_B.sum())

    def _logits(self) -> torch.Tensor:
        """Logits (B, V) of the next column."""
        length = self.model.length
        # A row begins behind its padding, so there may be more columns than the longest row has tokens.
        begin = 0 if self.end - min(self.padding) <= length else self.end - length
        cache = self.cache if begin == 0 else None  # past the model's length all positions have moved
        known = 0 if cache is None else cache.filled
        padding_B = (self.padding_B - begin).clamp(min=0) if self.most_padding > begin else None
        window_BS = self.tokens_BC[:, begin + known : self.end]
        hidden_BSD = self.model.hidden_states(window_BS, cache=cache, padding_B=padding_B)
        logits_BV: torch.Tensor = self.model.classifier(hidden_BSD[:, -1])
        return logits_BV

    def _leave(self, is_leaving_B: torch.Tensor) -> None:
        """Takes rows out of the batch, and their new tokens into the results."""
        leaving = self.tokens_BC[is_leaving_B, self.begin : self.end].tolist()
        for row, new in zip(self.rows[is_leaving_B].tolist(), leaving, strict=True):
            self.results[row] = new
        staying = (~is_leaving_B).nonzero()[:, 0]
        self.rows, self.tokens_BC, self.padding_B = (
            each[staying] for each in (self.rows, self.tokens_BC, self.padding_B)
        )
        kept = staying.tolist()
        self.padding, self.limits = [self.padding[row] for row in kept], [self.limits[row] for row in kept]
        if self.cache is not None:
            self.cache.keep(staying)


def until_stop(tokens: list[int], stop: Collection[int]) -> list[int]:
    """The tokens up to the first stop token, and with it."""
    for position, token in enumerate(tokens):
        if token in stop:
            return tokens[: position + 1]
    return tokens
