"""Rows of tokens that a causal model continues, all by one column at a time, whatever the model is.

Every row is what it would be alone, up to rounding: rows do not see each other, and each draws from a generator of its
own. "Up to rounding" because torch sums in another order for other shapes (about 1e-6 of a logit in fp32), which
changes a token only where two are that close. Rows that have come to their end leave, and the others go on without
them; responses to the same prompt begin with one pass over it.

Leaves out beam search, and filling up the places of rows that have left.

Shape suffixes: B rows, C columns (padding, prompt and new tokens), P prompts, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import nn

from rung.errors import RungError
from trainables.models.sampling import Sampler, uniform_numbers
from trainables.rl.policy import Written

FINISHED_SHARE = 0.25
"""Share of finished rows from which on the others go on without them: leaving them behind copies the cache once."""


class Reader(Protocol):
    """A model that reads rows, and keeps of them what it needs for the next column."""

    device: torch.device
    vocabulary: int

    def begin(self, padding: Sequence[int], columns: int) -> None:
        """Starts with rows of which so many columns at the left are padding, and that have `columns` at most."""
        ...

    def logits(self, tokens_BC: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) of the token after the last column; columns that were given before are the same as then."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Goes on with these rows (int64 indices), of which one may come several times."""
        ...


class Continued(NamedTuple):
    """What a row has got."""

    tokens: list[int]
    """The new tokens, with the stop token as the last if one was met."""
    log_probabilities: list[float]
    """Of each of them, see `Sampler.log_probabilities`; empty if they were not asked for."""


class Continuation:
    """Rows that grow to the right.

    Args:
        reader: the model; it is begun here.
        prompts: tokens of each prompt, at least one.
        limits: most tokens to add to each row, B of them, not all 0.
        sources: which prompt each row begins with, B of them; None: row i with prompt i.
    """

    def __init__(
        self,
        reader: Reader,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        sources: Sequence[int] | None = None,
    ) -> None:
        every = list(range(len(prompts)) if sources is None else sources)
        rows = [row for row, limit in enumerate(limits) if limit > 0]
        read = list(dict.fromkeys(every[row] for row in rows))
        self.reader, device = reader, reader.device
        self.begin = self.end = max(len(prompts[prompt]) for prompt in every)
        columns = self.begin + max(limits)
        self.results = [Continued([], []) for _ in limits]
        self.limits = [limits[row] for row in rows]
        self.rows = torch.tensor(rows, dtype=torch.int64, device=device)
        """Which rows are still there."""
        padding = [self.begin - len(prompts[prompt]) for prompt in read]
        padded = [[0] * count + list(prompts[prompt]) for count, prompt in zip(padding, read, strict=True)]
        self.prompts_PC = torch.tensor(padded, dtype=torch.int64, device=device)
        self.sources_B = torch.tensor([read.index(every[row]) for row in rows], dtype=torch.int64, device=device)
        self.tokens_BC = torch.zeros(len(rows), columns, dtype=torch.int64, device=device)
        self.tokens_BC[:, : self.begin] = self.prompts_PC[self.sources_B]
        self.log_BT = torch.zeros(len(rows), max(limits), device=device)
        reader.begin(padding, columns)

    def run(
        self, sampler: Sampler, uniform_BT: torch.Tensor, stop: Collection[int], *, log_probabilities: bool = False
    ) -> list[Continued]:
        """What every row has got; `uniform_BT` has the numbers that it draws with."""
        is_finished_B, finished = torch.zeros_like(self.rows, dtype=torch.bool), 0
        stop_tokens = torch.tensor(sorted(stop), dtype=torch.int64, device=self.rows.device)
        while len(self.rows):
            step = self.end - self.begin
            logits_BV = self._logits()
            chosen_B = sampler.choose(logits_BV, uniform_BT[self.rows, step])
            if log_probabilities:
                self.log_BT[:, step] = sampler.log_probabilities(logits_BV, chosen_B)
            self.tokens_BC[:, self.end] = chosen_B
            self.end += 1
            if stop:
                is_finished_B |= torch.isin(chosen_B, stop_tokens)
                finished = int(is_finished_B.sum())
            if step + 1 == min(self.limits) or finished >= max(1, FINISHED_SHARE * len(self.rows)):
                is_finished_B |= torch.tensor([step + 1 == limit for limit in self.limits], device=self.rows.device)
                self._leave(is_finished_B, log_probabilities)
                is_finished_B, finished = is_finished_B[~is_finished_B], 0
        return [_until_stop(row, stop) for row in self.results]

    def _logits(self) -> torch.Tensor:
        """Logits (B, V) of the next column; after the first pass, which reads each prompt once, there are B rows."""
        if self.end > self.begin:
            return self.reader.logits(self.tokens_BC[:, : self.end])
        logits_PV = self.reader.logits(self.prompts_PC)
        if not logits_PV.isfinite().all():
            raise RungError("the model's logits are not finite, so there is nothing to choose: it has diverged")
        if self.sources_B.tolist() == list(range(len(logits_PV))):
            return logits_PV
        self.reader.keep(self.sources_B)
        return logits_PV[self.sources_B]

    def _leave(self, is_leaving_B: torch.Tensor, log_probabilities: bool) -> None:
        """Takes rows out of the batch, and what they have got into the results."""
        tokens = self.tokens_BC[is_leaving_B, self.begin : self.end].tolist()
        logs = self.log_BT[is_leaving_B, : self.end - self.begin].tolist()
        for row, new, log in zip(self.rows[is_leaving_B].tolist(), tokens, logs, strict=True):
            self.results[row] = Continued(new, log if log_probabilities else [])
        staying = (~is_leaving_B).nonzero()[:, 0]
        self.rows, self.tokens_BC, self.log_BT = (each[staying] for each in (self.rows, self.tokens_BC, self.log_BT))
        self.limits = [self.limits[row] for row in staying.tolist()]
        self.reader.keep(staying)


