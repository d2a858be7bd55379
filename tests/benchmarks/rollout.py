"""Responses of a tiny Qwen3: rung's writing against transformers' `generate`, lever by lever.

    python -m tests.benchmarks.rollout                       about 6 minutes
    python -m tests.benchmarks.rollout --responses 32 --precisions bf16

The model and the lengths of responses are those of `plain_grpo.py`. `generate` samples as TRL has it do. `a model's own
forward` is rung's loop (one pass over a prompt for its group, rows that have ended leave, a cache that is not copied
for every token) around transformers' forward pass; `snapshot` is what rung does on a CPU: the same with the forward
pass of `snapshot_reader.py`. CPU seconds of the process, one thread, log-probabilities included for rung; ratios are
taken within a turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from tests.benchmarks.measure import Sample, alternate, parser, print_machine, print_table, ratio_text
from tests.benchmarks.plain_grpo import BEGIN, ENDS, PAD, Task, prompt, tiny_qwen3

GROUP = 8
TOKENS = {"natural": 256, "full": 128}


def main() -> None:
    options = _options()
    import torch

    torch.set_num_threads(1)
    print_machine(threads=1)
    model = tiny_qwen3()
    for lengths in options.lengths:
        for precision in options.precisions:
            rows = [row for count in options.responses for row in _compare(model, lengths, precision, count, options)]
            print(f"{lengths}, at most {TOKENS[lengths]} tokens, {precision}\n")
            print_table(("responses", "what", "tokens/s", "times generate (quartiles)"), rows)


def _options() -> argparse.Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--lengths", nargs="+", choices=tuple(TOKENS), default=tuple(TOKENS))
    arguments.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    arguments.add_argument("--responses", nargs="+", type=int, default=(32, 128))
    arguments.add_argument("--turns", type=int, default=3)
    return arguments.parse_args()


def _compare(
    model: Any, lengths: str, precision: str, responses: int, options: argparse.Namespace
) -> list[tuple[str, ...]]:
    from trainables.models.pretrained_generation import PretrainedReader, _reader

    task = Task(responses // GROUP, GROUP, TOKENS[lengths], accumulation=1, is_full=lengths == "full")
    ways: dict[str, Callable[[int], int]] = {
        "generate": partial(_generate, model, task),
        "a model's own forward": partial(_write, model, task, PretrainedReader),
        "snapshot": partial(_write, model, task, _reader),
    }
    cases = {name: partial(_seconds_a_token, way, precision) for name, way in ways.items()}
    samples: dict[str, Sample] = alternate(cases, options.turns)
    base = samples["generate"]
    return [
        (str(responses), name, f"{1 / sample.median:,.0f}", ratio_text(sample, base))
        for name, sample in samples.items()
    ]


_turns = iter(range(10**9))


def _seconds_a_token(way: Callable[[int], int], precision: str) -> float:
    import torch

    context: AbstractContextManager[Any] = nullcontext()
    if precision == "bf16":
        context = torch.autocast("cpu", dtype=torch.bfloat16)
    with context:
        begin = time.process_time()
        count = way(next(_turns))
        return (time.process_time() - begin) / count


def _generate(model: Any, task: Task, seed: int) -> int:
    import torch

    torch.manual_seed(seed)  # transformers draws from the global generator
    prompts = torch.tensor([prompt(number) for number in range(task.prompts) for _ in range(task.group)])
    model.eval()
    with torch.no_grad():
        rows = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            max_new_tokens=task.tokens,
            min_new_tokens=task.tokens if task.is_full else None,
            eos_token_id=list(ENDS),
            suppress_tokens=[PAD, BEGIN],
        )[:, prompts.shape[1] :]
    return int((rows != PAD).sum())


def _write(model: Any, task: Task, reader: Callable[[Any], Any], seed: int) -> int:
    from trainables.models.continuation import write
    from trainables.models.sampling import Sampler

    groups = write(
        model,
        reader(model),
        [prompt(number) for number in range(task.prompts)],
        group=task.group,
        tokens=task.tokens,
        length=1024,
        sampler=Sampler(forbidden=(PAD, BEGIN)),
        seed=seed,
        numbers=range(task.prompts),
        batch_size=None,
        stop=task.ends,
    )
    return sum(len(each.tokens) for group in groups for each in group)


if __name__ == "__main__":
    main()
