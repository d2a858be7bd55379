"""A study whose driver, training processes and second node are killed ends as if nothing had happened."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rung.results.parts import COMPACTED, Part
from tests.integration.cluster import TwoNodes
from tests.integration.conftest import SLOW, Rung
from tests.integration.soak import Row, Sweep, check, contradictions, environment_of


@pytest.mark.ray
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


def part(sequence: int, attempt: int = 1, writer: str = "c0") -> Part:
    return Part(writer, attempt, sequence, Path(f"{writer}.{attempt}.{sequence}"))


def row(step: int, loss: float, attempt: int = 1, seconds: int = 0) -> Row:
    reported_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    numbers = {"validation/loss": loss, "reported_at": reported_at}
    return {"run_id": "c0-s0", "step": step, "attempt": attempt, **numbers}


def test_rows_of_two_attempts_and_of_an_unfinished_compaction_are_all_right() -> None:
    first, second = row(5, 0.5), row(5, 0.5, attempt=2, seconds=9)
    there = {part(1): [first], part(1, 2): [second], part(1, writer=COMPACTED): [dict(second)]}
    assert not list(contradictions(there))


def test_a_row_that_one_attempt_wrote_twice_is_found() -> None:
    for again in (row(5, 0.5), row(5, 0.5, seconds=9)):
        (wrong,) = contradictions({part(1): [row(5, 0.5)], part(2): [again]})
        assert wrong == "c0-s0 step 5 stands twice, both times of attempt 1"
    compacted = part(1, writer=COMPACTED)
    assert len(list(contradictions({compacted: [row(5, 0.5), row(5, 0.5)]}))) == 1
    assert len(list(contradictions({compacted: [row(5, 0.5)], part(9): [row(5, 0.5, seconds=9)]}))) == 1


def test_attempts_with_different_numbers_are_found() -> None:
    (wrong,) = contradictions({part(1): [row(5, 0.5)], part(1, 2): [row(5, 0.25, attempt=2)]})
    assert "attempts differ" in wrong
