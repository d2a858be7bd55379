"""Corpora of arithmetic items on disk. Imports no torch, and ray only where it runs.

    folder = ensure_corpus(CorpusConfig(max_depth=4, samples=50_000))
    for line in read_items(folder / "train.jsonl"): ...

A line of a corpus is JSON with `expression`, `problem`, `solution`, `answer` (a number, or "ERROR") and `error` (what
is wrong with an invalid one, else null). Line i is item i of its split, so a corpus does not depend on who made which
part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rung.errors import RungError
from rung.identity import essential
from trainables.arithmetic.artifacts import ensure
from trainables.arithmetic.corpus_config import CorpusConfig, ExpressionConfig
from trainables.arithmetic.generator import Item, Part, item, items
from trainables.arithmetic.pieces import in_pieces
from trainables.arithmetic.trace import ERROR, ERROR_SOLUTION, problem, solution_of_canonical

VERSION = 2
"""Changes whenever the same configuration gives other lines."""

FILES: dict[Part, str] = {"train": "train.jsonl", "validation": "validation.jsonl"}

PIECE = 5_000
"""Items that are made at once."""


@dataclass(frozen=True, slots=True)
class CorpusLine:
    """A line of a corpus."""

    expression: str
    problem: str
    solution: str
    answer: int | Literal["ERROR"]
    error: str | None = None
    """What is wrong with the expression; None: nothing, or it is not said."""


def ensure_corpus(config: CorpusConfig, say: Callable[[str], None] = print, workers: int | None = None) -> Path:
    """The folder of a corpus with `train.jsonl` and `validation.jsonl`, made if it is not there.

    Args:
        config: what is in it.
        say: takes a line about what is made.
        workers: processes that make it; None: as many as pay, or Ray's tasks.

    Raises:
        StorageError: it cannot be written.
        RungError: there are no such items.
    """
    return ensure("corpus", corpus_recipe(config), partial(_write, config, say, workers), say)


def corpus_recipe(config: CorpusConfig) -> dict[str, Any]:
    """What a corpus is made from."""
    return {"version": VERSION, **essential(CorpusConfig, config.model_dump(mode="json"))}


def _write(config: CorpusConfig, say: Callable[[str], None], workers: int | None, folder: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    counts = {"train": config.samples, "validation": config.validation_samples}
    for split, name in FILES.items():
        with (folder / name).open("wb") as file:
            file.writelines(jsonl(config, split, counts[split], workers=workers))
    say(
        f"corpus: {config.samples:,} items to train on, {config.validation_samples:,} to validate on, made in "
        f"{time.perf_counter() - begin:.1f} s"
    )
    return counts


def jsonl(
    config: ExpressionConfig, split: Part, count: int, *, first: int = 0, workers: int | None = None
) -> Iterator[bytes]:
    """The lines of a split in pieces: of `count` items from the number `first` on.

    Raises:
        RungError: there are no such items.
    """
    item(config, split, first)  # here rather than in another process, whose errors are hard to read
    yield from in_pieces(partial(_piece, config, split, first), count, PIECE, workers)


def _piece(config: ExpressionConfig, split: Part, first: int, numbers: range) -> bytes:
    drawn = items(config, split, first + numbers.start, first + numbers.stop)
    return "".join(map(line_of, drawn)).encode()


def line_of(item: Item) -> str:
    """An item as a line of a corpus, line end included: what `json.dumps` writes, whose only escape here is \\n."""
    solution = solution_of(item).replace("\n", "\\n")
    answer = f'"{ERROR}"' if item.answer is None else item.answer
    error = f'"{item.error}"' if item.error else "null"
    return (
        f'{{"expression": "{item.expression}", "problem": "{problem(item.expression)}", "solution": "{solution}", '
        f'"answer": {answer}, "error": {error}}}\n'
    )


def solution_of(item: Item) -> str:
    """The solution of an item."""
    return ERROR_SOLUTION if item.answer is None else solution_of_canonical(item.expression)


def read_items(path: Path) -> Iterator[CorpusLine]:
    """The lines of a corpus in JSON, one after another.

    Raises:
        RungError: the file cannot be read, is empty, or has a line that is not one of a corpus; says which.
    """
    line = 0
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                line += 1
                yield _LINE.validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RungError(f"the corpus {path} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(": ".join([*map(str, each["loc"]), each["msg"]]) for each in error.errors()[:3])
        raise RungError(
            f"{path}:{line}: not a line of a corpus, which is JSON with expression, problem, solution and answer "
            f"({problems})"
        ) from error
    if line == 0:
        raise RungError(f"the corpus {path} is empty")


_LINE = TypeAdapter(CorpusLine)
