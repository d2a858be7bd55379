"""The training commands of the arithmetic language model, end to end on models of a few thousand weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file

from rung.errors import RungError, StorageError
from tests.launching import launch, runs
from trainables.arithmetic import run_foundational_training, run_instruction_training, training_recorder
from trainables.arithmetic.config import ArithmeticConfig, TokenizerConfig
from trainables.arithmetic.corpus import line_of, solution_of
from trainables.arithmetic.corpus_config import CorpusConfig
from trainables.arithmetic.corpus_file import Text, read_halves, read_texts
from trainables.arithmetic.generator import items
from trainables.arithmetic.model_folder import load_model, save_model_folder
from trainables.arithmetic.model_settings import ModelSettings
from trainables.arithmetic.preparation import both_formats, learnt_tokenizer
from trainables.arithmetic.run_instruction_training_lora import LoraSettings
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import foundational_text, one_line, problem
from trainables.arithmetic.training_folder import epochs, has_stalled, new_folder
from trainables.arithmetic.training_settings import FoundationalSettings, InstructionSettings
from trainables.language.settings_command import settled

CORPUS = CorpusConfig(max_depth=2, largest=9, invalid_rate=0.1)
SMALL = {"d_model": 16, "nhead": 2, "num_layers": 1, "dim_feedforward": 32, "max_seq_length": 160}
BRIEF = ["--num-epochs", "2", "--eval-every", "4", "--warmup-steps", "4", "--learning-rate", "1e-2"]

Line = list[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.jsonl of 120 items, a folder `tokenizer`, and model.json."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "corpus.jsonl").write_text("".join(map(line_of, items(CORPUS, "train", 0, 120))))
    lines = [(item.expression, solution_of(item)) for item in items(CORPUS, "train", 0, 120)]
    learnt_tokenizer(both_formats(lines), TokenizerConfig(vocabulary=80)).save(folder / "tokenizer")
    (folder / "model.json").write_text(json.dumps(SMALL))
    return folder


@pytest.fixture(scope="module")
def foundational(data: Path) -> Path:
    """The folder of a foundational run."""
    run_foundational_training.main([*foundational_line(data), "--output-dir", str(data / "models")])
    (folder,) = (data / "models").glob("foundational_*")
    return folder


def foundational_line(data: Path, *more: str) -> Line:
    model = ["--model-config", str(data / "model.json")]
    return ["--corpus-path", str(data / "corpus.jsonl"), *tokenizer_line(data), *model, *BRIEF, *more]


def instruction_line(data: Path, checkpoint: Path, *more: str) -> Line:
    start = ["--foundational-checkpoint", str(checkpoint)]
    return ["--instruction-corpus-path", str(data / "corpus.jsonl"), *tokenizer_line(data), *start, *BRIEF, *more]


def tokenizer_line(data: Path) -> Line:
    return ["--tokenizer-path", str(data / "tokenizer")]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows_of(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without the clock."""
    with (folder / "metrics.csv").open() as file:
        return [{name: cell for name, cell in row.items() if name != "wall_seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("settings", "paths", "expected"),
    [
        (FoundationalSettings, ("corpus_path",), (1e-4, 32, 10, 1_000, 1_000)),
        (InstructionSettings, ("instruction_corpus_path", "foundational_checkpoint"), (5e-5, 32, 5, 500, 500)),
    ],
)
def test_defaults_are_those_of_the_original(settings: Any, paths: tuple[str, ...], expected: tuple[Any, ...]) -> None:
    found = settled(settings, dict.fromkeys((*paths, "tokenizer_path"), "x"))
    names = ("learning_rate", "batch_size", "num_epochs", "warmup_steps", "save_every")
    assert tuple(getattr(found, name) for name in names) == expected
    assert (found.gradient_clip, found.eval_every, found.device, str(found.output_dir)) == (1.0, 500, "auto", "models")
    optimizer = ArithmeticConfig(**found.to_values()).optimizer
    assert (optimizer.kind, optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == ("adamw", 0.9, 0.999, 0.01)


def test_the_default_model_is_that_of_the_original() -> None:
    from trainables.models.decoder_config import parameter_count

    assert parameter_count(ModelSettings().to_decoder(), 258, ModelSettings().max_seq_length) == 4_936_192


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_foundational_training.main(["--help"])
    text = capsys.readouterr().out
    original = (
        "corpus-path tokenizer-path output-dir learning-rate batch-size num-epochs warmup-steps gradient-clip "
        "save-every device d-model nhead num-layers dim-feedforward dropout max-seq-length config model-config "
        "resume-checkpoint"
    )
    assert [flag for flag in original.split() if f"--{flag} " not in text] == []


@pytest.mark.parametrize("settings", [FoundationalSettings, InstructionSettings, LoraSettings])
def test_the_page_has_every_flag(settings: type[BaseModel]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "arithmetic.md").read_text()
    assert [name for name in settings.model_fields if f"`--{name.replace('_', '-')}" not in page] == []


def test_training_leaves_the_files_of_a_run(foundational: Path) -> None:
    names = {path.name for path in foundational.iterdir()}
    assert {"best_model.safetensors", "final_model.safetensors", "model_config.json", "training_config.json"} <= names
    log, summary, rows = read(foundational / "training_log.json"), read(foundational / "training_summary.json"), None
    assert [(entry["epoch"], entry["step"]) for entry in log] == [(1, 4), (2, 8)]
    assert log[1]["train_loss"] < log[0]["train_loss"]
    assert (summary["status"], summary["total_steps"], summary["total_epochs"]) == ("completed", 8, 2)
    assert summary["best_val_loss"] == min(entry["val_loss"] for entry in log)
    rows = [row for row in rows_of(foundational) if row["train_loss"]]
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01, 0.0075, 0.005, 0.0025])


