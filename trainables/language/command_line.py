"""What commands share: errors without tracebacks, threads, the device. Importing it imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rung.errors import RungError


def guarded(main: Callable[[], int]) -> NoReturn:
    """Ends the process with a command's status; what a user can act on is one message."""
    try:
        sys.exit(main())
    except RungError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def folder_name(text: str) -> str:
    """A value on the command line that names a folder below the data folder."""
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a folder: RUNG_DATA says where it lies")
    return text


def set_threads() -> None:
    """One thread unless OMP_NUM_THREADS says otherwise, as in a sweep: fast beside others, and the same numbers
    everywhere. Must come before torch is imported.

    Raises:
        RungError: OMP_NUM_THREADS is no number of threads.
    """
    from rung.training.environment import apply, process_environment

    text = os.environ.get("OMP_NUM_THREADS") or "1"
    if not text.isdigit() or text == "0":
        raise RungError(f"OMP_NUM_THREADS must be a number of threads, got {text!r}")
    apply(process_environment(int(text)), int(text))


def choose_device(wanted: str | None) -> str:
    """The torch device that is asked for; `auto` or None: a GPU if there is one, or else the processor.

    Raises:
        RungError: it is a GPU and there is none.
    """
    import torch

    if wanted in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise RungError(f"device: {wanted} is not there; cpu computes on the processor")
    return wanted
