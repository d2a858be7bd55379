"""The pipeline file: studies that run one after another, each a stage that may start from the runs of an earlier one.

    pipeline: arithmetic
    stages:
      - foundational.yaml
      - {study: instruction.yaml, set: {seeds: 2, budget.steps: 300}}
    set: {base.device: cuda}

    pipeline = load_pipeline("pipeline.yaml", ["instruction.seeds=4"])

Paths are relative to the file. `set` is laid over the study of its stage, or at the top over all of them, key by key;
the command line comes last. `load_pipeline` reports everything that is wrong in all files at once, with lines. Left
out: what a stage starts from, which is known only when the stage before has ended (`start.py`), what would run
(`pipeline_plan.py`), and running it (`tuning/pipeline.py`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from rung.checks import checked_study
from rung.errors import Problem, RungError, StudyError
from rung.explain import findings, nearest
from rung.settings import StrictModel
from rung.study import BestOf, Study, folder_name
from rung.yaml_file import KeyPath, dotted, leaves, read_yaml


class StageEntry(StrictModel):
    """One stage as the file has it; a path alone is short for its `study`."""

    study: str
    """The stage's study file; a relative path begins at the pipeline file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Keys of that study and their values here; mappings are laid over those that are there, lists replace them."""


class PipelineFile(StrictModel):
    """The keys of a pipeline file."""

    pipeline: str
    """Its name, which is also the name of its folder beside those of its stages."""
    stages: list[StageEntry] = Field(min_length=1)
    """The studies, in the order in which they run."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Keys of studies and their values in every stage; a stage's own `set` comes after it."""

    @field_validator("pipeline")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        return folder_name(name)

    @field_validator("stages", mode="before")
    @classmethod
    def _paths_alone(cls, stages: Any) -> Any:
        if not isinstance(stages, list):
            return stages
        return [{"study": stage} if isinstance(stage, str) else stage for stage in stages]


@dataclass(frozen=True)
class Stage:
    """One study of a pipeline."""

    file: Path
    """Its study file."""
    text: str
    """That file as it is written."""
    study: Study
    """What the file says, with what the pipeline and the command line set."""

    @property
    def name(self) -> str:
        """By which later stages and `--set` call it: the study's name."""
        return self.study.study


@dataclass(frozen=True)
class Pipeline:
    """A pipeline whose stages are all readable and fit together."""

    name: str
    file: Path
    text: str
    """The file as it is written."""
    stages: tuple[Stage, ...]

    @property
    def directory(self) -> Path:
        """Where is kept what is about the pipeline as a whole; its stages have folders beside it."""
        return self.stages[0].study.directory.parent / self.name


def is_pipeline(path: Path) -> bool:
    """Whether a file is one of a pipeline: it has the key `pipeline`. What is wrong with it is said by who loads it."""
    if not path.is_file():
        return False
    try:
        return "pipeline" in read_yaml(path).data
    except StudyError:
        return False


