"""Errors that a user can act on.

Everything raised on purpose towards a user derives from `RungError`; the command line prints its text without a
traceback (unless `--debug`). Wrong calls inside the platform stay `ValueError`, `TypeError` or `assert`. All of these
cross process borders (Ray pickles exceptions), so everything they carry is in `args`.
"""

from collections.abc import Iterable
from dataclasses import dataclass


class RungError(Exception):
    """Something the user can act on; its text says what and how."""


class StorageError(RungError):
    """A study's files cannot be found, read or written; the text names the path and the cause."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a study file.

    `path` is the dotted key (`space.model.kind`), `line` its line in the file from 1, or the text of the `--set` that
    wrote it, `hint` what to write instead.
    """

    message: str
    path: str = ""
    line: int | str | None = None
    hint: str = ""

    def describe(self, file: str = "") -> str:
        """One line of text with `file` in front: `demo.yaml:7: space.lr: unknown key (did you mean ...?)`."""
        if isinstance(self.line, str):
            file, line = f"--set {self.line}", ""
        else:
            line = "" if self.line is None else str(self.line)
        # An editor and a terminal can jump to "file:line"; without a file the line number needs its word.
        place = ":".join(part for part in (file, line) if part) if file else f"line {line}" if line else ""
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


class StudyError(RungError):
    """A study file is wrong; it carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem], file: str = "") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.file = str(file)
        # Exceptions are pickled as type(*args), so args must be exactly this constructor's arguments.
        super().__init__(self.problems, self.file)

    def __str__(self) -> str:
        return "\n".join(problem.describe(self.file) for problem in self.problems)
