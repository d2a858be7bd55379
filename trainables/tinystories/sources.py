"""Where the public texts are, and what they are called here. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.language.tokens import Split

MADE_UP = "made-up-stories"
"""The data folder of the made-up stories."""


@dataclass(frozen=True)
class Source:
    """A public text whose documents end with `<|endoftext|>`."""

    what: str
    """What it is and how large, in a sentence."""
    page: str
    """Address of the page that describes it."""
    vocabulary: int
    """Tokens that the course handout learns from it."""
    files: Mapping[Split, str]
    """Addresses; gzip files end in .gz."""


_HUB = "https://huggingface.co/datasets"

SOURCES = {
    "tinystories": Source(
        what="TinyStories V2, 2.2 GB of stories by GPT-4 (Eldan & Li 2023, arXiv 2305.07759; CDLA-Sharing-1.0)",
        page=f"{_HUB}/roneneldan/TinyStories",
        vocabulary=10_000,
        files={
            "train": f"{_HUB}/roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-train.txt",
            "validation": f"{_HUB}/roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-valid.txt",
        },
    ),
    "openwebtext": Source(
        what="a sample of OpenWebText, 12 GB of web pages",
        page=f"{_HUB}/stanford-cs336/owt-sample",
        vocabulary=32_000,
        files={
            "train": f"{_HUB}/stanford-cs336/owt-sample/resolve/main/owt_train.txt.gz",
            "validation": f"{_HUB}/stanford-cs336/owt-sample/resolve/main/owt_valid.txt.gz",
        },
    ),
}
"""By the name of the data folder."""
