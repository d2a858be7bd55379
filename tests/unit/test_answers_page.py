"""`answers.html` and the sections of reports that lead to it: whole, safe, and plain about what is left out."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rung.results import answers_page
from rung.results.answers import changes_in, read_answers
from rung.results.answers_page import answer_set, sides_of, write_answers_page
from rung.results.answers_report import write_study_answers
from rung.results.pipeline import PipelineResults
from rung.results.pipeline_report import write_pipeline_report
from rung.results.query import StudyResults, load
from rung.results.report import render, write_report
from rung.results.snapshot import take_snapshot
from tests.made_up_answers import Answered, single, write_answered_study
from tests.made_up_studies import MadeUp

ONE = MadeUp({"model.kind": ["gpt"]}, seeds=1)
BEFORE = single(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0)
AFTER = single(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=alert(1)> & \x00 \u202e"


class Page(HTMLParser):
    """The elements of a page, which have to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.articles: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        self.tags.append(tag)
        found = dict(attrs)
        assert not any(name.startswith("on") for name in found)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        if tag == "article":
            self.articles.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def study(tmp_path: Path, *answered: Answered, made_up: MadeUp = ONE, name: str = "demo") -> StudyResults:
    return load(write_answered_study(tmp_path / name, made_up, answered))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study whose model answers before and after, and one of whose texts is hostile."""
    root = tmp_path_factory.mktemp("answers")
    hostile = Answered(AFTER, step=1000, responses={3: HOSTILE})
    return write_report(study(root, Answered(BEFORE), hostile)).parent


# --------------------------------------------------------------------------------------------------- a study


def test_the_page_holds_every_question_with_both_answers(written: Path) -> None:
    page = Page((written / "answers.html").read_text())
    kinds = [article["data-kind"] for article in page.articles]
    assert kinds == ["to-right"] * 8 + ["both-right"] * 2 + ["to-wrong", "both-wrong"]
    assert page.tags.count("script") == 1
    assert not {"img", "iframe", "object"} & set(page.tags)
    assert page.links == ["report.html"]


def test_no_script_but_the_pages_own_may_run(written: Path) -> None:
    text = (written / "answers.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_the_report_leads_to_the_answers(written: Path) -> None:
    page = Page((written / "report.html").read_text())
    run_id = f"{ONE.config_id(0)}-s0"
    expected = {"both-right", "to-right", "to-wrong", "both-wrong"}
    assert {f"answers.html#{run_id}-{kind}" for kind in expected} <= set(page.links)
    assert "answers-section" in page.ids
    assert run_id in Page((written / "answers.html").read_text()).ids
    assert (written / "answers.png").stat().st_size > 10_000


def test_the_same_rows_give_the_same_page(written: Path) -> None:
    before = (written / "answers.html").read_bytes()
    results = load(written.parent)
    answers = read_answers(results)
    links = write_study_answers(results, answers, changes_in(answers), written)
    assert links == {f"{ONE.config_id(0)}-s0": f"answers.html#{ONE.config_id(0)}-s0"}
    assert (written / "answers.html").read_bytes() == before


def test_answers_of_one_step_can_be_read_too(tmp_path: Path) -> None:
    snapshot = take_snapshot(results := study(tmp_path, Answered(AFTER, step=1000)))
    links = write_study_answers(results, snapshot.answers, snapshot.changes, tmp_path)
    page = Page((tmp_path / "answers.html").read_text())
    assert [article["data-kind"] for article in page.articles].count("right") == 10
    report = render(snapshot, [], {}, links)
    assert "answers-section" not in report
    assert 'href="answers.html#' in report


def test_a_study_without_a_test_has_no_page(tmp_path: Path) -> None:
    snapshot = take_snapshot(results := study(tmp_path, Answered(single(1, 0, 1))))
    assert write_study_answers(results, snapshot.answers, snapshot.changes, tmp_path) == {}
    assert not (tmp_path / "answers.html").exists()
    assert "answers.html" not in render(snapshot, [], {}, {})


# ------------------------------------------------------------------------------------------ what is left out


def test_every_kind_has_its_turn_where_room_is_short(tmp_path: Path) -> None:
    results = study(tmp_path, Answered(BEFORE), Answered(AFTER, step=1000))
    (change,) = changes_in(read_answers(results))
    sides = sides_of(change.runs[0], results, results)
    whole = answer_set("id", "title", sides, 10**6)
    assert (whole.total, len(whole.questions), whole.left_out) == (12, 12, "")
    letters = sum(question.letters for question in whole.questions)
    short = answer_set("id", "title", sides, letters // 2)
    assert [kind.shown for kind in short.kinds if kind.total == 1] == [1, 1]
    shown = next(kind.shown for kind in short.kinds if kind.id == "to-right")
    assert 1 <= shown < 8
    assert short.left_out.startswith(f"The page holds {len(short.questions)} of 12 questions: {shown} of 8 changed to")
    assert [question.number for question in short.questions] == sorted(question.number for question in short.questions)
    assert len(answer_set("id", "title", sides, 1).questions) == 1


def test_long_texts_lose_their_middle_and_further_answers_are_counted(tmp_path: Path) -> None:
    many = [[True, *[False] * 7], *single(*[1] * 11)]
    long = Answered(many, step=1000, responses={0: "a" * 9000 + "b"})
    results = study(tmp_path, Answered(BEFORE), long)
    (change,) = changes_in(read_answers(results))
    first = answer_set("id", "title", sides_of(change.runs[0], results, results), 10**6).questions[0].given[1]
    assert "[… 5,001 letters left out …]" in first.rest
    assert first.rest.endswith("b")
    assert (first.answers, first.right, len(first.more), first.left_out) == (8, 1, 4, 3)


def test_the_common_beginning_and_the_same_answer_are_not_repeated(tmp_path: Path) -> None:
    results = study(tmp_path, Answered(BEFORE), Answered(AFTER, step=1000))
    (change,) = changes_in(read_answers(results))
    questions = answer_set("id", "title", sides_of(change.runs[0], results, results), 10**6).questions
    old, new = questions[0].given
    assert (old.alike, old.rest) == ("Let me think about it for a moment. It must be ", "-1")
    assert (new.alike, new.rest, new.is_same) == (old.alike, "1", False)
    assert [given.is_same for given in questions[-1].given] == [False, True]  # both wrong in the same words
    assert questions[-1].given[1].rest == ""


def test_runs_beyond_the_most_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_page, "MOST_SETS", 1)
    results = study(tmp_path, Answered(BEFORE), Answered(AFTER, step=1000))
    (change,) = changes_in(read_answers(results))
    chosen = [(name, name, sides_of(change.runs[0], results, results)) for name in ("one", "two")]
    assert write_answers_page(tmp_path, "demo", chosen, 5) == {"one": "answers.html#one"}
    assert "The page holds 1 of 5 runs" in (tmp_path / "answers.html").read_text()


# -------------------------------------------------------------------------------------------------- a pipeline


def _stage(name: str, folder: str | None) -> dict[str, object]:
    times = {"state": "complete", "started_at": None, "ended_at": None, "seconds": 1.0}
    return {"study": name, "folder": folder, "folders": {folder: times} if folder else {}}


def test_a_pipeline_compares_a_stage_with_the_last_one_that_was_asked_the_same(tmp_path: Path) -> None:
    study(tmp_path, Answered(BEFORE), name="evaluation-1")
    study(tmp_path, name="training")
    study(tmp_path, Answered(AFTER), name="evaluation-2")
    folders = ["evaluation-1", "training", "evaluation-2", None]
    stages = [_stage(folder or "waiting", folder) for folder in folders]
    (tmp_path / "all").mkdir()
    record = {"format": 1, "pipeline": "all", "stages": stages, "launches": [{"command": "rung run all.yaml"}]}
    (tmp_path / "all" / "pipeline.json").write_text(json.dumps(record))
    page = write_pipeline_report(PipelineResults(tmp_path / "all"))
    text = page.read_text()
    assert "evaluation-1 → evaluation-2" in text
    assert "10 are answered right in evaluation-2 and 3 in evaluation-1" in " ".join(text.split())
    run_id = f"{ONE.config_id(0)}-s0"
    assert f'href="answers.html#3-{run_id}-to-right"' in text
    answers = Page((page.parent / "answers.html").read_text())
    assert f"3-{run_id}" in answers.ids
    assert len(answers.articles) == 12
    assert (page.parent / "answers_3.svg").is_file()
