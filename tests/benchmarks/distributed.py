"""Several workers for one run (`resources.workers`): what they gain, and what their start costs.

    python -m tests.benchmarks.distributed                        both parts, about 6 minutes
    python -m tests.benchmarks.distributed --parts speed --turns 5
    python -m tests.benchmarks.distributed --parts start

`speed`: steps of a decoder on a character stream, without Ray and without evaluation: one process with one thread, one
process with two threads, two processes of one thread that share each batch (gloo). Wall time, and CPU time of each
process, which says what a step takes where its cores are free; cases are processes of their own and take turns.
`start`: a study of three configurations of a model that costs nothing, with two seeds each, by `rung run` with one
process and with two workers: how long it takes from the launch to the first report, from the start of a later
configuration to its first report, and from the first report of a seed to that of the next. What it lays open are the
starts of processes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rung.results.query import load
from rung.training.assignment import Assignment, Goal
from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text
from tests.benchmarks.processes import python, run_command
from tests.team import Job, train_together

MODELS: dict[str, dict[str, Any]] = {
    "4 layers of 128, 12 x 64 tokens": {"batch_size": 12, "context": 64},
    "4 layers of 256, 32 x 128 tokens": {"batch_size": 32, "context": 128, "model": {"width": 256}},
}
CASES = {"one process, one thread": (1, 1), "one process, two threads": (1, 2), "two workers, one thread each": (2, 1)}
"""Processes, and threads of each."""
EVERY = 5
"""Steps between two rows."""
WARM_UP = 5
"""Steps."""


def main() -> None:
    options = _options()
    print_machine()
    if "speed" in options.parts:
        _speed(options.turns, options.steps)
    if "start" in options.parts:
        _start(options.turns)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", choices=["speed", "start"], default=["speed", "start"])
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=40)
    return arguments.parse_args()


def _speed(turns: int, steps: int) -> None:
    rows = []
    for model, config in MODELS.items():
        busiest: dict[str, list[float]] = {name: [] for name in CASES}
        cases = {name: partial(_step, config, steps, *size, busiest[name]) for name, size in CASES.items()}
        samples = alternate(cases, turns, warm_up=0)
        base = next(iter(samples.values()))
        for name, sample in samples.items():
            cpu = 1000 * statistics.median(busiest[name])
            rows.append((model, name, f"{1000 * sample.median:.1f}", ratio_text(sample, base), f"{cpu:.1f}"))
    print_table(("model", "what", "wall ms/step", "times the first rate", "CPU ms/step of one process"), rows)


def _step(config: dict[str, Any], steps: int, workers: int, threads: int, busiest: list[float]) -> float:
    """Trains some steps in processes of their own; wall seconds for one of them. Adds the CPU seconds for one of the
    process that took most."""
    from trainables.character_streams.trainable import CharacterStreams

    values = {"characters": 50_000, "evaluation_tokens": 256, "answers": 1, **config}
    values["evaluation"] = {"every": 10**6, "log_every": EVERY}
    with tempfile.TemporaryDirectory() as folder:
        assignment = Assignment(
            directory=folder,
            study="speed",
            trainable="character_streams",
            config_id="c000000000001",
            config=CharacterStreams.Config.model_validate(values).model_dump(mode="json"),
            seeds=(0,),
            goal=Goal("steps", steps, "validation/loss", "min"),
            checkpoint_seconds=None,
        )
        ((row,),) = train_together([Job(assignment, (WARM_UP, steps))], workers, threads=threads)
        busiest.append(max(row["cpu_seconds"]) / (steps - WARM_UP))
        columns = "step, wall_seconds"
        clock = load(Path(folder)).metrics.filter("step > 0").select(columns).order("step").fetchall()
    first, last = [each for each in clock if each[0] in (WARM_UP + EVERY, steps - EVERY)]  # between the evaluations
    return float(last[1] - first[1]) / (last[0] - first[0])


def _start(turns: int) -> None:
    cases: dict[str, Callable[[], float]] = {}
    found: dict[str, list[dict[str, float]]] = {}
    for workers, name in ((1, "one process"), (2, "two workers")):
        found[name] = []
        cases[name] = partial(_sweep, workers, found[name])
    samples = alternate(cases, turns, warm_up=0)
    rows = []
    for name, sample in samples.items():
        middle = [f"{statistics.median(each[part] for each in found[name]):.1f}" for part in found[name][0]]
        rows.append((name, *middle, f"{sample.median:.1f}"))
    print_table(("trained by", "launch, s", "later configuration, s", "next seed, s", "the whole command, s"), rows)


def _sweep(workers: int, found: list[dict[str, float]]) -> float:
    """A whole `rung run`; returns its wall time, and adds what its tables tell."""
    study = {
        "study": "start",
        "trainable": "tests.toy:Toy",
        "base": {"evaluation": {"every": 5}},
        "space": {"optimizer.learning_rate": {"grid": [0.1, 0.01, 0.001]}},
        "seeds": 2,
        "budget": {"steps": 10},
        "metric": {"name": "validation/loss", "mode": "min"},
        "resources": {"workers": workers, "concurrent": 1},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_text(yaml.safe_dump(study))
        wall = run_command(python("-m", "rung", "run", path, "--set", f"storage={folder}")).wall
        found.append(_times(Path(folder, "start")))
    return wall


def _times(directory: Path) -> dict[str, float]:
    """Seconds to the first report: from the launch, from the start of a later configuration, and from the first report
    of a seed to that of the next."""
    results = load(directory)
    begun = "kind IN ('launch', 'configuration_started')"
    events = results.events.filter(begun).order("time").select("config_id, epoch(time)").fetchall()
    (_, launch), (first, _), *later = events
    reports = "config_id, seed, min(epoch(reported_at))"
    seen = {(config_id, seed): at for config_id, seed, at in results.metrics.aggregate(reports).fetchall()}
    return {
        "launch": seen[first, 0] - launch,
        "later": statistics.median(seen[config_id, 0] - start for config_id, start in later),
        "seed": statistics.median(at - seen[config_id, 0] for (config_id, seed), at in seen.items() if seed == 1),
    }


if __name__ == "__main__":
    main()
