"""The study file: which keys there are, what they mean, and how a file becomes a `Study`.

    study = load_study("search_spaces/modular_arithmetic/demo.yaml", ["seeds=8", "base.modulus=97"])

Every model is strict and frozen. `load_study` reports everything that is wrong at once, with lines (`checks.py`); a
`Study` that it returns can be planned. Left out: expansion (`configuration.py`), cost and display (`plan.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, PrivateAttr, field_validator, model_validator

from rung.results.retention import Keep, KeepWord
from rung.seeds import CONFIRM_SEEDS_FROM, Seeds
from rung.settings import StrictModel, TrainableConfig
from rung.space import Dimension
from rung.space_reader import read_space
from rung.tracking import TrackingChoice
from rung.trainable import find_trainable
from rung.yaml_file import dotted, nested

if TYPE_CHECKING:
    from rung.plan import Plan

Mode = Literal["min", "max"]
Unit = Literal["steps", "epochs", "tokens", "wall_clock"]

SOLO_SUFFIX = ".solo"
"""Ends the name of the folder in which `rung train` keeps its rows, beside the study's."""


def folder_name(name: str) -> str:
    """The name of a study or pipeline, if it can also be that of its folder.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            "the name is also a folder's: up to 100 letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    if name.endswith(SOLO_SUFFIX):
        raise ValueError(
            f"a name that ends in {SOLO_SUFFIX} is kept for what `rung train` writes, and deletes, of the study "
            f"{name.removesuffix(SOLO_SUFFIX)}"
        )
    return name


class Target(StrictModel):
    """A value at which a run has done what it was for."""

    metric: str
    """A metric that the trainable reports; left out, the study's own."""
    value: float
    """A run stops at the first evaluation that is as good as this, and is completed."""
    mode: Mode
    """Whether less or more is better; left out, the metric's own."""


class Budget(StrictModel):
    """How long every run trains: exactly one of steps, epochs, tokens and wall_clock, which rungs are counted in too;
    wall_clock may also stand beside another one, as a cap."""

    steps: int | None = Field(default=None, ge=0)
    """Optimizer steps; 0: runs are evaluated as they start, and nothing is trained."""
    epochs: int | None = Field(default=None, gt=0)
    """Passes over the training data."""
    tokens: int | None = Field(default=None, gt=0)
    """Tokens that the model reads in training."""
    wall_clock: int | None = Field(default=None, gt=0)
    """Seconds of training and evaluation of one run. What a run reaches in them depends on the machine, so its numbers
    cannot be repeated exactly."""
    target: Target | None = None
    """Stop a run early that has reached a value of a metric; off when empty."""

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        counted = [name for name in ("steps", "epochs", "tokens") if getattr(self, name) is not None]
        if len(counted) > 1:
            raise ValueError(f"give one of steps, epochs and tokens, got {' and '.join(counted)}")
        if not counted and self.wall_clock is None:
            raise ValueError("give one of steps, epochs, tokens and wall_clock (seconds)")
        return self

    @property
    def unit(self) -> Unit:
        """What `amount` and the rungs count."""
        units: tuple[Unit, ...] = ("steps", "epochs", "tokens")
        return next((unit for unit in units if getattr(self, unit) is not None), "wall_clock")

    @property
    def amount(self) -> int:
        """The whole budget of a run, in its unit."""
        return int(getattr(self, self.unit))

    @property
    def cap(self) -> int | None:
        """Seconds after which a run ends whatever it has reached; empty if the budget itself counts seconds."""
        return None if self.unit == "wall_clock" else self.wall_clock


class MetricChoice(StrictModel):
    """What configurations are judged by: one number for each run, and one for its configuration."""

    name: str
    """A metric that the trainable reports (`validation/accuracy`)."""
    mode: Mode
    """Whether less or more is better; left out, the metric's own."""
    select: Literal["last", "best", "mean_of_last"] = "last"
    """Which evaluation is a run's value. `best` flatters noisy curves."""
    window: int = Field(default=5, gt=0)
    """`mean_of_last` only: evaluations in the mean."""
    across_seeds: Literal["mean", "median", "worst", "best"] = "mean"
    """How the values of a configuration's runs become one."""
    diverged: Literal["worst", "ignore"] = "worst"
    """What a diverged run counts as: the worst value there is, or nothing."""


