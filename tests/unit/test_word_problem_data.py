"""Word problems from files, from a server on this machine, and how they are put to a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rung.errors import RungError
from trainables.word_problems import prepare
from trainables.word_problems.dataset import DatasetConfig, ProblemSets, load_problems, sizes
from trainables.word_problems.problem_files import WordProblem, is_held_out, jsonl, read_jsonl, read_svamp
from trainables.word_problems.prompts import SYSTEM_PROMPT, PromptConfig, chat
from trainables.word_problems.rewards import REWARDS, SETS

LINE = (
    '{"question": "Two bolts and half as many. How many?", "answer": "2/2=<<2/2=1>>1 bolt\\n2+1=<<2+1=3>>3\\n#### 3"}\n'
)


def lines(split: str, count: int) -> str:
    """Problems of a split in the form of GSM8K."""
    made = [WordProblem(f"{split}: {n} apples and 1. How many?", str(n + 1), f"{n}+1={n + 1}") for n in range(count)]
    return jsonl(made)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with 40 and 20 problems in `gsm8k`."""
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    (folder / "train.jsonl").write_text(lines("train", 40))
    (folder / "test.jsonl").write_text(lines("test", 20))
    return tmp_path


def asked(problems: ProblemSets) -> tuple[list[str], ...]:
    return tuple([each.question for each in part] for part in (problems.train, problems.test, problems.examples))


# Files.


