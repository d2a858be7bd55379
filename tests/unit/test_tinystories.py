"""TinyStories: made-up stories, the command that prepares data, and the trainable."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from rung.configuration import completed
from rung.errors import RungError
from rung.study import load_study
from rung.trainable import Sampling
from rung.training.assignment import Goal
from rung.training.loop import NullRecorder, evaluate, train
from rung.training.run import Run
from tests.stories import SMALL_STORIES, few_stories
from trainables.language.bpe import BytePairCodec
from trainables.language.tokens import TokenFolder
from trainables.language.trainable import SPLITS
from trainables.models.decoder_config import parameter_breakdown
from trainables.tinystories import TinyStories, TinyStoriesConfig
from trainables.tinystories.plots import PLOTS, VIRTUES
from trainables.tinystories.prepare import main
from trainables.tinystories.stories import StoryChunk, story

STUDIES = Path(__file__).resolve().parents[2] / "search_spaces" / "tinystories"
TOLD = [story(0, index) for index in range(2000)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    few_stories(path)
    return path


@pytest.fixture(autouse=True)
def _data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(root))


def config(**values: object) -> TinyStoriesConfig:
    return TinyStoriesConfig.model_validate({**SMALL_STORIES, **values})


def test_a_story_follows_from_seed_and_number() -> None:
    assert story(0, 5) == TOLD[5]
    assert story(1, 5) != TOLD[5]
    assert len({told.text for told in TOLD}) == len(TOLD)


def test_stories_hang_together() -> None:
    for told in TOLD:
        assert "{" not in told.text
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]", told.text), told.text
        is_girl = "girl" in told.text.split("\n")[0]
        hero = next(iter(re.findall(r"named (\w+)|name was (\w+)|^(\w+) was a|and (\w+) wanted", told.text)))
        assert any(hero)
        assert ("He loved" in told.text or "He was" in told.text.split("\n")[0]) <= (not is_girl)
    assert set(VIRTUES) == set(PLOTS)


def test_numbers_add_up() -> None:
    numbers = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    found = [
        (told.text, match)
        for told in TOLD
        for match in [re.search(r"Now \w+ had (\w+) \w+ and \w+ had (\w+)\.", told.text)]
        if match and re.search(r"(had|gave (her|him)|picked) \w+ \w+ ?(in|near|\.)", told.text)
    ]
    assert len(found) > 20
    for text, match in found:
        whole = next(word for word in re.findall(r"\w+", text) if word in numbers)
        assert numbers.index(whole) == sum(map(numbers.index, match.groups())), text


def test_the_entropy_is_that_of_the_choices() -> None:
    """A word that is drawn uniformly shows up as often as its probability says."""
    counts = Counter(told.text.split("\n")[-1] for told in TOLD if "never" in told.text or "The end" in told.text)
    assert counts["The end."] / len(TOLD) == pytest.approx(1 / 5, abs=4 * math.sqrt(0.16 / len(TOLD)))
    nats = [told.nats for told in TOLD]
    assert 25 < min(nats) <= max(nats) < 50


def test_splits_share_no_story() -> None:
    train, validation = ({told.text for told in StoryChunk(0, split, 0, 2000).stories()} for split in SPLITS)
    assert not train & validation
    assert len(train) + len(validation) == 2000
    assert 60 < len(validation) < 140
    assert StoryChunk(0, "validation", 0, 2000).read().count("<|endoftext|>") == len(validation)


def test_the_command_makes_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    arguments = ["made-up", "--stories", "100", "--vocabulary", "280", "--processes", "1"]
    assert main(arguments) == 0
    folder = TokenFolder.open(tmp_path / "made-up-stories")
    assert folder.manifest.vocabulary == 280
    assert main(arguments) == 1


def test_the_command_takes_a_text_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    text = tmp_path / "t.txt"
    text.write_text("".join(f"{told.text}\n\n" for told in TOLD[:60]))
    arguments = ["text", "--train", str(text), "--out", "own", "--vocabulary", "280", "--processes", "1"]
    assert main(arguments) == 1
    assert "which ends a document" in capsys.readouterr().err
    assert main([*arguments, "--separator", r"\n\n", "--held-out", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert "different words among" in printed
    assert "learnt 280 tokens" in printed
    assert re.search(r"train: 4[6-9] documents, [\d,]+ tokens, \d\.\d\d bytes a token", printed)
    assert "longest tokens" in printed
    folder = TokenFolder.open(tmp_path / "own")
    assert sum(split.documents for split in folder.manifest.splits.values()) == 60
    for wrong in (["--held-out", "1"], ["--processes", "0"], ["--out", "a/b"]):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong])
    assert main(["text", "--train", str(tmp_path / "none"), "--out", "x"]) == 1


def test_a_separator_may_have_any_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    text = tmp_path / "t.txt"
    separator = "\n\u2042\u00e9\U0001f600\n"
    text.write_text("".join(f"{told.text}{separator}" for told in TOLD[:40]), encoding="utf-8")
    arguments = ["text", "--train", str(text), "--out", "own", "--vocabulary", "280", "--processes", "1"]
    assert main([*arguments, "--separator", "\\n\u2042\u00e9\U0001f600\\n"]) == 0
    folder = TokenFolder.open(tmp_path / "own")
    assert sum(split.documents for split in folder.manifest.splits.values()) == 40
    assert folder.manifest.source["separator"] == separator
    for wrong, complaint in (("", "ends no document"), ("\\", r"a backslash itself is \\")):
        with pytest.raises(SystemExit):
            main([*arguments, "--separator", wrong])
        assert complaint in capsys.readouterr().err


def test_what_was_read_does_not_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    text = tmp_path / "t.txt"
    text.write_text(StoryChunk(0, "train", 0, 40).read())
    (tmp_path / "link.txt").symlink_to(text)
    (tmp_path / "copy.txt").write_text(text.read_text())
    arguments = ["text", "--train", str(text), "--out", "own", "--vocabulary", "280", "--processes", "1"]
    assert main([*arguments, "--validation", str(tmp_path / "link.txt")]) == 1
    assert "are the same file" in capsys.readouterr().err
    assert main([*arguments, "--validation", str(tmp_path / "none.txt")]) == 1
    assert "none.txt cannot be read" in capsys.readouterr().err
    assert main([*arguments, "--validation", str(tmp_path / "copy.txt")]) == 0


def test_what_is_missing_is_said_with_its_command(root: Path) -> None:
    assert TinyStories.missing(config()) is None
    assert len(TinyStories.data_files(config())) == 4
    cases = {
        "made-up-stories": "prepare made-up --vocabulary 300`",
        "made-up-stories-2": "prepare made-up --vocabulary 300 --out made-up-stories-2`",
        "made-up-400": "prepare text --train FILE --vocabulary 300 --out made-up-400`",
        "tinystories": "prepare tinystories --vocabulary 300`",
    }
    for data, command in cases.items():
        text = TinyStories.missing(config(data=data))
        assert text is not None
        assert f"{root / data} does not exist" in text
        assert command in text
        assert TinyStories.data_files(config(data=data)) == [root / data / "manifest.json"]
        assert TinyStories.references(config(data=data)) == {}
    with pytest.raises(RungError, match="does not exist"):
        TinyStories(config(data="tinystories"), 0)


def test_another_vocabulary_is_refused() -> None:
    wrong = config(vocabulary=512)
    assert "has a vocabulary of 300, and the configuration says 512: set vocabulary: 300" in str(
        TinyStories.missing(wrong)
    )
    with pytest.raises(RungError, match="has a vocabulary of 300"):
        TinyStories(wrong, 0)


def test_a_batch_is_not_split_further_than_it_goes() -> None:
    with pytest.raises(ValidationError, match=r"accumulation \(5\) takes a batch apart.*there are 4"):
        config(accumulation=5)


def test_more_parts_than_windows_are_an_obstacle() -> None:
    assert TinyStories.splitting_obstacle(config(), 4) is None
    text = TinyStories.splitting_obstacle(config(), 5)
    assert text == (
        "a batch of 4 windows cannot be split into 5 parts (workers x accumulation): raise batch_size, or take fewer"
    )


def test_the_handouts_model_has_17_million_parameters() -> None:
    """CS336 handout, section 7.2: 17 million without the input embedding."""
    defaults = TinyStoriesConfig()
    parts = parameter_breakdown(defaults.model, defaults.vocabulary, defaults.context)
    assert parts["total"] == TinyStories.workload(defaults).parameters == 22_696_448
    assert parts["without_embeddings"] == 17_576_448
    assert TinyStories.workload(defaults).tokens_per_step * 10_000 == 327_680_000


def test_tying_takes_from_the_leaderboard_model_what_was_published() -> None:
    """The course repository's leaderboard entry: 45.2 M parameters become 28.8 M. Ours is its smallest model."""
    study = load_study(STUDIES / "leaderboard.yaml")
    tied = TinyStoriesConfig.model_validate(completed(TinyStoriesConfig, study.base))
    assert tied.model.layers == study.space["model.layers"]["grid"][0]
    totals = [
        parameter_breakdown(tied.model.model_copy(update={"tie_embeddings": tie}), tied.vocabulary, tied.context)
        for tie in (False, True)
    ]
    assert tied.model.tie_embeddings
    assert [parts["total"] for parts in totals] == [45_224_448, 28_840_448]


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("no-layer-norm", "model.norm", ["pre", "none"]),
        ("post-norm", "model.norm", ["pre", "post"]),
        ("no-position-embedding", "model.positions", ["rope", "none"]),
        ("silu", "model.mlp", ["swiglu", "silu"]),
    ],
)
def test_an_ablation_compares_the_default_with_one_change(name: str, field: str, values: list[str]) -> None:
    study = load_study(STUDIES / f"{name}.yaml")
    assert study.space[field] == {"grid": values}
    assert getattr(TinyStoriesConfig().model, field.removeprefix("model.")) == values[0]
    assert set(study.space) == {field, "optimizer.learning_rate"}


