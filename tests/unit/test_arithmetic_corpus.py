"""Items, corpora, test sets and the commands that write them: pure functions, disjoint parts, rates as documented."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError, StorageError
from trainables.arithmetic import (
    generate_corpus,
    generate_foundational_plaintext,
    generate_instruction_corpus_mixed,
    test_sets,
)
from trainables.arithmetic.artifacts import artifact_path, ensure, read_manifest
from trainables.arithmetic.corpus import CorpusLine, ensure_corpus, jsonl, line_of, read_items
from trainables.arithmetic.corpus_config import CorpusConfig, ExpressionConfig, TestConfig
from trainables.arithmetic.expressions import InvalidExpression, canonical, parse
from trainables.arithmetic.generator import KINDS, Item, Part, item, items, part_of
from trainables.arithmetic.pieces import in_pieces
from trainables.arithmetic.test_sets import Stratum
from trainables.arithmetic.trace import solution, verify

COUNT = 3_000


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where artifacts and files go."""
    monkeypatch.setenv("RUNG_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def drawn() -> list[Item]:
    return list(items(ExpressionConfig(), "train", 0, COUNT))


def is_near(count: int, share: float, total: int = COUNT) -> bool:
    """Whether a count is within 4.5 standard errors of what is expected."""
    return abs(count - share * total) < 4.5 * (total * share * (1 - share)) ** 0.5


# Items


def test_an_item_is_a_pure_function_of_seed_split_and_number(drawn: list[Item]) -> None:
    assert [item(ExpressionConfig(), "train", index) for index in (0, 17, 2_999)] == [drawn[0], drawn[17], drawn[2_999]]
    assert list(items(CorpusConfig(samples=7), "train", 40, 60)) == drawn[40:60]
    assert list(items(ExpressionConfig(seed=1), "train", 0, 20)) != drawn[:20]


def test_items_stay_what_they_were() -> None:
    # A change here changes every corpus: then `corpus.VERSION` must change, too.
    config = ExpressionConfig(max_depth=3, invalid_rate=0.3)
    assert [item(config, "train", index).expression for index in (0, 2, 3)] == [
        "((9 + 18) - 20) + 15",
        "4 -- (10 - (20 + 15))",
        "((19 - 6) + (7 - 13)) - 20",
    ]
    assert item(ExpressionConfig(max_depth=3, largest=1000), "validation", 7) == Item(
        "((186 - 433) + 143) - (986 + (315 - 332))", -1073, None, 3, 5
    )


def test_an_item_says_what_it_is(drawn: list[Item]) -> None:
    for each in drawn[:1_000]:
        if each.error is not None:
            with pytest.raises(InvalidExpression):
                parse(each.expression)
            assert each.answer is None
            continue
        tree = parse(each.expression)
        assert (tree.depth, tree.operators) == (each.depth, each.operators)
        assert canonical(each.expression) == each.expression
        assert solution(each.expression).endswith(f"\nFinal Result: {each.answer}")


def test_rates_mean_what_is_documented(drawn: list[Item]) -> None:
    errors = Counter(each.error for each in drawn)
    assert is_near(COUNT - errors[None], 0.1)
    assert all(is_near(errors[kind], 0.1 / len(KINDS)) for kind in KINDS)
    assert all(each.error is None for each in items(ExpressionConfig(invalid_rate=0), "train", 0, 300))
    assert all(each.error for each in items(ExpressionConfig(invalid_rate=1), "train", 0, 300))


def test_operators_can_be_broken_one_by_one() -> None:
    config = ExpressionConfig(max_depth=4, node_error_rate=0.05)
    got = list(items(config, "train", 0, COUNT))
    whole = test_sets.natural_shares(ExpressionConfig(max_depth=4))
    invalid = 1 - sum(share * 0.95**stratum.operators for stratum, share in whole.items())
    assert 0.2 < invalid < 0.21  # measured with the system that this one grew out of: 20.1 %
    assert is_near(sum(each.error is not None for each in got), invalid)
    assert all(each.error is None for each in got if each.operators == 0)
    assert any(each.error == "several" for each in got)


def test_trees_are_drawn_as_documented(drawn: list[Item]) -> None:
    valid = [each for each in drawn if each.error is None]
    shares = test_sets.natural_shares(ExpressionConfig())
    assert sum(shares.values()) == pytest.approx(1)
    found = Counter(Stratum(each.operators, each.depth) for each in valid)
    assert all(is_near(found[stratum], share, len(valid)) for stratum, share in shares.items() if share > 0.005)
    deep = " ".join(each.expression for each in valid if each.operators > 3)
    numbers = Counter(re.findall(r"\d+", deep))
    assert set(numbers) == set(map(str, range(1, 21)))
    assert all(is_near(count, 1 / 20, numbers.total()) for count in numbers.values())
    assert is_near(deep.count("+"), 1 / 2, deep.count("+") + deep.count("-"))


@pytest.mark.parametrize("largest", [60, 10**6])
def test_a_wide_range_of_numbers_is_drawn_alike(largest: int) -> None:
    config = ExpressionConfig(max_depth=1, largest=largest, invalid_rate=0)
    got = list(items(config, "train", 0, COUNT))
    assert is_near(sum(each.operators for each in got), 0.7)
    firsts = [int(each.expression.split()[0]) for each in got]
    assert is_near(sum(first <= largest / 3 for first in firsts), 1 / 3)


def test_no_expression_is_in_two_splits() -> None:
    parts: tuple[Part, ...] = ("train", "validation", "test")
    configs = [ExpressionConfig(max_depth=depth, seed=seed) for depth, seed in ((2, 0), (2, 1), (3, 0))]
    texts = {part: {each.expression for config in configs for each in items(config, part, 0, 400)} for part in parts}
    assert all(texts[a].isdisjoint(texts[b]) for a in parts for b in parts if a != b)
    assert all(part_of(text) == part for part in parts for text in texts[part])


def test_a_language_too_small_for_a_split_is_refused() -> None:
    other: Part = "validation" if part_of("1") == "train" else "train"
    with pytest.raises(RungError, match="hardly any expression of depth 0 with numbers from 1 to 1 belongs to the"):
        item(ExpressionConfig(max_depth=0, largest=1, invalid_rate=0), other, 0)


def test_bare_numbers_are_broken_where_there_is_nothing_else() -> None:
    kinds = {each.error for each in items(ExpressionConfig(max_depth=0, invalid_rate=1), "train", 0, 50)}
    assert kinds == {"arbitrary"}


# Corpora


def test_a_line_is_what_json_would_write(drawn: list[Item]) -> None:
    for each in drawn[:200]:
        line = line_of(each)
        values = json.loads(line)
        assert json.dumps(values) + "\n" == line
        assert list(values) == ["expression", "problem", "solution", "answer", "error"]
        assert values["problem"] == f"Evaluate: {each.expression}"
        assert values["answer"] == ("ERROR" if each.answer is None else each.answer)
        assert verify(each.expression, values["solution"]).complaint is None


@pytest.mark.parametrize(("size", "workers"), [(1, 1), (7, None), (100, 1), (20, 2)])
def test_pieces_come_in_order(size: int, workers: int | None) -> None:
    sums = [sum(range(begin, min(begin + size, 50))) for begin in range(0, 50, size)]
    assert list(in_pieces(sum, 50, size, workers)) == sums


def test_a_corpus_does_not_depend_on_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ExpressionConfig(max_depth=3)
    whole = b"".join(jsonl(config, "train", 250))
    monkeypatch.setattr("trainables.arithmetic.corpus.PIECE", 60)
    assert b"".join(jsonl(config, "train", 250, workers=1)) == whole
    assert b"".join(jsonl(config, "train", 100)) + b"".join(jsonl(config, "train", 150, first=100)) == whole


def test_a_corpus_is_made_once_and_read_back(data: Path) -> None:
    config = CorpusConfig(max_depth=3, samples=120, validation_samples=30)
    said: list[str] = []
    folder = ensure_corpus(config, said.append)
    assert ensure_corpus(config.model_copy(), said.append) == folder
    assert len(said) == 1
    assert folder.is_relative_to(data)
    train = list(read_items(folder / "train.jsonl"))
    assert [line.expression for line in train] == [each.expression for each in items(config, "train", 0, 120)]
    assert {line.expression for line in read_items(folder / "validation.jsonl")}.isdisjoint(
        line.expression for line in train
    )
    assert read_manifest(folder).facts == {"train": 120, "validation": 30}
    assert ensure_corpus(config.model_copy(update={"seed": 1}), said.append) != folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "cannot be read"),
        (b"Evaluate: 1 + 2\n", r"corpus.jsonl:1: not a line of a corpus, which is JSON with expression"),
        (b'{"expression": "7"}\n', r"corpus.jsonl:1: .*problem: Field required"),
        (b'{"expression": "7", "problem": "", "solution": "", "answer": "7x"}\n', "answer"),
    ],
)
def test_what_is_wrong_with_a_corpus_is_said(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    with pytest.raises(RungError, match=message):
        list(read_items(path))
    with pytest.raises(RungError, match="cannot be read"):
        list(read_items(tmp_path / "none.jsonl"))


def test_a_line_without_a_kind_of_error_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"expression": "7", "problem": "Evaluate: 7", "solution": "x", "answer": 7}\n')
    assert list(read_items(path)) == [CorpusLine("7", "Evaluate: 7", "x", 7)]


