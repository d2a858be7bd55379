"""A pipeline on a real Ray: killed in its second stage, it goes on where it was, to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import SLOW, Rung, wait_for
from tests.integration.soak import numbers_of
from tests.integration.test_sweep import rows

pytestmark = pytest.mark.ray

CHANGES: dict[str, Any] = {"seeds": 2, "scheduler": {"name": "fifo"}, "confirm": {"top": 1, "seeds": 1}}


def write_pipeline(rung: Rung) -> Path:
    """Two stages; the second is slow, sweeps one number and confirms, starting from runs that were confirmed."""
    rung.study("first", **CHANGES, space={"optimizer.learning_rate": [0.03, 0.1]}, budget={"steps": 10})
    rung.study(
        "second",
        **CHANGES,
        start={"study": "first"},
        base=SLOW,
        space={"optimizer.learning_rate": [0.01, 0.03]},
        budget={"steps": 20},
    )
    path = rung.directory / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"pipeline": "both", "stages": ["first.yaml", "second.yaml"]}))
    return path


def launches(directory: Path) -> int:
    return len(json.loads((directory / "provenance.json").read_text())["launches"])


def test_a_pipeline_that_is_killed_in_its_second_stage_goes_on_to_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, rung: Rung, processes: list[subprocess.Popen[str]]
) -> None:
    straight = Rung(tmp_path_factory.mktemp("straight"))
    output = straight("run", write_pipeline(straight))
    assert "stage 2 of 2: second" in output
    assert "both: 2 of 2 stages complete" in output

    pipeline = write_pipeline(rung)
    process = rung.start("run", pipeline)
    processes.append(process)
    wait_for(lambda: len(list(rung.results("second").glob("tables/metrics/*.parquet"))) >= 4, what="rows of stage 2")
    assert "running now" in rung("status", "both")
    assert "is being run already" in rung("run", pipeline, code=2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert "2 second  interrupted" in rung("status", "both")

    rung("run", pipeline)
    assert launches(rung.results("first")) == 1
    for name in ("first", "second"):
        found = rows(rung.results(name), "metrics")
        assert numbers_of(found) == numbers_of(rows(straight.results(name), "metrics"))
        assert {row["status"] for row in rows(rung.results(name), "runs")} == {"completed"}
    assert len(rows(rung.results("second"), "runs")) == 5
    assert rung("report", "both").count("report.html") == 3
    assert "nothing left to do" in rung("plan", pipeline)
