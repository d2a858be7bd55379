"""Makes the data of `tinystories` from text: made up, of your own, or downloaded.

    python -m trainables.tinystories.prepare made-up
    python -m trainables.tinystories.prepare text --train story.txt --vocabulary 2000 --out story
    python -m trainables.tinystories.prepare text --train train.txt --validation valid.txt --out tales
    python -m trainables.tinystories.prepare tinystories
    python -m trainables.tinystories.prepare openwebtext

The folder lies in RUNG_DATA, or in `data`; a study names it with `data`. A folder that is there is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rung.errors import RungError
from trainables.language.bpe import END_OF_TEXT
from trainables.language.command_line import folder_name
from trainables.language.documents import cut, hold_out
from trainables.language.download import download, unpack
from trainables.language.preparation import Text, prepare
from trainables.language.token_writer import refuse_existing
from trainables.language.tokens import Split, data_root
from trainables.tinystories.sources import MADE_UP, SOURCES, Source
from trainables.tinystories.stories import StoryChunk

STORIES_IN_CHUNK = 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        path = data_root() / options.out
        refuse_existing(path)
        text: Text = options.text(options)
        prepare(path, text, vocabulary=options.vocabulary, tokenizer=options.tokenizer, processes=options.processes)
    except RungError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def made_up(options: argparse.Namespace) -> Text:
    """Stories of the grammar."""
    begins = range(0, options.stories, STORIES_IN_CHUNK)
    chunks: dict[Split, list[StoryChunk]] = {
        split: [StoryChunk(options.seed, split, n, min(n + STORIES_IN_CHUNK, options.stories)) for n in begins]
        for split in ("train", "validation")
    }
    nats = sum(story.nats for chunk in chunks["validation"] for story in chunk.stories())
    source = {"made_up": "stories", "stories": options.stories, "seed": options.seed, "validation_nats": nats}
    return Text(chunks, source)


def own_text(options: argparse.Namespace) -> Text:
    """Text files on this machine."""
    separator = options.separator
    train = cut(options.train, separator)
    source: dict[str, str | int | float] = {"train": str(options.train), "separator": separator}
    if options.validation is not None:
        if options.validation.exists() and options.validation.samefile(options.train):
            raise RungError(
                f"--train and --validation are the same file, {options.train}: a model would be judged by what it has "
                "read. Leave --validation out, and the end of the training file is held out"
            )
        return Text(
            {"train": train, "validation": cut(options.validation, separator)},
            {**source, "validation": str(options.validation)},
        )
    train, held_out = hold_out(train, options.held_out)
    return Text({"train": train, "validation": held_out}, {**source, "held_out": options.held_out})


def downloaded(options: argparse.Namespace) -> Text:
    """A public text."""
    source = SOURCES[options.kind]
    folder = data_root() / "downloads"
    files = {split: _fetched(source, split, folder) for split in source.files}
    return Text({split: cut(file) for split, file in files.items()}, {"downloaded": source.page})


def _fetched(source: Source, split: Split, folder: Path) -> Path:
    url = source.files[split]
    path = download(url, folder / url.rsplit("/", 1)[-1])
    return unpack(path) if path.suffix == ".gz" else path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.tinystories.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")

    kind = _kind(kinds, "made-up", "stories of a small grammar, without network", MADE_UP, 1000)
    kind.add_argument("--stories", type=_count, default=20_000, help="how many, both splits together")
    kind.add_argument("--seed", type=int, default=0, help="of the stories")
    kind.set_defaults(text=made_up)

    kind = _kind(kinds, "text", "text files of your own, UTF-8", None, 10_000)
    kind.add_argument("--train", type=Path, required=True, metavar="FILE")
    kind.add_argument("--validation", type=Path, metavar="FILE", help="without it, the end of the training file")
    kind.add_argument(
        "--held-out", type=_share, default=0.1, metavar="SHARE", help="of the training file, without --validation"
    )
    kind.add_argument(
        "--separator", type=_separator, default=END_OF_TEXT, help=r"what ends a document; \n is a line end"
    )
    kind.set_defaults(text=own_text)

    for name, source in SOURCES.items():
        kind = _kind(kinds, name, f"{source.what}, from {source.page}", name, source.vocabulary)
        kind.set_defaults(text=downloaded)
    return parser


def _kind(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    out: str | None,
    vocabulary: int,
) -> argparse.ArgumentParser:
    kind = kinds.add_parser(name, help=what, description=what, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    kind.add_argument(
        "--out", type=folder_name, default=out, required=out is None, metavar="NAME", help="folder of the data"
    )
    kind.add_argument("--vocabulary", type=int, default=vocabulary, help="tokens to learn")
    kind.add_argument(
        "--tokenizer", type=Path, metavar="PATH", help="one that was learnt before: its file, or a folder of tokens"
    )
    kind.add_argument("--processes", type=_count, metavar="N", help="that encode; as many as processors")
    return kind


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def _separator(text: str) -> str:
    """The text, escapes such as \n replaced by what they stand for."""
    try:
        separator = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(rf"{text!r}: {error.reason}; a backslash itself is \\") from error
    if not separator:
        raise argparse.ArgumentTypeError("it is empty, so it ends no document")
    return separator


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
