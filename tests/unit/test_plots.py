"""Figures: what is drawn is what the tables say, the same every time, in one colour per configuration."""

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from rung.results.curve_figures import is_log, value_limits
from rung.results.curves import Curve, band, load_curves, thin
from rung.results.figure_style import (
    COLOURED_OF_MANY,
    GREY,
    Picture,
    choose_looks,
    count_text,
    inline_svg,
    png_bytes,
    short_label,
    svg_text,
    value_text,
)
from rung.results.plots import draw, save
from rung.results.query import load
from rung.results.seed_figures import MAX_ROWS
from rung.results.snapshot import Snapshot, metric_groups, take_snapshot
from rung.results.statistics import mean_interval
from tests.made_up_studies import MadeUp, write_study
from tests.synthetic import PLAN, write_synthetic_study

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return take_snapshot(load(write_synthetic_study(tmp_path_factory.mktemp("plots"))))


@pytest.fixture(scope="module")
def pictures(synthetic: Snapshot) -> dict[str, Picture]:
    return _pictures(synthetic)


def _pictures(snapshot: Snapshot, *, log_steps: bool | None = None) -> dict[str, Picture]:
    return {picture.name: picture for picture in draw(snapshot, log_steps=log_steps)}


def _snapshot(tmp_path: Path, made_up: MadeUp) -> Snapshot:
    return take_snapshot(load(write_study(tmp_path / "study", made_up)))


def _panels(picture: Picture) -> list[Axes]:
    return list(picture.figure.axes)


def _solid(axes: Axes, colour: str) -> list[Line2D]:
    """The lines of a mean, without marks and rungs."""
    return [line for line in axes.lines if line.get_marker() == "None" and to_hex(line.get_color()).upper() == colour]


# ----------------------------------------------------------------------------------------------- arithmetic


def test_band_is_the_t_interval_at_every_step() -> None:
    generator = np.random.default_rng(0)
    steps = np.arange(5.0)
    values = generator.normal(size=(4, 5))
    over_runs = band([Curve(steps, row) for row in values])
    for column in range(5):
        expected = mean_interval(values[:, column])
        assert over_runs.mean[column] == pytest.approx(expected.mean)
        assert over_runs.low[column] == pytest.approx(expected.low)
        assert over_runs.high[column] == pytest.approx(expected.high)
    assert over_runs.runs.tolist() == [4] * 5


def test_band_follows_the_runs_that_are_left() -> None:
    longer = Curve(np.array([0.0, 10, 20]), np.array([1.0, 2, 3]))
    shorter = Curve(np.array([0.0, 10]), np.array([3.0, 4]))
    over_runs = band([longer, shorter])
    assert over_runs.steps.tolist() == [0, 10, 20]
    assert over_runs.runs.tolist() == [2, 2, 1]
    assert over_runs.mean.tolist() == [2, 3, 3]
    assert np.isnan(over_runs.low[-1])


def test_band_interpolates_between_reports_but_never_beyond_them() -> None:
    over_runs = band([Curve(np.array([0.0, 10]), np.array([0.0, 10])), Curve(np.array([5.0, 20]), np.array([5.0, 20]))])
    assert over_runs.steps.tolist() == [0, 5, 10, 20]
    assert over_runs.mean.tolist() == [0, 5, 10, 20]
    assert over_runs.runs.tolist() == [1, 2, 2, 1]


def test_logarithmic_band_is_geometric_and_leaves_out_zeros() -> None:
    steps = np.array([0.0, 1])
    over_runs = band([Curve(steps, np.array([1.0, 0.0])), Curve(steps, np.array([100.0, 7.0]))], log=True)
    assert over_runs.mean == pytest.approx([10, 7])
    assert over_runs.runs.tolist() == [2, 1]
    assert over_runs.low[0] > 0