# Artifacts


def write_words(folder: Path) -> Mapping[str, Any]:
    (folder / "words.txt").write_text("one two")
    return {"words": 2}


def test_an_artifact_is_found_by_its_recipe(data: Path) -> None:
    folder = ensure("words", {"b": 1, "a": [1, 2]}, write_words)
    assert folder == artifact_path("words", {"a": [1, 2], "b": 1})
    assert folder.parent == data / "arithmetic"
    assert folder != artifact_path("words", {"a": [2, 1], "b": 1})
    manifest = read_manifest(folder)
    assert (manifest.kind, manifest.recipe, manifest.facts) == ("words", {"a": [1, 2], "b": 1}, {"words": 2})


@pytest.mark.parametrize("damage", ["byte", "size", "missing", "manifest"])
def test_what_is_damaged_is_made_again(damage: str) -> None:
    folder = ensure("words", {"of": damage}, write_words)
    words = folder / "words.txt"
    match damage:
        case "byte":
            words.write_text("one tow")
        case "size":
            words.write_text("one")
        case "missing":
            words.unlink()
        case _:
            (folder / "manifest.json").write_text("{")
    said: list[str] = []
    assert ensure("words", {"of": damage}, write_words, said.append) == folder
    assert words.read_text() == "one two"
    assert len(said) == 1
    assert said[0].endswith("it is made again")


