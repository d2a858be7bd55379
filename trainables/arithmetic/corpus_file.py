"""A corpus that lies in a file of the user's: read, split, and turned into token ids. Imports no torch.

    data/corpus.jsonl    a line is an item: expression, problem, solution, answer (`python -m ....generate_corpus`)
    data/corpus.txt      plain text: a problem (`Evaluate: 5 + (10 - 3)`) and its solution, on one line or on several
    data/corpus/         a folder with train.jsonl and validation.jsonl

Plain text whose lines were shuffled, so that problems and solutions are apart, is read line by line; that will do for
foundational training only. Of a single file a part is held out, by expression: no expression is on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from rung.errors import RungError
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.corpus import FILES, read_items
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.sequences import Sequences, encoded, pair
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import final_result, solution

PROBLEM = "Evaluate:"
"""What the line of a problem begins with."""

_LINE_BEGINS = re.compile(r" (?=Step [0-9]+:|Expression now:|</think>|Final Result:)")
"""Blanks where a solution that is written on one line has line ends."""

Halves = dict[Literal["train", "validation"], Sequences]


@dataclass(frozen=True, slots=True)
class Text:
    """An item of a corpus, or a line that is none."""

    expression: str
    """Empty: the problem is not known."""
    solution: str
    """In lines, however it stood in the file; without an expression, the line as it stood."""

    @property
    def key(self) -> str:
        """What decides whether it is held out."""
        return self.expression or self.solution


def read_halves(path: Path, fraction: float, tokenizer: Tokenizer, config: ArithmeticConfig) -> Halves:
    """A corpus as token ids, what is trained on and what is held out.

    Args:
        path: a file, or a folder with both parts.
        fraction: of the expressions of a single file that are held out.
        tokenizer: knows the characters of the corpus.
        config: mode and format.

    Raises:
        RungError: the corpus cannot be read, is empty or too small to be split, has no problems (for mode
            instruction), or characters that the tokenizer does not know.
    """
    parts = read_parts(path, fraction)
    if config.mode == "instruction" and any(not text.expression for part in parts for text in part):
        raise RungError(
            f"{path} does not say which solution belongs to which problem, which instruction training needs: take a "
            "corpus in JSONL (python -m trainables.arithmetic.generate_instruction_corpus_mixed)"
        )
    try:
        is_instruction = config.mode == "instruction"
        train, validation = (
            encoded(tokenizer, pairs(part, config.format, is_instruction=is_instruction)) for part in parts
        )
    except RungError as error:
        raise RungError(f"the corpus {path} and the tokenizer do not belong together: {error}") from error
    return {"train": train, "validation": validation}


def read_parts(path: Path, fraction: float) -> tuple[list[Text], list[Text]]:
    """The items of a corpus: what is trained on, and what is held out; arguments and errors as of `read_halves`."""
    if path.is_dir():
        return read_texts(path / FILES["train"]), read_texts(path / FILES["validation"])
    return _split(read_texts(path), fraction, path)


def read_texts(path: Path) -> list[Text]:
    """The items of a corpus file.

    Raises:
        RungError: it cannot be read or is empty.
    """
    try:
        with path.open(encoding="utf-8") as file:
            beginning = file.read(1 << 16).lstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise RungError(f"the corpus {path} cannot be read: {error}") from error
    if not beginning:
        raise RungError(f"the corpus {path} is empty: there is nothing to learn from")
    if beginning.startswith("{"):
        return [Text(line.expression, line.solution) for line in read_items(path)]
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    items = list(_items(lines))
    if 2 * sum(map(_belong_together, items)) > len(items):
        return items
    return [Text("", line) for line in lines]


def _items(lines: Sequence[str]) -> Iterator[Text]:
    """Problems with the lines that follow them."""
    expression, rest = "", list[str]()
    for line in [*lines, PROBLEM]:
        if not line.startswith(PROBLEM):
            rest.append(line)
            continue
        if expression or rest:
            yield Text(expression, _LINE_BEGINS.sub("\n", "\n".join(rest)))
        expression, rest = line.removeprefix(PROBLEM).strip(), []
        if "<think>" in expression:  # all on one line
            expression, _, more = expression.partition(" <think>")
            rest = [f"<think>{more}"]


def _belong_together(text: Text) -> bool:
    return bool(text.expression) and final_result(text.solution) == final_result(solution(text.expression))


def _split(texts: Sequence[Text], fraction: float, path: Path) -> tuple[list[Text], list[Text]]:
    """What is trained on, and what is held out: the expressions with the smallest hashes."""
    keys = sorted({text.key for text in texts}, key=lambda key: blake2b(f"held out: {key}".encode()).digest())
    if len(keys) < 2:
        raise RungError(f"{path} holds one expression only: a part of a corpus is held out, so it needs two at least")
    held_out = set(keys[: max(1, round(fraction * len(keys)))])
    return [text for text in texts if text.key not in held_out], [text for text in texts if text.key in held_out]


def pairs(texts: Iterable[Text], format: Format, *, is_instruction: bool) -> Iterator[tuple[str, str]]:
    """Each text as what is given and what is to be written (`sequences.pair`); of a lone line all is written."""
    for text in texts:
        if text.expression:
            yield pair(text.expression, text.solution, format=format, is_instruction=is_instruction)
        else:
            yield "", text.solution
