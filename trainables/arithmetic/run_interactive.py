"""Solves what is typed, step by step, and says so where a step is wrong.

    python -m trainables.arithmetic.run_interactive --model-path models/instruction_20260101_120000 \\
        --tokenizer-path data/tokenizer

Ends at `exit`, `quit`, `q`, Ctrl-C or the end of input. For a model of a study there is `rung solve`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from trainables.language.command_line import guarded, set_threads


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    set_threads()
    from rung.tuning.solve import interact
    from trainables.arithmetic.run_evaluation import load
    from trainables.arithmetic.solving import solve

    loaded = load(chosen.model_path, chosen.tokenizer_path, chosen.base_checkpoint, chosen.device)
    answer = partial(solve, loaded.decoder, loaded.tokenizer, loaded.config.format)
    interact(answer, partial(print, flush=True), question="Enter expression: ")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.run_interactive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model-path", type=Path, required=True, help="the model: its file, its folder, or a checkpoint of a study")
    add("--tokenizer-path", type=Path, help="its tokenizer, a folder or a file; otherwise the model's own")
    add("--base-checkpoint", type=Path, help="the base of an adapter, which --model-path then names")
    add("--device", default="auto", help="cuda, cpu, or auto: a GPU if there is one (auto)")
    return parser


if __name__ == "__main__":
    guarded(main)
