"""Word problems: what answers are worth, what is refused beforehand, a tiny model in training, experiment files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from rung.configuration import completed
from rung.errors import RungError
from rung.plan import make_plan
from rung.results.query import load
from rung.results.views import dicts
from rung.study import load_study
from rung.training.assignment import Goal
from rung.training.checkpoints import load_checkpoint, save_checkpoint
from rung.training.loop import NullRecorder, evaluate, generations, train
from rung.training.run import Report, Run
from tests.launching import launch
from tests.tiny_model import tiny_model_folder
from tests.word_problems import small_word_problems
from trainables.models.lora import is_adapter
from trainables.word_problems import WordProblems, WordProblemsConfig
from trainables.word_problems.answers import Answer, Evaluation, QuestionAnswers, described
from trainables.word_problems.experiment_file import ExperimentFile, read_experiment
from trainables.word_problems.extraction import read_response
from trainables.word_problems.run_experiment import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Values of a configuration, and the data that it names."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_DATA", str(folder))
        yield small_word_problems(folder)


def configured(values: dict[str, Any], **changes: Any) -> WordProblemsConfig:
    """A configuration as a study completes it."""
    return WordProblemsConfig.model_validate(completed(WordProblemsConfig, {**values, **changes}))


# What answers are worth.


def answer(response: str, gold: str = "5", tokens: int = 4, has_ended: bool = True) -> Answer:
    return Answer("2 and 3?", gold, response, read_response(response, gold), 0.5, tokens, has_ended)


def asked(greedy: str, *drawn: str) -> QuestionAnswers:
    return QuestionAnswers(answer(greedy), [answer(text) for text in drawn])


def test_measures_by_hand() -> None:
    right = "<think>2 + 3</think><answer>5</answer>"
    found = Evaluation(
        [
            asked(right, "6", "5", "5", "none"),
            asked("none", "7", "7", "5", "5"),
            asked("4 or 6", "none", "none", "none", "none"),
            QuestionAnswers(answer("6", tokens=8, has_ended=False), [answer("5")] * 4),
        ]
    ).metrics((1, 2, 4))
    assert found == {
        "pass@1": 1 / 4,
        "parsed": 2 / 4,
        "formatted": 1 / 4,
        "cut_off": 1 / 4,
        "response_tokens": 5,
        "reward": 0.5,
        "pass@1_unbiased": pytest.approx((1 / 2 + 1 / 2 + 0 + 1) / 4),
        "pass@2_unbiased": pytest.approx((5 / 6 + 5 / 6 + 0 + 1) / 4),
        "pass@2": 2 / 4,  # the first two of question 2 are wrong
        "maj@2": 1 / 4,  # 6 comes before 5
        "pass@4_unbiased": 3 / 4,
        "pass@4": 3 / 4,
        "maj@4": 2 / 4,  # 7 comes before 5
    }
    assert found.keys() == described((1, 2, 4), 4).keys()


def test_pass_at_k_rises_with_k() -> None:
    texts = ["6", "5", "6", "5"]
    found = Evaluation([asked("5", *texts[shift:], *texts[:shift]) for shift in range(4)]).metrics((1, 2, 3, 4))
    for name in ("pass@{}", "pass@{}_unbiased"):
        values = [found[name.format(k)] for k in (2, 3, 4)]
        assert values == sorted(values)
        assert values[-1] == 1


def test_numbers_vote_however_they_are_written() -> None:
    assert asked("", "6", "$5.00", "5 apples").majority_is_right(3)
    assert not asked("", "none", "none", "5 or 6").majority_is_right(3)


def test_every_answer_is_a_row_and_the_greedy_one_comes_first() -> None:
    rows = list(Evaluation([asked("a 5", "b 6", "c"), asked("d 6")]).generations())
    assert [(row.response, row.reward) for row in rows] == [("a 5", 1), ("b 6", 0), ("c", 0), ("d 6", 0)]
    assert {(row.prompt, row.gold) for row in rows} == {("2 and 3?", "5")}


# What is refused beforehand.


def test_what_cannot_be_meant_is_refused_all_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        WordProblemsConfig.model_validate(
            {"rollout": {"group": 1}, "decoding": {"samples": 5, "ks": [1, 10]}, "data": {"train_samples": 0}}
        )
    text = str(caught.value)
    assert "ks: pass@10 takes at least 10 drawn answers to each question, and samples is 5" in text
    assert {error["loc"] for error in caught.value.errors()} == {
        ("rollout", "group"),
        ("decoding",),
        ("data", "train_samples"),
    }
    with pytest.raises(ValidationError, match="pass@0 is not defined"):
        WordProblemsConfig.model_validate({"decoding": {"samples": 5, "ks": [0]}})


def test_what_is_missing_is_said_in_the_plan(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(**changes: Any) -> str:
        return WordProblems.missing(configured(small, **changes)) or ""

    assert missing() == ""
    assert "there is no model in" in missing(model={"model": "elsewhere"})
    assert "there is no train.jsonl and no test.jsonl" in missing(data={"name": "gsm8k"})
    assert "my_rewards" in missing(rewards={"own": {"mine": {"function": "my_rewards:mine"}}})
    assert "no file nowhere.txt" in missing(prompt={"system_path": "nowhere.txt"})
    plain = tiny_model_folder(tmp_path / "plain", chat_template=None)
    assert "has no chat template" in missing(model={"model": str(plain)})
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_of({**small, "model": {"model": str(plain)}})))
    assert "has no chat template" in make_plan(load_study(path)).missing[0]
    # A package that is not installed: an empty import path for the time of the question.
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    assert "needs bitsandbytes" in missing(model={"model": "tiny", "quantization": "nf4"})


def study_of(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A study of a configuration."""
    return {
        "study": "sums",
        "trainable": "word_problems",
        "base": values,
        "seeds": 1,
        "budget": {"steps": 2},
        "metric": {"name": "test/pass@1"},
        **changes,
    }


