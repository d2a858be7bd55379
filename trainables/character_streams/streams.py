"""The streams that come with rung, by name. Imports no torch.

Each is a function of `StreamConfig` that returns a `Stream`: how its lines are made, what makes one right, and the
losses that follow. Random words have letters drawn uniformly from `alphabet` and a length uniform over `shortest` to
`longest`. All theory is exact arithmetic: entropy of a line over its mean length, line end included.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from trainables.character_streams.stream import Stream, Theory, until

if TYPE_CHECKING:
    from trainables.character_streams.config import StreamConfig

SPANISH = {
    "uno": "one", "dos": "two", "tres": "three", "cuatro": "four", "cinco": "five", "seis": "six", "siete": "seven",
    "ocho": "eight", "nueve": "nine", "diez": "ten", "once": "eleven", "doce": "twelve", "trece": "thirteen",
    "catorce": "fourteen", "quince": "fifteen", "veinte": "twenty", "treinta": "thirty", "cuarenta": "forty",
    "cien": "hundred", "mil": "thousand",
}  # fmt: skip
"""Spanish number words and the English ones."""

STUDENTS = (
    "Ada Lovelace", "Alan Turing", "Barbara Liskov", "Claude Shannon", "Donald Knuth", "Edsger Dijkstra",
    "Frances Allen", "Grace Hopper", "John McCarthy", "Katherine Johnson", "Margaret Hamilton", "Radia Perlman",
)  # fmt: skip
"""A class list; first names are unique."""

ROWS = ("abcde", "fghij", "klmno", "pqrst", "uvwxyz")
"""The alphabet in rows."""


def insert_spaces(config: StreamConfig) -> Stream:
    """`bad: b a d`."""
    # A line of a word of n letters has n + 2 + (2n - 1) + 1 characters.
    return _of_words("insert-spaces", config, " ".join, overhead=2, per_letter=3)


def copy(config: StreamConfig) -> Stream:
    """`bad: bad`."""
    return _of_words("copy", config, "".join, overhead=3, per_letter=2)


def reverse(config: StreamConfig) -> Stream:
    """`bad: dab`."""
    return _of_words("reverse", config, lambda word: word[::-1], overhead=3, per_letter=2)


def sort(config: StreamConfig) -> Stream:
    """`bad: abd`. A sorted word is not uniform over the alphabet: no plateau is known."""
    made = _of_words("sort", config, lambda word: "".join(sorted(word)), overhead=3, per_letter=2)
    theory = Theory(floor=made.theory.floor, answer_floor=0.0)
    return Stream(made.name, made.lines, made.check, made.prompt, theory, made.characters)


def mixed(config: StreamConfig) -> Stream:
    """`copy bad: bad`, `reverse bad: dab` or `sort bad: abd`, drawn line by line."""
    tasks = {task: builder(config) for task, builder in (("copy", copy), ("reverse", reverse), ("sort", sort))}

    def lines(seed: int) -> Iterator[str]:
        rng = random.Random(seed)
        words = _words(config, rng)
        for word in words:
            task = rng.choice(list(tasks))
            yield f"{task} {_answered(word, _ANSWERS[task])}"

    def check(line: str) -> bool:
        task, _, rest = line.partition(" ")
        checker = tasks[task].check if task in tasks else None
        return checker is not None and checker(rest)

    entropy = math.log(len(tasks)) + _word_entropy(config)
    length = sum(len(task) + 1 for task in tasks) / len(tasks) + 2 * _mean_length(config) + 3
    characters = "".join(sorted(set("\n :" + config.alphabet + "".join(tasks))))
    return Stream("mixed", lines, check, until(": "), Theory(floor=entropy / length, answer_floor=0.0), characters)


def count_by_twos(config: StreamConfig) -> Stream:
    """`43 45 47 49`: `numbers` numbers, the first below `start_below`, each `step` more than the one before."""
    below, step, numbers = config.start_below, config.step, config.numbers

    def line(start: int) -> str:
        return " ".join(str(start + step * index) for index in range(numbers))

    def lines(seed: int) -> Iterator[str]:
        rng = random.Random(seed)
        while True:
            yield line(rng.randrange(below))

    def check(text: str) -> bool:
        first = text.partition(" ")[0]
        return first.isascii() and first.isdigit() and int(first) < below and text == line(int(first))

    everything = [line(start) for start in range(below)]
    return Stream("count-by-twos", lines, check, until(" "), _uniform(everything), "\n 0123456789")


def translation(config: StreamConfig) -> Stream:
    """`siete seven`."""
    return _from_list("translation", [f"{spanish} {english}" for spanish, english in SPANISH.items()])


def students(config: StreamConfig) -> Stream:
    """`Ada Lovelace`: names of a class list, drawn at random."""
    return _from_list("students", STUDENTS)


def alphabet(config: StreamConfig) -> Stream:
    """`abcde`, `fghij`, ...: the alphabet in rows, over and over. Nothing is random."""

    def lines(seed: int) -> Iterator[str]:
        while True:
            yield from ROWS

    theory = Theory(floor=0.0, answer_floor=0.0)
    return Stream("alphabet", lines, ROWS.__contains__, lambda line: line[:1], theory, "\n" + string.ascii_lowercase)


def addition(config: StreamConfig) -> Stream:
    """`12+34=46`: two numbers of up to `digits` digits; with `reverse_target` the sum begins with its ones (`=64`)."""
    limit = 10**config.digits

    def line(first: int, second: int) -> str:
        answer = str(first + second)
        return f"{first}+{second}={answer[::-1] if config.reverse_target else answer}"

    def lines(seed: int) -> Iterator[str]:
        rng = random.Random(seed)
        while True:
            yield line(rng.randrange(limit), rng.randrange(limit))

    def check(text: str) -> bool:
        first, _, rest = text.partition("+")
        second = rest.partition("=")[0]
        numbers = (first, second)
        if not all(each.isascii() and each.isdigit() and len(each) <= config.digits for each in numbers):
            return False
        return text == line(int(first), int(second))

    theory = Theory(floor=2 * math.log(limit) / _addition_length(config.digits), answer_floor=0.0)
    return Stream("addition", lines, check, until("="), theory, "\n+0123456789=")


BUILT_IN: dict[str, tuple[Callable[[StreamConfig], Stream], tuple[str, ...]]] = {
    "insert-spaces": (insert_spaces, ("alphabet", "shortest", "longest")),
    "count-by-twos": (count_by_twos, ("start_below", "step", "numbers")),
    "translation": (translation, ()),
    "alphabet": (alphabet, ()),
    "students": (students, ()),
    "copy": (copy, ("alphabet", "shortest", "longest")),
    "reverse": (reverse, ("alphabet", "shortest", "longest")),
    "sort": (sort, ("alphabet", "shortest", "longest")),
    "mixed": (mixed, ("alphabet", "shortest", "longest")),
    "addition": (addition, ("digits", "reverse_target")),
}
"""Each stream and the fields of `StreamConfig` that it looks at."""

_ANSWERS: dict[str, Callable[[str], str]] = {
    "copy": "".join,
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word)),
}


def _of_words(
    name: str, config: StreamConfig, answer_of: Callable[[str], str], *, overhead: int, per_letter: int
) -> Stream:
    """A stream of lines `word: answer`, which have `overhead` + `per_letter` n characters for a word of n letters."""

    def lines(seed: int) -> Iterator[str]:
        for word in _words(config, random.Random(seed)):
            yield _answered(word, answer_of)

    def check(line: str) -> bool:
        word = line.partition(":")[0]
        fits = config.shortest <= len(word) <= config.longest and set(word) <= set(config.alphabet)
        return fits and line == _answered(word, answer_of)

    mean, letter = _mean_length(config), math.log(len(config.alphabet))
    length = overhead + per_letter * mean
    known = _word_entropy(config)
    answer_length = length - mean - 2  # without the word, the colon and the space
    theory = Theory(
        floor=known / length,
        plateau=(known + mean * letter) / length,
        answer_floor=0.0,
        answer_plateau=mean * letter / answer_length,
    )
    return Stream(name, lines, check, until(": "), theory, "".join(sorted(set("\n :" + config.alphabet))))


def _words(config: StreamConfig, rng: random.Random) -> Iterator[str]:
    while True:
        length = rng.randint(config.shortest, config.longest)
        yield "".join(rng.choices(config.alphabet, k=length))


def _answered(word: str, answer_of: Callable[[str], str]) -> str:
    return f"{word}: {answer_of(word)}"


def _mean_length(config: StreamConfig) -> float:
    return (config.shortest + config.longest) / 2


def _word_entropy(config: StreamConfig) -> float:
    """Of length and letters, in nats."""
    return math.log(config.longest - config.shortest + 1) + _mean_length(config) * math.log(len(config.alphabet))


def _from_list(name: str, everything: Sequence[str]) -> Stream:
    """A stream of lines that are drawn uniformly from a list and answer their first word with the rest."""

    def lines(seed: int) -> Iterator[str]:
        rng = random.Random(seed)
        while True:
            yield rng.choice(everything)

    known = frozenset(everything)
    characters = "".join(sorted(set("\n".join(everything)) | {"\n"}))
    return Stream(name, lines, known.__contains__, until(" "), _uniform(everything), characters)


def _uniform(everything: Sequence[str]) -> Theory:
    """Of lines that are all equally likely and whose prompts are all different."""
    mean = sum(len(line) + 1 for line in everything) / len(everything)
    return Theory(floor=math.log(len(everything)) / mean, answer_floor=0.0)


def _addition_length(digits: int) -> float:
    """Mean characters of a line a+b=c and its line end, for a and b uniform over 0 ... 10^digits - 1.

    The mean length of a number is 1 + the sum over k of the probability that it is 10^k or more.
    """
    limit: int = 10**digits
    number = 1 + sum(1 - 10**k / limit for k in range(1, digits))
    # There are m (m + 1) / 2 pairs with a sum below m, for m up to 10^digits.
    total = 1 + sum(1 - (10**k * (10**k + 1) // 2) / limit**2 for k in range(1, digits + 1))
    return 2 * number + total + 3
