"""Text from a decoder: many prompts at once, with a cache of keys and values.

Every row is what it would be alone, up to rounding: rows do not see each other, and each draws from a generator of its
own. "Up to rounding" because torch sums in another order for other shapes (about 1e-6 of a logit in fp32), which
changes a token only where two are that close. The same holds with and without the cache.

Leaves out beam search and cutting rows off at different numbers of tokens.

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
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: Collection[int] = (),
    forbidden: Collection[int] = (),
    seed: int = 0,
    first_row: int = 0,
    use_cache: bool = True,
) -> list[list[int]]:
    """Continues every prompt.

    Past the model's length it sees the last `length` tokens, as nanoGPT does: then every new token costs a pass over
    all of them, since all have moved. Rows are as long as the longest one, so put prompts of like length together.

    Args:
        model: evaluated as it is, in the precision around this call; its mode is restored.
        prompts: tokens of each row, at least one; B rows.
        max_new_tokens: tokens to add to each row.
        temperature, top_k, top_p: see `Sampler`; a temperature of 0 is greedy.
        stop: tokens after which a row is finished.
        forbidden: tokens that are never chosen.
        seed: row i draws from a generator made from (seed, first_row + i).
        first_row: number of the first row, for prompts that are generated in parts.
        use_cache: False computes every pass anew; for tests and measurements.

    Returns:
        The new tokens of each row, with the stop token as the last if one was met.

    Raises:
        RungError: an empty prompt, a token outside the vocabulary, a setting out of its range, or a model that has
            diverged.
    """
    sampler = Sampler(temperature, top_k, top_p, frozenset(forbidden))
    _check(model, prompts, max_new_tokens, stop, forbidden)
    if seed < 0:
        raise RungError(f"seed must be 0 or more, got {seed}")
    if not prompts or max_new_tokens == 0:
        return [[] for _ in prompts]
    rows = range(first_row, first_row + len(prompts))
    uniform_BT = uniform_numbers(seed, rows, max_new_tokens).to(model.embedding.weight.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _Generation(model, prompts, max_new_tokens, use_cache).run(sampler, uniform_BT, stop)
    finally:
        model.train(training)


def _check(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Collection[int],
    forbidden: Collection[int],
) -> None:
    if max_new_tokens < 0:
        raise RungError(f"max_new_tokens must be 0 or more, got {max_new_tokens}")
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

    def __init__(self, model: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int, use_cache: bool) -> None:
        device = model.embedding.weight.device
        seen = [list(prompt)[-model.length :] for prompt in prompts]
        self.model = model
        self.begin = self.end = max(map(len, seen))
        padding = [self.begin - len(row) for row in seen]
        self.padding_B, self.most_padding = torch.tensor(padding, device=device), max(padding)
        self.tokens_BC = torch.zeros(len(seen), self.begin + max_new_tokens, dtype=torch.int64, device=device)
        filled = [[0] * count + row for count, row in zip(padding, seen, strict=True)]
        self.tokens_BC[:, : self.begin] = torch.tensor(filled, device=device)
        self.cache: KeyValueCache | None = None
        if use_cache:
            columns = min(self.tokens_BC.shape[1] - 1, model.length)  # the last token is chosen, and not looked at
            self.cache = KeyValueCache(columns)
        self.results: list[list[int]] = [[] for _ in seen]
        self.rows = torch.arange(len(seen), device=device)
        """Which rows are still in the batch."""

    def run(self, sampler: Sampler, uniform_BT: torch.Tensor, stop: Collection[int]) -> list[list[int]]:
        """The new tokens of every row."""
        is_finished_B = torch.zeros_like(self.rows, dtype=torch.bool)
        stop_tokens = torch.tensor(sorted(stop), dtype=torch.int64, device=self.rows.device)
        for step in range(uniform_BT.shape[1]):
            logits_BV = self._logits()
            if step == 0 and not logits_BV.isfinite().all():
                raise RungError("the model's logits are not finite, so there is nothing to choose: it has diverged")
            chosen_B = sampler.choose(logits_BV, uniform_BT[self.rows, step])
            self.tokens_BC[:, self.end] = chosen_B
            self.end += 1
            if stop:
                is_finished_B |= torch.isin(chosen_B, stop_tokens)
                finished = int(is_finished_B.sum())
                if finished == len(self.rows):
                    break
                if finished >= FINISHED_SHARE * len(self.rows):
                    self._leave(is_finished_B)
                    is_finished_B = is_finished_B[~is_finished_B]
        self._leave(torch.ones_like(is_finished_B))
        return [_until(new, stop) for new in self.results]

    def _logits(self) -> torch.Tensor:
        """Logits (B, V) of the next column."""
        begin = max(0, self.end - self.model.length)
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
        if self.cache is not None:
            self.cache.keep(staying)


def _until(tokens: list[int], stop: Collection[int]) -> list[int]:
    """The tokens up to the first stop token, and with it."""
    for position, token in enumerate(tokens):
        if token in stop:
            return tokens[: position + 1]
    return tokens
