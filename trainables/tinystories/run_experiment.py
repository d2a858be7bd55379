"""Trains one experiment and keeps its files; the same command goes on after an interruption.

    python -m trainables.tinystories.run_experiment --name baseline \
        --config trainables/tinystories/configs/tinystories_17m_handout.json --description "the handout's model"

Files lie in runs/<name>/ (see `experiments/directory.py`), or in --output-dir. Sweeps, several seeds and early stopping
are what `rung run` is for; `python -m trainables.tinystories.export` gives its runs the same files.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.language.command_line import guarded, set_threads
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.command_line import runs_directory


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    chosen = _parser().parse_args(arguments)
    changes = {"description": chosen.description} if chosen.description is not None else {}
    config = ExperimentConfig.from_json(chosen.config, **changes, experiment_name=chosen.name)
    directory = chosen.output_dir or runs_directory() / chosen.name
    set_threads()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    from trainables.tinystories.experiments.run import run_experiment

    try:
        run_experiment(chosen.name, config, directory, chosen.resume_from)
    except KeyboardInterrupt:
        command = shlex.join(["python", "-m", "trainables.tinystories.run_experiment", *(arguments or sys.argv[1:])])
        print(f"\ninterrupted; what was logged is in {directory}\ngo on with: {command}")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.run_experiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="its name, and that of its folder")
    parser.add_argument("--config", required=True, type=Path, help="its settings, a JSON file")
    parser.add_argument("--output-dir", type=Path, help="its folder; otherwise runs/<name>")
    parser.add_argument("--description", help="what is being tested, for the experiment log")
    parser.add_argument(
        "--resume-from",
        type=Path,
        help="a checkpoint, or an experiment's folder, from which an experiment begins that has no checkpoint yet",
    )
    return parser


if __name__ == "__main__":
    guarded(main)
