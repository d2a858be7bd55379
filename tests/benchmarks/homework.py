"""How long `make homework` takes: the rate of every configuration of E1 to E7, and what it adds up to.

    python -m tests.benchmarks.homework [--seconds 4] [--cores 2]

What: the six studies `search_spaces/modular_arithmetic/e*.yaml`, 108 runs and 1,520,108 steps. Against what: the
homework's handout, which reckons a step with its evaluations at .05 s (LSTM) and .06 s (GPT) on a Colab GPU, at .25 s
and .40 s on a CPU. That makes 22.8 h and 130.6 h, one run after the other.

Method: each configuration trains for `--seconds` in the engine that `rung run` uses, in a process of one thread, as
many of these beside each other as there are cores, because they share the memory's bandwidth. What counts is the
processor's time, which on a quiet machine is the time that passes; the last line says how far they were apart. The mean
of a step is taken after a warm-up of three; that of an evaluation apart, since there are far fewer. A run then takes
its steps times the one and its evaluations times the other. The time until a study is done comes from giving its
configurations, in the order of the plan, to whichever core is free; studies run one after the other. Not counted:
starting Ray (about ten seconds for each study), rows and checkpoints (`tests.benchmarks.overhead`).

Takes about 4 minutes with the defaults.
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rung.configuration import PlannedConfiguration
from rung.cost import evaluations
from rung.plan import Plan, make_plan
from rung.study import load_study
from rung.training import environment
from tests.benchmarks.measure import parser, print_machine, print_table

STUDIES = sorted((Path(__file__).resolve().parents[2] / "search_spaces" / "modular_arithmetic").glob("e[0-9]-*.yaml"))
HANDOUT_HOURS = {"a GPU on Colab": 22.8, "a CPU": 130.6}
WARM_UP = 3


@dataclass(frozen=True)
class Rate:
    """Mean seconds of a step and of an evaluation, of the processor's time."""

    step: float
    evaluation: float
    elapsed: float
    """The time that passed over the processor's: 1 on a quiet machine."""

    def seconds(self, configuration: PlannedConfiguration, steps: int) -> float:
        """Of a run of so many steps."""
        return steps * self.step + evaluations(configuration.config.evaluation, steps) * self.evaluation


def main() -> None:
    """Measures and prints."""
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=4.0, help="training of each configuration")
    arguments.add_argument("--cores", type=int, default=2, help="configurations beside each other")
    given = arguments.parse_args()
    print_machine(threads=1)
    plans = [make_plan(load_study(path)) for path in STUDIES]
    rates = measure(plans, given.seconds, given.cores)
    print_table(
        (
            "study",
            "runs",
            "steps",
            "ms a step",
            "ms an evaluation",
            "core-hours",
            "by the plan",
            f"h, {given.cores} cores",
        ),
        [*(row(plan, rates, given.cores) for plan in plans), total_row(plans, rates, given.cores)],
    )
    hours = sum(makespan(plan, rates, given.cores) for plan in plans) / 3600
    for name, other in HANDOUT_HOURS.items():
        print(f"On {name}, by the handout: {other} h, {other / hours:.1f} times as long.")
    elapsed = statistics.median(rate.elapsed for rate in rates.values())
    print(f"While this was measured, {elapsed:.2f} times the processor's time passed.")


def measure(plans: Iterable[Plan], seconds: float, cores: int) -> dict[str, Rate]:
    """The rate of every configuration, by its id; one that is in several studies is measured once."""
    different = {each.config_id: each for plan in plans for each in plan.configurations}
    os.environ.update(environment.process_environment(1))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, context, environment.apply, ({}, 1)) as pool:
        values = [each.values for each in different.values()]
        return dict(zip(different, pool.map(partial(rate_of, seconds), values), strict=True))


def rate_of(seconds: float, values: Mapping[str, Any]) -> Rate:
    """Trains one configuration for some seconds in this process."""
    from rung.training.assignment import Goal
    from rung.training.loop import NullRecorder, evaluate, train
    from rung.training.run import Run
    from trainables.modular_arithmetic import ModularArithmetic

    class Stopwatch(NullRecorder):
        def __init__(self) -> None:
            self.begin = self.end = (0.0, 0.0)

        def after_step(self, run: Run) -> None:
            self.end = (time.process_time(), time.perf_counter())
            if run.progress.step == WARM_UP:
                self.begin = self.end
            elif run.progress.step > 2 * WARM_UP and self.end[1] - self.begin[1] > seconds:
                run.progress.end("completed", "budget")

    config = ModularArithmetic.Config.model_validate({**values, "evaluation": {"first": 0, "every": 10**9}})
    run = Run(ModularArithmetic(config, 0), "c-s0", Goal("steps", 10**9, "validation/accuracy", "max"))
    stopwatch = Stopwatch()
    train(run, 10**9, stopwatch)
    used, passed = (end - begin for begin, end in zip(stopwatch.begin, stopwatch.end, strict=True))
    begin = time.process_time()
    for _ in range(WARM_UP):
        evaluate(run, scheduled=False)
    return Rate(used / (run.progress.step - WARM_UP), (time.process_time() - begin) / WARM_UP, passed / used)


def durations(plan: Plan, rates: Mapping[str, Rate]) -> list[float]:
    """Seconds of each configuration with all its seeds, in the order in which they start."""
    steps, seeds = plan.rungs[-1], len(plan.study.seeds)
    return [seeds * rates[each.config_id].seconds(each, steps) for each in plan.configurations]


def makespan(plan: Plan, rates: Mapping[str, Rate], cores: int) -> float:
    """Seconds until a study is done."""
    return finished(durations(plan, rates), cores)


def finished(jobs: Iterable[float], cores: int) -> float:
    """When the last of some jobs is done, if each in turn goes to the core that is free first."""
    free = [0.0] * cores
    for job in jobs:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def row(plan: Plan, rates: Mapping[str, Rate], cores: int) -> tuple[str, ...]:
    """A study's line of the table."""
    found = [rates[each.config_id] for each in plan.configurations]
    return (
        plan.study.study,
        f"{plan.runs}",
        f"{plan.cost.most_steps:,}",
        spread([rate.step for rate in found]),
        spread([rate.evaluation for rate in found]),
        f"{sum(durations(plan, rates)) / 3600:.1f}",
        f"{plan.cost.core_hours:.1f}",
        f"{makespan(plan, rates, cores) / 3600:.1f}",
    )


def total_row(plans: Sequence[Plan], rates: Mapping[str, Rate], cores: int) -> tuple[str, ...]:
    """The last line of the table."""
    return (
        "all",
        f"{sum(plan.runs for plan in plans)}",
        f"{sum(plan.cost.most_steps or 0 for plan in plans):,}",
        "",
        "",
        f"{sum(sum(durations(plan, rates)) for plan in plans) / 3600:.1f}",
        f"{sum(plan.cost.core_hours or 0 for plan in plans):.1f}",
        f"{sum(makespan(plan, rates, cores) for plan in plans) / 3600:.1f}",
    )


def spread(seconds: Sequence[float]) -> str:
    """Lowest and highest, in milliseconds."""
    return f"{min(seconds) * 1e3:.1f}-{max(seconds) * 1e3:.1f}"


if __name__ == "__main__":
    main()
