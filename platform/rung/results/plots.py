"""Figures of a study: confirmation, learning curves, seeds of each configuration, survival over the rungs, norms.

    from rung.results.plots import draw, save
    for picture in draw(take_snapshot(rung.load("demo"))):
        save(picture, Path("figures"))                 # PNG and SVG; picture.caption says what is drawn

A configuration has the same colour in all of them. Matplotlib takes a second to import, so import this module
only where figures are wanted.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rung.results.answers_figure import answers_picture
from rung.results.confirm_figure import confirm_picture
from rung.results.curve_figures import GROUP_PREFIX, CurveDrawer
from rung.results.figure_style import Picture, choose_looks, png_bytes, settle, styled, svg_text
from rung.results.files import replace_file
from rung.results.seed_figures import rung_picture, seed_picture
from rung.results.snapshot import PARAMETER_NORM, Snapshot, group_metrics

__all__ = ["Picture", "draw", "save"]


def draw(snapshot: Snapshot, *, log_steps: bool | None = None) -> list[Picture]:
    """Every figure for which the study has something to show, so none for an empty one.

    `log_steps` chooses a logarithmic step axis; None chooses it where runs report densely at first and rarely later.
    """
    looks = choose_looks(snapshot.search)
    curves = CurveDrawer(snapshot, looks, log_steps)
    metric = snapshot.study["metric"]["name"]
    with styled():
        pictures = [
            confirm_picture(snapshot, looks),
            curves.picture("learning_curves", "Learning curves", [metric]),
            curves.picture("loss_and_accuracy", "Loss and accuracy", group_metrics("")),
            *(
                curves.picture(f"{GROUP_PREFIX}{name}", f"Loss and accuracy, {group}", group_metrics(group))
                for name, group in _file_names(snapshot.groups)
            ),
            seed_picture(snapshot, looks),
            rung_picture(snapshot),
            answers_picture(snapshot.changes),
            curves.picture("parameter_norm", "Parameter norm", [PARAMETER_NORM]),
        ]
    return [picture for picture in pictures if picture is not None]


def _file_names(groups: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The groups, each with a distinct name that can be part of a file's name and of an id."""
    for number, group in enumerate(groups):
        name = re.sub(r"[^A-Za-z0-9_-]", "_", group)
        yield (name if name == group else f"{name}_{number}"), group


def save(picture: Picture, directory: Path) -> str:
    """Write `<name>.png` (200 dots per inch) and `<name>.svg`; returns the SVG document. Raises StorageError."""
    settle(picture.figure)
    document = svg_text(picture.figure)
    replace_file(directory / f"{picture.name}.png", png_bytes(picture.figure))
    replace_file(directory / f"{picture.name}.svg", document.encode())
    return document
