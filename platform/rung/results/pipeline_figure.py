"""What single seeds reached in every stage of a pipeline: one panel a stage, since each has its own metric."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rung.results.export import interval_text
from rung.results.figure_style import COLOURS, FAINT, INK, WIDTH, Picture, short_label
from rung.results.pipeline import StageResult
from rung.results.rungs import selection_in_words
from rung.results.seed_figures import draw_interval, label_rows, seed_places, value_axis
from rung.results.tables import ConfigurationSummary
from rung.results.text import one_line
from rung.seeds import CONFIRM_SEEDS_FROM

MAX_ROWS = 4
"""Configurations of a stage in the figure; its own report has all."""

_ROW = 0.42
"""Inches of a configuration."""
_PANEL = 0.62
"""Inches of a panel beside its rows: title, numbers and name of the axis."""


def stage_picture(stages: Sequence[StageResult]) -> Picture | None:
    """The best configurations of every stage that has values, a seed in the same colour in all; None without any."""
    shown = [stage for stage in stages if stage.best is not None]
    if not shown:
        return None
    rows = [[entry for entry in stage.entries[:MAX_ROWS] if entry.mean is not None] for stage in shown]
    colours = _seed_colours([entry for entries in rows for entry in entries])
    heights = [_PANEL + _ROW * len(entries) for entries in rows]
    figure = Figure((WIDTH, 0.35 * bool(colours) + sum(heights)), layout="constrained")
    panels = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, stage, entries in zip(panels, shown, rows, strict=True):
        _draw_panel(axes, stage, entries, colours)
    if colours:
        figure.legend(handles=_legend(colours), loc="outside upper left", ncols=len(colours))
    return Picture(
        name="stages",
        title="Stages",
        caption=_caption(shown, colours),
        summary=" ".join(map(_in_words, shown)),
        figure=figure,
    )


def _seed_colours(entries: Sequence[ConfigurationSummary]) -> dict[int, str]:
    """A colour for each seed; none where there are more seeds than colours."""
    seeds = sorted({seed for entry in entries for seed in entry.seeds})
    return dict(zip(seeds, COLOURS, strict=False)) if len(seeds) <= len(COLOURS) else {}


def _draw_panel(
    axes: Axes, stage: StageResult, entries: Sequence[ConfigurationSummary], colours: Mapping[int, str]
) -> None:
    limits, _ = value_axis(axes, [value for entry in entries for value in entry.values if value is not None])
    for row, entry in enumerate(entries):
        _draw_row(axes, row, entry, colours, limits)
    label_rows(axes, [short_label(entry.label, 34) for entry in entries], [_value(entry) for entry in entries])
    assert stage.study is not None
    metric = stage.study["metric"]
    axes.set_title(f"{stage.number}  {stage.name}", loc="left", fontweight="bold")
    axes.set_xlabel(f"{one_line(stage.metric)}, {selection_in_words(metric)}")


def _draw_row(
    axes: Axes, row: int, entry: ConfigurationSummary, colours: Mapping[int, str], limits: tuple[float, float]
) -> None:
    if row % 2:
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    places = zip(entry.seeds, entry.values, seed_places(entry), strict=True)
    there = [(value, row + place, colours.get(seed, FAINT)) for seed, value, place in places if value is not None]
    values, heights, tones = zip(*there, strict=True)
    axes.scatter(values, heights, s=18, c=tones, alpha=0.85, zorder=3)
    draw_interval(axes, row + 0.28, entry.interval, INK, limits)


def _value(entry: ConfigurationSummary) -> str:
    stopped = ", stopped" if entry.stopped else ""
    return f"{interval_text(entry.interval)}\nn = {entry.n}{stopped}"


def _legend(colours: Mapping[int, str]) -> list[Line2D]:
    def name(seed: int) -> str:
        return f"seed {seed}" if seed < CONFIRM_SEEDS_FROM else f"fresh seed {seed - CONFIRM_SEEDS_FROM + 1}"

    return [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=colour, label=name(seed))
        for seed, colour in colours.items()
    ]


def _caption(shown: Sequence[StageResult], colours: Mapping[int, str]) -> str:
    sentences = ["Every stage by its own metric, its best configuration first. Circles are single seeds."]
    if colours:
        sentences.append("A seed has one colour: its run in a stage starts from its run in an earlier one.")
    if any(entry.interval.low is not None for stage in shown for entry in stage.entries[:MAX_ROWS]):
        sentences.append(
            "Diamonds are means and bars their 95\u00a0% Student-t intervals, cut with an arrow where they go on."
        )
    if any(len(stage.entries) > MAX_ROWS for stage in shown):
        sentences.append(f"Of each stage at most {MAX_ROWS} configurations are shown.")
    return " ".join(sentences)


def _in_words(stage: StageResult) -> str:
    assert stage.best is not None
    best = stage.best
    return f"{stage.name}: {one_line(best.label)}, {stage.metric} {interval_text(best.interval)}, n = {best.n}."
