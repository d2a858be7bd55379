"""Studies of any size and state on disk, for tests of figures and reports, which draw what `synthetic.py` has not.

The curves are smooth functions of configuration and seed: accuracy rises at a step of its own, loss falls with it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rung.results.store import TableWriter

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
FRESH = 1_000_000_000
"""The first of the fresh seeds."""
SECONDS_PER_STEP = 0.02
TOKENS_PER_STEP = 960


@dataclass(frozen=True)
class MadeUp:
    """What a study consists of. Every configuration is a value of each swept path, and a quality in [0, 1]."""

    swept: Mapping[str, Sequence[Any]]
    """Dotted path to its value in every configuration."""
    seeds: int = 4
    steps: Sequence[int] = tuple(range(0, 1001, 100))
    rungs: Sequence[int] = (100, 300, 1000)
    stopped: Mapping[int, int] = field(default_factory=dict)
    """Configuration (position in the plan) to the rung where the scheduler stopped it."""
    ended: Mapping[tuple[int, int], tuple[str, int, str]] = field(default_factory=dict)
    """(Configuration, seed) to status, step and text of a run that is running, diverged or failed there; at step -1
    before its first report."""
    groups: Sequence[str] = ()
    """Parts of the data with their own losses and accuracies."""
    metric: Mapping[str, Any] = field(default_factory=dict)
    """Where it differs from the mean of the last validation accuracies."""
    study: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of study.json."""
    label: str = "{}"
    """Where the text of the swept values goes."""
    confirmed: Sequence[int] = ()
    """Configurations with runs in phase confirm."""
    fresh: int | None = None
    """Fresh seeds in phase confirm, as study.json is to say; None: as many as seeds, and it says nothing of them."""
    confirm_ended: Mapping[tuple[int, int], tuple[str, int, str]] = field(default_factory=dict)
    """As `ended`, for the fresh seeds, counted from 0."""
    values: Mapping[tuple[int, str], Sequence[float]] = field(default_factory=dict)
    """(Configuration, phase) to what its runs reach in the end, where the curves are to lead there and not to 1."""

    @property
    def fresh_seeds(self) -> list[int]:
        return [FRESH + number for number in range(self.seeds if self.fresh is None else self.fresh)]

    @property
    def count(self) -> int:
        return len(next(iter(self.swept.values())))

    def config_id(self, index: int) -> str:
        return f"c{index:012x}"

    def swept_of(self, index: int) -> dict[str, Any]:
        return {path: values[index] for path, values in self.swept.items()}

    def label_of(self, index: int) -> str:
        texts = (f"{path.rpartition('.')[2]}={value}" for path, value in self.swept_of(index).items())
        return self.label.format(", ".join(texts))


def write_study(directory: Path, made_up: MadeUp) -> Path:
    """Write the study into `directory`, which is named as the study is, and return it."""
    directory.mkdir(parents=True)
    name = directory.name
    (directory / "study.json").write_text(json.dumps(_description(name, made_up)))
    (directory / "study.yaml").write_text(f"study: {name}\n")
    with TableWriter(directory, "configurations", "driver") as configurations:
        for index in range(made_up.count):
            configurations.add(_configuration_row(name, made_up, index))
    with TableWriter(directory, "runs", "driver") as runs, TableWriter(directory, "metrics", "all") as metrics:
        for index in range(made_up.count):
            seeds = [(seed, "search") for seed in range(made_up.seeds)]
            if index in made_up.confirmed:
                seeds += [(seed, "confirm") for seed in made_up.fresh_seeds]
            for seed, phase in seeds:
                _write_run(runs, metrics, name, made_up, index, seed, phase)
    _write_decisions(directory, name, made_up)
    return directory


def _description(name: str, made_up: MadeUp) -> dict[str, Any]:
    metric = {"name": "validation/accuracy", "mode": "max", "select": "last", "across_seeds": "mean"}
    return {
        "format": 1,
        "study": name,
        "trainable": "modular_arithmetic",
        "swept": list(made_up.swept),
        "metric": metric | dict(made_up.metric),
        "budget": {"unit": "steps", "amount": made_up.rungs[-1]},
        "seeds": list(range(made_up.seeds)),
        "rungs": list(made_up.rungs),
        "scheduler": {"name": "synchronous_halving", "grace": made_up.rungs[0], "reduction_factor": 3},
        "base": {},
        "space": {path: {"grid": list(dict.fromkeys(values))} for path, values in made_up.swept.items()},
        "resources": {"cpus": 1, "gpus": 0, "workers": 1},
        "confirm": None if made_up.fresh is None else {"top": len(made_up.confirmed), "seeds": made_up.fresh_seeds},
        **made_up.study,
    }


