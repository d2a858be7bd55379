"""Looks whether this machine is ready for experiments, and says what to do about what is not.

    python -m trainables.tinystories.check_setup
    python -m trainables.tinystories.check_setup --config trainables/tinystories/configs/quick_test.json

Ends with status 1 if something must be done first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rung.errors import RungError
from trainables.language.command_line import guarded
from trainables.language.tokens import MANIFEST, TokenFolder, data_root
from trainables.tinystories.experiment_config import ExperimentConfig
from trainables.tinystories.experiments.command_line import runs_directory

NEEDED = ("torch", "numpy", "tokenizers", "safetensors", "matplotlib", "pydantic", "ray")
OLDEST_PYTHON = (3, 11)
NEEDED_BYTES = 2 * 2**30
"""Free space below which a warning is due: a few checkpoints of the larger models."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    advice: str = ""
    """What to do; empty: nothing."""
    blocks: bool = False
    """Whether nothing can be trained before that."""

    def line(self) -> str:
        """For a terminal."""
        mark = "no " if self.blocks else "hm " if self.advice else "ok "
        return f"{mark} {self.what:<10} {self.found}" + (f"\n{'':15}{self.advice}" if self.advice else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    chosen = _parser().parse_args(arguments)
    checks: list[Callable[[], Iterator[Finding]]] = [python, packages, devices, threads, writing]
    found = [each for check in checks for each in check()]
    found += experiment(chosen.config) if chosen.config else data()
    print("\n".join(each.line() for each in found))
    blocking = sum(each.blocks for each in found)
    print(f"\n{blocking} to be done first" if blocking else "\nready")
    return 1 if blocking else 0


def python() -> Iterator[Finding]:
    """The version of Python."""
    found = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info[:2] < OLDEST_PYTHON
    yield Finding("python", found, "install Python 3.11 or newer" if old else "", blocks=old)


def packages() -> Iterator[Finding]:
    """The packages that training and looking at it take."""
    missing = []
    found = []
    for name in NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    advice = f"missing: {', '.join(missing)}; `make install`, or pip install -e ." if missing else ""
    yield Finding("packages", ", ".join(found), advice, blocks=bool(missing))


def devices() -> Iterator[Finding]:
    """GPUs, and what they can compute in."""
    try:
        import torch
    except ImportError as error:
        yield Finding("device", f"torch cannot be imported: {error}", "`make install`", blocks=True)
        return
    if not torch.cuda.is_available():
        built = "a build without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}, no GPU"
        yield Finding(
            "device",
            f"cpu (torch is {built})",
            "fine for quick_test.json and made-up stories; the handout's model takes a GPU",
        )
        return
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    bf16 = torch.cuda.is_bf16_supported()
    yield Finding("device", f"cuda: {names}", f'set "dtype": "{"bfloat16" if bf16 else "float16"}" for speed')


def threads() -> Iterator[Finding]:
    """CPU threads of a training process."""
    cores, wanted = os.cpu_count() or 1, os.environ.get("OMP_NUM_THREADS")
    if wanted is None:
        yield Finding("threads", f"1 of {cores} cores (OMP_NUM_THREADS is not set: an experiment takes one thread)")
    elif not wanted.isdigit() or not 0 < int(wanted) <= cores:
        advice = f"set it to a number from 1 to {cores}: more threads than cores wait for each other"
        yield Finding("threads", f"OMP_NUM_THREADS={wanted} of {cores} cores", advice)
    else:
        yield Finding("threads", f"OMP_NUM_THREADS={wanted} of {cores} cores")


def writing() -> Iterator[Finding]:
    """Whether experiments can be written, and the room there is."""
    folder = runs_directory().resolve()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        advice = "work in a folder of your own, or let RUNG_RUNS name one"
        yield Finding("writing", f"{folder}: {error.strerror or error}", advice, blocks=True)
        return
    free = shutil.disk_usage(existing).free
    yield Finding(
        "writing",
        f"{folder}, {free / 2**30:.1f} GiB free",
        "make room: a checkpoint of the handout's model takes 270 MB" if free < NEEDED_BYTES else "",
    )


def data() -> list[Finding]:
    """The prepared folders of tokens."""
    root = data_root()
    found = []
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):  # other folders hold downloads, or data of another family
        try:
            found.append(_folder(TokenFolder.open(manifest.parent)))
        except RungError as error:
            found.append(Finding("data", str(error), "prepare it again: python -m trainables.tinystories.prepare"))
    if all(each.advice for each in found):
        advice = "make some: python -m trainables.tinystories.prepare --help"
        found.append(Finding("data", f"none in {root.resolve()}", advice, blocks=True))
    return found


def experiment(path: Path) -> list[Finding]:
    """Whether the experiment of a file could be trained: settings and data."""
    from trainables.tinystories.experiments.run import breakdown, training_device
    from trainables.tinystories.experiments.trainable import build_trainable

    try:
        config = ExperimentConfig.from_json(path)
        trainable = build_trainable(config, training_device(config))
    except RungError as error:
        return [Finding("config", str(error).replace("\n", f"\n{'':15}"), "mend the file or prepare the data", True)]
    tokens = config.batch_size * config.context_length * config.max_iterations
    counts = f"{breakdown(trainable)['total']:,} parameters, {tokens:,} training tokens"
    return [Finding("config", f"{path}: {counts} on {trainable.device}")]


def _folder(folder: TokenFolder) -> Finding:
    manifest = folder.manifest
    sizes = ", ".join(f"{split} {record.tokens:,} tokens" for split, record in manifest.splits.items())
    return Finding("data", f"{folder.path}: vocabulary {manifest.vocabulary:,}, {sizes}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.check_setup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="an experiment's settings, to be looked through as well")
    return parser


if __name__ == "__main__":
    guarded(main)
