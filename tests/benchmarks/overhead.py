"""What rung adds to training: the engine's loop against a bare one, reports and checkpoints, configurations in Tune.

    python -m tests.benchmarks.overhead                   about 8 minutes
    python -m tests.benchmarks.overhead --parts step pieces

`step`: some steps of the bare loop and of the engine's in turns, in this process, evaluation left out. `pieces`: what
happens now and then, one by one. `long`: whole runs with evaluations, rows and checkpoints through
`SerialReplication`, against the bare loop with the same evaluations. `configurations`: whole `rung run`s of trivial
configurations; what one more of them costs is the difference of two sizes. Models: the default GPT of
`modular_arithmetic`, and a tiny one whose step takes about a millisecond. One thread.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml

from rung.results.store import TableWriter
from rung.training.assignment import Assignment, Goal
from rung.training.checkpoints import save_checkpoint
from rung.training.loop import NullRecorder, Recorder, evaluate, train
from rung.training.optimizers import build_optimizer
from rung.training.recorder import TableRecorder
from rung.training.run import Run
from rung.training.serial import SerialReplication
from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text
from tests.benchmarks.processes import Usage, python, run_command
from trainables.modular_arithmetic.config import ModularArithmeticConfig
from trainables.modular_arithmetic.trainable import ModularArithmetic

MODELS: dict[str, dict[str, Any]] = {
    "default GPT": {},
    "tiny GPT": {"modulus": 7, "model": {"layers": 1, "width": 16, "heads": 2}},
}
EVERY = 100
"""Steps between evaluations, the default."""
GOAL = Goal("steps", 10**9, "validation/accuracy", "max")


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    print_machine(threads=1)
    directory = Path(tempfile.mkdtemp(prefix="rung-overhead-"))
    try:
        for part in options.parts:
            PARTS[part](options, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments.add_argument("--turns", type=int, default=25, help="of `step` and `pieces`")
    arguments.add_argument("--seconds", type=float, default=20.0, help="of one run of `long`")
    arguments.add_argument("--long-turns", type=int, default=3)
    return arguments.parse_args()


# The loops.


def _config(model: str, every: int = EVERY) -> ModularArithmeticConfig:
    return ModularArithmeticConfig.model_validate({**MODELS[model], "evaluation": {"first": 0, "every": every}})


def _run(model: str, quiet: bool = True) -> Run:
    """A run, whose evaluation costs nothing if it is quiet."""
    trainable = ModularArithmetic(_config(model, 10**9 if quiet else EVERY), seed=0)
    if quiet:
        trainable.evaluate = lambda model: {"validation/accuracy": 0.5}  # type: ignore[method-assign]
    return Run(trainable, "benchmark", GOAL)


class Bare:
    """The loop that a user writes, with rung's model, data and optimizer."""

    def __init__(self, model: str) -> None:
        config = _config(model)
        self.clip = config.gradient_clip
        self.trainable = ModularArithmetic(config, seed=0)
        self.model = self.trainable.model(torch.Generator().manual_seed(0)).train()
        self.optimizer, self.batches = build_optimizer(config.optimizer, self.model), self.trainable.batches()
        self.done = 0

    def steps(self, number: int, every: int | None = None) -> None:
        """Trains for some steps, evaluating after every so many."""
        for _ in range(number):
            loss = self.trainable.loss(self.model, self.batches.at(self.done, self.model)).value
            loss.item()
            self.optimizer.zero_grad()
            loss.backward()
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.done += 1
            if every is not None and self.done % every == 0:
                self.model.eval()
                with torch.no_grad():
                    self.trainable.evaluate(self.model)
                self.model.train()


def _assignment(model: str, directory: Path, amount: int = 10**9) -> Assignment:
    return Assignment(
        directory=str(directory),
        study="benchmark",
        trainable="modular_arithmetic",
        config_id="c000000000000",
        config=_config(model).model_dump(mode="json"),
        seeds=(0,),
        goal=Goal("steps", amount, "validation/accuracy", "max"),
    )


# One step.


def _step(options: argparse.Namespace, directory: Path) -> None:
    rows = []
    for model in MODELS:
        bare, run, recorded = Bare(model), _run(model), _run(model)
        writer = TableWriter(directory / "step", "metrics", "c000000000000")
        recorder = TableRecorder(_assignment(model, directory / "step"), recorded, writer, None)
        bare.steps(20)
        steps = max(5, round(0.3 / _cpu(partial(bare.steps, 20)) * 20))
        cases = {
            "bare loop": partial(bare.steps, steps),
            "engine": partial(_take, run, steps, NullRecorder()),
            "engine, rows and checkpoint clock": partial(_take, recorded, steps, recorder),
        }
        samples = alternate({name: partial(_cpu, case) for name, case in cases.items()}, options.turns)
        base = samples["bare loop"]
        for name, sample in samples.items():
            extra = Sample(name, [(b - a) / steps for a, b in zip(base.values, sample.values, strict=True)]).median
            per_step = f"{sample.median / steps * 1e6:,.0f}"
            share = f"{extra / (base.median / steps):+.2%}"
            rows.append((model, name, per_step, f"{extra * 1e6:+.0f}", share, ratio_text(base, sample)))
    print("One step, in CPU time; the median over turns of the differences within a turn\n")
    print_table(("model", "loop", "us/step", "extra us", "extra", "times the bare step (quartiles)"), rows)


