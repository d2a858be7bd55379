"""The training step of modular arithmetic: rung's against a plain, competent PyTorch loop, and lever by lever.

    python -m tests.benchmarks.step                       both default models, about 6 minutes
    python -m tests.benchmarks.step --models lstm --compile --set batch_size=32

Every case is a process of its own (threads and allocator must be set before torch starts) that waits until it is its
turn to take some steps; only one works at a time. Times are CPU seconds of the process, which other work on the
machine disturbs least; only the case with two threads is wall time. `rate` is against the plain loop: how many of
rung's steps fit into one of its own. Then: what share of the speed of a large matrix product (2048^3, one thread) the
products of a step reach, all other work of the step counted in.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rung.training import environment
from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text

CASES = {
    "plain loop": "torch's layers and AdamW, one thread",
    "plain loop, 2 threads": "the same with torch's default on two cores (wall time)",
    "rung": "as it is shipped, fp32",
    "rung, bf16": "precision: bf16",
    "without sharing beginnings": "every row computes `BOS a op` for itself",
    "without looking up distinct tokens": "first-layer products for every row and position",
    "without its own attention": "scaled_dot_product_attention (GPT)",
    "without its own recurrence": "torch.lstm (LSTM)",
    "without the fused optimizer": "AdamW's default, foreach",
    "without the allocator settings": "glibc gives memory back and takes it again",
    "torch.compile": "inductor on rung's model (with --compile)",
}
SHARED = ("rung", "rung, bf16")
"""Cases whose share of a large product's speed is printed."""
ONLY = {"without its own attention": "gpt", "without its own recurrence": "lstm"}