def test_planning_imports_no_torch(small: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_of(small)))
    code = (
        "import sys; from rung.plan import make_plan; from rung.study import load_study\n"
        f"plan = make_plan(load_study({str(path)!r})); assert not plan.missing and plan.cost.memory\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'ray', 'bitsandbytes') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.strip() == "[]"


def test_its_cost_is_that_of_the_model_and_the_rollouts(small: dict[str, Any]) -> None:
    config = configured(small)
    workload = WordProblems.workload(config)
    model = WordProblems(config, 0).model(torch.Generator())
    assert workload.parameters == sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert workload.steps_per_epoch == 4  # 7 questions, 2 at a time
    prompts = [len(problem.tokens) for problem in WordProblems(config, 0).problems()]
    assert workload.tokens_per_step / 6 - 6 == pytest.approx(sum(prompts) / len(prompts), rel=0.75)  # a token is a byte
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    assert workload.memory is not None
    assert weights < workload.memory < 20 * weights
    assert workload.frozen == 0
    whole = configured(small, model={"model": "tiny", "adapter": None}, objective={"kl": "k3"})
    assert WordProblems.workload(whole).frozen == WordProblems.workload(whole).parameters


def test_the_study_for_16_gigabytes_fits_into_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))  # planned without the model and without the problems
    path = ROOT / "search_spaces" / "word_problems" / "qwen3-4b.yaml"
    four_bits = make_plan(load_study(path)).cost.memory
    more = make_plan(load_study(path, ["base.model.quantization=none"])).cost.memory
    assert four_bits is not None
    assert more is not None
    assert 3e9 < four_bits < 16e9
    assert more - four_bits == pytest.approx(3.6e9 * (2 - 0.52), rel=0.05)  # matrices of the blocks


def test_trackers_know_the_metrics_by_their_usual_names(small: dict[str, Any]) -> None:
    names = WordProblems.tracked_as(configured(small))
    assert names["batch/loss"] == "grpo_loss"
    assert {names[f"batch/rewards/{each}"] for each in ("mean", "std", "max", "min")} == {
        "rewards/mean",
        "rewards/std",
        "rewards/max",
        "rewards/min",
    }
    assert names["test/pass@1"] == "eval/pass@1"
    assert names["batch/epoch/accumulated_reward"] == "epoch/accumulated_reward"
    assert names["batch/epoch/mean_reward"] == "epoch/mean_reward"


# A tiny model in training.


