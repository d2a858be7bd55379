"""A study whose driver, training processes and second node are killed ends as if nothing had happened."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.cluster import TwoNodes
from tests.integration.conftest import SLOW, Rung
from tests.integration.soak import Sweep, check, environment_of

pytestmark = pytest.mark.ray


@pytest.mark.timeout(480)
def test_kills_cost_no_number_and_no_decision(rung: Rung, uninterrupted: Path) -> None:
    environment = environment_of(rung.directory)
    study = rung.study(base=SLOW, failures={"retries": 1000})
    lines: list[str] = []
    with TwoNodes(1, environment) as cluster:
        environment["RAY_ADDRESS"] = cluster.address
        sweep = Sweep(study, rung.results(), environment, cluster, random.Random(0), lines.append)
        sweep.run(5, seconds=300, victims=("driver", "trial", "node", "driver", "trial"))
    assert len(sweep.kills) == 5, lines
    assert check(sweep, uninterrupted, same_decisions=True) == [], lines
    assert cluster.left() == []
