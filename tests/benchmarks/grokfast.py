"""What Grokfast costs: a step with the moving averages of the gradient against a step without.

    python -m tests.benchmarks.grokfast [--steps 20] [--turns 7]

What: the GPT of `search_spaces/modular_arithmetic/grokfast.yaml` (p = 97, batches of 512, two layers of width 128) in
the engine, one thread, without a filter, with `ema` and with `ma` over windows of 20 and 100 steps, and the size of a
checkpoint of each. Against what: the step without a filter; the paper's own implementation needs .15 s a step without,
.15 s with `ema` and .37 s with `ma` on a GTX 1080 Ti (README of ironjr/grokfast: 5,984 s for 39,890 steps, 137 s for
910, 292 s for 790).

What it saves, steps to a validation accuracy of 95 %, is the study itself: docs/reproductions.md. Takes about two
minutes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import alternate, parser, print_machine, print_table, ratio_text

CASES: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "ema": {"kind": "ema"},
    "ma, window 20": {"kind": "ma", "window": 20},
    "ma, window 100": {"kind": "ma", "window": 100},
}


def main() -> None:
    """Measures and prints."""
    from rung.training import environment

    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, default=20, help="steps of each case in each turn")
    arguments.add_argument("--turns", type=int, default=7)
    given = arguments.parse_args()
    environment.apply(environment.process_environment(1), 1)
    print_machine(threads=1)
    trainings = {name: Training(grokfast, given.steps) for name, grokfast in CASES.items()}
    steps: dict[str, Callable[[], float]] = {name: training.advance for name, training in trainings.items()}
    samples = alternate(steps, given.turns)
    base = samples["none"]
    print_table(
        ("grokfast", "ms a step", "speed against none", "MB of a checkpoint"),
        (
            (
                name,
                f"{sample.median / given.steps * 1e3:.1f}",
                ratio_text(sample, base),
                f"{trainings[name].checkpoint_bytes() / 1e6:.1f}",
            )
            for name, sample in samples.items()
        ),
    )


class Span:
    """Recorder: when the first step was done, and when the last."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def report(self, run: Any, report: Any) -> None:
        """Keeps nothing."""

    def after_step(self, run: Any) -> None:
        """Looks at the clock."""
        self.end = time.perf_counter()
        self.begin = self.begin or self.end


class Training:
    """A run that goes on by a few steps at a time."""

    def __init__(self, grokfast: dict[str, Any], steps: int) -> None:
        from rung.training.assignment import Goal
        from rung.training.run import Run
        from trainables.modular_arithmetic import ModularArithmetic

        values = {
            "modulus": 97,
            "operator": "*",
            "optimizer": {"grokfast": grokfast},
            "evaluation": {"first": 0, "every": 10**9},
        }
        trainable = ModularArithmetic(ModularArithmetic.Config.model_validate(values), 0)
        self.run = Run(trainable, "c-s0", Goal("steps", 10**9, "validation/accuracy", "max"))
        self.steps = steps

    def advance(self) -> float:
        """Seconds of the steps, without the evaluation before and after them."""
        from rung.training.loop import train

        span = Span()
        train(self.run, self.run.progress.step + 1 + self.steps, span)
        return span.end - span.begin

    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint on disk."""
        from rung.training.checkpoints import save_checkpoint

        with tempfile.TemporaryDirectory() as folder:
            return sum(file.stat().st_size for file in save_checkpoint(self.run, Path(folder)).iterdir())


if __name__ == "__main__":
    main()
