"""What number an answer states, however it is written. Exact (fractions, no floats), never raises. Imports no torch.

    >>> [str(number_in(text)) for text in ("**$1,350.00**", "3 1/2 cups", "6 x 2 = 12", "7 or 8")]
    ['1350', '7/2', '12', 'None']

`plain` takes away what is mere typography. `_stated` narrows a text down to what stands behind the last marker of an
answer (`####`, `\\boxed{}`, "the answer is", `=`), if there is a number there. What is left must state one number:
several different ones are none, nor are those of a calculation, a range or a time. What is doubtful is read as no
number rather than as a wrong one, because a model learns from every mistake that is rewarded.

Decisions that could have been others are listed in docs/rewards.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

MOST_CHARACTERS = 300
"""A number that takes more characters than this, written out, is read as none."""

MOST_PASSES = 20
"""What one pass uncovers (`\\text{\\text{5}}`) the next takes away; a text that needs more passes is no answer."""


def normalised(text: str) -> str:
    """One spelling for all ways to write a number: `1350`, `-0.5`, `1/3`; any other text as `plain` makes it.

    `normalised(normalised(text)) == normalised(text)`.
    """
    bare = plain(text)
    number = _read(bare)
    return bare if number is None else spelled(number)


def number_in(text: str) -> Fraction | None:
    """The number that a text states; None: it states none, or it cannot be told which."""
    return _read(plain(text))


def is_same(answer: str, gold: str) -> bool:
    """Whether an answer says what the right answer says: the same number or, if that is no number, the same words."""
    return normalised(answer) == normalised(gold) != ""


def spelled(number: Fraction) -> str:
    """A number as a decimal if it comes to an end, otherwise as a fraction: `-2.5`, `1/3`."""
    places, rest = 0, number.denominator
    while rest % 10 == 0:
        places, rest = places + 1, rest // 10
    for factor in (2, 5):
        while rest % factor == 0:
            places, rest = places + 1, rest // factor
    if rest > 1:
        return str(number)
    digits = str(abs(number.numerator) * 10**places // number.denominator).zfill(places + 1)
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if number < 0 else "") + whole + (f".{decimals}" if decimals else "")


# Typography.

_CHARACTERS = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d", "-")
    | dict.fromkeys("\u2019\u02bc\u2032`", "'")
    | dict.fromkeys("€£¥₹", "$")
    | dict.fromkeys("\u2044\u2215÷", "/")
    | dict.fromkeys("×✕✖", "x")
    | dict.fromkeys("·⋅∙", "*")
    | dict.fromkeys("≈≃≅→⇒", "=")
    | dict.fromkeys("\u200b\u2060\ufeff")
    | {raised: f"^{digit}" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
    | {lowered: f"_{digit}" for digit, lowered in enumerate("₀₁₂₃₄₅₆₇₈₉")}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)

_REWRITTEN = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<<[^<>]*>>", ""),  # GSM8K's notes for a calculator
        (r"</?[a-z][a-z0-9]*>", " "),
        (r"\\[dt]?frac ?\{([^{}]*)\}[ ]?\{([^{}]*)\}", r" \1/\2 "),
        (r"\\(?:text|mathrm|mathbf|textbf) ?\{([^{}]*)\}", r" \1 "),
        (r"\\(?:times|cdot)(?![a-z])", " x "),
        (r"\\approx(?![a-z])", " = "),
        (r"\^? ?\{?\\(?:circ|degree)(?![a-z])\}?", " "),
        (r"\\[,;:! ]|\\(?:left|right|quad)(?![a-z])", " "),
        (r"\\([$%#&()\[\]])", r" \1"),
        (r"\{,\}", ","),
        (r"[-=]>", "="),
        (r"\*\*|__|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)", ""),  # bold and italic; between numbers a star multiplies
        (r"(?<![a-z])(?:usd|eur|gbp|inr|rs\.?)(?= ?[-+]?[0-9])|(?<![a-z])us\$", "$"),
        (r"\$ ?([-+])(?=[.0-9])", r"\1$"),
        (r"(?<=[0-9]) ?/ ?(?=[.0-9])", "/"),
    )
]


def plain(text: str) -> str:
    """A text in lower case without typography: one kind of space, minus and currency sign, no emphasis, no tags, no
    stop at its end; nothing where that takes too long. `plain(plain(text)) == plain(text)`."""
    for _ in range(MOST_PASSES):
        before, text = text, _plainer(text)
        if text == before:
            return text
    return ""


def _plainer(text: str) -> str:
    text = "".join(map(_spaced, text)).translate(_CHARACTERS).casefold()
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line).rstrip(".!;, \n")


def _spaced(character: str) -> str:
    """A fraction that is one character in several, so that 3½ is 3 1/2; every other character itself."""
    is_fraction = not character.isascii() and "FRACTION" in unicodedata.name(character, "")
    return f" {unicodedata.normalize('NFKC', character)} " if is_fraction else character


# What is stated.

_MARKERS = (
    re.compile(r".*####([^\n]*)", re.DOTALL),
    re.compile(r".*\\boxed ?\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", re.DOTALL),
    re.compile(r".*\banswer(?: is|:)((?:[^\n.!?]|[.!?](?!\s|$))*)", re.DOTALL),
    re.compile(r".*=(.*)", re.DOTALL),
)

_DECIMAL = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:'[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+(?!/)|[0-9]+)(?![0-9])"
    r"(?:\.[0-9]+)?|\.[0-9]+)"
)
_NUMBER = re.compile(
    r"(?P<sign>(?<![a-z0-9)])[-+] ?)?(?:\$ ?)?"
    rf"(?:(?P<whole>[0-9]+) (?P<part>[0-9]+/[0-9]+)|(?P<top>{_DECIMAL})/(?P<bottom>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL})(?:e(?P<exponent>[-+]?[0-9]+))?)"
    r"(?: ?(?P<scale>hundred|thousand|million|billion|trillion)(?![a-z])|(?P<k>k)(?![a-z]))?"
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_IN_A_WORD = re.compile(r"[a-z][\^_]?\Z")
_TIMES = re.compile(r"[0-9)] ?x\Z")
_UNREADABLE = re.compile(r"[±√π∞<>≤≥≠\\]|(?<![a-z])(?:sqrt|pi)(?![a-z])")
_OPERATION = re.compile(r"[-+*/^_:%]|(?<![a-z])x(?![a-z])")
_TALK = re.compile(r"[a-z\n]")
_OPERAND_BEFORE = re.compile(r"[/^]\Z|[a-z)] ?\*\Z")
_OPERAND_AFTER = re.compile(r" ?[*^]")


def _stated(text: str) -> str:
    """What stands behind the last marker of each kind, one kind after another."""
    for marker in _MARKERS:
        found = marker.match(text)
        if found and re.search(r"[0-9]", found[1]):
            text = found[1]
    return text


def _read(bare: str) -> Fraction | None:
    """The number that a text without typography states."""
    text = _stated(bare)
    found = list(_numbers(text))
    if not found or _UNREADABLE.search(text):
        return None
    if _OPERAND_BEFORE.search(text[: found[0].start()]) or _OPERAND_AFTER.match(text, found[-1].end()):
        return None
    between = [text[one.end() : other.start()] for one, other in pairwise(found)]
    if any(_OPERATION.search(words) or not _TALK.search(words) for words in between):
        return None
    values = {_value(each) for each in found}
    value = values.pop()
    return value if not values and value is not None and len(spelled(value)) <= MOST_CHARACTERS else None


def _numbers(text: str) -> Iterator[re.Match[str]]:
    """The numbers in a text, without those that belong to a word or a unit (`co2`, `m^2`)."""
    for found in _NUMBER.finditer(text):
        before = text[max(0, found.start() - 3) : found.start()]
        if "$" in found[0] or _TIMES.search(before) or not _IN_A_WORD.search(before):
            yield found


def _value(found: re.Match[str]) -> Fraction | None:
    """The value of a match of `_NUMBER`; None: it is too long, or a fraction of nothing."""
    exponent = found["exponent"] or "0"
    if len(found[0]) > MOST_CHARACTERS or len(exponent) > 4 or abs(int(exponent)) > MOST_CHARACTERS:
        return None
    if found["decimal"]:
        value = _decimal(found["decimal"]) * Fraction(10) ** int(exponent)
    else:
        top, bottom = (found["part"] or f"{found['top']}/{found['bottom']}").split("/")
        if not _decimal(bottom):
            return None
        value = int(found["whole"] or 0) + _decimal(top) / _decimal(bottom)
    value *= _SCALES.get(found["scale"], 1000 if found["k"] else 1)
    return -value if (found["sign"] or "").startswith("-") else value


def _decimal(digits: str) -> Fraction:
    return Fraction(re.sub("[ ,']", "", digits))
