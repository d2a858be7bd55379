"""What every unit test leaves behind as it found it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def forget_modules_of_tests() -> Iterator[None]:
    """Modules that a test wrote and imported are no part of the project: a copy of the code would take them along."""
    before = set(sys.modules)
    yield
    temporary = Path(tempfile.gettempdir()).resolve()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(temporary):
            del sys.modules[name]
