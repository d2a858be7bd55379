"""The tokenizer of expressions: exact, atomic signs, clear errors, and the commands around it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rung.errors import RungError
from trainables.arithmetic import print_token_table, train_tokenizer
from trainables.arithmetic.config import ArithmeticConfig, TokenizerConfig
from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.corpus_config import CorpusConfig
from trainables.arithmetic.generator import KINDS, items
from trainables.arithmetic.preparation import both_formats, ensure_tokenizer, learnt_tokenizer
from trainables.arithmetic.sequences import pair
from trainables.arithmetic.tokenizer import ALPHABET, CONTROL, TAGS, Numbers, Tokenizer, count_words
from trainables.arithmetic.tokenizer import train_tokenizer as learn
from trainables.arithmetic.trace import solution

CORPUS = CorpusConfig(max_depth=4, invalid_rate=0.4)
LINES = [(item.expression, solution_of(item)) for item in items(CORPUS, "train", 0, 600)]
TEXTS = list(both_formats(LINES))
TEXT = f"Evaluate: 5 + (10 - 3)\n{solution('5 + (10 - 3)')}"


@pytest.fixture(scope="module", params=["digits", "whole"])
def numbers(request: pytest.FixtureRequest) -> Numbers:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tokenizer(numbers: Numbers) -> Tokenizer:
    return learnt_tokenizer(TEXTS, TokenizerConfig(numbers=numbers))


def test_every_text_of_the_corpus_comes_back(tokenizer: Tokenizer) -> None:
    assert {item.error for item in items(CORPUS, "train", 0, 600)} == {None, *KINDS}
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    parts = [part for line in LINES for part in pair(*line, format="v1", is_instruction=True)]
    assert [tokenizer.decode(tokenizer.encode(part)) for part in parts] == parts


def test_any_text_of_known_characters_comes_back(tokenizer: Tokenizer) -> None:
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choices([*ALPHABET, *TAGS], k=30))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_it_is_what_the_library_makes_of_the_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    import tokenizers

    inner = tokenizers.Tokenizer.from_file(str(tokenizer.save(tmp_path)))
    for text in TEXTS[::7]:
        ids = tokenizer.encode(text)
        assert inner.encode(text).ids == ids
        assert inner.decode(ids) == text
        assert Tokenizer.load(tmp_path).encode(text) == ids


def test_special_tokens_come_first_and_tags_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens[:6] == ["<pad>", "<unk>", "<bos>", "<eos>", "<think>", "</think>"]
    assert (tokenizer.pad, tokenizer.begin, tokenizer.end) == (0, 2, 3)
    assert tokenizer.encode("<think></think>") == [tokenizer.think, tokenizer.end_think] == [4, 5]
    assert tokenizer.decode([2, *tokenizer.encode("<think>5"), 3, 0, 0]) == "<think>5"


def test_signs_never_belong_to_a_longer_token(tokenizer: Tokenizer) -> None:
    for token in set(tokenizer.tokens) - {*CONTROL, *TAGS}:
        if set(token) & set("+-():="):
            assert len(token.removeprefix(" ")) == 1, token
        if "\n" in token:
            assert token == "\n" or (token[0] == "\n" and token[1].isalpha()), token
    cut = [tokenizer.tokens[index] for index in tokenizer.encode("7 - -7")]
    assert cut == ["7", " -", " -", "7"]


def test_phrases_are_single_tokens_and_digits_if_asked_for(tokenizer: Tokenizer, numbers: Numbers) -> None:
    cut = [tokenizer.tokens[index] for index in tokenizer.encode(TEXT)]
    beginning = ["Evaluate", ":", " 5", " +", " (", *(["1", "0"] if numbers == "digits" else ["10"]), " -", " 3", ")"]
    assert cut[: len(beginning)] == beginning
    assert {"\nStep", "\nExpression now", "\nFinal Result"} <= set(cut)
    is_number = [token.strip().isdecimal() for token in tokenizer.tokens]
    longest = max(len(token.strip()) for token, yes in zip(tokenizer.tokens, is_number, strict=True) if yes)
    assert (longest == 1) == (numbers == "digits")
    assert len(tokenizer.encode(TEXT)) == (45 if numbers == "digits" else 40)


def test_what_it_does_not_know_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(RungError, match=r"does not know '\*', 'é' in 'Evaluate: 5 \* 3é'"):
        tokenizer.encode("Evaluate: 5 * 3é")
    with pytest.raises(RungError, match=r"does not know '\\t'"):
        tokenizer.encode("5\t+ 3")
    for token in CONTROL:  # written in a text, they are no control tokens
        with pytest.raises(RungError, match="does not know '<'"):
            tokenizer.encode(f"5 + 3{token}")


def test_the_vocabulary_is_at_most_what_was_asked_for(numbers: Numbers) -> None:
    counts = count_words(TEXTS, numbers)
    for asked in (43, 60, 90):
        tokenizer = learn(counts, asked, numbers)
        assert tokenizer.size == asked
        assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert learn(counts, 5000, numbers).size < 1000
    with pytest.raises(RungError, match="a vocabulary of 42 is not possible: 6 special tokens and 37 characters"):
        learn(counts, 42, numbers)
    assert TokenizerConfig.model_fields["vocabulary"].metadata[0].ge == len(CONTROL) + len(TAGS) + len(set(ALPHABET))


def test_learning_does_not_depend_on_the_order(numbers: Numbers) -> None:
    config = TokenizerConfig(numbers=numbers)
    assert learnt_tokenizer(reversed(TEXTS), config).inner.to_str() == learnt_tokenizer(TEXTS, config).inner.to_str()


def test_an_empty_corpus_and_other_tokenizers_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers.models import BPE

    with pytest.raises(RungError, match="the corpus is empty"):
        learnt_tokenizer([], TokenizerConfig())
    Inner(BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RungError, match=r"tokenizer.json: this is no tokenizer of expressions"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(RungError, match="cannot be read as a tokenizer"):
        Tokenizer.load(tmp_path)
    with pytest.raises(RungError, match=r"the tokenizer .*nowhere.* cannot be read"):
        Tokenizer.load(tmp_path / "nowhere")


def test_stages_and_larger_corpora_share_a_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    corpus = {"samples": 10_000, "max_depth": 1}
    said: list[str] = []
    first = ensure_tokenizer(ArithmeticConfig.model_validate({"corpus": corpus}), said.append)
    assert said == [f"tokenizer: {Tokenizer.load(first).size} tokens (at most 1,000 were asked for)"]
    same = {"corpus": {**corpus, "samples": 20_000, "validation_samples": 5}, "mode": "instruction", "format": "v1"}
    stage = {"corpus": {"max_depth": 2}, "tokenizer": {"corpus": corpus}}
    for values in (same, stage):
        assert ensure_tokenizer(ArithmeticConfig.model_validate(values), said.append) == first
    assert len(said) == 1
    other = {"corpus": {**corpus, "seed": 1}}
    assert ensure_tokenizer(ArithmeticConfig.model_validate(other), said.append) != first


def test_commands_learn_and_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"expression": e, "problem": f"Evaluate: {e}", "solution": s, "answer": 0}) for e, s in LINES]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines[:50]))
    options = ["--corpus-path", str(tmp_path / "corpus.jsonl"), "--output-dir", str(tmp_path / "made")]
    train_tokenizer.main([*options, "--vocab-size", "80", "--numbers", "whole"])
    assert "80 tokens, at most 80 were asked for" in capsys.readouterr().out
    assert json.loads((tmp_path / "made" / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    print_token_table.main(["--tokenizer_path", str(tmp_path / "made")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["id,token,kind", "0,<pad>,control"]
    assert lines[7] == "6,\\n,blank"
    assert len(lines) == 81
