"""A made-up study on disk, as a finished sweep of modular arithmetic would leave it, for tests of what reads studies.

Four configurations (two models x two weight decays) with three seeds each, budget 10,000 steps, rungs 1,000, 3,000
and 10,000:

| plan | configuration | what happened |
|---|---|---|
| 0 | gpt, weight_decay=1.0 | all three seeds grok; its process was killed once and started again |
| 1 | gpt, weight_decay=0.25 | seeds 0 and 1 grok late; seed 2 never |
| 2 | lstm, weight_decay=1.0 | seed 0 never groks, seed 1 diverges at step 2,300, seed 2 fails |
| 3 | lstm, weight_decay=0.25 | stopped by the scheduler at rung 1,000 |
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from rung.results.store import TableWriter

SEEDS = (0, 1, 2)
RUNGS = (1000, 3000, 10_000)
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
STEPS = (0, *(step for step in range(10, 100, 10)), *range(100, 10_001, 100))
"""Steps at which the runs report."""

_TRAINING_ROWS = 480
_TOKENS_PER_STEP = 2 * _TRAINING_ROWS
_SECONDS_PER_STEP = 0.01


@dataclass(frozen=True)
class Planned:
    """One configuration of the synthetic study and what its runs do."""

    config_id: str
    kind: str
    weight_decay: float
    parameters: int
    grok_steps: tuple[int | None, int | None, int | None]
    """Step at which a seed's validation accuracy passes one half; None: never."""
    last_steps: tuple[int, int, int] = (10_000, 10_000, 10_000)
    statuses: tuple[str, str, str] = ("completed", "completed", "completed")

    @property
    def label(self) -> str:
        return f"{self.kind}, weight_decay={self.weight_decay}"


PLAN = (
    Planned("c3f9a1b20d771", "gpt", 1.0, 101_668, (3900, 4400, 4100)),
    Planned("c07be55d1a2f4", "gpt", 0.25, 101_668, (7200, 8300, None)),
    Planned(
        "cd41c9e8b6620",
        "lstm",
        1.0,
        267_812,
        (None, None, None),
        last_steps=(10_000, 2300, 1500),
        statuses=("completed", "diverged", "failed"),
    ),
    Planned(
        "c8812fa07c3be",
        "lstm",
        0.25,
        267_812,
        (None, None, None),
        last_steps=(1000, 1000, 1000),
        statuses=("stopped", "stopped", "stopped"),
    ),
)
"""In the order of the plan."""


def write_synthetic_study(root: Path, name: str = "synthetic", seed: int = 0) -> Path:
    """Write the study `root/name` and return its directory. The same `seed` gives the same numbers."""
    directory = root / name
    directory.mkdir(parents=True)
    _write_descriptions(directory, name)
    _write_configurations(directory, name)
    generator = np.random.default_rng(seed)
    histories = {
        _run_id(planned, run_seed): list(_history(planned, run_seed, generator))
        for planned in PLAN
        for run_seed in SEEDS
    }
    _write_metrics(directory, name, histories)
    _write_generations(directory, name)
    _write_runs(directory, name, histories)
    _write_decisions(directory, name, histories)
    _write_events(directory, name)
    return directory


# -------------------------------------------------------------------------------------------- learning
# curves

_Metrics = dict[str, float]


