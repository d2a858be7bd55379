"""Which word problems a run trains on, is tested on, and shows in its prompts. Imports no torch.

`python -m trainables.word_problems.prepare` puts the files in their place; `problem_files` says what is in them. Which
problems are drawn is a function of the seed and of their text alone: drawing more keeps those there were.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from rung.errors import RungError
from rung.settings import StrictModel
from trainables.language.find_file import find_file
from trainables.language.tokens import data_root
from trainables.word_problems.problem_files import SVAMP_FILE, Split, WordProblem, read_jsonl, read_svamp

SIZES = {"gsm8k": (7473, 1319), "svamp": (687, 313)}
"""Problems to train and to test on, for planning where the files are not at hand."""


class DatasetConfig(StrictModel):
    """Which problems."""

    name: str = Field(default="gsm8k", min_length=1, pattern=r"^[^/\\]+$")
    """The folder of the files below the data folder (RUNG_DATA, or `data`): `gsm8k`, `svamp`, or one of your own."""
    path: str | None = None
    """The folder itself, where it lies elsewhere."""
    train_samples: int | None = Field(default=None, gt=0)
    """Problems to train on, drawn from the training split. Empty: all of it."""
    test_samples: int | None = Field(default=None, gt=0)
    """Problems to test on. Empty: the whole test split."""
    test_from: Split = "test"
    """Which split these are drawn from. `train`: from what is left of the training split, for comparison with results
    that were taken so; then both numbers of samples are needed."""
    seed: int = Field(default=42, ge=0)
    """What the draws depend on. All runs of a configuration have the same problems."""

    @model_validator(mode="after")
    def _parts_of_one_split_have_sizes(self) -> DatasetConfig:
        if self.test_from == "train" and None in (self.train_samples, self.test_samples):
            raise ValueError("test_from: train takes both parts from one split: give train_samples and test_samples")
        return self

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return data_root() / self.name if self.path is None else Path(self.path).expanduser()

    @property
    def files(self) -> list[Path]:
        """The files, whether they are there or not."""
        whole = self._file(SVAMP_FILE)
        return [whole] if whole.is_file() or self.name == "svamp" else [*map(self._file, ("train.jsonl", "test.jsonl"))]

    def _file(self, name: str) -> Path:
        return find_file(self.folder / name) or self.folder / name

    def missing(self) -> str | None:
        """What is not there, and the command that puts it there; None: all is there."""
        absent = [file.name for file in self.files if not file.is_file()]
        if not absent:
            return None
        kind = self.name if self.name in SIZES else f"files --train FILE --test FILE --out {self.name}"
        command = f"`python -m trainables.word_problems.prepare {kind}` puts them into {data_root() / self.name}"
        elsewhere = "data.path names their folder if they are elsewhere" if self.path is None else "leave out data.path"
        return f"there is no {' and no '.join(absent)} in {self.folder}: {command}; {elsewhere}"


@dataclass(frozen=True)
class ProblemSets:
    """What a run reads: three sets without a question in common, each in the order of its file."""

    train: Sequence[WordProblem]
    test: Sequence[WordProblem]
    examples: Sequence[WordProblem]
    """Those that prompts show."""


def load_problems(config: DatasetConfig, examples: int = 0) -> ProblemSets:
    """The problems of a configuration.

    Args:
        config: which.
        examples: how many of the training split are set apart to be shown.

    Raises:
        RungError: files are missing or damaged, hold fewer problems than are asked for, or a question is both trained
            and tested on.
    """
    if absent := config.missing():
        raise RungError(absent)
    training, testing = _splits(config.files)
    shown, pool = _drawn(training, examples, config, "prompt.examples")
    train, left = _drawn(pool, config.train_samples, config, "data.train_samples")
    test, _ = _drawn(left if config.test_from == "train" else testing, config.test_samples, config, "data.test_samples")
    _refuse_overlap([*train, *shown], test, config.folder)
    return ProblemSets(train, test, shown)


def sizes(config: DatasetConfig, examples: int = 0) -> tuple[int, int] | None:
    """How many problems there are to train and to test on; None: that is not known, because the files are missing.

    Errors as of `load_problems`.
    """
    if config.missing() is None:
        sets = load_problems(config, examples)
        return len(sets.train), len(sets.test)
    training, testing = SIZES.get(config.name, (0, 0))
    train = config.train_samples or max(0, training - examples)
    test = config.test_samples or testing
    return (train, test) if train and test else None


def _splits(files: Sequence[Path]) -> tuple[list[WordProblem], list[WordProblem]]:
    if len(files) == 1:
        return read_svamp(files[0], "train"), read_svamp(files[0], "test")
    train, test = files
    return read_jsonl(train), read_jsonl(test)


def _drawn(
    problems: Sequence[WordProblem], count: int | None, config: DatasetConfig, key: str
) -> tuple[list[WordProblem], list[WordProblem]]:
    """So many problems (None: all), and those that are left, both in the order in which they were."""
    if count is None:
        return list(problems), []
    if count > len(problems):
        raise RungError(f"{key} asks for {count:,} problems, and {config.folder} has {len(problems):,} to choose from")
    ranks = [hashlib.sha256(f"{config.seed}\n{each.question}".encode()).digest() for each in problems]
    chosen = set(sorted(range(len(problems)), key=lambda place: (ranks[place], place))[:count])
    taken = [problem for place, problem in enumerate(problems) if place in chosen]
    return taken, [problem for place, problem in enumerate(problems) if place not in chosen]


def _refuse_overlap(train: Sequence[WordProblem], test: Sequence[WordProblem], folder: Path) -> None:
    """A model would be judged by what it has learnt from."""
    known = {_words(problem.question) for problem in train}
    both = [problem.question for problem in test if _words(problem.question) in known]
    if both:
        raise RungError(
            f"{folder}: {len(both)} questions are both trained and tested on (spaces, case and punctuation aside), "
            f"such as {both[0][:80]!r}: take them out of one of the files"
        )


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
