"""What an answer to an expression is worth. Imports no torch.

    exact    1 if the first final result is the value of the expression, else 0
    steps    part of the steps needed that were worked out before the first mistake, 0 to 1

`exact` is the reward of the system that this family grew out of. It says nothing about where a long answer went wrong;
`steps` does, by the verifier (`trace.py`), and cannot be had by writing more than there is to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from trainables.arithmetic.trace import expression_of, final_result, verify
from trainables.rl.rewards import RewardsConfig


def exact(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    """1 for each response whose first final result is the answer, else 0."""
    return [float(final_result(response) == answer) for response, answer in zip(responses, answers, strict=True)]


def steps(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Of each response, the right steps before its first wrong one, as a part of the operators of the expression.

    The whole of them and nothing after it is 1; where there is nothing to work out, a right result is.
    """
    return list(map(_steps, prompts, responses, answers))


def _steps(prompt: str, response: str, answer: str) -> float:
    expression = expression_of(prompt)
    needed = expression.count("+") + expression.count("-")
    if needed == 0:
        return float(final_result(response) == answer)
    found = verify(expression, response)
    return min(1.0, (found.steps if found.first_wrong is None else found.first_wrong - 1) / needed)


class ArithmeticRewardsConfig(RewardsConfig):
    """Which rewards count for expressions."""

    built_in: ClassVar = {"exact": exact, "steps": steps}

    exact: float | None = 1.0
    """1 for a right final result."""
    steps: float | None = None
    """Part of the steps needed that were right before the first mistake."""
