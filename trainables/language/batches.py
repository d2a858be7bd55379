"""Windows of a token stream as batches: drawn at random for training, evenly spaced for evaluation.

A batch is a pure function of the tokens, a seed and the position in training, so that a resumed run reads on where it
stood. There is no loader and nothing is read ahead: a window is a copy of a few hundred bytes of mapped memory.

Shape suffixes: N windows, B rows of a batch, S positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from rung.errors import RungError
from trainables.language.tokens import Tokens

_WINDOWS = 2
"""The stream of random numbers that windows are drawn from, apart from others made from the same seed."""


@dataclass(frozen=True)
class Windows:
    """Some windows, ready for the model."""

    inputs_BS: torch.Tensor
    """What the model reads, int64."""
    targets_BS: torch.Tensor
    """The token after each position, int64."""
    weights_BS: torch.Tensor | None = None
    """What each target counts in the mean, float32. None: all count alike."""

    def __len__(self) -> int:
        return self.inputs_BS.shape[0]

    def at(self, rows: slice) -> Windows:
        """Some of the rows."""
        weights = None if self.weights_BS is None else self.weights_BS[rows]
        return Windows(self.inputs_BS[rows], self.targets_BS[rows], weights)


def row_parts(windows: Windows, count: int) -> Sequence[tuple[Windows, float]]:
    """Rows in `count` parts, at most as many as there are, as evenly as they divide.

    Each comes with its fraction of the whole, which is that of its targets.
    """
    rows = len(windows)
    cuts = [rows * part // count for part in range(count + 1)]
    parts = [windows.at(slice(begin, end)) for begin, end in pairwise(cuts)]
    if windows.weights_BS is None:
        return [(part, len(part) / rows) for part in parts]
    sums = [float(part.weights_BS.double().sum()) for part in parts if part.weights_BS is not None]
    whole = sum(sums)
    return [(part, each / whole if whole else len(part) / rows) for part, each in zip(parts, sums, strict=True)]


class WindowStream:
    """The stream of training batches: windows that begin anywhere, drawn independently of each other.

    Args:
        tokens: of the training split.
        batch_size: rows B.
        context: positions S.
        seed: of the draws.
        device: where the batches go.
        weights: what each token counts as a target, (len(tokens),). None: all count alike.
        starts: where windows may begin, ascending; None: anywhere.

    Raises:
        RungError: there is no room for a window.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        batch_size: int,
        context: int,
        seed: int,
        device: str = "cpu",
        weights: NDArray[np.generic] | None = None,
        starts: NDArray[np.integer] | None = None,
    ) -> None:
        self.tokens = tokens
        self.batch_size = batch_size
        self.context = context
        self.seed = seed
        self.device = device
        self.weights = weights
        self.starts = _fitting_starts(tokens, context, starts)

    def at(self, position: int, policy: torch.nn.Module | None = None) -> Windows:
        """The batch of optimizer step `position`, a pure function of it; `policy` plays no part."""
        draw = np.random.default_rng((self.seed, _WINDOWS, position))
        choices = len(self.tokens) - self.context if self.starts is None else len(self.starts)
        drawn = draw.integers(choices, size=self.batch_size)
        starts = drawn if self.starts is None else self.starts[drawn]
        return windows_at(self.tokens, starts, self.context, self.device, self.weights)


def windows_at(
    tokens: Tokens,
    starts: NDArray[np.int64],
    context: int,
    device: str,
    weights: NDArray[np.generic] | None = None,
) -> Windows:
    """The windows (N, context) that begin at `starts`, on a device; the other arguments are those of `WindowStream`."""
    rows = to_device(torch.from_numpy(tokens.windows(starts, context + 1)), device)
    if weights is None:
        return Windows(rows[:, :-1], rows[:, 1:])
    counted = weights[starts[:, None] + np.arange(1, context + 1)].astype(np.float32)
    return Windows(rows[:, :-1], rows[:, 1:], to_device(torch.from_numpy(counted), device))


def fixed_windows(
    tokens: Tokens,
    *,
    context: int,
    count: int,
    device: str = "cpu",
    weights: NDArray[np.generic] | None = None,
    starts: NDArray[np.integer] | None = None,
) -> Windows:
    """Windows evenly spaced over a split, with `count` positions together, or as many as it has: for evaluation.

    They do not overlap, unless `starts` are nearer to each other than `context`.

    Raises:
        RungError: there is no room for a window.
    """
    fitting = _fitting_starts(tokens, context, starts)
    room = (len(tokens) - 1) // context if fitting is None else len(fitting)
    wanted = min(room, max(1, count // context))
    last = len(tokens) - 1 - context if fitting is None else len(fitting) - 1
    spaced = np.linspace(0, last, wanted).astype(np.int64)
    return windows_at(tokens, spaced if fitting is None else fitting[spaced], context, device, weights)


def _fitting_starts(tokens: Tokens, context: int, starts: NDArray[np.integer] | None) -> NDArray[np.int64] | None:
    """The starts that leave room for a window and its last target."""
    last = len(tokens) - 1 - context
    fitting = None if starts is None else starts[starts <= last].astype(np.int64)
    if last < 0 or (fitting is not None and not len(fitting)):
        raise RungError(
            f"a split of {len(tokens):,} tokens has no room for a window of {context + 1} (context {context} and the "
            "token after it): make the context shorter, or take a longer text"
        )
    return fitting


def to_device(rows: torch.Tensor, device: str) -> torch.Tensor:
    """A tensor on a device; to a GPU from pinned memory without waiting, so that the copy overlaps with computing."""
    if torch.device(device).type == "cuda":
        return rows.pin_memory().to(device, non_blocking=True)
    return rows.to(device)