def _configuration_row(name: str, made_up: MadeUp, index: int) -> dict[str, object]:
    return {
        "study": name,
        "trainable": "modular_arithmetic",
        "config_id": made_up.config_id(index),
        "label": made_up.label_of(index),
        "plan_index": index,
        "sample": 0,
        "created_at": START,
        "config_json": json.dumps(made_up.swept_of(index)),
        **{f"config.{path}": value for path, value in made_up.swept_of(index).items()},
    }


def _write_run(
    runs: TableWriter, metrics: TableWriter, name: str, made_up: MadeUp, index: int, seed: int, phase: str
) -> None:
    ended = made_up.ended if phase == "search" else made_up.confirm_ended
    status, last, text = ended.get((index, seed % FRESH), ("completed", made_up.steps[-1], ""))
    if phase == "search" and index in made_up.stopped:
        status, last = "stopped", made_up.stopped[index]
    levels = made_up.values.get((index, phase))
    level = levels[seed % FRESH] if levels else 1.0
    config_id = made_up.config_id(index)
    suffix = "-confirm" if phase == "confirm" else ""
    about = {"study": name, "config_id": config_id, "run_id": f"{config_id}-s{seed}{suffix}"}
    about |= {"seed": seed, "phase": phase}
    steps = [step for step in made_up.steps if step <= last]
    for step in steps:
        values = _metrics(made_up, index, seed, step, level)
        metrics.add({**about, **_progress(step), "reported_at": _time(index, step), **values})
    reached = steps[-1] if steps else 0
    value = _metrics(made_up, index, seed, reached, level)[made_up.metric.get("name", "validation/accuracy")]
    runs.add(
        {
            **about,
            **_progress(reached),
            "status": status,
            "ended_by": _ENDED_BY.get(status),
            "error": text or None,
            "revision": 1,
            "value": None if status in ("diverged", "failed") else value,
            "best": value,
            "best_step": reached,
            "diverged_step": reached if status == "diverged" else None,
            "parameters": 101_668,
            "replication": "serial",
            "threads": 1,
            "device": "cpu",
            "host": "workstation",
            "updated_at": _time(index, reached),
        }
    )


_ENDED_BY = {"completed": "budget", "stopped": "scheduler", "diverged": "divergence", "failed": "error"}


def _metrics(made_up: MadeUp, index: int, seed: int, step: int, level: float) -> dict[str, float]:
    """What a run reports. Accuracies go to `level`."""
    seed = seed if seed < FRESH else seed - FRESH + 100
    last = made_up.steps[-1]
    wiggle = math.sin(12.9898 * index + 78.233 * seed)
    learns, groks = 0.02 * last, last * (0.25 + 0.6 * index / made_up.count + 0.06 * wiggle)
    values = {}
    for depth, group in enumerate(("", *made_up.groups)):
        middle = f"{group}/" if group else ""
        noise = 0.01 * math.sin(step * (3 + seed) + index + depth)
        for split, when, width in (("train", learns, 0.2 * learns), ("validation", groks, 0.04 * last)):
            learnt = 1 / (1 + math.exp(-max(-60, min(60, (step - when - depth * width) / width))))
            values[f"{split}/{middle}loss"] = 3.5 * (1 - learnt) * (1 + noise) + 3e-4 * (1 + index)
            accuracy = 0.04 + (level - 0.04) * learnt + noise * (1 - learnt)
            values[f"{split}/{middle}accuracy"] = min(1.0, max(0.0, accuracy))
    return values | {"parameter_norm": 20 + 40 * math.exp(-step / last * (1 + index / made_up.count)) + wiggle}


def _progress(step: int) -> dict[str, object]:
    return {
        "step": step,
        "epoch": float(step),
        "tokens": step * TOKENS_PER_STEP,
        "wall_seconds": step * SECONDS_PER_STEP,
    }


def _time(index: int, step: int) -> datetime:
    return START + timedelta(seconds=index + step * SECONDS_PER_STEP)


def _write_decisions(directory: Path, name: str, made_up: MadeUp) -> None:
    order = 0
    with TableWriter(directory, "decisions", "driver") as writer:
        for level in made_up.rungs[:-1] if made_up.stopped else ():
            judged = [i for i in range(made_up.count) if made_up.stopped.get(i, math.inf) >= level]
            for rank, index in enumerate(judged, start=1):
                stops = made_up.stopped.get(index) == level
                row = {"study": name, "config_id": made_up.config_id(index), "phase": "search"}
                row |= {"scheduler": "synchronous_halving", "bracket": 0, "level": level}
                row |= {"value": 1 - rank / 1000, "threshold": 0.99, "rank": rank, "compared": len(judged)}
                row |= {"seeds": made_up.seeds, "decision": "stop" if stops else "continue", "order": order}
                reason = f"rank {rank} of {len(judged)} at {level} steps"
                writer.add({**row, "reason": reason, "decided_at": _time(index, level)})
                order += 1
