"""Looks at experiments: which there are, one in detail, several side by side; works while they run.

    python -m trainables.tinystories.analyze list
    python -m trainables.tinystories.analyze summary baseline
    python -m trainables.tinystories.analyze compare baseline higher_lr --output comparison.csv

`compare` writes a picture, too: beside the table, or as experiment_comparison.png in the folder of the runs. For means
over seeds, intervals and tests use studies: `rung results`, `rung compare`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.errors import RungError, StorageError
from trainables.language.command_line import guarded
from trainables.language.dotted import flat
from trainables.tinystories.experiment_config import DESCRIBING
from trainables.tinystories.experiment_logger import compare_experiments
from trainables.tinystories.experiments.command_line import experiment_path, runs_directory
from trainables.tinystories.experiments.directory import Experiment, experiment_folders, load_experiment
from trainables.tinystories.experiments.tables import shown, text_table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    chosen = _parser().parse_args(arguments)
    runs = chosen.runs_dir or runs_directory()
    if chosen.command == "list":
        print(listing(runs))
        return 0
    names = [*chosen.names, *chosen.experiments]
    if not names:
        raise RungError(f"{chosen.command} wants names of experiments; `analyze list` shows which there are")
    paths = [experiment_path(name, runs) for name in names]
    if chosen.command == "summary":
        print("\n\n".join(describe(load_experiment(path)) for path in paths))
        return 0
    picture = chosen.output.with_suffix(".png") if chosen.output else runs / "experiment_comparison.png"
    compare_experiments(paths, picture)
    return 0


def listing(runs: Path) -> str:
    """The experiments in a folder with status, steps, hours and best validation loss, as text."""
    folders = experiment_folders(runs)
    return text_table([_listed(folder) for folder in folders]) if folders else f"no experiments in {runs}"


def describe(experiment: Experiment) -> str:
    """One experiment in detail: settings, parameters, statistics."""
    summary = experiment.summary
    settings = {name: value for name, value in flat(experiment.config).items() if name not in DESCRIBING}
    lines = [f"{experiment.name}: {experiment.status}", str(experiment.config.get("description") or "no description")]
    for title, values in (
        ("settings", settings),
        ("parameters", summary.get("parameters", {})),
        ("statistics", flat(experiment.statistics)),
    ):
        lines += ["", title, *(f"  {name:<24} {_value(value)}" for name, value in values.items())]
    return "\n".join(lines)


def _listed(folder: Path) -> dict[str, Any]:
    """A row of the list; one damaged experiment does not hide the others."""
    try:
        found = load_experiment(folder)
    except StorageError as error:
        nothing = dict.fromkeys(("steps", "of", "hours", "val_loss_best"))
        return {"experiment": folder.name, "status": "unreadable", **nothing, "description": str(error)}
    return {
        "experiment": found.name,
        "status": found.status,
        "steps": found.statistics["total_steps"],
        "of": found.config.get("max_iterations"),
        "hours": found.statistics["total_wallclock_hours"],
        "val_loss_best": found.statistics.get("val_loss", {}).get("best"),
        "description": found.config.get("description", ""),
    }


def _value(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shown(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.analyze",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["list", "summary", "compare"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="names or folders of experiments")
    parser.add_argument("--experiments", nargs="+", default=[], metavar="NAME", help="the same")
    parser.add_argument("--runs-dir", type=Path, help="where they lie; otherwise runs")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.csv", help="compare: the table; its picture lies beside it"
    )
    return parser


if __name__ == "__main__":
    guarded(main)
