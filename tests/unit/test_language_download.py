"""Downloads against a server on this machine: whole, broken off and gone on with, changed in between, refused."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rung.errors import RungError
from trainables.language import download as module
from trainables.language.download import download, unpack

CONTENT = bytes(range(256)) * 40


class Files(ThreadingHTTPServer):
    """A server of one file, which can break off."""

    content = CONTENT
    etag = '"one"'
    break_after: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/story.txt"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        files = self.server
        assert isinstance(files, Files)
        wanted = self.headers.get("Range")
        files.ranges.append(wanted)
        if self.path != "/story.txt":
            return self.send_error(404)
        begin = 0
        if wanted is not None and self.headers.get("If-Range") == files.etag:
            begin = int(re.findall(r"\d+", wanted)[0])
            if begin >= len(files.content):
                return self.send_error(416)
        self.send_response(206 if begin else 200)
        self.send_header("ETag", files.etag)
        self.send_header("Content-Length", str(len(files.content) - begin))
        self.end_headers()
        body = files.content[begin:]
        self.wfile.write(body if files.break_after is None else body[: files.break_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def files() -> Iterator[Files]:
    with Files() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_comes_once(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "below" / "story.txt"
    assert download(files.url, path) == path
    assert path.read_bytes() == CONTENT
    assert download(files.url, path) == path
    assert files.ranges == [None]
    assert [each.name for each in path.parent.iterdir()] == ["story.txt"]


def test_it_goes_on_where_it_broke_off(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    path = tmp_path / "story.txt"
    for have in (4000, 8000):
        files.break_after = 4000
        with pytest.raises(RungError, match=rf"{have:,} of 10,240 bytes|\({have:,} bytes are here\)"):
            download(files.url, path)
        assert not path.exists()
    files.break_after = None
    assert download(files.url, path).read_bytes() == CONTENT
    assert files.ranges == [None, "bytes=4000-", "bytes=8000-"]


def test_another_version_is_begun_anew(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    files.break_after = 4000
    with pytest.raises(RungError):
        download(files.url, path)
    files.break_after, files.content, files.etag = None, CONTENT[::-1], '"two"'
    assert download(files.url, path).read_bytes() == CONTENT[::-1]


def test_a_file_that_was_whole_but_not_named_so(files: Files, tmp_path: Path) -> None:
    (tmp_path / "story.txt.part").write_bytes(CONTENT)
    (tmp_path / "story.txt.part.etag").write_text(files.etag)
    assert download(files.url, tmp_path / "story.txt").read_bytes() == CONTENT


def test_what_goes_wrong_is_said(files: Files, tmp_path: Path) -> None:
    with pytest.raises(RungError, match=r"cannot download .*other: .*Not Found.*the local file"):
        download(files.url.replace("story.txt", "other"), tmp_path / "other")
    files.shutdown()
    files.server_close()
    with pytest.raises(RungError, match=r"cannot download .*refused"):
        download(files.url, tmp_path / "story.txt")


def test_gzip_files_are_unpacked(tmp_path: Path) -> None:
    packed = tmp_path / "owt.txt.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    assert unpack(packed) == tmp_path / "owt.txt"
    assert unpack(packed).read_bytes() == CONTENT
    damaged = tmp_path / "bad.txt.gz"
    damaged.write_bytes(gzip.compress(CONTENT)[:-20])
    with pytest.raises(RungError, match=r"bad\.txt\.gz cannot be unpacked"):
        unpack(damaged)
    assert not (tmp_path / "bad.txt").exists()
