"""Arithmetic by reinforcement learning: what is asked, what answers are worth, the original's formula, the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from rung.configuration import completed
from rung.errors import RungError
from rung.results.query import load
from rung.results.views import dicts
from rung.trainable import weights_of
from rung.training.assignment import Goal
from rung.training.checkpoints import save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.run import Run
from rung.tuning.solve import open_solver
from tests.expressions import SMALL_EXPRESSIONS
from tests.launching import launch
from trainables.arithmetic import (
    Arithmetic,
    ArithmeticConfig,
    ArithmeticEvaluation,
    ArithmeticEvaluationConfig,
    ArithmeticGrpo,
    ArithmeticGrpoConfig,
    run_grpo_training,
    training_recorder,
)
from trainables.arithmetic.config import TokenizerConfig
from trainables.arithmetic.corpus import line_of, solution_of
from trainables.arithmetic.corpus_config import CorpusConfig, TestConfig
from trainables.arithmetic.generator import items, part_of
from trainables.arithmetic.grpo_plan import ANSWERS
from trainables.arithmetic.grpo_problems import ItemStream, corpus_items, validation_items
from trainables.arithmetic.grpo_rewards import exact, steps
from trainables.arithmetic.grpo_settings import GrpoSettings
from trainables.arithmetic.model_folder import find_model, load_model, save_model_folder
from trainables.arithmetic.preparation import both_formats, learnt_tokenizer
from trainables.arithmetic.test_sets import test_set as made_test_set
from trainables.arithmetic.trace import problem, solution
from trainables.arithmetic.training_folder import best_row, has_stalled
from trainables.models.decoder import Decoder
from trainables.rl.problems import Problem
from trainables.rl.rewards import Judgement

ORIGINAL = {"scale": "group", "ratio": "none", "aggregation": "sum", "kl": "full", "tempered": False}
ROLLOUT = {"prompts": 3, "group": 4, "tokens": 12, "temperature": 0.8}
KIND = "trainables.arithmetic:ArithmeticGrpo"
GOAL = Goal("steps", 100, "validation/reward_rate", "max")
EXPRESSION = "5 + (10 - 3)"
TAUGHT = solution(EXPRESSION)


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def config(**values: Any) -> ArithmeticGrpoConfig:
    small = {name: value for name, value in SMALL_EXPRESSIONS.items() if name != "batch_size"}
    return ArithmeticGrpoConfig.model_validate(completed(ArithmeticGrpoConfig, {**small, "rollout": ROLLOUT, **values}))


class Judged(ArithmeticGrpo):
    """Rewards that do not depend on what was written: 1, 0, 0, 0 in each group."""

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> Judgement:
        return Judgement([1.0, 0.0, 0.0, 0.0] * (len(responses) // 4), {})


# What answers are worth.


@pytest.mark.parametrize(
    ("response", "right", "part"),
    [
        (TAUGHT, 1, 1),
        (TAUGHT.replace("<think>\n", ""), 1, 1),
        ("Final Result: 12", 1, 0),
        ("Final Result: 12\nFinal Result: 13", 1, 0),
        ("Final Result: 13\nFinal Result: 12", 0, 0),
        ("Final Result: ERROR", 0, 0),
        ("12", 0, 0),
        ("", 0, 0),
        (TAUGHT.replace("= 12", "= 13").replace("now: 12", "now: 13").replace("Result: 12", "Result: 13"), 0, 0.5),
        (TAUGHT.replace("10 - 3 = 7", "10 - 3 = 8"), 1, 0),
        (TAUGHT.partition("\nStep 2")[0], 0, 0.5),
        (TAUGHT.replace("</think>", "Step 3: 12 + 0 = 12\nExpression now: 12\n</think>"), 1, 1),
    ],
)
def test_rewards(response: str, right: float, part: float) -> None:
    asked = ([f"{problem(EXPRESSION)}\n"], [response], ["12"])
    assert exact(*asked) == [right]
    assert steps(*asked) == [part]


def test_where_nothing_is_to_be_worked_out_a_right_result_is_all_steps() -> None:
    answers = [solution("7"), "Final Result: 8"]
    assert steps(["Evaluate: 7 <think>", "Evaluate: 7\n"], answers, ["7", "7"]) == [1, 0]


def test_a_longer_answer_is_worth_no_more_steps() -> None:
    padded = TAUGHT.replace("</think>", "Step 1: 10 - 3 = 7\nExpression now: 5 + 7\n" * 5 + "</think>")
    assert steps([problem(EXPRESSION)], [padded], ["12"]) == [1]


# What is asked.


def test_the_corpus_is_asked_without_its_invalid_items() -> None:
    made = config()
    asked = corpus_items(made)
    every = list(items(made.corpus, "train", 0, made.corpus.samples))
    assert [item.expression for item in asked] == [item.expression for item in every if item.answer is not None]
    assert 0 < len(asked) < len(every)
    assert ArithmeticGrpo.workload(made).steps_per_epoch == -(-len(asked) // 3)


def test_drawn_expressions_are_a_function_of_their_number_and_of_no_test_set() -> None:
    made = config(data_mode="generated", corpus={**SMALL_EXPRESSIONS["corpus"], "max_depth": 2})
    stream = ItemStream(made, 3)
    drawn = [stream(number) for number in range(60)]
    assert [ItemStream(made, 3)(number) for number in (59, 0)] == [drawn[59], drawn[0]]
    assert drawn != [ItemStream(made, 4)(number) for number in range(60)]
    assert all(item.answer is not None and part_of(item.expression) == "train" for item in drawn)
    held_out = {item.expression for item in validation_items(made)}
    tested = {item.expression for item in made_test_set(TestConfig(max_depth=2, samples=50))}
    assert not {item.expression for item in drawn} & (held_out | tested)
    assert not held_out & tested
    assert ArithmeticGrpo.workload(made).steps_per_epoch is None


def test_only_the_sizes_that_are_wanted_are_asked() -> None:
    corpus = {**SMALL_EXPRESSIONS["corpus"], "max_depth": 3}
    made = config(least_operators=2, most_operators=4, corpus=corpus)
    asked = [*corpus_items(made), *validation_items(made), *map(ItemStream(made, 0), range(20))]
    assert {item.operators for item in asked} <= {2, 3, 4}
    few = {"max_depth": 1, "smallest": 4, "largest": 4}  # 4 + 4 and 4 - 4 are of the other parts
    with pytest.raises(RungError, match=r"hardly any expression of depth 1 .* has 1 to 1 operators"):
        ItemStream(config(least_operators=1, most_operators=1, corpus=few), 0)(0)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"model": {"dropout": 0.1}}, "dropout .* must be 0"),
        ({"adapter": {"dropout": 0.1}}, "dropout .* must be 0"),
        ({"batch_size": 4, "batching": "packed"}, "batch_size, batching: no part of this training"),
        ({"least_operators": 3, "most_operators": 2}, r"least_operators \(3\) must not be above most_operators \(2\)"),
        ({"least_operators": 2}, r"an expression of depth 1 \(corpus.max_depth\) has at most 1"),
        ({"rewards": {"exact": 0}}, "no reward has a weight"),
        ({"rollout": {"group": 1}}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        config(**values)


# The formula of the original.


def test_the_originals_loss() -> None:
    """The mean over answers of -A times the sum of log p, A = (r - mean) / std, and .05 times the divergence from where
    training began, summed over the vocabulary and the tokens of an answer; log-probabilities are those at temperature
    1."""
    trainable = Judged(config(objective={**ORIGINAL, "kl_coefficient": 0.05}), 0)
    model, before = moved(trainable)
    batch = trainable.batches().at(0, model)
    assert sorted(batch.advantages_B.tolist()) == pytest.approx([-(3**-0.5)] * 9 + [3**0.5] * 3)
    total, divergence = torch.zeros(()), 0.0
    for row, (begin, end) in enumerate(zip(batch.prompts, batch.lengths, strict=True)):
        tokens = batch.tokens_BS[row : row + 1, :end]
        log_p, log_q = (torch.log_softmax(each(tokens[:, :-1]), -1)[0, begin - 1 :] for each in (model, before))
        kl = (log_p.exp() * (log_p - log_q)).sum()
        total = total + (-batch.advantages_B[row] * log_p.gather(1, tokens[0, begin:, None]).sum() + 0.05 * kl) / 12
        divergence += kl.item()
    loss = trainable.loss(model, batch)
    assert loss.value.item() == pytest.approx(total.item(), rel=1e-4)
    assert float(loss.metrics["kl"]) == pytest.approx(divergence / written(batch), rel=1e-4)
    assert divergence > 0.1
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    ours, theirs = (torch.autograd.grad(value, weights) for value in (loss.value, total))
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-6) for one, other in zip(ours, theirs, strict=True))


def moved(trainable: ArithmeticGrpo) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A model that has gone some way from where it began, and one that stands there."""
    model, before = (trainable.model(torch.Generator().manual_seed(0)) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model, before


def written(batch: Any) -> int:
    """Tokens of all answers of a batch."""
    return sum(batch.lengths) - sum(batch.prompts)


# What it begins with, and what begins with it.


def test_it_takes_over_a_model_without_its_dropout() -> None:
    taught = ArithmeticConfig.model_validate(completed(ArithmeticConfig, {"model": {"dropout": 0.3, "layers": 2}}))
    taken = ArithmeticGrpo.inherited(taught)
    assert (taken["model"]["dropout"], taken["model"]["layers"], taken["corpus"]["seed"]) == (0.0, 2, 0)
    assert ArithmeticEvaluation.inherited(config())["model"]["layers"] == 1


def test_the_reference_is_where_it_began_and_stays_behind() -> None:
    taught = ArithmeticConfig.model_validate(completed(ArithmeticConfig, SMALL_EXPRESSIONS))
    taught_model = Arithmetic(taught, 0).model(torch.Generator().manual_seed(5))
    trainable = ArithmeticGrpo(config(objective={"kl": "k3"}), 0)
    model = trainable.model(torch.Generator().manual_seed(0))
    trainable.begin_from(model, weights_of(taught_model), taught)
    tokens = torch.tensor([[2, 7, 8, 9]])
    with trainable.policy.reference(model) as reference:
        assert torch.allclose(reference(tokens), taught_model(tokens), atol=1e-6)
    with torch.no_grad():
        model.get_parameter("norm.weight").mul_(2)
    with trainable.policy.reference(model) as reference:
        assert torch.allclose(reference(tokens), taught_model(tokens), atol=1e-6)
    tested = ArithmeticEvaluation(evaluation_config(), 0)
    other = tested.model(torch.Generator().manual_seed(1))
    tested.begin_from(other, weights_of(model), trainable.config)
    assert torch.equal(other(tokens), model(tokens))


def evaluation_config() -> ArithmeticEvaluationConfig:
    return ArithmeticEvaluationConfig.model_validate(completed(ArithmeticEvaluationConfig, SMALL_EXPRESSIONS))


def test_evaluation_is_of_the_model_as_it_is_now() -> None:
    run = Run(Judged(config(optimizer={"learning_rate": 0.3}), 0), "c-s0", GOAL)
    run.model.eval()
    before = [each.response for each in run.trainable.generations(run.model)]
    assert len(before) == 10
    run.model.train()
    train(run, 3, NullRecorder())
    assert [each.response for each in run.trainable.generations(run.model)] != before


def test_a_chain_of_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taught, then reinforced, then tested: by seed, each stage from the weights of the one before."""
    monkeypatch.setenv("RUNG_STORAGE", str(tmp_path))
    evaluated = {"every": 1, "generations": "every"}
    asked = {"rollout": ROLLOUT, "objective": {"kl": "k3"}, "evaluation": evaluated, "evaluation_items": 10}
    stages: list[dict[str, Any]] = [
        {"study": "taught", "trainable": "arithmetic", "base": SMALL_EXPRESSIONS, "budget": {"steps": 2}},
        {"study": "reinforced", "trainable": KIND, "base": asked, "budget": {"steps": 2}, "start": {"study": "taught"}},
        {
            "study": "tested",
            "trainable": "arithmetic_evaluation",
            "base": {"test": {"max_depth": 1, "samples": 15, "largest": 9}, "decoding": {"tokens": 12}},
            "budget": {"steps": 0},
            "start": {"study": "reinforced"},
        },
    ]
    metrics = ("validation/token_accuracy", "validation/reward_rate", "test/exact_match")
    common = {"seeds": 1, "checkpoints": {"keep": "best"}}
    for stage, metric in zip(stages, metrics, strict=True):
        path = tmp_path / f"{stage['study']}.yaml"
        path.write_text(yaml.safe_dump({**stage, **common, "metric": {"name": metric, "mode": "max"}}))
        launch(path)
    reinforced, tested = load(tmp_path / "reinforced"), load(tmp_path / "tested")
    written = dicts(reinforced.query("SELECT step, count(*) AS rows FROM generations GROUP BY step ORDER BY step"))
    assert [(row["step"], row["rows"]) for row in written] == [(step, 10) for step in range(3)]
    assert dicts(reinforced.configurations)[0]["config.model.dropout"] == 0
    assert dicts(tested.runs)[0]["status"] == "completed"
    assert "Final Result" in open_solver(None, "reinforced")("1 + 2")
    (run,) = (tmp_path / "reinforced" / "checkpoints").glob("*-s0")
    assert "reference.norm.weight" not in find_model(run).weights


# The command.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.jsonl of 40 items, a folder `tokenizer`, and a model in `taught`."""
    folder = tmp_path_factory.mktemp("files")
    corpus = CorpusConfig(max_depth=1, largest=9, invalid_rate=0.2)
    made = list(items(corpus, "train", 0, 40))
    (folder / "corpus.jsonl").write_text("".join(map(line_of, made)))
    lines = [(item.expression, solution_of(item)) for item in made]
    tokenizer = learnt_tokenizer(both_formats(lines), TokenizerConfig(vocabulary=80))
    tokenizer.save(folder / "tokenizer")
    (folder / "taught").mkdir()
    values = {"model": {**SMALL_EXPRESSIONS["model"], "dropout": 0.1}, "context": 64}
    taught = ArithmeticConfig.model_validate(completed(ArithmeticConfig, values))
    decoder = Decoder(taught.model, vocabulary=tokenizer.size, length=64, generator=torch.Generator().manual_seed(3))
    save_model_folder(folder / "taught" / "best_model.safetensors", weights_of(decoder), taught, folder / "tokenizer")
    return folder


def line(files: Path, output: Path, *more: str) -> list[str]:
    flags = [
        "--tokenizer",
        str(files / "tokenizer"),
        "--sft-checkpoint",
        str(files / "taught"),
        "--max-gen-length",
        "12",
    ]
    brief = ["--num-epochs", "2", "--eval-every", "3", "--save-every", "2", "--log-every", "2", "--warmup-steps", "2"]
    return [*flags, *brief, "--learning-rate", "1e-2", "--output-dir", str(output), *more]


def corpus_line(files: Path, output: Path, *more: str) -> list[str]:
    return line(files, output, "--instruction-corpus", str(files / "corpus.jsonl"), *more)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{name: cell for name, cell in row.items() if name != "wall_seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(files: Path) -> Path:
    """The folder of a run."""
    assert run_grpo_training.main(corpus_line(files, files / "models")) == 0
    (folder,) = (files / "models").glob("grpo_*")
    return folder


def test_a_run_leaves_the_files_of_the_original(trained: Path, files: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    expected = "best_model final_model checkpoint_step_2 checkpoint_step_4"
    assert {f"{name}.safetensors" for name in expected.split()} <= names
    log, summary = read(trained / "grpo_training_log.json"), read(trained / "training_summary.json")
    original = "policy_loss kl_divergence total_loss avg_reward reward_rate val_reward_rate learning_rate step_time"
    assert set(original.split()) <= log[0].keys()
    assert [entry["step"] for entry in log] == list(range(2, summary["total_steps"] + 1, 2))
    for entry in log:
        assert entry["kl_divergence"] >= 0
        assert entry["total_loss"] >= entry["policy_loss"]
    assert summary["best_val_reward_rate"] is not None
    settings = read(trained / "model_config.json")
    assert (settings["dropout"], settings["max_seq_length"]) == (0.0, 64)
    decoder, _, _ = load_model(trained)
    assert isinstance(decoder, Decoder)
    assert not any("reference" in name for name in load_file(trained / "best_model.safetensors"))


def test_an_interrupted_run_goes_on_to_the_same_numbers(
    trained: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training_recorder.Recorder.after_step

    def interrupted(self: training_recorder.Recorder, run: Any) -> None:
        whole(self, run)
        if run.progress.step == 3:
            save_checkpoint(run, self._folder / "checkpoints")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_recorder.Recorder, "after_step", interrupted)
        assert run_grpo_training.main(corpus_line(files, tmp_path)) == 130
    (folder,) = tmp_path.iterdir()
    assert run_grpo_training.main(["--resume-checkpoint", str(folder)]) == 0
    assert rows_of(folder) == rows_of(trained)
    name = "final_model.safetensors"
    assert (folder / name).read_bytes() == (trained / name).read_bytes()


def test_drawn_expressions_need_no_corpus(files: Path, tmp_path: Path) -> None:
    drawn = ["--data-mode", "generated", "--num-samples", "9", "--max-depth", "1", "--num-range-max", "9"]
    more = ["--algorithm", "dr_grpo", "--num-epochs", "1", "--batch-size", "2", "--gradient-accumulation-steps", "2"]
    assert run_grpo_training.main(line(files, tmp_path, *drawn, *more)) == 0
    (folder,) = tmp_path.iterdir()
    assert read(folder / "training_summary.json")["total_steps"] == 3
    assert not any(name.startswith("kl") and entry[name] for entry in read(folder / ANSWERS.log) for name in entry)


def test_what_the_command_refuses(files: Path, tmp_path: Path) -> None:
    with pytest.raises(RungError, match="asks the expressions of a corpus: name it"):
        run_grpo_training.main(line(files, tmp_path))
    (tmp_path / "settings.json").write_text('{"num_candidate": 3}')
    with pytest.raises(RungError, match="did you mean 'num_candidates'"):
        run_grpo_training.main(corpus_line(files, tmp_path, "--config", str(tmp_path / "settings.json")))
    (tmp_path / "model.json").write_text('{"d_model": 32}')
    with pytest.raises(RungError, match="describes a model of another shape"):
        run_grpo_training.main(corpus_line(files, tmp_path, "--model-config", str(tmp_path / "model.json")))


def test_every_flag_of_the_original_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_grpo_training.main(["--help"])
    text = capsys.readouterr().out
    original = (
        "instruction-corpus tokenizer sft-checkpoint output-dir data-mode num-epochs batch-size num-candidates "
        "temperature top-k top-p kl-penalty-coef gradient-accumulation-steps log-every max-gen-length num-samples "
        "candidate-sub-batch-size filter-invalid-instruction max-depth num-range-min num-range-max learning-rate "
        "warmup-steps save-every eval-every gradient-clip device config resume-checkpoint"
    )
    assert [flag for flag in original.split() if f"--{flag}" not in text] == []


def test_defaults_are_those_of_the_original() -> None:
    found = GrpoSettings.model_validate({"tokenizer": "x", "sft_checkpoint": "x", "instruction_corpus": "x"})
    assert (found.num_epochs, found.num_candidates, found.temperature, found.top_k, found.top_p) == (3, 4, 0.8, 50, 0.9)
    assert (found.kl_penalty_coef, found.learning_rate, found.warmup_steps) == (0.05, 1e-5, 100)
    assert (found.save_every, found.eval_every, found.gradient_clip, found.max_depth) == (500, 250, 1.0, 5)
    objective = found.objective.model_dump()
    assert {name: objective[name] for name in ORIGINAL} == ORIGINAL
    assert found.model_copy(update={"kl_penalty_coef": 0.0}).objective.kl == "none"


def test_the_page_has_every_flag() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "arithmetic.md").read_text()
    assert [name for name in GrpoSettings.model_fields if f"`--{name.replace('_', '-')}" not in page] == []


def test_the_best_model_has_the_highest_reward_rate() -> None:
    rates: list[float | None] = [None, 0.5, 0.7, 0.7, 0.6]
    rows: list[dict[str, float | None]] = [{"step": i, "val_reward_rate": rate} for i, rate in enumerate(rates, 1)]
    assert best_row(rows, ANSWERS) == rows[2]
    assert has_stalled(rows, 2, 0.0, ANSWERS)
    assert not has_stalled(rows, 3, 0.0, ANSWERS)