class SchedulerChoice(StrictModel):
    """Which configurations are stopped early, by the value of all their seeds together."""

    name: Literal["fifo", "asha", "synchronous_halving", "median_stopping", "hyperband"] = "fifo"
    """`fifo` stops nobody. `asha` decides at once, so decisions depend on who arrives first. `synchronous_halving`
    waits for all: the same survivors on any machine. `hyperband`: several halvings with different first rungs.
    `median_stopping` stops whoever does worse than the middle of the others."""
    grace: int | None = Field(default=None, gt=0)
    """First rung, in units of the budget. Empty: budget / reduction_factor², at least 1. `fifo` ignores it."""
    reduction_factor: int = Field(default=3, ge=2)
    """One configuration in so many goes on from a rung; rungs are this factor apart."""
    minimum: int = Field(default=1, gt=0)
    """`asha` only: configurations that must have reached a rung before one is stopped there."""
    confidence: float | None = Field(default=None, gt=0, lt=1)
    """Nobody is stopped whose Student-t interval over its seeds, at this confidence (0.8), reaches the threshold.
    Safer, and dearer than planned, the more so the fewer the seeds. Empty: values alone decide. For `across_seeds:
    mean`; `fifo` ignores it."""


class SearcherChoice(StrictModel):
    """Who chooses the configurations."""

    name: Literal["plan", "optuna"] = "plan"
    """`plan`: the study file; all are known before anything starts. `optuna`: tree-structured Parzen estimators (TPE)
    choose `samples` configurations one after another, from what the earlier ones reached."""
    seed: int = Field(default=0, ge=0)
    """`optuna` only: seed of its choices."""


class Confirmation(StrictModel):
    """After the search: the best configurations again, from the start, with seeds that took no part in choosing them.
    The best of many is best by luck, too; only these values say how good it is."""

    top: int = Field(default=1, gt=0)
    """How many configurations: the best of those that came to the end of the search; if they are fewer, also those that
    were stopped last."""
    seeds: int = Field(default=8, gt=0)
    """How many fresh seeds each: 1,000,000,000 and those that follow."""

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(range(CONFIRM_SEEDS_FROM, CONFIRM_SEEDS_FROM + self.seeds))


class Resources(StrictModel):
    """What a process that trains gets: one for each configuration, or with `workers` several."""

    cpus: int = Field(default=1, gt=0)
    """Processor cores of each process, and its threads. One is the fastest for small models; with another number of
    threads the last bits of all numbers differ."""
    gpus: float = Field(default=0.0, ge=0)
    """Graphics processors of each process; below 1, several configurations share one."""
    workers: int = Field(default=1, gt=0)
    """Processes that train one run together, each on its share of every batch (DDP under Ray Train). The batches are
    the same with any number of them, the last bits of all numbers are not, and dropout draws other masks. With a GPU,
    every worker needs a whole one."""
    concurrent: int | None = Field(default=None, gt=0)
    """Most configurations that are trained at the same time; empty: as many as fit."""


class CheckpointPolicy(StrictModel):
    """When runs are saved, and what stays when the study is over."""

    seconds: float = Field(default=30.0, ge=0)
    """Seconds of training that an interruption may cost the run that is being trained, and once more the other runs of
    its configuration together. A run is saved when so much has come together, and at its end."""
    keep: Keep = "best"
    """Which configurations keep their last checkpoints when the study is over. `best`: the first of the table that
    `rung results` shows, by fresh seeds where it is confirmed. A number: so many of the best. `completed`: all but
    those that the scheduler stopped. `all`: those, too. `none`: no one. What a study needs to go on always stays."""

    @field_validator("keep", mode="before")
    @classmethod
    def _word_or_count(cls, keep: Any) -> Any:
        words = get_args(KeepWord)
        if keep in words or (isinstance(keep, int) and not isinstance(keep, bool) and keep >= 1):
            return keep
        close = get_close_matches(str(keep), words, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"expected {', '.join(words)} or how many of the best (at least 1), got {keep!r}{hint}")


