"""The part of a report that says what changed in the answers, for a study and between the stages of a pipeline."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rung.results.answers import (
    FEWEST_QUESTIONS,
    ConfigurationAnswers,
    ConfigurationChange,
    changes_between,
    read_answers,
)
from rung.results.answers_page import ANSWERS_PAGE, Side, sides_of, write_answers_page
from rung.results.answers_tables import ChangeTables
from rung.results.answers_words import Names, conclusions, judged
from rung.results.pages import InlineFigure, inline_figure
from rung.results.pipeline import PipelineResults, StageResult
from rung.results.report_table import Table

if TYPE_CHECKING:
    from rung.results.query import StudyResults


@dataclass(frozen=True, slots=True)
class ChangeSection:
    """What a page says about changed answers."""

    title: str
    sentences: Sequence[str]
    """The most important first."""
    figure: InlineFigure | None
    means: Table | None
    """Configurations over their seeds, where there are several."""
    runs: Table
    page: str
    """Where the answers can be read."""


def study_section(
    changes: Sequence[ConfigurationChange],
    figure: InlineFigure | None,
    colours: Mapping[str, str],
    links: Mapping[str, str],
) -> ChangeSection | None:
    """The first recorded answers against the last; None where no run recorded any twice."""
    if not changes:
        return None
    found = judged(changes)
    tables = ChangeTables(found, "table-answers", None, colours, links)
    title = "Answers before and after"
    return ChangeSection(title, conclusions(found), figure, tables.means(), tables.runs(), ANSWERS_PAGE)


def write_study_answers(
    results: "StudyResults",
    answers: Sequence[ConfigurationAnswers],
    changes: Sequence[ConfigurationChange],
    directory: Path,
) -> dict[str, str]:
    """Write `answers.html`: before and after where there is both, else the last answers; returns where each run's
    begin, nothing where there is no test to read. Raises StorageError."""
    chosen: list[tuple[str, str, Sequence[Side]]] = []
    runs = 0
    for change in changes:
        run = change.runs[0]
        runs += len(change.runs)
        chosen.append((run.after.run_id, _title(change.label, run.after.seed), sides_of(run, results, results)))
    for entry in answers if not changes else ():
        sheets = [sheet for sheet in entry.last.values() if len(sheet.questions) >= FEWEST_QUESTIONS]
        runs += len(sheets)
        for sheet in sheets[:1]:
            side = Side(results, sheet, f"step {sheet.step:,}")
            chosen.append((sheet.run_id, _title(entry.label, sheet.seed), [side]))
    return write_answers_page(directory, str(results.study["study"]), chosen, runs) if chosen else {}


def _title(label: str, seed: int) -> str:
    return f"{label or 'base'}, seed {seed}"


# ----------------------------------------------------------------------------------------------- pipelines


@dataclass(frozen=True, slots=True)
class StageChange:
    """What changed from one stage to a later one that was asked the same questions."""

    before: StageResult
    after: StageResult
    changes: Sequence[ConfigurationChange]

    @property
    def names(self) -> Names:
        """Those of the stages."""
        return Names(self.before.name, self.after.name, "in")


def stage_changes(pipeline: PipelineResults, stages: Sequence[StageResult]) -> list[StageChange]:
    """Every stage that answered questions against the last one before it that was asked the same."""
    found: list[StageChange] = []
    earlier: list[tuple[StageResult, list[ConfigurationAnswers]]] = []
    for stage in stages:
        if stage.study is None:
            continue
        answers = read_answers(pipeline.study_of(stage), [entry.config_id for entry in stage.entries])
        for before, theirs in reversed(earlier):
            changes = changes_between(theirs, answers)
            if changes:
                found.append(StageChange(before, stage, changes))
                break
        earlier.append((stage, answers))
    return found


def pipeline_sections(pipeline: PipelineResults, stages: Sequence[StageResult], directory: Path) -> list[ChangeSection]:
    """A section for each of `stage_changes`; figures and `answers.html` are written into the directory.

    Raises StorageError.
    """
    found = stage_changes(pipeline, stages)
    links = _write_pipeline_answers(pipeline, found, directory)
    return [_stage_section(change, links[change.after.number], directory) for change in found]


def _stage_section(change: StageChange, links: Mapping[str, str], directory: Path) -> ChangeSection:
    from rung.results.answers_figure import answers_picture
    from rung.results.figure_style import styled

    number, names = change.after.number, change.names
    with styled():
        picture = answers_picture(change.changes, names)
    figure = inline_figure(dataclasses.replace(picture, name=f"answers_{number}"), directory) if picture else None
    found = judged(change.changes)
    tables = ChangeTables(found, f"table-answers-{number}", names, {}, links)
    title, page = f"{names.before} → {names.after}", next(iter(links.values()), "")
    return ChangeSection(title, conclusions(found, names), figure, tables.means(), tables.runs(), page)


def _write_pipeline_answers(
    pipeline: PipelineResults, found: Sequence[StageChange], directory: Path
) -> dict[int, dict[str, str]]:
    """Where the answers of each stage's runs begin, by its number. The last stages come first: room is limited."""
    chosen = []
    for stage in reversed(found):
        before, after = pipeline.study_of(stage.before), pipeline.study_of(stage.after)
        for change in stage.changes:
            run = change.runs[0]
            names = (stage.names.before, stage.names.after)
            title = f"{stage.after.name}, {_title(change.label, run.after.seed)}"
            chosen.append((f"{stage.after.number}-{run.after.run_id}", title, sides_of(run, before, after, names)))
    runs = sum(len(change.runs) for stage in found for change in stage.changes)
    links = write_answers_page(directory, pipeline.record["pipeline"], chosen, runs) if chosen else {}
    return {stage.after.number: _own(links, f"{stage.after.number}-") for stage in found}


def _own(links: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Those of one stage, by run_id."""
    return {id.removeprefix(prefix): link for id, link in links.items() if id.startswith(prefix)}
