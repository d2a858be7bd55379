"""What a run reads, made where it is not there: the tokenizer and the encoded corpus, beside the corpus itself.

Both lie where the corpus does (`artifacts.py`), under the hash of what they are made from, so that every configuration
and every stage that needs the same one shares it. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_args

from rung.identity import essential
from trainables.arithmetic.artifacts import artifact_path, ensure, problem_with
from trainables.arithmetic.config import ArithmeticConfig, TokenizerConfig
from trainables.arithmetic.corpus import FILES, CorpusLine, corpus_recipe, ensure_corpus, read_items, solution_of
from trainables.arithmetic.corpus_config import CorpusConfig, Format
from trainables.arithmetic.generator import items
from trainables.arithmetic.sequences import Sequences, encoded, pair
from trainables.arithmetic.tokenizer import Tokenizer, count_words, train_tokenizer
from trainables.arithmetic.trace import foundational_text
from trainables.language.trainable import SPLITS

VERSION = 1
"""Changes whenever the same configuration gives other files."""

LEARNT_FROM = 10_000
"""Items of the training part that a tokenizer is learnt from: more have hardly any other words."""

GLIMPSE = 256
"""Items that are looked at to say what is to be expected of a corpus that has not been made."""

Say = Callable[[str], None]


def ensure_tokenizer(config: ArithmeticConfig, say: Say = print) -> Path:
    """The folder of a configuration's tokenizer (`tokenizer.json`), which is learnt if it is not there.

    Raises:
        RungError: it cannot be learnt.
        StorageError: it cannot be written.
    """
    return ensure("tokenizer", _tokenizer_recipe(config), partial(_learn, config, say), say)


def tokenizer_of(config: ArithmeticConfig) -> Tokenizer | None:
    """A configuration's tokenizer, if it has been learnt."""
    path = artifact_path("tokenizer", _tokenizer_recipe(config))
    return Tokenizer.load(path) if problem_with(path) is None else None


def ensure_sequences(config: ArithmeticConfig, say: Say = print) -> Path:
    """The folder of a configuration's corpus as token ids (`Sequences.load`), which is made if it is not there.

    Raises:
        RungError: corpus or tokenizer cannot be made.
        StorageError: something cannot be written.
    """
    return ensure("sequences", _sequences_recipe(config), partial(_encode, config, say), say)


def sequences_of(config: ArithmeticConfig) -> Path | None:
    """The folder of a configuration's corpus as token ids, if it is there."""
    path = artifact_path("sequences", _sequences_recipe(config))
    return path if problem_with(path) is None else None


def expected(config: ArithmeticConfig) -> tuple[int, Sequences]:
    """What a glimpse at the corpus says of what has not been made: tokens of the vocabulary, and some sequences."""
    return _expected(_learnt_from(config), config.tokenizer, config.corpus, config.format, config.mode)


@lru_cache(maxsize=64)
def _expected(
    source: CorpusConfig, tokenizer: TokenizerConfig, corpus: CorpusConfig, format: Format, mode: str
) -> tuple[int, Sequences]:
    learnt = learnt_tokenizer(both_formats(_first(source, GLIMPSE)), tokenizer)
    lines = _first(corpus, min(GLIMPSE, corpus.samples))
    pairs = (pair(*line, format=format, is_instruction=mode == "instruction") for line in lines)
    return learnt.size, encoded(learnt, pairs)


def learnt_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A tokenizer that is learnt from some texts; errors as of `train_tokenizer`."""
    return train_tokenizer(count_words(texts, config.numbers), config.vocabulary, config.numbers)


def both_formats(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Items (expression, solution) as texts, so that a tokenizer that is learnt from them serves either format."""
    return (foundational_text(*line, format) for line in lines for format in get_args(Format))


def _learn(config: ArithmeticConfig, say: Say, folder: Path) -> dict[str, Any]:
    learnt = learnt_tokenizer(both_formats(_first(_learnt_from(config), LEARNT_FROM)), config.tokenizer)
    learnt.save(folder)
    asked = config.tokenizer.vocabulary
    say(f"tokenizer: {learnt.size:,} tokens (at most {asked:,} were asked for)")
    return {"vocabulary": learnt.size, "asked": asked}


def _encode(config: ArithmeticConfig, say: Say, folder: Path) -> dict[str, Any]:
    corpus, tokenizer = ensure_corpus(config.corpus, say), Tokenizer.load(ensure_tokenizer(config, say))
    facts: dict[str, Any] = {}
    for split in SPLITS:
        made = encode_lines(tokenizer, read_items(corpus / FILES[split]), config)
        made.save(folder, split)
        facts[split] = {"sequences": len(made), "tokens": len(made.tokens), "longest": int(made.lengths.max())}
    say(f"encoded corpus: {facts['train']['sequences']:,} sequences, {facts['train']['tokens']:,} tokens to train on")
    return facts


def encode_lines(tokenizer: Tokenizer, lines: Iterable[CorpusLine], config: ArithmeticConfig) -> Sequences:
    """Lines of a corpus as the configuration's mode and format have them; errors as of `encoded`."""
    is_instruction = config.mode == "instruction"
    pairs = (
        pair(line.expression, line.solution, format=config.format, is_instruction=is_instruction) for line in lines
    )
    return encoded(tokenizer, pairs)


def _first(corpus: CorpusConfig, count: int) -> Iterator[tuple[str, str]]:
    """Expression and solution of the first items to train on."""
    return ((item.expression, solution_of(item)) for item in items(corpus, "train", 0, min(count, corpus.samples)))


def _learnt_from(config: ArithmeticConfig) -> CorpusConfig:
    return config.tokenizer.corpus or config.corpus


def _tokenizer_recipe(config: ArithmeticConfig) -> dict[str, Any]:
    corpus = _learnt_from(config)
    known = corpus.model_copy(update={"samples": min(corpus.samples, LEARNT_FROM), "validation_samples": 1})
    own = config.tokenizer.model_copy(update={"corpus": None}).model_dump(mode="json")
    return {"version": VERSION, "tokenizer": essential(TokenizerConfig, own), "corpus": corpus_recipe(known)}


def _sequences_recipe(config: ArithmeticConfig) -> dict[str, Any]:
    text = config.format if config.format == "v2" else f"{config.format} {config.mode}"
    tokenizer = _tokenizer_recipe(config)
    return {"version": VERSION, "corpus": corpus_recipe(config.corpus), "tokenizer": tokenizer, "text": text}
