"""What a study's trainable has against it: fields, values, combinations of values, metrics.

Every planned configuration is validated by the trainable's own model, so whatever that refuses is refused here,
before anything starts; of an adaptive search, a sample. Left out: the study's other keys (`checks.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rung.configuration import PROBES, Expansion, PlannedConfiguration, Resolver, expansion_of
from rung.errors import Problem
from rung.explain import Finding, field_names, field_paths, findings, models_at, nearest, show, types_at
from rung.settings import TrainableConfig
from rung.space import WORDS, Dimension, Point, combinations, expand, is_among
from rung.study import Study
from rung.trainable import Metric, Trainable
from rung.yaml_file import Document, KeyPath, dotted

MOST_CONFIGURATIONS = 100_000
"""A larger plan is a slip: nobody trains so many."""

MOST_NAMED = 5
"""How many refused combinations are named; the others are counted."""

Kind = type[Trainable[Any, Any]]


def trainable_problems(document: Document, study: Study, kind: Kind, broken: Iterable[str]) -> list[Problem]:
    """Everything that the trainable refuses.

    Args:
        document: the file, for lines.
        study: what it says, with defaults for what is broken.
        kind: the trainable's class.
        broken: top-level keys of the file that could not be read; what depends on them is not checked.
    """
    checks = _TrainableChecks(document, study, kind, set(broken))
    return list(dict.fromkeys(checks.problems()))


def some_metrics(kind: Kind, base: Any, dimensions: Sequence[Dimension]) -> Mapping[str, Metric]:
    """The metrics of the first valid configuration that is found; none if none is."""
    resolver = Resolver("", kind, base if isinstance(base, dict) else {}, dimensions)
    points = [Point({}, 0)]
    if combinations(dimensions, 1) <= MOST_CONFIGURATIONS:
        points += list(expand(dimensions, 1, 0, resolver.base_value))[:PROBES]
    for point in points:
        try:
            return kind.metrics(resolver.configuration(point, 0).config)
        except ValidationError:
            continue
    return {}


class _TrainableChecks:
    def __init__(self, document: Document, study: Study, kind: Kind, broken: set[str]) -> None:
        self.document = document
        self.study = study
        self.kind = kind
        self.model: type[TrainableConfig] = kind.Config
        self.broken = broken
        self.dimensions = {dimension.path: dimension for dimension in study.dimensions}

    def problems(self) -> Iterator[Problem]:
        yield from self._base()
        yield from self._paths()
        yield from self._conditions()
        size = combinations(self.study.dimensions, self.study.samples)
        if size > MOST_CONFIGURATIONS:
            return
        expansion = expansion_of(self.study)
        yield from self._values(expansion)
        # With a broken space these are not the configurations that were meant: only what none of them has is reported.
        is_whole = not self.broken & {"space", "samples", "draw_seed", "searcher"}
        if is_whole:
            yield from self._combinations(expansion)
            yield from self._units(expansion.configurations)
            yield from self._packing(expansion.configurations)
            yield from self._splitting(expansion.configurations)
        yield from self._metrics(expansion.configurations or self._fallback(), is_whole)

    def _fallback(self) -> list[PlannedConfiguration]:
        """The configuration without any space, if it is valid."""
        try:
            return [Resolver("", self.kind, self.study.base, ()).configuration(Point({}, 0), 0)]
        except ValidationError:
            return []

    # Keys and values, each by itself. What is reported here is then taken out, so that the rest can be checked.

    def _base(self) -> Iterator[Problem]:
        """Values of `base` that are wrong whatever else is set."""
        resolver = Resolver("", self.kind, self.study.base, ())
        try:
            resolver.configuration(Point({}, 0), 0)
        except ValidationError as error:
            base = self.study.base
            for finding in findings(error, self.model, resolver.base):
                swept = any(_related(path, dotted(finding.path)) for path in self.dimensions)
                if not finding.is_combination and not (finding.message == "is missing" and swept):
                    yield self._problem(("base", *finding.path), finding, finding.path)
                    base = _without(base, finding.path)
            self.study = self.study.model_copy(update={"base": base})

    def _paths(self) -> Iterator[Problem]:
        """Swept paths that the configuration does not have."""
        for path in list(self.dimensions):
            keys = path.split(".")
            unknown = next((n for n in range(1, len(keys) + 1) if not types_at(self.model, keys[:n])), None)
            if unknown is not None:
                finding = Finding((), "unknown key")
                yield self._problem(("space", *keys[:unknown]), finding, tuple(keys[:unknown]))
                self._forget(path)

    def _forget(self, path: str) -> None:
        del self.dimensions[path]
        space = {other: self.study.space[other] for other in self.dimensions}
        self.study = self.study.model_copy(update={"space": space})

    def _problem(self, path: KeyPath, finding: Finding, place: KeyPath) -> Problem:
        """A problem at a path of the file, with a better hint for a key that the trainable does not have."""
        hint = finding.hint
        if finding.message == "unknown key":
            key, beside = str(place[-1]), field_names(models_at(self.model, place[:-1]))
            words = WORDS if path[0] == "space" else ()
            tries = [
                (key, beside),
                (key, words),
                (key, field_paths(self.model)),
                (dotted(place), field_paths(self.model)),
            ]
            hints = [nearest(word, names, rest=False) for word, names in tries]
            hint = next((hint for hint in hints if hint), nearest(key, beside))
        return self.document.problem(finding.message, path, hint)

    def _conditions(self) -> Iterator[Problem]:
        """Conditions on what is not there, or that never hold."""
        base_value = Resolver("", self.kind, self.study.base, ()).base_value
        for dimension in list(self.dimensions.values()):
            for path, wanted in dimension.when:
                place: KeyPath = ("space", *dimension.path.split("."), "when", *path.split("."))
                if not types_at(self.model, path.split(".")):
                    hint = nearest(path, field_paths(self.model), rest=False)
                    yield self.document.problem("unknown key", place, hint)
                    continue
                swept = self.dimensions.get(path)
                if swept is not None and WORDS[swept.word].kind != "values":
                    yield self.document.problem(f"{path} is drawn from a range, so no value of it can be met", place)
                    continue
                possible = [base_value(path), *(swept.arguments if swept else ())]
                for value in wanted:
                    if not is_among(value, possible):
                        hint = nearest(str(value), map(_text, possible))
                        yield self.document.problem(f"{path} is never {show(value)}", place, hint)

    def _values(self, expansion: Expansion) -> Iterator[Problem]:
        """Swept values that a field refuses."""
        drawn: set[str] = set()
        for refusal in expansion.refusals:
            for finding in refusal.findings:
                if finding.is_combination:
                    continue
                dimension = self._dimension_of(finding.path, refusal.point)
                if dimension is None:
                    yield self._problem(("base", *finding.path), finding, finding.path)
                elif WORDS[dimension.word].kind == "values":
                    value = refusal.point.values[dimension.path]
                    yield self._problem(self._value_path(dimension, value), finding, finding.path)
                elif dimension.path not in drawn:
                    drawn.add(dimension.path)
                    message = f"{finding.message}, drawn from {dimension.text}"
                    place = self._value_path(dimension, None)
                    yield self._problem(place, Finding((), message, finding.hint), finding.path)

    def _dimension_of(self, path: KeyPath, point: Point) -> Dimension | None:
        return next((self.dimensions[p] for p in point.values if _related(p, dotted(path))), None)

    def _value_path(self, dimension: Dimension, value: Any) -> KeyPath:
        """Where a value of a dimension stands in the file, which may leave the word `grid` out."""
        path: KeyPath = ("space", *dimension.path.split("."))
        index = [i for i, argument in enumerate(dimension.arguments) if is_among(value, [argument])][:1]
        places: list[KeyPath] = [(*path, dimension.word, *index), (*path, *index)]
        return next((place for place in places if place in self.document.lines), path)

    # Values together.

    def _combinations(self, expansion: Expansion) -> Iterator[Problem]:
        """Configurations of which every value is fine by itself."""
        reasons: dict[tuple[KeyPath, str], list[str]] = {}
        for refusal in expansion.refusals:
            for finding in refusal.findings:
                if finding.is_combination:
                    reasons.setdefault((finding.path, finding.message), []).append(refusal.label)
        named = list(reasons.items())[:MOST_NAMED]
        for (path, message), labels in named:
            more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
            which = f"{labels[0]}{more}: " if self.dimensions else ""
            yield self.document.problem(f"{which}{message}", self._blamed(path, message))
        refused = {label for labels in reasons.values() for label in labels}
        shown = {label for _, labels in named for label in labels}
        count = len(refused - shown) + expansion.refused - len(expansion.refusals)
        if reasons and count:
            text = f"{count:,} more of {expansion.points:,} combinations are refused"
            yield self.document.problem(text, ("space",), "restrict a dimension with when, or shorten a grid")

    def _blamed(self, path: KeyPath, message: str) -> KeyPath:
        """The key that a message about several values is put at: one that it names, or where it was found."""
        written = [("space", p) for p in self.dimensions] + [("base", p) for p in _paths_of(self.study.base)]
        for top, key in written:
            names = {key, key.rsplit(".", 1)[-1]}
            inside = not path or key.startswith(f"{dotted(path)}.")
            if inside and any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", message) for name in names):
                return (top, *key.split("."))
        inside_path = [(top, *key.split(".")) for top, key in written if path and key.startswith(f"{dotted(path)}.")]
        return inside_path[0] if inside_path else ("space",) if self.dimensions else ("base", *path)

    # Metrics and units.

    def _metrics(self, configurations: Sequence[PlannedConfiguration], is_whole: bool) -> Iterator[Problem]:
        missing: dict[tuple[KeyPath, str], list[str]] = {}
        known: dict[str, Metric] = {}
        for configuration in configurations:
            metrics = self.kind.metrics(configuration.config)
            known.update(metrics)
            for path, name in self._metric_names(configuration.config):
                if name not in metrics:
                    missing.setdefault((path, name), []).append(configuration.label)
        for (path, name), labels in missing.items():
            message = f"{self.study.trainable} does not report {name!r}"
            hint = "" if name in known else nearest(name, known)
            if is_whole or len(labels) == len(configurations):
                yield self.document.problem(message + _where(labels, len(configurations)), path, hint)
        unknown = {name for _, name in missing}
        yield from self._modes({name: metric for name, metric in known.items() if name not in unknown})

    def _metric_names(self, config: TrainableConfig) -> Iterator[tuple[KeyPath, str]]:
        if "metric" not in self.broken:
            yield ("metric", "name"), self.study.metric.name
        if "budget" not in self.broken and self.study.budget.target is not None:
            yield ("budget", "target", "metric"), self.study.budget.target.metric
        if config.early_stopping is not None:
            yield self._written("early_stopping.metric"), config.early_stopping.metric
        if config.schedule.kind == "plateau":
            yield self._written("schedule.metric"), config.schedule.metric

    def _modes(self, known: Mapping[str, Metric]) -> Iterator[Problem]:
        target = self.study.budget.target
        choices: list[tuple[KeyPath, str, str]] = []
        if "metric" not in self.broken:
            choices.append((("metric", "mode"), self.study.metric.name, self.study.metric.mode))
        if "budget" not in self.broken and target is not None:
            choices.append((("budget", "target", "mode"), target.metric, target.mode))
        for path, name, mode in choices:
            metric = known.get(name)
            if metric is not None and metric.mode != mode:
                better = "less" if metric.mode == "min" else "more"
                yield self.document.problem(f"{better} {name} is better", path, f"write {metric.mode}")

    def _units(self, configurations: Sequence[PlannedConfiguration]) -> Iterator[Problem]:
        """Schedules and budgets that count what is not known in advance."""
        unit = self.study.budget.unit
        lengthless: list[str] = []
        endless: dict[KeyPath, list[str]] = {}
        for configuration in configurations:
            schedule = configuration.config.schedule
            if schedule.spans_budget and unit == "wall_clock":
                lengthless.append(configuration.label)
            by_epoch = schedule.unit == "epoch" and (schedule.kind != "none" or schedule.warmup > 0)
            counts_epochs = unit == "epochs" or by_epoch
            if counts_epochs and self.kind.workload(configuration.config).steps_per_epoch is None:
                path = ("budget", "epochs") if unit == "epochs" else self._written("schedule.unit")
                endless.setdefault(path, []).append(configuration.label)
        if lengthless and "budget" not in self.broken:
            message = f"a budget in {unit} does not say how many steps a cosine or linear schedule has to fall"
            where = _where(lengthless, len(configurations))
            yield self.document.problem(message + where, self._written("schedule.kind"), "give schedule.length")
        for path, labels in endless.items():
            where = _where(labels, len(configurations))
            yield self.document.problem(
                f"the data is an endless stream, which has no epochs{where}", path, "count steps"
            )

    def _packing(self, configurations: Sequence[PlannedConfiguration]) -> Iterator[Problem]:
        """Configurations whose runs cannot be trained together."""
        if self.study.replication != "packed" or "replication" in self.broken:
            return
        obstacles: dict[str, list[str]] = {}
        for configuration in configurations:
            config = configuration.config
            obstacle = config.packing_obstacle() or self.kind.packing_obstacle(config)
            if obstacle is not None:
                obstacles.setdefault(obstacle, []).append(configuration.label)
        for obstacle, labels in obstacles.items():
            message = f"runs cannot be trained together{_where(labels, len(configurations))}: {obstacle}"
            yield self.document.problem(message, ("replication",), "replication: serial")

    def _splitting(self, configurations: Sequence[PlannedConfiguration]) -> Iterator[Problem]:
        """Configurations whose batches have to be computed in parts and cannot be."""
        workers = self.study.resources.workers
        obstacles: dict[tuple[KeyPath, str], list[str]] = {}
        for configuration in configurations:
            config = configuration.config
            parts = workers * config.accumulation
            obstacle = self.kind.splitting_obstacle(config, parts) if parts > 1 else None
            if obstacle is not None:
                path = ("resources", "workers") if workers > 1 else self._written("accumulation")
                obstacles.setdefault((path, obstacle), []).append(configuration.label)
        for (path, obstacle), labels in obstacles.items():
            message = f"batches cannot be split{_where(labels, len(configurations))}: {obstacle}"
            yield self.document.problem(message, path)

    def _written(self, path: str) -> KeyPath:
        """Where the study sets a path of the configuration."""
        keys = path.split(".")
        return ("space" if any(_related(swept, path) for swept in self.dimensions) else "base", *keys)


def _related(path: str, other: str) -> bool:
    """Whether two dotted paths are the same, or one lies inside the other."""
    short, long = sorted((path, other), key=len)
    return long == short or (long.startswith(short) and long[len(short)] in ".[")


def _without(values: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """Nested data without what stands at a path, or at the last mapping on the way to it."""
    if not path or path[0] not in values:
        return dict(values)
    below = values[str(path[0])]
    rest = {key: value for key, value in values.items() if key != path[0]}
    if len(path) > 1 and isinstance(below, Mapping):
        return {**rest, str(path[0]): _without(below, path[1:])}
    return rest


def _paths_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _paths_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def _where(labels: Sequence[str], total: int) -> str:
    """Which configurations a problem is about, if not all."""
    if len(labels) == total:
        return ""
    more = ", ..." if len(labels) > MOST_NAMED else ""
    return f" in {len(labels)} of {total} configurations: {'; '.join(labels[:MOST_NAMED])}{more}"