def test_checkpoints_are_written_every_save_every_steps(data: Path, tmp_path: Path) -> None:
    line = foundational_line(data, "--output-dir", str(tmp_path), "--save-every", "3", "--num-epochs", "1")
    run_foundational_training.main(line)
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.glob("checkpoint_step_*")] == ["checkpoint_step_3.safetensors"]


def test_a_run_can_be_made_again_from_its_files(foundational: Path, tmp_path: Path) -> None:
    config, model = foundational / "training_config.json", foundational / "model_config.json"
    line = ["--config", str(config), "--model-config", str(model), "--output-dir", str(tmp_path)]
    run_foundational_training.main(line)
    (again,) = tmp_path.iterdir()
    assert rows_of(again) == rows_of(foundational)
    assert (again / "final_model.safetensors").read_bytes() == (foundational / "final_model.safetensors").read_bytes()


def test_a_model_is_loaded_with_its_tokenizer(foundational: Path, data: Path) -> None:
    file = foundational / "final_model.safetensors"
    decoder, config, tokenizer = load_model(file, data / "tokenizer")
    assert (config.model.width, config.context, config.format, decoder.training) == (16, 160, "v2", False)
    weights = load_file(file)
    assert torch.equal(decoder.embedding.weight, weights["embedding.weight"])
    newest, _, _ = load_model(foundational / "checkpoints")
    assert all(torch.equal(tensor, newest.state_dict()[name]) for name, tensor in decoder.state_dict().items())
    assert tokenizer.decode(tokenizer.encode("Evaluate: 1 + 2\n")) == "Evaluate: 1 + 2\n"


@pytest.mark.parametrize("when", [2, 6])
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    when: int, foundational: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training_recorder.Recorder.after_step

    def interrupted(self: training_recorder.Recorder, run: Any) -> None:
        whole(self, run)
        if run.progress.step == when:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_recorder.Recorder, "after_step", interrupted)
        patch.setattr(training_recorder, "CHECKPOINT_SECONDS", 0.0 if when == 6 else 1e9)
        assert run_foundational_training.main(foundational_line(data, "--output-dir", str(tmp_path))) == 130
    (folder,) = tmp_path.iterdir()
    assert not (folder / "training_summary.json").exists()
    assert run_foundational_training.main(["--resume-checkpoint", str(folder)]) == 0
    assert rows_of(folder) == rows_of(foundational)
    for name in ("best_model.safetensors", "final_model.safetensors"):
        assert (folder / name).read_bytes() == (foundational / name).read_bytes()


def test_a_finished_run_goes_on_when_it_gets_more_epochs(foundational: Path, data: Path, tmp_path: Path) -> None:
    line = foundational_line(data, "--output-dir", str(tmp_path), "--num-epochs", "1")
    run_foundational_training.main(line)
    (folder,) = tmp_path.iterdir()
    run_foundational_training.main(["--resume-checkpoint", str(folder / "best_model.safetensors"), "--num-epochs", "2"])
    assert [entry["epoch"] for entry in read(folder / "training_log.json")] == [1, 2]
    with pytest.raises(RungError, match=r"holds another run \(batch_size 32 -> 8\)"):
        run_foundational_training.main(["--resume-checkpoint", str(folder), "--batch-size", "8"])


