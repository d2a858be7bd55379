"""Tokens on disk: what is written is read back, and nothing half-written is ever read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rung.errors import RungError, StorageError
from trainables.language.token_writer import FolderWriter
from trainables.language.tokens import TokenFolder, Tokens, data_root, open_tokens

IDS = np.random.default_rng(0).integers(0, 65_536, size=1000)


def write(path: Path, shard_tokens: int = 300) -> TokenFolder:
    with FolderWriter(path, shard_tokens=shard_tokens) as writer:
        writer.add("train", IDS[:450], text_bytes=900, documents=3)
        writer.add("validation", [1, 2, 3], text_bytes=7, documents=1)
        writer.add("train", IDS[450:], text_bytes=100, documents=1)
        return writer.finish(vocabulary=65_536, source={"made_by": "a test"}, end=0)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "ids")
    folder = TokenFolder.open(tmp_path / "ids")
    assert folder == written
    train = folder.manifest.splits["train"]
    assert (train.tokens, train.bytes, train.documents) == (1000, 1000, 4)
    assert [shard.tokens for shard in train.shards] == [300, 300, 300, 100]
    assert folder.tokens("train").windows(np.array([0]), 1000)[0].tolist() == IDS.tolist()
    assert open_tokens(tmp_path / "ids", "validation").windows(np.array([0]), 3).tolist() == [[1, 2, 3]]
    assert all(path.is_file() for path in folder.files)
    assert len(folder.files) == 6


@pytest.mark.parametrize("shard_tokens", [33, 250, 1000, 5000])
def test_windows_do_not_notice_shards(shard_tokens: int, tmp_path: Path) -> None:
    tokens = write(tmp_path / "ids", shard_tokens).tokens("train")
    starts = np.array([0, 1, 243, 249, 250, 251, 499, 980])
    rows = tokens.windows(starts, 20)
    assert rows.dtype == np.int64
    assert all((row == IDS[start : start + 20]).all() for row, start in zip(rows, starts, strict=True))


@pytest.mark.parametrize("start", [-1, 981])
def test_windows_end_where_the_split_ends(start: int) -> None:
    tokens = Tokens([IDS.astype(np.uint16)])
    with pytest.raises(IndexError):
        tokens.windows(np.array([0, start]), 20)


def test_an_unfinished_folder_is_no_folder_and_is_begun_anew(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "ids") as writer:
        writer.add("train", IDS, text_bytes=1, documents=1)
    assert list(tmp_path.iterdir()) == []
    # A killed process leaves its files behind.
    (tmp_path / "ids.unfinished").mkdir()
    (tmp_path / "ids.unfinished" / "train-00009.bin").write_bytes(b"xx")
    write(tmp_path / "ids")
    assert [path.name for path in tmp_path.iterdir()] == ["ids"]
    assert not (tmp_path / "ids" / "train-00009.bin").exists()


def test_a_folder_that_exists_is_never_touched(tmp_path: Path) -> None:
    write(tmp_path / "ids")
    before = {path.name: path.read_bytes() for path in (tmp_path / "ids").iterdir()}
    with pytest.raises(RungError, match="finished folder of tokens"):
        FolderWriter(tmp_path / "ids")
    (tmp_path / "mine").mkdir()
    with pytest.raises(RungError, match="mine exists"):
        FolderWriter(tmp_path / "mine")
    assert {path.name: path.read_bytes() for path in (tmp_path / "ids").iterdir()} == before


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "ids"), pytest.raises(RungError, match="in use"):
        FolderWriter(tmp_path / "ids")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write to .*file: .*RUNG_DATA says where data lies"):
        FolderWriter(tmp_path / "file" / "ids")


@pytest.mark.parametrize("ids", [[65_536], [-1], [0.5]])
def test_only_ids_of_16_bits_are_taken(ids: list[float], tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "ids") as writer, pytest.raises(RungError, match="0 to 65535"):
        writer.add("train", ids, text_bytes=1, documents=1)


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(RungError, match="does not exist"):
        TokenFolder.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RungError, match="unfinished"):
        TokenFolder.open(tmp_path / "empty")
    folder = write(tmp_path / "ids")
    with pytest.raises(RungError, match="no split 'test': it has train, validation"):
        folder.tokens("test")  # type: ignore[arg-type]
    shard = tmp_path / "ids" / "train-00001.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(RungError, match=r"598 bytes, and the manifest says 600"):
        folder.tokens("train")
    shard.unlink()
    with pytest.raises(RungError, match="is missing"):
        folder.tokens("train")
    manifest = tmp_path / "ids" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    with pytest.raises(RungError, match="not a manifest of this version of rung: format"):
        TokenFolder.open(tmp_path / "ids")


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNG_DATA", raising=False)
    assert data_root() == Path("data")
    monkeypatch.setenv("RUNG_DATA", "/somewhere")
    assert data_root() == Path("/somewhere")
