"""How many configurations a Ray can train at the same time, and what Tune is told that one of them takes.

A configuration that one process trains takes its CPUs and GPUs. One that several workers train takes none itself: the
workers take theirs beside it. How many are at work at the same time is then limited by shares of a resource that every
Ray has once, on its head node.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rung.errors import RungError
from rung.study import Study

HEAD = "node:__internal_head__"
"""Ray's own mark of the head node: 1 there, on every Ray."""


def local_cores(study: Study) -> int:
    """Cores that a Ray which is started for this study is given."""
    resources, cores = study.resources, os.cpu_count() or 1
    if resources.concurrent is None:
        return cores
    return min(cores, resources.concurrent * resources.workers * resources.cpus)


def check_resources(study: Study, available: Mapping[str, float]) -> None:
    """Refuses a study of which not even one configuration fits into all that a Ray has.

    Raises:
        RungError: how much is wanted and how much is there.
    """
    resources = study.resources
    each = {"CPU": resources.cpus, "GPU": resources.gpus}
    for name, amount in each.items():
        wanted, there = amount * resources.workers, available.get(name, 0.0)
        if wanted <= there or (name == "GPU" and HEAD not in available):
            continue
        if resources.workers == 1:
            raise RungError(
                f"resources.{name.lower()}s: one configuration asks for {amount:g} {name}s, but this Ray has "
                f"{there:g}. Ask for less, or set RAY_ADDRESS to a larger cluster"
            )
        raise RungError(
            f"resources.workers: one configuration asks for {wanted:g} {name}s ({resources.workers} workers with "
            f"{amount:g} each), but this Ray has {there:g}. Ask for fewer workers, or set RAY_ADDRESS to a larger "
            "cluster"
        )


def groups_that_fit(study: Study, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many groups of workers fit onto machines with these resources.

    Raises:
        RungError: not even one does; a worker cannot be spread over machines, so that it may lie at the size of each.
    """
    resources = study.resources
    each = {"CPU": resources.cpus, "GPU": resources.gpus}
    workers = sum(min(int(node.get(name, 0.0) // amount) for name, amount in each.items() if amount) for node in nodes)
    fitting = workers // resources.workers
    if not fitting:
        needs = " and ".join(f"{amount:g} {name}s" for name, amount in each.items() if amount)
        raise RungError(
            f"resources: {resources.workers} workers with {needs} each are wanted for one configuration, and the "
            f"machines of this Ray have room for {workers} of them. Ask for fewer or smaller workers, or for a larger "
            "cluster"
        )
    return min(fitting, resources.concurrent or fitting)


def trial_resources(study: Study) -> Any:
    """What Tune is told that a trial takes, on the Ray that this process is connected to.

    Raises:
        RungError: no group of workers fits into it.
    """
    resources = study.resources
    if resources.workers == 1:
        return {"CPU": resources.cpus, "GPU": resources.gpus}
    import ray
    from ray.tune import PlacementGroupFactory

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # So many of these shares fit into the 1 that there is, and no more; the rest is for Ray's own.
    return PlacementGroupFactory([{HEAD: round(1 / (groups_that_fit(study, nodes) + 0.5), 4)}])


def concurrent_trials(study: Study) -> int | None:
    """Tune's own cap on trials; on a Ray that is started here the number of its cores is the cap, and with several
    workers the share of a trial.

    Raises:
        RungError: there is no way to cap them. Tune counts paused trials, too, so that a rule that waits for all
            configurations would wait for ever.
    """
    concurrent = study.resources.concurrent
    if concurrent is None or not os.environ.get("RAY_ADDRESS") or study.resources.workers > 1:
        return None
    if study.scheduler.name in ("synchronous_halving", "hyperband"):
        raise RungError(
            f"resources.concurrent: {study.scheduler.name} pauses configurations, and on a Ray that is joined nothing "
            "else can cap them: ask for more cpus each, or take asha"
        )
    return concurrent
