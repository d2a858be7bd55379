"""Evaluation of a model of expressions: outcomes, measures, breakdowns, pass@k, files, and the stage that tests."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from rung.configuration import completed
from rung.errors import RungError
from rung.results.query import load
from rung.results.statistics import wilson_interval
from rung.results.views import dicts
from tests.expressions import SMALL_EXPRESSIONS
from tests.launching import launch
from tests.scripted_decoder import ScriptedDecoder
from trainables.arithmetic import Arithmetic, ArithmeticEvaluation, evaluation_report, run_evaluation
from trainables.arithmetic.answers import METRICS, Evaluation
from trainables.arithmetic.breakdown import breakdown, table
from trainables.arithmetic.corpus import solution_of
from trainables.arithmetic.evaluation import evaluate_items
from trainables.arithmetic.evaluation_config import ArithmeticEvaluationConfig, DecodingConfig
from trainables.arithmetic.evaluation_figure import exact_match_figure
from trainables.arithmetic.evaluation_files import verdict, write_files
from trainables.arithmetic.generator import Item
from trainables.arithmetic.tokenizer import Tokenizer, count_words, train_tokenizer
from trainables.arithmetic.trace import foundational_text, prompt
from trainables.language.pass_at_k import pass_at_k
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig

GREEDY = DecodingConfig()
ITEMS = [
    Item("7", 7, None, 0, 0),
    Item("1 + 2", 3, None, 1, 1),
    Item("5 - (2 + 4)", -1, None, 2, 2),
    Item("(1 + 1) - (2 + 4)", -4, None, 2, 3),
    Item("5 ++ 3", None, "doubled_plus", 1, 1),
]


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [foundational_text(item.expression, solution_of(item), form) for item in ITEMS for form in ("v1", "v2")]
    return train_tokenizer(count_words(texts, "digits"), 1_000)


def scripted(tokenizer: Tokenizer, length: int = 200, **texts: list[str]) -> ScriptedDecoder:
    """Writes the taught solutions, but other texts to the expressions that are named."""
    solutions = {item.expression: [solution_of(item)] for item in ITEMS} | texts
    return ScriptedDecoder(tokenizer, {prompt(each, "v2"): some for each, some in solutions.items()}, length)


def evaluated(
    model: Decoder, tokenizer: Tokenizer, decoding: DecodingConfig = GREEDY, items: Any = ITEMS
) -> Evaluation:
    return evaluate_items(model, tokenizer, items, format="v2", decoding=decoding)


def test_taught_solutions_are_right_in_every_measure(tokenizer: Tokenizer) -> None:
    measured = evaluated(scripted(tokenizer), tokenizer).metrics((1,))
    tokens = [len(tokenizer.encode(solution_of(item))) + 1 for item in ITEMS]
    assert measured == {
        "exact_match": 1.0,
        "parse_success": 1.0,
        "over_length": 0.0,
        "step_accuracy": 1.0,
        "trace_accuracy": 1.0,
        "generated_tokens": sum(tokens) / len(tokens),
        "solution_over_length": 0.0,
        "pass@1": 1.0,
    }
    assert [*measured] == [*METRICS, "pass@1"]


def test_every_outcome_is_told_apart(tokenizer: Tokenizer) -> None:
    texts = {
        "1 + 2": ["<think>\nStep 1: 1 + 2 = 4\nExpression now: 4\n</think>\nFinal Result: 4"],
        "5 - (2 + 4)": ["<think>\nStep 1: 2 + 4 = 6\nExpression now: 5 - 6\n</think>"],
        "(1 + 1) - (2 + 4)": ["<think>\n" + "Step 1: 1 + 1 = 2\nExpression now: 2 - (2 + 4)\n" * 9],
        "5 ++ 3": ["<think>\nStep 1: 5 + 3 = 8\nExpression now: 8\n</think>\nFinal Result: 8"],
    }
    found = evaluated(scripted(tokenizer, **texts), tokenizer, DecodingConfig(tokens=90))
    assert [each.outcome for each in found.answers] == ["right", "wrong", "unparsed", "over_length", "wrong"]
    assert [each.verification.first_wrong for each in found.answers] == [None, 1, None, 2, 1]
    assert [each.item for each in found.answers] == ITEMS
    measured = found.metrics()
    assert measured["exact_match"] == measured["trace_accuracy"] == 0.2
    assert measured["parse_success"] == 0.6
    assert measured["over_length"] == 0.2
    steps = [each.verification.steps for each in found.answers]
    assert measured["step_accuracy"] == 2 / sum(steps)  # one step of each of two answers
    assert found.answers[3].tokens == 90


def test_an_answer_is_cut_off_where_the_model_or_the_limit_is_at_its_end(tokenizer: Tokenizer) -> None:
    item = ITEMS[3]
    needed = len(tokenizer.encode(solution_of(item))) + 1
    asked = len(tokenizer.encode(prompt(item.expression, "v2"))) + 1
    for length, limit, fits in (
        (asked + needed - 1, 999, True),  # the last token is not read
        (asked + needed - 2, 999, False),
        (200, needed, True),
        (200, needed - 1, False),
        (asked - 2, 999, False),  # not even the problem
    ):
        answers = evaluated(scripted(tokenizer, length), tokenizer, DecodingConfig(tokens=limit)).answers
        assert answers[3].solution_fits == fits
        # Only the end token is missing where one token is: the result can be read.
        assert answers[3].outcome == ("right" if length >= asked + 20 and limit > 20 else "over_length"), (
            length,
            limit,
        )
        assert answers[3].tokens <= max(0, min(limit, length + 1 - asked))
    assert evaluated(scripted(tokenizer, asked + 5), tokenizer).answers[3].tokens == 6


def test_batches_change_nothing_and_each_answer_has_its_own_draws(tokenizer: Tokenizer) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = DecoderConfig(layers=1, width=16, heads=2, positions="rope")
    model = Decoder(shape, vocabulary=tokenizer.size, length=40, generator=generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    for settings in ({}, {"samples": 3, "temperature": 1.0, "ks": (1, 3), "seed": 4}):
        texts = [
            [each.response for each in evaluated(model, tokenizer, DecodingConfig(batch_size=size, **settings)).answers]
            for size in (1, 4, 100)
        ]
        assert texts[0] == texts[1] == texts[2]
        assert len(set(texts[0])) >= len(ITEMS) - 1
    assert len(texts[0]) == 15


def test_pass_at_k_counts_answers_that_differ(tokenizer: Tokenizer) -> None:
    item = ITEMS[1]
    model = scripted(tokenizer, **{item.expression: [solution_of(item), "<think>\n</think>\nFinal Result: 4"]})
    decoding = DecodingConfig(samples=20, temperature=1.0, ks=(1, 2, 20))
    found = evaluated(model, tokenizer, decoding, [item, ITEMS[0]])
    right = sum(each.is_right for each in found.by_item[0])
    assert 2 < right < 18
    measured = found.metrics(decoding.ks)
    assert measured["pass@1"] == pytest.approx((right / 20 + 1) / 2)
    assert measured["pass@1"] == pytest.approx(measured["exact_match"])
    assert measured["pass@1"] < measured["pass@2"] < measured["pass@20"] == 1
    (whole,) = breakdown(Evaluation(found.by_item[0], 20), "depth")
    assert (whole.items, whole.exact_match) == (1, right / 20)
    assert whole.interval == wilson_interval(right / 20, 1)


def test_pass_at_k_is_the_part_of_all_draws_that_have_a_right_one() -> None:
    for samples in range(1, 9):
        for right in range(samples + 1):
            flags = [place < right for place in range(samples)]
            before = 0.0
            for k in range(1, samples + 1):
                draws = list(itertools.combinations(flags, k))
                value = pass_at_k(samples, right, k)
                assert value == pytest.approx(sum(map(any, draws)) / len(draws))
                assert value >= before
                before = value
    for wrong in ((3, 1, 4), (3, 4, 1), (3, 1, 0)):
        with pytest.raises(ValueError, match="is not defined"):
            pass_at_k(*wrong)


def test_items_are_broken_down_with_intervals(tokenizer: Tokenizer) -> None:
    found = evaluated(scripted(tokenizer, **{"1 + 2": ["Final Result: 1"]}), tokenizer)
    by_operators = breakdown(found, "operators")
    assert [(each.name, each.items, each.exact_match) for each in by_operators] == [
        ("0", 1, 1.0),
        ("1", 2, 0.5),
        ("2", 1, 1.0),
        ("3", 1, 1.0),
    ]
    assert by_operators[1].interval == wilson_interval(1, 2)
    assert [each.name for each in breakdown(found, "error")] == ["none", "doubled_plus"]
    assert "1      2       50.0 %    9.5 % to 90.5 %" in table(by_operators, "operators")


def test_test_sets_in_one_figure_may_differ(tokenizer: Tokenizer) -> None:
    some, more = (evaluated(scripted(tokenizer), tokenizer, items=each) for each in (ITEMS[:1], ITEMS))
    both = [evaluation_report.Tested(name, name, {0: each}) for name, each in (("few", some), ("more", more))]
    _, lower = exact_match_figure(both, "operators").axes
    names = [each.get_text() for each in lower.get_xticklabels()]
    assert names == [each.name for each in both[1].groups("operators")]
    assert [len(bars) for bars in lower.containers] == [1, len(names)]


def test_files_hold_measures_samples_and_a_verdict(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = scripted(tokenizer, **{"1 + 2": ["3"], "7": ["Final Result: 8"]})
    found = evaluated(model, tokenizer, items=ITEMS * 3)
    files = write_files(tmp_path / "new", found, {"seed": 0}, 1.5)
    measures = json.loads(files.metrics.read_text())
    assert measures["exact_match"] == 0.6
    assert measures["outcomes"] == {"right": 0.6, "wrong": 0.2, "unparsed": 0.2, "over_length": 0.0}
    assert [each["name"] for each in measures["by_depth"]] == ["0", "1", "2"]
    samples = json.loads(files.samples.read_text())
    assert len(samples) == 10
    assert samples[0]["right_answer"] == "7"
    assert samples[0]["complaint"]
    text = files.summary.read_text()
    assert "exact match          60.0 % (95 % interval 35.7 % to 80.2 %)" in text
    assert "verdict: good, but less than 90.0 % of the answers can be read" in text
    assert files.metrics.name.startswith("evaluation_metrics_2")
    assert files.samples.name.startswith("sample_outputs_2")


@pytest.mark.parametrize(
    ("rate", "word"), [(1, "excellent"), (0.8, "excellent"), (0.6, "good"), (0.4, "moderate"), (0, "poor")]
)
def test_verdicts(rate: float, word: str) -> None:
    assert verdict(rate, 0.91) == word


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 2}, "2 samples at temperature 0 are all the same"),
        ({"ks": [1, 3]}, "pass@3 takes at least 3 samples of each item, there are 1"),
        ({"tokens": 0}, "greater than 0"),
        ({"top_p": 1.5}, "less than or equal to 1"),
    ],
)
def test_decoding_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DecodingConfig.model_validate(values)


# The stage.


def stage_config() -> ArithmeticEvaluationConfig:
    values = {**SMALL_EXPRESSIONS, "test": {"max_depth": 2, "samples": 12, "largest": 9, "invalid_rate": 0.2}}
    return ArithmeticEvaluationConfig.model_validate(completed(ArithmeticEvaluationConfig, values))


@torch.no_grad()
def test_the_trainable_writes_its_answers_once() -> None:
    config = stage_config()
    trainable = ArithmeticEvaluation(config, 0)
    model = trainable.model(torch.Generator().manual_seed(0)).eval()
    measured = trainable.evaluate(model)
    assert set(measured) == set(trainable.metrics(config))
    first = trainable.evaluation(model)
    rows = trainable.generations(model)
    assert trainable.evaluation(model) is first
    assert [row.prompt for row in rows] == [prompt(item.expression, "v2") for item in trainable.items]
    assert sum(row.reward or 0 for row in rows) == 12 * measured["test/exact_match"]
    assert {row.gold for row in rows} > {"ERROR"}
    next(model.parameters()).mul_(2.0)
    assert trainable.evaluation(model) is not first
    next(model.parameters()).fill_(math.nan)
    assert all(map(math.isnan, trainable.evaluate(model).values()))
    assert trainable.generations(model) == ()


def test_the_trainable_trains_nothing() -> None:
    with pytest.raises(RungError, match=r"budget: \{steps: 0\}"):
        ArithmeticEvaluation(stage_config(), 0).batches().at(0, None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that trains a little, and one that tests what came out; two seeds."""
    folder = tmp_path_factory.mktemp("studies")
    common = {"seeds": 2, "storage": str(folder / "results"), "checkpoints": {"keep": "best"}}
    trained = {
        "study": "trained",
        "trainable": "arithmetic",
        "base": dict(SMALL_EXPRESSIONS),
        "budget": {"steps": 2},
        "metric": {"name": "validation/loss", "mode": "min"},
    }
    tested = {
        "study": "tested",
        "trainable": "arithmetic_evaluation",
        "start": {"study": "trained"},
        "base": {"test": {"max_depth": 2, "samples": 15, "largest": 9}, "decoding": {"tokens": 30}},
        "budget": {"steps": 0},
        "metric": {"name": "test/exact_match", "mode": "max"},
    }
    for study in (trained, tested):
        path = folder / f"{study['study']}.yaml"
        path.write_text(yaml.safe_dump(study | common))
        launch(path)
    return folder / "results"


