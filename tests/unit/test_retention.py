"""Which checkpoints stay, and what `rung clean` deletes: on made-up studies with real folders."""

import fcntl
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rung.errors import RungError
from rung.provenance import record_launch
from rung.results.disk import disk_usage, folder_bytes
from rung.results.query import load
from rung.results.render import render_status
from rung.results.retention import Keep, checkpoint_folders, kept_configurations, policy_of
from rung.results.store import TableWriter
from rung.results.views import dicts
from rung.study import CheckpointPolicy
from rung.tuning.cleaning import Removal, clean, find_removals, read_keep
from rung.tuning.retention import keep_checkpoints
from tests.made_up_studies import MadeUp, write_study

VALUES = {0: [0.7, 0.7], 1: [0.9, 0.9], 2: [0.8, 0.8], 3: [0.5, 0.5]}
"""What each configuration reaches: the best is 1, then 2, then 0; 3 is stopped."""
FRESH = {1: [0.75, 0.76], 2: [0.85, 0.86]}
"""On fresh seeds 2 is better than 1."""
TENSORS = 1000


def write(directory: Path, **changes: Any) -> tuple[Path, MadeUp]:
    """A study with a checkpoint of every run; configuration 3 is stopped."""
    values = {(index, "search"): each for index, each in VALUES.items()}
    values |= {(index, "confirm"): each for index, each in FRESH.items()}
    about: dict[str, Any] = {"seeds": 2, "steps": (0, 10, 100_000), "rungs": (10, 100_000), "stopped": {3: 10}}
    study = MadeUp({"a": ["w", "x", "y", "z"]}, values=values, **about | changes)
    write_study(directory, study)
    for row in load(directory).runs.select("run_id").fetchall():
        write_checkpoint(directory, row[0])
    return directory, study


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MadeUp]:
    return write(tmp_path_factory.mktemp("original") / "study")


@pytest.fixture
def finished(original: tuple[Path, MadeUp], tmp_path: Path) -> tuple[Path, MadeUp]:
    """A copy of a study that is over, all its checkpoints still there."""
    return shutil.copytree(original[0], tmp_path / "study"), original[1]


def write_checkpoint(directory: Path, run_id: str, step: int = 10, complete: bool = True) -> Path:
    folder = directory / "checkpoints" / run_id / f"step-{step:010d}"
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(b"x" * TENSORS)
    if complete:
        (folder / "complete.json").write_text("{}")
    return folder


def runs_left(directory: Path) -> set[str]:
    return {path.name for path in (directory / "checkpoints").iterdir()}


def runs_of(study: MadeUp, *indices: int, phase: str = "search") -> set[str]:
    if phase == "confirm":
        return {f"{study.config_id(index)}-s{seed}-confirm" for index in indices for seed in study.fresh_seeds}
    return {f"{study.config_id(index)}-s{seed}" for index in indices for seed in range(study.seeds)}


# ---------------------------------------------------------------------------------------------- the policy


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("none", []),
        ("best", [1]),
        (1, [1]),
        (2, [1, 2]),
        (99, [0, 1, 2]),
        ("completed", [0, 1, 2]),
        ("all", [0, 1, 2, 3]),
    ],
)
def test_what_stays_of_a_finished_study(finished: tuple[Path, MadeUp], keep: Keep, kept: Sequence[int]) -> None:
    directory, study = finished
    keep_checkpoints(directory, keep)
    assert runs_left(directory) == runs_of(study, *kept)


@pytest.mark.parametrize(("keep", "kept"), [("none", []), ("best", [2]), (2, [2, 1]), (3, [2, 1, 0])])
def test_fresh_seeds_decide_who_is_best(tmp_path: Path, keep: Keep, kept: Sequence[int]) -> None:
    directory, study = write(tmp_path / "study", fresh=2, confirmed=(1, 2))
    keep_checkpoints(directory, keep)
    confirmed = [index for index in kept if index in FRESH]
    assert runs_left(directory) == runs_of(study, *kept) | runs_of(study, *confirmed, phase="confirm")


@pytest.mark.parametrize("status", ["running", "failed"])
def test_what_the_study_goes_on_with_stays(tmp_path: Path, status: str) -> None:
    directory, study = write(tmp_path / "study", ended={(0, 1): (status, 10, "")})
    keep_checkpoints(directory, "none")
    assert runs_left(directory) == runs_of(study, 0)


