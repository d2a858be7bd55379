"""`answers.html`: questions and answers to read, before and after side by side; one file that needs no other.

What is asked and answered is other people's text: the template escapes it, and a content security policy lets no script
run but the page's own.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.results.answers import AnswerSheet, RunChange
from rung.results.files import replace_file
from rung.results.pages import page_template
from rung.results.views import dicts

if TYPE_CHECKING:
    from rung.results.query import StudyResults

ANSWERS_PAGE = "answers.html"
MOST_SETS = 6
"""Runs whose answers are on one page."""
MOST_LETTERS = 2_000_000
"""Letters of all texts on one page, divided among its runs."""
MOST_OF_A_TEXT = 4_000
"""Letters of one text; the middle of a longer one is left out."""
MOST_MORE = 4
"""Further answers to one question on either side."""
_LONGEST_ANSWER = 80
"""Letters of an answer in a heading."""
_FEWEST_ALIKE = 20
"""Letters that both answers must begin with before that beginning is set in grey."""

_KINDS = {
    (False, True): ("to-right", "changed to right"),
    (True, False): ("to-wrong", "changed to wrong"),
    (False, False): ("both-wrong", "both wrong"),
    (True, True): ("both-right", "both right"),
    (False,): ("wrong", "wrong"),
    (True,): ("right", "right"),
}
"""Whether the first answers are right on each side: the kind's id and name, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Side:
    """Whose answers stand on one side."""

    results: "StudyResults"
    sheet: AnswerSheet
    name: str
    """`step 0`."""


