"""The answer normaliser: every case that is known to have gone wrong somewhere, and what must hold for any text."""

from __future__ import annotations

import re
import string
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from trainables.word_problems.normaliser import MOST_CHARACTERS, is_same, normalised, number_in, plain, spelled

EQUAL = [
    # Money, separators, units, percent, stops and spaces.
    ("$108", "108"),
    ("$1350", "1350"),
    ("1350 minutes", "1350"),
    ("40 minutes", "40"),
    ("$3,450", "3450"),
    ("$26", "26"),
    ("$56", "56"),
    ("$360,000", "360000"),
    ("1,000", "1000"),
    ("1,000,000", "1000000"),
    ("50%", "50"),
    ("108.", "108"),
    ("42 apples", "42"),
    ("$ 20", "20"),
    ("20$", "20"),
    ("  7 \n", "7"),
    # Signs.
    ("-5 degrees", "-5"),
    ("\u22125", "-5"),
    ("\u20135", "-5"),
    ("+5", "5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("- 5", "-5"),
    ("-1/2", "-0.5"),
    # Decimals, fractions, powers.
    ("5.0", "5"),
    ("5.00", "5"),
    ("$1,350.00", "1350"),
    ("0.50", ".5"),
    (".5", "0.5"),
    ("1/2", "0.5"),
    ("3 1/2", "3.5"),
    ("3½", "3.5"),
    ("¾ cup", "0.75"),
    ("2 / 4", "1/2"),
    ("1e3", "1000"),
    ("1.5e-3", "0.0015"),
    ("007", "7"),
    ("2 million", "2000000"),
    ("$1.5 million", "1500000"),
    ("10k", "10000"),
    # Behind a marker.
    ("The answer is 42", "42"),
    ("The answer is 42. It took 3 days", "42"),
    ("Final answer: $42", "42"),
    ("x = 5", "5"),
    ("6 x 2 = 12", "12"),
    ("6 x 2 = <<6*2=12>>12\n#### 12", "12"),
    ("10 - 12 = -2", "-2"),
    ("#### 7", "7"),
    ("6 x 2 = 12\nSo there are 12 apples", "12"),
    # Markdown and LaTeX.
    (r"\boxed{42}", "42"),
    (r"$\boxed{\frac{7}{2}}$", "3.5"),
    (r"\(\dfrac{1}{2}\)", "0.5"),
    (r"3\frac{1}{2}", "3.5"),
    (r"\$1{,}000", "1000"),
    (r"1\,000", "1000"),
    (r"50\%", "50"),
    (r"45^\circ", "45"),
    (r"42 \text{ apples}", "42"),
    ("**42**", "42"),
    ("*42* apples", "42"),
    ("<b>42</b>", "42"),
    # Other currencies and other groups of digits.
    ("£20", "20"),
    ("€20", "20"),
    ("USD 20", "20"),
    ("US$20", "20"),
    ("20 EUR", "20"),
    ("Rs. 20", "20"),
    ("1 000", "1000"),
    ("1\u202f000", "1000"),
    ("1'000", "1000"),
    ("1’000", "1000"),
    ("\uff14\uff12", "42"),
    # Words around a number, and numbers that belong to a unit.
    ("about 5", "5"),
    ("5 apples, that is 5", "5"),
    ("5 km", "5"),
    ("5 km/h", "5"),
    ("$5/hour", "5"),
    ("5 m²", "5"),
    ("5 cm^2", "5"),
    ("5 kg of CO2", "5"),
    ("5th", "5"),
    # Right answers that are no numbers.
    ("**Monday.**", "monday"),
    ("2:30", "2:30"),
]

DIFFERENT = [
    ("3/4", "3/5"),
    ("7 or 8", "7"),
    ("7 or 8", "8"),
    ("10-12", "10"),
    ("10-12", "12"),
    ("10–12", "-12"),
    ("6 x 2 = 12", "6"),
    ("6 x 2 = 12", "2"),
    # Calculations that are not carried out, also of equal numbers.
    ("6 x 2", "12"),
    ("6x2", "6"),
    ("12 = 6 x 2", "12"),
    ("5 + 5", "5"),
    ("5*5", "5"),
    ("5 - 5", "5"),
    ("2^3", "2"),
    ("10²", "10"),
    ("10²", "102"),
    ("x/2", "2"),
    (r"\sqrt{2}", "2"),
    ("√2", "2"),
    ("2π", "2"),
    ("±5", "5"),
    ("> 5", "5"),
    # Several numbers.
    ("3 hours 20 minutes", "3"),
    ("3 hours 20 minutes", "200"),
    ("2:30", "2"),
    ("2:30", "230"),
    ("The answer is 7 or 8", "7"),
    ("between 5 and 10", "5"),
    ("5 $100 notes", "5100"),
    ("7 or\n8", "7"),
    ("1,5", "1"),
    ("1,1", "1"),
    ("1,000,00", "1000"),
    ("3.4.5", "3.4"),
    ("5/7/2020", "5/7"),
    # No number.
    ("50%", "0.5"),
    ("two", "2"),
    ("", ""),
    ("", "0"),
    ("no answer", "0"),
    ("CO2", "2"),
    ("1/0", "1"),
    ("1/0", "0"),
    ("-5", "5"),
    ("0.333", "1/3"),
    # Too long to be meant.
    ("1e99999999", "1"),
    ("9" * 5000, "9"),
    ("1e400", "1e401"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_these_say_the_same(answer: str, gold: str) -> None:
    assert is_same(answer, gold)
    assert normalised(answer) == normalised(gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_these_do_not(answer: str, gold: str) -> None:
    assert not is_same(answer, gold)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("$1,350.00", "1350"),
        ("-3 1/2", "-3.5"),
        ("2/6", "1/3"),
        ("-0", "0"),
        (" 7  OR\n8. ", "7 or\n8"),
        ("\u2212.050", "-0.05"),
    ],
)
def test_there_is_one_spelling(text: str, spelling: str) -> None:
    assert normalised(text) == spelling


# Whatever a model may write: any characters, and those that mean something here more often.
SIGNS = ". , ' - + * / ^ = : % $ € < > _ { } ( ) [ ] \\ #### \\boxed{ \\frac{ }{ \\text{ x e k ½ ² − ** << >> => 1/"
WORDS = ["answer is ", "usd", " million", "apples ", " x ", " ", "\n", "\u00a0"]
FRAGMENTS = st.sampled_from([*"0123456789", *SIGNS.split(), *WORDS])
TEXTS = st.one_of(st.text(max_size=30), st.lists(FRAGMENTS, max_size=14).map("".join))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("1E4300")
def test_any_text_is_read_and_reading_is_idempotent(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert plain(plain(text)) == plain(text)
    assert number_in(once) == number_in(text)
    assert is_same(text, once) == (once != "")


NUMBERS = st.fractions(max_denominator=400).filter(lambda number: abs(number) < 10**9)
DECIMALS = st.builds(
    lambda digits, places: Fraction(digits, 10**places), st.integers(-(10**9), 10**9), st.integers(0, 4)
)


@settings(max_examples=150, deadline=None)
@given(NUMBERS)
def test_a_spelled_number_is_read_back(number: Fraction) -> None:
    assert number_in(spelled(number)) == number


@st.composite
def written(draw: st.DrawFn, number: Fraction) -> str:
    """A way to write a decimal number."""
    whole, _, decimals = spelled(abs(number)).partition(".")
    if draw(st.booleans()):
        separator = draw(st.sampled_from([",", "'", " ", "\u202f", "’", "{,}", "\\,"]))
        whole = f"{int(whole):,}".replace(",", separator)
    decimals += "0" * draw(st.integers(0, 2))
    digits = whole + (f".{decimals}" if decimals else "")
    sign = draw(st.sampled_from(["-", "−", "–", "- "])) if number < 0 else draw(st.sampled_from(["", "+"]))
    currency = draw(st.sampled_from(["", "$", "€", "£ ", "USD "]))
    behind = draw(st.sampled_from(["", "%", " apples", ".", "\\%", "°", " km/h", " m²"])) if not currency else ""
    text = f"{currency}{sign}{digits}" if draw(st.booleans()) else f"{sign}{currency}{digits}"
    around = [
        "{}",
        " {} ",
        "**{}**",
        "\\boxed{{{}}}",
        "#### {}",
        "The answer is {}",
        "3 x = {}",
        "about {}\n",
        "$\\text{{{}}}$",
    ]
    return draw(st.sampled_from(around)).format(f"{text}{behind}")


@settings(max_examples=150, deadline=None)
@given(st.data(), DECIMALS)
def test_formatting_does_not_matter(data: st.DataObject, number: Fraction) -> None:
    assert number_in(data.draw(written(number))) == number


@settings(max_examples=150, deadline=None)
@given(st.data(), DECIMALS, DECIMALS)
def test_different_numbers_are_different(data: st.DataObject, one: Fraction, other: Fraction) -> None:
    assume(one != other)
    assert not is_same(data.draw(written(one)), data.draw(written(other)))


@settings(max_examples=100, deadline=None)
@given(DECIMALS, DECIMALS, st.sampled_from([" or ", " and ", "-", " to ", " + ", ", ", "/", " x "]))
def test_of_two_numbers_none_is_taken(one: Fraction, other: Fraction, between: str) -> None:
    assume(one != other and between != "/")
    text = f"{spelled(one)}{between}{spelled(other)}"
    assert number_in(text) not in (one, other)


@pytest.mark.parametrize("text", ["\\text{" * 500 + "5" + "}" * 500, "\\" * 2000 + "$5", "<" * 2000 + "5" + ">" * 2000])
def test_a_text_that_would_take_long_is_none(text: str) -> None:
    assert normalised(text) == ""


def test_the_table_of_the_page_is_right() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"
    table = page.read_text().partition("| written | read as |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", table, re.MULTILINE)
    assert len(rows) == 10
    for written_so, read_as in rows:
        texts, numbers = re.findall("`([^`]+)`", written_so), read_as.split(", ")
        for place, text in enumerate(texts):
            number = numbers[place % len(numbers)]
            assert number_in(text) == (None if number == "no number" else Fraction(number)), text


def test_the_longest_number() -> None:
    assert number_in("9" * MOST_CHARACTERS) is not None
    assert number_in("9" * (MOST_CHARACTERS + 1)) is None
    assert set(string.digits) >= set(normalised("1e250"))
