"""What a policy is asked, and which of it at which step. Imports no torch.

An epoch takes every problem once, in an order drawn from (seed, epoch). The last rollout of an epoch has the problems
that are left, if that is fewer; then it serves as many minibatches as it has problems, if that is fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError
from trainables.rl.config import ObjectiveConfig, RolloutConfig

_ORDER = 4
"""The stream of random numbers that epochs are drawn from, apart from others made from the same seed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What the policy is asked."""

    tokens: Sequence[int]
    """The prompt as the model reads it, at least one token."""
    prompt: str
    """The prompt as text."""
    answer: str
    """What a reward compares with."""


Problems = Sequence[Problem] | Callable[[int], Problem]
"""A set of problems, or an endless stream of them: from the number of a problem (0, 1, 2, ...) to the problem."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an optimizer step learns from."""

    rollout: int
    """Number of the rollout (0, 1, 2, ...)."""
    step: int
    """Which of the rollout's steps this is."""
    minibatches: int
    """Into how many the rollout is dealt out."""
    is_last: bool
    """Whether no later step learns from it."""

    @property
    def minibatch(self) -> int:
        """Which of them this step learns from."""
        return self.step % self.minibatches

    def share(self, whole: int) -> int:
        """This minibatch's share of a number, so that those of all add up to it."""
        return whole * (self.minibatch + 1) // self.minibatches - whole * self.minibatch // self.minibatches


@dataclass(frozen=True)
class Timetable:
    """From optimizer steps to rollouts and problems."""

    problems: int | None
    """How many there are in an epoch; None: an endless stream."""
    rollout: RolloutConfig

    @property
    def rollouts_per_epoch(self) -> int | None:
        """The last one, with fewer problems, counted."""
        return None if self.problems is None else -(-self.problems // self.rollout.prompts)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch; None for an endless stream."""
        if self.problems is None:
            return None
        whole, left = divmod(self.problems, self.rollout.prompts)
        return whole * self.rollout.steps + self.rollout.passes * min(left, self.rollout.minibatches)

    def place(self, step: int) -> Place:
        """What step `step` (0, 1, 2, ...) learns from."""
        epoch, within = (0, step) if self.steps_per_epoch is None else divmod(step, self.steps_per_epoch)
        rollout, index = divmod(within, self.rollout.steps)
        minibatches = min(self.rollout.minibatches, len(self.numbers(rollout)))
        number = rollout + epoch * (self.rollouts_per_epoch or 0)
        return Place(number, index, minibatches, is_last=index + 1 == self.rollout.passes * minibatches)

    def epoch(self, rollout: int) -> int:
        """The epoch of a rollout, from 0; an endless stream is in its first for ever."""
        return 0 if self.rollouts_per_epoch is None else rollout // self.rollouts_per_epoch

    def numbers(self, rollout: int) -> range:
        """The places, in the order of their epoch, of the problems of a rollout."""
        if self.rollouts_per_epoch is not None:
            rollout %= self.rollouts_per_epoch
        begin = rollout * self.rollout.prompts
        end = begin + self.rollout.prompts
        return range(begin, end if self.problems is None else min(end, self.problems))


class ProblemOrder:
    """The problems of each rollout, a pure function of the problems, the seed and the rollout's number.

    Args:
        problems: all of them, or an endless stream.
        rollout: says how many each rollout has.
        seed: of the order.

    Raises:
        RungError: there are none.
    """

    def __init__(self, problems: Problems, rollout: RolloutConfig, seed: int) -> None:
        count = None if callable(problems) else len(problems)
        if count == 0:
            raise RungError("there are no problems to learn from")
        self.timetable = Timetable(count, rollout)
        self._problems = problems
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def of(self, rollout: int) -> list[Problem]:
        """The problems of a rollout."""
        numbers = self.timetable.numbers(rollout)
        if callable(self._problems):
            return [self._problems(number) for number in numbers]
        epoch = self.timetable.epoch(rollout)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, _ORDER, epoch)).permutation(len(self._problems))
        return [self._problems[self._order[number]] for number in numbers]


def tokens_per_step(rollout: RolloutConfig, prompt_tokens: float) -> float:
    """Tokens that one optimizer step learns from at most: the prompts and responses of a minibatch."""
    return rollout.responses / rollout.minibatches * (prompt_tokens + rollout.tokens)


def flops_per_step(
    rollout: RolloutConfig, objective: ObjectiveConfig, prompt_tokens: float, forward: float, training: float
) -> float:
    """Floating-point operations of one optimizer step: its share of the writing, and what it learns from.

    Writing reads a prompt once for its group, and every token of a response once. An upper bound: responses count as
    `rollout.tokens` long, and all of them as learnt from.

    Args:
        rollout, objective: the settings.
        prompt_tokens: mean length of a prompt.
        forward: operations for each token of a forward pass.
        training: of forward and backward pass together (3 * forward where all weights are trained).
    """
    written = rollout.prompts * (prompt_tokens + rollout.group * rollout.tokens) / rollout.steps
    references = 1 / rollout.passes if objective.is_estimated else float(objective.kl == "full")
    return written * forward + tokens_per_step(rollout, prompt_tokens) * (training + references * forward)
