"""Where the time of a whole sweep goes: by phase, by process, inside the driver, inside a trial, inside a step.

    python -m tests.benchmarks.anatomy                                the demo, about 5 minutes
    python -m tests.benchmarks.anatomy STUDY.yaml --set seeds=2       another study

`rung run` is run under py-spy, which comes with Ray, and so is `rung train`, which is what a trial does without Ray and
checkpoints: 50 times a second each running thread's stack counts for what its innermost known function is for. CPU
seconds by process are the system's own. Inside a step torch's profiler adds up operators.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rung
from tests.benchmarks.measure import parser, print_machine, print_table
from tests.benchmarks.processes import ROOT, Usage, run_command

DEMO = ROOT / "search_spaces" / "modular_arithmetic" / "demo.yaml"
RATE = 50
"""Samples a second."""
TRIAL_PROCESSES = ("ResourceTrainable", "ConfigurationTrial")
"""What the processes that train are called, while a trial runs and before."""

# What a sample was for: the first entry, from the top, one of whose texts is in some frame of its stack.
DRIVER = {
    "imports": ("importlib",),
    "starting and ending Ray": (" init (ray/_private/worker.py", "init:", "shutdown (ray/_private/worker.py"),
    "report": ("write_report",),
    "progress view": ("rung/tuning/progress.py",),
    "the ledger's rows": ("rung/tuning/ledger.py",),
    "tables at the end": ("compact (rung", "keep_checkpoints", "render_summary"),
    "Tune's loop": ("ray/tune",),
    "other of Ray": ("ray/",),
}
TRIALS = {
    "imports": ("importlib",),
    "evaluation": ("evaluate (rung/training/loop.py", "evaluate (trainables"),
    "checkpoints": ("save_checkpoint", "load_checkpoint"),
    "rows": ("rung/training/recorder.py", "rung/results/"),
    "backward": ("_engine_run_backward",),
    "optimizer": ("torch/optim/",),
    "gradient norm": ("clip_grad_norm_",),
    "forward": ("loss (trainables", "loss (tests"),
    "data and model": ("rung/training/run.py", " at (trainables"),
    "the loop itself": ("rung/training/loop.py",),
    "Ray": ("ray/",),
}
OPERATORS = {
    "matrix products": ("mm", "matmul", "linear", "einsum"),
    "attention": ("scaled_dot_product", "_softmax"),
    "optimizer": ("_fused_adam", "_foreach"),
    "elementwise and norms": ("mul", "add", "div", "sub", "gelu", "sigmoid", "tanh", "norm", "sqrt", "pow", "exp"),
    "copies and indexing": ("copy", "cat", "index", "gather", "scatter", "embedding", "fill", "zero", "clone", "stack"),
}


def main() -> None:
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="rung-anatomy-"))
    print_machine()
    try:
        usage = _spy("run", options, directory)
        _print_phases(usage, directory)
        _print_processes(usage)
        _print_samples("driver", DRIVER, directory / "run.txt")
        _spy("train", options, directory)
        _print_samples("trial (`rung train`, one configuration)", TRIALS, directory / "train.txt")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    _print_operators(options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("study", nargs="?", type=Path, default=DEMO)
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return arguments.parse_args()


def _sets(options: argparse.Namespace) -> Iterator[str]:
    for override in options.set:
        yield from ("--set", override)


def _spy(verb: str, options: argparse.Namespace, directory: Path) -> Usage:
    """Runs a verb under py-spy, whose stacks are left in `<verb>.txt`."""
    spy = [Path(sys.executable).with_name("py-spy"), "record", "--rate", str(RATE), "--format", "raw"]
    command = [sys.executable, "-m", "rung", verb, options.study, "--set", f"storage={directory}", *_sets(options)]
    return run_command([*spy, "--output", directory / f"{verb}.txt", "--", *command])


# The whole sweep.


def _print_phases(usage: Usage, directory: Path) -> None:
    name = next(path.parent for path in directory.glob("*/study.json"))
    query = "SELECT epoch(min(reported_at)), epoch(max(reported_at)) FROM metrics"
    first, last = rung.load(name).query(query).fetchall()[0]
    rows = [
        ("start, until a configuration trains", f"{first - usage.began:.1f}"),
        ("training", f"{last - first:.1f}"),
        ("end, from the last report on", f"{usage.ended - last:.1f}"),
    ]
    print_table(("phase", "wall s"), rows)


def _print_processes(usage: Usage) -> None:
    seconds: Counter[str] = Counter()
    for command, amount in usage.by_command.items():
        if "py-spy" not in command:
            trains = any(name in command for name in TRIAL_PROCESSES)
            seconds["driver" if "-m rung run" in command else "trials" if trains else "Ray's services"] += amount
    total = sum(seconds.values())
    rows = [(name, f"{amount:.1f}", f"{amount / total:.0%}") for name, amount in seconds.most_common()]
    print_table(("processes", "CPU s", "share"), rows)


def _print_samples(title: str, purposes: dict[str, tuple[str, ...]], stacks: Path) -> None:
    seconds: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        seconds[_first(purposes, stack)] += int(samples) / RATE
    total = sum(seconds.values())
    rows = [(what, f"{amount:.1f}", f"{amount / total:.0%}") for what, amount in seconds.most_common()]
    print_table((f"inside the {title}", "running, s", "share"), rows)


def _first(purposes: dict[str, tuple[str, ...]], stack: str) -> str:
    return next((name for name, texts in purposes.items() if any(text in stack for text in texts)), "other")


# One step.


def _print_operators(options: argparse.Namespace) -> None:
    import torch

    from rung.plan import make_plan
    from rung.study import load_study
    from rung.trainable import find_trainable

    torch.set_num_threads(1)
    study = load_study(options.study, options.set)
    trainable, shown = find_trainable(study.trainable), set()
    for configuration in make_plan(study).configurations:
        kind = configuration.values.get("model", {}).get("kind")
        if kind not in shown:
            shown.add(kind)
            print(f"A training step: {configuration.label or 'the base configuration'}\n")
            print_table(("operators", "share", "calls a step"), operators(trainable(configuration.config, 0)))


def operators(trainable: Any, steps: int = 20) -> list[tuple[str, str, str]]:
    """What the operators of a training step take, by torch's profiler: kind, share of the time, calls a step."""
    from torch.profiler import ProfilerActivity, profile

    from rung.training.assignment import Goal
    from rung.training.loop import NullRecorder, train
    from rung.training.run import Run

    metric = next(iter(trainable.metrics(trainable.config)))
    run = Run(trainable, "anatomy", Goal("steps", 10**9, metric, "min"))
    trainable.evaluate = lambda model: {metric: 0.5}
    train(run, steps, NullRecorder())
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train(run, 2 * steps, NullRecorder())
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in profiler.key_averages():
        kind = _first(OPERATORS, event.key) if event.key.startswith("aten::") else "autograd and Python's calls"
        spent[kind] += event.self_cpu_time_total
        calls[kind] += event.count
    total = sum(spent.values())
    return [(kind, f"{amount / total:.0%}", f"{calls[kind] / steps:.0f}") for kind, amount in spent.most_common()]


if __name__ == "__main__":
    main()
