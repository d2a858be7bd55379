"""How long each verb takes to start and to end, with Python's and Ray's own start as the floor.

    python -m tests.benchmarks.startup                    5 turns, about 8 minutes
    python -m tests.benchmarks.startup --only plan status --turns 9

A verb is measured as a user sees it: the wall time of the whole command, in turns with all others. `run` and `train`
are told apart by the rows that they leave: a configuration begins to train with its evaluation at step 0, and `run`
has done its work with the last row of a metric. The study is the demo with 2 seeds and 20 steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import rung
from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table
from tests.benchmarks.processes import ROOT, Usage, python, run_command

STUDY = ROOT / "search_spaces" / "modular_arithmetic" / "demo.yaml"
SHORT = ("seeds=2", "budget.steps=20", "base.evaluation.every=10", "scheduler={name: fifo}")
START_RAY = "import ray; ray.init(address='local', include_dashboard=False, log_to_driver=False)"
FLOORS = {
    "python": "pass",
    "import ray": "import ray",
    "import ray.tune": "import ray.tune",
    "import torch": "import torch",
    "torch's first optimizer": "import torch; torch.optim.SGD([torch.zeros(1)], lr=1.0)",
    "ray.init and its end": START_RAY,
}
LIGHT = {
    "plan": (STUDY,),
    "status": ("demo",),
    "results": ("demo",),
    "query": ("SELECT count(*) FROM metrics",),
    "schema": ("modular_arithmetic",),
    "report": ("demo",),
}


def main() -> None:
    options = _options()
    storage = Path(tempfile.mkdtemp(prefix="rung-startup-"))
    usages: dict[str, list[Usage]] = {}
    print_machine()
    try:
        _start(storage, "run")  # what the light verbs read
        samples = alternate(_cases(storage, usages, options.only), options.turns, warm_up=0)
        _print(samples, usages)
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--only", nargs="+", choices=[*FLOORS, *LIGHT, "train", "run"])
    return arguments.parse_args()


def _cases(storage: Path, usages: dict[str, list[Usage]], only: list[str] | None) -> dict[str, Callable[[], float]]:
    """By name, what is run in a turn; returns seconds, and keeps the usage."""
    commands: dict[str, Callable[[], Usage]] = {
        **{name: partial(run_command, python("-c", code)) for name, code in FLOORS.items()},
        **{name: partial(_rung, storage, name, *arguments) for name, arguments in LIGHT.items()},
    }
    cases: dict[str, Callable[[], float]] = {}
    for name, command in commands.items():
        if only is None or name in only:
            usages[name] = []
            cases[name] = partial(_measured, command, usages[name])
    for verb in ("train", "run"):
        if only is None or verb in only:
            for part in PARTS[verb]:
                usages[part] = []
            cases[verb] = partial(_parts, storage / "turns", verb, usages)
    return cases


PARTS = {
    "train": ("train, to its first report",),
    "run": ("run, to its first training step", "run, after its last report", "run, the whole command"),
}


def _measured(command: Callable[[], Usage], usages: list[Usage]) -> float:
    usages.append(command())
    return usages[-1].wall


def _parts(storage: Path, verb: str, usages: Mapping[str, list[Usage]]) -> float:
    """Runs `run` or `train` from scratch and divides its time at its first and last rows."""
    shutil.rmtree(storage, ignore_errors=True)
    whole = _start(storage, verb)
    rows = rung.load(storage / ("demo" if verb == "run" else "demo.solo")).query(
        "SELECT epoch(min(reported_at)), epoch(max(reported_at)) FROM metrics"
    )
    first, last = rows.fetchall()[0]
    walls = (first - whole.began, whole.ended - last, whole.wall)
    for part, wall in zip(PARTS[verb], walls, strict=False):
        usages[part].append(dataclasses.replace(whole, wall=wall))
    return whole.wall


def _start(storage: Path, verb: str) -> Usage:
    overrides = [part for override in SHORT for part in ("--set", override)]
    return _rung(storage, verb, STUDY, *overrides)


def _rung(storage: Path, *arguments: str | Path) -> Usage:
    return run_command(python("-m", "rung", *arguments), RUNG_STORAGE=str(storage))


def _print(samples: Mapping[str, Sample], usages: Mapping[str, list[Usage]]) -> None:
    rows = []
    for name, of_case in usages.items():
        walls = sorted(usage.wall for usage in of_case)
        cpu = Sample(name, [usage.cpu for usage in of_case]).median
        divided = any(name in parts[:-1] for parts in PARTS.values()) or name not in samples
        text = f"{Sample(name, walls).median:.2f} ({walls[0]:.2f}-{walls[-1]:.2f})"
        rows.append((name if name in FLOORS or "," in name else f"rung {name}", text, "" if divided else f"{cpu:.2f}"))
    print_table(("what", "wall s, median (range)", "CPU s"), rows)


if __name__ == "__main__":
    main()
