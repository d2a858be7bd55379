"""Settings of a command: one model of them gives the flags, their help, and the keys of a JSON file. Imports no torch.

Every field of the model is a flag (`--learning-rate` for `learning_rate`), its docstring the help text. A value on the
command line wins over one in the file, which wins over the default. All that is wrong is said in one message.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from rung.errors import RungError, StorageError
from rung.explain import Finding, findings, show

ModelT = TypeVar("ModelT", bound=BaseModel)


def add_flags(parser: argparse._ActionsContainer, model: type[BaseModel], leave_out: Collection[str] = ()) -> None:
    """Gives a parser a flag for every field of a model; one that is not used leaves no trace in the namespace."""
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        options: dict[str, Any] = {"metavar": _metavar(name, field)}
        if field.annotation is bool:
            options = {"action": "store_true"}
        parser.add_argument(_flag(name), dest=name, default=argparse.SUPPRESS, help=_help(field), **options)


def given(found: argparse.Namespace, model: type[BaseModel]) -> dict[str, Any]:
    """What the command line says about a model's fields; `none` is no value where that is allowed."""
    values = {name: value for name, value in vars(found).items() if name in model.model_fields}
    for name, value in values.items():
        if value == "none" and NoneType in get_args(model.model_fields[name].annotation):
            values[name] = None
    return values


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        RungError: it holds something else.
        StorageError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise RungError(f"{path} must hold one object of settings, and holds {show(content)}")
    return content


def settled(
    model: type[ModelT], flags: Mapping[str, Any], file: Path | None = None, defaults: Mapping[str, Any] | None = None
) -> ModelT:
    """The settings that flags and a file describe together.

    Args:
        model: of the settings.
        flags: values from the command line.
        file: a JSON file of further values.
        defaults: values that hold where neither says anything.

    Raises:
        RungError: they are wrong; the text names every problem and where it was written.
        StorageError: the file cannot be read.
    """
    written = {} if file is None else read_settings(file)
    values = {**(defaults or {}), **written, **flags}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [
            _line(found, file if _is_in_file(found, flags, written) else None)
            for found in findings(error, model, values)
        ]
        raise RungError("\n".join(["these settings cannot be used:", *lines])) from error


def _is_in_file(found: Finding, flags: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    name = found.path[0] if found.path else None
    return name is None or (name in written and name not in flags)


def _line(found: Finding, file: Path | None) -> str:
    """One sentence about what is wrong, and where it was written."""
    hint = f" ({found.hint})" if found.hint else ""
    if file is None and found.path:
        place = _flag(str(found.path[0]))
    else:
        place = ": ".join(filter(None, [str(file or ""), ".".join(map(str, found.path))]))
    return f"  {place}: {found.message}{hint}" if place else f"  {found.message}{hint}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _metavar(name: str, field: FieldInfo) -> str:
    kinds = [each for each in (field.annotation, *get_args(field.annotation)) if get_origin(each) is Literal]
    if kinds:
        return "{" + ",".join(str(choice) for choice in get_args(kinds[0])) + "}"
    return name.rpartition("_")[2].upper()


def _help(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("%", "%%")
    if field.is_required():
        return f"{text} (required)"
    default = field.get_default(call_default_factory=True)
    return text if default is None or default is False else f"{text} ({default})"