class Memory(NullRecorder):
    """Keeps what was reported, by step."""

    def __init__(self) -> None:
        self.reports: dict[int, dict[str, float]] = {}

    def report(self, run: Run, report: Report) -> None:
        self.reports[report.step] = report.metrics


def make(values: dict[str, Any], seed: int = 0, steps: int = 3, **changes: Any) -> Run:
    config = configured(values, evaluation={"every": 3}, **changes)
    return Run(WordProblems(config, seed), f"c-s{seed}", Goal("steps", steps, "test/reward", "max"))


def trained(run: Run) -> dict[int, dict[str, float]]:
    memory = Memory()
    train(run, math.inf, memory)
    return memory.reports


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"kl": "k3"}},
        {"model": {"model": "tiny", "adapter": {"rank": 2}, "quantization": "nf4", "gradient_checkpointing": True}},
    ],
    ids=["lora", "qlora"],
)
def test_interrupted_equals_straight_and_only_adapters_change(
    small: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    if "quantization" in changes.get("model", {}):
        pytest.importorskip("bitsandbytes", reason="frozen weights in 4 bits need it")
    straight = make(small, **changes)
    begin = {name: tensor.detach().clone() for name, tensor in straight.model.named_parameters()}
    expected = trained(straight)
    for name, tensor in straight.model.named_parameters():
        assert torch.equal(tensor, begin[name]) != is_adapter(name), name
    first, memory = make(small, **changes), Memory()
    train(first, 2, memory)
    save_checkpoint(first, tmp_path)
    second = make(small, **changes)
    load_checkpoint(second, next(tmp_path.iterdir()))
    train(second, math.inf, memory)
    assert {step: memory.reports[step] for step in expected} == expected
    assert all(map(is_adapter, second.trainable.kept(second.model)))


def test_it_learns_what_is_rewarded(small: dict[str, Any]) -> None:
    rewards = {"set": "own", "own": {"letters": {"function": "tests.word_problems:letters"}}}
    rollout = {"prompts": 7, "group": 6, "tokens": 6}
    model = {"model": "tiny", "adapter": None}
    reports = trained(
        make(small, steps=9, rewards=rewards, rollout=rollout, model=model, optimizer={"learning_rate": 0.03})
    )
    assert 0 < reports[3]["batch/rewards/mean"] < 0.6
    assert reports[9]["batch/rewards/mean"] > 0.8
    assert reports[9]["batch/rewards/letters"] == reports[9]["batch/rewards/mean"]
    assert reports[0]["test/reward"] < reports[9]["test/reward"] == pytest.approx(1, abs=0.2)


def test_evaluation_answers_every_question_and_disturbs_nothing(small: dict[str, Any]) -> None:
    run, other = make(small), make(small)
    train(run, 1, NullRecorder())
    assert evaluate(run, scheduled=False).metrics == evaluate(run, scheduled=False).metrics
    rows = generations(run)
    assert len(rows) == 5 * 4
    assert [row.prompt for row in rows[::4]] == [f"{first} and 3?" for first in range(50, 55)]
    train(run, math.inf, NullRecorder())
    train(other, math.inf, NullRecorder())
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), other.model.parameters(), strict=True))


def test_answers_before_training_and_after_are_recorded(small: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_of(small, storage=str(tmp_path))))
    launch(path)
    rows = sorted((row["step"], row["index"]) for row in dicts(load(tmp_path / "sums").generations))
    assert rows == [(step, index) for step in (0, 2) for index in range(5 * 4)]


def test_a_run_goes_on_from_the_adapters_of_another(small: dict[str, Any]) -> None:
    source = make(small)
    trained(source)
    config = source.config
    inherited = WordProblems.inherited(config)
    assert inherited["model"] == config.model.model_dump(mode="json")
    model = WordProblems(config, 1).model(torch.Generator().manual_seed(1))
    WordProblems(config, 1).begin_from(model, source.trainable.kept(source.model), config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), source.model.parameters(), strict=True))
    with pytest.raises(RungError, match="answers no word problems"):
        WordProblems.inherited(object())


def test_a_question_is_answered(small: dict[str, Any]) -> None:
    trainable = WordProblems(configured(small), 0)
    model = trainable.model(torch.Generator().manual_seed(0))
    shown = trainable.solve(model, " 1 and 3? ")
    assert shown.splitlines()[-1].startswith("Answer: ")
    assert model.training
    with pytest.raises(RungError, match="there is no question"):
        trainable.solve(model, " ")


