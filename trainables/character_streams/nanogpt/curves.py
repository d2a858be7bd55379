"""Loss and accuracy of some runs over iterations, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rung.results.figure_style import COLOURS, FAINT, WIDTH, png_bytes, styled
from rung.results.files import replace_file
from rung.trainable import Reference
from trainables.character_streams.nanogpt.run_view import LOSSES, SHARES, RunView, theory_line
from trainables.character_streams.trainable import CharacterStreams


def write_curves(runs: Sequence[RunView], path: Path) -> Path:
    """Draws losses (validation as lines, training dotted), theory, and accuracy where there is one.

    Raises:
        StorageError: the file cannot be written.
    """
    accuracy = [run for run in runs if any(row.get("val/accuracy") is not None for row in run.rows)]
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots(1, 2 if accuracy else 1, squeeze=False)[0]
        _draw_losses(axes[0], runs)
        if accuracy:
            _draw_shares(axes[1], runs)
        axes[0].legend(fontsize="small")
        image = png_bytes(figure)
    replace_file(path, image)
    return path


def _draw_losses(axes: Axes, runs: Sequence[RunView]) -> None:
    for index, run in enumerate(runs):
        colour = COLOURS[index % len(COLOURS)]
        for name, style in zip(LOSSES, (":", "-"), strict=True):
            points = [(row["iter"], row[name]) for row in run.evaluations if row.get(name) is not None]
            label = run.folder.name if name == "val/loss" else None
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label)
    for value, label in {line.value: theory_line(line) for run in runs for line in _theory(run)}.items():
        axes.axhline(value, color=FAINT, linewidth=0.8, linestyle="--")
        axes.annotate(
            label, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize="x-small"
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss, nats per token (dotted: train)")


def _theory(run: RunView) -> Sequence[Reference]:
    return CharacterStreams.references(run.config).get("validation/loss", ())


def _draw_shares(axes: Axes, runs: Sequence[RunView]) -> None:
    for index, run in enumerate(runs):
        points = [(row["iter"], row["val/accuracy"]) for row in run.evaluations if row.get("val/accuracy") is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLOURS[index % len(COLOURS)], label=run.folder.name)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("iteration")
    axes.set_ylabel(SHARES["val/accuracy"])
