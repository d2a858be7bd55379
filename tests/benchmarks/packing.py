"""Packed against serial replication: replica-steps per second of packs of several sizes, and memory.

    python -m tests.benchmarks.packing                     on a CPU, about 12 minutes
    python -m tests.benchmarks.packing --device cuda       on a GPU, at most as long
    python -m tests.benchmarks.packing --models gpt --packs 1 4 --seconds 1 --turns 3        a short look

What: a replica-step is one optimizer step of one run, with everything that belongs to it (batch, loss, gradient,
clipping, optimizer). Evaluation is left out, since packed runs are evaluated one by one as well. The models are the
defaults of modular_arithmetic, and the same with a tiny batch, where the launch of kernels counts most.

Against what: `serial` is `replication: serial`, with the models' own kernels for a CPU. `serial, plain` is the same
without them, the only form that can be mapped over runs: what a pack gains is seen best against that, what a user
gains against `serial`. Memory is the most that tensors took on the GPU at any moment of a case; on a CPU it is not
measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rung.training.assignment import Goal
from rung.training.loop import NullRecorder, train
from rung.training.packed import Member, train_together
from rung.training.run import Run
from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text
from trainables.modular_arithmetic import ModularArithmetic
from trainables.modular_arithmetic.config import ModularArithmeticConfig

MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"model": {"kind": "gpt"}},
    "gpt, batch 8": {"model": {"kind": "gpt"}, "batch_size": 8},
    "lstm": {"model": {"kind": "lstm"}},
    "lstm, batch 8": {"model": {"kind": "lstm"}, "batch_size": 8},
}


class NotEvaluated(ModularArithmetic):
    """Modular arithmetic whose evaluation costs nothing."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"validation/loss": 0.0}


class Plain(NotEvaluated):
    """Without the models' own kernels."""

    def model(self, generator: torch.Generator) -> nn.Module:
        return self.transformable(super().model(generator))


class Case:
    """Some runs that are trained further at every call, which measures seconds per replica-step.

    Args:
        kind, values: what is trained, a run for each of the `seeds`.
        together: whether in a pack.
        seconds: about how long a call takes.
        device: where.
    """

    def __init__(
        self,
        kind: type[ModularArithmetic],
        values: dict[str, Any],
        seeds: Sequence[int],
        together: bool,
        seconds: float,
        device: str,
    ) -> None:
        config = ModularArithmeticConfig.model_validate({**values, "evaluation": {"first": 0, "every": 10**9}})
        goal = Goal("steps", 10**9, "validation/loss", "min")
        self._runs = [Run(kind(config, seed, device), f"c-s{seed}", goal) for seed in seeds]
        self._together = together
        self._device = device
        self._level = 0
        self.gigabytes = 0.0
        """The most that tensors took on a GPU, those of other cases left out."""
        self._train(2)  # what is only done once
        self._steps = max(2, round(3 * seconds / self._train(3)))

    def __call__(self) -> float:
        return self._train(self._steps) / (self._steps * len(self._runs))

    def _train(self, steps: int) -> float:
        """Seconds for some steps of every run."""
        self._level += steps
        on_gpu, before = self._device != "cpu", 0
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() - self._own_bytes()
        begin = time.perf_counter()
        if self._together:
            train_together([Member(run, NullRecorder()) for run in self._runs], self._level)
        else:
            for run in self._runs:
                train(run, self._level, NullRecorder())
        if on_gpu:
            torch.cuda.synchronize()
            self.gigabytes = (torch.cuda.max_memory_allocated() - before) / 2**30
        return time.perf_counter() - begin

    def _own_bytes(self) -> int:
        """What parameters and optimizer states take between two calls."""
        states = [value for run in self._runs for state in run.optimizer.state.values() for value in state.values()]
        parameters = [parameter for run in self._runs for parameter in run.model.parameters()]
        return sum(tensor.nbytes for tensor in (*states, *parameters))


def measure(name: str, packs: Sequence[int], seconds: float, turns: int, device: str) -> list[list[str]]:
    """The rows of one model."""

    def case(kind: type[ModularArithmetic], runs: int, together: bool) -> Case:
        return Case(kind, MODELS[name], range(runs), together, seconds, device)

    cases = {"serial": case(NotEvaluated, 1, False), "serial, plain": case(Plain, 1, False)}
    cases |= {f"pack of {size}": case(NotEvaluated, size, True) for size in packs}
    samples = alternate(cases, turns)
    return [
        [
            name,
            label,
            f"{1 / sample.median:.1f}",
            ratio_text(sample, samples["serial"]),
            ratio_text(sample, samples["serial, plain"]),
            f"{cases[label].gigabytes:.3f}" if device != "cpu" else "",
        ]
        for label, sample in samples.items()
    ]


def main() -> None:
    """The command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    arguments.add_argument("--packs", nargs="+", type=int, default=[1, 4, 16, 32])
    arguments.add_argument("--seconds", type=float, default=3, help="of each case in each turn")
    arguments.add_argument("--turns", type=int, default=7)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print_machine(threads=1)
    if given.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}\n")
    rows = [
        row for name in given.models for row in measure(name, given.packs, given.seconds, given.turns, given.device)
    ]
    headers = ["model", "replication", "replica-steps/s", "against serial", "against serial, plain", "memory, GB"]
    print_table(headers, rows)


if __name__ == "__main__":
    main()
