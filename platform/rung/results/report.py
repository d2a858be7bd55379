"""The report of a study: figures as PNG and SVG, and one HTML page that needs no other file and no network.

    from rung.results.report import write_report
    write_report(rung.load("demo"))                # results/demo/report/report.html

Works for a study in any state, also while it runs. Where models answered questions, `answers.html` lies beside the page
(`answers_report.py`). What the page says is in `report_facts.py` and `report_tables.py`, how it looks in
`report.html.j2`, what the figures show in `plots.py`. Matplotlib and Jinja are imported when a report is written, not
before.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rung.results import report_facts as facts
from rung.results import report_tables as tables
from rung.results.answers_report import study_section, write_study_answers
from rung.results.files import replace_file
from rung.results.pages import PAGE, InlineFigure, inline_figure, page_template
from rung.results.snapshot import Snapshot, take_snapshot
from rung.results.verdict import verdict

if TYPE_CHECKING:
    from rung.results.query import StudyResults


def write_report(results: "StudyResults", *, log_steps: bool | None = None) -> Path:
    """Write figures and page into `report/` of the study's directory; returns the page's path.

    The page replaces the last one at once and whole. The same rows give the same files, byte for byte. `log_steps`
    as in `plots.draw`. Raises StorageError if the study cannot be read or the files cannot be written.
    """
    from rung.results.figure_style import choose_looks
    from rung.results.plots import draw

    snapshot = take_snapshot(results)
    directory = results.directory / "report"
    figures = [inline_figure(picture, directory) for picture in draw(snapshot, log_steps=log_steps)]
    colours = {config_id: look.css for config_id, look in choose_looks(snapshot.search).of.items()}
    links = write_study_answers(results, snapshot.answers, snapshot.changes, directory)
    page = render(snapshot, figures, colours, links)
    replace_file(directory / PAGE, page.encode())
    return directory / PAGE


def render(
    snapshot: Snapshot, figures: Sequence[InlineFigure], colours: Mapping[str, str], links: Mapping[str, str]
) -> str:
    """The page as HTML.

    Args:
        colours: the configurations' in the figures, by id, as CSS backgrounds.
        links: where the answers of runs can be read, by run_id.
    """
    by_name = {figure.name: figure for figure in figures}
    curves = [figure for figure in figures if figure.name not in ("seeds", "rungs", "confirm", "answers")]
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
        changes=study_section(snapshot.changes, by_name.get("answers"), colours, links),
        written=snapshot.written,
        answers_page=next(iter(links.values()), ""),
        savings=facts.savings(snapshot),
        troubles=facts.troubles(snapshot),
        launch_table=tables.launch_table(snapshot.launches),
        study_file=snapshot.study_file,
    )
