"""What a model answers to the prompts of validation lines, and how good that is.

The model sees the beginning of a line and writes the rest of it, greedily, all lines in one batch with a cache. A
stream without a prompt rule is asked for whole lines instead, drawn at temperature 1 with a fixed seed. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rung.trainable import Generation, Sampling
from trainables.character_streams.stream import Stream

Writer = Callable[[Sequence[str], Sampling], list[str]]
"""What a model writes after each prompt."""


@dataclass(frozen=True)
class Question:
    """The beginning of a line, and the rest of it."""

    prompt: str
    gold: str


@dataclass(frozen=True)
class Answer:
    """What a model has written."""

    question: Question
    text: str
    """Up to the first line end."""
    is_right: bool


class Examination:
    """A fixed set of questions.

    Args:
        stream: with a checker, a prompt rule or both.
        lines: of the validation text.
        line_end_first: whether a prompt begins with the end of the line before, which is how the model has seen lines
            unless its windows begin with them.
    """

    def __init__(self, stream: Stream, lines: Sequence[str], *, line_end_first: bool) -> None:
        self._stream = stream
        self._before = "\n" if line_end_first else ""
        self._room = max(len(line) for line in lines) + 1
        rule = stream.prompt
        self._draws = rule is None
        self.questions = [
            Question(prompt, line[len(prompt) :]) for line in lines for prompt in [rule(line) if rule else ""]
        ]

    def answers(self, write: Writer) -> list[Answer]:
        """What the model answers; the same question is asked once."""
        if self._draws:
            # Without a prompt every row would be the same, so each draws its own line, after a line end.
            prompts = ["\n"] * len(self.questions)
            texts = write(prompts, Sampling(tokens=self._room, temperature=1.0))
            return [self._graded(question, text) for question, text in zip(self.questions, texts, strict=True)]
        different = list(dict.fromkeys(question.prompt for question in self.questions))
        longest = max(len(question.gold) for question in self.questions)
        written = write([self._before + prompt for prompt in different], Sampling(tokens=longest + 1, temperature=0.0))
        known = dict(zip(different, written, strict=True))
        return [self._graded(question, known[question.prompt]) for question in self.questions]

    def _graded(self, question: Question, text: str) -> Answer:
        answer, ended, _ = text.partition("\n")
        # A line that does not end is not right, whatever it begins with.
        right = bool(ended) and self._stream.is_right(question.prompt + answer, question.prompt + question.gold)
        return Answer(question, answer, right)

    @property
    def has_gold(self) -> bool:
        """Whether an answer can be compared with the line's own."""
        return not self._draws


def accuracy(answers: Sequence[Answer]) -> float:
    """Part of the answers that are right."""
    return sum(answer.is_right for answer in answers) / len(answers)


def character_accuracy(answers: Sequence[Answer]) -> float:
    """Part of the right answers' characters, white space apart, that stand where they should.

    A model that has only learnt the format reaches chance here: 1/5 for five letters.
    """
    hits = total = 0
    for answer in answers:
        gold, text = answer.question.gold, answer.text
        places = [at for at, character in enumerate(gold) if not character.isspace()]
        total += len(places)
        hits += sum(at < len(text) and text[at] == gold[at] for at in places)
    return hits / total if total else 0.0


def length_accuracy(answers: Sequence[Answer]) -> float:
    """Part of the answers that are as long as the right one: what a model learns first."""
    return sum(len(answer.text) == len(answer.question.gold) for answer in answers) / len(answers)


def shown(answers: Sequence[Answer], count: int) -> list[Generation]:
    """The first few answers to different questions, as rows of the table `generations`."""
    different: dict[str, Answer] = {}
    for index, answer in enumerate(answers):
        different.setdefault(answer.question.prompt or str(index), answer)
    return [
        Generation(
            prompt=answer.question.prompt,
            response=answer.text,
            extracted=answer.text,
            gold=answer.question.gold if answer.question.prompt else None,
            reward=float(answer.is_right),
        )
        for answer in list(different.values())[:count]
    ]
