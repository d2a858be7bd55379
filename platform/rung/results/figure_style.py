"""How figures look: style constants, one colour per configuration, number formats, files.

Figures are made without pyplot and without the user's matplotlibrc, so that they come out the same anywhere. Colours
are those of Okabe and Ito, made for colour-blind readers (https://jfly.uni-koeln.de/color/), without their yellow, and
once more with dashes; a sweep of one number is coloured by that number (viridis).
"""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rung.results.tables import ConfigurationSummary
from rung.results.text import one_line

WIDTH = 7.2
"""Inches: the text width of a two-column page."""

COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",
)
GREY = "#BBBBBB"
INK = "#222222"
FAINT = "#777777"

MAX_COLOURED = 12
"""Up to so many configurations are all coloured."""
COLOURED_OF_MANY = 7
"""Of more than that, so many are."""
_LABEL_LENGTH = 56

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Geneva", "Arial"],  # about equally wide: labels keep fitting
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a "$" in a label is a dollar
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
    "svg.hashsalt": "rung",
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings are these and no others, until the block ends. Not for several threads at once."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(STYLE)
        yield


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure and what is said about it."""

    name: str
    """Stem of its files."""
    title: str
    caption: str
    """What is drawn, with n and the interval, in whole sentences."""
    summary: str
    """For who cannot see it: what it shows, in a sentence."""
    figure: Figure


# ------------------------------------------------------------------------------- colours of configurations


@dataclass(frozen=True, slots=True)
class Look:
    """How one configuration is drawn everywhere."""

    colour: str
    dashed: bool = False
    highlighted: bool = True
    """False for one of many that only form the background."""

    @property
    def css(self) -> str:
        """A CSS background that is recognised as this look."""
        if not self.dashed:
            return self.colour
        return f"repeating-linear-gradient(90deg, {self.colour} 0 .25rem, #fff .25rem .4rem)"


@dataclass(frozen=True, slots=True)
class ColourBar:
    """Colours that stand for the values of the one number in which the configurations differ."""

    path: str
    """Its dotted path in the configuration."""
    values: tuple[float, ...]
    """Ascending, each once."""

    @property
    def is_log(self) -> bool:
        return self.values[0] > 0 and self.values[-1] / self.values[0] >= 3

    @property
    def norm(self) -> Normalize:
        kind = LogNorm if self.is_log else Normalize
        return kind(self.values[0], self.values[-1])

    @property
    def colormap(self) -> Any:
        # Without viridis' last, bright yellows, which do not show on white.
        from matplotlib.colors import ListedColormap

        return ListedColormap(matplotlib.colormaps["viridis"].colors[:225])  # type: ignore[attr-defined]

    def colour(self, value: float) -> str:
        return to_hex(self.colormap(self.norm(value)))

    def ticks(self) -> list[float]:
        """The values themselves; if they are too many, round ones among them, powers of two where they are such."""
        if len(self.values) <= 9:
            return list(self.values)
        low, high = self.values[0], self.values[-1]
        if not self.is_log:
            return [tick for tick in map(float, MaxNLocator(6).tick_values(low, high)) if low <= tick <= high]
        powers = all(math.log2(value).is_integer() for value in self.values)
        base, factors = (2, (1,)) if powers else (10, (1, 2, 5))
        exponents = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
        ticks = [factor * float(base) ** exponent for exponent in exponents for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        return inside[:: max(1, len(inside) // 8)]


@dataclass(frozen=True, slots=True)
class Looks:
    """The look of every configuration of a study, the same in all its figures."""

    of: Mapping[str, Look]
    """By config_id, best first."""
    bar: ColourBar | None
    """In place of a legend."""

    @property
    def highlighted(self) -> list[str]:
        """The configurations in colour, best first."""
        return [config_id for config_id, look in self.of.items() if look.highlighted]

    @property
    def is_crowded(self) -> bool:
        """Whether there are too many configurations to draw the seeds of all."""
        return len(self.of) > MAX_COLOURED

    def in_words(self) -> str:
        """What the colours mean, where they do not mean everything; else empty."""
        if self.bar is not None:
            return f"The colour is {self.bar.path}."
        if not self.is_crowded:
            return ""
        everyone, coloured = len(self.of), len(self.highlighted)
        return f"Of {everyone} configurations the best {coloured} are in colour, the other {everyone - coloured} grey."


def choose_looks(best_first: Sequence[ConfigurationSummary]) -> Looks:
    """Colour by the one number in which configurations differ (at least 3 values), else by place."""
    bar = _colour_bar(best_first)
    if bar is not None:
        looks = {entry.config_id: Look(bar.colour(_number(entry.swept[bar.path]))) for entry in best_first}
        return Looks(looks, bar)
    coloured = len(best_first) if len(best_first) <= MAX_COLOURED else COLOURED_OF_MANY
    looks = {
        entry.config_id: Look(COLOURS[place % len(COLOURS)], dashed=place >= len(COLOURS))
        if place < coloured
        else Look(GREY, highlighted=False)
        for place, entry in enumerate(best_first)
    }
    return Looks(looks, None)


def _colour_bar(entries: Sequence[ConfigurationSummary]) -> ColourBar | None:
    paths = {path for entry in entries for path in entry.swept}
    differing = [path for path in paths if len({repr(entry.swept.get(path)) for entry in entries}) > 1]
    if len(differing) != 1:
        return None
    values = [entry.swept.get(differing[0]) for entry in entries]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    numbers = tuple(sorted({_number(value) for value in values}))
    return ColourBar(differing[0], numbers) if len(numbers) >= 3 else None


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


# ---------------------------------------------------------------------------------------------------- text


def short_label(text: object, length: int = _LABEL_LENGTH) -> str:
    """A configuration's label, cut in the middle, where labels of one study differ least."""
    label = one_line(text) or "(no label)"
    if len(label) <= length:
        return label
    return f"{label[: length - length // 2 - 1].rstrip()}…{label[-(length // 2) :].lstrip()}"


