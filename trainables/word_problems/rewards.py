"""The rewards for word problems, and the published sets of them. Imports no torch.

A function returns points, on the scale of its source; the configuration's weights multiply them. All sets use the tags
that the prompt asks for (`<think>`, `<answer>`), and whether an answer is right is always asked of the normaliser.
docs/rewards.md has every function with its points.

Sources: the GRPO experiments that this family grew out of, as they are and as they were before; W. Brown's GRPO demo
(gist.github.com/willccbb/4676755236bb08cab5f4e54a0475d6fb); Unsloth's GRPO notebooks (github.com/unslothai/notebooks).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

from trainables.rl.rewards import RewardFunction, RewardsConfig
from trainables.word_problems.extraction import (
    ANSWER,
    END_ANSWER,
    END_THINK,
    TAGS,
    THINK,
    extract_answer,
    has_answer_block,
    is_formatted,
)
from trainables.word_problems.normaliser import is_same, number_in

_AT_THE_BEGINNING = re.compile(rf"{THINK}.*?{END_THINK}\s*{ANSWER}.*?{END_ANSWER}", re.DOTALL)


def _is_one_below_the_other(response: str) -> bool:
    """Whether a response is a think block and an answer block, every tag in a line of its own, and nothing else."""
    begin, middle, end = f"{THINK}\n", f"\n{END_THINK}\n{ANSWER}\n", f"\n{END_ANSWER}\n"
    return response.startswith(begin) and response.endswith(end) and middle in response[len(begin) : -len(end)]


def _answer_of_whole(response: str) -> str | None:
    """The answer of a response that is a think block and an answer block from end to end, neither of them empty."""
    text = response.strip()
    if not (text.startswith(THINK) and text.endswith(END_ANSWER)):
        return None
    body = text[len(THINK) : -len(END_ANSWER)]
    thought = body.find(END_THINK, 1)
    place = body.find(ANSWER, thought + len(END_THINK)) if thought >= 0 else -1
    return (body[place + len(ANSWER) :] or None) if place >= 0 else None


def _correctness(response: str, gold: str) -> float:
    return 2.0 if is_same(extract_answer(response), gold) else 0.0


def _digit(response: str, gold: str) -> float:
    return 0.5 if extract_answer(response).isdigit() else 0.0


def _hard_format(response: str, gold: str) -> float:
    if is_formatted(response):
        return 0.5
    return 0.25 if has_answer_block(response) else 0.0


def _mark(response: str, gold: str) -> float:
    return 0.125 * sum(tag in response for tag in TAGS)


def _strict_format(response: str, gold: str) -> float:
    return 0.5 if _is_one_below_the_other(response) else 0.0


def _mark_once(response: str, gold: str) -> float:
    return 0.125 * sum(response.count(f"{tag}\n") == 1 for tag in TAGS)


def _soft_format(response: str, gold: str) -> float:
    return 0.5 if _AT_THE_BEGINNING.match(response) else 0.0


def _xml_count(response: str, gold: str) -> float:
    points = 0.125 * (response.count(f"{THINK}\n") == 1) + 0.125 * (response.count(f"\n{END_THINK}\n") == 1)
    if response.count(f"\n{ANSWER}\n") == 1:
        points += 0.125 - 0.001 * len(response.rpartition(f"\n{END_ANSWER}\n")[2])
    if response.count(f"\n{END_ANSWER}") == 1:
        points += 0.125 - 0.001 * (len(response.rpartition(f"\n{END_ANSWER}")[2]) - 1)
    return points


def _exact_format(response: str, gold: str) -> float:
    return 3.0 if _answer_of_whole(response) is not None else 0.0


def _near_format(response: str, gold: str) -> float:
    return sum(0.5 if response.count(tag) == 1 else -1.0 for tag in TAGS)


def _near_answer(response: str, gold: str) -> float:
    answer = _answer_of_whole(response)
    if answer is None:
        return -2.0
    if answer == gold:
        return 5.0
    if is_same(answer, gold):
        return 3.5
    stated, right = number_in(answer), number_in(gold)
    if stated is None or right is None:
        return -4.5
    off = abs(stated - right) * 10
    return 2.0 if off <= abs(right) else 1.5 if off <= 2 * abs(right) else -2.5


def _number(response: str, gold: str) -> float:
    if ANSWER not in response or number_in(extract_answer(response)) is None:
        return -2.5
    return 3.5 if is_same(extract_answer(response), gold) else -1.5


def _listed(points: Callable[[str, str], float]) -> RewardFunction:
    """A function of one response and the right answer as a function of lists."""

    def reward(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [points(response, answer) for response, answer in zip(responses, answers, strict=True)]

    return reward


REWARDS: Mapping[str, RewardFunction] = {
    points.__name__.removeprefix("_"): _listed(points)
    for points in (
        _correctness,
        _digit,
        _hard_format,
        _mark,
        _strict_format,
        _mark_once,
        _soft_format,
        _xml_count,
        _exact_format,
        _near_format,
        _near_answer,
        _number,
    )
}

RewardSet = Literal["tags", "strict", "willccbb", "unsloth", "own"]

SETS: Mapping[str, Sequence[str]] = {
    "tags": ("correctness", "digit", "hard_format", "mark"),
    "strict": ("correctness", "digit", "strict_format", "mark_once"),
    "willccbb": ("correctness", "digit", "strict_format", "soft_format", "xml_count"),
    "unsloth": ("exact_format", "near_format", "near_answer", "number"),
    "own": (),
}
"""What counts in each set, with weight 1."""


class WordProblemRewards(RewardsConfig):
    """Which rewards count, and how much.

    A weight that is empty is 1 if the reward belongs to the set, else 0. It stays empty in the complete configuration,
    so that a swept `set` decides for itself.
    """

    built_in: ClassVar[Mapping[str, RewardFunction]] = REWARDS

    set: RewardSet = "tags"
    """Rewards that belong together. `tags`: right, only digits, both blocks, all tags; at most 3.5 points. `strict`:
    the same with every line end in its place. `willccbb`, `unsloth`: those of two widely used GRPO examples. `own`:
    none but those that are given a weight."""
    correctness: float | None = None
    """2 points for the right answer, however it is written."""
    digit: float | None = None
    """.5 points for an answer that consists of digits and nothing else."""
    hard_format: float | None = None
    """.5 points for a think block and behind it an answer block, .25 for an answer block alone."""
    mark: float | None = None
    """.125 points for each of the four tags that is there."""
    strict_format: float | None = None
    """.5 points for both blocks and nothing else, every tag on a line of its own, a line end at the end."""
    mark_once: float | None = None
    """.125 points for each of the four tags that is there once, a line end behind it."""
    soft_format: float | None = None
    """.5 points for a think block at the beginning and an answer block right behind it."""
    xml_count: float | None = None
    """.125 points for each of the four tags that is there once, on a line of its own; .001 less for each character
    behind the answer."""
    exact_format: float | None = None
    """3 points for both blocks from end to end, neither of them empty."""
    near_format: float | None = None
    """.5 points for each of the four tags that is there once, -1 for each that is not."""
    near_answer: float | None = None
    """For the answer in a response of the exact format: 5 points if it is written as in the data, 3.5 if it is that
    number, 2 and 1.5 if it is off by at most 10 % and 20 %, -2.5 if by more, -4.5 if it is no number; -2 if the format
    is another one."""
    number: float | None = None
    """3.5 points for the right number behind `<answer>`, -1.5 for another one, -2.5 for none."""

    def weight_where_empty(self, name: str) -> float:
        """1 if the reward belongs to the set, else 0."""
        return float(name in SETS[self.set])