def load_pipeline(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Pipeline:
    """Reads a pipeline file and the study files of its stages.

    Args:
        path: the pipeline file.
        overrides: `key=value` for every stage, `STAGE.key=value` for one; the later ones win.

    Raises:
        RungError: everything that is wrong with the files and with how they fit together, one problem a line.
    """
    reading = _Reading(Path(path))
    stages = list(reading.stages(overrides)) if reading.file is not None else []
    if not reading.problems and reading.file is not None:
        reading.check(stages)
    if reading.problems or reading.file is None:
        raise RungError("\n".join(dict.fromkeys(reading.problems)))
    return Pipeline(reading.file.pipeline, reading.path, reading.document.text, tuple(stages))


class _Reading:
    """One pass over a pipeline file and its stages; what it finds wrong is in `problems`, a line of text each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self.document = read_yaml(path)
        self._complain(*self.document.problems)
        self.file = self._read()

    def _complain(self, *problems: Problem) -> None:
        self.problems += [problem.describe(self.document.name) for problem in problems]

    def _at(self, message: str, path: KeyPath, hint: str = "") -> None:
        self._complain(self.document.problem(message, path, hint))

    def _read(self) -> PipelineFile | None:
        data = {key: value for key, value in self.document.data.items() if value is not None}
        try:
            return PipelineFile.model_validate(data)
        except ValidationError as error:
            for finding in findings(error, PipelineFile, data):
                self._at(finding.message, finding.path, finding.hint)
        return None

    # The stages, one by one.

    def stages(self, overrides: Sequence[str]) -> Iterator[Stage]:
        """Those stages that can be read; the others are problems."""
        assert self.file is not None
        own = [list(self._sets(index, entry)) for index, entry in enumerate(self.file.stages)]
        names = [self._name(entry, each) for entry, each in zip(self.file.stages, own, strict=True)]
        given = self._by_stage(overrides, [name for name in names if name is not None])
        for index, (entry, sets, name) in enumerate(zip(self.file.stages, own, names, strict=True)):
            stage = self._stage(index, entry, sets, given.get(name or "", given[""]))
            if stage is not None:
                yield stage

    def _sets(self, index: int, entry: StageEntry) -> Iterator[_Setting]:
        """What the file sets in a stage: the top's first."""
        assert self.file is not None
        for outer, values in ((("set",), self.file.set), (("stages", index, "set"), entry.set)):
            for path, value in leaves(values):
                yield _Setting(f"{dotted(path)}={_yaml(value)}", outer, self.document.line((*outer, *path)))

    def _name(self, entry: StageEntry, sets: Sequence[_Setting]) -> str | None:
        """The name of a stage's study; None where that cannot be read, which `_stage` says."""
        try:
            name = read_yaml(self._place(entry), [setting.text for setting in sets]).data.get("study")
        except StudyError:
            return None
        return name if isinstance(name, str) else None

    def _place(self, entry: StageEntry) -> Path:
        return self.path.parent / entry.study

    def _by_stage(self, overrides: Sequence[str], names: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
        """What the command line sets in every stage, each with how it was given; under "" what it sets in all."""
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in ("", *names)}
        for text in overrides:
            key = text.partition("=")[0].strip()
            stage = max((name for name in names if key.startswith(f"{name}.")), key=len, default=None)
            if stage is not None:
                found[stage].append((text.strip().removeprefix(f"{stage}."), text))
            elif key.partition(".")[0] in Study.model_fields:
                for each in found.values():
                    each.append((text, text))
            else:
                hint = nearest(key.partition(".")[0], [*names, *Study.model_fields])
                self._complain(Problem("neither a stage of the pipeline nor a key of a study", key, text, hint))
        return found

    def _stage(
        self, index: int, entry: StageEntry, sets: Sequence[_Setting], given: Sequence[tuple[str, str]]
    ) -> Stage | None:
        file = self._place(entry)
        try:
            document = read_yaml(file, [*(setting.text for setting in sets), *(text for text, _ in given)])
            return Stage(file, document.text, checked_study(document))
        except StudyError as error:
            by_text = {setting.text: setting for setting in sets}
            for problem in error.problems:
                self._of_stage(index, problem, file, by_text, dict(given))
        return None

    def _of_stage(
        self,
        index: int,
        problem: Problem,
        file: Path,
        sets: Mapping[str, _Setting],
        given: Mapping[str, str],
    ) -> None:
        """A problem with a study, where it was written: in its own file, in the pipeline's, or in the command line."""
        line = problem.line
        if isinstance(line, int):
            self.problems.append(problem.describe(str(file)))
        elif isinstance(line, str) and line in given:
            self._complain(Problem(problem.message, problem.path, given[line], problem.hint))
        elif isinstance(line, str) and line in sets:
            setting = sets[line]
            path = ".".join(part for part in (dotted(setting.outer), problem.path) if part)
            self._complain(Problem(problem.message, path, setting.line, problem.hint))
        else:
            text = problem.describe(str(file))
            self._at(text, ("stages", index))

    # How the stages fit together.

    def check(self, stages: Sequence[Stage]) -> None:
        """Names and folders, and what the stages start from."""
        names = [stage.name for stage in stages]
        for index, stage in enumerate(stages):
            if stage.name in names[:index]:
                hint = "set: {study: another-name}"
                self._at(f"two stages are called {stage.name!r}, and each needs its folder", ("stages", index), hint)
            if stage.name in Study.model_fields:
                message = f"a stage cannot be called {stage.name!r}, as a key of a study is: --set could mean either"
                self._at(message, ("stages", index))
            if stage.study.directory.parent != stages[0].study.directory.parent:
                folders = f"{stage.study.directory.parent}, that of {names[0]} {stages[0].study.directory.parent}"
                self._at(
                    f"the storage of {stage.name} is {folders}", ("stages", index), "set: {storage: DIR} at the top"
                )
            self._check_start(index, stage, stages)
        assert self.file is not None
        if self.file.pipeline in names:
            self._at("a stage has the same name, and each needs its folder", ("pipeline",))

    def _check_start(self, index: int, stage: Stage, stages: Sequence[Stage]) -> None:
        start = stage.study.start
        place = next((at for at, other in enumerate(stages) if start and other.name == start.study), None)
        if start is None or place is None:  # a study outside of the pipeline
            return
        if place >= index:
            self._at(f"{stage.name} starts from {start.study}, which does not run before it", ("stages", index))
            return
        for message, hint in _misfits(stage.study, stages[place].study):
            self._at(f"{stage.name} {message}", ("stages", index), hint)


@dataclass(frozen=True)
class _Setting:
    """A value that the pipeline file sets in a stage."""

    text: str
    """As an override."""
    outer: KeyPath
    """The `set` it stands in."""
    line: int | str | None


def _misfits(study: Study, source: Study) -> Iterator[tuple[str, str]]:
    """Why a study cannot start from another one that has run to its end, each with what would help."""
    missing = [seed for seed in study.seeds if seed not in source.seeds]
    if missing:
        message = f"has seed {missing[0]}, and {source.study}, whose run with that seed it starts from, has not"
        yield message, f"--set {source.study}.seeds={len(source.seeds) + len(missing)}, or fewer seeds here"
    fresh, theirs = (each.confirm.seeds if each.confirm else 0 for each in (study, source))
    if fresh > theirs:
        message = f"confirms with {fresh} fresh seeds, and {source.study}, whose runs with them it starts from, "
        message += f"with {theirs}" if theirs else "confirms nothing"
        yield message, f"confirm: {{seeds: {fresh}}} there, or none here"
    assert study.start is not None
    choice, keep = study.start.configuration, source.checkpoints.keep
    needed = choice.top if isinstance(choice, BestOf) else 1
    kept = {"none": 0, "best": 1}.get(str(keep), math.inf) if isinstance(keep, str) else keep
    if kept < needed:
        message = f"starts from {needed} of {source.study}, which keeps the checkpoints of {kept} (checkpoints.keep)"
        yield message, f"--set {source.study}.checkpoints.keep={needed}"


def _yaml(value: Any) -> str:
    """A value as YAML on one line. JSON is YAML, but for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value, ensure_ascii=False)
