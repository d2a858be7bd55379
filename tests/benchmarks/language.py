"""A small GPT on the characters of Shakespeare: rung's training step against a plain loop, and what both learn.

    python -m tests.benchmarks.language                          speed, about 6 minutes
    python -m tests.benchmarks.language --parts loss --seeds 5   also trains: about 3 minutes a seed and loop
    python -m tests.benchmarks.language --parts profile          what the operators of a step take, some seconds
    python -m tests.benchmarks.language --text my.txt            on another text

nanoGPT's published configuration for a CPU: 4 layers, 4 heads, width 128, windows of 64 characters, batches of 12,
2,000 steps, no dropout; its README gives a validation loss of 1.88 after about 3 minutes. The plain loop
(`plain_language.py`) is what a user of nanoGPT runs; rung's is the engine's own with the trainable `character_streams`.

`speed`: every case is a process of its own that waits until it is its turn to take some steps; times are CPU seconds
of the process. Then how much of the speed of a large matrix product (2048^3, one thread, in the same run) is reached by
the products of a step, all other work of the step counted in. Then two processes of a case at once.
`loss`: whole trainings, the validation loss over the same evenly spaced windows for both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rung.results.statistics import mean_interval
from rung.training import environment
from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text

SHAKESPEARE = Path(__file__).resolve().parents[3] / "shared" / "data" / "tinyshakespeare" / "input.txt"
CASES = {
    "plain loop, fp32": "as a user of nanoGPT runs it on a CPU",
    "plain loop, bf16": "the same under torch.autocast",
    "plain loop, fused": "fp32, with AdamW's fused kernel and rung's allocator settings",
    "rung, fp32": "the engine's loop",
    "rung, bf16": "the same, `precision: bf16`",
}
BASE = "plain loop, fp32"
WINDOWS = 500
"""Windows that the validation loss is taken over."""


def main() -> None:
    options = _options()
    if options.worker:
        _work(options.worker, Path(options.folder))
        return
    if not options.text.is_file():
        print(f"Not measured: there is no text at {options.text}; name one with --text.")
        return
    print_machine(threads=1)
    with tempfile.TemporaryDirectory(prefix="rung-language-") as folder:
        _prepare(options.text, Path(folder))
        if "speed" in options.parts:
            _compare_speed(Path(folder), options)
        if "profile" in options.parts:
            _profile(Path(folder))
        if "loss" in options.parts:
            _compare_losses(Path(folder), options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--text", type=Path, default=SHAKESPEARE, help="a text file in UTF-8")
    arguments.add_argument("--parts", nargs="+", choices=("speed", "profile", "loss"), default=("speed",))
    arguments.add_argument("--turns", type=int, default=15)
    arguments.add_argument("--steps", type=int, default=10, help="steps a turn")
    arguments.add_argument("--cases", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    arguments.add_argument("--seeds", type=int, default=3, help="trainings of each case of `loss`")
    arguments.add_argument(
        "--trained", nargs="+", choices=tuple(CASES), default=("rung, fp32",), help="cases of `loss`"
    )
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", help=argparse.SUPPRESS)
    return arguments.parse_args()


# Speed.


def _compare_speed(folder: Path, options: argparse.Namespace) -> None:
    names = [name for name in CASES if name in {*options.cases, BASE}]
    with _workers(folder, {name: name for name in names}) as workers:
        turns = {name: partial(_ask, workers[name], str(options.steps)) for name in names}
        samples = alternate(turns, options.turns)
        work = {name: (_ask(workers[name], "count"), _ask(workers[name], "peak")) for name in names}
    tokens = _constants().tokens
    rows = [
        (name, CASES[name], f"{each.median * 1e3:.1f}", f"{tokens / each.median:,.0f}", ratio_text(each, samples[BASE]))
        for name, each in samples.items()
    ]
    print_table(("one process", "what", "ms/step", "tokens/s", "times the plain loop's rate (quartiles)"), rows)
    print_table(
        ("case", "in products, GFLOP/step", "GFLOP/s", "a large product, GFLOP/s", "share"),
        [_share(name, samples[name], work[name]) for name in names],
    )
    _compare_pairs(folder, options, [name for name in names if name != "plain loop, fused"])


def _compare_pairs(folder: Path, options: argparse.Namespace, names: list[str]) -> None:
    """Two processes of a case at once, which share the memory's bandwidth and the last cache."""
    with _workers(folder, {f"{name} {index}": name for name in names for index in "ab"}) as workers:
        turns = {name: partial(_both, workers[f"{name} a"], workers[f"{name} b"], options.steps) for name in names}
        samples = alternate(turns, options.turns)
    tokens = 2 * _constants().tokens
    rows = [
        (name, f"{each.median * 1e3:.1f}", f"{tokens / each.median:,.0f}", ratio_text(each, samples[BASE]))
        for name, each in samples.items()
    ]
    headers = (
        "two processes at once",
        "ms/step of each",
        "tokens/s of both",
        "times the plain loop's rate (quartiles)",
    )
    print_table(headers, rows)


def _share(name: str, sample: Sample, work: tuple[float, float]) -> tuple[str, ...]:
    done, peak = work
    rate = done / sample.median
    return name, f"{done:.2f}", f"{rate:.0f}", f"{peak:.0f}", f"{rate / peak:.0%}"


Worker = subprocess.Popen[str]


