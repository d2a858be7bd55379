"""Writes the files of an experiment for runs of a rung study, from its tables.

    python -m trainables.tinystories.export learning-rate-small            # all runs
    python -m trainables.tinystories.export learning-rate-small c3f9a1b20d77-s0 --output-dir exported

Each run gets a folder with config.json, metrics.csv, metrics.json, summary.json, loss_curves.png and lr_schedule.png as
`run_experiment` makes them, and `analyze`, `compare_experiments` and `experiment_log` read them. Works while the study
runs, for every trainable that reports a loss. `tokens_per_sec` is that of the stretch before the row, evaluation
included; a run without rows between evaluations (`evaluation.log_every`) has the training loss of its evaluations.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.errors import RungError
from rung.results.files import replace_file
from rung.results.query import StudyResults, load
from rung.results.views import dicts
from rung.trainable import find_trainable
from trainables.language.command_line import guarded
from trainables.tinystories.config import TinyStoriesConfig
from trainables.tinystories.experiment_logger import LEARNING_RATES, LOSS_CURVES
from trainables.tinystories.experiments.directory import CONFIG, METRICS, ROWS_JSON, SUMMARY, summarised, write_json
from trainables.tinystories.experiments.figures import Line, write_learning_rates, write_loss_curves
from trainables.tinystories.experiments.metrics_file import MetricRow, csv_text, finite, merged
from trainables.tinystories.experiments.settings import from_trainable

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    chosen = _parser().parse_args(arguments)
    study = load(chosen.study)
    target = chosen.output_dir or study.directory / "experiments"
    for directory in export_runs(study, target, chosen.run_ids):
        print(directory)
    return 0


def export_runs(study: StudyResults, target: Path, run_ids: Sequence[str] = ()) -> list[Path]:
    """Writes the files of runs into `target`/<run id>/ and returns these folders.

    Args:
        study: their study.
        target: where the folders go; what is there of the same runs is written anew.
        run_ids: which runs, or beginnings of their ids; empty: all.

    Raises:
        RungError: no such run.
        StorageError: a file cannot be read or written.
    """
    described = study.study
    configurations = {row["config_id"]: row for row in dicts(study.configurations)}
    chosen = _chosen(dicts(study.runs.order("run_id")), run_ids, described["study"])
    reports = _by_run(dicts(study.metrics.order("run_id, step")))
    for run in chosen:
        rows = rows_of(reports.get(run["run_id"], []))
        _export(described, configurations[run["config_id"]], run, rows, target / run["run_id"])
    return [target / run["run_id"] for run in chosen]


def rows_of(reports: Sequence[Row]) -> list[MetricRow]:
    """One run's rows of the table `metrics`, ascending, as rows of an experiment."""
    has_batches = any(report.get("batch/loss") is not None for report in reports)
    train = "batch/loss" if has_batches else "train/loss"
    rows = []
    for before, report in zip([None, *reports], reports, strict=False):
        validation = finite(report.get("validation/loss"))
        rows.append(
            MetricRow(
                step=report["step"],
                wallclock_time=report["wall_seconds"],
                train_loss=finite(report.get(train)),
                val_loss=validation,
                val_perplexity=finite(report.get("validation/perplexity")),
                learning_rate=finite(report.get("learning_rate")),
                tokens_per_sec=None if before is None else _rate(before, report),
            )
        )
    return rows


def _export(described: Row, configuration: Row, run: Row, rows: Sequence[MetricRow], directory: Path) -> None:
    config = _config(described, configuration, run)
    write_json(directory / CONFIG, config)
    replace_file(directory / METRICS, csv_text(rows).encode())
    write_json(directory / ROWS_JSON, [asdict(row) for row in merged(rows)])
    facts = {
        "study": described["study"],
        "trainable": described["trainable"],
        "seed": run["seed"],
        "ended_by": run["ended_by"],
        "parameters": {"total": run["parameters"]},
        "device": run["device"],
        "step": run["step"],
    }
    if run["diverged_step"] is not None:
        facts["diverged_step"] = run["diverged_step"]
    write_json(directory / SUMMARY, summarised(run["run_id"], config, rows, run["status"], **facts))
    name = f"{configuration['label'] or described['study']}, seed {run['seed']}"
    line = Line(name, rows, run["status"] == "diverged")
    write_loss_curves(directory / LOSS_CURVES, line)
    write_learning_rates(directory / LEARNING_RATES, line)


def _config(described: Row, configuration: Row, run: Row) -> Row:
    """An `ExperimentConfig` for a TinyStories run that counts steps; else the resolved configuration as it is."""
    values, budget = json.loads(configuration["config_json"]), described["budget"]
    more = {
        "experiment_name": run["run_id"],
        "experiment_id": run["config_id"],
        "description": f"{described['study']}: {configuration['label']}",
        "seed": run["seed"],
    }
    if find_trainable(described["trainable"]).Config is TinyStoriesConfig and budget["unit"] == "steps":
        try:
            return from_trainable(
                TinyStoriesConfig.model_validate(values), max_iterations=int(budget["amount"]), **more
            ).to_dict()
        except (ValidationError, RungError):  # of an older version, or beyond what an experiment can say
            pass
    return {**more, "trainable": described["trainable"], "budget": budget, "configuration": values}


def _chosen(runs: Sequence[Row], wanted: Sequence[str], study: str) -> list[Row]:
    if not wanted:
        return list(runs)
    names = [run["run_id"] for run in runs]
    for each in wanted:
        if not any(name.startswith(each) for name in names):
            near = difflib.get_close_matches(each, names, n=3) or names[:3]
            raise RungError(f"{study} has no run {each!r}; there are {', '.join(near)}, ...")
    return [run for run in runs if run["run_id"].startswith(tuple(wanted))]


def _by_run(reports: Sequence[Row]) -> dict[str, list[Row]]:
    return {run_id: list(own) for run_id, own in itertools.groupby(reports, lambda report: report["run_id"])}


def _rate(before: Row, report: Row) -> float | None:
    tokens, seconds = report["tokens"] - before["tokens"], report["wall_seconds"] - before["wall_seconds"]
    return tokens / seconds if tokens > 0 and seconds > 0 else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", help="the study: its name, file or folder")
    parser.add_argument("run_ids", nargs="*", metavar="RUN_ID", help="ids of runs, or their beginnings; otherwise all")
    parser.add_argument("--output-dir", type=Path, help="where the folders go; otherwise experiments/ in the study's")
    return parser


if __name__ == "__main__":
    guarded(main)
