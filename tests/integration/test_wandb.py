"""W&B shows what the tables say, offline and on a server, however often it was interrupted; and where W&B is broken, a
study has the same numbers and ends in the same way. The server is a stand-in on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rung.results.query import load
from rung.results.store import TableWriter
from rung.results.views import dicts
from tests.integration.conftest import Rung, wait_for
from tests.synthetic import PLAN, write_synthetic_study
from tests.wandb_files import OfflineRun, read_offline
from tests.wandb_server import KEY, WandbServer

SMALL = {
    "base": {"evaluation": {"every": 5}},
    "space": {"optimizer.learning_rate": {"grid": [0.01, 0.1]}},
    "seeds": 2,
    "budget": {"steps": 10},
    "scheduler": {"name": "fifo"},
}
"""The toy's study, where little of it is enough."""


@pytest.fixture
def rung(tmp_path: Path) -> Rung:
    return without_key(tmp_path)


def without_key(directory: Path) -> Rung:
    """`rung` on a machine that has no key."""
    made = Rung(directory)
    made.environment = {name: text for name, text in made.environment.items() if not name.startswith("WANDB_")}
    made.environment["NETRC"] = str(directory / "no-netrc")
    return made


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as made:
        yield made
    assert not set(made.unknown) - {"ServerFeaturesQuery"}


