"""Shows a pipeline on a terminal: what would run, and how far it has come."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from rung.pipeline import Pipeline
from rung.pipeline_plan import StagePlan
from rung.plan_view import duration, render
from rung.results.fitting import fits, render_blocks
from rung.results.pipeline import PipelineResults, StageResult
from rung.results.render import render_rows, render_status, render_summary


def render_plans(
    pipeline: Pipeline, plans: Sequence[StagePlan], *, list_configurations: bool, width: int
) -> RenderableType:
    """What `rung plan` prints of a pipeline; with `list_configurations` the whole plan of every stage."""
    title = Text.assemble((pipeline.name, "bold"), f"  {len(plans)} stages, in {pipeline.directory.parent}")
    rows = [_plan_row(number, each) for number, each in enumerate(plans, start=1)]
    pieces: list[RenderableType] = [title, Text(), _table(rows, "", width), Text(), Text(_time(plans))]
    if any(each.is_assumed for each in plans):
        said = "~ assumes the first configuration of the stage before, until that is complete: its own plan may differ"
        pieces.append(Text(said, "dim"))
    pieces += [Text.assemble(("warning: ", "yellow"), f"{sentence}.") for sentence in _warnings(plans)]
    if list_configurations:
        for each in plans:
            pieces += [Text(), render(each.plan, list_configurations=True)]
    return Group(*pieces)


def _plan_row(number: int, planned: StagePlan) -> dict[str, str]:
    plan, start = planned.plan, planned.study.start
    cost = plan.cost
    seconds = None if planned.is_complete else cost.wall_seconds
    return {
        "stage": f"{number} {planned.stage.name}",
        "state": _state(planned),
        "starts from": "" if start is None else f"{'~ ' * planned.is_assumed}{start.study}",
        "runs": plan.product,
        "budget": f"{plan.study.budget.amount:,} {plan.unit_name}",
        "time": "" if planned.is_complete else "not estimated" if seconds is None else duration(seconds),
    }


def _state(planned: StagePlan) -> str:
    if planned.is_complete:
        return "complete"
    if planned.is_renamed:
        return f"new, in {planned.study.study}"
    if planned.has_begun:
        return "; ".join(["goes on", *planned.additions])
    return "waits" if planned.is_assumed else "new"


def _time(plans: Sequence[StagePlan]) -> str:
    left = [each.plan.cost.wall_seconds for each in plans if not each.is_complete]
    if not left:
        return "nothing left to do"
    known = [seconds for seconds in left if seconds is not None]
    missing = "" if len(known) == len(left) else ", without stages on GPUs"
    return f"time: {duration(sum(known))} on this machine{missing}; expect a factor of 2 either way"


def _warnings(plans: Sequence[StagePlan]) -> Iterator[str]:
    for each in plans:
        if not each.is_complete:
            yield from (f"{each.stage.name}: {sentence}" for sentence in each.plan.warnings)


def render_pipeline(pipeline: PipelineResults, width: int) -> RenderableType:
    """Every stage with what it started from and what its best configuration reached."""
    stages = pipeline.stages()
    done = sum(stage.state == "complete" for stage in stages)
    title = f"{pipeline.record['pipeline']}: {done} of {len(stages)} stages complete"
    return _table([stage.as_text() for stage in stages], title, width)


def render_pipeline_results(pipeline: PipelineResults, width: int) -> RenderableType:
    """The stages side by side, and below them the configurations of each."""
    pieces = [render_pipeline(pipeline, width)]
    for stage in pipeline.stages():
        if stage.study is not None:
            pieces += [Text(), render_summary(pipeline.study_of(stage), width)]
    return Group(*pieces)


def render_pipeline_status(pipeline: PipelineResults, *, decisions: bool, width: int) -> RenderableType:
    """How far the pipeline has come, and the status of the stage that is at work, or was last."""
    stages, live = pipeline.stages(), pipeline.live()
    head = Text.assemble(
        (pipeline.record["pipeline"], "bold"), f"  {'running now' if live else 'not running'}  {pipeline.directory}"
    )
    pieces: list[RenderableType] = [head, _table([_progress(stage) for stage in stages], "", width)]
    if not live and any(stage.state != "complete" for stage in stages):
        pieces.append(Text(f"go on with: {_last_command(pipeline.record)}", style="cyan"))
    begun = [stage for stage in stages if stage.study is not None]
    if begun:
        pieces += [Text(), render_status(pipeline.study_of(begun[-1]), decisions=decisions, width=width)]
    return Group(*pieces)


def _progress(stage: StageResult) -> dict[str, str]:
    shown = stage.as_text()
    return {
        **{name: shown[name] for name in ("stage", "state")},
        "folder": stage.folder or "",
        **{name: shown[name] for name in ("starts from", "seconds")},
        "before": ", ".join(stage.earlier),
    }


def _last_command(record: Mapping[str, Any]) -> str:
    """The command of the last launch, as the user gave it."""
    return shlex.join(["rung", *record["launches"][-1]["command"][1:]])


def _table(rows: Sequence[dict[str, str]], title: str, width: int) -> RenderableType:
    """A table without its empty columns and, where it has no room for them, without single seeds; else blocks."""
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    whole = [{name: row[name] for name in names} for row in rows]
    short = [{name: text for name, text in row.items() if name != "seeds"} for row in whole]
    table = next((each for each in (whole, short) if fits(each, width)), None)
    return render_blocks(whole, title, width, "stage") if table is None else render_rows(table, title or None)
