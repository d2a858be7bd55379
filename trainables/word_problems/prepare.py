"""Puts word problems where `word_problems` looks for them: GSM8K, SVAMP, a dataset of the Hugging Face Hub, or files.

    python -m trainables.word_problems.prepare gsm8k
    python -m trainables.word_problems.prepare svamp
    python -m trainables.word_problems.prepare hub openai/gsm8k --subset main --out gsm8k
    python -m trainables.word_problems.prepare files --train train.jsonl --test https://example.org/test.jsonl --out own

The folder lies in RUNG_DATA, or in `data`; a study names it with `data.name`. A folder that is there is refused. All
but local files need a network; HF_ENDPOINT names another server than huggingface.co. Files are checked before they are
put there: every line a problem, no question in both splits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rung.errors import RungError, StorageError
from trainables.language.command_line import folder_name, guarded
from trainables.language.download import download
from trainables.language.token_writer import refuse_existing
from trainables.language.tokens import data_root
from trainables.word_problems.dataset import DatasetConfig, load_problems
from trainables.word_problems.problem_files import SVAMP_FILE, jsonl, parse_answer

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Published:
    """Files that never change."""

    what: str
    """What they are, in a sentence."""
    page: str
    """Address of their folder."""
    files: Mapping[str, str]
    """SHA-256 by name."""


_GITHUB = "https://raw.githubusercontent.com"

PUBLISHED = {
    "gsm8k": Published(
        what="GSM8K: 7,473 and 1,319 grade school problems (Cobbe et al. 2021, arXiv 2110.14168; MIT)",
        page=f"{_GITHUB}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data",
        files={
            "train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
            "test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        },
    ),
    "svamp": Published(
        what="SVAMP: 1,000 problems of one step (Patel et al. 2021, arXiv 2103.07191; MIT)",
        page=f"{_GITHUB}/arkilpatel/SVAMP/689d7ccac74b9983a2ac7cc3b264f441b99e7c53",
        files={SVAMP_FILE: "5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e"},
    ),
}
"""By the name of the folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    target = data_root() / options.out
    refuse_existing(target)
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        options.fill(options, unfinished)
        sets = load_problems(DatasetConfig(path=str(unfinished.resolve())))
        unfinished.rename(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{target}: {len(sets.train):,} problems to train on, {len(sets.test):,} to test on")
    return 0


def published(options: argparse.Namespace, folder: Path) -> None:
    """Downloads the files of `PUBLISHED` and compares them with their SHA-256."""
    source = PUBLISHED[options.kind]
    for name, sha256 in source.files.items():
        path = _downloads() / f"{options.kind}-{name}"
        content = download(f"{source.page}/{name}", path).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            path.unlink()
            raise RungError(f"{source.page}/{name} is not the file that was published: run the command again")
        (folder / name).write_bytes(content)


def from_hub(options: argparse.Namespace, folder: Path) -> None:
    """Downloads the Parquet files that the Hub keeps of every dataset."""
    base = f"{os.environ.get('HF_ENDPOINT') or HUB}/api/datasets/{options.dataset}/parquet/{options.subset}"
    for split, name in (("train", options.train_split), ("test", options.test_split)):
        rows = [row for url in _parquet_files(f"{base}/{name}") for row in _rows(url, options)]
        problems = [parse_answer(*row, f"{options.dataset}, {name}, row {number}") for number, row in enumerate(rows)]
        (folder / f"{split}.jsonl").write_text(jsonl(problems), encoding="utf-8")


def from_files(options: argparse.Namespace, folder: Path) -> None:
    """Copies files, or downloads them."""
    for split in ("train", "test"):
        place, path = getattr(options, split), folder / f"{split}.jsonl"
        if "://" in place:
            download(place, path)
        elif Path(place).is_file():
            shutil.copyfile(place, path)
        else:
            raise RungError(f"--{split}: there is no file {place}")


def _parquet_files(page: str) -> list[str]:
    """The addresses of the Parquet files of a split."""
    with TemporaryDirectory() as folder:
        text = download(page, Path(folder) / "files.json").read_text(encoding="utf-8")
    try:
        urls = json.loads(text)
    except ValueError as error:
        raise RungError(f"{page} does not list files: {text[:200]}") from error
    if not (isinstance(urls, list) and urls and all(isinstance(url, str) for url in urls)):
        raise RungError(f"{page} does not list files: {text[:200]}")
    return urls


def _rows(url: str, options: argparse.Namespace) -> list[tuple[object, object]]:
    """Question and answer of every row of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = download(url, _downloads() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.parquet")
    columns = [options.question, options.answer]
    try:
        there = pq.read_schema(path).names
        absent = [name for name in columns if name not in there]
        if absent:
            text = f"has no column {absent[0]!r}, only {', '.join(there)}: say which with --question and --answer"
            raise RungError(f"{url} {text}")
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise RungError(f"{path}, from {url}, cannot be read: {error}") from error
    return list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))


def _downloads() -> Path:
    return data_root() / "downloads"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.word_problems.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, source in PUBLISHED.items():
        kind = kinds.add_parser(name, help=source.what, description=source.what)
        kind.add_argument("--out", type=folder_name, default=name, metavar="NAME", help="folder of the data")
        kind.set_defaults(fill=published)

    kind = kinds.add_parser("hub", help="a dataset of the Hugging Face Hub", formatter_class=_Defaults)
    kind.add_argument("dataset", metavar="OWNER/NAME")
    kind.add_argument("--out", type=folder_name, required=True, metavar="NAME", help="folder of the data")
    kind.add_argument("--subset", default="default", help="the dataset's configuration")
    kind.add_argument("--train-split", default="train", metavar="NAME")
    kind.add_argument("--test-split", default="test", metavar="NAME")
    kind.add_argument("--question", default="question", metavar="COLUMN")
    kind.add_argument("--answer", default="answer", metavar="COLUMN", help="what follows its last #### is the answer")
    kind.set_defaults(fill=from_hub)

    kind = kinds.add_parser("files", help="files of your own, with question and answer in each line")
    kind.add_argument("--train", required=True, metavar="FILE", help="a path or an address")
    kind.add_argument("--test", required=True, metavar="FILE", help="a path or an address")
    kind.add_argument("--out", type=folder_name, required=True, metavar="NAME", help="folder of the data")
    kind.set_defaults(fill=from_files)
    return parser


_Defaults = argparse.ArgumentDefaultsHelpFormatter


if __name__ == "__main__":
    guarded(main)
