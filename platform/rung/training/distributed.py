"""Several processes that train one run together (DDP), each computing its share of every batch.

    torch.distributed.init_process_group(...)         # Ray Train does it; a test may do it without Ray
    replication = DistributedReplication(assignment, team=ProcessTeam(device))

Every process goes through the same replication over the seeds and the same loop. Gradients are averaged by torch's
DistributedDataParallel over the default process group: gloo on CPUs, NCCL on GPUs. What else the processes tell each
other is small and goes through gloo, so that waiting for each other needs no GPU. Rank 0 alone evaluates, and writes
rows and checkpoints; the others read the checkpoint that rank 0 has gone on from.

Everything for GPUs here (NCCL, a device for each rank) was written with care and has never been run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rung.errors import RungError, StorageError
from rung.locks import FileLock
from rung.training.beginning import begin
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import load_checkpoint
from rung.training.recorder import RunWriters, TableRecorder
from rung.training.run import Report, Run
from rung.training.serial import SerialReplication

T = TypeVar("T")

WAIT_FOR_EACH_OTHER = timedelta(days=7)
"""Of the groups that only carry messages: a process may wait there while rank 0 evaluates, or for the next order."""

WAIT_FOR_THE_SAME_ERROR = timedelta(seconds=20)
"""After an error: how long the others have to come to the same one."""


class ProcessTeam:
    """This process and the others of its default process group.

    Args:
        device: what this process computes on; one of its own for every process, unless it is `cpu`.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._device = torch.device(device)
        self._messages = dist.new_group(backend="gloo", timeout=WAIT_FOR_EACH_OTHER)
        # Of its own: after an error nobody knows what the others wait for in the other groups.
        self._errors = dist.new_group(backend="gloo", timeout=WAIT_FOR_EACH_OTHER)

    def wrap(self, model: nn.Module) -> nn.Module:
        """See `Team`. The processes start from rank 0's parameters and buffers at the first forward pass."""
        return _Averaged(model, self._device)

    def without_averaging(self, model: nn.Module) -> AbstractContextManager[object]:
        """See `Team`."""
        assert isinstance(model, _Averaged)
        return model.averaged.no_sync()

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """See `Team`."""
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    def agree(self, number: float) -> float:
        """See `Team`."""
        agreed = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(agreed, src=0, group=self._messages)
        return agreed.item()

    def first(self, value: Callable[[], T]) -> T:
        """See `Team`. An exception of rank 0 is raised by all: as it is there, as a RungError of its text elsewhere."""
        outcome: list[Any] = [None, None]
        error: Exception | None = None
        if self.rank == 0:
            try:
                outcome[0] = value()
            except Exception as raised:
                error = raised
                outcome[1] = (isinstance(raised, StorageError), f"{type(raised).__name__}: {raised}")
        dist.broadcast_object_list(outcome, src=0, group=self._messages)
        if error is not None:
            raise error
        if outcome[1] is not None:
            is_storage, text = outcome[1]
            raise (StorageError if is_storage else RungError)(text)
        found: T = outcome[0]
        return found

    def all_of(self, value: T) -> list[T]:
        """See `Team`."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._messages)
        return values

    def all_failed(self) -> bool:
        """See `Team`."""
        try:
            dist.monitored_barrier(self._errors, timeout=WAIT_FOR_THE_SAME_ERROR)
        except RuntimeError:
            return False
        return True


class _Averaged(nn.Module):
    """A model whose gradients are averaged over the processes, once its forward pass has been through here.

    torch's wrapper is only made for the first forward pass: it begins with an exchange of parameters, in which all
    processes take part at the same time, and by then a checkpoint has been loaded.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._device = device
        self._made: list[DistributedDataParallel] = []  # in a list, or its parameters would be counted twice

    @property
    def averaged(self) -> DistributedDataParallel:
        """torch's wrapper."""
        if not self._made:
            devices = [self._device] if self._device.type == "cuda" else None
            # Buffers are constants here (tables of positions); sending them before every step would cost for nothing.
            self._made.append(DistributedDataParallel(self.model, device_ids=devices, broadcast_buffers=False))
        return self._made[0]

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """The model's forward pass."""
        return self.averaged(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("model"), name)
        if inspect.ismethod(found):
            raise RungError(
                f"the loss calls {name}() of the model, past its forward pass, where gradients of several workers are "
                "not averaged: let the loss call the model itself, or train with resources.workers: 1"
            )
        return found