@dataclass(frozen=True, slots=True)
class Given:
    """What one side answered to a question."""

    alike: str
    """The beginning that both sides have in common; empty where it is short."""
    rest: str
    is_same: bool
    """Whether it is what stands on the other side, word for word, and is left out here."""
    is_right: bool
    extracted: str | None
    answers: int
    """To this question."""
    right: int
    more: Sequence[tuple[str, bool]]
    """Some further answers, and whether each is right."""

    @property
    def left_out(self) -> int:
        """Further answers that are not on the page."""
        return self.answers - 1 - len(self.more)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the answers to it."""

    number: int
    """Its place in the test, from 1."""
    kind: str
    title: str
    prompt: str
    gold: str
    given: Sequence[Given]

    @property
    def letters(self) -> int:
        """How much room it takes."""
        texts = (
            len(each.alike) + len(each.rest) + len(each.extracted or "") + sum(len(text) for text, _ in each.more)
            for each in self.given
        )
        return len(self.prompt) + len(self.gold) + sum(texts)


@dataclass(frozen=True, slots=True)
class Kind:
    """Questions with the same outcome."""

    id: str
    title: str
    total: int
    shown: int


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """The questions that a run, or two, answered."""

    id: str
    title: str
    sides: Sequence[str]
    kinds: Sequence[Kind]
    questions: Sequence[Asked]
    """In the order of the test."""

    @property
    def total(self) -> int:
        """Questions that were answered."""
        return sum(kind.total for kind in self.kinds)

    @property
    def left_out(self) -> str:
        """What is not on the page, in words; empty if everything is."""
        cut = [f"{kind.shown:,} of {kind.total:,} {kind.title}" for kind in self.kinds if kind.shown < kind.total]
        return f"The page holds {len(self.questions):,} of {self.total:,} questions: {', '.join(cut)}." if cut else ""


def answer_set(id: str, title: str, sides: Sequence[Side], letters: int) -> AnswerSet:
    """The questions that all sides were asked, as many as have room.

    Args:
        id: of the set in the page.
        sides: one, or before and after.
        letters: room for their texts. Every kind of outcome gets its turn, so rare ones are there in full.
    """
    texts = [_read(side) for side in sides]
    common = [question for question in texts[-1] if all(question in each for each in texts)]
    asked = [_asked(number, [each[question] for each in texts]) for number, question in enumerate(common, start=1)]
    by_kind = {kind: [each for each in asked if each.kind == kind] for kind, _ in _KINDS.values()}
    kept = _fitting(by_kind, letters)
    kinds = [
        Kind(kind, name, len(by_kind[kind]), sum(each.kind == kind for each in kept))
        for key, (kind, name) in _KINDS.items()
        if len(key) == len(sides)
    ]
    return AnswerSet(id, title, [side.name for side in sides], kinds, sorted(kept, key=lambda each: each.number))


def _fitting(by_kind: Mapping[str, Sequence[Asked]], letters: int) -> list[Asked]:
    """One question of each kind after the other, until there is no room; at least one."""
    kept: list[Asked] = []
    for asked in (each for turn in zip_longest(*by_kind.values()) for each in turn if each is not None):
        letters -= asked.letters
        if letters < 0 and kept:
            break
        kept.append(asked)
    return kept


def _read(side: Side) -> dict[int, list[dict[str, Any]]]:
    """The answers to each question, in the order in which they were asked."""
    rows = dicts(
        side.results.query(f"""
            SELECT hash(prompt, gold) AS question, prompt, gold, response, extracted, reward = 1 AS is_right,
                   count(*) OVER everyone AS answers, sum(reward) OVER everyone AS right
            FROM generations
            WHERE run_id = '{side.sheet.run_id}' AND step = {side.sheet.step} AND gold IS NOT NULL
            WINDOW everyone AS (PARTITION BY prompt, gold)
            QUALIFY row_number() OVER (PARTITION BY prompt, gold ORDER BY "index") <= {1 + MOST_MORE}
            ORDER BY "index"
        """)
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["question"], []).append(row)
    return found


def _asked(number: int, sides: Sequence[Sequence[Mapping[str, Any]]]) -> Asked:
    texts = [_cut(rows[0]["response"]) for rows in sides]
    is_same = [False, *(rows[0]["response"] == sides[0][0]["response"] for rows in sides[1:])]
    alike = 0 if any(is_same) else _common_beginning(texts)
    given = [
        Given(
            alike=text[:alike],
            rest="" if same else text[alike:],
            is_same=same,
            is_right=rows[0]["is_right"],
            extracted=_short(rows[0]["extracted"]),
            answers=rows[0]["answers"],
            right=int(rows[0]["right"]),
            more=[(_cut(row["response"]), row["is_right"]) for row in rows[1:]],
        )
        for rows, text, same in zip(sides, texts, is_same, strict=True)
    ]
    kind, title = _KINDS[tuple(each.is_right for each in given)]
    first = sides[0][0]
    return Asked(number, kind, title, _cut(first["prompt"]).strip("\n"), _short(first["gold"]) or "", given)


def _short(answer: str | None) -> str | None:
    """What fits into a heading: of a model that knows no tags, the whole response may count as its answer."""
    return answer if answer is None or len(answer) <= _LONGEST_ANSWER else f"{answer[:_LONGEST_ANSWER]} …"


def _common_beginning(texts: Sequence[str]) -> int:
    """Letters of whole words that two texts begin with; 0 where there are few, or only one text."""
    if len(texts) < 2:
        return 0
    places = range(min(map(len, texts)))
    end = next((place for place in places if texts[0][place] != texts[1][place]), len(places))
    while end and not texts[0][end - 1].isspace():
        end -= 1
    return end if end >= _FEWEST_ALIKE else 0


def _cut(text: str) -> str:
    if len(text) <= MOST_OF_A_TEXT:
        return text
    half = MOST_OF_A_TEXT // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} letters left out …]\n{text[-half:]}"


# --------------------------------------------------------------------------------------------------- page


def sides_of(run: RunChange, before: "StudyResults", after: "StudyResults", names: Sequence[str] = ()) -> list[Side]:
    """Before and after, called by their steps if no names are given."""
    sheets = (run.before, run.after)
    called = names or [f"step {sheet.step:,}" for sheet in sheets]
    return [Side(*each) for each in zip((before, after), sheets, called, strict=True)]


def write_answers_page(
    directory: Path, study: str, chosen: Sequence[tuple[str, str, Sequence[Side]]], runs: int
) -> dict[str, str]:
    """Write `answers.html` into a directory, where `report.html` is too; returns where each set begins, by its id.

    Args:
        study: name of the study or pipeline.
        chosen: id, title and sides of each set of answers; the first `MOST_SETS` are taken.
        runs: how many runs have answers, to say how many are left out.

    Raises StorageError if it cannot be written.
    """
    taken = chosen[:MOST_SETS]
    sets = [answer_set(*each, MOST_LETTERS // len(taken)) for each in taken]
    script = (Path(__file__).parent / "answers_page.js").read_text()
    page = page_template("answers.html.j2").render(
        study=study,
        sets=sets,
        runs=runs,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    replace_file(directory / ANSWERS_PAGE, page.encode())
    return {id: f"{ANSWERS_PAGE}#{id}" for id, _, _ in taken}