def test_what_fails_leaves_nothing_behind(data: Path) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        (folder / "half.txt").write_text("x")
        raise RungError("no")

    with pytest.raises(RungError, match="no"):
        ensure("words", {}, fail)
    assert [path.name for path in (data / "arithmetic").iterdir()] == ["locks"]
    leftover = artifact_path("words", {}).with_suffix(".unfinished")
    leftover.mkdir()
    (leftover / "half.txt").write_text("of a killed process")
    assert sorted(path.name for path in ensure("words", {}, write_words).iterdir()) == ["manifest.json", "words.txt"]


def test_two_who_need_the_same_make_it_once() -> None:
    made: list[Path] = []

    def write(folder: Path) -> Mapping[str, Any]:
        made.append(folder)
        return write_words(folder)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: ensure("words", {"of": "two"}, write), range(4)))
    assert (len(folders), len(made)) == (1, 1)


def test_a_place_that_cannot_be_written_is_named(data: Path) -> None:
    data.write_text("a file")
    with pytest.raises(StorageError, match=r"cannot write to .*: .*RUNG_DATA says where data lies"):
        ensure("words", {}, write_words)


# Test sets


def test_a_test_set_is_stratified_and_has_nothing_twice() -> None:
    config = TestConfig(max_depth=4, samples=300)
    chosen = test_sets.test_set(config)
    assert chosen == test_sets.test_set(config)
    assert len({each.expression for each in chosen}) == 300
    assert all(part_of(each.expression) == "test" and each.error is None for each in chosen)
    assert all(parse(each.expression).depth == each.depth for each in chosen)
    assert all(solution(each.expression).endswith(f": {each.answer}") for each in chosen)
    taken = {each.stratum: each.taken for each in test_sets.strata(config) if each.taken}
    assert Counter(Stratum(each.operators, each.depth) for each in chosen) == taken
    other = test_sets.test_set(config.model_copy(update={"seed": 1}))
    assert Counter((each.operators, each.depth) for each in other) == taken
    assert {each.expression for each in other} != {each.expression for each in chosen}
    assert any(one.operators > two.operators for one, two in pairwise(chosen[:10]))


