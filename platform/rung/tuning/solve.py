"""`rung solve`: lets the model of a recorded run solve problems, one or as many as are typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rung.errors import RungError
from rung.results.pipeline import find_pipeline
from rung.results.query import StudyResults, load, storage_root, study_names
from rung.results.written import best_kept_run
from rung.trainable import Trainable, find_trainable
from rung.tuning.run_record import find_record
from rung.tuning.sample import trained, whose

if TYPE_CHECKING:
    from rung.training.run import Run

RULE = "-" * 60
GOODBYES = ("exit", "quit", "q")


@dataclass(frozen=True)
class Solver:
    """A trained model that solves problems."""

    run: Run
    whose: str
    """A line that says which model it is."""

    def __call__(self, problem: str) -> str:
        """The solution as text.

        Raises:
            RungError: the model cannot read the problem.
        """
        import torch

        from rung.training.precision import precision

        run = self.run
        with torch.no_grad(), precision(run.config.precision, "cpu"):
            return run.trainable.solve(run.model, problem)


def open_solver(run_id: str | None, study: str | None) -> Solver:
    """The model of a run.

    Args:
        run_id: the run's id, or the beginning of it. None: the best run of the study that has kept its checkpoint.
        study: its name, file or directory; of a pipeline the last stage counts whose models solve. None: all are
            searched for the run; with no run either, it is the study that was launched last of those whose models
            solve problems and have been kept.

    Raises:
        RungError: no such run or study, no checkpoint of it, or a model that solves no problems.
        StorageError: something cannot be read.
    """
    if run_id is None:
        results = _newest() if study is None else _study(study)
        run_id, study = _best(results), str(results.directory)
    record = find_record(run_id, study)
    if not solves(record.study["trainable"]):
        raise RungError(
            f"models of {record.study['trainable']} write no solutions of problems; `rung sample` lets them write"
        )
    run = trained(record)
    return Solver(run, whose(record, run))


def interact(
    solve: Callable[[str], str],
    say: Callable[[str], None],
    read: Callable[[str], str] = input,
    question: str = "Enter problem: ",
) -> None:
    """Solves what is typed until `exit`, `quit`, `q`, Ctrl-C or the end of input.

    Args:
        solve: gives the solution as text; what it raises as RungError is said, and the next problem asked for.
        say: takes lines.
        read: asks a question and gives the answer.
        question: what is asked.
    """
    while True:
        try:
            problem = read(question).strip()
        except (EOFError, KeyboardInterrupt):
            say("")
            return
        if problem.lower() in GOODBYES:
            return
        if not problem:
            continue
        try:
            solution = solve(problem)
        except RungError as error:
            say(f"error: {error}\n")
            continue
        except KeyboardInterrupt:
            say("")
            return
        say(f"\n{RULE}\nSOLUTION:\n{RULE}\n\n{solution}\n{RULE}\n")


def _study(name: str) -> StudyResults:
    pipeline = find_pipeline(name)
    if pipeline is None:
        return load(name)
    found = _last_that_solves([pipeline.study_of(stage) for stage in pipeline.stages() if stage.folder is not None])
    if found is None:
        raise RungError(f"no stage of {name} has kept a model that solves problems yet: `rung status {name}` says more")
    return found


def _last_that_solves(studies: Sequence[StudyResults]) -> StudyResults | None:
    """The last study whose models solve problems and of which one has been kept; None: none."""
    for results in reversed(studies):
        if solves(str(results.study["trainable"])) and best_kept_run(results) is not None:
            return results
    return None


def _newest() -> StudyResults:
    root = storage_root()
    folders = [root / name for name in study_names(root) if (root / name / "study.json").is_file()]
    ordered = sorted(folders, key=lambda each: (each / "study.json").stat().st_mtime)
    found = _last_that_solves([StudyResults(folder) for folder in ordered])
    if found is not None:
        return found
    raise RungError(
        f"no study in {root} has kept a model that solves problems: run one "
        "(rung run search_spaces/arithmetic/...), or name a run with --run or a study with --study"
    )


def _best(results: StudyResults) -> str:
    run_id = best_kept_run(results)
    if run_id is None:
        raise RungError(
            f"{results.directory} has kept no checkpoint: which ones stay is said by checkpoints.keep in the study file"
        )
    return run_id


def solves(trainable: str) -> bool:
    """Whether models of a trainable solve problems; not one that cannot be imported any more."""
    try:
        return find_trainable(trainable).solve is not Trainable.solve
    except RungError:
        return False