def test_a_model_that_has_diverged_answers_nothing(small: dict[str, Any]) -> None:
    trainable = WordProblems(configured(small), 0)
    model = trainable.model(torch.Generator().manual_seed(0))
    next(each for each in model.parameters() if each.requires_grad).data.fill_(math.nan)
    assert all(map(math.isnan, trainable.evaluate(model).values()))
    assert not trainable.generations(model)


# Experiment files.

RECOMMENDED = """
remark: eval_test
model_name: Qwen/Qwen3-4B-Instruct-2507
train_samples: 30
test_samples: 20
learning_rate: 5e-5
batch_size: 1
num_epochs: 100
gradient_accumulation_steps: 4
num_generations: 4
max_prompt_length: 256
max_generate_length: 256
temperature: 0.8
eval_temperature: 0.5
beta: 0.05
load_in_4bit: true
use_gradient_checkpointing: true
device_map: cpu
wandb_project: qwen3_4b_grpo
"""


def experiment(text: str, folder: Path) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def test_an_experiment_file_is_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = experiment(f"{RECOMMENDED}output_dir: {tmp_path}/out\n", tmp_path)
    name = "qwen3_grpo_bs1_lr5e-5_ng4_ga4_seed42_eval_test"
    assert main([str(path), "--plan"]) == 0
    shown = capsys.readouterr()
    assert "1 configuration, x 1 seed = 1 run" in shown.out
    assert "prompts are never cut" in shown.err
    study = load_study(tmp_path / "out" / f"{name}.yaml")
    plan = make_plan(study)
    assert plan.cost.most_steps == 800
    (planned,) = plan.configurations
    config = planned.config
    assert isinstance(config, WordProblemsConfig)
    assert (config.rollout.prompts, config.rollout.group, config.accumulation) == (4, 4, 4)
    assert (config.rollout.temperature, config.decoding.temperature) == (0.8, 0.5)
    assert (config.decoding.samples, config.decoding.ks) == (10, (1, 5, 10))
    assert (config.objective.kl, config.objective.kl_coefficient) == ("k3", 0.05)
    assert config.objective.aggregation == "sequence"
    assert config.model.quantization == "nf4"
    assert (config.optimizer.kind, config.optimizer.learning_rate) == ("adam", 5e-5)
    assert config.gradient_clip is None
    assert config.evaluation.generations == "every"
    assert config.evaluation.every == 50 * 8
    assert list(study.seeds) == [42]
    assert study.tracking.wandb is not None
    assert study.tracking.wandb.project == "qwen3_4b_grpo"
    assert {"bs1", "lr5e-5", "ng4", "ga4", "seed42", "qwen3", "gsm8k"} <= set(study.tracking.wandb.tags)


def test_defaults_of_an_experiment_file() -> None:
    study = ExperimentFile().study(has_gpu=True)
    assert study["budget"] == {"epochs": 50}
    assert study["resources"] == {"gpus": 1}
    assert study["base"]["data"] == {"name": "gsm8k", "train_samples": 50, "seed": 42}
    assert study["base"]["rollout"] == {"prompts": 4, "group": 3, "tokens": 512, "temperature": 0.7}
    assert study["base"]["objective"]["kl_coefficient"] == 0.1
    assert ExperimentFile(beta=0).study(has_gpu=True)["base"]["objective"]["kl"] == "none"
    assert "tracking" not in ExperimentFile(use_wandb=False).study(has_gpu=False)
    names = {ExperimentFile(learning_rate=rate).name for rate in (1e-5, 1.5e-5, 2e-5)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_generation: 4", "experiment.yaml:1: num_generation: unknown key (did you mean 'num_generations'?)"),
        ("num_generations: 1", "num_generations: must be at least 2, got 1"),
        ("hf_token: abc", "hf_token: a token in this file would be copied"),
        ("model_type: llama3", "model_name is needed for model_type llama3"),
        ("dataset_name: math", "dataset_name: expected"),
    ],
)
def test_an_experiment_file_that_is_wrong_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RungError) as caught:
        read_experiment(experiment(f"{text}\n", tmp_path))
    assert message in str(caught.value)
