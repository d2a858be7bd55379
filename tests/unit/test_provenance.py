"""What is recorded of a launch: command, code with its uncommitted changes, data, machine; and that nothing is lost."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rung import provenance
from rung.checkout import checkout_root, read_checkout
from rung.provenance import Launch, environment_variables, launch_record, read_launches, record_launch
from rung.results.query import load
from rung.results.render import render_status
from rung.results.report_tables import launch_table
from rung.results.store import TableWriter
from tests.synthetic import write_synthetic_study
from tests.toy import Toy, ToyConfig

STUDY = {"study": "toy", "seeds": [0, 1]}


def record(directory: Path, **more: Any) -> Launch:
    return record_launch(directory, STUDY, "tests.toy:Toy", threads=1, **more)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit of a module."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "mine.py").write_text("A = 1\n")
    git(folder, "init", "--initial-branch", "trunk")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "first")
    return folder


def test_a_launch_can_be_repeated_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rung", "run", "toy.yaml", "--set", "seeds=2"])
    monkeypatch.setenv("RUNG_STORAGE", "somewhere")
    launch = record(tmp_path)
    (found,) = read_launches(tmp_path)
    assert found["number"] == launch.number == 1
    assert found["command"] == sys.argv
    assert found["working_directory"] == str(Path.cwd())
    assert found["study"] == STUDY
    assert found["threads"] == 1
    assert {"python", "rung", "torch", "numpy"} <= found["versions"].keys()
    assert found["environment"]["RUNG_STORAGE"] == "somewhere"
    assert found["code"]["folder"] == f"code/{found['code']['hash']}"
    assert (tmp_path / found["code"]["folder"] / "tests" / "toy.py").read_bytes() == Path(
        sys.modules["tests.toy"].__file__ or ""
    ).read_bytes()


def test_training_processes_get_the_copy_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/older:{tmp_path}/mine")
    monkeypatch.setenv("RUNG_CODE", "/older")
    folder = tmp_path / "study" / "code"
    launch = record(tmp_path / "study")
    (copy,) = [path for path in folder.iterdir() if path.is_dir()]
    assert launch.variables == {"PYTHONPATH": f"{copy}:{tmp_path}/mine", "RUNG_CODE": str(copy)}


def test_launches_are_counted_and_share_their_code(tmp_path: Path) -> None:
    assert [record(tmp_path).number for _ in range(3)] == [1, 2, 3]
    assert len({launch["code"]["hash"] for launch in read_launches(tmp_path)}) == 1


def test_a_damaged_record_is_set_aside_and_no_number_comes_twice(tmp_path: Path) -> None:
    for _ in range(3):
        record(tmp_path)
    path = tmp_path / "provenance.json"
    torn = path.read_text()[:-200]
    path.write_text(torn)
    launch = record(tmp_path)
    assert launch.number == 4
    assert launch.problem is not None
    assert "provenance.json.damaged" in launch.problem
    assert (tmp_path / "provenance.json.damaged").read_text() == torn
    assert record(tmp_path) == Launch(5, launch.variables)


def test_a_lost_record_does_not_make_numbers_come_twice_that_stand_in_rows(tmp_path: Path) -> None:
    directory = write_synthetic_study(tmp_path)
    with TableWriter(directory, "events", "driver") as events:
        attempt = events.attempt
    now = datetime.now(UTC)
    identity = {"study": "synthetic", "config_id": "c0", "run_id": "c0-s0", "seed": 0, "phase": "search"}
    with TableWriter(directory, "metrics", "c0", attempt) as metrics:
        metrics.add({**identity, "launch": 7, "step": 0, "tokens": 0, "wall_seconds": 0.0, "reported_at": now})
    (directory / "provenance.json").unlink()
    assert record(directory).number == 8


def test_records_of_older_versions_go_on(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text(json.dumps({"launches": [{"started_at": "1"}, {"started_at": "2"}]}))
    assert record(tmp_path).number == 3
    assert [launch["number"] for launch in read_launches(tmp_path)] == [1, 2, 3]


def test_a_checkout_says_commit_branch_and_changes(checkout: Path) -> None:
    clean = read_checkout(checkout)
    assert clean is not None
    assert (clean.branch, clean.dirty, clean.diff, len(clean.commit)) == ("trunk", False, b"", 40)
    (checkout / "new.py").write_text("")
    untracked = read_checkout(checkout)
    assert untracked is not None
    assert (untracked.dirty, untracked.diff) == (True, b"")
    (checkout / "mine.py").write_text("A = 2\n")
    changed = read_checkout(checkout)
    assert changed is not None
    assert b"-A = 1\n+A = 2\n" in changed.diff
    git(checkout, "checkout", "--detach")
    assert read_checkout(checkout).branch is None  # type: ignore[union-attr]
    assert checkout_root(checkout / "mine.py") == checkout
    assert checkout_root(checkout.parent) is None
    (checkout / ".gitignore").write_text("/results/\n")
    assert checkout_root(checkout / "results" / "study" / "code") is None


def test_the_users_own_checkout_is_the_launch_s(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "mine.py").write_text("from tests.toy import Toy as Mine\n")
    monkeypatch.syspath_prepend(checkout)
    monkeypatch.setattr(provenance, "find_trainable", lambda name: type("Mine", (Toy,), {"__module__": "mine"}))
    directory = tmp_path / "study"
    record_launch(directory, STUDY, "mine:Mine", threads=1)
    (launch,) = read_launches(directory)
    own = launch["checkouts"][0]
    assert (own["root"], own["packages"]) == (str(checkout), ["mine"])
    assert (launch["commit"], launch["branch"], launch["dirty"]) == (own["commit"], "trunk", True)
    assert "+from tests.toy import" in (directory / launch["diff"]).read_text()
    kept = directory / launch["code"]["folder"] / "mine.py"
    assert kept.read_text() == "from tests.toy import Toy as Mine\n"


def test_an_installed_wheel_does_not_report_the_project_around_it(checkout: Path) -> None:
    wheel = checkout / ".venv" / "lib" / "site-packages" / "rung"
    assert provenance._own_checkout(wheel) is None


def test_a_huge_diff_is_named_and_not_kept(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "mine.py").write_text("A = 2\n")
    monkeypatch.setattr(provenance, "LARGEST_DIFF", 10)
    changed = read_checkout(checkout)
    assert changed is not None
    found = provenance._checkout_record(tmp_path, changed)
    assert found["diff"] is None
    assert len(found["diff_sha256"]) == 64


class Reader(Toy):
    """Reads a file."""

    path: Path

    @classmethod
    def data_files(cls, config: ToyConfig) -> list[Path]:
        return [cls.path, cls.path.with_name("missing")]


def test_data_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Reader.path = tmp_path / "words.txt"
    Reader.path.write_text("abc")
    monkeypatch.setattr(provenance, "find_trainable", lambda name: Reader)
    configs = [ToyConfig(), ToyConfig(batch_size=2)]
    hashed: list[Path] = []
    file_hash = provenance.file_hash
    monkeypatch.setattr(provenance, "file_hash", lambda path: (hashed.append(path), file_hash(path))[1])
    for text in ("abc", "abc", "abcd"):
        if Reader.path.read_text() != text:
            Reader.path.write_text(text)
        record_launch(tmp_path / "study", STUDY, "reader", threads=1, configs=configs)
    entries = [launch["data"][0] for launch in read_launches(tmp_path / "study")]
    assert [entry["bytes"] for entry in entries] == [3, 3, 4]
    # SHA-256 of "abc": FIPS 180-2, appendix B.1.
    assert entries[0]["sha256"] == entries[1]["sha256"]
    assert entries[0]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert entries[2]["sha256"] != entries[0]["sha256"]
    assert hashed.count(Reader.path) == 2
    assert read_launches(tmp_path / "study")[0]["data"][1]["error"] == "[Errno 2] No such file or directory: " + repr(
        str(tmp_path / "missing")
    )


def test_no_secret_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "RUNG_TOKEN", "TORCH_SECRET_PLACE", "HOME_PASSWORD", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "x")
    found = environment_variables()
    assert found["CUDA_VISIBLE_DEVICES"] == "x"
    assert not {name for name in found if name.endswith(("KEY", "TOKEN", "PASSWORD", "PLACE"))}


def test_a_run_outside_of_a_study_has_its_record_too() -> None:
    found = launch_record(threads=3)
    assert found["threads"] == 3
    assert {"command", "commit", "versions", "processor"} <= found.keys()


def test_status_and_report_name_the_code_of_a_launch(tmp_path: Path) -> None:
    directory = write_synthetic_study(tmp_path)
    record(directory)
    launch = read_launches(directory)[-1]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_status(load(directory)))
    assert re.search(rf"launches: 2; the last: .*, code in {launch['code']['folder']}", console.export_text())
    table = launch_table(read_launches(directory))
    assert table is not None
    started, commit, *_ = table.rows[-1]
    assert started.note == "launch 2"
    assert commit.note.endswith(f"copy in {launch['code']['folder']}")
