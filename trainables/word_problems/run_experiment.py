"""Runs an experiment file with flat keys as a study; the same command goes on after an interruption.

    python -m trainables.word_problems.run_experiment eval_test.yaml
    python -m trainables.word_problems.run_experiment eval_test.yaml --plan
    python -m trainables.word_problems.run_experiment eval_test.yaml --set seeds=3 --set base.rollout.group=8

The file becomes a study file, `<name>.yaml` in `output_dir` (else where studies go), and everything else is that
study's: `rung status`, `rung report`, `rung compare`. Keys and defaults: docs/word-problems.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from rung.errors import StorageError
from rung.results.files import replace_file
from trainables.language.command_line import choose_device, guarded
from trainables.word_problems.experiment_file import ExperimentFile, read_experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    chosen = _parser().parse_args(arguments)
    experiment = read_experiment(chosen.config)
    for note in experiment.notes():
        print(f"note: {note}", file=sys.stderr)
    study = write_study(experiment, chosen.config)
    print(f"the study is {study}")
    overrides = [part for value in chosen.set for part in ("--set", value)]
    return _rung("plan" if chosen.plan else "run", str(study), *overrides)


def write_study(experiment: ExperimentFile, source: Path) -> Path:
    """Writes the study of an experiment and returns its file. Raises StorageError."""
    has_gpu = experiment.device_map != "cpu" and choose_device(None) == "cuda"
    folder = Path(experiment.output_dir or os.environ.get("RUNG_STORAGE") or "results")
    path = folder / f"{experiment.name}.yaml"
    text = f"# Made from {json.dumps(str(source))} by python -m trainables.word_problems.run_experiment.\n"
    text += yaml.safe_dump(experiment.study(has_gpu=has_gpu), sort_keys=False, allow_unicode=True, width=120)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot write {path}: {reason}. Set output_dir to another folder") from error
    return path


def _rung(*arguments: str) -> int:
    """A verb of `rung`, in this process; returns its exit status."""
    from rung import cli

    sys.argv = ["rung", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.word_problems.run_experiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="the experiment, a YAML file")
    parser.add_argument("--plan", action="store_true", help="write the study and show what it would run; run nothing")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key of the study (repeatable)"
    )
    return parser


if __name__ == "__main__":
    guarded(main)
