"""Names that last: `config_id` of a configuration, `run_id` of a run.

An id is a hash of complete values, so it does not change with the way in which a file is written. It must not change
with later versions of rung either: a field that is added to a configuration is marked `ADDED_LATER`, and counts only
where it differs from its default, which stands for what was done before there was such a field.

    sharpness: Annotated[float, ADDED_LATER] = 0.0
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rung.explain import models_at


class _AddedLater:
    """The type of the one mark."""


ADDED_LATER: Final = _AddedLater()
"""Marks a field that did not exist when the first studies were run."""


def config_id(trainable: str, values: Mapping[str, Any]) -> str:
    """`c` and 12 hex digits of the SHA-256 of canonical JSON.

    `values` is the whole configuration as `model_dump(mode="json")` gives it, so an id does not depend on the order
    of keys, on how a number is written (1, 1.0, 1e0 in a float field), or on which defaults are spelled out.
    """
    text = _canonical([trainable, values])
    if "-0.0" in text:  # equals 0.0 and must not be another configuration
        text = _canonical([trainable, _without_signed_zeros(values)])
    return f"c{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_id(config_id: str, seed: int, phase: str = "search") -> str:
    """The id of a configuration's run with a seed: `c3f9a1b20d77-s4`, and the phase behind it unless that is search."""
    return f"{config_id}-s{seed}" + ("" if phase == "search" else f"-{phase}")


def essential(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a model, without those of fields that were added later and stand at their defaults."""
    kept = {}
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is not None and ADDED_LATER in field.metadata and value == _plain_default(field):
            continue
        holders = models_at(model, (name,)) if isinstance(value, Mapping) else []
        holder = next((holder for holder in holders if value.keys() <= holder.model_fields.keys()), None)
        kept[name] = value if holder is None else essential(holder, value)
    return kept


def _plain_default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return default.model_dump(mode="json") if isinstance(default, BaseModel) else default


def _canonical(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _without_signed_zeros(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_signed_zeros(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_without_signed_zeros(value) for value in values]
    return 0.0 if isinstance(values, float) and values == 0 else values
