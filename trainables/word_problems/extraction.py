"""Where in a response the answer stands, and what is right in it. Imports no torch.

    <think>
    6 x 2 = 12
    </think>
    <answer>
    12
    </answer>

All of this looks at the response alone. Text of the prompt must not be in it: a system prompt that shows the tags would
count for an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.word_problems.normaliser import is_same, normalised, number_in

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)


def extract_answer(response: str) -> str:
    """What stands behind the last `<answer>`, up to `</answer>`, without white space around it; the whole response if
    it has no `<answer>`."""
    return response.rpartition(ANSWER)[2].partition(END_ANSWER)[0].strip()


def has_answer_block(response: str) -> bool:
    """Whether there is an answer between its tags."""
    return _in_order(response, ANSWER, END_ANSWER)


def is_formatted(response: str) -> bool:
    """Whether there is a think block and behind it an answer block: the format that is asked for."""
    return _in_order(response, *TAGS)


def _in_order(response: str, *tags: str) -> bool:
    """Whether tags follow each other. A regular expression would take cubic time where a model repeats one of them."""
    place = 0
    for tag in tags:
        found = response.find(tag, place)
        if found < 0:
            return False
        place = found + len(tag)
    return True


@dataclass(frozen=True, slots=True)
class Reading:
    """What a response says."""

    extracted: str
    """The part that is taken for the answer."""
    normalised: str
    """That in one spelling."""
    is_number: bool
    """Whether it states a number."""
    is_right: bool
    """Whether that is the right one."""
    is_formatted: bool
    """Whether the response has both blocks."""


def read_response(response: str, gold: str) -> Reading:
    """Reads a response to a problem whose right answer is `gold`."""
    extracted = extract_answer(response)
    return Reading(
        extracted=extracted,
        normalised=normalised(extracted),
        is_number=number_in(extracted) is not None,
        is_right=is_same(extracted, gold),
        is_formatted=is_formatted(response),
    )
