"""Turns pydantic's errors into sentences that say what is wrong and what to write instead.

Pydantic names its own types ("Input should be a valid integer, unable to parse string as an integer") and inserts
the members of a union into an error's place. Here an error becomes a `Finding`: a place made of the user's own keys,
one plain sentence, the nearest valid name. Left out: lines, which only the reader of the file knows.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rung.yaml_file import KeyPath


@dataclass(frozen=True)
class Finding:
    """One thing that a model refuses."""

    path: KeyPath
    """The place, in keys of the data."""
    message: str
    """What is wrong, in one sentence without a full stop."""
    hint: str = ""
    """What to write instead."""
    is_combination: bool = False
    """Each value is fine by itself; a check that looks at several of them failed."""


def findings(error: ValidationError, model: type[BaseModel], data: Any) -> list[Finding]:
    """Every error of a validation of `data` by `model`, at most one for each place."""
    by_place: dict[tuple[KeyPath, bool], list[Finding]] = {}
    for detail in error.errors(include_url=False):
        finding = _finding(detail, model, data)
        by_place.setdefault((finding.path, finding.is_combination), []).append(finding)
    return [_merged(group) for group in by_place.values()]


def _merged(group: list[Finding]) -> Finding:
    """The members of a union each complain about the same value: one sentence that names them all."""
    first = group[0]
    expected = [finding.message.split(", got ")[0].removeprefix("expected ") for finding in group]
    if len(set(expected)) == 1 or not all(finding.message.startswith("expected ") for finding in group):
        return first
    got = first.message.split(", got ", 1)[1]
    return Finding(first.path, f"expected {' or '.join(dict.fromkeys(expected))}, got {got}", first.hint)


def _finding(detail: ErrorDetails, model: type[BaseModel], data: Any) -> Finding:
    path, holders = _place(detail["loc"], model, data)
    kind, context = detail["type"], detail.get("ctx", {})
    given = detail["input"]
    if kind == "extra_forbidden":
        return Finding(path, "unknown key", nearest(str(path[-1]), field_names(holders)))
    if kind == "missing":
        return Finding(path, "is missing", _describe_field(holders, str(path[-1])))
    if kind in ("value_error", "assertion_error"):
        several = not path or bool(models_at(model, path)) or not isinstance(path[-1], str)
        return Finding(path, str(context["error"]), is_combination=several and isinstance(given, dict | BaseModel))
    if kind == "literal_error":
        choices = _choices(model, path)
        return Finding(path, f"expected {one_of(choices)}, got {show(given)}", nearest(str(given), choices, rest=False))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        inner = (*path, str(context["discriminator"]).strip("'"))
        return Finding(inner, f"expected one of {context.get('expected_tags', 'its kinds').replace(chr(39), '')}")
    if kind in ("model_type", "model_attributes_type", "dataclass_type", "dict_type"):
        names = field_names(models_at(model, path))
        keys = f" with {', '.join(names)}" if names else ""
        return Finding(path, f"expected keys with values, got {show(given)}", f"a mapping{keys}")
    if kind in _SENTENCES:
        numbers = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
        sentence = _SENTENCES[kind].format(**numbers, s="" if _only_one(context) else "s")
        return Finding(path, f"{sentence}, got {show(given)}", _quoting_hint(kind, given))
    return Finding(path, f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {show(given)}")


_SENTENCES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "expected a list"),
    "string_type": "expected text",
    "none_required": "expected nothing (null)",
    "finite_number": "must be finite",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "needs at least {min_length} item{s}",
    "too_long": "takes at most {max_length} item{s}",
    "string_too_short": "needs at least {min_length} character{s}",
    "string_too_long": "takes at most {max_length} character{s}",
    "string_pattern_mismatch": "does not match the pattern {pattern}",
}


def _only_one(context: Mapping[str, Any]) -> bool:
    return 1 in (context.get("min_length"), context.get("max_length"))


def _quoting_hint(kind: str, given: Any) -> str:
    is_scalar = isinstance(given, bool | int | float)
    return f'put it in quotes: "{show(given)}"' if kind == "string_type" and is_scalar else ""


# Words.


def show(value: Any) -> str:
    """A value as it would stand in a study file, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_of(names: Sequence[Any]) -> str:
    """`one of gpt, lstm`, or the only one there is."""
    text = ", ".join(name if isinstance(name, str) else show(name) for name in names)
    return f"one of {text}" if len(names) > 1 else text


