"""Loss and accuracy of some runs over iterations, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rung.results.figure_style import COLOURS, FAINT, WIDTH, png_bytes, styled
from rung.results.files import replace_file
from rung.trainable import Reference
from trainables.character_streams.nanogpt.run_view import SHARES, RunView, neighbours, theory_line
from trainables.character_streams.trainable import CharacterStreams

STYLES: dict[str, dict[str, Any]] = {
    "val/loss": {"linestyle": "-", "linewidth": 2.6, "alpha": 0.45},
    "train/loss": {"linestyle": ":", "linewidth": 1.4},
}


def write_curves(runs: Sequence[RunView], path: Path) -> Path:
    """Draws losses (validation as lines, training dotted), theory, and accuracy where there is one.

    A run has the same colour in every picture, see `colours`.

    Raises:
        StorageError: the file cannot be written.
    """
    accuracy = [run for run in runs if any(row.get("val/accuracy") is not None for row in run.rows)]
    with styled():
        figure, painted = Figure(figsize=(WIDTH, 3.2), layout="constrained"), colours(runs)
        axes = figure.subplots(1, 2 if accuracy else 1, squeeze=False)[0]
        _draw_losses(axes[0], runs, painted)
        if accuracy:
            _draw_shares(axes[1], runs, painted)
        _add_legend(axes[0])
        image = png_bytes(figure)
    replace_file(path, image)
    return path


def colours(runs: Sequence[RunView]) -> list[str]:
    """The colour of each run: that of its place, by name, among the runs beside it on disk. Where this gives two of
    them the same (they lie in different folders, or are very many), that of its place among these runs."""
    folders = [run.folder.resolve() for run in runs]
    places = [neighbours(folder).index(folder) % len(COLOURS) for folder in folders]
    if len(set(places)) < len(set(folders)):
        places = [sorted(folders).index(folder) % len(COLOURS) for folder in folders]
    return [COLOURS[place] for place in places]


def _draw_losses(axes: Axes, runs: Sequence[RunView], painted: Sequence[str]) -> None:
    """Training lies over validation, which is wide and pale, so that both can be seen where they are equal."""
    for run, colour in zip(runs, painted, strict=True):
        for name, style in STYLES.items():
            points = [(row["iter"], row[name]) for row in run.evaluations if row.get(name) is not None]
            label = run.folder.name if name == "val/loss" else None
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=label, **style)
    for value, label in {line.value: theory_line(line) for run in runs for line in _theory(run)}.items():
        axes.axhline(value, color=FAINT, linewidth=0.8, linestyle="--")
        axes.annotate(
            label, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize="x-small"
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss, nats per token")


def _add_legend(axes: Axes) -> None:
    """Runs by colour, splits by kind of line."""
    runs, names = axes.get_legend_handles_labels()
    splits = [Line2D([], [], color="black", **style) for style in STYLES.values()]
    axes.legend([*runs, *splits], [*names, "validation", "training"], fontsize="small")


def _theory(run: RunView) -> Sequence[Reference]:
    return CharacterStreams.references(run.config).get("validation/loss", ())


def _draw_shares(axes: Axes, runs: Sequence[RunView], painted: Sequence[str]) -> None:
    for run, colour in zip(runs, painted, strict=True):
        points = [(row["iter"], row["val/accuracy"]) for row in run.evaluations if row.get("val/accuracy") is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=run.folder.name)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("iteration")
    axes.set_ylabel(SHARES["val/accuracy"])
