"""Shows a plan on a terminal: the product, what is swept, the rungs, the cost, on request every configuration."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rung.cost import ASSUMED_OVERHEAD, ASSUMED_RATE, Cost
from rung.extension import BegunStudy
from rung.plan import Plan
from rung.results.text import quantity

_UNITS = {"wall_clock": "seconds"}


def render(plan: Plan, *, list_configurations: bool = False) -> RenderableType:
    """Everything that `rung plan` prints."""
    study = plan.study
    head = Text.assemble((study.study, "bold"), f"  {study.trainable}, judged by {_judged(plan)}")
    parts: list[RenderableType] = [head, Text(plan.product)]
    if study.dimensions:
        parts += [Text(), _dimensions(plan)]
    parts += [Text(), _rungs(plan), Text(), _cost(plan)]
    if plan.warnings:
        parts += [Text(), warnings_text(plan)]
    if list_configurations:
        parts += [Text(), _configurations(plan)]
    return Group(*parts)


def warnings_text(plan: Plan) -> Text:
    """The plan's warnings, one a line; empty without any."""
    return Text("\n").join(Text.assemble(("warning: ", "yellow"), f"{sentence}.") for sentence in plan.warnings)


def render_begun(begun: BegunStudy, additions: Sequence[str], objection: str) -> Text:
    """What `rung plan` says of a study that has begun: how it would go on, or why it cannot."""
    if objection:
        return Text.assemble("\n", ("cannot go on: ", "yellow"), objection)
    lines = [f"has begun in {begun.directory}: goes on where it is", *(f"  new: {each}" for each in additions)]
    return Text("\n" + "\n".join(lines))


def _judged(plan: Plan) -> str:
    metric = plan.study.metric
    select = f"mean of the last {metric.window} evaluations" if metric.select == "mean_of_last" else metric.select
    return f"{metric.name} ({metric.mode}, {select}, {metric.across_seeds} over seeds)"


def _dimensions(plan: Plan) -> Table:
    table = _table("swept", "values")
    for dimension in plan.study.dimensions:
        table.add_row(dimension.path, dimension.text)
    return table


def _rungs(plan: Plan) -> Table:
    unit = _UNITS.get(plan.unit, plan.unit)
    choice = plan.study.scheduler
    is_careful = choice.confidence is not None and choice.name != "fifo"
    expected = "configurations, at least" if is_careful else "configurations expected"
    title = f"scheduler {choice.name}" + (f", confidence {choice.confidence:g}" if is_careful else "")
    table = _table(f"rung ({unit})", expected, "seeds each", "runs", title=title)
    for rung, seeds in zip(plan.climb, plan.seed_counts, strict=True):
        cells = (f"{rung.level:,}", _rough(rung.configurations), f"{seeds}", _rough(rung.configurations * seeds))
        table.add_row(*cells)
    return table


def _cost(plan: Plan) -> Table:
    cost = plan.cost
    table = Table.grid(padding=(0, 2))
    for name, text in _cost_lines(plan, cost):
        table.add_row(Text(name, "dim"), text)
    return table


def _cost_lines(plan: Plan, cost: Cost) -> list[tuple[str, str]]:
    lines = []
    if cost.expected_steps is not None and cost.expected_flops is not None:
        most = f" (at most {cost.most_steps:,})" if round(cost.expected_steps) != cost.most_steps else ""
        lines.append(("steps", f"{cost.expected_steps:,.0f}{most}"))
        lines.append(("arithmetic", f"{quantity(cost.expected_flops)}FLOP"))
    if cost.core_hours is None or cost.wall_seconds is None:
        lines.append(("time", "not estimated for GPUs"))
    else:
        side = f"{cost.concurrent} configuration{'s' if cost.concurrent > 1 else ''} at a time"
        lines.append(("time", f"{duration(cost.wall_seconds)} on this machine, {side}"))
        lines.append(("", f"{cost.core_hours:,.2f} core-hours"))
        if plan.unit != "wall_clock":
            assumed = f"{ASSUMED_RATE / 1e9:g} GFLOP/s a core and {ASSUMED_OVERHEAD * 1e3:g} ms beside it a step"
            lines.append(("", f"assuming {assumed}; expect a factor of 2 either way"))
    if cost.memory is not None:
        lines.append(("memory", f"{quantity(cost.memory)}B of one device for a run, estimated"))
    lines.append(("rows", f"{cost.rows:,.0f} in `metrics`, {quantity(cost.row_bytes)}B"))
    keep = plan.study.checkpoints.keep
    kept = f"{quantity(cost.kept_bytes)}B of them kept ({f'best {keep}' if isinstance(keep, int) else keep})"
    lines.append(("checkpoints", f"{quantity(cost.checkpoint_bytes)}B while it runs, {kept}"))
    choices = ", ".join(f"{choice} {quantity(size)}B" for choice, size in cost.kept_by_choice.items())
    lines.append(("", f"kept: {choices}"))
    return lines


def _configurations(plan: Plan) -> RenderableType:
    if not plan.configurations:
        return Text(f"configurations are chosen by {plan.study.searcher.name} while the study runs")
    table = _table("", "id", "configuration", "sample")
    for configuration in sorted(plan.configurations, key=lambda each: each.index):
        cells = (
            str(configuration.index),
            configuration.config_id,
            configuration.label,
            str(configuration.sample),
        )
        table.add_row(*cells)
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    return table


def _rough(number: float) -> str:
    return f"{number:,.0f}" if abs(number - round(number)) < 0.05 else f"{number:,.1f}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`, `4 d 2 h`."""
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes:.0f} min"
    if hours < 48:
        return f"{int(hours)} h {int(minutes % 60):02d} min"
    return f"{int(hours // 24)} d {int(hours % 24)} h"
