"""What the three commands that write corpus files share: their flags, and writing a file whole or not at all."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import Field, field_validator

from rung.errors import StorageError
from rung.settings import StrictModel
from trainables.arithmetic.corpus import jsonl, line_of
from trainables.arithmetic.corpus_config import MOST, ExpressionConfig, TestConfig
from trainables.arithmetic.generator import Part
from trainables.arithmetic.test_sets import test_set
from trainables.language.settings_command import add_flags, given, settled

INSTRUCTION = 10**12
"""Number of the first instruction item: a foundational and an instruction corpus of one seed have different items."""


class CorpusSettings(StrictModel):
    """What a corpus file holds."""

    num_samples: int = Field(gt=0)
    """Items."""
    max_depth: int = Field(default=5, ge=0, le=8)
    """Greatest depth of an expression's tree."""
    num_range: tuple[int, int] = (1, 20)
    """Smallest and largest number."""
    invalid_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of items whose expression is invalid."""
    node_error_rate: float | None = Field(default=None, ge=0, le=1)
    """Instead of --invalid-rate: probability with which each operator is broken."""
    seed: int = Field(default=0, ge=0)
    """Seed of the items."""
    workers: int | None = Field(default=None, gt=0)
    """Processes; as many as pay where it is not given. They do not change what is written."""

    @field_validator("num_range")
    @classmethod
    def _in_order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] <= value[1] <= MOST:
            raise ValueError(f"expected two numbers from 0 to {MOST:,}, the smaller first, got {value[0]} {value[1]}")
        return value

    @property
    def expressions(self) -> ExpressionConfig:
        """The distribution of the items."""
        return ExpressionConfig(
            max_depth=self.max_depth,
            smallest=self.num_range[0],
            largest=self.num_range[1],
            invalid_rate=self.invalid_rate,
            node_error_rate=self.node_error_rate,
            seed=self.seed,
        )


def corpus_parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags of `CorpusSettings`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m trainables.arithmetic.{command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, CorpusSettings, leave_out={"num_range"})
    parser.add_argument(
        "--num-range",
        nargs=2,
        metavar=("MIN", "MAX"),
        default=argparse.SUPPRESS,
        help="Smallest and largest number (1 20)",
    )
    return parser


def add_split(parser: argparse.ArgumentParser) -> None:
    """The flag that says which split the items are of."""
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="which items: no expression of one split is in another one, whatever the seeds; `test` is stratified by "
        "operators and depth, and has no expression twice (train)",
    )


def corpus_settings(options: argparse.Namespace, **defaults: int) -> CorpusSettings:
    """The settings that the command line asks for, checked."""
    return settled(CorpusSettings, given(options, CorpusSettings), defaults=defaults)


def write_jsonl(path: Path, settings: CorpusSettings, split: Part, first: int = 0) -> None:
    """Writes the items of a split from the number `first` on, and says so."""
    config = settings.expressions
    if split == "test":
        chosen = TestConfig(**config.model_dump(), samples=settings.num_samples)
        pieces: Iterable[bytes] = (line_of(item).encode() for item in test_set(chosen))
    else:
        pieces = jsonl(config, split, settings.num_samples, first=first, workers=settings.workers)
    write_whole(path, pieces)


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Writes a file that is not there under its name before it is whole, and says how much it is.

    Raises:
        StorageError: it cannot be written.
    """
    begin = time.perf_counter()
    unfinished = path.with_name(f"{path.name}.unfinished")
    lines = invalid = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                lines += piece.count(b"\n")
                invalid += piece.count(_INVALID)
        unfinished.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    seconds = time.perf_counter() - begin
    size = path.stat().st_size / 1e6
    print(f"{path}: {lines:,} lines, {invalid:,} of them with invalid expressions, {size:,.1f} MB in {seconds:.1f} s")


_INVALID = b"Final Result: ERROR"