def write(
    model: nn.Module,
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    *,
    group: int,
    tokens: int,
    length: int,
    sampler: Sampler,
    seed: int,
    numbers: Sequence[int],
    batch_size: int | None,
    stop: Collection[int],
) -> list[list[Written]]:
    """`group` responses to each prompt, with the log-probability of each token (`Sampler.log_probabilities`).

    Response g to prompt i draws from a generator made from (seed, numbers[i] * group + g). Prompts of like length are
    written together.

    Args:
        model: evaluated as it is, in the precision around this call; its mode is restored.
        reader: reads with that model.
        prompts: tokens of each prompt, at least one.
        group: responses to each.
        tokens: most tokens of a response; fewer where the model's length leaves no room for them.
        length: most tokens that the model reads: those of prompt and response but the last.
        sampler: how tokens are chosen.
        seed, numbers: see above.
        batch_size: most responses that are written at once; None: all.
        stop: tokens after which a response has ended.

    Returns:
        Of each prompt its responses.

    Raises:
        RungError: a prompt that is empty or longer than the model, a token outside the vocabulary, or a model that has
            diverged.
    """
    check_tokens(reader.vocabulary, prompts, stop, sampler.forbidden)
    _check_lengths(prompts, length)
    limits = [min(tokens, length + 1 - len(prompt)) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda prompt: len(prompts[prompt]), reverse=True)
    asked = [(prompt, response) for prompt in order for response in range(group)]
    size = batch_size or max(len(asked), 1)
    written: dict[tuple[int, int], Written] = {}
    with writing(model):
        for begin in range(0, len(asked), size):
            rows = asked[begin : begin + size]
            sources, most = [prompt for prompt, _ in rows], [limits[prompt] for prompt, _ in rows]
            drawing = [numbers[prompt] * group + response for prompt, response in rows]
            uniform_BT = uniform_numbers(seed, drawing, tokens).to(reader.device)
            continued = Continuation(reader, prompts, most, sources).run(
                sampler, uniform_BT, stop, log_probabilities=True
            )
            for row, got in zip(rows, continued, strict=True):
                written[row] = Written(got.tokens, got.log_probabilities, got.tokens[-1] in stop)
    return [[written[prompt, response] for response in range(group)] for prompt in range(len(prompts))]


def _check_lengths(prompts: Sequence[Sequence[int]], length: int) -> None:
    for row, prompt in enumerate(prompts):
        if len(prompt) > length:
            raise RungError(
                f"prompt {row} has {len(prompt)} tokens: the model reads at most {length}. Ask shorter questions, with "
                "a shorter system prompt or fewer examples"
            )


@contextmanager
def writing(model: nn.Module) -> Iterator[None]:
    """Inside, a model has no dropout and no gradients; its mode is restored."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training:
            module.training = mode


def check_tokens(
    vocabulary: int, prompts: Sequence[Sequence[int]], stop: Collection[int], forbidden: Collection[int]
) -> None:
    """Refuses empty prompts, tokens outside the vocabulary, and that all tokens are forbidden."""
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise RungError(f"prompt {row} is empty: a model continues at least one token")
    named = {f"prompt {row}": prompt for row, prompt in enumerate(prompts)}
    for what, tokens in {**named, "stop": stop, "forbidden": forbidden}.items():
        wrong = [token for token in tokens if not 0 <= token < vocabulary]
        if wrong:
            raise RungError(f"{what}: tokens lie between 0 and {vocabulary - 1}, got {wrong[0]}")
    if len(set(forbidden)) == vocabulary:
        raise RungError(f"all {vocabulary} tokens are forbidden: leave at least one")


def until_stop(tokens: list[int], stop: Collection[int]) -> list[int]:
    """The tokens up to the first stop token, and with it."""
    for position, token in enumerate(tokens):
        if token in stop:
            return tokens[: position + 1]
    return tokens


def _until_stop(row: Continued, stop: Collection[int]) -> Continued:
    tokens = until_stop(row.tokens, stop)
    return Continued(tokens, row.log_probabilities[: len(tokens)])