def test_the_best_that_ended_stays_beside_one_that_leads_unfinished(tmp_path: Path) -> None:
    """The leader may still lose: then the best so far must not be gone."""
    directory, study = write(tmp_path / "study", ended={(1, 1): ("running", 10, "")}, metric={"across_seeds": "best"})
    assert load(directory).summary()[0].config_id == study.config_id(1)
    keep_checkpoints(directory, "best")
    assert runs_left(directory) == runs_of(study, 1, 2)


def test_whoever_may_be_confirmed_stays_until_that_is_over(tmp_path: Path) -> None:
    fresh = {"top": 2, "seeds": [10**9, 10**9 + 1]}
    directory, study = write(tmp_path / "waiting", study={"confirm": fresh})
    keep_checkpoints(directory, "best")
    assert runs_left(directory) == runs_of(study, 1, 2)
    directory, study = write(tmp_path / "going", fresh=2, confirmed=(1, 2), confirm_ended={(1, 0): ("running", 10, "")})
    keep_checkpoints(directory, "none")
    assert runs_left(directory) == runs_of(study, 1, 2) | runs_of(study, 1, 2, phase="confirm")


def test_a_stopped_one_that_is_confirmed_the_best_keeps_what_it_has(tmp_path: Path) -> None:
    rungs = {"rungs": (10, 100, 100_000), "steps": (0, 10, 100, 100_000), "stopped": {0: 10, 2: 100, 3: 10}}
    directory, study = write(tmp_path / "study", **rungs, fresh=2, confirmed=(1, 2))
    assert {folder.run_id for folder in checkpoint_folders(load(directory), "best") if folder.is_stopped} == (
        runs_of(study, 0, 2, 3)
    )
    keep_checkpoints(directory, "best")
    assert runs_left(directory) == runs_of(study, 2) | runs_of(study, 2, phase="confirm")


@pytest.mark.parametrize("confirm_ended", [{}, {(2, 0): ("running", 10, "")}])
def test_what_was_confirmed_for_another_choice_does_not_stay_for_it(
    tmp_path: Path, confirm_ended: dict[tuple[int, int], tuple[str, int, str]]
) -> None:
    one = {"confirm": {"top": 1, "seeds": [10**9, 10**9 + 1]}}
    about: dict[str, Any] = {"fresh": 2, "confirmed": (1, 2), "study": one, "confirm_ended": confirm_ended}
    directory, study = write(tmp_path / "over", **about)
    keep_checkpoints(directory, "best")
    assert runs_left(directory) == runs_of(study, 1) | runs_of(study, 1, phase="confirm")
    directory, study = write(tmp_path / "searching", **about, ended={(0, 1): ("running", 10, "")})
    keep_checkpoints(directory, "none")  # it may be chosen again
    assert runs_left(directory) == runs_of(study, 0, 1, 2) | runs_of(study, 1, 2, phase="confirm")


def test_a_half_extended_study_keeps_what_it_goes_on_with(tmp_path: Path) -> None:
    ended = {(index, seed): ("completed", 10, "") for index in (0, 2) for seed in (0, 1)}
    directory, study = write(tmp_path / "study", ended=ended)
    keep_checkpoints(directory, "none")
    assert runs_left(directory) == runs_of(study, 0, 2)


def test_folders_that_no_row_knows_stay(finished: tuple[Path, MadeUp]) -> None:
    directory, _ = finished
    write_checkpoint(directory, "somebody-elses")
    keep_checkpoints(directory, "none")
    assert runs_left(directory) == {"somebody-elses"}


def test_the_policy_is_a_word_or_a_number() -> None:
    assert [CheckpointPolicy(keep=keep).keep for keep in ("none", "completed", 3)] == ["none", "completed", 3]
    assert CheckpointPolicy().keep == "best"
    for wrong in ("bst", 0, -1, True, 2.5, None, ["best"]):
        with pytest.raises(ValueError, match="expected none, best, completed, all or how many") as caught:
            CheckpointPolicy(keep=wrong)  # type: ignore[arg-type]
        assert str(caught.value).count("expected") == 1
    with pytest.raises(ValueError, match="did you mean 'completed'"):
        CheckpointPolicy(keep="complete")  # type: ignore[arg-type]


def test_the_policy_of_an_older_study_is_the_default() -> None:
    assert policy_of({}) == "best"
    assert policy_of({"checkpoints": {"keep": 2}}) == 2