def nearest(word: str, names: Iterable[str], *, rest: bool = True) -> str:
    """A hint: the name that was probably meant, or else (with `rest`) all there are."""
    known = [name for name in dict.fromkeys(str(name) for name in names) if name != word]
    by_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=0.6)
    if near:
        return f"did you mean {by_case[near[0]]!r}?"
    # `loss` for `validation/loss`, `lr` for `learning_rate`
    meant = [name for name in known if name.endswith((f".{word}", f"/{word}")) or _initials(name) == word.lower()]
    if meant:
        return f"did you mean {meant[0]!r}?"
    shown = known if len(known) <= 24 else [*known[:24], "..."]
    return f"there are {', '.join(shown)}" if rest and known else ""


def _initials(name: str) -> str:
    return "".join(part[:1] for part in name.lower().split("_"))


# Models: which fields there are at a path.


def models_at(model: type[BaseModel], path: Sequence[str | int]) -> list[type[BaseModel]]:
    """The models that may stand at a path below `model`; more than one where a field is a union."""
    return [found for found in types_at(model, path) if _is_model(found)]


def types_at(model: type[BaseModel], path: Sequence[str | int]) -> list[Any]:
    """The types that a value at a path below `model` may have; none if there is no such path."""
    types: list[Any] = [model]
    for key in path:
        types = [inner for outer in types for inner in _step(outer, key)]
    return types


def field_names(models: Iterable[type[BaseModel]]) -> list[str]:
    """The names of the fields of some models, in their order."""
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def field_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted path below `model`, inner nodes included."""
    paths = []
    for name, field in model.model_fields.items():
        paths.append(f"{prefix}{name}")
        for inner in _members(field.annotation):
            if _is_model(inner):
                paths += field_paths(inner, f"{prefix}{name}.")
    return list(dict.fromkeys(paths))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation stands for: unions and metadata taken off."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [inner for member in get_args(annotation) for inner in _members(member)]
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    return [annotation]


def _step(annotation: Any, key: str | int) -> list[Any]:
    """The types below one key of a type."""
    if _is_model(annotation):
        field = annotation.model_fields.get(str(key))
        return [] if field is None else _members(field.annotation)
    if annotation is Any:
        return [Any]
    arguments = get_args(annotation)
    if isinstance(key, int) and arguments:
        return _members(arguments[min(key, len(arguments) - 1)] if arguments[-1] is not ... else arguments[0])
    if get_origin(annotation) is dict:
        return _members(arguments[1])
    return []


def _place(loc: Sequence[str | int], model: type[BaseModel], data: Any) -> tuple[KeyPath, list[type[BaseModel]]]:
    """An error's place without the names of union members, and the models that hold its last key."""
    path: KeyPath = ()
    holders: list[type[BaseModel]] = []
    for key in loc:
        here = models_at(model, path)
        in_data = key in data if isinstance(data, dict) else isinstance(data, list | tuple) and isinstance(key, int)
        if in_data or str(key) in field_names(here):
            holders = here
            path = (*path, key)
            data = data[key] if in_data and (isinstance(data, dict) or int(key) < len(data)) else None
    return path, holders


def _choices(model: type[BaseModel], path: KeyPath) -> list[Any]:
    """The values of the `Literal`s at a path."""
    return list(dict.fromkeys(value for found in types_at(model, path) for value in _literals(found)))


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _describe_field(holders: Iterable[type[BaseModel]], name: str) -> str:
    """The first sentence of a field's docstring."""
    for model in holders:
        text = (model.model_fields[name].description or "") if name in model.model_fields else ""
        return " ".join(text.split()).split(". ")[0].rstrip(".")
    return ""
