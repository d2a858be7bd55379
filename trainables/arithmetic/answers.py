"""What a model answered to test items, and how good that is. Imports no torch.

An answer has one of four outcomes: `right`, `wrong`, `unparsed` (it ended without a final result that can be read) and
`over_length` (it was cut off before it came to one, so what it would have been is not known).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rung.trainable import Generation
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.generator import Item
from trainables.arithmetic.questions import Question
from trainables.arithmetic.trace import ERROR, THINK, Verification, verify
from trainables.language.pass_at_k import pass_at_k

Outcome = Literal["right", "wrong", "unparsed", "over_length"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one item."""

    item: Item
    prompt: str
    """What the model was given."""
    response: str
    """What it wrote."""
    tokens: int
    """Tokens that it wrote, the end token included."""
    verification: Verification
    """What is right in it."""
    outcome: Outcome
    solution_fits: bool
    """Whether the solution that is taught has room between prompt and limit: if not, the item cannot be solved so."""

    @property
    def is_right(self) -> bool:
        return self.outcome == "right"

    @property
    def gold(self) -> str:
        """The right result."""
        return ERROR if self.item.answer is None else str(self.item.answer)

    @property
    def generation(self) -> Generation:
        """As a row of the table."""
        return Generation(
            prompt=self.prompt,
            response=self.response,
            extracted=self.verification.answer,
            gold=self.gold,
            reward=float(self.is_right),
        )


@dataclass(frozen=True, slots=True)
class Written:
    """An answer before it is judged."""

    text: str
    tokens: int
    """The end token included."""
    has_ended: bool
    """Whether the end token is there; else it was cut off."""


def judged(asked: Question, written: Written, format: Format) -> Answer:
    """An answer with its outcome."""
    text = written.text
    if format == "v1" and not text.lstrip().startswith(THINK):
        text = f"{THINK}\n{text}"  # the prompt has opened the block already
    found = verify(asked.item.expression, text)
    if found.is_parsed:
        outcome: Outcome = "right" if found.is_right else "wrong"
    else:
        outcome = "unparsed" if written.has_ended else "over_length"
    return Answer(asked.item, asked.prompt, written.text, written.tokens, found, outcome, asked.solution_fits)


@dataclass(frozen=True)
class Evaluation:
    """All answers to a test set."""

    answers: Sequence[Answer]
    """Item by item, the samples of one item side by side."""
    samples: int = 1
    """Answers to each item."""

    @property
    def by_item(self) -> list[Sequence[Answer]]:
        """The answers to each item."""
        begins = range(0, len(self.answers), self.samples)
        return [self.answers[begin : begin + self.samples] for begin in begins]

    def share(self, outcome: Outcome) -> float:
        """Part of the answers with an outcome."""
        return sum(answer.outcome == outcome for answer in self.answers) / len(self.answers)

    def metrics(self, ks: Sequence[int] = ()) -> dict[str, float]:
        """The measures of `METRICS`, and pass@k for every k; NaN where nothing was to be measured."""
        checks = [answer.verification for answer in self.answers]
        steps = sum(check.steps for check in checks)
        return {
            "exact_match": self.share("right"),
            "parse_success": sum(check.is_parsed for check in checks) / len(checks),
            "over_length": self.share("over_length"),
            "step_accuracy": sum(check.right_steps for check in checks) / steps if steps else math.nan,
            "trace_accuracy": sum(check.complaint is None for check in checks) / len(checks),
            "generated_tokens": sum(answer.tokens for answer in self.answers) / len(checks),
            "solution_over_length": sum(not answer.solution_fits for answer in self.answers) / len(checks),
            **{f"pass@{k}": self.pass_at(k) for k in ks},
        }

    def pass_at(self, k: int) -> float:
        """Mean over the items of `pass_at_k`."""
        rights = [sum(answer.is_right for answer in answers) for answers in self.by_item]
        return sum(pass_at_k(self.samples, right, k) for right in rights) / len(rights)


METRICS: Mapping[str, tuple[Literal["min", "max"], str, float | None]] = {
    "exact_match": ("max", "part of the answers whose final result is right", 0.0),
    "parse_success": ("max", "part of the answers with a final result that can be read", 0.0),
    "over_length": ("min", "part of the answers that were cut off before they came to a result", 1.0),
    "step_accuracy": ("max", "part of the steps written that work out what is next without a mistake", 0.0),
    "trace_accuracy": ("max", "part of the answers that are the taught solution, word for word", 0.0),
    "generated_tokens": ("min", "mean number of tokens that an answer took", None),
    "solution_over_length": ("min", "part of the items whose taught solution is longer than there is room", None),
}
"""Measures of an evaluation: which way is better, what they are, the worst there is."""