def test_instruction_training_begins_with_a_checkpoint(foundational: Path, data: Path, tmp_path: Path) -> None:
    start = foundational / "best_model.safetensors"
    line = instruction_line(data, start, "--output-dir", str(tmp_path), "--learning-rate", "1e-30")
    run_instruction_training.main(line)
    (folder,) = tmp_path.glob("instruction_*")
    before, after = load_file(start), load_file(folder / "final_model.safetensors")
    assert all(torch.allclose(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()
    launches = read(folder / "provenance.json")["launches"]
    assert str(start) in launches[0]["inputs"]


def test_only_the_dropout_of_a_checkpoint_can_be_changed(foundational: Path, data: Path, tmp_path: Path) -> None:
    described = {**read(foundational / "model_config.json"), "dropout": 0.5}
    file = written(tmp_path / "model.json", json.dumps(described))
    line = instruction_line(data, foundational, "--output-dir", str(tmp_path), "--num-epochs", "1")
    run_instruction_training.main([*line, "--model-config", str(file)])
    (folder,) = tmp_path.glob("instruction_*")
    assert read(folder / "model_config.json") == described
    run_instruction_training.main(["--resume-checkpoint", str(folder), "--num-epochs", "2"])
    assert read(folder / "model_config.json") == described


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert len({new_folder(tmp_path, "foundational") for _ in range(3)}) == 3


def test_early_stopping_ends_a_run(data: Path, tmp_path: Path) -> None:
    stop = ["--early-stopping-patience", "1", "--early-stopping-min-delta", "0.9", "--output-dir", str(tmp_path)]
    run_foundational_training.main(foundational_line(data, *stop))
    (folder,) = tmp_path.iterdir()
    summary = read(folder / "training_summary.json")
    assert (summary["ended_by"], summary["total_steps"]) == ("early_stopping", 4)


def test_stalling_counts_evaluations_without_a_lower_loss() -> None:
    def stalled(*losses: float | None) -> bool:
        return has_stalled([{"step": 1.0, "val_loss": loss} for loss in losses], patience=2, min_delta=0.1)

    assert not stalled(1.0, 0.95)
    assert stalled(1.0, 0.95, None, 0.91)
    assert not stalled(1.0, 0.95, 0.89)
    assert stalled(1.0, 0.5, 2.0, 3.0)


def test_epochs_have_the_mean_of_their_steps() -> None:
    rows: list[dict[str, float | None]] = [{"step": 0, "val_loss": 9}]
    rows += [{"step": step, "train_loss": loss} for step, loss in ((1, 4), (2, 2), (3, 1))]
    rows.insert(3, {"step": 2, "val_loss": 3})
    found = [(entry["epoch"], entry["step"], entry["train_loss"], entry["val_loss"]) for entry in epochs(rows, 2)]
    assert found == [(1, 2, 3.0, 3), (2, 3, 1.0, None)]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_plain_text_is_read_in_every_form(tmp_path: Path) -> None:
    made = list(items(CORPUS, "train", 0, 50))
    solutions = [solution_of(item) for item in made]
    known = [Text(item.expression, solution) for item, solution in zip(made, solutions, strict=True)]
    texts = {name: [foundational_text(text.expression, text.solution, name) for text in known] for name in ("v1", "v2")}
    assert read_texts(written(tmp_path / "v2.txt", "\n".join(texts["v2"]))) == known
    assert read_texts(written(tmp_path / "blank.txt", "\n\n".join(texts["v2"]))) == known
    assert read_texts(written(tmp_path / "v1.txt", "\n".join(texts["v1"]))) == known
    apart = [problem(text.expression) for text in known] + [one_line(text.solution) for text in reversed(known)]
    assert read_texts(written(tmp_path / "apart.txt", "\n".join(apart))) == [Text("", line) for line in apart]


def test_what_is_held_out_is_not_trained_on(data: Path) -> None:
    tokenizer = Tokenizer.load(data / "tokenizer")
    halves = read_halves(data / "corpus.jsonl", 0.3, tokenizer, ArithmeticConfig())
    problems = {
        name: {tokenizer.decode(half.of(index)[: half.prompts[index]]) for index in range(len(half))}
        for name, half in halves.items()
    }
    assert len(halves["train"]) + len(halves["validation"]) == 120
    assert len(problems["validation"]) == round(0.3 * (len(problems["train"]) + len(problems["validation"])))
    assert not problems["train"] & problems["validation"]


def test_a_checkpoint_of_a_study_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    base = {
        "corpus": {"max_depth": 1, "samples": 40, "validation_samples": 8},
        "model": {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32, "dropout": 0},
        "context": 160,
    }
    study = {"study": "tiny", "trainable": "arithmetic", "storage": str(tmp_path), "base": base, "seeds": 1}
    study |= {"budget": {"steps": 2}, "metric": {"name": "validation/loss", "mode": "min"}}
    opened = launch(written(tmp_path / "study.yaml", json.dumps(study)))
    (run,) = runs(opened.directory)
    decoder, config, tokenizer = load_model(opened.directory / "checkpoints" / run)
    assert (config.corpus.samples, config.context, decoder.vocabulary) == (40, 160, tokenizer.size)


# Bad input.


@pytest.fixture
def refused(data: Path, tmp_path: Path) -> Callable[..., str]:
    """The message with which a foundational command line is refused; nothing is left behind."""

    def message(*more: str) -> str:
        with pytest.raises((RungError, StorageError)) as caught:
            run_foundational_training.main(foundational_line(data, "--output-dir", str(tmp_path / "models"), *more))
        assert not (tmp_path / "models").exists()
        return str(caught.value)

    return message


def test_wrong_settings_are_all_named(refused: Callable[..., str], tmp_path: Path) -> None:
    file = written(tmp_path / "settings.json", '{"learning_rte": 1e-4, "save_every": "often"}')
    text = refused("--config", str(file), "--batch-size", "none")
    assert f"{file}: learning_rte: unknown key (did you mean 'learning_rate'?)" in text
    assert f'{file}: save_every: expected a whole number, got "often"' in text
    assert '--batch-size: expected a whole number, got "none"' in text


def test_wrong_models_are_named(refused: Callable[..., str], tmp_path: Path) -> None:
    file = written(tmp_path / "model.json", '{"d_model": 16, "nhead": 3, "decoder": {"position": "rope", "width": 4}}')
    text = refused("--model-config", str(file))
    assert "3 heads do not divide a width of 16" in text or "decoder.position: unknown key" in text
    assert "decoder.width is d_model here" in text
    written(file, json.dumps({**SMALL, "vocab_size": 7}))
    assert "vocab_size is 7, and the tokenizer" in refused("--model-config", str(file))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty: there is nothing to learn from"),
        ('{"expression": "1"}\n', "not a line of a corpus"),
        ("Evaluate: 1 + 1\n<think>\n</think>\nFinal Result: 2\n" * 2, "holds one expression only"),
        ("Evaluate: 2 * 2\nEvaluate: 3 × 3\n", "do not belong together: the tokenizer does not know"),
    ],
)
def test_bad_corpora_are_refused(content: str, expected: str, refused: Callable[..., str], tmp_path: Path) -> None:
    assert expected in refused("--corpus-path", str(written(tmp_path / "corpus.txt", content)))


