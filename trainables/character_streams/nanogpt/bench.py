"""`bench`: how long an iteration takes, without evaluation and files. nanoGPT's `bench.py`.

python -m trainables.character_streams bench config/basic.py
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rung.training.assignment import Goal
from rung.training.loop import NullRecorder, train
from rung.training.run import Run
from trainables.character_streams.nanogpt.experiment import to_config
from trainables.character_streams.nanogpt.keys import Keys
from trainables.character_streams.nanogpt.utilization import peak_of, utilization
from trainables.character_streams.trainable import CharacterStreams
from trainables.language.batches import Windows
from trainables.language.command_line import choose_device

BURN_IN, MEASURED = 10, 20
"""Iterations before and in the measurement, as in nanoGPT."""


def bench_from_keys(keys: Keys) -> str:
    """Measures and returns what was found.

    Raises:
        RungError: it cannot be trained.
    """
    device = choose_device(keys.device)
    config = to_config(keys, device)
    evaluation = config.evaluation.model_copy(update={"every": 10 * (BURN_IN + MEASURED), "log_every": None})
    trainable = _Bench(config.model_copy(update={"evaluation": evaluation}), keys.seed, device)
    trainable.one_batch = not keys.real_data
    run = Run(trainable, "bench", Goal("steps", 10**9, "train/loss", "min"))
    train(run, BURN_IN, NullRecorder())
    tracer = _profiler(keys)
    recorder = _Timing(device)
    with tracer:
        train(run, BURN_IN + MEASURED, recorder)
    seconds = median(recorder.seconds)
    flops = CharacterStreams.workload(config).flops_per_step
    peak = peak_of(torch.cuda.get_device_name(device)) if device.startswith("cuda") else None
    share = utilization(flops, seconds, peak)
    rate = config.batch_size * config.context / seconds
    rows = [
        f"time per iteration: {1000 * seconds:.4f}ms (median of {MEASURED} after {BURN_IN})",
        f"{rate:,.0f} tokens/s, {flops / seconds / 1e9:,.1f} GFLOP/s on {device}, {torch.get_num_threads()} threads, "
        f"{config.precision}{', compiled' if config.compile else ''}",
        "mfu: unknown for this device" if share is None else f"mfu: {100 * share:.2f}%",
    ]
    if keys.profile:
        path = Path(keys.out_dir) / "bench-trace.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        tracer.export_chrome_trace(str(path))
        rows.append(f"trace: {path}")
    return "\n".join(rows)


class _Bench(CharacterStreams):
    """The trainable without evaluation, and with one batch for ever if asked."""

    one_batch = False

    def batches(self) -> Any:
        """The stream of batches."""
        stream = super().batches()
        return _Same(stream.at(0)) if self.one_batch else stream

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        """Nothing that takes time."""
        return {"train/loss": 0.0}


class _Same:
    """One batch again and again."""

    def __init__(self, batch: Windows) -> None:
        self._batch = batch

    def at(self, position: int, policy: torch.nn.Module) -> Windows:
        """That batch."""
        return self._batch


class _Timing(NullRecorder):
    """Seconds of every iteration."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def after_step(self, run: Run) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def _profiler(keys: Keys) -> Any:
    return torch.profiler.profile(record_shapes=True, with_flops=True) if keys.profile else contextlib.nullcontext()