def _history(planned: Planned, seed: int, generator: np.random.Generator) -> Iterator[tuple[int, _Metrics]]:
    """The reports of one run: (step, metrics). Training is learnt within some hundred steps, validation later."""
    learns_at = 80 if planned.kind == "gpt" else 250
    groks_at = planned.grok_steps[seed]
    jitter = generator.normal(0, 0.01, size=(len(STEPS), 4))
    norm = 30.0 * math.sqrt(planned.parameters / 1e5)
    guess = 0.01 if planned.statuses[seed] == "stopped" else 0.05  # the stopped one is the worst whatever the noise
    for index, step in enumerate(STEPS):
        if step > planned.last_steps[seed]:
            return
        learnt = _sigmoid((step - learns_at) / (0.15 * learns_at))
        grokked = 0.0 if groks_at is None else _sigmoid((step - groks_at) / 250)
        decayed = norm * (0.4 + 0.6 * math.exp(-planned.weight_decay * step / 3000))
        yield (
            step,
            {
                "train/loss": 3.5 * (1 - learnt) * math.exp(jitter[index, 0]) + 2e-4 * math.exp(-step / 8000),
                "train/accuracy": _accuracy(learnt + jitter[index, 1] * (learnt < 0.999), 481),
                "validation/loss": (3.5 + 2.0 * learnt) * (1 - grokked) * math.exp(jitter[index, 2]) + 6e-4,
                "validation/accuracy": _accuracy(
                    guess + (1 - guess) * grokked + jitter[index, 3] * (grokked < 0.99), 480
                ),
                "parameter_norm": decayed,
                "gradient_norm": 0.8 * math.exp(-step / 4000) * math.exp(jitter[index, 0]),
                "learning_rate": 1e-3 * min(1.0, step / 10),
            },
        )


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, x))))


def _accuracy(value: float, rows: int) -> float:
    return round(min(1.0, max(0.0, value)) * rows) / rows


# --------------------------------------------------------------------------------------------------------
# tables


def _write_metrics(directory: Path, study: str, histories: dict[str, list[tuple[int, _Metrics]]]) -> None:
    for planned in PLAN:
        # # The process of the first configuration is killed after seed 1's step 5,000, its last checkpoint # being at
        # step 4,000: what lies between is reported twice.
        is_killed = planned is PLAN[0]
        with TableWriter(directory, "metrics", planned.config_id, attempt=1, flush_rows=60) as writer:
            for seed in SEEDS:
                end = {0: 10_000, 1: 5_000, 2: -1}[seed] if is_killed else 10_000
                _add_metrics(writer, planned, study, seed, histories, 0, end)
        if is_killed:
            with TableWriter(directory, "metrics", planned.config_id, attempt=2, flush_rows=60) as writer:
                _add_metrics(writer, planned, study, 1, histories, 4_100, 10_000)
                _add_metrics(writer, planned, study, 2, histories, 0, 10_000)


def _add_metrics(
    writer: TableWriter,
    planned: Planned,
    study: str,
    seed: int,
    histories: dict[str, list[tuple[int, _Metrics]]],
    first: int,
    last: int,
) -> None:
    for step, metrics in histories[_run_id(planned, seed)]:
        if first <= step <= last:
            clock = {**_progress(step), "reported_at": _time(planned, seed, step)}
            writer.add({**_identity(study, planned, seed), **clock, **metrics})


def _write_runs(directory: Path, study: str, histories: dict[str, list[tuple[int, _Metrics]]]) -> None:
    with TableWriter(directory, "runs", "driver") as writer:
        for planned in PLAN:
            for seed in SEEDS:
                row = _run_row(study, planned, seed, histories[_run_id(planned, seed)])
                writer.add({**row, "status": "running", "ended_by": None, "error": None, "revision": 0, "step": 0})
                writer.add({**row, "revision": 1})


def _run_row(study: str, planned: Planned, seed: int, history: list[tuple[int, _Metrics]]) -> dict[str, object]:
    status = planned.statuses[seed]
    last_step, last = history[-1]
    accuracies = [metrics["validation/accuracy"] for _, metrics in history]
    endings = {"completed": "budget", "stopped": "scheduler", "diverged": "divergence", "failed": "error"}
    return {
        **_identity(study, planned, seed),
        "status": status,
        "ended_by": endings[status],
        "error": "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed"
        if status == "failed"
        else None,
        **_progress(last_step),
        "value": last["validation/accuracy"] if status in ("completed", "stopped") else None,
        "best": max(accuracies),
        "best_step": history[accuracies.index(max(accuracies))][0],
        "diverged_step": last_step if status == "diverged" else None,
        "parameters": planned.parameters,
        "replication": "serial",
        "workers": 1,
        "threads": 1,
        "device": "cpu",
        "host": "workstation",
        "updated_at": _time(planned, seed, last_step),
    }


