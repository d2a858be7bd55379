"""Rules that decide which configurations go on: one file per rule, no Ray, no torch, no clock.

A scheduler sees one number per configuration and rung, the aggregate over its seeds, and answers with
decisions that explain themselves. Its whole state is the decisions it has made, so it is rebuilt from the
`decisions` table.

    scheduler = make_scheduler("asha", levels=geometric_levels(1000, 3, 10_000), mode="max", configurations=ids)
    for decision in scheduler.report("c0123456789ab", 1000, 0.412):
        print(decision.reason)

Left out: promotion after a stop (nobody who was stopped comes back), and everything that runs a
configuration.
"""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from rung.tuning.schedulers.asha import Asha
from rung.tuning.schedulers.base import Scheduler
from rung.tuning.schedulers.fifo import Fifo
from rung.tuning.schedulers.forecast import Expectation, expected_survivors, geometric_levels
from rung.tuning.schedulers.halving import SynchronousHalving
from rung.tuning.schedulers.hyperband import HyperBand
from rung.tuning.schedulers.median_stopping import MedianStopping
from rung.tuning.schedulers.racing import seeds_at_rungs
from rung.tuning.schedulers.records import Bracket, Decision, RungRow

__all__ = [
    "SCHEDULERS",
    "Asha",
    "Bracket",
    "Decision",
    "Expectation",
    "Fifo",
    "HyperBand",
    "MedianStopping",
    "RungRow",
    "Scheduler",
    "SynchronousHalving",
    "expected_survivors",
    "geometric_levels",
    "make_scheduler",
    "seeds_at_rungs",
]

SCHEDULERS: dict[str, type[Scheduler]] = {
    rule.name: rule for rule in (Fifo, Asha, SynchronousHalving, MedianStopping, HyperBand)
}
"""Every rule by the name that a study file uses."""


def make_scheduler(name: str, **options: Any) -> Scheduler:
    """The scheduler of a name, built with the options of its constructor.

    Raises:
        ValueError: no rule of that name, an option that the rule does not have (each with the nearest names
            and all of them), or a value that the rule refuses.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"no scheduler is called {name!r}: {_nearest(name, list(SCHEDULERS))}")
    rule = SCHEDULERS[name]
    accepted = [parameter for parameter in inspect.signature(rule).parameters if parameter != "self"]
    for option in options:
        if option not in accepted:
            raise ValueError(f"scheduler {name!r} has no option {option!r}: {_nearest(option, accepted)}")
    return rule(**options)


def _nearest(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word.lower(), names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    return f"{hint}There are {', '.join(names)}"