def count_text(value: float, _position: object = None) -> str:
    """A step or rung for an axis: 500, 2k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def value_text(value: float, _position: object = None) -> str:
    """A value on a logarithmic axis: 0.01, 5, 10⁻³."""
    if value <= 0 or 0.01 <= value < 1e5:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**power:.2g}"
    exponent = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{exponent}" if digits == "1" else f"{digits}·10{exponent}"


# --------------------------------------------------------------------------------------------------- files


def settle(figure: Figure) -> None:
    """Lay a figure out once and for all, as otherwise every file would do twice."""
    engine = figure.get_layout_engine()
    for axes in figure.axes:
        for drawn in (*axes.lines, *axes.collections):
            drawn.set_in_layout(False)  # what lies within the axes needs no place of its own
    if engine is not None:
        with styled():
            engine.execute(figure)
            engine.execute(figure)  # labels beside the axes find their place in the second round
        figure.set_layout_engine(None)  # "none" would leave an engine behind, for which every file is drawn twice


def png_bytes(figure: Figure) -> bytes:
    """The figure at 200 dots per inch; the same figure gives the same bytes."""
    file = io.BytesIO()
    with styled():
        figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


def svg_text(figure: Figure) -> str:
    """The figure as an SVG document; the same figure gives the same text."""
    file = io.StringIO()
    with styled():
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # A hundredth of a point is enough for any eye, and halves the file.
    return re.sub(r"<path[^>]*>", lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), file.getvalue())


def inline_svg(document: str, prefix: str, label: str) -> str:
    """An SVG document as an element of an HTML page that may hold several.

    Its ids begin with `prefix`, its style does not reach the page, it scales with its place, and screen readers
    are told `label`.
    """
    root = ElementTree.fromstring(document)
    used = set(re.findall(r"#([A-Za-z][\w.-]*)", document))
    for element in root.iter():
        element.tag = _local(element.tag)
        _drop(element, ("metadata", "style"))
        attributes = {_local(name): value for name, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update({name: _prefixed(name, value, prefix) for name, value in attributes.items()})
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": one_line(label),
        # What matplotlib's style sheet says about every element, as inherited properties.
        "style": "stroke-linejoin:round;stroke-linecap:butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _drop(element: ElementTree.Element, kinds: Sequence[str]) -> None:
    for child in list(element):
        if _local(child.tag) in kinds:
            element.remove(child)


def _prefixed(name: str, value: str, prefix: str) -> str:
    """An attribute's value with `prefix` before the id that it gives or refers to."""
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace("#", f"#{prefix}-")
    return value.replace("url(#", f"url(#{prefix}-")
