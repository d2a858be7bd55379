"""`answers.html` as a browser shows it: filters and search work, and a link leads to the answers that it names."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from rung.results.answers_report import write_study_answers
from rung.results.query import load
from rung.results.snapshot import take_snapshot
from tests.integration.test_report_in_browser import BROWSER, browse, complaints
from tests.made_up_answers import Answered, single, write_answered_study
from tests.made_up_studies import MadeUp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH to look at the page with"),
]

TWO = MadeUp({"model.kind": ["gpt", "lstm"]}, seeds=1)
BEFORE = single(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0)
AFTER = single(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    answered = [Answered(right, c, 0, t) for c in (0, 1) for t, right in ((0, BEFORE), (1000, AFTER))]
    snapshot = take_snapshot(results := load(write_answered_study(folder / "demo", TWO, answered)))
    write_study_answers(results, snapshot.answers, snapshot.changes, folder)
    return folder / "answers.html"


def _shown(page: Path, folder: Path, fragment: str) -> tuple[dict[str, int], str]:
    """How many questions of each set are to be seen, and what the page says about that."""
    done = browse(page, folder, "--dump-dom", fragment=fragment)
    assert complaints(done.stderr) == []
    sets = re.findall(r'<section class="set" id="([^"]*)"[^>]*?( hidden="")?>(.*?)</section>', done.stdout, re.DOTALL)
    seen = {id: 0 if hidden else len(re.findall(r"<article(?![^>]*hidden)", body)) for id, hidden, body in sets}
    (said,) = re.findall(r"<output[^>]*>(.*?)</output>", done.stdout)
    return seen, said


def test_a_link_leads_to_one_run_and_one_kind_of_change(page: Path, tmp_path: Path) -> None:
    first, second = (f"{TWO.config_id(index)}-s0" for index in (0, 1))
    assert _shown(page, tmp_path, "") == ({first: 12, second: 0}, "12 of 12 questions")
    assert _shown(page, tmp_path, f"{second}-to-right") == (
        {first: 0, second: 8},
        "8 of 12 questions, changed to right",
    )
    assert _shown(page, tmp_path, "nonsense")[0] == {first: 12, second: 0}


def test_searching_and_keys_work(page: Path, tmp_path: Path) -> None:
    """A script of the test's own uses the page; its policy, which would not let it run, is taken out."""
    script = """
    const key = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    search.value = "1 + 3"; search.dispatchEvent(new Event("input", { bubbles: true }));
    const found = document.querySelectorAll("section.set:not([hidden]) article:not([hidden])").length;
    search.value = ""; search.dispatchEvent(new Event("input", { bubbles: true }));
    key("j"); key("j"); const second = document.activeElement.getAttribute("aria-label");
    key("k"); const first = document.activeElement.getAttribute("aria-label");
    key("/"); const focused = document.activeElement.id;
    document.title = JSON.stringify({ found, second, first, focused, said: count.textContent });
    """
    text = re.sub(r"<meta http-equiv.*?>", "", page.read_text()).replace("</script>", script + "</script>")
    changed = tmp_path / "changed.html"
    changed.write_text(text)
    done: subprocess.CompletedProcess[str] = browse(changed, tmp_path, "--dump-dom")
    assert complaints(done.stderr) == []
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    said = json.loads(title)
    assert said["found"] == 1
    assert said["first"] == "Question 1, changed to right"
    assert said["second"] == "Question 2, changed to right"
    assert said["focused"] == "search"
    assert said["said"] == "12 of 12 questions"


def test_the_page_can_be_printed(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(page, tmp_path, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
