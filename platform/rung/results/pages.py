"""What the HTML pages are made of: templates, which escape what they are given and make it printable, and figures."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.results.text import printable

if TYPE_CHECKING:
    from jinja2 import Template

    from rung.results.figure_style import Picture

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class InlineFigure:
    """A figure as it stands in the page."""

    name: str
    title: str
    caption: str
    svg: str
    """An SVG element with everything in it escaped: the one text that the template takes as it is."""


def inline_figure(picture: "Picture", directory: Path) -> InlineFigure:
    """Write a figure's files into a directory and make it fit for a page. Raises StorageError."""
    from rung.results.figure_style import inline_svg
    from rung.results.plots import save

    svg = inline_svg(save(picture, directory), f"figure-{picture.name}", picture.summary)
    return InlineFigure(picture.name, picture.title, picture.caption, svg)


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