class FailurePolicy(StrictModel):
    """What happens when something breaks."""

    retries: int = Field(default=1, ge=0)
    """How often a configuration whose process died is started again, from its last checkpoint."""


class BestOf(StrictModel):
    """Several configurations to start from."""

    top: int = Field(gt=0)
    """How many: the best of the other study, each of which becomes a value of the dimension `start`."""


class StartChoice(StrictModel):
    """The study whose checkpoints this one's runs start from, seed i from seed i: this study is a stage."""

    study: str
    """Its name, or that of its folder, in the same storage."""
    configuration: str | BestOf = "best"
    """Which of its configurations. `best`: the first of the table that `rung results` shows, by fresh seeds where it is
    confirmed. An id, its beginning, or a label: that one. `{top: 3}`: each of the best three, as a dimension that is
    swept."""


class Study(StrictModel):
    """One sweep: a trainable, a base configuration, a search space, seeds, a scheduler, resources."""

    study: str
    """Its name, which is also the name of its folder: letters, digits, `.`, `_` and `-`."""
    trainable: str
    """What is trained: a registered name or `package.module:Class`."""
    base: dict[str, Any] = Field(default_factory=dict)
    """The trainable's configuration, where it differs from its defaults."""
    start: StartChoice | None = None
    """The study whose checkpoints the runs start from; empty: fresh weights."""
    space: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What is swept: paths into the configuration, each a list or a word with its numbers (see `space.py`)."""
    samples: int = Field(default=1, gt=0)
    """Draws of the dimensions that are drawn; with `optuna` the number of configurations."""
    draw_seed: int = Field(default=0, ge=0)
    """What the draws depend on beside their path and number."""
    seeds: Seeds
    """Seeds of each configuration's runs: how many (4 is 0, 1, 2, 3), or which; or `{start: 2, full: 8}`, racing over
    seeds: so few up to the first rung, more from rung to rung, all of them for the configurations that climb."""
    budget: Budget
    """How long every run trains."""
    metric: MetricChoice
    """What configurations are judged by."""
    scheduler: SchedulerChoice = SchedulerChoice()
    """Which configurations are stopped early."""
    searcher: SearcherChoice = SearcherChoice()
    """Who chooses the configurations: the file, or a search that learns from what came before."""
    confirm: Confirmation | None = None
    """What is trained again with fresh seeds when the search is over; empty: nothing."""
    replication: Literal["serial", "packed"] = "serial"
    """How a configuration's runs are trained, in one process: `serial`, one after another, rung by rung; `packed`, all
    together, their steps batched over the seeds, for models that are too small to keep a GPU busy."""
    resources: Resources = Resources()
    """What one configuration's process gets."""
    checkpoints: CheckpointPolicy = CheckpointPolicy()
    """When runs are saved, and what stays."""
    failures: FailurePolicy = FailurePolicy()
    """What happens when a process dies."""
    tracking: TrackingChoice = TrackingChoice()
    """Where else the study can be watched: Weights & Biases. Empty: nowhere."""
    storage: str | None = None
    """Folder that holds the studies' folders. Empty: the environment variable RUNG_STORAGE, else `results`."""

    _inherited: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    @field_validator("study")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        return folder_name(name)

    @field_validator("base", mode="before")
    @classmethod
    def _nest_dotted_keys(cls, base: Any) -> Any:
        return nested(base) if isinstance(base, Mapping) else base

    @field_validator("space", mode="before")
    @classmethod
    def _read_space(cls, raw: Any) -> dict[str, Any]:
        dimensions, problems = read_space(raw)
        if problems:
            raise ValueError("; ".join(f"{dotted(problem.path)}: {problem.message}" for problem in problems))
        return {dimension.path: dimension.specification for dimension in dimensions}

    @field_validator("replication", mode="before")
    @classmethod
    def _not_spread(cls, replication: Any) -> Any:
        if replication == "spread":
            raise ValueError("spread replication is not built yet: use serial or packed")
        return replication

    @property
    def inherited(self) -> Mapping[str, Mapping[str, Any]]:
        """By id of a configuration that runs start from, what they take over from it, nested, below `base`; of a study
        that `start.resolved` has made."""
        return self._inherited

    def starting_from(self, inherited: Mapping[str, Mapping[str, Any]]) -> Study:
        """This study with what it starts from filled in: in its base if that is one configuration, else as the
        dimension `start.configuration`.

        Args:
            inherited: see the property of that name; the field `start` is in it.
        """
        ids = list(inherited)
        update: dict[str, Any] = {"base": {**self.base, "start": {"configuration": ids[0]}}}
        if len(ids) > 1:
            update = {"space": {"start.configuration": {"grid": ids}, **self.space}}
        made = self.model_copy(update=update)
        made._inherited = {config_id: dict(values) for config_id, values in inherited.items()}
        return made

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The swept paths, in the order of the file."""
        return read_space(self.space)[0]

    @property
    def directory(self) -> Path:
        """Where everything about this study is kept."""
        from rung.results.query import storage_root

        return storage_root(self.storage) / self.study


def load_study(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Study:
    """Reads and checks a study file, with `--set` overrides (`a.b=value`, see `yaml_file.py`).

    Raises:
        StudyError: everything that is wrong with it, each problem with its line.
    """
    from rung.checks import checked_study
    from rung.yaml_file import read_yaml

    return checked_study(read_yaml(Path(path), overrides))


def study_json(study: Study, plan: Plan) -> dict[str, Any]:
    """The resolved study, as it is kept in study.json beside the results."""
    data = study.model_dump(mode="json", exclude={"base", "budget"})
    if study.scheduler.name != "fifo":
        data["scheduler"]["grace"] = plan.rungs[0]
    unit = "seconds" if study.budget.unit == "wall_clock" else study.budget.unit
    target, confirm = study.budget.target, study.confirm
    return {
        "format": 1,
        "study": data.pop("study"),
        "trainable": data.pop("trainable"),
        "swept": list(study.space),
        "metric": {**data.pop("metric"), "worst_value": worst_value(study, plan.examples[0].config)},
        "budget": {
            "unit": unit,
            "amount": study.budget.amount,
            "wall_clock": study.budget.cap,
            "target": target and target.model_dump(),
        },
        "seeds": data.pop("seeds"),
        "seeds_at_start": study.seeds.start,
        "rungs": list(plan.rungs),
        "seed_counts": list(plan.seed_counts),
        "base": plan.base,
        "references": references(study, plan),
        **data,
        "confirm": confirm and {"top": confirm.top, "seeds": list(confirm.fresh_seeds)},
    }


def worst_value(study: Study, config: TrainableConfig) -> float | None:
    """The worst value that the study's metric can take, if it has one: what a diverged run counts as."""
    metric = find_trainable(study.trainable).metrics(config).get(study.metric.name)
    return metric.worst if metric is not None else None


MOST_REFERENCES = 4
"""More lines than that for one metric, because they differ between configurations, explain nothing."""


def references(study: Study, plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """What theory says about the metrics of the study's configurations (`Trainable.references`), by metric."""
    kind = find_trainable(study.trainable)
    found: dict[str, dict[tuple[str, float], None]] = {}
    for example in plan.examples:
        for metric, lines in kind.references(example.config).items():
            found.setdefault(metric, {}).update(dict.fromkeys((line.label, line.value) for line in lines))
    return {
        metric: [{"label": label, "value": value} for label, value in lines]
        for metric, lines in found.items()
        if len(lines) <= MOST_REFERENCES
    }