@contextmanager
def _workers(folder: Path, cases: Mapping[str, str]) -> Iterator[dict[str, Worker]]:
    """A waiting process for each key, of the case that is its value."""
    workers = {key: _start(name, folder) for key, name in cases.items()}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _start(name: str, folder: Path) -> Worker:
    variables = environment.process_environment(1)
    if name.startswith("plain") and "fused" not in name:
        variables = {key: value for key, value in variables.items() if not key.startswith("MALLOC")}
    command = [sys.executable, "-m", "tests.benchmarks.language", "--worker", name, "--folder", str(folder)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )


def _ask(worker: Worker, question: str) -> float:
    _tell(worker, question)
    return _answer(worker)


def _tell(worker: Worker, question: str) -> None:
    assert worker.stdin
    worker.stdin.write(f"{question}\n")
    worker.stdin.flush()


def _answer(worker: Worker) -> float:
    assert worker.stdout
    return float(worker.stdout.readline())


def _both(first: Worker, second: Worker, steps: int) -> float:
    """CPU seconds of a step, the mean of two processes that take steps at once."""
    for worker in (first, second):
        _tell(worker, str(steps))
    return (_answer(first) + _answer(second)) / 2


def _work(name: str, folder: Path) -> None:
    """Answers a number of steps with the CPU seconds that one took, `count` with GFLOP, `peak` with GFLOP/s."""
    import torch

    from tests.benchmarks.step import serve

    torch.set_num_threads(1)
    step = _step(name, folder)
    for _ in range(5):
        step()
    serve(step, time.process_time, torch.bfloat16 if "bf16" in name else torch.float32)


def _step(name: str, folder: Path) -> Callable[[], object]:
    if name.startswith("plain"):
        return _plain(name, folder, seed=0).step
    from rung.training.loop import NullRecorder, train

    run = _rung(name, folder, seed=0, every=10**9)
    run.trainable.evaluate = lambda model: {}
    return lambda: train(run, run.progress.step + 1, NullRecorder())


def _profile(folder: Path) -> None:
    import torch

    from tests.benchmarks.anatomy import operators

    torch.set_num_threads(1)
    for name in ("rung, fp32", "rung, bf16"):
        print_table((f"operators, {name}", "share", "calls a step"), operators(_rung(name, folder, 0, 10**9).trainable))


# Losses.


def _compare_losses(folder: Path, options: argparse.Namespace) -> None:
    """Whole trainings in this process."""
    import torch

    torch.set_num_threads(1)
    for name in options.trained:
        print(f"{name}, validation loss over {WINDOWS} windows:", flush=True)
        losses = []
        for seed in range(options.seeds):
            loss, seconds = _trained(name, folder, seed)
            losses.append(loss)
            print(f"- seed {seed}: {loss:.4f} after {seconds:.0f} CPU seconds", flush=True)
        found = mean_interval(losses)
        half = "" if found.high is None or found.mean is None else f" +- {found.high - found.mean:.4f} (95 %, t)"
        print(f"- mean of {found.n}: {found.mean:.4f}{half}\n", flush=True)


def _trained(name: str, folder: Path, seed: int) -> tuple[float, float]:
    """Validation loss at the end and the CPU seconds of the training."""
    import numpy as np
    import torch

    from rung.training.loop import NullRecorder, train
    from tests.benchmarks.plain_language import validation_loss

    begin, steps = time.process_time(), _constants().steps
    if name.startswith("plain"):
        loop = _plain(name, folder, seed)
        for _ in range(steps):
            loop.step()
        model = loop.model
    else:
        run = _rung(name, folder, seed, every=10**9)
        train(run, steps, NullRecorder())
        model = run.model
    seconds = time.process_time() - begin
    tokens = np.fromfile(folder / "validation.bin", dtype=np.uint16)
    with torch.no_grad():
        return validation_loss(model, tokens, _constants().context, WINDOWS), seconds


# Both loops.


def _constants() -> Any:
    from tests.benchmarks.plain_language import Constants

    return Constants()


def _plain(name: str, folder: Path, seed: int) -> Any:
    from tests.benchmarks.plain_language import PlainLoop

    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    return PlainLoop(folder, vocabulary, _constants(), bf16="bf16" in name, fused="fused" in name, seed=seed)


def _rung(name: str, folder: Path, seed: int, every: int) -> Any:
    """rung's run of the same configuration, evaluated at every `every`-th step and at the end."""
    from rung.training.assignment import Goal
    from rung.training.run import Run
    from trainables.character_streams.trainable import CharacterStreams

    constants = _constants()
    values = {
        "data": str(folder / "text.txt"),
        "validation_fraction": 0.1,
        "precision": "bf16" if "bf16" in name else "fp32",
        "model": {"layers": constants.layers, "heads": constants.heads, "width": constants.width},
        "context": constants.context,
        "batch_size": constants.batch_size,
        "optimizer": {
            "learning_rate": constants.learning_rate,
            "weight_decay": constants.weight_decay,
            "beta1": constants.betas[0],
            "beta2": constants.betas[1],
            "decay": "matrices",
        },
        "schedule": {"kind": "cosine", "warmup": constants.warmup, "minimum": constants.minimum},
        "gradient_clip": constants.clip,
        "evaluation": {"every": every},
    }
    trainable = CharacterStreams(CharacterStreams.Config.model_validate(values), seed)
    return Run(trainable, "benchmark", Goal("steps", constants.steps, "validation/loss", "min"))


def _prepare(text: Path, folder: Path) -> None:
    """What both loops read: the text, and its characters as numbers."""
    from tests.benchmarks.plain_language import write_characters

    characters = text.read_text(encoding="utf-8")
    (folder / "text.txt").write_text(characters, encoding="utf-8")
    (folder / "vocabulary.json").write_text(json.dumps(write_characters(characters, folder)))


if __name__ == "__main__":
    main()
