"""The process that keeps W&B up to date while a study runs: `python -m rung.wandb.follow DIRECTORY`.

Started by the driver (`launcher.py`), which writes one word into its standard input when the study is over, and reads
from its standard output, a line each, that it is still at work (empty) and what the user should know (JSON text). When
the driver dies, standard input ends, and so does this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from rung.locks import FileLock
from rung.wandb.messages import told_of_trouble, what_was_sent
from rung.wandb.mirror import LOCK, Mirror

SECONDS_BETWEEN = 5.0
SHARE_OF_TIME = 0.05
"""Looks for new rows so rarely that it takes no more than this share of one core."""

SECONDS_AFTER_TROUBLE = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Waits before it tries again; the last one again and again."""

NICENESS = 10


def main() -> None:
    """Follows the study in the directory that the command line names, until its driver says that it is over."""
    warnings.simplefilter("ignore")  # damaged parts: the driver says so
    os.nice(NICENESS)
    _Follower(Path(sys.argv[1])).run(_orders())


class _Follower:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mirror: Mirror | None = None
        self._lock: FileLock | None = None
        self._troubles = 0
        self._announced = False

    def run(self, orders: Queue[str]) -> None:
        """Updates again and again; once more after an order has come."""
        wait = 0.0
        while True:
            try:
                orders.get(timeout=wait)
                is_over = True
            except Empty:
                is_over = False
            began = time.process_time()
            try:
                self._update(is_over)
                self._troubles, wait = 0, max(SECONDS_BETWEEN, (time.process_time() - began) / SHARE_OF_TIME)
            except Exception as error:
                wait = self._after(error)
            if is_over:
                return

    def _update(self, is_over: bool) -> None:
        if self._lock is None:
            self._lock = FileLock(self._directory / LOCK, wait=0.5)
        if self._mirror is None:
            self._mirror = Mirror(self._directory, _tell_alive)
        if self._mirror.destination.mode == "disabled":
            return
        self._mirror.update(is_last=is_over)
        if not self._announced and self._mirror.url:
            self._announced = True
            _say(f"W&B: {self._mirror.url}")
        if is_over and self._mirror.sent_now:
            _say(what_was_sent(self._mirror))

    def _after(self, error: Exception) -> float:
        """Says what went wrong, the first time, and begins anew; returns the seconds to wait before that."""
        if not self._troubles:
            _say(told_of_trouble(error, self._directory))
        if self._mirror is not None:
            self._mirror.abandon()
            self._mirror = None
        wait = SECONDS_AFTER_TROUBLE[min(self._troubles, len(SECONDS_AFTER_TROUBLE) - 1)]
        self._troubles += 1
        return wait


def _orders() -> Queue[str]:
    """What the driver writes, read in a thread: this process ends with the driver whatever it is waiting for."""
    orders: Queue[str] = Queue()

    def listen() -> None:
        for line in sys.stdin:
            orders.put(line.strip())
        os._exit(1)

    Thread(target=listen, name="orders", daemon=True).start()
    return orders


def _say(text: str) -> None:
    print(json.dumps(text), flush=True)


def _tell_alive() -> None:
    print(flush=True)


if __name__ == "__main__":
    main()
