"""The same work on many pieces of data, in several processes or in this one; the results come in order."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Self, TypeVar

from rung.errors import RungError

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


class Processes:
    """Processes that apply functions; a context manager that ends them.

    Args:
        processes: how many; 1: this one, and no other is started.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        # Forked children of a process with threads, which tokenizers has, may hang.
        self._pool = (
            None
            if processes == 1
            else ProcessPoolExecutor(processes, get_context("spawn"), initializer=_leave_interrupts_to_the_parent)
        )

    def in_order(self, function: Callable[[ArgumentT], ResultT], arguments: Iterable[ArgumentT]) -> Iterator[ResultT]:
        """The function of each argument, in order. Only a few results are held at a time.

        Raises:
            RungError: a process was killed.
        """
        if self._pool is None:
            yield from map(function, arguments)
            return
        pending: deque[Future[ResultT]] = deque()
        try:
            for argument in arguments:
                pending.append(self._pool.submit(function, argument))
                if len(pending) > 2 * self._processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise RungError(
                "a process that makes the data was killed, as happens where memory runs out: try fewer processes"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
