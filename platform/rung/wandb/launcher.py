"""The driver's side: starts the process that follows a study, and never waits for it but at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from rich.console import Console

from rung.wandb.messages import left_alone, told_of_trouble

PATIENCE = 60.0
"""Seconds without a sign of life, after the study is over, after which the follower is left alone."""

PATIENCE_INTERRUPTED = 5.0
"""Seconds in all, when the user has asked for the end."""


class Follower:
    """Keeps a process that follows a study (`follow.py`) while the block runs. Nothing here raises.

    Args:
        directory: the study's.
        console: where its messages are shown.
        patience: see `PATIENCE`.
    """

    def __init__(self, directory: Path, console: Console, patience: float = PATIENCE) -> None:
        self._directory = directory
        self._console = console
        self._patience = patience
        self._process: subprocess.Popen[str] | None = None
        self._heard_at = 0.0

    def __enter__(self) -> Self:
        try:
            # In a session of its own: Ctrl-C is for the driver, which then says when to end.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rung.wandb.follow", str(self._directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            self._say(told_of_trouble(error, self._directory))
            return self
        self._reader = Thread(target=self._listen, args=(self._process,), name="wandb", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        self._heard_at = time.monotonic()
        with suppress(OSError):
            process.stdin.write("end\n")
            process.stdin.flush()
        try:
            self._wait(process, PATIENCE_INTERRUPTED if kind is not None else None)
        except KeyboardInterrupt:  # enough of waiting: the study itself is over
            self._kill(process)
        finally:
            with suppress(OSError):
                process.stdin.close()
        self._reader.join(timeout=1.0)

    def _wait(self, process: subprocess.Popen[str], most: float | None) -> None:
        """Waits until the follower has ended, is silent for too long, or has had the time there is."""
        began = time.monotonic()
        while process.poll() is None:
            silent, waited = time.monotonic() - self._heard_at, time.monotonic() - began
            if silent > self._patience or (most is not None and waited > most):
                self._say(left_alone(min(silent, waited), self._directory))
                self._kill(process)
                return
            time.sleep(0.05)

    def _kill(self, process: subprocess.Popen[str]) -> None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # wandb's own processes, too
        process.wait()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._heard_at = time.monotonic()
            with suppress(ValueError):
                self._say(str(json.loads(line)))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
