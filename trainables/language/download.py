"""Fetches a file over HTTP, going on where an interrupted attempt stopped. Imports no torch."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rung.errors import RungError

BLOCK_BYTES = 1 << 20
REPORT_SECONDS = 10.0
TIMEOUT_SECONDS = 60.0


def download(url: str, path: Path, say: Callable[[str], None] = print) -> Path:
    """The file at `url`, as `path`; one that is there already is taken as it is.

    What has come so far lies in `<path>.part`, and its version in `<path>.part.etag`: if the server has another version
    by now, the download begins anew.

    Args:
        url: http or https.
        path: where the file goes.
        say: takes lines about how it goes.

    Raises:
        RungError: there is no network, the server refuses, or less came than was announced.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        expected = _fetch(url, part, say)
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        have = part.stat().st_size if part.exists() else 0
        raise RungError(
            f"cannot download {url}: {reason}. The same command goes on where it stopped ({have:,} bytes are here); "
            "without network, fetch the file elsewhere and give the same command the local file (--help)"
        ) from error
    if expected is not None and part.stat().st_size != expected:
        raise RungError(f"{url} broke off after {part.stat().st_size:,} of {expected:,} bytes: run the command again")
    _etag(part).unlink(missing_ok=True)
    return part.rename(path)


def unpack(path: Path) -> Path:
    """The content of a gzip file, beside it and without its ending.

    Raises:
        RungError: it is damaged.
    """
    target, temporary = path.with_suffix(""), path.with_suffix(".unpacking")
    if target.exists():
        return target
    try:
        with gzip.open(path, "rb") as packed, temporary.open("wb") as file:
            shutil.copyfileobj(packed, file, BLOCK_BYTES)
    except (OSError, EOFError) as error:
        raise RungError(f"{path} cannot be unpacked: {error}. Remove it and run the command again") from error
    return temporary.rename(target)


def _fetch(url: str, part: Path, say: Callable[[str], None]) -> int | None:
    """Appends to `part` what is missing of the file. Returns how long the whole is, if the server tells."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "rung"}
    if have and _etag(part).exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": _etag(part).read_text()}
    else:
        have = 0
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == 416:  # nothing is missing
            return have
        raise
    with response:
        if response.status != 206:
            have = 0
        tag = response.headers.get("ETag")
        if tag and not tag.startswith("W/"):
            _etag(part).write_text(tag)
        length = response.headers.get("Content-Length")
        expected = None if length is None else have + int(length)
        _copy(response, part, have, expected, say)
    return expected


def _copy(response: HTTPResponse, part: Path, have: int, expected: int | None, say: Callable[[str], None]) -> None:
    told = time.monotonic()
    with part.open("ab" if have else "wb") as file:
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            have += len(block)
            if time.monotonic() - told >= REPORT_SECONDS:
                told = time.monotonic()
                whole = "" if expected is None else f" of {expected / 1e6:,.0f}"
                say(f"{part.stem}: {have / 1e6:,.0f}{whole} MB")


def _etag(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")
