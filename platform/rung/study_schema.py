"""The JSON Schema of study files, so that an editor completes keys, shows what they mean and underlines mistakes.

It describes files as they are written: `seeds` may be a number, a dimension may be a bare list, a path may be nested
or dotted. What only `load_study` can know (does the metric exist, do the values fit together) is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rung.explain import models_at
from rung.seeds import CONFIRM_SEEDS_FROM
from rung.space import WORDS
from rung.study import Study
from rung.trainable import find_trainable

Schema = dict[str, Any]

_PREFIX = "configuration."
"""Of the trainable's definitions: a trainable may have its own `Budget`."""


def json_schema(trainable: str | None = None) -> Schema:
    """The schema of a study file; with a trainable, its fields are completed in `base` and `space`.

    Raises:
        RungError: no such trainable.
    """
    schema = Study.model_json_schema()
    properties, definitions = schema["properties"], schema.setdefault("$defs", {})
    definitions["Dimension"] = _dimension()
    properties["seeds"] = _seeds(properties["seeds"])
    # These are taken from the metric where they are left out.
    for name in ("MetricChoice", "Target"):
        definitions[name]["required"].remove("mode")
    properties["base"] = {"type": ["object", "null"], "description": properties["base"]["description"]}
    properties["space"] = {"type": ["object", "null"], "description": properties["space"]["description"]}
    if trainable is not None:
        kind = find_trainable(trainable)
        properties["trainable"]["examples"] = [trainable]
        fields = kind.Config.model_json_schema(ref_template=f"#/$defs/{_PREFIX}{{model}}")
        definitions.update({_PREFIX + name: described for name, described in fields.pop("$defs", {}).items()})
        properties["base"] |= {**_dotted_too(kind.Config, fields, definitions), "additionalProperties": False}
        properties["space"] |= _space(kind.Config)
    schema.update({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "rung study"})
    return schema


def _seeds(described: Schema) -> Schema:
    seed = {"type": "integer", "minimum": 0, "exclusiveMaximum": CONFIRM_SEEDS_FROM}
    count = {"type": "integer", "minimum": 1}
    listed = {"type": "array", "items": seed, "minItems": 1, "uniqueItems": True}
    racing = {
        "type": "object",
        "properties": {"start": count, "full": {"anyOf": [count, listed]}},
        "required": ["start", "full"],
        "additionalProperties": False,
    }
    return {"description": described["description"], "anyOf": [count, listed, racing]}


def _dimension() -> Schema:
    """A list, or one word with its list and perhaps a condition."""
    values = {"type": "array", "minItems": 1}
    words: Schema = {}
    for word in WORDS.values():
        count = 3 if word.quantised else 2
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}
        words[word.name] = {**(values if word.kind == "values" else numbers), "description": word.form}
    when = {"type": "object", "description": "paths and the value, or list of values, that each must have"}
    one_word = {
        "type": "object",
        "properties": {**words, "when": when},
        "additionalProperties": False,
        "oneOf": [{"required": [word]} for word in WORDS],
    }
    return {"anyOf": [values, one_word, {"type": "null"}]}


def _dotted_too(model: type[BaseModel], fields: Schema, definitions: Schema) -> Schema:
    """The properties of a configuration, each path dotted as well as nested."""
    properties = dict(fields["properties"])
    for path in _inner_paths(model):
        *outer, last = path.split(".")
        for holder in models_at(model, outer):
            described = definitions.get(_PREFIX + holder.__name__, {}).get("properties", {})
            if last in described:
                properties[path] = copy.deepcopy(described[last])
    return {"properties": properties}


def _space(model: type[BaseModel]) -> Schema:
    """Every path, nested or dotted, with a dimension at its end."""
    properties: Schema = {}
    for name, field in model.model_fields.items():
        inner = models_at(model, (name,))
        described = {"description": field.description} if field.description else {}
        dimension: Schema = {**described, "$ref": "#/$defs/Dimension"}
        if inner:
            properties[name] = {**described, "anyOf": [_space(inner[0]), {"$ref": "#/$defs/Dimension"}]}
            for path, dotted in _space(inner[0])["properties"].items():
                properties[f"{name}.{path}"] = dotted
        else:
            properties[name] = dimension
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _inner_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name in model.model_fields:
        for inner in models_at(model, (name,)):
            for path in inner.model_fields:
                yield f"{prefix}{name}.{path}"
            yield from _inner_paths(inner, f"{prefix}{name}.")
