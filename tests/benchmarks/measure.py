"""What all benchmarks share: cases measured in turns, ratios within a turn, and a line on the machine.

Other work on the machine slows all cases of a turn alike, so a ratio is taken within a turn and the median over turns
is what counts; seconds are given beside it for scale. Nothing here fails for being slow: a benchmark is no test.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


@dataclass
class Sample:
    """The measurements of one case, one per turn, in the order they were taken."""

    name: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def ratios(self, base: Sample) -> list[float]:
        """How often this case fits into `base`, turn by turn: more than 1 is faster than `base`."""
        return [before / now for before, now in zip(base.values, self.values, strict=True)]


def alternate(cases: Mapping[str, Callable[[], float | None]], turns: int, warm_up: int = 1) -> dict[str, Sample]:
    """Runs every case once per turn, `turns` times, each turn in the reverse order of the one before it.

    A case returns what it measured, in seconds; None: it is timed from outside. Turns of the warm-up are not kept.
    """
    samples = {name: Sample(name) for name in cases}
    for turn in range(-warm_up, turns):
        order = list(cases) if turn % 2 == 0 else list(reversed(cases))
        for name in order:
            begin = time.perf_counter()
            measured = cases[name]()
            elapsed = time.perf_counter() - begin
            if turn >= 0:
                samples[name].values.append(elapsed if measured is None else measured)
    return samples


def ratio_text(sample: Sample, base: Sample) -> str:
    """`2.31 (2.25-2.40)`: median and quartiles of the ratios; `1` for the base itself."""
    if sample is base:
        return "1"
    ratios = sorted(sample.ratios(base))
    if len(ratios) < 3:
        return f"{statistics.median(ratios):.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table on standard output, as it stands in docs/performance.md."""
    print("| " + " | ".join(headers) + " |")
    print("|" + "---|" * len(headers))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def print_machine(threads: int | None = None) -> None:
    """One line: where, when and with what this was measured."""
    counted = "" if threads is None else f", {threads} thread{'s' if threads != 1 else ''} per process"
    print(
        f"{_processor()}, {os.cpu_count()} cores{counted}; Python {platform.python_version()}, "
        f"torch {version('torch')}, ray {version('ray')}; commit {_commit()}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load before: {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line with the module's docstring as its help."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    known = {"amx_bf16": "AMX bf16", "avx512_bf16": "AVX-512 bf16"}
    bf16 = ", ".join(name for flag, name in known.items() if flag in flags)
    return f"{names[0] if names else platform.machine()}{f' ({bf16})' if bf16 else ''}"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.strip() or "unknown"
