"""Streams of lines: what they yield, what is right, what theory says; functions of the user's own."""

from __future__ import annotations

import math
import random
import textwrap
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from pydantic import ValidationError

from rung.errors import RungError
from trainables.character_streams import stream
from trainables.character_streams.config import CharacterStreamsConfig, StreamConfig
from trainables.character_streams.corpus import Corpus, corpus, stream_of, vocabulary_size
from trainables.character_streams.stream import own_stream, taken, until
from trainables.character_streams.streams import BUILT_IN

EXAMPLES = {
    "insert-spaces": ("bad: b a d", "bad: b a b"),
    "count-by-twos": ("96 98 100 102", "100 102 104 106"),
    "translation": ("siete seven", "siete six"),
    "alphabet": ("fghij", "ghijk"),
    "students": ("Ada Lovelace", "Ada Turing"),
    "copy": ("bad: bad", "bad: dab"),
    "reverse": ("dab: bad", "dab: dab"),
    "sort": ("dab: abd", "dab: bad"),
    "mixed": ("reverse dab: bad", "copy dab: bad"),
    "addition": ("12+9=21", "12+9=22"),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_stream_yields_right_lines_of_its_characters(name: str) -> None:
    made = StreamConfig(name=name).stream()
    lines = list(islice(made.lines(0), 300))
    assert lines == list(islice(made.lines(0), 300))
    if name != "alphabet":
        assert lines != list(islice(made.lines(1), 300))
    assert made.check is not None
    assert all(made.check(line) for line in lines)
    assert set("".join(lines) + "\n") <= set(made.characters or "")
    assert list(made.characters or "") == sorted(set(made.characters or ""))
    assert made.prompt is not None
    assert all(line.startswith(made.prompt(line)) and made.prompt(line) != line for line in lines)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_checker_tells_right_from_wrong(name: str) -> None:
    right, wrong = EXAMPLES[name]
    check = StreamConfig(name=name).stream().check
    assert check is not None
    assert check(right)
    for line in (wrong, "", "?", right + " ", right[:-1]):
        assert not check(line), line


@pytest.mark.parametrize("name", sorted(set(BUILT_IN) - {"alphabet"}))
def test_the_floor_is_the_entropy_of_the_lines(name: str) -> None:
    """From the frequencies of many lines, with Miller and Madow's correction for the finite sample."""
    small = {"addition": {"digits": 1}, "count-by-twos": {"start_below": 30}}.get(name, {})
    short = {"longest": 2} if "longest" in BUILT_IN[name][1] else {}
    made = StreamConfig(name=name, **small, **short).stream()
    lines = list(islice(made.lines(3), 10_000))
    counts = Counter(lines)
    entropy = sum(-count / len(lines) * math.log(count / len(lines)) for count in counts.values())
    entropy += (len(counts) - 1) / (2 * len(lines))
    floor = entropy / (sum(len(line) + 1 for line in lines) / len(lines))
    assert made.theory.floor == pytest.approx(floor, rel=0.015)


def test_insert_spaces_is_the_original() -> None:
    """The course's settings: vocabulary 8, 155 lines, floor .5397 and plateau .9420 nats per character."""
    config = CharacterStreamsConfig()
    made = config.stream.stream()
    assert made.characters == "\n :abcde"
    assert made.theory.floor == pytest.approx((math.log(3) + 2 * math.log(5)) / 8)
    assert made.theory.plateau == pytest.approx((math.log(3) + 4 * math.log(5)) / 8)
    assert made.theory.answer_plateau == pytest.approx(math.log(5) / 2)
    lines = taken(lambda: made.lines(0), config.characters, made.name)
    total = sum(len(line) + 1 for line in lines)
    assert 1_200_000 <= total < 1_200_000 + len("abc: a b c\n")
    assert len(set(lines)) == 5 + 25 + 125
    text = corpus(config, 0)
    cut = int(0.8 * len(lines))
    assert len(text.splits["train"]) == sum(len(line) + 1 for line in lines[:cut])
    assert text.codec is not None
    assert text.codec.decode(text.splits["validation"][:11].tolist()).startswith(lines[cut])


def test_theory_follows_the_difficulty() -> None:
    theory = StreamConfig(longest=1, alphabet="ab").stream().theory
    assert theory.floor == pytest.approx(math.log(2) / 5)  # `a: a` and its end
    assert theory.plateau == pytest.approx(2 * math.log(2) / 5)
    assert StreamConfig(name="count-by-twos", start_below=1).stream().theory.floor == 0


def test_the_plateau_of_guessed_letters_is_reached_by_a_guesser() -> None:
    """A model that knows the format and the word's letters' entropy, but not the word, loses ln 5 at every letter."""
    made = StreamConfig().stream()
    lines = list(islice(made.lines(0), 10_000))
    letters = sum(character.isalpha() for line in lines for character in line)
    characters = sum(len(line) + 1 for line in lines)
    guessed = (math.log(3) * len(lines) + math.log(5) * letters) / characters
    assert made.theory.plateau == pytest.approx(guessed, rel=0.01)


def test_reversed_sums_begin_with_their_ones() -> None:
    config = StreamConfig(name="addition", digits=3, reverse_target=True)
    check = config.stream().check
    assert check is not None
    assert check("500+7=705")
    assert not check("500+7=507")
    assert not check("1000+7=7001")  # too many digits


def test_held_out_lines_are_disjoint() -> None:
    config = CharacterStreamsConfig(characters=20_000, held_out="lines", validation_fraction=0.25)
    text = corpus(config, 5)
    lines = {
        split: set(text.codec.decode(ids.tolist()).splitlines()) for split, ids in text.splits.items() if text.codec
    }
    assert not lines["train"] & lines["validation"]
    assert len(lines["validation"]) == round(0.25 * 155)
    again, other = corpus(config, 5), corpus(config, 6)
    assert (again.splits["train"] == text.splits["train"]).all()
    assert other.lines("validation", 50) != text.lines("validation", 50)


def test_which_lines_are_held_out_has_random_numbers_of_its_own() -> None:
    config = CharacterStreamsConfig(characters=20_000, held_out="lines", validation_fraction=0.25)
    parted, whole = (written(corpus(each, 5)) for each in (config, config.model_copy(update={"held_out": "none"})))
    drawn = [*whole["train"], *whole["validation"]]
    held = set(parted["validation"])
    assert drawn == taken(lambda: config.stream.stream().lines(5), 20_000, "")  # the lines are what they were
    assert parted["train"] == [line for line in drawn if line not in held]
    assert parted["validation"] == [line for line in drawn if line in held]
    different = sorted(set(drawn))
    random.Random(5).shuffle(different)  # with the seed of the lines
    assert len(held & set(different[: len(held)])) < len(held) / 2
    assert sorted(held)[:4] == ["aa: a a", "aae: a a e", "abc: a b c", "ad: a d"]  # in every version of Python


def written(text: Corpus) -> dict[str, list[str]]:
    assert text.codec is not None
    return {split: text.codec.decode(ids.tolist()).splitlines() for split, ids in text.splits.items()}


def test_which_characters_are_answers() -> None:
    text = corpus(CharacterStreamsConfig(characters=200, stream=StreamConfig(longest=2)), 0)
    assert text.codec is not None
    wanted = text.answers("train")
    decoded = text.codec.decode(text.splits["train"].tolist())
    marked = "".join(character if is_answer else "_" for character, is_answer in zip(decoded, wanted, strict=True))
    for line, shown in zip(decoded.splitlines(), marked.splitlines(), strict=True):
        prompt = line.partition(": ")[0] + ": "
        assert shown == "_" * len(prompt) + line.removeprefix(prompt)


OWN = """
import random
from trainables.character_streams import stream

def is_right(line):
    first, _, second = line.partition(" doubled is ")
    return second == str(2 * int(first))

@stream(check=is_right, prompt=" doubled is ", floor=lambda below=10: 1.0 / below)
def lines(seed, below=10):
    rng = random.Random(seed)
    while True:
        number = rng.randrange(below)
        yield f"{number} doubled is {2 * number}"

def plain(seed):
    for number in range(seed, 40):
        yield str(number)

def numbers(seed):
    yield from range(5)

def nothing(seed):
    return 3

def breaks(seed):
    yield "1"
    yield str(1 // 0)

@stream(check=lambda line: line == "4")
def wrong(seed):
    yield "3"

@stream(check=int)
def fails(seed):
    yield "x"

@stream(prompt=lambda line: "no")
def elsewhere(seed):
    yield "x"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my_streams.py"
    path.write_text(textwrap.dedent(OWN))
    return path


def test_a_function_of_ones_own(own: Path) -> None:
    config = CharacterStreamsConfig.model_validate(
        {"stream": {"name": f"{own}:lines", "options": {"below": 4}}, "characters": 2000}
    )
    made = stream_of(config)
    assert made is not None
    assert made.theory.floor == 0.25
    assert made.prompt is not None
    assert made.prompt("3 doubled is 6") == "3 doubled is "
    assert made.check is not None
    assert made.check("3 doubled is 6")
    assert vocabulary_size(config) == len(set("0123 doubled is 246\n"))
    assert set(corpus(config, 1).lines("validation", 100)) <= {f"{n} doubled is {2 * n}" for n in range(4)}


def test_a_function_by_module_name(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own.parent))
    made = own_stream("my_streams:plain", {})
    assert made.check is None
    assert own_stream("my_streams.py:plain", {}).name == "my_streams.py:plain"  # a file on the import path
    assert list(made.lines(37)) == ["37", "38", "39"]
    assert len(taken(lambda: made.lines(0), 10**6, "plain")) == 40  # a stream may end


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("{own}:line", {}, "did you mean 'lines'"),
        ("{own}:lines", {"above": 3}, "no option 'above': it takes below"),
        ("{own}:plain", {"above": 3}, "it takes a seed and nothing else"),
        ("nowhere.py:lines", {}, "no such file"),
        ("no_such_module:lines", {}, "cannot be imported.*PYTHONPATH"),
    ],
)
def test_a_function_that_is_not_there_is_explained(
    own: Path, name: str, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(RungError, match=complaint):
        own_stream(name.format(own=own), options)


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("numbers", "line 1 is 0.*one line of text"),
        ("nothing", "takes a seed and yields lines"),
        ("breaks", "fails at line 2 with ZeroDivisionError"),
        ("wrong", "its checker says that its own line '3' is wrong"),
        ("fails", "its checker or prompt rule fails on its own line 'x' with ValueError"),
        ("elsewhere", "the prompt 'no' is no beginning of its own line 'x'"),
    ],
)
def test_what_is_no_stream_is_explained(own: Path, function: str, complaint: str) -> None:
    with pytest.raises(RungError, match=complaint):
        own_stream(f"{own}:{function}", {})


def test_a_line_that_the_checker_fails_on_is_wrong(own: Path) -> None:
    made = own_stream(f"{own}:lines", {})
    assert made.is_right("3 doubled is 6", "")
    assert not made.is_right("x doubled is 6", "")  # int("x") raises


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": "insert_spaces"}, "did you mean 'insert-spaces'"),
        ({"name": "copy", "digits": 3}, "does not look at digits"),
        ({"alphabet": "aab"}, "letters must be different"),
        ({"shortest": 4}, "must not be above"),
        ({"name": "copy", "options": {"x": 1}}, "does not look at options"),
    ],
)
def test_a_bad_stream_is_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        StreamConfig.model_validate(values)


def test_loss_on_answers_needs_a_prompt_rule(own: Path) -> None:
    values = {"stream": {"name": f"{own}:plain"}, "loss_on": "answer"}
    with pytest.raises(ValidationError, match=r"no prompt rule.*@stream\(prompt"):
        CharacterStreamsConfig.model_validate(values)


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    @stream(prompt="=")
    def lines(seed: int):  # type: ignore[no-untyped-def]
        yield "1=1"

    assert list(lines(0)) == ["1=1"]
    assert until("=")("1=2=3") == "1="