class DistributedReplication(SerialReplication):
    """The runs of one configuration, one after another, each trained by the processes of a team together."""

    def _storage(self) -> tuple[FileLock, RunWriters]:
        opened: list[tuple[FileLock, RunWriters]] = []
        open_storage = super()._storage

        def attempt() -> int:
            opened.append(open_storage())
            return opened[0][1].attempt

        number = self._team.first(attempt)
        return opened[0] if opened else (_NoLock(), _NoWriters(number))

    def _open(self, seed: int) -> Run:
        opened: list[Run] = []
        open_run = super()._open

        def checkpoint() -> Path | None:
            opened.append(open_run(seed))
            return latest_checkpoint(self.assignment.checkpoints(seed))

        resumed = self._team.first(checkpoint)
        if opened:
            return opened[0]
        run = self._new(seed)
        if resumed is not None:
            load_checkpoint(run, resumed)
        begin(run, Path(self.assignment.directory), self.assignment.phase)
        run.reopen()
        return run

    def _recorder(self, run: Run) -> TableRecorder:
        if self._team.rank == 0:
            return super()._recorder(run)
        return self._recorders.setdefault(run.trainable.seed, _NoRecorder())

    def _advance_run(self, run: Run, level: float) -> None:
        super()._advance_run(run, level)
        _check_weights(run)

    @contextmanager
    def _guarded(self, seed: int) -> Iterator[None]:
        try:
            with super()._guarded(seed):
                yield
        except StorageError:
            raise
        except Exception as error:
            raise FailedAlone(seed, error) from error


class FailedAlone(Exception):
    """A run has raised in this process and not in all of them, so that they cannot go on together."""

    def __init__(self, seed: int, error: Exception) -> None:
        super().__init__(str(error) if isinstance(error, RungError) else f"{type(error).__name__}: {error}")
        self.seed = seed


def _check_weights(run: Run) -> None:
    """Raises RungError where the processes' weights have come apart: then gradients were not averaged."""
    parameters = [parameter.detach().double().sum() for parameter in run.model.parameters()]
    total = torch.stack(parameters).sum().item()
    differs = total != run.team.agree(total) and total == total
    if run.team.sum(torch.tensor(float(differs), device=run.trainable.device)).item():
        raise RungError(
            f"the workers' weights have come apart at step {run.progress.step}, because gradients were not averaged: "
            f"{type(run.trainable).__name__}.loss must call the model it is given, and nothing inside it"
        )


class _NoLock(FileLock):
    """Held by rank 0."""

    def __init__(self) -> None:
        pass

    def release(self) -> None:
        """Nothing is held."""


class _NoWriters(RunWriters):
    """Rank 0 writes."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt

    def flush(self) -> None:
        """Nothing waits."""


class _NoRecorder(TableRecorder):
    """Rank 0 records."""

    def __init__(self) -> None:
        pass

    def report(self, run: Run, report: Report) -> None:
        """Keeps nothing."""

    def log(self, run: Run, report: Report) -> None:
        """Keeps nothing."""

    def after_step(self, run: Run) -> None:
        """Keeps nothing."""

    def enter(self) -> None:
        """Keeps nothing."""

    def leave(self, run: Run) -> None:
        """Keeps nothing."""

    def checkpoint(self, run: Run) -> None:
        """Keeps nothing."""

    def is_saved(self, run: Run) -> bool:
        return True
