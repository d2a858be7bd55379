"""Lets the model of an experiment write: the one with the best validation loss, or the last.

    python -m trainables.tinystories.sample_experiment baseline --prompt "Once upon a time" --tokens 256 --top-p 0.95

The data folder must be there, for its tokenizer. Runs of studies are sampled with `rung sample`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rung.errors import RungError, StorageError
from rung.trainable import Sampling
from trainables.language.command_line import choose_device, guarded
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.command_line import experiment_path, runs_directory
from trainables.tinystories.experiments.directory import CHECKPOINTS, CONFIG

if TYPE_CHECKING:
    from torch import nn

    from trainables.tinystories.experiments.trainable import ExperimentTrainable

Which = Literal["best", "final"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    chosen = _parser().parse_args(arguments)
    directory = experiment_path(chosen.experiment, chosen.runs_dir or runs_directory())
    trainable, model = load_model(directory, chosen.weights)
    sampling = Sampling(
        tokens=chosen.tokens,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        seed=chosen.seed,
    )
    prompts = chosen.prompt or ["Once upon a time"]
    for prompt, text in zip(prompts, trainable.complete(model, prompts, sampling), strict=True):
        print(prompt + text, end="\n\n")
    return 0


def load_model(directory: Path, which: Which = "best") -> tuple[ExperimentTrainable, nn.Module]:
    """The trainable of an experiment and its model with the weights of `best` or `final`, ready to be evaluated.

    Raises:
        RungError: the data is not there any more.
        StorageError: no such weights, or they cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from trainables.tinystories.experiments.trainable import build_trainable

    config = ExperimentConfig.from_json(directory / CONFIG)
    path = directory / CHECKPOINTS / f"{which}.safetensors"
    trainable = build_trainable(config, choose_device(config.device))
    model = trainable.model(torch.Generator(device=trainable.device).manual_seed(config.seed)).eval()
    try:
        weights = load_file(path, device=trainable.device)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or (missing and not _ties(trainable)):
        raise RungError(f"{path} belongs to another model: {', '.join([*unexpected, *missing][:3])} do not fit")
    return trainable, model


def _ties(trainable: ExperimentTrainable) -> bool:
    """Whether one tensor stands in the model under two names, of which the file has the first."""
    return trainable.config.model.tie_embeddings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.sample_experiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", help="its name, or its folder")
    parser.add_argument("--prompt", action="append", help="what it begins with (repeatable)")
    parser.add_argument("--tokens", type=int, default=256, help="most new tokens; it ends earlier at an end of text")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: always the likeliest token")
    parser.add_argument("--top-k", type=int, help="only so many of the likeliest tokens")
    parser.add_argument("--top-p", type=float, help="only the likeliest tokens that have this probability together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", choices=["best", "final"], default="best")
    parser.add_argument("--runs-dir", type=Path, help="where experiments lie; otherwise runs")
    return parser


if __name__ == "__main__":
    guarded(main)