def test_a_line_of_gsm8k(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(f"{LINE}\n")
    problem = WordProblem("Two bolts and half as many. How many?", "3", "2/2=1 bolt\n2+1=3")
    assert read_jsonl(tmp_path / "train.jsonl") == [problem]
    (tmp_path / "again.jsonl").write_text(jsonl([problem]))
    assert read_jsonl(tmp_path / "again.jsonl") == [problem]


def test_an_answer_may_be_plain(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(
        '{"question": "1 + 1?", "answer": 2}\n{"question": "Which day?", "answer": "Monday"}'
    )
    assert [each.answer for each in read_jsonl(tmp_path / "own.jsonl")] == ["2", "Monday"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (f"{LINE}{{", r":2: not valid JSON"),
        ('{"question": "a"}', r':1: expected {"question": "...", "answer": "..."}'),
        ('{"question": "a", "answer": "b ####  "}', ":1: the answer is empty"),
        ('{"question": " ", "answer": "b"}', ":1: the question is empty"),
        ('{"question": "a", "answer": true}', ":1: question and answer must be text"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RungError, match=words):
        read_jsonl(path)


def svamp(count: int) -> list[dict[str, Any]]:
    names = ("Paco", "Lucy", "Dan", "Mary", "Adam", "Zoe")
    return [
        {
            "ID": f"chal-{n}",
            "Body": f"{names[n // 2 % 6]} had {n} cakes of kind {'abcdefgh'[n // 12 % 8]}. If he ate 1",
            "Question": "How many are left?",
            "Equation": f"( {n}.0 - 1.0 )",
            "Answer": float(n - 1),
            "Type": "Subtraction",
        }
        for n in range(count)
    ]


def test_svamp(tmp_path: Path) -> None:
    path = tmp_path / "SVAMP.json"
    path.write_text(json.dumps(svamp(96)))
    train, test = read_svamp(path, "train"), read_svamp(path, "test")
    assert len(train) + len(test) == 96
    assert 10 <= len(test) <= 48
    first = next(each for each in [*train, *test] if "had 10 " in each.question)
    assert first == WordProblem("Zoe had 10 cakes of kind a. If he ate 1, how many are left?", "9", "10 - 1 = 9")
    # Stories that differ in numbers only are in one split.
    assert is_held_out("Paco had 3 cakes.") == is_held_out("Paco had 17 cakes")
    assert asked(load_problems(DatasetConfig(path=str(tmp_path), test_samples=5)))[0] == [
        each.question for each in train
    ]
    path.write_text('[{"Body": "a"}]')
    with pytest.raises(RungError, match="is not SVAMP"):
        read_svamp(path, "train")


# Which problems.


@pytest.mark.usefixtures("data")
def test_everything_is_taken_in_the_order_of_the_files() -> None:
    train, test, examples = asked(load_problems(DatasetConfig()))
    assert train == [f"train: {n} apples and 1. How many?" for n in range(40)]
    assert test == [f"test: {n} apples and 1. How many?" for n in range(20)]
    assert examples == []
    assert sizes(DatasetConfig()) == (40, 20)


@pytest.mark.usefixtures("data")
def test_samples_are_a_function_of_the_seed_and_grow() -> None:
    few = asked(load_problems(DatasetConfig(train_samples=6, test_samples=4), examples=2))
    assert list(map(len, few)) == [6, 4, 2]
    assert few == asked(load_problems(DatasetConfig(train_samples=6, test_samples=4), examples=2))
    more = asked(load_problems(DatasetConfig(train_samples=12, test_samples=9), examples=2))
    assert set(few[0]) < set(more[0])
    assert set(few[1]) < set(more[1])
    assert few[2] == more[2]
    assert not set(few[2]) & set(more[0])
    assert few[0] != asked(load_problems(DatasetConfig(train_samples=6, test_samples=4, seed=1)))[0]


@pytest.mark.usefixtures("data")
def test_both_parts_of_the_training_split() -> None:
    config = DatasetConfig(train_samples=30, test_samples=10, test_from="train")
    train, test, _ = asked(load_problems(config))
    assert (len(train), len(test)) == (30, 10)
    assert not set(train) & set(test)
    assert all(question.startswith("train") for question in test)
    with pytest.raises(ValidationError, match="give train_samples and test_samples"):
        DatasetConfig(test_from="train", train_samples=3)


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("config", "examples", "words"),
    [
        (
            DatasetConfig(train_samples=39),
            2,
            "data.train_samples asks for 39 problems, and .*gsm8k has 38 to choose from",
        ),
        (DatasetConfig(test_samples=21), 0, "data.test_samples asks for 21 problems"),
        (DatasetConfig(train_samples=30, test_samples=20, test_from="train"), 0, "asks for 20 .* has 10"),
        (DatasetConfig(), 41, "prompt.examples asks for 41"),
    ],
)
def test_more_than_there_are(config: DatasetConfig, examples: int, words: str) -> None:
    with pytest.raises(RungError, match=words):
        load_problems(config, examples)


def test_a_question_in_both_splits(data: Path) -> None:
    with (data / "gsm8k" / "test.jsonl").open("a") as file:
        file.write('{"question": "Train: 3 apples,  and 1: how many", "answer": "4"}\n')
    with pytest.raises(RungError, match=r"1 questions are both trained and tested on .*'Train: 3 apples"):
        load_problems(DatasetConfig())


def test_missing_files(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DatasetConfig().missing() is None
    (data / "gsm8k" / "test.jsonl").unlink()
    assert "there is no test.jsonl" in str(DatasetConfig().missing())
    with pytest.raises(RungError, match=r"`python -m trainables\.word_problems\.prepare svamp` puts"):
        load_problems(DatasetConfig(name="svamp"))
    assert "prepare files --train FILE --test FILE --out own" in str(DatasetConfig(name="own").missing())
    assert "leave out data.path" in str(DatasetConfig(path="nowhere").missing())
    # Planned without files: the sizes that were published.
    assert sizes(DatasetConfig(), 3) == (7470, 1319)
    assert sizes(DatasetConfig(train_samples=30, test_samples=20), 3) == (30, 20)
    assert sizes(DatasetConfig(name="own", train_samples=30)) is None


def test_a_path_is_found_from_the_import_path_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of a sweep has another working directory, and that of the command on its import path."""
    (data / "elsewhere").mkdir()
    monkeypatch.chdir(data / "elsewhere")
    monkeypatch.syspath_prepend(data)
    config = DatasetConfig(path="gsm8k")
    assert config.missing() is None
    assert [file.parent for file in config.files] == [data / "gsm8k"] * 2


# Prompts.


def test_a_chat() -> None:
    example = WordProblem("1 + 1?", "2", "1+1=2")
    messages = chat(PromptConfig().text(), [example], "2 + 2?")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"] == SYSTEM_PROMPT
    assert messages[-1]["content"] == "2 + 2?"
    assert chat("", [], "2 + 2?") == [{"role": "user", "content": "2 + 2?"}]
    # What is shown earns everything but the line end that the strict format wants.
    shown = messages[2]["content"]
    assert sum(REWARDS[name]([""], [shown], ["2"])[0] for name in SETS["tags"]) == 3.5


def test_a_system_prompt_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = PromptConfig(system_path="prompt.txt")
    with pytest.raises(RungError, match=r"prompt\.system_path: there is no file prompt\.txt"):
        config.text()
    (tmp_path / "prompt.txt").write_text("Think first.\n")
    assert config.text() == "Think first."
    assert config.file == tmp_path / "prompt.txt"
    (tmp_path / "prompt.txt").write_bytes(b"\xff")
    with pytest.raises(RungError, match="cannot be read"):
        config.text()
    with pytest.raises(ValidationError, match="give one of them"):
        PromptConfig(system="a", system_path="b")


# Preparing.


class Server(ThreadingHTTPServer):
    """Files by address."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        content = self.server.content.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_published_files_are_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {f"{split}.jsonl": lines(split, 3).encode() for split in ("train", "test")}
    server.content = {f"/{name}": text for name, text in content.items()}
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in content.items()}
    monkeypatch.setitem(prepare.PUBLISHED, "gsm8k", prepare.Published("", server.url, sums))
    assert prepare.main(["gsm8k"]) == 0
    assert sizes(DatasetConfig()) == (3, 3)
    with pytest.raises(RungError, match="exists: nothing is ever added"):
        prepare.main(["gsm8k"])
    (tmp_path / "downloads" / "gsm8k-test.jsonl").write_text(lines("other", 3))
    with pytest.raises(RungError, match=r"test\.jsonl is not the file that was published"):
        prepare.main(["gsm8k", "--out", "again"])
    assert not (tmp_path / "again").exists()
    assert prepare.main(["gsm8k", "--out", "again"]) == 0


def test_a_dataset_of_the_hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in lines(split, 4).splitlines()]
        columns = {"problem": [row["question"] for row in rows], "answer": [row["answer"] for row in rows]}
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
        server.content[f"/files/{split}.parquet"] = (tmp_path / "rows.parquet").read_bytes()
        listed = json.dumps([f"{server.url}/files/{split}.parquet"]).encode()
        server.content[f"/api/datasets/someone/sums/parquet/main/{split}"] = listed
    command = ["hub", "someone/sums", "--subset", "main", "--test-split", "validation", "--out", "sums"]
    with pytest.raises(RungError, match="no column 'question', only problem, answer"):
        prepare.main(command)
    assert prepare.main([*command, "--question", "problem"]) == 0
    train, test, _ = asked(load_problems(DatasetConfig(name="sums")))
    assert (len(train), len(test)) == (4, 4)
    assert test[0] == "validation: 0 apples and 1. How many?"
    with pytest.raises(RungError, match=r"cannot download .*someone/else"):
        prepare.main(["hub", "someone/else", "--out", "else"])


def test_files_of_ones_own(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(lines("train", 5))
    server.content["/test.jsonl"] = lines("test", 2).encode()
    command = ["files", "--train", str(tmp_path / "mine.jsonl"), "--test", f"{server.url}/test.jsonl", "--out", "own"]
    assert prepare.main(command) == 0
    assert sizes(DatasetConfig(name="own")) == (5, 2)
    server.content["/test.jsonl"] = lines("train", 2).encode()
    with pytest.raises(RungError, match="2 questions are both trained and tested on"):
        prepare.main([*command[:-1], "leaky"])
    with pytest.raises(RungError, match=r"--train: there is no file .*nothing"):
        prepare.main(["files", "--train", str(tmp_path / "nothing"), "--test", "x", "--out", "lost"])
    assert not list(tmp_path.glob("l*"))
