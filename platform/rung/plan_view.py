"""Shows a plan on a terminal: the product, what is swept, the rungs, the cost, on request every configuration."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rung.cost import ASSUMED_OVERHEAD, ASSUMED_RATE, Cost
from rung.plan import Plan

_UNITS = {"wall_clock": "seconds"}


def render(plan: Plan, *, list_configurations: bool = False) -> RenderableType:
    """Everything that `rung plan` prints."""
    study = plan.study
    head = Text.assemble((study.study, "bold"), f"  {study.trainable}, judged by {_judged(plan)}")
    parts: list[RenderableType] = [head, Text(plan.product)]
    if study.dimensions:
        parts += [Text(), _dimensions(plan)]
    parts += [Text(), _rungs(plan), Text(), _cost(plan)]
    if list_configurations:
        parts += [Text(), _configurations(plan)]
    return Group(*parts)


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
    table = _table(f"rung ({unit})", "configurations expected", "runs", title=f"scheduler {plan.study.scheduler.name}")
    for rung in plan.climb:
        runs = rung.configurations * len(plan.study.seeds)
        table.add_row(f"{rung.level:,}", _rough(rung.configurations), _rough(runs))
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
    lines.append(("rows", f"{cost.rows:,.0f} in `metrics`, {quantity(cost.row_bytes)}B"))
    kept = f"{quantity(cost.kept_bytes)}B of them kept ({plan.study.checkpoints.keep})"
    lines.append(("checkpoints", f"{quantity(cost.checkpoint_bytes)}B while it runs, {kept}"))
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


def quantity(number: float) -> str:
    """A number with a prefix: `1.5 k`, `23 M`."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:,.0f} E"


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
