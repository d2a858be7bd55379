"""A user edits a trainable while a sweep runs: later trials still run what was launched, and a replay proves it."""

from __future__ import annotations

import json
import re

import pytest

from rung.results.query import load
from rung.results.views import dicts
from tests.integration.conftest import Rung, wait_for

pytestmark = pytest.mark.ray

TRAINABLE = '''
import rung
from tests.toy import Toy, ToyConfig

class Mine(Toy):
    """The toy; says with its numbers which file it was imported from."""

    def evaluate(self, model):
        from mine_version import VERSION
        return {**super().evaluate(model), "version": VERSION, "copied": "/code/" in rung.__file__ + __file__}

    @classmethod
    def metrics(cls, config):
        found = super().metrics(config)
        loss = found["validation/loss"]
        return {**found, "version": loss, "copied": loss}
'''


def test_an_edit_while_a_sweep_runs_changes_nothing(rung: Rung) -> None:
    project = rung.directory
    (project / "mine.py").write_text(TRAINABLE)
    (project / "mine_version.py").write_text("VERSION = 1\n")
    # The working directory, where Ray and Python look first, holds what is edited.
    rung.environment["PYTHONPATH"] += f":{project}"
    study = rung.study(
        trainable="mine:Mine",
        base={"evaluation": {"every": 5}, "seconds_per_step": 0.02},
        space={"optimizer.learning_rate": {"grid": [0.01, 0.03]}},
        seeds=2,
        budget={"steps": 20},
        scheduler={"name": "fifo"},
        resources={"concurrent": 1},
    )
    process = rung.start("run", study)
    wait_for(lambda: list(rung.results().glob("tables/metrics/*.parquet")), what="the first report")
    (project / "mine_version.py").write_text("VERSION = 2\n")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output

    results = load(rung.results())
    reports = dicts(results.metrics)
    assert len(reports) == 4 * 5
    assert {(report["version"], report["copied"], report["launch"]) for report in reports} == {(1.0, 1.0, 1)}
    (launch,) = json.loads((rung.results() / "provenance.json").read_text())["launches"]
    assert (rung.results() / launch["code"]["folder"] / "mine_version.py").read_text() == "VERSION = 1\n"

    (run_id, *_) = sorted(row["run_id"] for row in dicts(results.runs))
    shown = rung("replay", run_id)
    assert "the code has changed since (mine_version.py" in shown
    assert "identical: 5 reports" in shown
    shown = rung("replay", run_id, "--present", code=1)
    assert "different: 5 of 5 reports differ, first at step 0" in shown
    assert "version: 1.0 on record, 2.0 here (difference 1)" in shown
    assert re.search(r"  code: \w{12} at .* then, mine_version.py", shown)