def test_a_stage_tests_what_the_stage_before_has_trained(studies: Path) -> None:
    results = load(studies / "tested")
    rows = dicts(results.runs)
    assert [(row["status"], row["step"]) for row in rows] == [("completed", 0)] * 2
    written = dicts(results.query('SELECT * FROM generations ORDER BY seed, "index"'))
    assert len(written) == 2 * 15
    config = ArithmeticEvaluationConfig.model_validate_json(dicts(results.configurations)[0]["config_json"])
    trainable = ArithmeticEvaluation(config, 1)
    from rung.training.checkpoint_files import latest_checkpoint
    from rung.training.checkpoints import read_weights

    weights, _ = read_weights(latest_checkpoint(next((studies / "trained" / "checkpoints").glob("*-s1"))))  # type: ignore[arg-type]
    model = trainable.model(torch.Generator().manual_seed(9))
    trainable.begin_from(model, weights, Arithmetic.Config())
    assert [row["response"] for row in written[15:]] == [each.response for each in trainable.generations(model.eval())]


def test_the_report_breaks_a_study_down_and_draws_it(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluation_report.main([str(studies / "tested"), "--by", "depth", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "2 seeds" in shown
    assert "95 % interval" in shown
    assert (tmp_path / "exact_match_by_depth.png").stat().st_size > 10_000
    (tested,) = evaluation_report.read_study(load(studies / "tested"))
    measured = dicts(load(studies / "tested").query('SELECT avg("test/over_length") AS cut FROM metrics'))[0]
    assert tested.together.share("over_length") == pytest.approx(measured["cut"])
    assert sum(group.items for group in tested.groups("operators")) == 15
    with pytest.raises(RungError, match="a study of arithmetic: name one of arithmetic_evaluation"):
        evaluation_report.main([str(studies / "trained")])


# The command.


def test_the_command_writes_its_files(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = next((studies / "trained" / "checkpoints").glob("*-s0"))
    flags = ["--num-samples", "6", "--max-depth", "1", "--num-range", "1", "9", "--max-gen-length", "9"]
    assert run_evaluation.main(["--model-path", str(checkpoint), "--output-dir", str(tmp_path), *flags]) == 0
    assert "verdict: poor" in capsys.readouterr().out
    names = sorted(re.sub(r"_\d{8}_\d{6}$", "", path.stem) for path in tmp_path.iterdir())
    assert names == ["evaluation_metrics", "evaluation_summary", "sample_outputs"]


def test_the_command_names_every_mistake(tmp_path: Path) -> None:
    flags = ["--num-samples", "0", "--num-range", "9", "1", "--answers", "3"]
    with pytest.raises(RungError) as raised:
        run_evaluation.main(["--model-path", str(tmp_path), *flags])
    text = str(raised.value)
    assert "samples: " in text
    assert "3 samples at temperature 0" in text
    with pytest.raises(RungError, match="does not exist"):
        run_evaluation.main(["--model-path", str(tmp_path / "none")])