def _take(run: Run, steps: int, recorder: Recorder) -> None:
    train(run, run.progress.step + steps, recorder)


def _cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _wall(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


# What happens now and then.


def _pieces(options: argparse.Namespace, directory: Path) -> None:
    rows = []
    for model in MODELS:
        samples = alternate(_piece_cases(model, directory / model), options.turns)
        rows += [(model, name, f"{sample.median * 1e3:.2f}") for name, sample in samples.items()]
    print("What happens now and then, in wall time\n")
    print_table(("model", "what", "ms"), rows)


def _piece_cases(model: str, directory: Path) -> dict[str, Callable[[], float]]:
    run, quiet = _run(model, quiet=False), _run(model)
    for each in (run, quiet):
        _take(each, 3, NullRecorder())
    report = evaluate(run, scheduled=True)
    assignment = _assignment(model, directory)
    writer = TableWriter(directory, "metrics", "c000000000000", flush_rows=10**9, flush_seconds=1e9)
    recorder = TableRecorder(assignment, run, writer, None)

    def part() -> float:
        for _ in range(50):
            recorder.report(run, report)
        return _wall(writer.flush)

    def row() -> float:
        taken = _wall(lambda: [recorder.report(run, report) for _ in range(50)]) / 50
        writer.flush()
        return taken

    return {
        "the evaluation itself": lambda: _wall(lambda: run.trainable.evaluate(run.model)),
        "what the engine adds to an evaluation": lambda: _wall(lambda: evaluate(quiet, scheduled=True)),
        "a report: one row": row,
        "a part file of 50 rows": part,
        "a checkpoint": lambda: _wall(lambda: save_checkpoint(run, directory / "checkpoints")),
    }


# Whole runs.


def _long(options: argparse.Namespace, directory: Path) -> None:
    rows = []
    for model in MODELS:
        bare = Bare(model)
        bare.steps(200, EVERY)
        steps = max(1, round(options.seconds / _cpu(partial(bare.steps, 2 * EVERY, EVERY)) * 2)) * EVERY
        cpus: dict[str, list[float]] = {"bare loop": [], "SerialReplication": []}
        number = count()
        cases = {
            "bare loop": partial(_both, partial(_bare_run, model, steps), cpus["bare loop"]),
            "SerialReplication": partial(
                _both, partial(_whole_run, model, steps, directory / model, number), cpus["SerialReplication"]
            ),
        }
        walls = alternate(cases, options.long_turns, warm_up=0)
        for name, wall in walls.items():
            cpu, base = Sample(name, cpus[name]), Sample("bare loop", cpus["bare loop"])
            rows.append(
                (
                    model,
                    f"{steps:,}",
                    name,
                    f"{wall.median:.1f}",
                    f"{cpu.median:.1f}",
                    ratio_text(walls["bare loop"], wall),
                    "1" if name == "bare loop" else ratio_text(base, cpu),
                )
            )
    print(f"Whole runs: evaluations every {EVERY} steps, rows, a checkpoint every 30 s and at the end\n")
    print_table(("model", "steps", "loop", "wall s", "CPU s", "times the bare wall", "times the bare CPU"), rows)


def _both(work: Callable[[], None], cpus: list[float]) -> float:
    begin = time.process_time()
    wall = _wall(work)
    cpus.append(time.process_time() - begin)
    return wall


def _bare_run(model: str, steps: int) -> None:
    Bare(model).steps(steps, EVERY)


def _whole_run(model: str, steps: int, directory: Path, number: count[int]) -> None:
    replication = SerialReplication(_assignment(model, directory / f"long-{next(number)}", steps), catch=False)
    replication.advance(steps)
    replication.close()


# Configurations.


def _configurations(options: argparse.Namespace, directory: Path) -> None:
    few, many, reports = 8, 72, 20
    usage = {
        (few, 1): _sweep(directory, few, 1),
        (many, 1): _sweep(directory, many, 1),
        (many, reports): _sweep(directory, many, reports),
    }
    more, often = many - few, many * (reports - 1)
    rows = [
        ("one more configuration", *_difference(usage[many, 1], usage[few, 1], more)),
        ("one more report", *_difference(usage[many, reports], usage[many, 1], often)),
    ]
    print(f"`rung run` of {few} and {many} configurations that do nothing, with 1 and {reports} reports each\n")
    print_table(("what", "wall ms", "CPU ms of all processes", "CPU ms of the driver"), rows)


def _sweep(directory: Path, configurations: int, reports: int) -> Usage:
    name = f"c{configurations}-{reports}"
    study: Mapping[str, Any] = {
        "study": name,
        "trainable": "tests.toy:Toy",
        "base": {"evaluation": {"first": 1, "every": 1}},
        "space": {"optimizer.learning_rate": [round(0.001 * (n + 1), 6) for n in range(configurations)]},
        "seeds": 1,
        "budget": {"steps": reports},
        "metric": {"name": "validation/loss", "mode": "min"},
        "storage": str(directory),
    }
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(study))
    return run_command(python("-m", "rung", "run", file))


def _difference(more: Usage, less: Usage, number: int) -> tuple[str, ...]:
    pairs = ((more.wall, less.wall), (more.cpu, less.cpu), (more.own, less.own))
    return tuple(f"{(high - low) / number * 1e3:.1f}" for high, low in pairs)


PARTS: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "step": _step,
    "pieces": _pieces,
    "long": _long,
    "configurations": _configurations,
}


if __name__ == "__main__":
    main()
