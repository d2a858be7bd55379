"""Batches of several runs as one: takes a batch apart into tensors and its structure, and puts it together again.

A batch is a tensor, or dataclasses, tuples, lists and dictionaries of tensors, with numbers and text in between.
Two batches can be stacked if their structures are equal: the same nesting, constants, shapes and types of tensors.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rung.errors import RungError

Structure = tuple[Any, ...]
"""Hashable; equal for batches that can be stacked."""

_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, enum.Enum, torch.dtype, torch.device)


def take_apart(batch: Any) -> tuple[list[torch.Tensor], Structure]:
    """The tensors of a batch, in a fixed order, and its structure.

    Raises:
        RungError: something in it is neither a tensor nor a plain value nor a container of these.
    """
    tensors: list[torch.Tensor] = []
    return tensors, _structure(batch, tensors)


def put_together(structure: Structure, tensors: Sequence[torch.Tensor]) -> Any:
    """The batch of that structure with these tensors, which may have other shapes."""
    return _build(structure, iter(tensors))


def _structure(part: Any, tensors: list[torch.Tensor]) -> Structure:
    kind = type(part)
    if isinstance(part, torch.Tensor):
        tensors.append(part)
        return "tensor", part.shape, part.dtype, part.device
    if isinstance(part, _CONSTANTS):
        return "constant", kind, part
    if isinstance(part, tuple | list):
        return "sequence", kind, *(_structure(each, tensors) for each in part)
    if isinstance(part, dict):
        return "mapping", kind, tuple(part), *(_structure(each, tensors) for each in part.values())
    if dataclasses.is_dataclass(part):
        names = tuple(field.name for field in dataclasses.fields(part))
        return "fields", kind, names, *(_structure(getattr(part, name), tensors) for name in names)
    raise RungError(
        f"a batch holds a {kind.__name__}, and runs that are trained together need batches of tensors, numbers and "
        "text, in dataclasses, tuples, lists and dictionaries: make it one of these, or use replication: serial"
    )


def _build(structure: Structure, tensors: Iterator[torch.Tensor]) -> Any:
    match structure:
        case ("tensor", *_):
            return next(tensors)
        case ("constant", _, value):
            return value
        case ("sequence", kind, *parts):
            built = [_build(part, tensors) for part in parts]
            return kind(*built) if hasattr(kind, "_fields") else kind(built)  # a named tuple takes them one by one
        case ("mapping", kind, keys, *parts):
            return kind(zip(keys, (_build(part, tensors) for part in parts), strict=True))
        case (_, kind, names, *parts):
            # Not by the constructor: it may check shapes, or not take all fields.
            new = object.__new__(kind)
            for name, part in zip(names, parts, strict=True):
                object.__setattr__(new, name, _build(part, tensors))
            return new
