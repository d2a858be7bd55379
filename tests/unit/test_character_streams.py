"""The character-stream trainable: what it learns, what it is asked, what it reports."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rung.errors import RungError
from rung.trainable import Sampling
from rung.training.assignment import Goal
from rung.training.loop import NullRecorder, evaluate, train
from rung.training.run import Run
from trainables.character_streams import CharacterStreams, CharacterStreamsConfig
from trainables.character_streams.answers import Examination, accuracy, character_accuracy, length_accuracy, shown
from trainables.character_streams.config import StreamConfig
from trainables.character_streams.corpus import corpus
from trainables.character_streams.meta import META

SMALL: dict[str, Any] = {
    "stream": {"longest": 1, "alphabet": "ab"},
    "characters": 1000,
    "context": 16,
    "batch_size": 8,
    "evaluation_tokens": 160,
    "evaluation": {"every": 1000},
    "schedule": {"kind": "none", "warmup": 0},
    "optimizer": {"learning_rate": 1e-2},
    "model": {"layers": 1, "width": 16, "heads": 2},
}
SHAKESPEARE = Path(__file__).resolve().parents[3] / "shared" / "data" / "tinyshakespeare" / "input.txt"


def config(**changes: Any) -> CharacterStreamsConfig:
    return CharacterStreamsConfig.model_validate({**SMALL, **changes})


def run_of(made: CharacterStreamsConfig, steps: int, seed: int = 0) -> Run:
    return Run(CharacterStreams(made, seed), "run", Goal("steps", steps, "validation/loss", "min"))


def test_data_that_is_not_there_is_what_one_hears_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    made = config(stream={}, data="nope")
    assert CharacterStreams.metrics(made).keys() == CharacterStreams.metrics(config()).keys()
    missing = CharacterStreams.missing(made) or ""
    assert missing.startswith(f"data: there is no {tmp_path / 'nope'}")
    assert missing.endswith("leave `data` out, which takes the place of `stream`")
    (tmp_path / "nope").write_text("a text\n" * 99)
    assert "validation/accuracy" not in CharacterStreams.metrics(made)
    assert CharacterStreams.missing(made) is None


def test_the_defaults_are_the_course_experiment() -> None:
    made = CharacterStreamsConfig()
    workload = CharacterStreams.workload(made)
    assert workload.parameters - 64 * 128 == 788_608  # 0.79 M as nanoGPT counts, without positions
    assert workload.tokens_per_step == 12 * 64
    assert (made.optimizer.learning_rate, made.optimizer.beta2, made.optimizer.weight_decay) == (1e-3, 0.99, 0.1)
    assert (made.optimizer.decay, made.schedule.warmup, made.schedule.minimum) == ("matrices", 100, 1e-4)
    lines = CharacterStreams.references(made)["validation/loss"]
    assert [round(line.value, 4) for line in lines] == [0.5397, 0.9420]
    assert [line.label for line in lines] == ["entropy of the lines", "format known, answer guessed"]


def test_it_learns_a_stream_and_says_so() -> None:
    """`abcde`, `fghij`, ...: nothing is random, so the floor is 0 and every answer can be right."""
    run = run_of(config(stream={"name": "alphabet"}), 60)
    before = evaluate(run, scheduled=False).metrics
    train(run, math.inf, NullRecorder())
    after = evaluate(run, scheduled=False).metrics
    assert before["validation/accuracy"] == 0
    assert (
        after["validation/accuracy"]
        == after["validation/character_accuracy"]
        == after["validation/length_accuracy"]
        == 1
    )
    assert CharacterStreams.references(run.config)["validation/loss"][0].value == 0 < after["validation/loss"] < 0.2
    rows = run.trainable.generations(run.model.eval())
    assert {(row.prompt, row.response, row.gold, row.reward) for row in rows} >= {("a", "bcde", "bcde", 1)}


def test_a_diverged_model_has_no_accuracy_and_writes_nothing() -> None:
    run = run_of(config(), 5)
    with torch.no_grad():
        run.model.embedding.weight.fill_(math.nan)  # type: ignore[union-attr, operator]
    metrics = evaluate(run, scheduled=False).metrics
    assert all(math.isnan(metrics[name]) for name in ("validation/loss", "validation/accuracy"))
    assert not run.trainable.generations(run.model.eval())


def test_only_answers_are_learnt_where_that_is_asked() -> None:
    trainable = CharacterStreams(config(loss_on="answer"), 0)
    batch = trainable.batches().at(0)
    assert batch.weights_BS is not None
    text = trainable.corpus.codec
    assert text is not None
    counted = batch.targets_BS[batch.weights_BS > 0].tolist()
    assert set(text.decode(counted)) == {"a", "b", "\n"}  # letters of answers and line ends, no colon and no space
    left_out = batch.targets_BS[batch.weights_BS == 0].tolist()
    assert set(text.decode(left_out)) == {"a", "b", ":", " "}
    assert trainable.fixed_windows["train"].weights_BS is None  # evaluation counts everything


def test_a_prompt_rule_is_asked_about_lines_only(tmp_path: Path) -> None:
    """Not about the nothing that follows the last line end."""
    rule = 'from trainables.character_streams import stream\n@stream(prompt=lambda line: line[: line.index("b")])'
    (tmp_path / "own.py").write_text(OWN.replace("\ndef lines", f"\n{rule}\ndef lines"))
    trainable = CharacterStreams(config(stream={"name": f"{tmp_path}/own.py:lines"}), 0)
    assert trainable.corpus.answers("train")[:6].tolist() == [False, True, True, True, True, True]  # ab, ba


def test_windows_can_begin_with_lines() -> None:
    trainable = CharacterStreams(config(windows="lines"), 0)
    batch = trainable.batches().at(3)
    first = trainable.codec.decode(batch.inputs_BS[:, 0].tolist())
    assert set(first) <= {"a", "b"}
    assert trainable.codec.decode(batch.inputs_BS[0, 1:5].tolist())[:2] == ": "
    random = CharacterStreams(config(), 0).batches().at(3)
    assert set(trainable.codec.decode(random.inputs_BS[:, 0].tolist())) & {":", " ", "\n"}


def test_the_data_seed_decides_about_text_and_windows() -> None:
    a, b = (CharacterStreams(config(data_seed=7), seed) for seed in (0, 1))
    assert torch.equal(a.batches().at(2).inputs_BS, b.batches().at(2).inputs_BS)
    c, d = (CharacterStreams(config(), seed) for seed in (0, 1))
    assert not np.array_equal(c.corpus.splits["train"][:500], d.corpus.splits["train"][:500])


# Answers.


class _Scripted:
    """Writes what it is told, and remembers the prompts."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.prompts: list[str] = []

    def __call__(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        self.prompts += prompts
        return [self.answers.get(prompt.strip("\n: "), "") for prompt in prompts]


LINES = ["abc: a b c", "ab: a b", "b: b", "ab: a b"]


def test_answers_are_graded() -> None:
    examination = Examination(StreamConfig().stream(), LINES, line_end_first=True)
    write = _Scripted(abc="a b d\nx", ab="a b\n", b="b")
    answers = examination.answers(write)
    assert write.prompts == ["\nabc: ", "\nab: ", "\nb: "]  # every question once
    assert [answer.is_right for answer in answers] == [False, True, False, True]  # the third does not end
    assert accuracy(answers) == 0.5
    assert character_accuracy(answers) == (2 + 2 + 1 + 2) / 8
    assert length_accuracy(answers) == 1
    assert [row.response for row in shown(answers, 2)] == ["a b d", "a b"]


def test_a_format_without_copying_is_at_chance() -> None:
    examination = Examination(StreamConfig().stream(), ["a: a", "b: b", "c: c", "d: d", "e: e"], line_end_first=False)
    answers = examination.answers(_Scripted(**dict.fromkeys("abcde", "a\n")))
    assert (character_accuracy(answers), length_accuracy(answers), accuracy(answers)) == (0.2, 1.0, 0.2)


OWN = """
def is_right(line):
    return line in ("ab", "ba")

def lines(seed):
    while True:
        yield "ab"
        yield "ba"
"""


def test_lines_without_a_prompt_are_drawn_and_checked(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from trainables.character_streams import stream\n"
        + OWN.replace("def lines", "@stream(check=is_right)\ndef lines")
    )
    made = config(stream={"name": f"{tmp_path}/own.py:lines"}, answers=20)
    assert set(CharacterStreams.metrics(made)) == {
        *("train/loss", "validation/loss", "validation/perplexity", "validation/accuracy"),
    }
    run = run_of(made, 100)
    train(run, math.inf, NullRecorder())
    assert evaluate(run, scheduled=False).metrics["validation/accuracy"] == 1
    assert len(run.trainable.generations(run.model.eval())) == 10


def test_a_stream_without_any_rule_has_losses_only(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    made = config(stream={"name": f"{tmp_path}/own.py:lines"})
    assert set(CharacterStreams.metrics(made)) == {"train/loss", "validation/loss", "validation/perplexity"}
    assert not CharacterStreams.references(made)
    run = run_of(made, 1)
    assert set(CharacterStreams.metrics(made)) <= evaluate(run, scheduled=False).metrics.keys()
    texts = run.trainable.generations(run.model.eval())
    assert len({text.response for text in texts}) == 3
    assert all(len(text.response) == 200 and text.reward is None for text in texts)


# Data from files.


def write_folder(folder: Path, characters: str = "\n :ab", **meta: Any) -> None:
    folder.mkdir()
    text = "a: a\nb: b\n" * 40
    ids = np.array([characters.index(character) for character in text], dtype=np.uint16)
    ids.tofile(folder / "train.bin")
    ids.tofile(folder / "val.bin")
    (folder / META).write_text(json.dumps({"characters": characters, **meta}))


def test_a_prepared_folder_knows_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    stream = {"name": "insert-spaces", "alphabet": "ab", "longest": 1}
    write_folder(tmp_path / "known", stream=stream)
    write_folder(tmp_path / "unknown", characters="ba\n: ")
    known, unknown = config(stream={}, data="known"), config(stream={}, data="unknown")
    assert "validation/accuracy" in CharacterStreams.metrics(known)
    assert "validation/accuracy" not in CharacterStreams.metrics(unknown)
    assert CharacterStreams.vocabulary(known) == 5
    assert [path.name for path in CharacterStreams.data_files(known)] == ["train.bin", "val.bin", META]
    assert corpus(unknown, 0).lines("validation", 3)[0] == "a: a"
    metrics = evaluate(run_of(known, 1), scheduled=False).metrics
    assert metrics.keys() >= CharacterStreams.metrics(known).keys()


def test_gpt2_tokens_need_no_text_for_losses(tmp_path: Path) -> None:
    for name in ("train.bin", "val.bin"):
        (np.arange(300, dtype=np.uint16) * 160).tofile(tmp_path / name)
    made = config(stream={}, data=str(tmp_path), model={"layers": 1, "width": 4, "heads": 1})
    assert CharacterStreams.vocabulary(made) == 50_304
    metrics = evaluate(run_of(made, 1), scheduled=False).metrics
    assert metrics["validation/loss"] == pytest.approx(math.log(50_304), rel=0.01)
    with pytest.raises(RungError, match=r"without its tokenizer\.json"):
        _ = CharacterStreams(made, 0).codec


def test_tokens_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    """That of GPT-2, or of the weights to begin with."""
    for name in ("train.bin", "val.bin"):
        np.arange(300, dtype=np.uint16).tofile(tmp_path / name)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text('{"vocab_size": 299}')
    made = config(stream={}, data=str(tmp_path))
    assert len(corpus(made, 0).splits["train"]) == 300
    small = made.model_copy(update={"initial_weights": str(tmp_path / "small")})
    with pytest.raises(RungError, match=r"train\.bin has token 299, and the model has 299 tokens \(0 to 298\)"):
        corpus(small, 0)
    (np.arange(300, dtype=np.uint16) + 50_005).tofile(tmp_path / "val.bin")
    with pytest.raises(RungError, match=r"val\.bin has token 50,304, and the model has 50,304 tokens"):
        CharacterStreams(made, 0)


def test_what_is_missing_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    made = config(stream={}, data="tinyshakespeare/input.txt")
    assert f"there is no {tmp_path}/tinyshakespeare/input.txt" in (CharacterStreams.missing(made) or "")
    assert CharacterStreams.workload(made).parameters > 0  # it can still be planned
    assert CharacterStreams.missing(config()) is None
    assert "nothing is downloaded" in (CharacterStreams.missing(config(initial_weights="gpt2")) or "")
    (tmp_path / "plain.txt").write_text("a text without questions\n" * 9)
    unasked = CharacterStreams.missing(config(stream={}, data="plain.txt", loss_on="answer"))
    assert "does not say where answers begin" in (unasked or "")
    write_folder(tmp_path / "known", characters="\n :ab", stream=StreamConfig().model_dump())
    assert CharacterStreams.missing(config(stream={}, data="known", loss_on="answer")) is None


def test_a_broken_folder_is_explained(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", characters="\n :ab")
    made = config(stream={}, data=str(tmp_path / "x"))
    (tmp_path / "x" / "val.bin").write_bytes(b"\x63\x00" * 300)
    with pytest.raises(RungError, match="token 99"):
        corpus(made, 0)
    (tmp_path / "x" / "val.bin").unlink()
    with pytest.raises(RungError, match=r"val\.bin is missing"):
        corpus(made, 0)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="the Shakespeare text is not beside the repository")
def test_shakespeare_is_split_as_in_nanogpt() -> None:
    made = CharacterStreamsConfig(data=str(SHAKESPEARE), validation_fraction=0.1)
    text = corpus(made, 0)
    assert CharacterStreams.vocabulary(made) == 65
    assert {name: len(ids) for name, ids in text.splits.items()} == {"train": 1_003_854, "validation": 111_540}


def test_initial_weights_are_put_in(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    first = run_of(config(), 1, seed=3)
    tensors = {name: tensor for name, tensor in first.model.state_dict().items() if name != "embedding.weight"}
    save_file(tensors, tmp_path / "model.safetensors")
    second = run_of(config(initial_weights=str(tmp_path / "model.safetensors")), 1, seed=4)
    model: nn.Module = second.model
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in tensors.items())