# ------------------------------------------------------------------------------------------------- cleaning


def removed(directory: Path, keep: Keep) -> dict[str, Removal]:
    return {removal.what: removal for removal in find_removals(load(directory), keep)}


def litter(directory: Path, study: MadeUp) -> None:
    """What kills, damage and edits leave behind, beside things that are still needed."""
    (directory / ".tune" / "scratch").mkdir(parents=True)
    (directory / ".tune" / "scratch" / "state").write_bytes(b"x" * 30)
    (directory / ".study.json.7.tmp").write_bytes(b"x" * 7)
    (directory / "tables" / "runs" / ".driver.0001.000002.parquet.tmp").write_bytes(b"x" * 8)
    (directory / "tables" / "runs" / "driver.0001.000009.parquet.damaged").write_bytes(b"x" * 9)
    write_checkpoint(directory, f"{study.config_id(1)}-s0", step=20, complete=False)
    for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        (directory / "code" / name / "rung").mkdir(parents=True)
        (directory / "code" / name / "rung" / "cli.py").write_bytes(b"x" * 40)
    for name in ("cccccccccccc.diff", "dddddddddddd.diff"):
        (directory / "code" / name).write_bytes(b"x" * 5)
    launch = {"code": {"folder": "code/aaaaaaaaaaaa"}, "checkouts": [{"diff": "code/cccccccccccc.diff"}]}
    (directory / "provenance.json").write_text(json.dumps({"launches": [launch]}))