def test_too_long_items_are_refused(refused: Callable[..., str]) -> None:
    text = refused("--max-seq-length", "40")
    assert "longer than context (40 tokens)" in text
    assert "context is --max-seq-length, and most_cut is --most-cut" in text


def test_what_is_not_there_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "cannot be read" in refused("--corpus-path", str(tmp_path / "nowhere.jsonl"))
    assert "cannot be read" in refused("--tokenizer-path", str(tmp_path / "nowhere"))
    assert "belongs to no run of a training command" in refused("--resume-checkpoint", str(tmp_path))
    assert "cannot read" in refused("--config", str(tmp_path / "nowhere.json"))


def test_parts_that_do_not_belong_together_are_refused(foundational: Path, data: Path, tmp_path: Path) -> None:
    lines = [(item.expression, solution_of(item)) for item in items(CORPUS, "train", 0, 120)]
    for vocabulary, complaint in (
        (70, "was trained with 80 tokens, and the tokenizer"),
        (80, "another tokenizer than"),
    ):
        config = TokenizerConfig(vocabulary=vocabulary, numbers="whole")
        learnt_tokenizer(both_formats(lines), config).save(tmp_path / str(vocabulary))
        with pytest.raises(RungError, match=complaint):
            load_model(foundational, tmp_path / str(vocabulary))
    config_file = ["--model-config", str(written(tmp_path / "m.json", json.dumps({**SMALL, "num_layers": 2})))]
    with pytest.raises(RungError, match="describes a model of another shape"):
        run_instruction_training.main(instruction_line(data, foundational, *config_file))
    weights = load_file(foundational / "best_model.safetensors")
    wider = ModelSettings(**{**SMALL, "dim_feedforward": 48}).to_config()
    save_model_folder(tmp_path / "model.safetensors", weights, wider, data / "tokenizer")
    with pytest.raises(RungError, match=r"are not what model_config\.json says: a checkpoint of another shape"):
        load_model(tmp_path / "model.safetensors")


def test_a_run_goes_on_with_its_own_command(foundational: Path) -> None:
    with pytest.raises(RungError, match="is a run of another command"):
        run_instruction_training.main(["--resume-checkpoint", str(foundational)])


def test_instruction_training_wants_problems(foundational: Path, data: Path, tmp_path: Path) -> None:
    apart = written(tmp_path / "apart.txt", "Evaluate: 1 + 2\nEvaluate: 3\n<think> </think> Final Result: 9\n")
    with pytest.raises(RungError, match="does not say which solution belongs to which problem"):
        run_instruction_training.main([*instruction_line(data, foundational), "--instruction-corpus-path", str(apart)])
