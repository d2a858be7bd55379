"""What a stream of lines is, and how a name finds one. Imports no torch.

One function is enough: it takes a seed and yields lines, for ever or until there are no more.

    import random

    def lines(seed):
        rng = random.Random(seed)
        while True:
            number = rng.randrange(50)
            yield f"{number} doubled is {2 * number}"

`my_streams:lines` (a module on the import path) or `my_streams.py:lines` (a file) names it. The decorator `stream` adds
what lets more than a loss be measured:

    @stream(check=is_right, prompt=" doubled is ", floor=0.22)
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from rung.errors import RungError
from trainables.language.find_file import find_file

Lines = Callable[[int], Iterator[str]]
FunctionT = TypeVar("FunctionT", bound=Callable[..., Iterator[str]])

TRIED_LINES = 20
"""Lines on which a function's checker and prompt rule are tried."""


@dataclass(frozen=True)
class Theory:
    """Losses that follow from how the lines are made, in nats per character. None: not known."""

    floor: float | None = None
    """Of all characters, line ends included: entropy of a line over its mean length. A model that sees whole lines
    cannot do better; one whose windows begin anywhere does worse."""
    plateau: float | None = None
    """Of all characters, for a model that has learnt the format and guesses the answers."""
    answer_floor: float | None = None
    """Of the answers' characters, line ends included."""
    answer_plateau: float | None = None
    """The same for a model that has learnt the format and guesses."""


@dataclass(frozen=True)
class Stream:
    """A stream of lines, with what is known about it."""

    name: str
    lines: Lines
    """Yields the lines of a seed, without line ends."""
    check: Callable[[str], bool] | None = None
    """Whether a line is right."""
    prompt: Callable[[str], str] | None = None
    """The beginning of a line that a model is given; the rest is the answer."""
    theory: Theory = field(default_factory=Theory)
    characters: str | None = None
    """Every character that can come up. None: those of the text that is made."""

    def is_right(self, line: str, expected: str) -> bool:
        """Whether a line is right: by the checker, or else because it is the expected one.

        A model writes all kinds of things: a line that the checker fails on is wrong.
        """
        if self.check is None:
            return line == expected
        try:
            return bool(self.check(line))
        except Exception:
            return False


@dataclass(frozen=True)
class _Marks:
    """What the decorator `stream` notes on a function."""

    check: Callable[[str], bool] | None
    prompt: Callable[[str], str] | None
    floor: float | Callable[..., float] | None
    plateau: float | Callable[..., float] | None


def stream(
    *,
    check: Callable[[str], bool] | None = None,
    prompt: str | Callable[[str], str] | None = None,
    floor: float | Callable[..., float] | None = None,
    plateau: float | Callable[..., float] | None = None,
) -> Callable[[FunctionT], FunctionT]:
    """Notes on a stream function what is known about its lines. All of it is optional.

    Args:
        check: whether a line is right, which gives `validation/accuracy`.
        prompt: what a model is given of a line: everything up to and including this text, or a function of the line.
        floor: entropy of the stream, nats per character (line ends count); a number, or a function that takes the
            stream's options as keywords. Drawn as a line into figures.
        plateau: the same for a model that has learnt the format and guesses.
    """
    rule = until(prompt) if isinstance(prompt, str) else prompt

    def mark(function: FunctionT) -> FunctionT:
        function.stream_marks = _Marks(check, rule, floor, plateau)  # type: ignore[attr-defined]
        return function

    return mark


def until(separator: str) -> Callable[[str], str]:
    """The prompt rule that gives everything up to and including `separator`."""

    def prompt(line: str) -> str:
        before, found, _ = line.partition(separator)
        return before + found

    return prompt