def test_a_preview_names_everything_with_its_bytes_and_deletes_nothing(finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    litter(directory, study)
    before = sorted(directory.rglob("*"))
    found = removed(directory, "best")
    assert sorted(directory.rglob("*")) == before
    run = TENSORS + 2
    assert {what: (len(removal.paths), removal.bytes) for what, removal in found.items()} == {
        "checkpoints of configurations that are not kept": (4, 4 * run),
        "checkpoints of stopped configurations": (2, 2 * run),
        "unfinished checkpoints": (1, TENSORS),
        "damaged files, set aside": (1, 9),
        "temporary files": (2, 15),
        "Tune's scratch folder": (1, 30),
        "code that no launch refers to": (2, 45),
    }
    assert "from step 0" in found["checkpoints of configurations that are not kept"].loss
    assert not found["temporary files"].loss


def test_cleaning_leaves_what_is_needed(finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    tables = {path: path.read_bytes() for path in directory.glob("tables/*/*.parquet")}
    litter(directory, study)
    summary = load(directory).summary()
    size = folder_bytes(directory)
    removals = clean(load(directory), "best")
    assert size - folder_bytes(directory) == sum(removal.bytes for removal in removals) - holder_bytes(directory)
    assert runs_left(directory) == runs_of(study, 1)
    assert (directory / "checkpoints" / f"{study.config_id(1)}-s0" / "step-0000000010" / "complete.json").exists()
    assert {path.name for path in (directory / "code").iterdir()} == {"aaaaaaaaaaaa", "cccccccccccc.diff"}
    assert {path: path.read_bytes() for path in directory.glob("tables/*/*")} == tables
    assert (directory / "study.json").exists()
    assert load(directory).summary() == summary
    assert find_removals(load(directory), "best") == []


def holder_bytes(directory: Path) -> int:
    """The lock file, which cleaning itself writes."""
    return (directory / "lock").stat().st_size


def test_keep_overrides_the_policy(finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    assert find_removals(load(directory), "all") == []
    clean(load(directory), 2)
    assert runs_left(directory) == runs_of(study, 1, 2)
    clean(load(directory), "none")
    assert runs_left(directory) == set()


def test_an_unfinished_study_can_go_on_after_cleaning(tmp_path: Path) -> None:
    directory, study = write(tmp_path / "study", ended={(0, 1): ("running", 10, "")})
    clean(load(directory), "none")
    assert runs_left(directory) == runs_of(study, 0)


def test_nothing_is_cleaned_under_a_driver(finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RungError, match="being run already"):
            clean(load(directory), "none")
    assert runs_left(directory) == runs_of(study, 0, 1, 2, 3)


STRAY = "code that no launch refers to"


def test_code_stays_where_the_launches_cannot_be_read(finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    litter(directory, study)
    (directory / "provenance.json").write_text('{"launches": [{"number": 1, "started_at": "2026')
    assert STRAY not in removed(directory, "best")
    for _ in range(2):  # later launches begin a new record, which does not name the copies of the earlier ones
        record_launch(directory, {}, "tests.toy:Toy", 1)
        assert STRAY not in removed(directory, "best")
    clean(load(directory), "none")
    assert {"aaaaaaaaaaaa", "bbbbbbbbbbbb"} < {path.name for path in (directory / "code").iterdir()}
    assert (directory / "provenance.json.damaged").exists()
    (directory / "provenance.json.damaged").unlink()  # by hand: that launch is still missing from the record
    assert STRAY not in removed(directory, "best")


@pytest.mark.parametrize("numbers", [[], [2], [1, 3]])
def test_code_stays_where_a_launch_is_not_on_record(finished: tuple[Path, MadeUp], numbers: list[int]) -> None:
    directory, study = finished
    litter(directory, study)
    (directory / "provenance.json").write_text(json.dumps({"launches": [{"number": number} for number in numbers]}))
    assert STRAY not in removed(directory, "best")


@pytest.mark.parametrize("table", ["runs", "metrics", "configurations"])
def test_code_stays_where_rows_are_of_a_launch_that_is_not_on_record(finished: tuple[Path, MadeUp], table: str) -> None:
    directory, study = finished
    litter(directory, study)
    row = dicts(load(directory).query(f"SELECT * FROM {table} LIMIT 1"))[0]
    later = {**row, "launch": 2, **({"attempt": row["attempt"] + 1} if "attempt" in row else {})}
    with TableWriter(directory, table, "later") as writer:
        writer.add(later)
    assert STRAY not in removed(directory, "best")
    launches = json.loads((directory / "provenance.json").read_text())["launches"]
    (directory / "provenance.json").write_text(json.dumps({"launches": [*launches, {"number": 2}]}))
    assert len(removed(directory, "best")[STRAY].paths) == 2


@pytest.mark.parametrize("delete", [keep_checkpoints, lambda directory, keep: clean(load(directory), keep)])
def test_a_kill_while_deleting_leaves_no_checkpoint_that_looks_whole(
    finished: tuple[Path, MadeUp], delete: Callable[[Path, Keep], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, _ = finished

    def kill(*unused: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            delete(directory, "none")
    steps = list((directory / "checkpoints").glob("*/step-*"))
    whole = [path for path in steps if (path / "complete.json").exists()]
    assert (len(steps), len(whole)) == (8, 7)
    delete(directory, "none")
    assert runs_left(directory) == set()


def test_links_are_neither_counted_nor_followed(tmp_path: Path, finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 5000)
    run = directory / "checkpoints" / f"{study.config_id(0)}-s0"
    (run / "step-0000000010" / "link").symlink_to(outside)
    assert folder_bytes(run) < 2000
    clean(load(directory), "none")
    assert (outside / "precious").exists()
    assert not run.exists()


@pytest.mark.parametrize(("text", "keep"), [("none", "none"), ("completed", "completed"), ("3", 3)])
def test_keep_on_the_command_line(text: str, keep: Keep) -> None:
    assert read_keep(text) == keep


def test_a_wrong_keep_names_the_right_ones() -> None:
    with pytest.raises(RungError, match=r"^--keep: expected none, best, completed, all or how many of the best"):
        read_keep("0")


# ------------------------------------------------------------------------------------------------- on disk


def test_bytes_on_disk(tmp_path: Path, finished: tuple[Path, MadeUp]) -> None:
    directory, study = finished
    usage = disk_usage(directory)
    assert usage["checkpoints"] == 8 * (TENSORS + 2)
    assert (usage["code"], usage["report"]) == (0, 0)
    assert sum(usage.values()) == folder_bytes(directory)
    assert disk_usage(tmp_path / "nowhere") == dict.fromkeys(usage, 0)
    folders = checkpoint_folders(load(directory), "best")
    assert sum(folder.bytes for folder in folders if folder.is_kept) == 2 * (TENSORS + 2)
    assert kept_configurations(load(directory), "best") == {study.config_id(1)}


def test_status_tells_what_is_there_and_what_stays(finished: tuple[Path, MadeUp]) -> None:
    text = io.StringIO()
    Console(file=text, width=160).print(render_status(load(finished[0])))
    assert "checkpoints 8.02 kB" in text.getvalue()
    assert "of the checkpoints 2 kB are kept as it stands (checkpoints.keep: best)" in text.getvalue()
