"""Reads the `space` of a study file to dimensions, and says what is wrong with it.

Left out: whether the paths and values suit the trainable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rung.explain import Finding, nearest, show
from rung.space import WORDS, Condition, Dimension, Word, in_order, is_among
from rung.yaml_file import KeyPath, dotted, leaves


def read_space(raw: Any) -> tuple[tuple[Dimension, ...], list[Finding]]:
    """Dimensions of a study's `space`, in the order of the file, and what is wrong with it (paths inside `space`)."""
    if raw is None:
        return (), []
    if not isinstance(raw, Mapping):
        return (), [Finding((), f"expected paths with dimensions, got {show(raw)}", "model.kind: [gpt, lstm]")]
    dimensions: list[Dimension] = []
    problems: list[Finding] = []
    _read(raw, (), dimensions, problems)
    problems += _circles(dimensions)
    return tuple(dimensions), problems


def _read(raw: Any, path: KeyPath, dimensions: list[Dimension], problems: list[Finding]) -> None:
    if raw is None and path:
        return
    if isinstance(raw, list | tuple):
        raw = {"grid": raw}
    if not isinstance(raw, Mapping) or (not raw and path):
        hint = f"for one fixed value write base.{dotted(path)}, for several a list"
        problems.append(Finding(path, f"expected a list, or a word such as grid or loguniform, got {show(raw)}", hint))
    elif path and ("when" in raw or any(key in WORDS for key in raw)):
        found = _dimension(raw, path, problems)
        if found is not None:
            dimensions.append(found)
    else:
        for key, value in raw.items():
            _read(value, (*path, *str(key).split(".")), dimensions, problems)


def _dimension(raw: Mapping[str, Any], path: KeyPath, problems: list[Finding]) -> Dimension | None:
    words = [key for key in raw if key in WORDS]
    for key in raw:
        if key not in WORDS and key != "when":
            problems.append(Finding((*path, key), "unknown key in a dimension", nearest(key, [*WORDS, "when"])))
    if len(words) != 1:
        message = f"takes one word, got {' and '.join(words) or 'none'}"
        problems.append(Finding(path, message, "" if words else nearest("", WORDS)))
        return None
    word = WORDS[words[0]]
    arguments = raw[word.name]
    complaint = _complaint(word, arguments)
    when = _conditions(raw.get("when"), path, problems)
    if complaint:
        problems.append(Finding((*path, word.name), f"{complaint}, got {show(arguments)}", word.form))
        return None
    values = (int(value) for value in arguments) if word.kind == "integer" else arguments
    return Dimension(dotted(path), word.name, tuple(values), when)


def _complaint(word: Word, arguments: Any) -> str:
    """What is wrong with what stands behind a word; empty if nothing is."""
    if not isinstance(arguments, list | tuple) or not arguments:
        return "expected a list"
    if word.kind == "values":
        repeated = [value for index, value in enumerate(arguments) if is_among(value, arguments[:index])]
        return f"names {show(repeated[0])} twice" if repeated else ""
    numbers = [value for value in arguments if _is_number(value)]
    if len(numbers) < len(arguments) or len(numbers) != (3 if word.quantised else 2):
        return f"expected {'three' if word.quantised else 'two'} numbers"
    return _complaint_about_numbers(word, *numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _complaint_about_numbers(word: Word, low: float, high: float, q: float = 1) -> str:
    if q <= 0:
        return "q must be above 0"
    if word.kind == "normal":
        return "" if high > 0 else "the standard deviation must be above 0"
    if low >= high:
        return "low must be below high"
    if word.log and low <= 0:
        return "low must be above 0, because the draw is uniform in the logarithm"
    if word.kind == "integer":
        if any(number != int(number) for number in (low, high, q)):
            return "expected whole numbers"
        return "" if high // q >= -(-low // q) else "no multiple of q lies between low and high"
    if word.quantised and any(not math.isclose(bound / q, round(bound / q)) for bound in (low, high)):
        return "low and high must be multiples of q"
    return ""


def _conditions(raw: Any, path: KeyPath, problems: list[Finding]) -> tuple[Condition, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, Mapping) or not raw:
        problems.append(
            Finding((*path, "when"), f"expected a path and its value, got {show(raw)}", "{model.kind: gpt}")
        )
        return ()
    found = []
    for inner, wanted in leaves(raw):
        values = tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,)
        if not values:
            problems.append(Finding((*path, "when", *inner), "an empty list never holds"))
        found.append((dotted(inner), values))
    return tuple(found)


def _circles(dimensions: Sequence[Dimension]) -> list[Finding]:
    _, stuck = in_order(dimensions)
    paths = ", ".join(dimension.path for dimension in stuck)
    return [
        Finding((*dimension.path.split("."), "when"), f"the conditions of {paths} go round in a circle")
        for dimension in stuck[:1]
    ]
