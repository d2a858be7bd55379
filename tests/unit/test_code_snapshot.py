"""The copy of a launch's code: what belongs to it, what does not, and that it is what is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rung
from rung import code_snapshot
from rung.code_snapshot import changed_files, stored_hash, take_code_snapshot
from rung.errors import RungError
from rung.training import environment


def write(folder: Path, **files: str) -> None:
    """Writes files; in their names `__` stands for a slash and the last `_` for the dot."""
    for name, text in files.items():
        path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's project: package `mylab` with all that may lie about in one, and modules beside it."""
    folder = tmp_path / "project"
    write(
        folder,
        mylab__toy_py="import numpy\n\ndef late():\n    from mylab_helpers import x\n",
        mylab__deep__words_json="{}",
        mylab_helpers_py="import mylab_more, json\nfrom results import nothing\n",
        mylab_more_py="VALUE = 1\n",
        unrelated_py="",
        pyproject_toml="[project]",
    )
    (folder / "mylab" / "__init__.py").write_text("")
    for hidden in (".git", "__pycache__", ".venv"):
        write(folder / "mylab" / hidden, junk_py="")
    write(folder / "mylab" / "venv", pyvenv_cfg="", lib__big_py="")
    write(folder / "mylab" / "results" / "a-study", study_json="{}", code__abc__rung_py="")
    write(folder / "results", notes_txt="")  # a folder with a name that a text may mention: no code
    (folder / "mylab" / "weights.bin").write_bytes(b"0" * (code_snapshot.LARGEST_FILE + 1))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    __import__("mylab.toy")
    yield folder
    for name in [name for name in sys.modules if name.startswith("mylab")]:
        del sys.modules[name]


def relative(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_holds_whole_packages_and_what_they_import_late(project: Path, tmp_path: Path) -> None:
    snapshot = take_code_snapshot(tmp_path / "code", ("rung", "mylab"))
    files = relative(snapshot.folder)
    assert {name for name in files if not name.startswith(("rung", "tests", "trainables"))} == {
        "mylab/__init__.py",
        "mylab/toy.py",
        "mylab/deep/words.json",
        "mylab/weights.bin",
        "mylab_helpers.py",
        "mylab_more.py",
        "mylab.project/pyproject.toml",
    }
    package = Path(rung.__file__).parent
    modules = {f"rung/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    assert modules == {name for name in files if name.startswith("rung/") and name.endswith(".py")}
    assert "rung/results/report.html.j2" in files


def test_a_large_file_is_a_link_and_is_named(project: Path, tmp_path: Path) -> None:
    snapshot = take_code_snapshot(tmp_path / "code", ("mylab",))
    kept = snapshot.folder / "mylab" / "weights.bin"
    assert kept.is_symlink()
    assert kept.resolve() == project / "mylab" / "weights.bin"
    assert "4194305 bytes" in snapshot.left_out["mylab/weights.bin"]


def test_a_huge_package_is_left_out_and_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_snapshot, "MOST_FILES", 3)
    snapshot = take_code_snapshot(tmp_path / "code", ("mylab",))
    assert "larger than" in snapshot.left_out["mylab"]
    assert not (snapshot.folder / "mylab").exists()


def test_the_name_is_the_content(project: Path, tmp_path: Path) -> None:
    first = take_code_snapshot(tmp_path / "code", ("mylab",))
    assert take_code_snapshot(tmp_path / "code", ("mylab",)).folder == first.folder
    assert stored_hash(first.folder)[:12] == first.hash
    (project / "mylab_more.py").write_text("VALUE = 2\n")
    second = take_code_snapshot(tmp_path / "code", ("mylab",))
    assert second.hash != first.hash
    assert (first.folder / "mylab_more.py").read_text() == "VALUE = 1\n"
    assert changed_files(first.folder, first.sources_by_name) == ["mylab_more.py"]
    assert changed_files(second.folder, second.sources_by_name) == []
    assert sorted(os.listdir(tmp_path / "code")) == sorted([first.hash, second.hash])


def test_a_damaged_copy_is_set_aside_and_made_again(project: Path, tmp_path: Path) -> None:
    first = take_code_snapshot(tmp_path / "code", ("mylab",))
    (first.folder / "mylab" / "toy.py").unlink()
    again = take_code_snapshot(tmp_path / "code", ("mylab",))
    assert again.folder == first.folder
    assert stored_hash(again.folder)[:12] == first.hash
    assert (tmp_path / "code" / f"{first.hash}.damaged").is_dir()


def test_caches_written_by_workers_do_not_change_it(project: Path, tmp_path: Path) -> None:
    snapshot = take_code_snapshot(tmp_path / "code", ("mylab",))
    write(snapshot.folder / "mylab" / "__pycache__", x_pyc="")
    assert stored_hash(snapshot.folder)[:12] == snapshot.hash
    assert changed_files(snapshot.folder, snapshot.sources_by_name) == []


def test_an_installed_trainable_belongs_to_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "lib" / "site-packages"
    write(site, mylab_wheel__toy_py="import mylab_other", mylab_other_py="")
    (site / "mylab_wheel" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(site)
    snapshot = take_code_snapshot(tmp_path / "code", ("rung", "mylab_wheel"))
    names = {source.name for source in snapshot.sources}
    assert {"rung", "mylab_wheel"} <= names
    assert "mylab_other" not in names  # installed, so that it has a version


LOOK = """
import sys
sys.path[0:0] = [{live!r}]  # as Ray puts the driver's working directory before PYTHONPATH
from rung.training import environment
environment.import_snapshot()
import json, rung, mylab.toy, mylab_more
print(json.dumps([rung.__file__, mylab.toy.__file__, mylab_more.VALUE]))
"""


def test_a_training_process_imports_the_copy(project: Path, tmp_path: Path) -> None:
    snapshot = take_code_snapshot(tmp_path / "code", ("rung", "mylab"))
    (project / "mylab_more.py").write_text("VALUE = 2\n")
    folder = str(snapshot.folder)
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(live=str(project))],
        env={**os.environ, "PYTHONPATH": folder, "RUNG_CODE": folder},
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    rung_file, toy_file, value = json.loads(done.stdout)
    assert rung_file.startswith(folder)
    assert toy_file.startswith(folder)
    assert value == 1


def test_a_process_with_other_code_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CODE", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(RungError, match="not from the copy of its launch"):
        environment.import_snapshot()


def test_nothing_half_written_stays_when_the_disk_is_full(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RungError, match="No space left"):
        take_code_snapshot(tmp_path / "code", ("mylab",))
    assert os.listdir(tmp_path / "code") == []
    shutil.rmtree(tmp_path / "code")
