"""Nested settings under dotted names, and what differs between two of them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, in their order; an empty mapping is nothing."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two nested settings: dotted name to (before, after), in their order. None: not there."""
    one, other = flat(before), flat(after)
    return {name: (one.get(name), other.get(name)) for name in one | other if one.get(name) != other.get(name)}