def own_stream(name: str, options: Mapping[str, Any]) -> Stream:
    """The stream that a function of the user's makes.

    Args:
        name: `package.module:function` or `path/to/file.py:function`.
        options: given to the function as keywords.

    Raises:
        RungError: there is no such function, it does not take these options, or what it is marked with does not fit
            its lines.
    """
    function = _find(name)
    _check_options(name, function, options)
    marks = getattr(function, "stream_marks", None) or _Marks(None, None, None, None)

    def number(value: float | Callable[..., float] | None) -> float | None:
        return float(value(**options)) if callable(value) else value

    theory = Theory(floor=number(marks.floor), plateau=number(marks.plateau))
    made = Stream(name, lambda seed: function(seed, **options), marks.check, marks.prompt, theory)
    _try_out(made)
    return made


def taken(lines: Callable[[], Iterator[str]], characters: int, name: str) -> list[str]:
    """Lines of a stream until they have `characters` characters, line ends included, or there are no more.

    Raises:
        RungError: it fails, yields something that is no line, or fewer than two lines.
    """
    found: list[str] = []
    length = 0
    for line in _checked(lines, name):
        found.append(line)
        length += len(line) + 1
        if length >= characters:
            break
    if len(found) < 2:
        raise RungError(f"stream {name} yields {len(found)} lines: it takes two at least, to train on and to validate")
    return found


def _checked(lines: Callable[[], Iterator[str]], name: str) -> Iterator[str]:
    """The lines of a stream; what is wrong with them or with their function is said in one sentence."""
    count = 0
    try:
        iterator = iter(lines())
    except Exception as error:
        raise RungError(f"stream {name}: {error}. A stream function takes a seed and yields lines") from error
    while True:
        count += 1
        try:
            line = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise RungError(f"stream {name} fails at line {count} with {type(error).__name__}: {error}") from error
        if not isinstance(line, str) or "\n" in line:
            raise RungError(
                f"stream {name}: line {count} is {line!r}: yield one line of text at a time, as str and without its "
                "line end"
            )
        yield line


def _try_out(stream: Stream) -> None:
    """Refuses a checker or a prompt rule that does not fit the stream's own first lines."""
    for line in islice(_checked(lambda: stream.lines(0), stream.name), TRIED_LINES):
        try:
            is_right = stream.check is None or stream.check(line)
            prompt = "" if stream.prompt is None else stream.prompt(line)
        except Exception as error:
            text = f"stream {stream.name}: its checker or prompt rule fails on its own line {line!r} with "
            raise RungError(f"{text}{type(error).__name__}: {error}") from error
        if not is_right:
            raise RungError(f"stream {stream.name}: its checker says that its own line {line!r} is wrong")
        if not line.startswith(prompt):
            raise RungError(f"stream {stream.name}: the prompt {prompt!r} is no beginning of its own line {line!r}")


def _find(name: str) -> Callable[..., Iterator[str]]:
    place, _, function = name.rpartition(":")
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place, name)
    found = getattr(module, function, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[:1] != "_"]
        near = difflib.get_close_matches(function, functions, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(functions) or 'no functions'}"
        raise RungError(f"stream {name!r}: {place} has no function {function!r} ({hint})")
    made: Callable[..., Iterator[str]] = found
    return made


def _module(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (ImportError, ValueError) as error:
        raise RungError(
            f"stream {name!r} cannot be imported: {error}. Its folder must be on the import path (set PYTHONPATH), or "
            "give the file: path/to/file.py:function"
        ) from error


def _module_of_file(path: Path) -> ModuleType:
    """The module of a file, run once per process."""
    absolute = find_file(path)
    if absolute is None:
        raise RungError(f"stream {path}: there is no such file in {Path.cwd()} or on the import path")
    name = f"rung_stream_{absolute.stem}_{abs(hash(str(absolute))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, absolute)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, so that its dataclasses find it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RungError(f"stream {path}: its file fails with {type(error).__name__}: {error}") from error
    return module


def _check_options(name: str, function: Callable[..., Iterator[str]], options: Mapping[str, Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise RungError(f"stream {name}: the function takes no argument; its first one is the seed")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [parameter.name for parameter in parameters[1:]]
    unknown = [option for option in options if option not in names]
    if unknown:
        takes = f"it takes {', '.join(names)}" if names else "it takes a seed and nothing else"
        raise RungError(f"stream {name}: no option {', '.join(map(repr, unknown))}: {takes}")
