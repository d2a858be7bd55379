"""What a model answered to test questions, and how good that is. Imports no torch.

Each question has one greedy answer, which pass@1 counts, and `samples` drawn ones, which pass@k, its unbiased estimate
and the majority vote count. An answer is judged by what was extracted from the response, and by nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rung.trainable import Generation, Metric
from trainables.language.pass_at_k import pass_at_k
from trainables.word_problems.extraction import Reading


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one question."""

    question: str
    gold: str
    """The right answer, as the data have it."""
    response: str
    reading: Reading
    """What it says."""
    reward: float
    """What it would be worth in training."""
    tokens: int
    """Tokens that the response took, the end token included."""
    has_ended: bool
    """Whether it came to an end by itself; else it was cut off."""

    @property
    def is_right(self) -> bool:
        """Whether it says the right answer."""
        return self.reading.is_right

    @property
    def generation(self) -> Generation:
        """A row of the table."""
        return Generation(self.question, self.response, self.reading.extracted, self.gold, float(self.is_right))


@dataclass(frozen=True)
class QuestionAnswers:
    """All answers to one question."""

    greedy: Answer
    drawn: Sequence[Answer] = ()

    @property
    def right(self) -> int:
        """How many of the drawn ones are right."""
        return sum(answer.is_right for answer in self.drawn)

    def passes(self, k: int) -> bool:
        """Whether one of the first k drawn answers is right."""
        return any(answer.is_right for answer in self.drawn[:k])

    def majority_is_right(self, k: int) -> bool:
        """Whether the number that most of the first k drawn answers state is right (self-consistency, Wang et al. 2023,
        arXiv 2203.11171). Who states none does not vote; of equally frequent numbers the one that came first wins.
        """
        stated = [answer.reading for answer in self.drawn[:k] if answer.reading.is_number]
        votes = Counter(reading.normalised for reading in stated)
        # most_common has those of equal counts in the order in which they came
        winner = votes.most_common(1)[0][0] if votes else None
        return any(reading.is_right for reading in stated if reading.normalised == winner)


@dataclass(frozen=True)
class Evaluation:
    """All answers to a set of questions."""

    questions: Sequence[QuestionAnswers]

    def metrics(self, ks: Sequence[int] = ()) -> dict[str, float]:
        """The measures of `described`, by name."""
        count = len(self.questions)
        greedy = [question.greedy for question in self.questions]
        samples = len(self.questions[0].drawn)
        found = {
            "pass@1": sum(answer.is_right for answer in greedy) / count,
            "parsed": sum(answer.reading.is_number for answer in greedy) / count,
            "formatted": sum(answer.reading.is_formatted for answer in greedy) / count,
            "cut_off": sum(not answer.has_ended for answer in greedy) / count,
            "response_tokens": sum(answer.tokens for answer in greedy) / count,
            "reward": sum(answer.reward for answer in greedy) / count,
        }
        for k in ks if samples else ():
            unbiased = sum(pass_at_k(samples, question.right, k) for question in self.questions) / count
            found[f"pass@{k}_unbiased"] = unbiased
            if k > 1:
                found[f"pass@{k}"] = sum(question.passes(k) for question in self.questions) / count
                found[f"maj@{k}"] = sum(question.majority_is_right(k) for question in self.questions) / count
        return found

    def generations(self) -> Iterator[Generation]:
        """Every answer, those of a question side by side, the greedy one first."""
        for question in self.questions:
            yield question.greedy.generation
            yield from (answer.generation for answer in question.drawn)


def described(ks: Sequence[int], samples: int) -> Mapping[str, Metric]:
    """The measures of an evaluation with so many drawn answers to a question."""
    found = {
        "pass@1": Metric("max", "share of questions whose greedy answer is right", worst=0.0),
        "parsed": Metric("max", "share of greedy answers that can be read as a number", worst=0.0),
        "formatted": Metric("max", "share of greedy answers in the format that was asked for", worst=0.0),
        "cut_off": Metric("min", "share of greedy answers that came to no end within decoding.tokens", worst=1.0),
        "response_tokens": Metric("min", "mean length of a greedy answer, tokens"),
        "reward": Metric("max", "mean reward of a greedy answer, as in training"),
    }
    for k in ks if samples else ():
        text = f"probability that one of {k} drawn answers is right, from {samples} of each question (unbiased)"
        found[f"pass@{k}_unbiased"] = Metric("max", text, worst=0.0)
        if k > 1:
            text = f"share of questions of which one of the first {k} of {samples} drawn answers is right"
            found[f"pass@{k}"] = Metric("max", text, worst=0.0)
            text = f"share of questions of which the most frequent of the first {k} drawn answers is right"
            found[f"maj@{k}"] = Metric("max", text, worst=0.0)
    return found
