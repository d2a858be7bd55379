"""Ctrl-C, second drivers, full disks, damage, failures: nothing is lost, nothing is done twice, numbers stay the same
to the last bit. Kills are in `test_soak.py`."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.conftest import SLOW, Rung, wait_for
from tests.integration.soak import Numbers, decisions_of, numbers_of
from tests.integration.test_sweep import rows

pytestmark = pytest.mark.ray


def numbers(path: Path) -> Numbers:
    """What every run reported; fails if a row stands twice."""
    found = rows(path, "metrics")
    assert len(numbers_of(found)) == len(found)
    return numbers_of(found)


def parts(path: Path) -> int:
    return len(list((path / "tables" / "metrics").glob("*.parquet")))


def damage_one_part_and_one_checkpoint(results: Path) -> Path:
    """Cuts off the ends of two files that belong to different configurations, and returns the part. The checkpoint is
    one that is needed: of a run that has not ended."""
    unfinished = {row["run_id"] for row in rows(results, "runs") if row["status"] == "running"}
    markers = sorted(results.glob("checkpoints/*/*/complete.json"))
    marker = next(path for path in markers if path.parents[1].name in unfinished)
    checkpoint = marker.with_name("tensors.safetensors")
    config_id = checkpoint.parents[1].name.partition("-")[0]
    part = next(path for path in results.glob("tables/metrics/*.parquet") if not path.name.startswith(config_id))
    for path in (checkpoint, part):
        path.write_bytes(path.read_bytes()[:-20])
    return part


def test_a_second_driver_is_refused_ctrl_c_says_how_to_go_on_and_damage_costs_no_number(
    rung: Rung, uninterrupted: Path, processes: list[subprocess.Popen[str]]
) -> None:
    study = rung.study(base=SLOW)
    process = rung.start("run", study)
    processes.append(process)
    wait_for(lambda: parts(rung.results()) >= 12, what="rows")

    message = rung("run", study, code=2)
    assert "is being run already" in message
    assert f"process {process.pid}" in message
    shown = rung("status", "toy")
    assert "running now" in shown
    assert re.search(r"\d+ running", shown)

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert re.search(r"go on with: rung run \S*toy\.yaml", output)
    assert re.search(r"interrupted.*\n(.*\n)*.*go on with: rung run \S*toy\.yaml", rung("status", "toy"))

    part = damage_one_part_and_one_checkpoint(rung.results())
    assert part.name in rung("run", study)
    assert numbers(rung.results()) == numbers(uninterrupted)
    assert decisions_of(rung.results()) == decisions_of(uninterrupted)
    kinds = [row["kind"] for row in sorted(rows(rung.results(), "events"), key=lambda row: row["time"])]
    assert kinds[0] == "launch"
    assert {"interrupted", "resume", "part_set_aside", "checkpoint_set_aside", "finished"} <= set(kinds)
    assert "damaged and set aside" in rung("status", "toy")


def test_a_seed_that_raises_is_recorded_and_tried_again_once_it_is_mended(rung: Rung) -> None:
    study = rung.study(
        base={"evaluation": {"every": 5}, "raise_for_seed": 1},
        scheduler={"name": "synchronous_halving", "grace": 10, "reduction_factor": 2},
    )
    output = rung("run", study, code=1)
    assert "Traceback" not in output
    runs = rows(rung.results(), "runs")
    failed = [row for row in runs if row["status"] == "failed"]
    assert {row["seed"] for row in failed} == {1}
    assert len(failed) == 6
    assert all("ArithmeticError: the toy raises for seed 1" in row["error"] for row in failed)
    assert all(row["value"] is None for row in failed)
    # A failed run is tried again by the next command, not at every rung.
    assert len([row for row in rows(rung.results(), "events") if row["kind"] == "run_failed"]) == 6
    assert "the toy raises for seed 1" in rung("status", "toy")

    rung.environment["TOY_IS_MENDED"] = "1"
    rung("run", study)
    stopped = {row["config_id"] for row in rows(rung.results(), "decisions") if row["decision"] == "stop"}
    for row in rows(rung.results(), "runs"):
        if row["config_id"] not in stopped:
            assert (row["status"], row["step"]) == ("completed", 40), row["run_id"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Leaves no byte free, and returns the file to delete."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def test_a_full_disk_ends_the_sweep_clearly_and_costs_no_number(
    rung: Rung, uninterrupted: Path, small_disk: Path, processes: list[subprocess.Popen[str]]
) -> None:
    rung.environment["RUNG_STORAGE"] = str(small_disk)
    study, results = rung.study(base=SLOW), small_disk / "toy"
    process = rung.start("run", study)
    processes.append(process)
    wait_for(lambda: parts(results) >= 20, what="rows")
    filler = fill(small_disk)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert output.count("No space left on device") == 1, output
    assert "Traceback" not in output

    filler.unlink()
    rung("run", study)
    assert numbers(results) == numbers(uninterrupted)
    assert decisions_of(results) == decisions_of(uninterrupted)


def test_a_trial_that_cannot_take_over_its_task_is_not_lost_silently(rung: Rung) -> None:
    held = re.findall(r"c[0-9a-f]{12}", rung("plan", rung.study(), "--configurations"))[-1]
    (rung.results() / "checkpoints" / f"{held}.lock").mkdir(parents=True)  # cannot be opened as a file
    output = rung("run", rung.study(failures={"retries": 0}), code=2)
    assert "cannot write to" in output


def test_storage_that_cannot_be_written_is_one_clear_error(rung: Rung) -> None:
    (rung.directory / "results").write_text("a file where the folder should be")
    message = rung("run", rung.study(), code=2)
    assert "cannot write to" in message
    assert "RUNG_STORAGE" in message
    assert "Traceback" not in message


def test_no_more_trials_at_a_time_than_asked_for(rung: Rung) -> None:
    base = {"evaluation": {"every": 5}, "seconds_per_step": 0.01}
    rung("run", rung.study(base=base, scheduler={"name": "fifo"}, seeds=1, resources={"concurrent": 1}))
    spans = {}
    for row in rows(rung.results(), "metrics"):
        first, last = spans.get(row["config_id"], (row["reported_at"], row["reported_at"]))
        spans[row["config_id"]] = (min(first, row["reported_at"]), max(last, row["reported_at"]))
    ordered = sorted(spans.values())
    assert len(ordered) == 6
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ordered))


def test_resources_that_are_not_there_are_refused_at_once(rung: Rung) -> None:
    started = time.monotonic()
    message = rung("run", rung.study(resources={"cpus": 4096}), code=2)
    assert "4096 CPUs" in message
    assert "RAY_ADDRESS" in message
    assert time.monotonic() - started < 30
    assert "GPU" in rung("run", rung.study(resources={"gpus": 1}), code=2)
