"""Settings that every test needs: one thread per process, set before torch is imported, and quiet libraries."""

from __future__ import annotations

import os

from rung.training.environment import process_environment

os.environ.update(process_environment(threads=1))
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MPLBACKEND"] = "Agg"
