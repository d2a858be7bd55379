"""Greedy generation where there is a guess of what will be written: one pass over the guess, and the rest as usual.

A pass over a whole guess tells for each of its tokens whether the model would have chosen it after those before it. As
far as it would, the guess is what the model writes; from the first other token on, it writes by itself. That is greedy
speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) with a draft from outside. What comes out is what
`generation.generate` writes, up to rounding; it only takes less time, the less the better the guess.

Shape suffixes: B rows, S positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from rung.errors import RungError
from trainables.models.continuation import until_stop
from trainables.models.decoder import Decoder
from trainables.models.generation import generate

Rows = list[list[int]]

CHECKED_AT_ONCE = 16
"""Most rows in a pass over drafts: whole sequences keep a processor busy, and fewer rows have less padding."""


def generate_with_drafts(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    *,
    max_new_tokens: Sequence[int],
    batch_size: int,
    stop: Collection[int] = (),
    forbidden: Collection[int] = (),
    on_batch: Callable[[int], None] = lambda finished: None,
) -> Rows:
    """Continues every prompt greedily.

    Args:
        model: evaluated as it is, in the precision around this call; its mode is restored.
        prompts: tokens of each row, at least one; those of like length together.
        drafts: what each row will probably be, its stop token included; may be empty.
        max_new_tokens: of each row; prompt and new tokens but the last have room in the model.
        batch_size: rows at once.
        stop: tokens after which a row is finished.
        forbidden: tokens that are never chosen.
        on_batch: told after each batch how many rows are finished.

    Returns:
        The new tokens of each row, with the stop token as the last if one was met.

    Raises:
        RungError: as `generate`.
    """
    written: Rows = [[] for _ in prompts]
    open_rows: list[int] = []
    for rows in _batches(range(len(prompts)), min(batch_size, CHECKED_AT_ONCE)):
        pairs = [(prompts[row], drafts[row][: max_new_tokens[row]]) for row in rows]
        for row, chosen in zip(rows, _agreed(model, pairs, forbidden), strict=True):
            written[row] = until_stop(chosen, stop)
            if len(written[row]) < max_new_tokens[row] and not (chosen and written[row][-1] in stop):
                open_rows.append(row)
        on_batch(rows[-1] + 1 - len(open_rows))
    left = len(open_rows)
    for rows in _batches(open_rows, batch_size):
        rest = generate(
            model,
            [[*prompts[row], *written[row]] for row in rows],
            max_new_tokens=[max_new_tokens[row] - len(written[row]) for row in rows],
            temperature=0.0,
            stop=stop,
            forbidden=forbidden,
        )
        for row, more in zip(rows, rest, strict=True):
            written[row] = [*written[row], *more]
        left -= len(rows)
        on_batch(len(prompts) - left)
    return written


def _batches(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))


def _agreed(model: Decoder, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], forbidden: Collection[int]) -> Rows:
    """Of each prompt and draft, what the model writes up to where it leaves the draft, its own token included."""
    training, drafted = model.training, [pair for pair in pairs if pair[1]]
    model.eval()
    try:
        with torch.no_grad():
            chosen = iter(_chosen(model, drafted, forbidden) if drafted else [])
    finally:
        model.train(training)
    rows: Rows = []
    for _, draft in pairs:
        own = next(chosen) if draft else []
        same = next((place for place, token in enumerate(draft) if own[place] != token), len(draft))
        rows.append([*draft[:same], *own[same : same + 1]])
    return rows


def _chosen(model: Decoder, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], forbidden: Collection[int]) -> Rows:
    """The likeliest token at every place of the drafts, given the prompt and the draft before it."""
    device = model.embedding.weight.device
    read = [[*prompt, *draft[:-1]] for prompt, draft in pairs]  # the last token is chosen, and not looked at
    longest = max(map(len, read))
    # Padding stands behind, where a causal model does not look.
    tokens_BS = torch.tensor([row + [0] * (longest - len(row)) for row in read], device=device)
    hidden_BSD = model.hidden_states(tokens_BS)
    chosen: Rows = []
    for hidden_SD, (prompt, draft) in zip(hidden_BSD, pairs, strict=True):
        logits_SV = model.classifier(hidden_SD[len(prompt) - 1 : len(prompt) - 1 + len(draft)]).float()
        if not logits_SV.isfinite().all():
            raise RungError("the model's logits are not finite, so there is nothing to choose: it has diverged")
        if forbidden:
            logits_SV = logits_SV.index_fill(1, torch.tensor(sorted(forbidden), device=device), -math.inf)
        chosen.append(logits_SV.argmax(-1).tolist())
    return chosen