def test_a_run_learns_and_its_measures_agree(root: Path) -> None:
    values = {"batch_size": 16, "optimizer": {"learning_rate": 3e-2}, "schedule": {"warmup": 5}}
    trainable = TinyStories(config(**values), 0)
    run = Run(trainable, "c-s0", Goal("steps", 60, "validation/loss", "min"))
    before = evaluate(run, scheduled=False).metrics
    assert before["validation/loss"] == pytest.approx(math.log(300), abs=0.8)
    train(run, math.inf, NullRecorder())
    after = evaluate(run, scheduled=False).metrics
    reference = TinyStories.references(config())["validation/loss"][0].value
    assert reference < after["validation/loss"] < before["validation/loss"] - 1.5
    assert after["validation/perplexity"] == pytest.approx(math.exp(after["validation/loss"]))
    # By hand: the text that the fixed windows predict.
    codec = BytePairCodec.of(TokenFolder.open(root / "few-stories"))
    targets = trainable.fixed_windows["validation"].targets_BS
    size = len(codec.decode(targets.flatten().tolist()).replace("<|endoftext|>", "").encode())
    bits = after["validation/loss"] * targets.numel() / math.log(2) / size
    assert after["validation/bits_per_byte"] == pytest.approx(bits)


def test_a_model_writes_and_is_not_disturbed() -> None:
    trainable = TinyStories(config(), 0)
    run = Run(trainable, "c-s0", Goal("steps", 1, "validation/loss", "min"))
    model = run.model.eval()
    with torch.no_grad():
        stories = trainable.generations(model)
        assert stories == trainable.generations(model)
        assert {each.prompt for each in stories} == {"Once upon a time"}
        assert len({each.response for each in stories}) == 3
        once, again = (
            trainable.complete(model, ["", "Tom"], Sampling(tokens=5, seed=1)),
            trainable.complete(model, [""], Sampling(tokens=5, seed=1)),
        )
    assert once[0] == again[0]
    assert "<|endoftext|>" not in "".join(once)