def test_band_of_nothing_is_empty() -> None:
    assert len(band([]).steps) == 0


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=400),
    st.integers(min_value=4, max_value=100),
)
def test_thinning_keeps_ends_and_extremes(values: list[float], points: int) -> None:
    y = np.array(values)
    x = np.arange(len(values), dtype=np.float64)
    kept = thin(x, y, points)
    assert np.all(np.diff(kept) > 0)
    assert len(kept) <= max(points + 4, 1)
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert y[kept].min() == y.min()
    assert y[kept].max() == y.max()


def test_short_curves_are_not_thinned() -> None:
    assert thin(np.arange(10.0), np.zeros(10), 10).tolist() == list(range(10))


def test_curves_are_the_reports_of_each_run(synthetic: Snapshot, tmp_path: Path) -> None:
    results = load(write_synthetic_study(tmp_path))
    runs = load_curves(results, ["validation/accuracy"])
    killed = next(run for run in runs if run.run_id == f"{PLAN[0].config_id}-s1")
    curve = killed.curves["validation/accuracy"]
    expected = results.query(
        f"SELECT step, \"validation/accuracy\" FROM metrics WHERE run_id = '{killed.run_id}' ORDER BY step"
    ).fetchall()
    assert list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == expected
    assert len({run.run_id for run in runs}) == 12


def test_groups_are_found_only_where_there_are_several() -> None:
    two = ["validation/order_2/loss", "validation/order_3/loss", "train/order_2/accuracy", "batch/x/loss"]
    assert metric_groups(two) == ["order_2", "order_3"]
    assert metric_groups(["validation/order_2/loss", "validation/loss"]) == []


# ------------------------------------------------------------------------------------------ what is drawn


def test_every_figure_is_there(pictures: dict[str, Picture]) -> None:
    assert list(pictures) == ["learning_curves", "loss_and_accuracy", "seeds", "rungs", "parameter_norm"]


