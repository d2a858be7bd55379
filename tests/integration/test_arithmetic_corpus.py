"""A corpus that is large enough is made by Ray's tasks, and they make the same one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import ray

from trainables.arithmetic.corpus import _piece
from trainables.arithmetic.corpus_config import ExpressionConfig
from trainables.arithmetic.pieces import PROCESS_PIECES, in_pieces

pytestmark = pytest.mark.ray

COUNT = 3 * PROCESS_PIECES


@pytest.fixture
def one_processor() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def made(size: int) -> bytes:
    return b"".join(in_pieces(partial(_piece, ExpressionConfig(max_depth=2), "train", 0), COUNT, size))


@pytest.mark.usefixtures("one_processor")
def test_tasks_make_the_same_corpus_even_where_no_processor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    here = made(COUNT)
    monkeypatch.delattr("trainables.arithmetic.pieces._by_processes")  # so it would fail
    assert made(3) == here

    @ray.remote(num_cpus=1)
    def trial() -> bytes:
        return made(3)

    assert ray.get(trial.remote()) == here
