"""The same work on ranges of numbers: here, or if it is much, by Ray's tasks where Ray runs, else by processes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from trainables.language.processes import Processes, processors

ResultT = TypeVar("ResultT")

PROCESS_PIECES = 40
"""Pieces below which other processes take longer to start than they save, at a tenth of a second for a piece."""


def in_pieces(
    function: Callable[[range], ResultT], count: int, size: int, workers: int | None = None
) -> Iterator[ResultT]:
    """The function of the ranges that the numbers from 0 to before `count` fall into, `size` in each.

    Args:
        function: can be pickled; knows nothing of the other ranges.
        count: numbers.
        size: of a range.
        workers: processes; None: if others pay, Ray's tasks where Ray runs, else as many as there are processors.
    """
    pieces = [range(begin, min(begin + size, count)) for begin in range(0, count, size)]
    pays = len(pieces) >= PROCESS_PIECES
    if workers is None and pays and _ray_runs():
        return _by_ray(function, pieces)
    most = workers or (processors() if pays else 1)
    return _by_processes(function, pieces, min(most, len(pieces)))


def _by_processes(function: Callable[[range], ResultT], pieces: list[range], workers: int) -> Iterator[ResultT]:
    with Processes(workers) as pool:
        yield from pool.in_order(function, pieces)


def _ray_runs() -> bool:
    """Whether this process is connected to Ray; if it never imported ray, it is not."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _by_ray(function: Callable[[range], ResultT], pieces: list[range]) -> Iterator[ResultT]:
    import ray

    # They ask for no processor: a trial that holds all of them may be the one that waits for these tasks.
    task = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(_apply)
    most = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    pending: deque[Any] = deque()
    for piece in pieces:
        pending.append(task.remote(function, piece))
        if len(pending) >= most:
            yield ray.get(pending.popleft())
    while pending:
        yield ray.get(pending.popleft())


def _apply(function: Callable[[range], ResultT], piece: range) -> ResultT:
    return function(piece)
