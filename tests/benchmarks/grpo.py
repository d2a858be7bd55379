"""Steps of GRPO on a tiny Qwen3: rung's engine against TRL's GRPOTrainer.

    python -m tests.benchmarks.grpo                                about 10 minutes; needs `pip install trl`
    python -m tests.benchmarks.grpo --lengths full --turns 3
    python -m tests.benchmarks.grpo --cases "rung, fp32" "rung, bf16"

Both train the same model (`plain_grpo.py`) on the same number of prompts, with the same groups, limits, micro-batches
and rewards, AdamW, clipping and one update for each rollout, and no reference policy; rewards differ within nearly
every group, so that none can be skipped. `natural`: responses end by chance, as long ones and short ones do; `full`:
all have the greatest length. Every case is a process of its own with one thread that waits until it is its turn to take
some steps from the same first weights; only one works at a time. Times are CPU seconds of the process: of a whole
step, and of `generate` or `Policy.write` inside it. Ratios are taken within a turn, of tokens per second, since both
draw other responses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

from rung.training import environment
from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text
from tests.benchmarks.plain_grpo import BEGIN, PAD, Task, Turn, prompt, reward, tiny_qwen3, trl_turn

CASES = ("TRL, fp32", "TRL, bf16", "rung, fp32", "rung, bf16")
TASKS = {
    "natural": Task(prompts=8, group=8, tokens=256, accumulation=4, is_full=False),
    "full": Task(prompts=4, group=8, tokens=128, accumulation=1, is_full=True),
}


def main() -> None:
    options = _options()
    if options.worker:
        _work(options.worker, TASKS[options.lengths[0]])
        return
    names = [name for name in options.cases if not name.startswith("TRL") or find_spec("trl")]
    if len(names) < len(options.cases):
        print("Not measured: TRL, which is not installed (pip install trl).")
    print_machine(threads=1)
    for lengths in options.lengths:
        _compare(lengths, names, options)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--lengths", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=2, help="steps a turn, after one that is not counted")
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    return arguments.parse_args()


def _compare(lengths: str, names: Sequence[str], options: argparse.Namespace) -> None:
    task = TASKS[lengths]
    print(
        f"{lengths}: {task.prompts} prompts x {task.group} responses of at most {task.tokens} tokens, "
        f"{task.accumulation} micro-batches\n"
    )
    rollouts = {name: Sample(name) for name in names}
    with _workers(lengths, names) as workers:
        steps = alternate(
            {name: partial(_ask, workers[name], options.steps, rollouts[name]) for name in names},
            options.turns,
            warm_up=0,
        )
    rows = [
        (
            name,
            f"{1 / rollouts[name].median:,.0f}",
            f"{1 / steps[name].median:,.0f}",
            *(ratio_text(sample[name], sample[base]) for sample in (rollouts, steps) for base in names[:2]),
        )
        for name in names
    ]
    against = [f"{what}, times {base}" for what in ("rollout", "step") for base in names[:2]]
    print_table(("case", "rollout, tokens/s", "step, tokens/s", *against), rows)


Worker = subprocess.Popen[str]


@contextmanager
def _workers(lengths: str, names: Sequence[str]) -> Iterator[dict[str, Worker]]:
    """A waiting process for each case."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ours = {**variables, **environment.process_environment(1)}
    plain = {**variables, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.benchmarks.grpo", "--lengths", lengths, "--worker"]
    workers = {
        name: subprocess.Popen(
            [*command, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=plain if name.startswith("TRL") else ours,
        )
        for name in names
    }
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _ask(worker: Worker, steps: int, rollout: Sample) -> float:
    """CPU seconds of the steps per token; notes those of their rollouts."""
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    while True:
        line = worker.stdout.readline()
        if not line:
            raise SystemExit("a worker has ended before its answer; its error stands above")
        with suppress(json.JSONDecodeError):  # TRL prints its own lines
            turn = Turn(**json.loads(line))
            rollout.values.append(sum(turn.writing) / sum(turn.tokens))
            return sum(turn.steps) / sum(turn.tokens)


def _work(name: str, task: Task) -> None:
    """Answers a number of steps with what they took."""
    import torch

    torch.set_num_threads(1)
    turn_of = trl_turn if name.startswith("TRL") else _rung_turn
    for line in sys.stdin:
        turn = turn_of(task, name.endswith("bf16"), int(line))
        print(json.dumps(asdict(turn)), flush=True)


def _rung_turn(task: Task, bf16: bool, steps: int) -> Turn:
    """Steps of rung's engine from the model's first weights on; the first step is not counted."""
    from rung.training.assignment import Goal
    from rung.training.loop import NullRecorder, train
    from rung.training.run import Run

    turn = Turn()
    run = Run(_trainable(task, bf16, turn), "benchmark", Goal("steps", steps + 1, "validation/reward", "max"))
    for step in range(1, steps + 2):
        begin = time.process_time()
        train(run, step, NullRecorder())
        turn.steps.append(time.process_time() - begin)
    return Turn(turn.steps[1:], turn.writing[1:], turn.tokens[1:])


def _trainable(task: Task, bf16: bool, turn: Turn) -> Any:
    """The same task for the engine."""
    from types import SimpleNamespace
    from typing import ClassVar

    from rung.settings import TrainableConfig
    from rung.trainable import Metric, Workload
    from trainables.models.pretrained_attention import attend_in_fp32
    from trainables.rl.config import GroupRelativeConfig
    from trainables.rl.pretrained_policy import PretrainedPolicy
    from trainables.rl.problems import Problem
    from trainables.rl.rewards import Judgement
    from trainables.rl.trainable import GroupRelative

    class Timed(PretrainedPolicy):
        def write(self, *positional: Any, **named: Any) -> Any:
            begin = time.process_time()
            groups = super().write(*positional, **named)
            turn.writing.append(time.process_time() - begin)
            turn.tokens.append(sum(len(each.tokens) for group in groups for each in group))
            return groups

    class Even(GroupRelative[GroupRelativeConfig]):
        Config: ClassVar[type[TrainableConfig]] = GroupRelativeConfig

        @classmethod
        def metrics(cls, config: Any) -> Any:
            return {"validation/reward": Metric("max", "unused", worst=0.0)}

        @classmethod
        def workload(cls, config: Any) -> Workload:
            return Workload(parameters=1, tokens_per_step=1, flops_per_step=1)

        @property
        def policy(self) -> Any:
            return Timed(
                SimpleNamespace(  # what the policy asks of a tokenizer
                    pad=PAD,
                    ends=task.ends,
                    forbidden=(PAD, BEGIN),
                    decode=lambda tokens: str(tokens[0]),
                )
            )

        def problems(self) -> Any:
            return lambda number: Problem(prompt(number), "", "")

        def judge(self, problems: Any, responses: Sequence[str]) -> Judgement:
            return Judgement([reward([int(response)]) for response in responses], {})

        def fresh(self, generator: Any) -> Any:
            model = tiny_qwen3()
            attend_in_fp32(model)  # as `load` does
            return model

        def evaluate(self, model: Any) -> dict[str, float]:
            return {}

    values = {
        "rollout": {"prompts": task.prompts, "group": task.group, "tokens": task.tokens},
        "objective": {"aggregation": "token"},
        "optimizer": {"learning_rate": 1e-6, "weight_decay": 0.0},
        "precision": "bf16" if bf16 else "fp32",
        "accumulation": task.accumulation,
        "evaluation": {"every": 10**9},
    }
    return Even(GroupRelativeConfig.model_validate(values), seed=0)


if __name__ == "__main__":
    main()
