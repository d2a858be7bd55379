"""The workers of a trial: a Ray Train run whose function waits for orders, so that it serves one task after another.

A group takes many seconds to start, because each of its processes imports torch. It is therefore started once in a
trial's process, which Tune reuses, and not for each configuration or seed.

Ray Train runs inside of Ray Tune here, and what has been measured of that (Ray 2.60) shapes this module: the workers
hold a placement group of their own, beside the trial's resources. It is given back if the function returns, so a group
is told to end (`Leave`) and waited for. It is not if the trial's process dies, since it belongs to the whole job;
`free_leftovers` does it then. Ray Train's own cleaner for that case needs the dashboard and costs ten seconds.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import ray

from rung.errors import RungError
from rung.tuning.mailbox import Complaint, Greeting, Leave, Mailbox, Order, State

_SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # Train's 2 s are only added to the end of a group
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

_UNUSED = ("PlacementGroupCleanerCallback", "DatasetsCallback")
"""Parts of Ray Train that would start processes of their own: the cleaner named above, and one for Ray Data."""

START_ATTEMPTS = 10
"""Of Ray Train to get resources for a group, a minute each."""
SECONDS_TO_END = 60.0
"""After which workers that have been told to end are ended."""


class WorkersLost(Exception):
    """The workers have ended although nobody told them to; they may be started again."""

    def __init__(self, text: str, complaints: list[Complaint], silent: list[int]) -> None:
        super().__init__(text)
        self.complaints = complaints
        """What workers had to say, in the order in which they did."""
        self.silent = silent
        """Ranks that have died without a word."""


class WorkerGroup:
    """Some processes that train together.

    Args:
        folder: where Ray Train keeps files that nobody reads; every machine must see it.
        workers: how many.
        cpus, gpus: of each; `cpus` is also its number of threads.
    """

    def __init__(self, folder: Path, workers: int, cpus: int, gpus: float) -> None:
        self._folder = folder
        self._workers = workers
        self._each = {"CPU": float(cpus), **({"GPU": gpus} if gpus else {})}
        self._threads = cpus
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._mailbox: Any = None
        self.greeting: Greeting | None = None
        """Set while the workers are there."""

    def ask(self, order: Order) -> State:
        """Has an order carried out; starts the workers first if there are none.

        Raises:
            WorkersLost: they have ended before they answered.
            RungError: they could not be started.
        """
        if self._thread is None:
            self._start()
        self._mailbox.give.remote(order)
        answer = self._hear()
        assert isinstance(answer, State)
        return answer

    def close(self) -> None:
        """Ends the workers, and waits until their resources are free."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._mailbox.give.remote(Leave())
        thread.join(SECONDS_TO_END)
        if thread.is_alive() and self.greeting is not None:
            _remove(self.greeting.placement_group)
            thread.join(SECONDS_TO_END)
        self.greeting = None
        self._mailbox = None

    def _start(self) -> None:
        os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
        free_leftovers()
        self._error = None
        self._mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        trainer = self._trainer()
        self._thread = threading.Thread(target=self._fit, args=(trainer,), name="workers", daemon=True)
        self._thread.start()
        answer = self._hear()
        assert isinstance(answer, Greeting)
        self.greeting = answer

    def _trainer(self) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from rung.tuning.worker import work

        class Trainer(TorchTrainer):  # type: ignore[misc]
            def _create_default_callbacks(self) -> list[Any]:
                found = super()._create_default_callbacks()
                return [each for each in found if type(each).__name__ not in _UNUSED]

        return Trainer(
            work,
            train_loop_config={"mailbox": self._mailbox, "threads": self._threads},
            torch_config=TorchConfig(backend="nccl" if "GPU" in self._each else "gloo", timeout_s=3600),
            scaling_config=ScalingConfig(
                num_workers=self._workers, use_gpu="GPU" in self._each, resources_per_worker=self._each
            ),
            run_config=RunConfig(
                name=uuid.uuid4().hex,
                storage_path=str(self._folder.resolve()),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=START_ATTEMPTS),
            ),
        )

    def _fit(self, trainer: Any) -> None:
        try:
            trainer.fit()
        except BaseException as error:
            self._error = error

    def _hear(self) -> Greeting | State:
        """Waits for an answer, for as long as the workers are there or on their way."""
        freed = time.monotonic()
        while True:
            thread = self._thread
            assert thread is not None
            is_alive = thread.is_alive()  # asked first: the last words of workers that have ended lie in the box
            answer: Greeting | State | None = ray.get(self._mailbox.hear.remote(0.5 if is_alive else 0.0))
            if answer is not None:
                return answer
            if not is_alive:
                raise self._lost()
            if self.greeting is None and time.monotonic() - freed > 5:
                free_leftovers()
                freed = time.monotonic()

    def _lost(self) -> Exception:
        """What to raise when the workers have ended by themselves."""
        complaints: list[Complaint] = ray.get(self._mailbox.complaints.remote())
        was_there = self.greeting is not None
        self._thread, self.greeting, self._mailbox = None, None, None
        failures: dict[int, Exception] = getattr(self._error, "worker_failures", {})
        if not was_there and not failures and not complaints:
            return RungError(self._why_not_started())
        silent = sorted(failures.keys() - {each.rank for each in complaints})
        text = "; ".join(f"rank {rank}: {_line(error)}" for rank, error in sorted(failures.items())) or "no word"
        return WorkersLost(text, complaints, silent)

    def _why_not_started(self) -> str:
        free = ray.available_resources()
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in self._each.items())
        there = ", ".join(f"{free.get(name, 0.0):g} {name}" for name in self._each)
        return (
            f"the {self._workers} workers of this configuration could not be started ({wanted} each; free are "
            f"{there}): {_line(self._error)}"
        )


def free_leftovers() -> None:
    """Gives back what worker groups of this job hold whose trial has died."""
    from ray.core.generated import gcs_pb2

    job = ray.get_runtime_context().get_job_id()
    accessor = ray._private.state.state._connect_and_get_accessor()
    for data in accessor.get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(data)
        is_ours = group.creator_job_id.hex() == job and group.creator_actor_id.strip(b"\xff")  # the driver is no actor
        if is_ours and group.creator_actor_dead and group.state != gcs_pb2.PlacementGroupTableData.REMOVED:
            _remove(group.placement_group_id.hex())


def _remove(placement_group: str) -> None:
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    if placement_group:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(placement_group))))


def _line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
