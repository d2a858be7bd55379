"""The command line: its surface is frozen, its mistakes are explained, and what the README shows works."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rung.cli import app
from rung.study import load_study
from tests.synthetic import write_synthetic_study

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()

SURFACE = {
    "": {"--debug", "--help"},
    "plan": {"STUDY.yaml", "--set", "--configurations", "--help"},
    "run": {"STUDY.yaml", "--set", "--help"},
    "status": {"STUDY", "--decisions", "--help"},
    "results": {"STUDY", "--format", "--help"},
    "compare": {"NAME...", "--study", "--format", "--help"},
    "query": {"SQL", "--study", "--format", "--help"},
    "report": {"STUDY", "--help"},
    "clean": {"STUDY...", "--keep", "--yes", "--help"},
    "train": {"STUDY.yaml", "--set", "--configuration", "--help"},
    "replay": {"RUN_ID", "--study", "--present", "--help"},
    "sample": {
        *("RUN_ID", "--prompt", "--samples", "--tokens", "--temperature", "--top-k", "--top-p", "--seed", "--study"),
        "--help",
    },
    "solve": {"PROBLEM", "--run", "--study", "--help"},
    "schema": {"TRAINABLE", "--help"},
    "wandb": {"--help"},
    "wandb sync": {"STUDY...", "--help"},
}


def test_no_option_comes_unnoticed() -> None:
    """A new knob belongs into the study file, where `--set` reaches it."""
    group = typer.main.get_command(app)
    found = {"": {parameter.opts[0] for parameter in group.params}}
    verbs = dict(group.commands)  # type: ignore[attr-defined]
    verbs |= {f"wandb {name}": command for name, command in verbs["wandb"].commands.items()}
    for name, command in verbs.items():
        options = {p.opts[0] for p in command.params if p.opts[0].startswith("-")}
        arguments = {p.metavar or p.name.upper() for p in command.params if not p.opts[0].startswith("-")}
        found[name] = options | arguments
    assert {verb: names - {"--help"} for verb, names in found.items()} == {
        verb: names - {"--help"} for verb, names in SURFACE.items()
    }


def rung(*arguments: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rung", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    write_synthetic_study(tmp_path, "synthetic")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["results", "nowhere"], "Studies in"),
        (["results", "synthetic", "--format", "xml"], "xml"),
        (["compare", "c3f9", "c07b"], "--study STUDY"),
        (["compare", "c3f9a1b20d717", "c07b", "--study", "synthetic"], "did you mean c3f9a1b20d771"),
        (["clean", "synthetic", "--keep", "bst"], "did you mean 'best'"),
        (["query", "SELECT * FROM nope"], "The tables are"),
        (["query", "SELEC 1"], "syntax error"),
        (["schema", "modular_aritmetic"], "did you mean 'modular_arithmetic'"),
    ],
)
def test_a_mistake_is_one_message_without_a_traceback(storage: Path, arguments: list[str], says: str) -> None:
    assert says in rung(*arguments, cwd=storage, code=2)


def test_debug_may_stand_anywhere_and_shows_the_traceback(storage: Path) -> None:
    for arguments in (["--debug", "results", "nowhere"], ["results", "nowhere", "--debug"]):
        done = subprocess.run(
            [sys.executable, "-m", "rung", *arguments], cwd=storage, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" in done.stderr


def test_status_and_results_of_an_interrupted_study_say_so(storage: Path) -> None:
    assert "* stopped by the scheduler" in rung("results", "synthetic", cwd=storage)
    assert "synthetic" in rung("status", "synthetic", "--decisions", cwd=storage)


def test_cleaning_shows_first_and_deletes_on_request(storage: Path) -> None:
    scratch = storage / "synthetic" / ".tune"
    (scratch / "state").mkdir(parents=True)
    shown = rung("clean", "synthetic", "--keep", "2", cwd=storage)
    assert "Nothing was deleted" in shown
    assert "rung clean synthetic --keep 2 --yes" in shown
    assert scratch.exists()
    assert "deleted" in rung("clean", "synthetic", "--yes", cwd=storage)
    assert not scratch.exists()
    assert "nothing to clean" in rung("clean", "synthetic", cwd=storage)


def test_nothing_is_cleaned_while_a_driver_is_at_work(storage: Path) -> None:
    with open(storage / "synthetic" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "nothing of it can be cleaned before that ends" in rung("clean", "synthetic", cwd=storage, code=2)
        assert "being run already" in rung("clean", "synthetic", "--yes", cwd=storage, code=2)


def test_a_wide_query_is_shown_record_by_record(storage: Path) -> None:
    shown = rung("query", "SELECT * FROM runs LIMIT 2", cwd=storage)
    assert shown.count("row ") >= 2
    assert re.search(r"^  run_id +c[0-9a-f]{12}-s\d", shown, re.MULTILINE)


LIGHT = {
    "status": ["status", "synthetic"],
    "results": ["results", "synthetic"],
    "compare": ["compare", "synthetic"],
    "query": ["query", "SELECT count(*) FROM runs"],
    "report": ["report", "synthetic"],
    "clean": ["clean", "synthetic"],
}


@pytest.mark.parametrize("verb", LIGHT)
def test_verbs_that_read_import_neither_ray_nor_torch(storage: Path, verb: str) -> None:
    code = f"""
import sys
from rung import cli
sys.argv = ["rung", *{LIGHT[verb]!r}]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
print("HEAVY:", [name for name in ("ray", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=storage, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "HEAVY: []", done.stderr


# The README.


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_study_of_the_readme_is_the_demo(tmp_path: Path) -> None:
    (shown,) = blocks("yaml")
    (tmp_path / "demo.yaml").write_text(shown)
    demo = load_study(ROOT / "search_spaces" / "modular_arithmetic" / "demo.yaml")
    assert load_study(tmp_path / "demo.yaml") == demo
    assert yaml.safe_load(shown)["study"] == "demo"


def test_every_verb_of_the_readme_is_there_and_the_other_way_round() -> None:
    shown = set(re.findall(r"^\| `rung ((?:wandb )?\w+)", README, re.MULTILINE))
    assert shown == set(SURFACE) - {"", "wandb"}


def test_the_python_api_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks("python") if "train_models" in block]
    assert block.count("args = Arguments()") == 1
    small = block.replace(
        "args = Arguments()",
        "args = Arguments()\nargs.n_steps, args.p, args.verbose = 2, 5, False\n"
        "args.embedding_size = args.hidden_size = 8",
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(small, "README.md", "exec"), names)
    assert names["checkpoint_dir"]
    assert len(names["run_paths"]) == 3
    assert (tmp_path / "logs" / "one_run" / "0").is_dir()
    assert (tmp_path / "logs" / "three_seeds" / "2").is_dir()


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", prose):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
