"""What the documents tell people to type exists: modules, study files, verbs."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from rung.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _commands(document: Path) -> str:
    text = document.read_text()
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", text)])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_files_and_verbs_are_there(document: Path) -> None:
    text = _commands(document)
    for module in re.findall(r"python -m ([a-z_.]*(?:trainables|tests|rung)[a-z_.]*)", text):
        assert find_spec(module), f"{document.name}: python -m {module}"
    for path in re.findall(r"search_spaces/[\w/.-]+\.yaml", text):
        assert (ROOT / path).exists(), f"{document.name}: {path}"
    for verb in re.findall(r"^rung ([a-z]+)", text, re.MULTILINE):
        assert verb in VERBS, f"{document.name}: rung {verb}"
