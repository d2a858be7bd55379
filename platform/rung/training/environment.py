"""Threads and memory of a training process: what must stand in the environment before torch is imported.

torch takes every core by default; several such processes beside each other spin on each other's cores and run up to
nine times slower. One thread per process and as many processes as cores is the fastest on a CPU, and makes a run's
numbers independent of how many cores the machine has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import rung
from rung.errors import RungError
from rung.provenance import CODE_VARIABLE

# glibc gives large blocks back to the system after every free and gets them again, page fault by page fault; with
# these thresholds (256 MiB) it keeps them. Only read at process start.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
}


DATA_VARIABLE = "RUNG_DATA"
"""Names the folder that holds prepared data; `data` where it is not set."""


def process_environment(threads: int) -> dict[str, str]:
    """The variables a training process is started with. The thread counts are ours; of the others, those that the user
    has set already are left out."""
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        **_KEEP_MEMORY,
    }
    # Ray's workers need not have the working directory of the driver.
    wanted[DATA_VARIABLE] = str(Path(os.environ.get(DATA_VARIABLE) or "data").resolve())
    thread_names = {name for name in wanted if name.endswith("_NUM_THREADS")}
    ours = {*thread_names, DATA_VARIABLE}
    return {name: value for name, value in wanted.items() if name in ours or name not in os.environ}


def apply(variables: Mapping[str, str], threads: int) -> None:
    """Sets the variables in this process and torch's thread count; call it before torch is first imported."""
    os.environ.update(variables)
    import torch

    torch.set_num_threads(threads)


def import_snapshot() -> None:
    """Lets this training process import the copy of the code that its launch has made, and nothing edited since.

    Ray puts the driver's working directory and its script's folder before PYTHONPATH, so the copy has to be put before
    them here. `rung` itself has been imported by then.

    Raises:
        RungError: `rung` was imported from elsewhere.
    """
    folder = os.environ.get(CODE_VARIABLE)
    if folder is None:
        return
    if sys.path[0] != folder:
        sys.path.insert(0, folder)
    own = Path(rung.__file__)
    if not own.is_relative_to(folder):
        raise RungError(
            f"this training process has imported rung from {own.parent}, not from the copy of its launch, {folder}. "
            "Start the command in another folder than the one that holds `rung`; on a cluster, the study's directory "
            "must be on storage that every machine sees"
        )