def test_a_stratum_gives_what_it_has_and_the_others_the_rest() -> None:
    numbers, sums, *others = test_sets.strata(TestConfig(max_depth=4, samples=1_000))
    there = [number for number in range(1, 21) if part_of(str(number)) == "test"]
    assert (numbers.stratum, numbers.wanted, numbers.taken) == (Stratum(0, 0), 300, len(there))
    assert (sums.stratum, sums.wanted) == (Stratum(1, 1), 63)
    assert 63 < sums.taken < 90  # all there are: some 80 of 800
    rest = 1_000 - numbers.taken - sums.taken
    assert sum(each.taken for each in others) == rest
    share = sum(each.share for each in others)
    assert all(each.taken == pytest.approx(each.share / share * rest, abs=1) for each in others)


def test_largest_remainders() -> None:
    shares = {Stratum(0, 0): 0.5, Stratum(1, 1): 0.3, Stratum(2, 2): 0.2}
    given = test_sets._largest_remainder(11, shares)
    assert given == {Stratum(0, 0): 6, Stratum(1, 1): 3, Stratum(2, 2): 2}


def test_strata_are_written_out_completely() -> None:
    written = [text for text, _ in test_sets._written(Stratum(3, 3), range(1, 3))]
    assert len(written) == len(set(written)) == test_sets._how_many(Stratum(3, 3), 2) == 4 * 2**4 * 2**3
    assert all(canonical(text) == text and parse(text).depth == 3 for text in written)
    assert all(parse(text).operators == 3 for text in written)


@pytest.mark.parametrize(
    ("rates", "share"), [({"invalid_rate": 0.25}, 0.25), ({"node_error_rate": 0.05}, 0.2047), ({"invalid_rate": 1}, 1)]
)
def test_a_test_set_can_have_invalid_items(rates: dict[str, float], share: float) -> None:
    chosen = test_sets.test_set(TestConfig(max_depth=4, samples=200, **rates))
    assert sum(each.error is not None for each in chosen) == round(200 * share)
    assert len({each.expression for each in chosen}) == 200
    assert all(part_of(each.expression) == "test" for each in chosen)


def test_a_test_set_that_is_too_large_is_refused() -> None:
    with pytest.raises(RungError, match=r"300 different expressions of depth 1 .* about 73 belong to the test part"):
        test_sets.test_set(TestConfig(max_depth=1, samples=300))


# Commands


