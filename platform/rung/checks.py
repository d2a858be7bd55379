"""Everything that can be wrong with a study, found in one pass and put in the file's own terms.

A broken part of the file is replaced by its default and the search goes on, so that one call names all problems; a
check that would look at a broken part is left out. Left out: what only the machine knows (is there a GPU, is the disk
writable).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rung.errors import Problem, RungError, StudyError
from rung.explain import Finding, findings, show
from rung.space import WORDS, Dimension, combinations
from rung.space_reader import read_space
from rung.study import Study
from rung.trainable import Metric, Trainable, find_trainable
from rung.trainable_checks import MOST_CONFIGURATIONS, some_metrics, trainable_problems
from rung.yaml_file import Document, KeyPath

_PLACEHOLDERS: dict[str, Any] = {
    "study": "unnamed",
    "trainable": "unknown",
    "seeds": 1,
    "budget": {"steps": 1},
    "metric": {"name": "", "mode": "min"},
}
"""Stands in for a broken part that has no default, so that the rest can be checked."""


def checked_study(document: Document) -> Study:
    """The study that a document describes.

    Raises:
        StudyError: all its problems, in the order of the file.
    """
    if "pipeline" in document.data:
        hint = "name the file of one of its stages; plan, run, status, results and report take the pipeline"
        problem = document.problem("this is a pipeline, where one study is wanted", ("pipeline",), hint)
        raise StudyError([problem], document.name)
    checks = _Checks(document)
    checks.run()
    problems = list(dict.fromkeys([*document.problems, *checks.problems]))
    if problems:
        raise StudyError(sorted(problems, key=_place), document.name)
    return checks.study


def _place(problem: Problem) -> tuple[bool, int]:
    return isinstance(problem.line, str), problem.line if isinstance(problem.line, int) else 0


class _Checks:
    """One pass over one document; what it finds is in `problems`."""

    study: Study
    """The study, with broken parts replaced."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.broken: set[str] = set()
        """Top-level keys that cannot be read."""

    def run(self) -> None:
        kind = self._trainable()
        dimensions, complaints = read_space(self.document.data.get("space"))
        dimensions = tuple(sorted(dimensions, key=self._line_of))
        self._add((("space", *finding.path), finding) for finding in complaints)
        data = self._data(dimensions, kind)
        self.study = self._read(data)
        self.problems += self._rules()
        if kind is not None and not self.broken & {"base", "trainable"}:
            self.problems += trainable_problems(self.document, self.study, kind, self.broken)

    def _add(self, placed: Iterable[tuple[KeyPath, Finding]]) -> None:
        for path, finding in placed:
            self.problems.append(self.document.problem(finding.message, path, finding.hint))
            self.broken.add(str(path[0]) if path else "")

    def _line_of(self, dimension: Dimension) -> float:
        """Sorts as the file is written: reading has put paths with a common beginning together."""
        return self.document.file_lines.get(("space", *dimension.path.split(".")), math.inf)

    def _trainable(self) -> type[Trainable[Any, Any]] | None:
        name = self.document.data.get("trainable")
        if not isinstance(name, str):
            return None  # the model says so
        try:
            return find_trainable(name)
        except RungError as error:
            self.problems.append(self.document.problem(str(error), ("trainable",)))
            return None

    def _data(self, dimensions: Sequence[Dimension], kind: type[Trainable[Any, Any]] | None) -> dict[str, Any]:
        """What the study's model is to read: empty parts are left out, modes are taken from the metrics."""
        data = {key: value for key, value in self.document.data.items() if value is not None}
        data["space"] = {dimension.path: dimension.specification for dimension in dimensions}
        metrics = {} if kind is None else some_metrics(kind, data.get("base"), dimensions)
        data["metric"] = _with_mode(data.get("metric"), "name", metrics)
        if isinstance(data.get("budget"), dict):
            target = data["budget"].get("target")
            if isinstance(target, dict) and isinstance(data["metric"], dict) and "name" in data["metric"]:
                target = {"metric": data["metric"]["name"], **target}
            target = _with_mode(target, "metric", metrics)
            data["budget"] = data["budget"] | ({} if target is None else {"target": target})
        return {key: value for key, value in data.items() if value is not None}

    def _read(self, data: dict[str, Any]) -> Study:
        try:
            return Study.model_validate(data)
        except ValidationError as error:
            self._add((finding.path, finding) for finding in findings(error, Study, data))
        # The space holds only dimensions that could be read, so it is whole even where something is wrong with it.
        lost = self.broken - {"space"}
        whole = {key: value for key, value in data.items() if key in Study.model_fields and key not in lost}
        return Study.model_validate({**_PLACEHOLDERS, **whole})

    # Rules about the study alone.

    def _rules(self) -> Iterator[Problem]:
        say, study = self.document.problem, self.study
        scheduler, budget = study.scheduler, study.budget
        grace = None if scheduler.name == "fifo" or self.broken & {"scheduler", "budget"} else scheduler.grace
        if grace is not None and grace >= budget.amount:
            message = f"the first rung ({grace}) is not below the budget ({budget.amount} {budget.unit})"
            hint = f"for example {max(1, budget.amount // scheduler.reduction_factor**2)}, or scheduler fifo"
            yield say(message, ("scheduler", "grace"), hint)
        if scheduler.name != "fifo" and budget.steps == 0 and not self.broken & {"scheduler", "budget"}:
            yield say("nothing is trained in 0 steps, so there are no rungs", ("scheduler", "name"), "fifo")
        if scheduler.confidence is not None and not self.broken & {"scheduler", "metric"}:
            yield from self._rules_about_confidence()
        if study.seeds.start is not None and scheduler.name == "fifo" and not self.broken & {"seeds", "scheduler"}:
            message = "fifo compares nobody and has no rungs at which more seeds could join"
            yield say(message, ("seeds",), f"seeds: {len(study.seeds)}, or another scheduler (asha)")
        if "resources" not in self.broken:
            yield from self._rules_about_resources()
        if not self.broken & {"space", "searcher", "samples", "scheduler"}:
            yield from self._rules_about_drawing()
        if not self.broken & {"space", "base"}:
            yield from self._rules_about_both()

    def _rules_about_confidence(self) -> Iterator[Problem]:
        across_seeds = self.study.metric.across_seeds
        if across_seeds != "mean":
            message = f"confidence is that of an interval around a mean, but across_seeds is {across_seeds}"
            hint = "leave it out, or metric.across_seeds: mean"
            yield self.document.problem(message, ("scheduler", "confidence"), hint)

    def _rules_about_resources(self) -> Iterator[Problem]:
        say, resources = self.document.problem, self.study.resources
        if resources.workers > 1 and resources.gpus not in (0, 1):
            message = f"{resources.workers} workers cannot have {resources.gpus:g} GPUs each: "
            message += "NCCL wants one that is its own for every worker, and none uses a second"
            yield say(message, ("resources", "gpus"), "gpus: 1 (of each worker), or 0")
        if resources.workers > 1 and self.study.replication == "packed":
            message = "packed trains all seeds in one process, and several workers train one seed together"
            yield say(message, ("replication",), "replication: serial, or leave resources.workers out")
        if resources.workers == 1 and resources.gpus > 1 and not resources.gpus.is_integer():
            yield say(f"above 1 only whole GPUs can be given, got {resources.gpus:g}", ("resources", "gpus"))

    def _rules_about_drawing(self) -> Iterator[Problem]:
        say, study = self.document.problem, self.study
        drawn = [dimension for dimension in study.dimensions if not dimension.is_grid]
        if study.searcher.name == "optuna":
            yield from self._rules_about_optuna(drawn)
        elif study.samples > 1 and not drawn:
            message = f"{study.samples} samples, but nothing is drawn: every dimension is a grid"
            yield say(message, ("samples",), "leave samples out, or draw a dimension (loguniform, choice, ...)")
        elif combinations(study.dimensions, study.samples) > MOST_CONFIGURATIONS:
            count = combinations(study.dimensions, study.samples)
            message = f"{count:,} combinations, more than {MOST_CONFIGURATIONS:,}"
            yield say(message, ("space",), "shorten the grids, or draw (choice, uniform) and set samples")

    def _rules_about_both(self) -> Iterator[Problem]:
        """A base value that space sweeps is a default and does no harm in a file; whoever sets it in the command line
        expects it to do something."""
        for dimension in self.study.dimensions:
            keys = dimension.path.split(".")
            if not dimension.when and _reaches(self.study.base, keys):
                hint = f"--set space.{dimension.path}=[...]"
                problem = self.document.problem("has no effect, because space sweeps it", ("base", *keys), hint)
                if isinstance(problem.line, str):
                    yield problem

    def _rules_about_optuna(self, drawn: Sequence[Dimension]) -> Iterator[Problem]:
        say, study = self.document.problem, self.study
        for dimension in study.dimensions:
            path: KeyPath = ("space", *dimension.path.split("."))
            if dimension.is_grid:
                hint = f"choice: {show(list(dimension.arguments))}"
                yield say("optuna chooses values by itself and cannot take a grid", path, hint)
            elif WORDS[dimension.word].kind == "normal":
                yield say(f"optuna cannot choose from {dimension.word}", path, "uniform or loguniform")
        if not study.dimensions:
            yield say("optuna has nothing to choose", ("searcher",), "give a space, or leave the searcher out")
        if study.scheduler.name in ("synchronous_halving", "hyperband"):
            message = f"{study.scheduler.name} must know all configurations before it starts; optuna chooses as it goes"
            yield say(message, ("scheduler", "name"), "asha, median_stopping or fifo")


def _reaches(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True


def _with_mode(choice: Any, name: str, metrics: Mapping[str, Metric]) -> Any:
    """A choice of a metric with that metric's own mode, where it names none."""
    if not isinstance(choice, dict) or "mode" in choice or not isinstance(choice.get(name), str):
        return choice
    metric = metrics.get(choice[name])
    # That a metric is unknown is a problem of its own; that its mode is missing is then none.
    return {**choice, "mode": "min" if metric is None else metric.mode}
