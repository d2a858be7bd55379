"""Made-up children's stories from a seeded grammar: text for a laptop without network, of known randomness.

A story is a hero, a friend, a plot and an ending, told in short sentences that hang together: names, pronouns, colours,
places and numbers stay what they were. `story(seed, index)` is a pure function of both, and a hash of its text says
which split it belongs to, so that no validation story is ever trained on. `Story.nats` counts the choices that made a
story. Their mean is an upper bound of the entropy of the text, since different choices may tell the same story; a model
that comes to it has learnt the grammar. The stories of TinyStories proper are far richer. Imports no torch.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trainables.language.bpe import END_OF_TEXT
from trainables.language.tokens import Split
from trainables.tinystories.plots import BOYS, ENDINGS, GIRLS, NUMBERS, OPENINGS, PLOTS, VIRTUES, WORDS

ChoiceT = TypeVar("ChoiceT")

VALIDATION_SHARE = 0.05
"""Part of all stories that is held out."""

HERO = ("hero", "child", "he", "his", "him", "He", "His")
FRIEND = ("friend", "fhe", "fhis", "FHe")
COUNT = ("n", "m", "left")


@dataclass(frozen=True)
class Story:
    """A story, and how much there was to choose in it."""

    text: str
    """Its lines, without a separator behind them."""
    nats: float
    """Negative log-probability of the choices that made it, at least that of its text."""

    @property
    def split(self) -> Split:
        """A hash of the text decides."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return "validation" if int.from_bytes(digest[:6]) < VALIDATION_SHARE * 2**48 else "train"


def story(seed: int, index: int) -> Story:
    """The story of that number, a pure function of `seed` and `index`."""
    choice = _Choice(f"{seed} {index}")
    plot = choice.of(PLOTS)
    words = _Words(choice)
    words["virtue"] = VIRTUES[plot]
    opening, ending = choice.of(OPENINGS), choice.of(ENDINGS)
    middle = [choice.of(step).format_map(words) for step in plot.steps]
    lines = [opening.format_map(words), " ".join(middle), ending.format_map(words)]
    return Story("\n".join(lines), choice.nats)


@dataclass(frozen=True)
class StoryChunk:
    """The stories of a split among those of the numbers from `begin` to before `end`: a `documents.Chunk`."""

    seed: int
    """Of the grammar's choices."""
    split: Split
    """Which of the stories."""
    begin: int
    """The first number."""
    end: int
    """The number behind the last."""
    separator: str = END_OF_TEXT
    """What stands behind each story."""

    def read(self) -> str:
        """The stories as a text file has them."""
        return "".join(f"{told.text}\n{self.separator}\n" for told in self.stories())

    def stories(self) -> Iterator[Story]:
        """The stories themselves."""
        told = (story(self.seed, index) for index in range(self.begin, self.end))
        return (each for each in told if each.split == self.split)


class _Choice:
    """Draws, each of the possibilities being equally likely, and adds up what that takes to tell.

    Python promises that `random()` of a seed stays the same in all its versions; of other methods it does not.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self.nats = 0.0

    def of(self, possible: Sequence[ChoiceT]) -> ChoiceT:
        self.nats += math.log(len(possible))
        return possible[int(self._random.random() * len(possible))]


class _Words(dict[str, str]):
    """The words of one story: drawn when they are first needed, the same from then on."""

    def __init__(self, choice: _Choice) -> None:
        super().__init__()
        self._choice = choice

    def __missing__(self, key: str) -> str:
        if key in WORDS:
            self[key] = self._choice.of(WORDS[key])
        elif key in HERO:
            self._introduce()
        elif key in FRIEND:
            self._meet()
        elif key in COUNT:
            self._count()
        else:
            raise KeyError(key)
        return self[key]

    def _introduce(self) -> None:
        """The hero."""
        is_girl = self._choice.of((True, False))
        he, his, him = ("she", "her", "her") if is_girl else ("he", "his", "him")
        self.update(hero=self._choice.of(GIRLS if is_girl else BOYS), child="girl" if is_girl else "boy")
        self.update(he=he, his=his, him=him, He=he.capitalize(), His=his.capitalize())

    def _meet(self) -> None:
        """The friend, who has another name."""
        hero = self["hero"]
        name = self._choice.of([name for name in (*GIRLS, *BOYS) if name != hero])
        he, his = ("she", "her") if name in GIRLS else ("he", "his")
        self.update(friend=name, fhe=he, FHe=he.capitalize(), fhis=his)

    def _count(self) -> None:
        """n things, m of them given away, the rest left."""
        n = self._choice.of(range(4, len(NUMBERS)))
        m = self._choice.of(range(2, n - 1))
        self.update(n=NUMBERS[n], m=NUMBERS[m], left=NUMBERS[n - m])
