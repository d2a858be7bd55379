"""A study of short runs as a whole command: `rung run` against the `for` loop and plain Ray Tune.

    python -m tests.benchmarks.sweep --quick              4 configurations x 4 seeds x 3 s, about 5 minutes
    python -m tests.benchmarks.sweep                      8 x 8 x 10 s, about 35 minutes
    python -m tests.benchmarks.sweep --own-step           the others train with the plain loop that users write

All forms train the same models on the same data for the same number of steps, evaluate as often and leave their
numbers in files; `plain_sweeps.py` is what they are compared with, written as a competent user would. Unless
`--own-step` is given they also share model and step, so that only the way of sweeping differs. Every form is one
command, measured from its start to its end, report included; CPU seconds are those of all its processes. A run's steps
are those that one thread takes in about `--seconds`, measured first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text
from tests.benchmarks.plain_sweeps import rung_run, rung_study
from tests.benchmarks.processes import Usage, python, run_command

FORMS = {
    "rung": "`rung run`",
    "loop": "`for` loop, torch's default threads",
    "processes": "`for` loop split over processes of one thread",
    "tune": "Ray Tune, one trial per seed",
    "tune_reused": "Ray Tune, one trial per seed, `reuse_actors`",
}
EVALUATIONS = 10
"""Of a run, beside the one before its first step."""


def main() -> None:
    options = _options()
    study = _study(options)
    directory = Path(tempfile.mkdtemp(prefix="rung-sweep-"))
    usages: dict[str, list[Usage]] = {form: [] for form in options.forms}
    print_machine()
    try:
        cases = {form: partial(_run, form, study, directory, usages[form]) for form in options.forms}
        walls = alternate(cases, options.turns, warm_up=0)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print(study, walls, usages, options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--configurations", type=int, default=8)
    arguments.add_argument("--seeds", type=int, default=8)
    arguments.add_argument("--seconds", type=float, default=10.0, help="a run takes about as long on one thread")
    arguments.add_argument("--turns", type=int, default=1)
    arguments.add_argument("--model", default="gpt", choices=("gpt", "lstm"))
    arguments.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    arguments.add_argument("--own-step", action="store_true", help="the others use plain PyTorch models and steps")
    arguments.add_argument("--quick", action="store_true", help="4 x 4 x 3 s")
    options = arguments.parse_args()
    if options.quick:
        options.configurations, options.seeds, options.seconds = 4, 4, 3.0
    return options


def _study(options: argparse.Namespace) -> dict[str, Any]:
    study: dict[str, Any] = {
        "step": "plain" if options.own_step else "rung",
        "weight_decays": [round(0.125 * (number + 1), 3) for number in range(options.configurations)],
        "seeds": options.seeds,
        "base": {"model": {"kind": options.model}},
    }
    every = max(1, round(options.seconds / EVALUATIONS / _seconds_per_step(study)))
    return {**study, "steps": EVALUATIONS * every, "every": every}


def _seconds_per_step(study: Mapping[str, Any], steps: int = 30) -> float:
    """Of rung's step on one thread of this process, in seconds of CPU time."""
    import torch

    torch.set_num_threads(1)
    step, _ = rung_run({**study, "steps": 2 * steps}, 1.0, 0)
    for _ in range(steps):
        step()
    begin = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - begin) / steps


def _run(form: str, study: Mapping[str, Any], directory: Path, usages: list[Usage]) -> float:
    """Runs one form in an empty directory; returns its wall time."""
    shutil.rmtree(directory / form, ignore_errors=True)
    (directory / form).mkdir()
    given = {**study, "directory": str(directory / form)}
    if form == "rung":
        file = directory / "sweep.yaml"
        file.write_text(yaml.safe_dump(rung_study(given)))
        usages.append(run_command(python("-m", "rung", "run", file)))
    else:
        usages.append(run_command(python("-m", "tests.benchmarks.plain_sweeps", form, json.dumps(given))))
    return usages[-1].wall


def _print(
    study: Mapping[str, Any],
    walls: Mapping[str, Sample],
    usages: Mapping[str, list[Usage]],
    options: argparse.Namespace,
) -> None:
    runs = options.configurations * options.seeds
    print(
        f"{options.configurations} configurations x {options.seeds} seeds = {runs} runs of {study['steps']:,} steps "
        f"({options.model}, about {options.seconds:g} s), {EVALUATIONS + 1} evaluations each; the others train with "
        f"{'the plain loop' if options.own_step else 'the same model and step'}; {options.turns} turns\n"
    )
    cpus = {form: Sample(form, [usage.cpu for usage in of_form]) for form, of_form in usages.items()}
    rows = []
    for form, wall in walls.items():
        ours = form == "rung" or "rung" not in walls
        rows.append(
            (
                FORMS[form],
                f"{wall.median:.0f}",
                f"{cpus[form].median:.0f}",
                "1" if ours else ratio_text(walls["rung"], wall),
                "1" if ours else ratio_text(cpus["rung"], cpus[form]),
            )
        )
    print_table(("what", "wall s", "CPU s", "times rung's wall", "times rung's CPU"), rows)


if __name__ == "__main__":
    main()
