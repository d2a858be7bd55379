"""Tests a model on items that no corpus has, and writes what came out.

    python -m trainables.arithmetic.run_evaluation --model-path models/instruction_20260101_120000 \\
        --tokenizer-path data/tokenizer --max-depth 4 --num-samples 1000

Greedy unless a temperature is given. Writes into --output-dir: evaluation_metrics_<time>.json (measures, breakdowns by
operators, depth and kind of error, settings), sample_outputs_<time>.json (the first ten answers) and
evaluation_summary_<time>.txt. An adapter is tested together with its base: --base-checkpoint BASE --model-path ADAPTER.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from rung.errors import RungError
from rung.explain import findings
from trainables.arithmetic.corpus_config import TestConfig
from trainables.arithmetic.evaluation_config import DecodingConfig
from trainables.language.command_line import choose_device, guarded, set_threads

if TYPE_CHECKING:
    from trainables.arithmetic.answers import Evaluation
    from trainables.arithmetic.model_folder import LoadedModel


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    test, decoding = _settings(chosen)
    set_threads()
    from trainables.arithmetic.evaluation_files import write_files

    begin = time.perf_counter()
    loaded = load(chosen.model_path, chosen.tokenizer_path, chosen.base_checkpoint, chosen.device)
    evaluation = _evaluated(loaded, test, decoding)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(chosen).items()}
    files = write_files(chosen.output_dir, evaluation, settings, time.perf_counter() - begin, decoding.ks)
    print(files.summary.read_text(encoding="utf-8"))
    print(f"written to {files.metrics}, {files.samples} and {files.summary}")
    return 0


def load(model: Path, tokenizer: Path | None, base: Path | None, device: str) -> LoadedModel:
    """A model; with a base, `model` is an adapter of it. Errors as of `model_folder.load_model` and `apply_adapter`."""
    from rung.trainable import fill
    from trainables.arithmetic.model_folder import find_model, load_model
    from trainables.models.adapter_folder import apply_adapter
    from trainables.models.lora import merged_weights

    device = choose_device(device)
    if base is None:
        return load_model(model, tokenizer, device)
    loaded, stored = load_model(base, tokenizer, device), find_model(base, device)
    fill(loaded.decoder, apply_adapter(model, merged_weights(stored.weights, stored.config.adapter), str(base)))
    return loaded


def _evaluated(loaded: LoadedModel, test: TestConfig, decoding: DecodingConfig) -> Evaluation:
    from trainables.arithmetic.evaluation import evaluate_items
    from trainables.arithmetic.test_sets import test_set

    def show(done: int, count: int) -> None:
        print(f"\r{done:,} of {count:,} answers", end="\n" if done == count else "", file=sys.stderr, flush=True)

    return evaluate_items(
        loaded.decoder,
        loaded.tokenizer,
        test_set(test),
        format=loaded.config.format,
        decoding=decoding,
        on_batch=show,
    )


def _settings(chosen: argparse.Namespace) -> tuple[TestConfig, DecodingConfig]:
    """What the flags say about test set and decoding. Raises RungError, naming what is wrong with them."""
    smallest, largest = chosen.num_range
    test = {
        "samples": chosen.num_samples,
        "max_depth": chosen.max_depth,
        "smallest": smallest,
        "largest": largest,
        "invalid_rate": chosen.invalid_rate,
        "seed": chosen.seed,
    }
    decoding = {
        "tokens": chosen.max_gen_length,
        "temperature": chosen.temperature,
        "top_k": chosen.top_k,
        "top_p": chosen.top_p,
        "samples": chosen.answers,
        "ks": tuple(chosen.pass_at or [1]),
        "batch_size": chosen.batch_size,
        "seed": chosen.seed,
    }
    problems: list[str] = []
    found = []
    for model, values in ((TestConfig, test), (DecodingConfig, decoding)):
        try:
            found.append(model.model_validate(values))
        except ValidationError as error:
            for each in findings(error, model, values):
                problems.append(f"  {'.'.join(map(str, each.path))}: {each.message}".replace("  : ", "  "))
    if problems:
        raise RungError("\n".join(["these settings cannot be used:", *problems]))
    return found[0], found[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.arithmetic.run_evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model-path", type=Path, required=True, help="the model: its file, its folder, or a checkpoint of a study")
    add("--tokenizer-path", type=Path, help="its tokenizer, a folder or a file; otherwise the model's own")
    add("--base-checkpoint", type=Path, help="the base of an adapter, which --model-path then names")
    add("--num-samples", type=int, default=1_000, help="test items (1000)")
    add("--max-depth", type=int, default=5, help="greatest depth of their expressions (5)")
    add("--num-range", type=int, nargs=2, default=(1, 20), metavar=("MIN", "MAX"), help="their numbers (1 20)")
    add("--invalid-rate", type=float, default=0.0, help="share of invalid expressions (0)")
    add("--output-dir", type=Path, default=Path("evaluation_results"), help="where the files go (evaluation_results)")
    add("--device", default="auto", help="cuda, cpu, or auto: a GPU if there is one (auto)")
    add("--batch-size", type=int, default=64, help="answers that are written at once; no result depends on it (64)")
    add("--max-gen-length", type=int, default=512, help="most new tokens of an answer (512)")
    add("--temperature", type=float, default=0.0, help="0: always the likeliest token (0)")
    add("--top-k", type=int, help="only so many of the likeliest tokens")
    add("--top-p", type=float, help="only the likeliest tokens of this probability")
    add("--answers", type=int, default=1, help="answers to each item, for pass@k (1)")
    add("--pass-at", type=int, action="append", metavar="K", help="report pass@K (repeatable)")
    add("--seed", type=int, default=0, help="of the test items and of the draws (0)")
    return parser


if __name__ == "__main__":
    guarded(main)
