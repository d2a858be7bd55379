"""rung: sweeps of small language-model experiments on Ray, with seeds as part of every configuration.

import rung
study = rung.load("demo")          # a study's results, while it runs or afterwards
study.metrics.df()                 # pandas; .to_arrow_table() for Arrow
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that a verb which reads no results does not pay for DuckDB.
    if name == "load":
        from rung.results.query import load

        return load
    raise AttributeError(f"module 'rung' has no attribute {name!r}")