def main() -> None:
    options = _options()
    if options.worker:
        _work(options.worker, json.loads(options.config))
        return
    print_machine(threads=1)
    for kind in options.models:
        _compare(kind, options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", choices=("gpt", "lstm"), default=("gpt", "lstm"))
    arguments.add_argument("--turns", type=int, default=15)
    arguments.add_argument("--steps", type=int, default=8, help="steps a turn")
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the configuration")
    arguments.add_argument("--compile", action="store_true", help="with torch.compile, which takes a minute")
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    arguments.add_argument("--config", help=argparse.SUPPRESS)
    return arguments.parse_args()


def _compare(kind: str, options: argparse.Namespace) -> None:
    config = {"model.kind": kind, **dict(pair.split("=", 1) for pair in options.set)}
    names = [name for name in CASES if ONLY.get(name, kind) == kind and (options.compile or name != "torch.compile")]
    workers = {name: _start(name, config) for name in names}
    try:
        samples = alternate({name: partial(_turn, workers[name], options.steps) for name in names}, options.turns)
        work = {name: (_ask(workers[name], "count"), _ask(workers[name], "peak")) for name in SHARED}
    finally:
        for worker in workers.values():
            worker.kill()
    base = samples["plain loop"]
    print(f"{kind}: {', '.join(f'{key} {value}' for key, value in config.items())}\n")
    rows = [
        (name, CASES[name], f"{sample.median * 1e3:.1f}", ratio_text(sample, base)) for name, sample in samples.items()
    ]
    print_table(("case", "what", "ms/step", "times the plain loop's rate (quartiles)"), rows)
    print_table(
        ("case", "in products, GFLOP/step", "GFLOP/s", "a large product, GFLOP/s", "share"),
        [_share(name, samples[name], work[name]) for name in SHARED],
    )


def _share(name: str, sample: Sample, work: tuple[float, float]) -> tuple[str, ...]:
    done, peak = work
    rate = done / sample.median
    return name, f"{done:.2f}", f"{rate:.0f}", f"{peak:.0f}", f"{rate / peak:.0%}"


def _start(name: str, config: Mapping[str, str]) -> subprocess.Popen[str]:
    threads = 2 if "2 threads" in name else 1
    variables = environment.process_environment(threads)
    if name == "without the allocator settings" or name.startswith("plain"):
        variables = {key: value for key, value in variables.items() if not key.startswith("MALLOC")}
    command = [sys.executable, "-m", "tests.benchmarks.step", "--worker", name, "--config", json.dumps(config)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )


def _turn(worker: subprocess.Popen[str], steps: int) -> float:
    return _ask(worker, str(steps))


def _ask(worker: subprocess.Popen[str], question: str) -> float:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(f"{question}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def _work(name: str, values: Mapping[str, str]) -> None:
    """Answers a number of steps with the seconds that one took, `count` with GFLOP, `peak` with GFLOP/s."""
    import torch

    threads = 2 if "2 threads" in name else 1
    torch.set_num_threads(threads)
    clock = time.perf_counter if threads > 1 else time.process_time
    step = _step(name, values)
    for _ in range(3):
        step()
    serve(step, clock, torch.bfloat16 if "bf16" in name else torch.float32)


def serve(step: Callable[[], object], clock: Callable[[], float], kind: Any) -> None:
    """Answers lines of standard input: a number of steps, `count` or `peak` (of products in the type `kind`)."""
    for line in sys.stdin:
        if line.strip() == "count":
            print(gflop(step), flush=True)
        elif line.strip() == "peak":
            print(peak(kind), flush=True)
        else:
            begin = clock()
            for _ in range(int(line)):
                step()
            print((clock() - begin) / int(line), flush=True)


def gflop(step: Callable[[], object]) -> float:
    """Floating-point operations of the matrix products in one step, as they are executed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def in_place(_: Any, a: Any, b: Any, **others: Any) -> int:
        return int(2 * a[0] * a[1] * b[1])

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        step()
    return counter.get_total_flops() / 1e9


def peak(dtype: Any) -> float:
    """The best of ten products of 2048 x 2048 matrices, GFLOP/s of the processor's time."""
    import torch

    a, b = torch.randn(2, 2048, 2048).to(dtype)
    seconds = []
    for _ in range(10):
        begin = time.process_time()
        a @ b
        seconds.append(time.process_time() - begin)
    return 2 * 2048**3 / min(seconds) / 1e9


def _step(name: str, values: Mapping[str, str]) -> Callable[[], object]:
    from tests.benchmarks.plain_models import plain_step

    config = _configuration({**values, **({"precision": "bf16"} if name == "rung, bf16" else {})})
    return plain_step(config) if name.startswith("plain") else _rung_step(name, config)


def _configuration(values: Mapping[str, str]) -> Any:
    from trainables.modular_arithmetic.config import ModularArithmeticConfig

    nested: dict[str, Any] = {"evaluation": {"first": 0, "every": 10**9}}
    for path, value in values.items():
        *parents, leaf = path.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return ModularArithmeticConfig.model_validate(nested)


def _rung_step(name: str, config: Any) -> Callable[[], object]:
    """One turn of rung's loop, evaluation left out."""
    import torch

    from rung.training.assignment import Goal
    from rung.training.loop import NullRecorder, train
    from rung.training.run import Run
    from trainables.modular_arithmetic.trainable import ModularArithmetic

    trainable = ModularArithmetic(config, seed=0)
    trainable.evaluate = lambda model: {}  # type: ignore[method-assign]
    run = Run(trainable, "benchmark", Goal("steps", 10**9, "validation/accuracy", "max"))
    _without(name, run)
    if name == "torch.compile":
        run.model = torch.compile(run.model)
    return lambda: train(run, run.progress.step + 1, NullRecorder())


def _without(name: str, run: Any) -> None:
    """Takes one lever away from a run."""
    import torch

    from trainables.models import gpt, lstm

    if name == "without sharing beginnings":
        run.stream.items = run.stream.items.without_prefix()
    elif name == "without looking up distinct tokens":
        run.model.embedding.num_embeddings = 10**9  # more tokens than rows: looking up does not pay
    elif name == "without its own attention":
        gpt.is_short = lambda keys, width: False
    elif name == "without its own recurrence":
        lstm.LSTM._recur = _recur_in_torch  # type: ignore[method-assign]
    elif name == "without the fused optimizer":
        optimizer = run.config.optimizer
        betas = (optimizer.beta1, optimizer.beta2)
        run.optimizer = torch.optim.AdamW(
            run.model.parameters(), lr=optimizer.learning_rate, betas=betas, weight_decay=optimizer.weight_decay
        )


def _recur_in_torch(model: Any, tokens: Any, state: Any, index: Any = None) -> tuple[Any, Any]:
    """`LSTM._recur` as it runs where rung has no kernel of its own."""
    h, c = state if index is None else (state[0][:, index], state[1][:, index])
    x, last = model.embedding(tokens), []
    for layer, h_now, c_now in zip(model.layers, h, c, strict=True):
        x, now = layer(x, (h_now, c_now), True)
        last.append(now)
    from trainables.models.lstm import _stack

    return x, _stack(last)


if __name__ == "__main__":
    main()