def test_a_corpus_file(tmp_path: Path) -> None:
    assert generate_corpus.main(["--num-samples", "40", "--max-depth", "3", "--num-range", "1", "9"]) == 0
    foundational, instruction = (
        list(read_items(tmp_path / "data" / f"{name}_corpus.jsonl")) for name in ("foundational", "instruction")
    )
    assert len(foundational) == len(instruction) == 40
    # Not the same items, or nothing would be new in the second corpus.
    assert sum(a == b for a, b in zip(foundational, instruction, strict=True)) < 5
    numbers = set("".join(line.expression for line in foundational if not line.error)) & set("0123456789")
    assert "0" not in numbers


def test_a_mixed_corpus_is_an_instruction_corpus(tmp_path: Path) -> None:
    wanted = ["--num-samples", "50", "--max-depth", "2", "--seed", "3", "--invalid-rate", "0.5"]
    assert generate_instruction_corpus_mixed.main([*wanted, "--output-mixed", "mixed.jsonl"]) == 0
    assert generate_corpus.main([*wanted, "--instruction-only", "--output-instruction", "plain.jsonl"]) == 0
    assert (tmp_path / "mixed.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert not (tmp_path / "data").exists()
    assert 10 < sum(line.answer == "ERROR" for line in read_items(tmp_path / "mixed.jsonl")) < 40


def test_a_test_file_has_nothing_of_a_training_file(tmp_path: Path) -> None:
    wanted = ["--num-samples", "100", "--max-depth", "2", "--invalid-rate", "0", "--foundational-only"]
    generate_corpus.main([*wanted, "--output-foundational", "train.jsonl"])
    generate_corpus.main([*wanted, "--output-foundational", "test.jsonl", "--split", "test"])
    train, test = ([line.expression for line in read_items(tmp_path / name)] for name in ("train.jsonl", "test.jsonl"))
    assert set(train).isdisjoint(test)
    assert len(set(test)) == 100 > len(set(train))


def test_plain_text_keeps_problem_and_solution_together(tmp_path: Path) -> None:
    wanted = ["--num-samples", "30", "--max-depth", "3"]
    expected = list(islice(items(ExpressionConfig(max_depth=3), "train", 0, 30), 30))
    generate_foundational_plaintext.main([*wanted, "--output-txt", "v1.txt"])
    lines = (tmp_path / "v1.txt").read_text().splitlines()
    assert len(lines) == 30
    for line, each in zip(lines, expected, strict=True):
        assert line == f"Evaluate: {each.expression} {' '.join(solution(each.expression).split())}"
    generate_foundational_plaintext.main([*wanted, "--format", "v2", "--output-txt", "v2.txt"])
    texts = [f"Evaluate: {each.expression}\n{solution(each.expression)}\n" for each in expected]
    assert (tmp_path / "v2.txt").read_text() == "".join(texts)


def test_plain_text_can_be_taken_apart(tmp_path: Path) -> None:
    wanted = ["--num-samples", "30", "--max-depth", "3", "--split-lines", "--output-txt", "split.txt"]
    generate_foundational_plaintext.main(wanted)
    lines = (tmp_path / "split.txt").read_text().splitlines()
    assert len(lines) == 60
    assert sum(line.startswith("Evaluate: ") for line in lines) == 30
    assert [line.startswith("Evaluate: ") for line in lines] != [True, False] * 30


def test_all_that_is_wrong_with_the_flags_is_said_at_once() -> None:
    wanted = ["--num-samples", "0", "--max-depth", "9", "--num-range", "20", "1", "--invalid-rate", "2", "--seed", "x"]
    with pytest.raises(RungError) as refused:
        generate_corpus.main(wanted)
    for place in ("--num-samples", "--max-depth", "--num-range", "--invalid-rate", "--seed"):
        assert f"  {place}: " in str(refused.value)
    with pytest.raises(RungError, match="--num-samples: is missing"):
        generate_corpus.main([])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wanted = ["--num-samples", "2", "--foundational-only", "--output-foundational", "file/corpus.jsonl"]
    with pytest.raises(StorageError, match=r"cannot write file/corpus\.jsonl"):
        generate_corpus.main(wanted)
