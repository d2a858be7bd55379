"""The report of a study: figures as PNG and SVG, and one HTML page that needs no other file and no network.

    from rung.results.report import write_report
    write_report(rung.load("demo"))                # results/demo/report/report.html

Works for a study in any state, also while it runs. What the page says is in `report_facts.py` and
`report_tables.py`, how it looks in `report.html.j2`, what the figures show in `plots.py`. Matplotlib and Jinja are
imported when a report is written, not before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.results import report_facts as facts
from rung.results import report_tables as tables
from rung.results.files import replace_file
from rung.results.snapshot import Snapshot, take_snapshot
from rung.results.text import printable
from rung.results.verdict import verdict

if TYPE_CHECKING:
    from jinja2 import Template

    from rung.results.query import StudyResults

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class InlineFigure:
    """A figure as it stands in the page."""

    name: str
    title: str
    caption: str
    svg: str
    """An SVG element with everything in it escaped: the one text that the template takes as it is."""


def write_report(results: "StudyResults", *, log_steps: bool | None = None) -> Path:
    """Write figures and page into `report/` of the study's directory; returns the page's path.

    The page replaces the last one at once and whole. The same rows give the same files, byte for byte. `log_steps`
    as in `plots.draw`. Raises StorageError if the study cannot be read or the files cannot be written.
    """
    from rung.results.figure_style import choose_looks, inline_svg
    from rung.results.plots import draw, save

    snapshot = take_snapshot(results)
    directory = results.directory / "report"
    figures = []
    for picture in draw(snapshot, log_steps=log_steps):
        svg = inline_svg(save(picture, directory), f"figure-{picture.name}", picture.summary)
        figures.append(InlineFigure(picture.name, picture.title, picture.caption, svg))
    colours = {config_id: look.css for config_id, look in choose_looks(snapshot.search).of.items()}
    page = render(snapshot, figures, colours)
    replace_file(directory / PAGE, page.encode())
    return directory / PAGE


def render(snapshot: Snapshot, figures: Sequence[InlineFigure], colours: Mapping[str, str]) -> str:
    """The page as HTML. `colours` are the configurations' in the figures, by id, as CSS backgrounds."""
    by_name = {figure.name: figure for figure in figures}
    curves = [figure for figure in figures if figure.name not in ("seeds", "rungs", "confirm")]
    return page_template("report.html.j2").render(
        study=snapshot.study,
        live=snapshot.live,
        facts=facts.overview(snapshot),
        verdict=verdict(snapshot.study, snapshot.search, snapshot.confirmation, live=snapshot.live),
        curves=curves,
        confirm=by_name.get("confirm"),
        seeds=by_name.get("seeds"),
        rungs=by_name.get("rungs"),
        rung_table=tables.rung_table(snapshot),
        decision_table=tables.decision_table(snapshot, colours),
        grokking_table=tables.grokking_table(snapshot.grokking, colours),
        configuration_table=tables.configuration_table(snapshot, colours),
        confirm_table=tables.confirm_table(snapshot, colours),
        cost_table=tables.cost_table(snapshot),
        written=snapshot.written,
        savings=facts.savings(snapshot),
        troubles=facts.troubles(snapshot),
        launch_table=tables.launch_table(snapshot.launches),
        study_file=snapshot.study_file,
    )


@cache
def page_template(name: str) -> "Template":
    """A template beside this file; whatever it is given is escaped and made printable."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _printable(value: Any) -> Any:
    """What the template does with every value before it escapes it; markup stays as it is."""
    return printable(value) if type(value) is str else value
