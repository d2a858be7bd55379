"""Configurations: points of a space made complete and checked by the trainable.

`base` and swept values are laid over the trainable's defaults key by key, at every depth: a study that sets
`optimizer.learning_rate` keeps the trainable's own default for `optimizer.weight_decay`.

Left out: their ids (`identity.py`), places in the study file (`checks.py`), and which configurations run (`plan.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from rung.explain import Finding, findings, models_at, show
from rung.identity import config_id, essential
from rung.settings import TrainableConfig
from rung.space import Dimension, Point, active, expand, in_order
from rung.space_reader import read_space
from rung.trainable import Trainable, find_trainable

if TYPE_CHECKING:
    from rung.study import Study

STARTS_FROM = "start.configuration"
"""The path of what a configuration starts from."""

PROBES = 64
"""Configurations that are made to check a study whose configurations are chosen while it runs."""

EXPLAINED = 200
"""Refused points that are explained; the others are only counted."""


@dataclass(frozen=True)
class PlannedConfiguration:
    """One point of the search space, complete and valid."""

    config_id: str
    """Hash of trainable and complete values, see `identity.py`."""
    label: str
    """The swept values in short, for people: `gpt, weight_decay=0.5`."""
    config: TrainableConfig
    """The complete configuration."""
    values: Mapping[str, Any]
    """The same as plain nested data, as it is stored."""
    swept: Mapping[str, Any]
    """The value of every swept path; that of `base` where a condition switches the dimension off."""
    index: int
    """Its place in the order of the file, from 0, for display."""
    sample: int
    """Which draw it was first made from."""

    def columns(self) -> dict[str, Any]:
        """A column `config.<dotted path>` for each value; lists and free mappings are JSON text, and what is swept
        inside of one has a column of its own beside it."""
        found = dict(_columns(type(self.config), self.values, "config"))
        for path, value in self.swept.items():
            if isinstance(value, str | int | float):
                found.setdefault(f"config.{path}", value)
        return found


@dataclass(frozen=True)
class Refusal:
    """A point that the trainable refuses."""

    point: Point
    label: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Expansion:
    """What the points of a space became."""

    configurations: tuple[PlannedConfiguration, ...]
    """Each once, in the order of the file."""
    refusals: tuple[Refusal, ...]
    """The first of those points that became none."""
    refused: int
    """How many became none."""
    points: int
    """How many there were; more than configurations where conditions or draws made some equal."""


class Resolver:
    """Makes configurations of one study's trainable, base and space.

    Args:
        trainable: name of the trainable, which goes into the ids.
        kind: its class.
        base: what the study sets, nested.
        dimensions: the space.
        inherited: what lies below base in configurations that start from another one, by that one's id.
    """

    def __init__(
        self,
        trainable: str,
        kind: type[Trainable[Any, Any]],
        base: Mapping[str, Any],
        dimensions: Sequence[Dimension],
        inherited: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.trainable = trainable
        self.model = kind.Config
        self._bases = {each: completed(self.model, merged(values, base)) for each, values in (inherited or {}).items()}
        self.base = self._bases.get(at(base, STARTS_FROM), completed(self.model, base))
        self.dimensions = tuple(dimensions)
        self.ordered, _ = in_order(dimensions)
        self._names = _short_names([dimension.path for dimension in dimensions])

    def base_value(self, path: str) -> Any:
        """The value of a path in base and defaults; None where there is none."""
        return at(self.base, path)

    def raw(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Base with some paths replaced, not validated."""
        nested = dict(self._bases.get(values.get(STARTS_FROM, ""), self.base))
        for path, value in values.items():
            *outer, last = path.split(".")
            inner = nested
            for key in outer:
                # Copied on the way down: base is shared by all configurations.
                below = inner.get(key)
                inner[key] = dict(below) if isinstance(below, Mapping) else {}
                inner = inner[key]
            inner[last] = self._value(path, inner.get(last), value)
        return nested

    def _value(self, path: str, present: Any, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return _laid_over(present, value, models_at(self.model, path.split(".")))

    def configuration(self, point: Point, index: int) -> PlannedConfiguration:
        """The configuration of a point.

        Raises:
            ValidationError: the trainable refuses it.
        """
        config = self.model.model_validate(self.raw(point.values))
        values = config.model_dump(mode="json")
        swept = {dimension.path: at(values, dimension.path) for dimension in self.dimensions}
        return PlannedConfiguration(
            config_id=config_id(self.trainable, essential(self.model, values)),
            label=self.label({path: swept[path] for path in swept if path in point.values}),
            config=config,
            values=values,
            swept=swept,
            index=index,
            sample=point.sample,
        )

    def chosen(self, values: Mapping[str, Any], index: int) -> PlannedConfiguration:
        """The configuration of values that a searcher has chosen, one for each dimension.

        Raises:
            ValidationError: the trainable refuses it.
        """
        return self.configuration(Point(active(self.ordered, values, self.base_value), index), index)

    def label(self, values: Mapping[str, Any]) -> str:
        """A short text of some swept values, in the order of the file."""
        parts = [_shown(name, values[path]) for path, name in self._names.items() if path in values]
        return ", ".join(parts) or "base"

    def expansion(self, points: Iterable[Point]) -> Expansion:
        """Validates every point; equal configurations become one."""
        made: dict[str, PlannedConfiguration] = {}
        refusals: list[Refusal] = []
        refused = count = 0
        for point in points:
            count += 1
            try:
                found = self.configuration(point, len(made))
            except ValidationError as error:
                refused += 1
                if refused <= EXPLAINED:
                    complaints = findings(error, self.model, self.raw(point.values))
                    refusals.append(Refusal(point, self.label(point.values), tuple(complaints)))
            else:
                made.setdefault(found.config_id, found)
        return Expansion(tuple(made.values()), tuple(refusals), refused, count)


def resolver_of(study: Study) -> Resolver:
    """The resolver of a study."""
    return Resolver(study.trainable, find_trainable(study.trainable), study.base, study.dimensions, study.inherited)


def expansion_of(study: Study) -> Expansion:
    """Everything that a study plans, or a sample of what its searcher may choose (at most `PROBES`).

    The last few expansions are kept, because checking a study and planning it both need them.
    """
    adaptive = study.searcher.name != "plan"
    samples = min(study.samples, PROBES) if adaptive else study.samples
    texts = tuple(json.dumps(part) for part in (study.base, study.space, study.inherited))
    kind = find_trainable(study.trainable)
    return _expansion(study.trainable, kind, texts, samples, study.draw_seed)


@lru_cache(maxsize=4)
def _expansion(
    trainable: str, kind: type[Trainable[Any, Any]], texts: tuple[str, ...], samples: int, draw_seed: int
) -> Expansion:
    base, space, inherited = (json.loads(text) for text in texts)
    dimensions, _ = read_space(space)
    resolver = Resolver(trainable, kind, base, dimensions, inherited)
    return resolver.expansion(expand(dimensions, samples, draw_seed, resolver.base_value))


# Nested data.


def at(values: Any, path: str) -> Any:
    """The value at a dotted path of nested data; None where there is none."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested data of both; where both say something, what `above` says."""
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        both[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return both


def completed(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` laid over the defaults of `model` at every depth, not validated."""
    return dict(_laid_over(None, given, [model]))


def _laid_over(default: Any, given: Any, models: Sequence[type[BaseModel]]) -> Any:
    """`given`, with what it leaves out taken from `default` or else from the model's defaults.

    Only where it is clear which model is meant: a union's members have different fields.
    """
    if not isinstance(given, Mapping) or len(models) != 1:
        return given
    merged = dict(default) if isinstance(default, Mapping) else _defaults(models[0])
    for key, value in given.items():
        merged[key] = _laid_over(merged.get(key), value, models_at(models[0], (key,)))
    return merged


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    values = {}
    for name, field in model.model_fields.items():
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            values[name] = default.model_dump() if isinstance(default, BaseModel) else default
    return values


def _columns(model: type[BaseModel], values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        inner = models_at(model, (name,))
        if inner and isinstance(value, Mapping):
            yield from _columns(inner[0], value, f"{prefix}.{name}")
        elif isinstance(value, list | dict):
            yield f"{prefix}.{name}", json.dumps(value)
        elif not (inner and value is None):  # a part that is switched off has no columns
            yield f"{prefix}.{name}", value


# Labels.


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last part, or more of it where two would be the same; `model.kind` is the `model`."""
    names = {}
    for path in paths:
        parts = _essence(path).split(".")
        others = [_essence(other) for other in paths if other != path]
        length = 1
        while length < len(parts) and any(f".{o}".endswith("." + ".".join(parts[-length:])) for o in others):
            length += 1
        names[path] = ".".join(parts[-length:])
    return names


def _essence(path: str) -> str:
    return "start" if path == STARTS_FROM else path.removesuffix(".kind")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w-]*", value) and value != "none":
        return value
    if isinstance(value, float):
        return f"{name}={value:.4g}"
    return f"{name}={value if isinstance(value, str) else show(value)}"
