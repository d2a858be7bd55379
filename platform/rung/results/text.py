"""A user's text, made fit to be shown."""

import re

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """The text with a replacement sign for what XML cannot hold (control characters, lone surrogates) and for changes
    of reading direction, which could make it read as something else."""
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: object) -> str:
    """The text on one line, single spaces between its words."""
    return " ".join(printable(str(text)).split())


def quantity(number: float) -> str:
    """A number with a prefix: `1.5 k`, `23 M`."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:,.0f} E"
