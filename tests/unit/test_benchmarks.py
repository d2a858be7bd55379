"""Every benchmark can be started as its docstring says, and the pages of docs/ name them all and no others."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"python -m (tests\.benchmarks\.\w+)")
SHARED = {"__init__", "intervals", "measure", "processes"}
"""Modules that benchmarks use, beside those named `plain_...`."""
BENCHMARKS = sorted(
    f"tests.benchmarks.{path.stem}"
    for path in (ROOT / "tests" / "benchmarks").glob("*.py")
    if path.stem not in SHARED and not path.stem.startswith("plain_")
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_how_it_is_started(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(name)
    assert name in COMMAND.findall(module.__doc__ or "")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert name in capsys.readouterr().out


def test_the_pages_name_every_benchmark() -> None:
    text = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    assert sorted(set(COMMAND.findall(text))) == BENCHMARKS
