"""The report's page in a real browser: drawn in light and dark, wide and narrow, with nothing to complain about."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from rung.results.query import load
from rung.results.report import write_report
from tests.synthetic import write_synthetic_study

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH to look at the report with"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(load(write_synthetic_study(tmp_path_factory.mktemp("browser"))))


def browse(page: Path, folder: Path, *options: str, fragment: str = "") -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = [
        BROWSER or "",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page.as_uri() + (f"#{fragment}" if fragment else ""),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def complaints(log: str) -> list[str]:
    """What the page itself did wrong: the browser also logs a lot about the machine."""
    return [line for line in log.splitlines() if "CONSOLE" in line or "net::ERR" in line]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_drawn(page: Path, tmp_path: Path, width: int, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    dark = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    done = browse(page, tmp_path, f"--window-size={width},3000", f"--screenshot={shot}", *dark)
    assert complaints(done.stderr) == []
    pixels = imread(shot)[..., :3]
    assert pixels.shape[:2] == (3000, width)
    corner = float(pixels[0, 0].mean())
    assert corner < 0.2 if scheme == "dark" else corner > 0.9
    inked = np.abs(pixels - pixels[0, 0]).max(axis=2) > 0.1
    assert 0.01 < inked.mean() < 0.99
    assert inked[: 3000 // 2].any(axis=1).mean() > 0.3  # text and figures all the way down


def test_page_holds_its_figures_and_no_errors(page: Path, tmp_path: Path) -> None:
    done = browse(page, tmp_path, "--dump-dom")
    assert complaints(done.stderr) == []
    assert len(re.findall(r"<svg[^>]* role=\"img\"", done.stdout)) == 5
    assert done.stdout.count("<figcaption>") == 5
    assert "Learning and generalisation" in done.stdout


def test_complaints_are_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<!DOCTYPE html><script>undefinedFunction()</script><p>x")
    assert complaints(browse(broken, tmp_path, "--dump-dom").stderr)
