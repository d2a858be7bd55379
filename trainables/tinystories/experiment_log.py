"""Writes EXPERIMENT_LOG.md: every experiment with date, purpose, changes from a baseline, result, pictures, and notes.

    python -m trainables.tinystories.experiment_log                        # the experiments in runs/
    python -m trainables.tinystories.experiment_log --study learning-rate-small   # and this study of rung

Everything is made anew from the files of the experiments, except what stands between `<!-- notes: NAME -->` and
`<!-- end of notes: NAME -->`: that is yours and stays, byte for byte, also when its experiment is gone. A log that was
written by hand, without such marks, is taken over whole as the general notes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.errors import RungError
from rung.results.files import replace_file
from rung.results.query import StudyResults, load
from trainables.language.command_line import guarded
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.command_line import runs_directory
from trainables.tinystories.experiments.directory import Experiment, find_experiments
from trainables.tinystories.experiments.hand_written import GENERAL, read_notes, to_file
from trainables.tinystories.experiments.sections import experiment_section, overview, started_at, study_section


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. Raises RungError for what a user can mend."""
    chosen = _parser().parse_args(arguments)
    studies = [load(name) for name in chosen.study]
    write_log(chosen.output, find_experiments(chosen.runs_dir or runs_directory()), studies, chosen.baseline)
    print(f"wrote {chosen.output}")
    return 0


def write_log(
    path: Path, experiments: Sequence[Experiment], studies: Sequence[StudyResults] = (), baseline: str | None = None
) -> None:
    """Writes the log, or writes it anew and keeps its notes.

    Args:
        path: the file.
        experiments: what it tells of, in the order of their dates.
        studies: of rung, after them.
        baseline: an experiment's name or a configuration file; None: the first one whose name begins with "baseline",
            else the oldest.

    Raises:
        RungError: no such baseline, or notes whose marks are broken.
        StorageError: a file cannot be read or written.
    """
    notes = read_notes(path)
    root = path.resolve().parent
    ordered = sorted(experiments, key=lambda each: (started_at(each.directory), each.name))
    parts = [_HEAD, f"{{{{notes {GENERAL}}}}}"]
    if ordered:
        called, configuration = _baseline(ordered, baseline)
        parts.append(overview(ordered))
        parts += [experiment_section(each, configuration, called, root) for each in ordered]
    parts += [study_section(study, root) for study in studies]
    parts += _left_over(notes, [each.name for each in ordered] + [f"study {each.study['study']}" for each in studies])
    replace_file(path, to_file("\n\n".join(parts) + "\n", notes))


_HEAD = """# Experiment log

Made by `python -m trainables.tinystories.experiment_log`. Write between the marks that are named notes: the rest is
made anew each time."""


def _baseline(experiments: Sequence[Experiment], wanted: str | None) -> tuple[str, Mapping[str, Any]]:
    """The name of the baseline, and its configuration."""
    if wanted is not None and wanted.endswith(".json"):
        return f"`{wanted}`", ExperimentConfig.from_json(wanted).to_dict()
    named = [each for each in experiments if each.name.startswith("baseline")] or list(experiments)
    if wanted is not None:
        named = [each for each in experiments if each.name == wanted]
    if not named:
        names = ", ".join(each.name for each in experiments)
        raise RungError(f"there is no experiment {wanted!r} to compare with: there are {names}; or name a .json file")
    return f"`{named[0].name}`", named[0].config


def _left_over(notes: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Notes on what is not there any more."""
    gone = [name for name in notes if name not in (GENERAL, *names) and notes[name].strip()]
    return [f"## {name}\n\nNot found this time; its notes are kept.\n\n{{{{notes {name}}}}}" for name in gone]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.experiment_log",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs-dir", type=Path, help="where the experiments lie; otherwise runs")
    parser.add_argument(
        "--study", action="append", default=[], help="a study of rung: its name, file or folder (repeatable)"
    )
    parser.add_argument("--baseline", help="the experiment, or the .json file, that the others are compared with")
    parser.add_argument("--output", type=Path, default=Path("EXPERIMENT_LOG.md"), help="the log")
    return parser


if __name__ == "__main__":
    guarded(main)
