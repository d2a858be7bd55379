"""Reads files of word problems. Imports no torch.

`train.jsonl` and `test.jsonl` hold GSM8K (Cobbe et al. 2021, arXiv 2110.14168) or problems of your own: a line is an
object with `question` and `answer`; what stands behind the last #### of the answer is the right one, before it the
solution. An answer without #### is the right one itself.

`SVAMP.json` holds SVAMP (Patel et al. 2021, arXiv 2103.07191), which comes without a split. A hash of its words says
whether a story is one to test on, so that stories that differ only in numbers stay together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from rung.errors import RungError
from trainables.word_problems.normaliser import spelled

Split = Literal["train", "test"]

SVAMP_FILE = "SVAMP.json"
SVAMP_TEST_SHARE = 0.3
"""About what part of SVAMP is held out."""

_NOTE = re.compile(r"<<[^<>]*>>")
"""What GSM8K's solutions write down for a calculator."""


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A problem."""

    question: str
    answer: str
    """The right answer, as the data have it."""
    solution: str
    """How to come to it; empty where the data do not say."""


def read_jsonl(file: Path) -> list[WordProblem]:
    """The problems of a file with an object in each line.

    Raises:
        RungError: it cannot be read, is empty, or a line is no problem; the text names the line.
    """
    lines = [(number, line) for number, line in enumerate(_text(file).split("\n"), 1) if line.strip()]
    if not lines:
        raise RungError(f"{file} is empty")
    return [_problem(line, f"{file}:{number}") for number, line in lines]


def read_svamp(file: Path, split: Split) -> list[WordProblem]:
    """The problems of a split of SVAMP.

    Raises:
        RungError: the file cannot be read, or is not SVAMP.
    """
    try:
        rows = json.loads(_text(file))
        made = [(_svamp_problem(row), is_held_out(row["Body"])) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RungError(f"{file} is not SVAMP: {type(error).__name__}: {error}") from error
    return [problem for problem, held_out in made if held_out == (split == "test")]


def is_held_out(story: str) -> bool:
    """Whether a story of SVAMP is one to test on."""
    words = " ".join(re.findall(r"[a-z]+", story.lower()))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:6]) < SVAMP_TEST_SHARE * 2**48


def jsonl(problems: Sequence[WordProblem]) -> str:
    """A file that `read_jsonl` reads back."""
    rows = ({"question": each.question, "answer": f"{each.solution}\n#### {each.answer}"} for each in problems)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parse_answer(question: Any, answer: Any, place: str) -> WordProblem:
    """A problem of its two values.

    Raises:
        RungError: one of them is no text, or empty; `place` says where.
    """
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(question, str) or not isinstance(answer, str):
        raise RungError(f"{place}: question and answer must be text")
    solution, _, right = answer.rpartition("####")
    if not question.strip() or not right.strip():
        raise RungError(f"{place}: the {'answer' if question.strip() else 'question'} is empty")
    return WordProblem(question.strip(), right.strip(), _NOTE.sub("", solution).strip())


def _problem(line: str, place: str) -> WordProblem:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RungError(f"{place}: not valid JSON: {error}") from error
    if not isinstance(row, dict) or not {"question", "answer"} <= row.keys():
        raise RungError(f'{place}: expected {{"question": "...", "answer": "..."}}')
    return parse_answer(row["question"], row["answer"], place)


def _svamp_problem(row: Any) -> WordProblem:
    story, question = row["Body"].strip(), row["Question"].strip()
    if not story.endswith((".", "?", "!", ",")):  # "If there is a discount of 25 dollars"
        story, question = f"{story},", question[:1].lower() + question[1:]
    answer = spelled(Fraction(str(row["Answer"])))
    equation = re.sub(r"\.0\b", "", row["Equation"]).strip().removeprefix("(").removesuffix(")").strip()
    return WordProblem(f"{story} {question}", answer, f"{equation} = {answer}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise RungError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RungError(f"{file} is not UTF-8") from error
