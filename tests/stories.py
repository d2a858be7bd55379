"""Data of `tinystories` small enough to be made in a test: a few made-up stories in a vocabulary of 300 tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.language.preparation import Text, prepare
from trainables.language.tokens import Split, TokenFolder
from trainables.language.trainable import SPLITS
from trainables.tinystories.stories import StoryChunk

VOCABULARY = 300

SMALL_STORIES: dict[str, Any] = {
    "data": "few-stories",
    "vocabulary": VOCABULARY,
    "context": 16,
    "batch_size": 4,
    "evaluation_tokens": 128,
    "model": {"layers": 2, "width": 16, "heads": 2, "norm_kind": "rms", "positions": "rope", "mlp": "swiglu"},
}
"""A configuration that trains on them in milliseconds."""


def few_stories(root: Path, name: str = "few-stories", count: int = 150) -> TokenFolder:
    """Prepares them in `root`/`name`."""
    chunks: dict[Split, list[StoryChunk]] = {split: [StoryChunk(0, split, 0, count)] for split in SPLITS}
    nats = sum(story.nats for story in chunks["validation"][0].stories())
    text = Text(chunks, {"made_up": "stories", "validation_nats": nats})
    return prepare(root / name, text, vocabulary=VOCABULARY, processes=1, say=lambda line: None)
