"""Training by several processes together without Ray: gloo on this machine, for tests and benchmarks.

    rows, = train_together([Job(assignment, levels=(10, 20))], workers=2)

starts the processes, which take the runs of each job from level to level, and returns the rows at its end.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.trainable import Loss
from rung.training.assignment import Assignment, Goal
from rung.training.environment import process_environment
from tests.toy import Batch, Toy

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass(frozen=True)
class Job:
    """Runs to train, and the levels at which they stop one after another; then they are saved."""

    assignment: Assignment
    levels: tuple[float, ...]


class PastTheTeam(Toy):
    """A toy whose loss calls what is inside of the model that it is given."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return super().loss(getattr(model, "model", model), batch)


def train_together(
    jobs: Sequence[Job], workers: int, *, threads: int = 1, timeout: float = 600
) -> list[list[dict[str, Any]]]:
    """The rows of each job's runs, trained by `workers` processes one job after another; one process is the plain
    engine. Beside its columns a row has `cpu_seconds`: what each process took from the last level but one to the last.

    Raises:
        RuntimeError: a process has failed; with what the processes printed.
    """
    variables = {**os.environ, **process_environment(threads), "GLOO_SOCKET_IFNAME": LOOPBACK}
    with tempfile.TemporaryDirectory() as folder:
        order = {"jobs": [asdict(job) for job in jobs], "folder": folder, "workers": workers, "threads": threads}
        command = [sys.executable, "-m", "tests.team", json.dumps(order)]
        finished = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout)
        if finished.returncode:
            raise RuntimeError(finished.stdout + finished.stderr)
        answer: list[list[dict[str, Any]]] = json.loads(Path(folder, "answer").read_text())
        return answer


def _work(order: dict[str, Any], rank: int) -> None:
    import torch
    import torch.distributed as dist

    from rung.training.distributed import ProcessTeam

    torch.set_num_threads(order["threads"])
    if order["workers"] == 1:
        _answer(order, [_train(job, None) for job in order["jobs"]])
        return
    meeting = f"file://{order['folder']}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=order["workers"])
    team = ProcessTeam()
    answers = [_train(job, team) for job in order["jobs"]]
    if rank == 0:
        _answer(order, answers)
    dist.barrier()
    dist.destroy_process_group()


def _answer(order: dict[str, Any], answers: list[list[dict[str, object]]]) -> None:
    Path(order["folder"], "answer").write_text(json.dumps(answers, default=str))


def _train(job: dict[str, Any], team: Any) -> list[dict[str, object]]:
    from rung.training.distributed import DistributedReplication
    from rung.training.replication import start

    data = dict(job["assignment"])
    goal = Goal(**data.pop("goal"))
    assignment = Assignment(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}, goal=goal)
    replication = start(assignment) if team is None else DistributedReplication(assignment, team=team)
    try:
        for level in job["levels"]:
            begun = time.process_time()
            replication.advance(level)
        seconds = time.process_time() - begun
        replication.checkpoint()
        taken = [seconds] if team is None else team.all_of(seconds)
        return [{**row, "cpu_seconds": taken} for row in replication.rows()]
    finally:
        replication.close()


def _main() -> None:
    """Imports torch once, and forks before anything is computed."""
    import torch

    import rung.training.distributed  # noqa: F401

    torch.optim.AdamW([torch.zeros(1)])  # its import of the compiler takes two seconds
    order = json.loads(sys.argv[1])
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=_work, args=(order, rank), daemon=True) for rank in range(1, order["workers"])]
    for process in others:
        process.start()
    _work(order, 0)
    for process in others:
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    _main()
