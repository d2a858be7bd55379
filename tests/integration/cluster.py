"""A Ray cluster of two nodes on this machine, in a process of its own, so that drivers and a node can die without it.

    python -m tests.integration.cluster CPUS

prints its address as JSON and then obeys lines on its standard input: `lose` kills the second node's raylet with -9,
`replace` clears what is left of that node and adds a new one. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psutil

_FAST_HEALTH_CHECK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}
"""Ray takes half a minute by itself to see that a node is gone."""


class TwoNodes:
    """The cluster, seen from the process that started it.

    Args:
        cpus: of each node, as Ray counts them.
        environment: of its processes; the drivers need the same.
    """

    def __init__(self, cpus: int, environment: dict[str, str]) -> None:
        # Ray's files: sockets want a short path, and nobody else on this machine is to find the address and join.
        self._folder = tempfile.TemporaryDirectory(prefix="rung-ray-", dir="/tmp", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.cluster", str(cpus)],
            env={**environment, "RAY_TMPDIR": self._folder.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.address: str = self._answer()["address"]
        self._known: set[psutil.Process] = set()

    def processes(self) -> list[psutil.Process]:
        """Every process of the cluster as it is now. Those whose raylet has died are nobody's children."""
        found = psutil.Process(self._process.pid).children(recursive=True)
        self._known.update(found)
        return found

    def left(self, seconds: float = 10) -> list[str]:
        """The processes that were ever found and are still there, if they do not end within `seconds`."""
        _, alive = psutil.wait_procs(self._known, timeout=seconds)
        found = []
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        return found

    def lose_node(self) -> int:
        """Kills the second node's raylet, and returns its process id; the workers there die of it."""
        self.processes()
        return int(self._ask("lose")["pid"])

    def replace_node(self) -> None:
        """Puts a new node in the place of the lost one."""
        self._ask("replace")

    def close(self) -> None:
        """Ends all processes of the cluster."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            if self._process.poll() is None:
                self.processes()
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # Ray may print, too
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"the cluster's process has ended with {self._process.wait()}")


def _serve(cpus: int) -> None:
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    small = {"num_cpus": cpus, "object_store_memory": 80 * 1024**2}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**small, "include_dashboard": False, "_system_config": _FAST_HEALTH_CHECK},
    )
    second = cluster.add_node(**small)
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            (raylet,) = second.all_processes[ray_constants.PROCESS_TYPE_RAYLET]
            raylet.process.kill()
            print(json.dumps({"pid": raylet.process.pid}), flush=True)
        else:
            cluster.remove_node(second, allow_graceful=False)
            second = cluster.add_node(**small)
            print(json.dumps({}), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
