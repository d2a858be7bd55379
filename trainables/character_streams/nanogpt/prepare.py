"""`prepare`: a stream or a text as files of tokens, and a look at what they hold. Imports no torch.

    train.bin, val.bin   token ids, uint16, as nanoGPT reads them
    meta.json            the characters in the order of their tokens, and the stream that made the lines

From a `prepare.py` of your own:

    if __name__ == "__main__":
        prepare(f"{__file__}:lines", Path(__file__).parent, seed=1)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.errors import RungError
from rung.explain import findings
from rung.results.files import replace_file
from trainables.character_streams.config import CharacterStreamsConfig
from trainables.character_streams.corpus import BINS, Corpus, corpus
from trainables.character_streams.meta import META, Meta
from trainables.character_streams.vocabulary import Characters
from trainables.language.tokens import Split

SHOWN_LINES = 20
OWN = ("characters", "validation_fraction", "held_out")
"""Settings that are no part of a stream."""


def prepare(source: str, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """Writes the files of a data set, prints what is in them and returns the folder.

    Args:
        source: a stream (`insert-spaces`, `package.module:function`, `path/to/file.py:function`), or a text file.
        folder: where the files go; they are replaced.
        seed: of the stream, and of which lines are held out.
        settings: `characters`, `validation_fraction` and `held_out`, as in `CharacterStreamsConfig`; all others are
            fields of `StreamConfig`, or options of a function of your own.

    Raises:
        RungError: there is no such stream or text, or it does not take the settings.
        StorageError: the files cannot be written.
    """
    config = _config(source, settings)
    made = corpus(config, seed)
    assert isinstance(made.codec, Characters)
    stream = None if config.data else _stored(config.stream.model_dump(mode="json"), folder)
    meta = Meta(
        characters=made.codec.characters,
        stream=stream,
        data_seed=seed if stream else None,
        lengths={name: len(made.splits[split]) for split, name in BINS.items()},
    )
    for split, name in BINS.items():
        replace_file(folder / name, made.splits[split].astype("<u2").tobytes())
    replace_file(folder / META, meta.model_dump_json(indent=2).encode())
    print(describe(made, folder))
    return folder


def describe(made: Corpus, folder: Path) -> str:
    """The first lines, the length, the vocabulary."""
    assert isinstance(made.codec, Characters)
    splits: tuple[Split, ...] = ("train", "validation")
    train, validation = (made.splits[split] for split in splits)
    first = made.codec.decode(train[:4000].tolist()).split("\n")[:SHOWN_LINES]
    lines = [made.codec.decode(made.splits[split].tolist()).splitlines() for split in splits]
    seen = set(lines[0])
    known = sum(line in seen for line in lines[1])
    rows = [
        f"First {len(first)} lines:",
        *first,
        f"length of the data set in characters: {len(train) + len(validation):,}",
        f"all the different characters: |{'|'.join(map(repr, made.codec.characters))}|",
        f"vocabulary size: {len(made.codec):,}",
        f"train has {len(train):,} tokens in {len(lines[0]):,} lines, {len(seen):,} of them different",
        f"val has {len(validation):,} tokens in {len(lines[1]):,} lines, {known:,} of which train has, too",
    ]
    theory = made.stream.theory if made.stream else None
    if theory and theory.floor is not None:
        guessed = "" if theory.plateau is None else f"; {theory.plateau:.4f} with format known and answers guessed"
        rows.append(f"entropy of the lines: {theory.floor:.4f} nats per character{guessed}")
    return "\n".join([*rows, f"written to {folder}: {', '.join([*BINS.values(), META])}"])


def _config(source: str, settings: dict[str, Any]) -> CharacterStreamsConfig:
    own: dict[str, Any] = {name: settings[name] for name in OWN if name in settings}
    rest = {name: value for name, value in settings.items() if name not in own}
    values: dict[str, Any]
    if Path(source).is_file():
        if rest:
            raise RungError(f"{', '.join(rest)}: a text file has no such settings")
        values = {"data": str(Path(source).resolve()), "validation_fraction": 0.1, **own}
    else:
        is_own = ":" in source
        values = {"stream": {"name": source, "options": rest} if is_own else {"name": source, **rest}, **own}
    try:
        return CharacterStreamsConfig.model_validate(values)
    except ValidationError as error:
        found = findings(error, CharacterStreamsConfig, values)
        texts = [f"{each.message} ({each.hint})" if each.hint else each.message for each in found]
        names = [".".join(map(str, each.path)).removeprefix("stream.") for each in found]
        raise RungError("\n".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))) from error


def _stored(stream: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A stream as `meta.json` keeps it: a function's file relative to the folder, so that both can be moved."""
    place, _, function = str(stream["name"]).rpartition(":")
    if not place.endswith(".py"):
        return stream
    absolute = Path(place).resolve()
    inside = absolute.is_relative_to(folder.resolve())
    return {**stream, "name": f"{absolute.relative_to(folder.resolve()) if inside else absolute}:{function}"}