def expected_history(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """What the table `metrics` says of every run, in W&B's words."""
    reserved = {"study", "config_id", "run_id", "seed", "phase", "attempt", "launch", "reported_at"}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in dicts(load(directory).metrics.order("run_id, step")):
        shown = {name: value for name, value in row.items() if name not in reserved and value is not None}
        found.setdefault(row["run_id"], []).append({**shown, "_step": row["step"]})
    return found


def shown_history(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of W&B without the clocks."""
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


CLOCKS = {"timestamp", "_timestamp", "_runtime"}


def check_history(runs: Mapping[str, Any], directory: Path) -> None:
    """Every row of the table is there once, in order and to the last bit, and nothing else is."""
    expected = expected_history(directory)
    assert {wandb_id.rpartition("-")[0]: shown_history(run.history) for wandb_id, run in runs.items()} == expected


# Whole studies, from their tables.


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, OfflineRun]]:
    """A made-up study, and what `rung wandb sync` wrote of it, twice."""
    rung = without_key(tmp_path_factory.mktemp("offline"))
    directory = write_synthetic_study(rung.directory / "results")
    assert "12 runs written to results/synthetic/wandb, offline" in rung("wandb", "sync", "synthetic")
    assert "nothing new; 12 runs are in files, and nothing was sent" in rung("wandb", "sync", "synthetic")
    return directory, read_offline(directory / "wandb")


def test_every_row_is_written_once(offline: tuple[Path, dict[str, OfflineRun]]) -> None:
    directory, runs = offline
    check_history(runs, directory)
    assert {name for run in runs.values() for name in run.step_metrics.items()} == {("*", "step")}


def test_runs_are_grouped_by_configuration_and_named_by_seed(offline: tuple[Path, dict[str, OfflineRun]]) -> None:
    _, runs = offline
    groups: dict[str, set[str]] = {}
    for run in runs.values():
        groups.setdefault(run.group, set()).add(run.name)
        assert (run.project, run.job_type, run.tags) == ("synthetic", "search", ("synthetic", "modular_arithmetic"))
        assert run.config["model"]["kind"] == run.group.partition(",")[0]
        assert f"seed {run.config['seed']}" == run.name
    assert groups == {f"{each.label} ({each.config_id})": {"seed 0", "seed 1", "seed 2"} for each in PLAN}


def test_status_and_end_are_those_of_the_runs(offline: tuple[Path, dict[str, OfflineRun]]) -> None:
    _, runs = offline
    codes = {"completed": 0, "stopped": 0, "diverged": 1, "failed": 1}
    for run in runs.values():
        planned = next(each for each in PLAN if run.wandb_id.startswith(each.config_id))
        status = planned.statuses[run.config["seed"]]
        assert (run.summary["rung/status"], run.exit_code) == (status, codes[status])
    failed = next(run for run in runs.values() if run.summary["rung/status"] == "failed")
    assert "is killed by signal" in failed.summary["rung/error"]


def test_samples_are_a_table_with_the_newest_text_beside_it(offline: tuple[Path, dict[str, OfflineRun]]) -> None:
    _, runs = offline
    (run,) = [run for run in runs.values() if "sample/table" in run.summary]
    assert run.samples[1] == {
        **{"step": 10_000, "index": 1, "prompt": "30 + 5 =", "response": "6", "extracted": "6", "answer": "4"},
        "reward": 0.0,
    }
    assert (run.summary["sample/prompt"], run.summary["sample/answer"]) == ("3 + 4 =", "7")


def test_wandbs_own_reader_reads_it(offline: tuple[Path, dict[str, OfflineRun]]) -> None:
    run = next(iter(offline[1].values()))
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert f'"run_group":"{run.group}"' in done.stdout
    assert done.stdout.count('"type":"history"') == len(run.history)


def test_a_server_gets_every_row_once_although_the_first_sync_was_killed(rung: Rung, server: WandbServer) -> None:
    directory = write_synthetic_study(rung.directory / "results")
    rung.environment |= server.environment
    process = rung.start("wandb", "sync", "synthetic")
    wait_for(lambda: sum(len(run.history) for run in server.runs.values()) > 200, what="some rows on the server")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: _is_quiet(server), what="the end of wandb's own process")

    assert f"runs sent to {server.url}/me/synthetic" in rung("wandb", "sync", str(directory))
    check_history(server.runs, directory)
    groups = {run.attributes["groupName"] for run in server.runs.values()}
    assert groups == {f"{each.label} ({each.config_id})" for each in PLAN}
    assert {run.exit_code for run in server.runs.values()} == {0, 1}
    assert not list((directory / "wandb").glob("run-*"))  # nothing is left of wandb's own files

    before = server.requests
    assert "nothing new" in rung("wandb", "sync", "synthetic")
    assert server.requests == before
    (directory / "wandb.json").unlink()  # only saves time
    assert "12 runs sent" in rung("wandb", "sync", "synthetic")
    check_history(server.runs, directory)


def _is_quiet(server: WandbServer) -> bool:
    before = server.requests
    time.sleep(1.0)
    return server.requests == before


MANY_AT_A_TIME = """
import sys
from pathlib import Path
from rung.wandb import sender
from rung.wandb.mirror import Mirror
sender.MOST_OPEN = 2
mirror = Mirror(Path(sys.argv[1]))
mirror.update()
mirror.update(is_last=True)
"""


def test_more_runs_than_may_be_open_take_turns(rung: Rung, server: WandbServer) -> None:
    directory = write_synthetic_study(rung.directory / "results")
    running = {"status": "running", "ended_by": None, "error": None, "attempt": 9}
    with TableWriter(directory, "runs", "driver", attempt=9) as writer:
        for row in dicts(load(directory).runs):
            writer.add({**row, **running})
    command = [sys.executable, "-c", MANY_AT_A_TIME, str(directory)]
    subprocess.run(command, env={**rung.environment, **server.environment}, timeout=200, check=True)
    check_history(server.runs, directory)
    assert {run.exit_code for run in server.runs.values()} == {255}  # what nobody trains any more was interrupted
    assert {run.opened for run in server.runs.values()} == {1, 2}


# While a study runs.


@pytest.mark.ray
def test_a_sweep_is_shown_while_it_runs_and_a_killed_one_goes_on(
    rung: Rung, server: WandbServer, processes: list[subprocess.Popen[str]]
) -> None:
    slow = {**SMALL, "base": {"evaluation": {"every": 2}, "seconds_per_step": 0.2}, "budget": {"steps": 60}}
    study = rung.study(tracking={"wandb": {"project": "toys", "tags": ["seen"]}}, **slow)
    rung.environment |= server.environment
    process = rung.start("run", study)
    processes.append(process)
    wait_for(lambda: any(run.history for run in server.runs.values()), seconds=240, what="rows on the server")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: _is_quiet(server), what="the end of the follower")
    assert {run.exit_code for run in server.runs.values()} >= {None}

    output = rung("run", study, timeout=280)
    assert output.count("W&B:") == 2, output  # where it is, at the beginning, and how much it was, at the end
    assert f"W&B: {server.url}/me/toys" in output
    check_history(server.runs, rung.results())
    assert {(run.history[-1]["_step"], run.exit_code) for run in server.runs.values()} == {(60, 0)}
    assert {tuple(run.attributes["tags"]) for run in server.runs.values()} == {("toy", "tests.toy:Toy", "seen")}


@pytest.mark.ray
def test_a_sweep_without_a_key_is_written_into_files_without_a_word_of_wandbs(rung: Rung) -> None:
    study = rung.study(tracking={"wandb": {}}, confirm={"top": 1, "seeds": 1}, **SMALL)
    output = rung("run", study, timeout=280)
    runs = read_offline(rung.results() / "wandb")
    check_history(runs, rung.results())
    assert {run.job_type for run in runs.values()} == {"search", "confirm"}
    assert [line for line in output.splitlines() if "wandb" in line.lower() or "W&B" in line] == [
        "W&B: 5 runs written to results/toy/wandb, offline; with a key (`wandb login`), "
        "`rung wandb sync results/toy` sends them"
    ]
    assert "W&B" not in rung("run", study)  # nothing was left to do


# Where W&B is broken.


def test_a_broken_wandb_costs_one_line_and_no_number(rung: Rung) -> None:
    study = rung.study(**SMALL)
    undisturbed = _lines(rung("train", study))
    package = rung.directory / "broken" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('libc is too old')")
    rung.environment["PYTHONPATH"] += os.pathsep + str(package.parent)
    output = rung("train", study, "--set", "tracking.wandb={}")
    (told,) = [line for line in output.splitlines() if "W&B" in line]
    assert "wandb cannot be imported: OSError: libc is too old" in told
    assert "`rung wandb sync results/toy.solo` sends it all later" in told
    assert _lines(output) == undisturbed


def _lines(output: str) -> list[str]:
    """What was reported, without seconds."""
    return [" ".join(line.split()[:3] + line.split()[5:]) for line in output.splitlines() if "  step " in line]


DRIVER = """
import sys, time
from pathlib import Path
from rich.console import Console
from rung.wandb.launcher import Follower
with Follower(Path(sys.argv[1]), Console(width=300), patience=float(sys.argv[3])) as follower:
    print(follower._process.pid, flush=True)
    time.sleep(float(sys.argv[2]))
print("went on", flush=True)
"""


def start_driver(rung: Rung, seconds: float, patience: float = 60.0, **variables: str) -> subprocess.Popen[str]:
    """A driver that follows a study that is there, for so many seconds."""
    directory = write_synthetic_study(rung.directory / "results")
    command = [sys.executable, "-c", DRIVER, str(directory), str(seconds), str(patience)]
    environment = {**rung.environment, **variables}
    return subprocess.Popen(command, env=environment, cwd=rung.directory, stdout=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def unreachable(rung: Rung, server: WandbServer) -> tuple[dict[str, str], str]:
    url = f"http://127.0.0.1:{free_port()}"
    return {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}, f"{url} does not answer"


def bad_key(rung: Rung, server: WandbServer) -> tuple[dict[str, str], str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "short"}, "WANDB_API_KEY invalid"


def file_in_the_way(rung: Rung, server: WandbServer) -> tuple[dict[str, str], str]:
    (rung.directory / "file").write_text("no folder")
    return {"WANDB_DIR": str(rung.directory / "file")}, "file"


@pytest.mark.parametrize("trouble", [unreachable, bad_key, file_in_the_way])
def test_trouble_is_one_line_and_the_driver_goes_on(
    rung: Rung, server: WandbServer, trouble: Any, processes: list[subprocess.Popen[str]]
) -> None:
    variables, says = trouble(rung, server)
    driver = start_driver(rung, 0.0, **variables)
    processes.append(driver)
    output, _ = driver.communicate(timeout=120)
    _, told, *rest = output.splitlines()
    assert says in told
    assert "The study goes on without it and loses nothing" in told
    assert rest == ["went on"]


def test_a_full_disk_is_noticed(rung: Rung) -> None:
    """wandb itself does not say that it could not write."""
    folder = rung.directory / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        rung.environment["WANDB_DIR"] = str(folder)
        write_synthetic_study(rung.directory / "results")
        assert "No space left on device" in rung("wandb", "sync", "synthetic", code=2)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_never_answers_is_not_waited_for(
    rung: Rung, silent_server: str, processes: list[subprocess.Popen[str]]
) -> None:
    driver = start_driver(rung, 2.0, 1.0, WANDB_BASE_URL=silent_server, WANDB_API_KEY=KEY)
    processes.append(driver)
    output, _ = driver.communicate(timeout=60)
    pid, told, *rest = output.splitlines()
    assert "not done after 1 s, left alone; `rung wandb sync results/synthetic` sends the rest" in told
    assert rest == ["went on"]
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_comes_back_gets_everything(rung: Rung, processes: list[subprocess.Popen[str]]) -> None:
    port = free_port()
    driver = start_driver(rung, 6.0, WANDB_BASE_URL=f"http://127.0.0.1:{port}", WANDB_API_KEY=KEY)
    processes.append(driver)
    assert driver.stdout is not None
    assert "does not answer" in [driver.stdout.readline(), driver.stdout.readline()][1]
    with WandbServer(port) as server:
        output, _ = driver.communicate(timeout=120)
    assert f"W&B: 12 runs sent to {server.url}/me/synthetic" in output
    check_history(server.runs, rung.results("synthetic"))


def test_the_follower_dies_with_its_driver_even_while_it_waits(
    rung: Rung, silent_server: str, processes: list[subprocess.Popen[str]]
) -> None:
    driver = start_driver(rung, 60.0, WANDB_BASE_URL=silent_server, WANDB_API_KEY=KEY)
    processes.append(driver)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    time.sleep(1.5)
    assert Path(f"/proc/{pid}").exists()
    driver.kill()
    wait_for(lambda: not _is_alive(pid), seconds=10, what="the end of the follower")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_another_process_is_sending_is_left_to_it(rung: Rung, processes: list[subprocess.Popen[str]]) -> None:
    from rung.locks import FileLock

    directory = write_synthetic_study(rung.directory / "results")
    lock = FileLock(directory / "wandb.lock", wait=0.0)
    assert f"process {os.getpid()}" in rung("wandb", "sync", "synthetic", code=2)
    lock.release()
    rung.environment["WANDB_MODE"] = "disabled"
    assert "switched off" in rung("wandb", "sync", "synthetic", code=2)