def _write_configurations(directory: Path, study: str) -> None:
    with TableWriter(directory, "configurations", "driver") as writer:
        for index, planned in enumerate(PLAN):
            config = _configuration(planned)
            writer.add(
                {
                    "study": study,
                    "trainable": "modular_arithmetic",
                    "config_id": planned.config_id,
                    "label": planned.label,
                    "plan_index": index,
                    "sample": 0,
                    "created_at": START,
                    "config_json": json.dumps(config),
                    **{f"config.{path}": value for path, value in _flat(config)},
                }
            )


def _write_decisions(directory: Path, study: str, histories: dict[str, list[tuple[int, _Metrics]]]) -> None:
    order = 0
    with TableWriter(directory, "decisions", "driver") as writer:
        for level in RUNGS[:-1]:
            judged = [planned for planned in PLAN if planned.last_steps[0] >= level]
            values = {p.config_id: _mean_accuracy(p, histories, level) for p in judged}
            ranking = sorted(judged, key=lambda p: -values[p.config_id])
            for rank, planned in enumerate(ranking, start=1):
                value = values[planned.config_id]
                stops = planned.last_steps[0] == level
                place = f"place {rank} of {len(judged)} at rung {level}"
                writer.add(
                    {
                        "study": study,
                        "config_id": planned.config_id,
                        "phase": "search",
                        "scheduler": "halving",
                        "bracket": 0,
                        "level": level,
                        "value": value,
                        "threshold": values[ranking[2].config_id],
                        "rank": rank,
                        "compared": len(judged),
                        "seeds": len(SEEDS),
                        "decision": "stop" if stops else "continue",
                        "reason": f"{place}: the last is stopped" if stops else f"{place}: goes on",
                        "order": order,
                        "decided_at": _time(planned, 2, level),
                    }
                )
                order += 1


def _mean_accuracy(planned: Planned, histories: dict[str, list[tuple[int, _Metrics]]], level: int) -> float:
    reached = [dict(histories[_run_id(planned, seed)]).get(level) for seed in SEEDS]
    return float(np.mean([metrics["validation/accuracy"] for metrics in reached if metrics]))


def _write_generations(directory: Path, study: str) -> None:
    planned = PLAN[0]
    with TableWriter(directory, "generations", planned.config_id) as writer:
        for index, (a, b) in enumerate([(3, 4), (30, 5), (17, 22)]):
            gold = str((a + b) % 31)
            response = gold if index != 1 else "6"
            texts = {"prompt": f"{a} + {b} =", "response": response, "extracted": response, "gold": gold}
            when = {"step": 10_000, "reported_at": _time(planned, 0, 10_000)}
            row = {**_identity(study, planned, 0), **when, "index": index, **texts}
            writer.add({**row, "reward": float(response == gold)})


def _write_events(directory: Path, study: str) -> None:
    with TableWriter(directory, "events", "driver") as writer:

        def add(
            seconds: float, kind: str, message: str, planned: Planned | None = None, seed: int | None = None
        ) -> None:
            about = {
                "config_id": planned and planned.config_id,
                "run_id": (planned and seed is not None and _run_id(planned, seed)) or None,
            }
            time = START + timedelta(seconds=seconds)
            writer.add({"study": study, "time": time, "kind": kind, "message": message, **about})

        add(0, "launch", "4 configurations x 3 seeds = 12 runs")
        for index, planned in enumerate(PLAN):
            add(1 + index, "configuration_started", planned.label, planned)
        add(31, "configuration_stopped", "last at rung 1000", PLAN[3])
        add(
            38,
            "run_failed",
            "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed",
            PLAN[2],
            2,
        )
        add(46, "run_diverged", "the training loss was not finite at step 2300", PLAN[2], 1)
        add(151, "trial_restarted", "goes on from step 4000 of seed 1", PLAN[0])
        for planned in PLAN[:3]:
            add(300, "configuration_completed", planned.label, planned)
        add(301, "finished", "3 configurations completed, 1 stopped")


