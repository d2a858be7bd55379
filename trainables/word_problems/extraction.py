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

import re
from dataclasses import dataclass

from trainables.word_problems.normaliser import is_same, normalised, number_in

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)

_ANSWER_BLOCK = re.compile(f"{ANSWER}.*?{END_ANSWER}", re.DOTALL)
_BOTH_BLOCKS = re.compile(f"{THINK}.*?{END_THINK}.*?{ANSWER}.*?{END_ANSWER}", re.DOTALL)


def extract_answer(response: str) -> str:
    """What stands behind the last `<answer>`, up to `</answer>`, without white space around it; the whole response if
    it has no `<answer>`."""
    return response.rpartition(ANSWER)[2].partition(END_ANSWER)[0].strip()


def has_answer_block(response: str) -> bool:
    """Whether there is an answer between its tags."""
    return _ANSWER_BLOCK.search(response) is not None


def is_formatted(response: str) -> bool:
    """Whether there is a think block and behind it an answer block: the format that is asked for."""
    return _BOTH_BLOCKS.search(response) is not None


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
