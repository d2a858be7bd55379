"""Tasks: what one trial is given to do, known by the name that its lock and its parts bear.

In phase search a task is a configuration with all its seeds, so that its name is the configuration's id: its runs are
compared with others together. In phase confirm nothing is compared, and each run is a task of its own, so that sixteen
seeds keep sixteen cores busy; trained packed, the runs of a configuration are one task again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rung.identity import run_id
from rung.results.schema import Phase


@dataclass(frozen=True)
class Task:
    """Runs that one trial trains."""

    name: str
    config_id: str
    seeds: tuple[int, ...]
    at_start: int
    """How many of the seeds train up to the first rung; the others join later."""
    phase: Phase = "search"

    def run_id(self, seed: int) -> str:
        """The id of one of the runs."""
        return run_id(self.config_id, seed, self.phase)


def search_task(config_id: str, seeds: tuple[int, ...], start: int | None = None) -> Task:
    """The task of a configuration in phase search."""
    return Task(config_id, config_id, seeds, start or len(seeds))


def confirm_tasks(config_ids: Iterable[str], seeds: tuple[int, ...], *, together: bool) -> list[Task]:
    """The tasks of phase confirm, seed by seed, so that configurations are confirmed side by side."""
    if together:
        return [Task(f"{each}-confirm", each, seeds, len(seeds), "confirm") for each in config_ids]
    chosen = list(config_ids)
    return [Task(run_id(each, seed, "confirm"), each, (seed,), 1, "confirm") for seed in seeds for each in chosen]