# -------------------------------------------------------------------------------------------------
# descriptions

_STUDY_YAML = """\
study: {name}
trainable: modular_arithmetic
base:
  modulus: 31
  operator: "+"
space:
  model.kind: {{grid: [gpt, lstm]}}
  optimizer.weight_decay: {{grid: [1.0, 0.25]}}
seeds: 3
budget: {{steps: 10000}}
metric: {{name: validation/accuracy, mode: max, select: last, across_seeds: mean}}
scheduler: {{name: halving, grace: 1000, reduction_factor: 3}}
"""


def _write_descriptions(directory: Path, name: str) -> None:
    (directory / "study.yaml").write_text(_STUDY_YAML.format(name=name))
    study = {
        "format": 1,
        "study": name,
        "trainable": "modular_arithmetic",
        "swept": ["model.kind", "optimizer.weight_decay"],
        "metric": {"name": "validation/accuracy", "mode": "max", "select": "last", "across_seeds": "mean"},
        "budget": {"unit": "steps", "amount": RUNGS[-1]},
        "seeds": list(SEEDS),
        "rungs": list(RUNGS),
        "scheduler": {"name": "halving", "grace": 1000, "reduction_factor": 3},
        "base": {"modulus": 31, "operator": "+"},
        "space": {"model.kind": {"grid": ["gpt", "lstm"]}, "optimizer.weight_decay": {"grid": [1.0, 0.25]}},
        "resources": {"cpus": 1, "gpus": 0, "workers": 1},
    }
    (directory / "study.json").write_text(json.dumps(study, indent=2))
    launch = {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "diff_sha256": None,
        "command": f"rung run search_spaces/modular_arithmetic/{name}.yaml",
        "started_at": START.isoformat(),
        "versions": {"python": "3.11.7", "rung": "0.1.0", "ray": "2.60.0", "torch": "2.13.0"},
        "host": "workstation",
        "processor": "a made-up processor",
        "cores": 2,
        "threads": 1,
    }
    (directory / "provenance.json").write_text(json.dumps({"launches": [launch]}, indent=2))


def _configuration(planned: Planned) -> dict[str, object]:
    return {
        "modulus": 31,
        "operator": "+",
        "train_fraction": 0.5,
        "orders": [2],
        "model": {"kind": planned.kind, "layers": 2, "width": 128, "dropout": 0.0, "tied_embedding": False},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": planned.weight_decay,
            "momentum": None,
        },
    }


def _flat(config: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _identity(study: str, planned: Planned, seed: int) -> dict[str, object]:
    run_id = _run_id(planned, seed)
    return {"study": study, "config_id": planned.config_id, "run_id": run_id, "seed": seed, "phase": "search"}


def _run_id(planned: Planned, seed: int) -> str:
    return f"{planned.config_id}-s{seed}"


def _progress(step: int) -> dict[str, object]:
    # The batch covers the training set: one step is one epoch.
    return {
        "step": step,
        "epoch": float(step),
        "tokens": step * _TOKENS_PER_STEP,
        "wall_seconds": step * _SECONDS_PER_STEP,
    }


def _time(planned: Planned, seed: int, step: int) -> datetime:
    """Configurations run at the same time, the seeds of one after the other."""
    seconds = PLAN.index(planned) + seed * planned.last_steps[0] * _SECONDS_PER_STEP + step * _SECONDS_PER_STEP
    return START + timedelta(seconds=seconds)