def test_mean_lines_end_at_the_means_of_the_table(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    looks = choose_looks(synthetic.search)
    axes = _panels(pictures["learning_curves"])[0]
    for entry in synthetic.search[:2]:  # those with all runs at the budget
        (line,) = _solid(axes, looks.of[entry.config_id].colour)
        assert float(np.asarray(line.get_xdata())[-1]) == 10_000
        assert float(np.asarray(line.get_ydata())[-1]) == pytest.approx(entry.mean)


def test_mean_is_dotted_where_runs_are_missing(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    looks = choose_looks(synthetic.search)
    lossy = PLAN[2]  # seed 2 fails at 1,500, seed 1 diverges at 2,300
    solid, dotted = _solid(_panels(pictures["learning_curves"])[0], looks.of[lossy.config_id].colour)
    assert solid.get_linestyle() == "-"
    assert np.asarray(solid.get_xdata())[-1] == 1500
    assert dotted.get_linestyle() == ":"
    assert np.asarray(dotted.get_xdata())[[0, -1]].tolist() == [1500, 10_000]


def test_ends_before_the_budget_are_marked(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    axes = _panels(pictures["learning_curves"])[0]
    ends = {
        (line.get_marker(), float(np.asarray(line.get_xdata())[0]))
        for line in axes.lines
        if line.get_marker() != "None"
    }
    assert ends == {("x", 2300.0), ("1", 1500.0), ("|", 1000.0)}


def test_there_is_one_thin_line_per_seed(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    seeds = [c for c in _panels(pictures["learning_curves"])[0].collections if isinstance(c, LineCollection)]
    assert sorted(len(lines.get_segments()) for lines in seeds) == [3, 3, 3, 3]


def test_losses_are_logarithmic_and_share_their_scale(pictures: dict[str, Picture]) -> None:
    train_loss, validation_loss, train_accuracy, validation_accuracy = _panels(pictures["loss_and_accuracy"])
    assert train_loss.get_yscale() == validation_loss.get_yscale() == "log"
    assert train_loss.get_ylim() == validation_loss.get_ylim()
    assert train_accuracy.get_yscale() == "linear"
    assert train_accuracy.get_ylim() == validation_accuracy.get_ylim() == (-0.03, 1.03)
    assert "geometric" in pictures["loss_and_accuracy"].caption
    assert "geometric" not in pictures["learning_curves"].caption


def test_axes_are_labelled(pictures: dict[str, Picture]) -> None:
    axes = _panels(pictures["learning_curves"])[0]
    assert axes.get_xlabel() == "optimizer steps"
    assert axes.get_ylabel() == "validation accuracy (fraction)"
    assert _panels(pictures["parameter_norm"])[0].get_ylabel() == "L2 norm of the parameters"


@pytest.mark.parametrize(
    ("metric", "values", "log"),
    [
        ("train/loss", [4.0, 1e-3], True),
        ("train/loss", [2.5, 2.2], False),
        ("train/loss", [-0.1, 5.0], False),
        ("train/loss", [0.0, 5.0], False),
        ("train/loss", [0.0, 5.0, 0.01], True),
        ("validation/accuracy", [1e-4, 1.0], False),
        ("parameter_norm", [30.0, 60.0], False),
        ("parameter_norm", [30.0, 1e9], True),
    ],
)
def test_which_axes_are_logarithmic(metric: str, values: list[float], log: bool) -> None:
    curve = Curve(np.arange(float(len(values))), np.array(values))
    assert is_log(metric, [curve]) is log
    low, high = value_limits(metric, [curve], log=log)
    assert low < high
    assert math.isfinite(low)


def test_constant_values_have_room() -> None:
    low, high = value_limits("reward", [Curve(np.array([0.0]), np.array([0.0]))], log=False)
    assert low < 0 < high


def test_step_axis_can_be_chosen(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    assert _panels(pictures["learning_curves"])[0].get_xscale() == "linear"
    assert _panels(_pictures(synthetic, log_steps=True)["learning_curves"])[0].get_xscale() == "symlog"


def test_dense_first_reports_get_a_logarithmic_step_axis(tmp_path: Path) -> None:
    steps = (*range(100), *range(100, 5001, 100))
    snapshot = _snapshot(tmp_path, MadeUp({"a": [1, 2]}, seeds=1, steps=steps, rungs=(5000,)))
    assert _panels(_pictures(snapshot)["learning_curves"])[0].get_xscale() == "symlog"


def test_strip_plot_lists_the_best_first_with_every_seed(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    axes = _panels(pictures["seeds"])[0]
    labels = [label.get_text().split("\n") for label in axes.get_yticklabels()]
    assert [label[0] for label in labels] == [entry.label for entry in synthetic.search]
    assert ["1 diverged, 1 failed"] in [label[1:] for label in labels]
    points = [collection.get_offsets()[:, 0].tolist() for collection in axes.collections]
    assert points == [[value for value in entry.values if value is not None] for entry in synthetic.search]


def test_strip_plot_gives_mean_interval_and_n(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    texts = [text.get_text() for text in _panels(pictures["seeds"])[0].texts]
    assert texts[0].endswith("n = 3")
    assert texts[2].endswith("n = 3, stopped at 1k")
    assert "Hollow" in pictures["seeds"].caption


def test_rungs_count_decisions(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    axes = _panels(pictures["rungs"])[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1k", "3k", "10k (budget)"]
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in axes.containers}  # type: ignore[attr-defined]
    assert heights == {"went on": [3, 3], "completed": [3], "stopped": [1]}


def test_no_decision_no_rungs(synthetic: Snapshot) -> None:
    assert "rungs" not in _pictures(replace(synthetic, decisions=[]))


def test_a_bracket_is_named_where_there_are_several(synthetic: Snapshot) -> None:
    decisions = [{**row, "bracket": 0 if row["level"] == 1000 else 1} for row in synthetic.decisions]
    axes = _panels(_pictures(replace(synthetic, decisions=decisions))["rungs"])[0]
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["1k\nbracket 0", "3k\nbracket 1"]


def test_parts_of_the_data_have_figures_of_their_own(tmp_path: Path) -> None:
    made_up = MadeUp({"a": ["x", "y"]}, seeds=2, groups=("order_2", "odd part"))
    names = list(_pictures(_snapshot(tmp_path, made_up)))
    assert "loss_and_accuracy_order_2" in names
    assert "loss_and_accuracy_odd_part_0" in names


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    pictures = _pictures(_snapshot(tmp_path, MadeUp({"a": ["x", "y"]}, seeds=1)))
    collections = [c for axes in _panels(pictures["learning_curves"]) for c in axes.collections]
    assert not any(isinstance(collection, PolyCollection | LineCollection) for collection in collections)
    assert "no interval" in pictures["learning_curves"].caption
    assert "interval" not in pictures["seeds"].caption


def test_empty_study_has_no_figures(tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path, MadeUp({"a": [1]}, ended={(0, 0): ("failed", -1, "boom")}, seeds=1))
    assert draw(snapshot) == []


# ---------------------------------------------------------------------------------------------- colours


def test_a_configuration_has_one_colour_everywhere(synthetic: Snapshot, pictures: dict[str, Picture]) -> None:
    looks = choose_looks(synthetic.search)
    assert len({look.colour for look in looks.of.values()}) == 4
    strip = _panels(pictures["seeds"])[0]
    for entry, points in zip(synthetic.search, strip.collections, strict=True):
        colour = looks.of[entry.config_id].colour
        assert to_hex(points.get_edgecolor()[0]).upper() == colour  # type: ignore[index]
        for name in ("learning_curves", "parameter_norm"):
            assert _solid(_panels(pictures[name])[0], colour)


def test_one_swept_number_gets_a_colour_bar_instead_of_a_legend(tmp_path: Path) -> None:
    widths = [16, 32, 64, 128]
    snapshot = _snapshot(tmp_path, MadeUp({"model.width": widths, "fixed": [1] * 4}, seeds=2))
    figure = _pictures(snapshot)["learning_curves"].figure
    panel, bar = figure.axes
    assert bar.get_ylabel() == "model.width"
    assert bar.get_yticks().tolist() == widths
    assert bar.get_yscale() == "log"
    assert figure.legends == []
    assert len({to_hex(line.get_color()) for line in panel.lines if line.get_linestyle() == "-"}) >= 4


def test_two_values_or_words_get_a_legend(tmp_path: Path) -> None:
    assert choose_looks(_snapshot(tmp_path / "a", MadeUp({"width": [16, 32]}, seeds=1)).search).bar is None
    words = MadeUp({"kind": ["gpt", "lstm", "mlp"]}, seeds=1)
    assert choose_looks(_snapshot(tmp_path / "b", words).search).bar is None
    switches = MadeUp({"tied": [True, False, True], "width": [1, 1, 2]}, seeds=1)
    assert choose_looks(_snapshot(tmp_path / "c", switches).search).bar is None


def test_many_configurations_stay_readable(tmp_path: Path) -> None:
    count = MAX_ROWS + 5
    made_up = MadeUp(
        {"a": list(range(count)), "b": list(range(count))}, seeds=3, steps=range(0, 4001, 10), rungs=(4000,)
    )
    snapshot = _snapshot(tmp_path, made_up)
    looks = choose_looks(snapshot.search)
    assert looks.highlighted == [entry.config_id for entry in snapshot.search[:COLOURED_OF_MANY]]
    pictures = _pictures(snapshot)
    curves = pictures["learning_curves"]
    assert f"Of {count} configurations the best 7 are in colour, the other {count - 7} grey." in curves.caption
    assert len(_solid(_panels(curves)[0], GREY)) == count - 7
    seeds = [c for c in _panels(curves)[0].collections if isinstance(c, LineCollection)]
    assert len(seeds) == COLOURED_OF_MANY
    assert len(_panels(pictures["seeds"])[0].get_yticklabels()) == MAX_ROWS
    assert f"The best {MAX_ROWS} of {count}" in pictures["seeds"].caption
    assert sum(len(svg_text(picture.figure)) for picture in pictures.values()) < 3_000_000


# ------------------------------------------------------------------------------------------ text and files


def test_files_are_the_same_every_time(synthetic: Snapshot, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for picture in draw(synthetic):
            save(picture, tmp_path / folder)
    one, two = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert len(one) == 10
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


@pytest.fixture
def odd_settings() -> Iterator[None]:
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        yield


def test_the_users_matplotlibrc_plays_no_part_and_stays(
    synthetic: Snapshot, pictures: dict[str, Picture], odd_settings: None
) -> None:
    mine = _pictures(synthetic)["rungs"]
    assert svg_text(mine.figure) == svg_text(pictures["rungs"].figure)
    assert matplotlib.rcParams["lines.linewidth"] == 9


def test_png_has_two_hundred_dots_per_inch(pictures: dict[str, Picture]) -> None:
    content = png_bytes(pictures["rungs"].figure)
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) == round(7.2 * 200)


def test_svg_is_xml_without_a_date_and_with_text_as_text(pictures: dict[str, Picture]) -> None:
    for picture in pictures.values():
        document = svg_text(picture.figure)
        root = ElementTree.fromstring(document)
        assert root.tag == f"{SVG}svg"
        assert "dc:date" not in document
        assert any(element.text for element in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("label", ["$x$ and $", "_hidden", "<b>&amp;", "a\x00b\ud800c\nd", "名前 🚀", ""])
def test_any_label_can_be_drawn(tmp_path: Path, label: str) -> None:
    search = _snapshot(tmp_path, MadeUp({"a": ["x", "y"]}, seeds=2))
    entries = [replace(entry, label=label) for entry in search.search]
    rows = [{**row, "label": label} for row in search.configurations]
    snapshot = replace(search, search=entries, configurations=rows)
    pictures = _pictures(snapshot)
    shown = short_label(label)
    for name in ("learning_curves", "seeds"):
        root = ElementTree.fromstring(save(pictures[name], tmp_path))
        texts = ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]
        assert shown in texts


def test_inline_svgs_do_not_share_ids_or_styles(pictures: dict[str, Picture]) -> None:
    document = svg_text(pictures["rungs"].figure)
    one = ElementTree.fromstring(inline_svg(document, "one", 'a "label" <b>'))
    two = ElementTree.fromstring(inline_svg(document, "two", ""))
    ids = [{element.get("id") for element in root.iter() if element.get("id")} for root in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert one.get("aria-label") == 'a "label" <b>'
    assert {element.tag for element in one.iter()} & {"style", "metadata"} == set()
    text = ElementTree.tostring(one, encoding="unicode")
    assert "http" not in text
    for reference in [part.split(")")[0].split('"')[0] for part in text.replace('href="#', "url(#").split("url(#")[1:]]:
        assert reference in ids[0]


def test_numbers_for_axes() -> None:
    assert [count_text(value) for value in (0, 500, 1500, 10_000, 2.5e6)] == ["0", "500", "1.5k", "10k", "2.5M"]
    assert [value_text(value) for value in (0.01, 5.0, 1e-3, 2e-4, 1e6)] == ["0.01", "5", "10⁻³", "2·10⁻⁴", "10⁶"]
    assert value_text(0.001 * (1 - 1e-15)) == "10⁻³"


def test_long_labels_are_cut_in_the_middle() -> None:
    label = short_label("kind=gpt, " + "weight_decay=0.25, " * 9 + "seed_noise=3")
    assert len(label) <= 57
    assert label.startswith("kind=gpt")
    assert label.endswith("seed_noise=3")


def test_pyplot_is_never_imported(tmp_path: Path) -> None:
    directory = write_study(tmp_path / "study", MadeUp({"a": [1, 2]}, seeds=1))
    script = (
        "import sys; from rung.results.query import load; from rung.results.report import write_report; "
        "heavy = {'matplotlib', 'jinja2', 'pandas', 'scipy', 'duckdb', 'ray', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy; "
        f"write_report(load({str(directory)!r})); "
        "assert not {'matplotlib.pyplot', 'pandas', 'ray', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
