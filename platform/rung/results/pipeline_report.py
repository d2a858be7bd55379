"""The report of a pipeline: a figure as PNG and SVG, and one HTML page that leads to those of its stages.

    from rung.results.pipeline_report import write_pipeline_report
    write_pipeline_report(find_pipeline("arithmetic"))       # results/arithmetic/report/report.html

Works for a pipeline in any state, also while it runs.
"""

from collections.abc import Sequence
from pathlib import Path

from rung.results.answers_report import pipeline_sections
from rung.results.export import number_text
from rung.results.files import replace_file
from rung.results.pages import PAGE, InlineFigure, inline_figure, page_template
from rung.results.pipeline import PipelineResults, StageResult
from rung.results.report_facts import Fact
from rung.results.report_table import Cell, Column, Table, configuration_cell, count_cell, interval_cell, number
from rung.results.report_table import number_cell as plain_number
from rung.results.report_tables import launch_table
from rung.results.verdict import plural, verdict

_STATUS = {"complete": "completed", "interrupted": "unfinished"}
"""By the state of a stage: the word that the page has for it elsewhere, where that is another one."""


def write_pipeline_report(pipeline: PipelineResults) -> Path:
    """Write figure and page into `report/` of the pipeline's directory; returns the page's path.

    Raises StorageError if the pipeline cannot be read or the files cannot be written.
    """
    directory, record, stages = pipeline.directory / "report", pipeline.record, pipeline.stages()
    reached = [stage for stage in stages if stage.best is not None]
    page = page_template("pipeline.html.j2").render(
        name=record["pipeline"],
        live=pipeline.live(),
        verdict=[_progress(stages), *(_about(pipeline, stage) for stage in reached[-1:])],
        facts=list(_facts(stages)),
        figure=_figure(stages, directory),
        stage_table=_stage_table(pipeline, stages),
        findings=[(stage, _link(pipeline, stage), _verdict(pipeline, stage)) for stage in stages if stage.study],
        answer_sections=pipeline_sections(pipeline, stages, directory),
        launch_table=launch_table(record["launches"]),
        pipeline_file=_text(pipeline.directory / "pipeline.yaml"),
    )
    replace_file(directory / PAGE, page.encode())
    return directory / PAGE


def _figure(stages: Sequence[StageResult], directory: Path) -> InlineFigure | None:
    from rung.results.figure_style import styled
    from rung.results.pipeline_figure import stage_picture

    with styled():
        picture = stage_picture(stages)
    return None if picture is None else inline_figure(picture, directory)


def _progress(stages: Sequence[StageResult]) -> str:
    """How far the pipeline has come, in a sentence."""
    done = sum(stage.state == "complete" for stage in stages)
    if done == len(stages):
        return f"All {plural(done, 'stage')} are complete."
    stage = next(stage for stage in stages if stage.state != "complete")
    what = {
        "waiting": "has not begun",
        "running": "is running",
        "interrupted": "was interrupted: the same command goes on",
        "failed": "has failed runs: the same command tries them again",
    }[stage.state]
    return f"{done} of {len(stages)} stages are complete; {stage.name} {what}."


def _about(pipeline: PipelineResults, stage: StageResult) -> str:
    return f"{stage.name}: {_verdict(pipeline, stage)[0]}"


def _verdict(pipeline: PipelineResults, stage: StageResult) -> list[str]:
    results = pipeline.study_of(stage)
    return verdict(results.study, results.summary(), results.confirmation(), live=results.live())


def _facts(stages: Sequence[StageResult]) -> list[Fact]:
    steps, tokens = (sum(getattr(stage.cost, name) for stage in stages) for name in ("steps", "tokens"))
    hours = number_text(sum(stage.cost.core_hours for stage in stages), 3)
    facts = [
        Fact("Stages", " → ".join(stage.name for stage in stages)),
        Fact("Runs", f"{sum(stage.cost.runs for stage in stages):,}"),
        Fact("Training", f"{steps:,.0f} steps, {tokens:,.0f} tokens, {hours} core-hours"),
        Fact("Time", f"{number_text(sum(stage.seconds for stage in stages) / 60, 3)} minutes with everything"),
    ]
    latest = max((stage.ended_at or stage.started_at or "" for stage in stages), default="")
    return [*facts, Fact("As of", f"{latest[:19].replace('T', ' ')} UTC")] if latest else facts


def _stage_table(pipeline: PipelineResults, stages: Sequence[StageResult]) -> Table:
    columns = [
        Column("stage"),
        Column("state"),
        Column("started from"),
        Column("best configuration"),
        Column("metric"),
        Column("n", numeric=True),
        Column("mean [95\u00a0% interval]", numeric=True),
        Column("single seeds"),
        Column("runs", numeric=True),
        Column("steps", numeric=True),
        Column("core-hours", numeric=True),
        Column("minutes", numeric=True),
    ]
    caption = (
        "The stages in the order in which they run. Seed i of a stage starts from the last checkpoint of seed i of "
        "what stands under started from; there, the digits are the first 12 of the SHA-256 of the first seed's "
        "weights. Core-hours are the training clocks of all runs times their threads; minutes are those of the whole "
        "stage with process starts and waiting, without launches that were killed."
    )
    return Table("table-stages", caption, columns, [_stage_row(pipeline, stage) for stage in stages])


def _stage_row(pipeline: PipelineResults, stage: StageResult) -> list[Cell]:
    best = stage.best
    before = f"before: {', '.join(stage.earlier)}" if stage.earlier else ""
    folder = stage.folder if stage.folder != stage.name else None
    cells = [
        Cell(stage.name, note="\n".join(filter(None, [folder, before])), link=_link(pipeline, stage), heads_row=True),
        Cell(status=_STATUS.get(stage.state, stage.state)),
        Cell(
            "; ".join(origin.text for origin in stage.origins) or ("fresh weights" if stage.study else ""),
            note="\n".join(f"{origin.config_id}\nweights {origin.weights}" for origin in stage.origins),
        ),
    ]
    if best is None:
        cells += [Cell(), Cell(stage.metric), Cell(), Cell(), Cell()]
    else:
        cells += [
            configuration_cell(best.config_id, best.label, {}),
            Cell(stage.metric),
            Cell(f"{best.n}/{best.planned}"),
            interval_cell(best.interval),
            Cell(numbers=tuple(map(number, best.values))),
        ]
    cost = stage.cost
    hours = plain_number(round(cost.core_hours, 4))
    return [
        *cells,
        count_cell(cost.runs),
        count_cell(round(cost.steps)),
        hours,
        plain_number(round(stage.seconds / 60, 2)),
    ]


def _link(pipeline: PipelineResults, stage: StageResult) -> str:
    """From the pipeline's page to the stage's; empty where that is not there."""
    if stage.folder is None or not (pipeline.study_of(stage).directory / "report" / PAGE).is_file():
        return ""
    return f"../../{stage.folder}/report/{PAGE}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
