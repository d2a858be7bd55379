"""The trainable `arithmetic`: what it reads, what it measures, what a stage takes over, what it writes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from rung.configuration import completed
from rung.errors import RungError
from rung.trainable import Sampling, find_trainable
from rung.training.assignment import Goal
from rung.training.loop import NullRecorder, train
from rung.training.run import Run
from tests.expressions import SMALL_EXPRESSIONS
from trainables.arithmetic import Arithmetic, ArithmeticConfig
from trainables.arithmetic.examination import Examination
from trainables.arithmetic.sequences import Sequences
from trainables.models.decoder import Decoder

STEPS = 100


@pytest.fixture(scope="module", autouse=True)
def _data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def config(**values: Any) -> ArithmeticConfig:
    return ArithmeticConfig.model_validate(completed(ArithmeticConfig, {**SMALL_EXPRESSIONS, **values}))


def fresh(made: ArithmeticConfig, seed: int = 0) -> tuple[Arithmetic, Decoder]:
    trainable = Arithmetic(made, seed)
    model = trainable.model(torch.Generator().manual_seed(seed)).eval()
    assert isinstance(model, Decoder)
    return trainable, model


@pytest.fixture(scope="module")
def learnt() -> tuple[Arithmetic, Decoder]:
    """A model that has learnt some of its training items."""
    made = config(mode="instruction", batch_size=20, model={"layers": 1, "width": 32, "heads": 2, "positions": "rope"})
    run = Run(Arithmetic(made, 0), "c-s0", Goal("steps", STEPS, "validation/loss", "min"))
    train(run, STEPS - 1, NullRecorder())
    assert isinstance(run.model, Decoder)
    return run.trainable, run.model.eval()  # type: ignore[return-value]


def examination(trainable: Arithmetic, sequences: Sequences, **values: Any) -> Examination:
    made = trainable.config
    arguments = {"context": made.context, "only_solutions": made.mode == "instruction", "batch_size": 7, **values}
    return Examination(sequences, **arguments)


@torch.no_grad()
def test_trace_accuracy_is_what_greedy_decoding_writes_without_a_mistake(learnt: tuple[Arithmetic, Decoder]) -> None:
    trainable, model = learnt
    items = trainable.sequences("train")
    prompts = [items.of(index)[: items.prompts[index]].tolist() for index in range(len(items))]
    written = trainable.continuations(model, prompts, Sampling(tokens=60, temperature=0.0))
    right = [
        prompt + rest == items.of(index).tolist()
        for index, (prompt, rest) in enumerate(zip(prompts, written, strict=True))
    ]
    found = examination(trainable, items).metrics(model)
    assert found["validation/trace_accuracy"] == sum(right) / len(right)
    assert 0 < sum(right) < len(right)  # or else the test says nothing


@torch.no_grad()
@pytest.mark.parametrize("mode", ["foundational", "instruction"])
def test_the_metrics_are_those_of_every_item_by_itself(mode: str) -> None:
    trainable, model = fresh(config(mode=mode))
    items = trainable.sequences("validation").take(slice(10))
    losses, hits = [], []
    for index in range(len(items)):
        tokens, cut = torch.from_numpy(items.of(index).astype("int64")), int(items.prompts[index])
        logits = model(tokens[None, :-1])[0]
        begin = cut - 1 if mode == "instruction" else 0
        losses.append(F.cross_entropy(logits[begin:], tokens[begin + 1 :], reduction="none"))
        hits.append(logits[cut - 1 :].argmax(-1) == tokens[cut:])
    found = trainable.evaluate(model)
    assert found["validation/loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert found["validation/token_accuracy"] == pytest.approx(float(torch.cat(hits).float().mean()))
    assert found["validation/trace_accuracy"] == sum(bool(hit.all()) for hit in hits) / len(hits)


@torch.no_grad()
def test_items_that_do_not_fit_count_as_wrong(learnt: tuple[Arithmetic, Decoder]) -> None:
    trainable, model = learnt
    items = trainable.sequences("train")
    context = int(items.positions.max()) - 1
    too_long = int((items.positions > context).sum())
    all_of_them, fitting = (examination(trainable, items, context=each) for each in (trainable.config.context, context))
    assert len(fitting.sequences) == len(items) - too_long
    kept = fitting.metrics(model)["validation/trace_accuracy"] * len(items)
    assert kept <= all_of_them.metrics(model)["validation/trace_accuracy"] * len(items) <= kept + too_long


def test_a_model_that_has_diverged_has_no_accuracy() -> None:
    trainable, model = fresh(config())
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
        assert all(math.isnan(value) for value in trainable.evaluate(model).values())
    assert trainable.generations(model) == ()


@torch.no_grad()
def test_what_it_writes(learnt: tuple[Arithmetic, Decoder]) -> None:
    trainable, model = learnt
    rows = trainable.generations(model)
    assert len(rows) == 5
    for row in rows:
        assert row.prompt.startswith("Evaluate: ")
        assert row.prompt.endswith("\n")
        assert row.gold is not None
        assert (row.gold == "ERROR") or int(row.gold) is not None
        assert row.reward == float(row.extracted == row.gold)
        assert "<eos>" not in row.response
    assert trainable.complete(model, [row.prompt for row in rows], Sampling(tokens=64, temperature=0.0)) == [
        row.response for row in rows
    ]
    with pytest.raises(RungError, match=r"does not know '\*'"):
        trainable.complete(model, ["Evaluate: 2 * 3\n"], Sampling())


def test_other_seeds_read_in_another_order_unless_told_not_to() -> None:
    def first(seed: int, **values: Any) -> list[list[int]]:
        batch = Arithmetic(config(**values), seed).batches().at(0)
        return batch.inputs_BS.tolist()  # type: ignore[no-any-return]

    assert first(0) == first(0)
    assert first(0) != first(1)
    assert first(0, data_seed=5) == first(1, data_seed=5)


# Stages.


def test_a_stage_takes_over_model_tokenizer_format_and_corpus() -> None:
    before = config(format="v1", tokenizer={"numbers": "whole"})
    taken = Arithmetic.inherited(before)
    after = ArithmeticConfig.model_validate({**taken, "mode": "instruction"})
    assert (after.model, after.format, after.context) == (before.model, "v1", before.context)
    assert after.tokenizer.corpus == after.corpus == before.corpus
    other_corpus = after.model_copy(update={"corpus": before.corpus.model_copy(update={"max_depth": 2})})
    assert Arithmetic(other_corpus, 0).tokenizer.tokens == Arithmetic(before, 0).tokenizer.tokens
    assert Arithmetic.inherited(other_corpus)["tokenizer"]["corpus"] == before.corpus.model_dump(mode="json")
    stories = find_trainable("tinystories").Config()
    with pytest.raises(RungError, match="no model of expressions"):
        Arithmetic.inherited(stories)


@torch.no_grad()
def test_weights_go_from_stage_to_stage_with_and_without_adapters() -> None:
    plain, adapted = config(), config(adapter={"rank": 2}, mode="instruction")
    base, first = fresh(plain, seed=1)
    stage, second = fresh(adapted, seed=2)
    tokens = torch.arange(20)[None]
    stage.begin_from(second, dict(first.named_parameters()), plain)
    assert torch.equal(second(tokens), first(tokens))
    assert [name for name, weight in second.named_parameters() if weight.requires_grad] == [
        name for name, _ in second.named_parameters() if "lora" in name
    ]
    for name, weight in second.named_parameters():
        if "lora_B" in name:
            weight.normal_(generator=torch.Generator().manual_seed(0))
    third = base.model(torch.Generator().manual_seed(3)).eval()
    base.begin_from(third, dict(second.named_parameters()), adapted)
    torch.testing.assert_close(third(tokens), second(tokens))
    assert not torch.allclose(third(tokens), first(tokens))


def test_weights_of_another_shape_are_refused() -> None:
    trainable, model = fresh(config())
    _, other = fresh(config(model={**SMALL_EXPRESSIONS["model"], "width": 16}))
    with pytest.raises(RungError, match="another shape"):
        trainable.begin_from(model, dict(other.named_parameters()), config())


# Data.


def test_data_is_made_once_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    said: list[str] = []
    Arithmetic.prepare([config(), config(mode="instruction"), config(batch_size=7)], said.append)
    assert [line.split(":")[0] for line in said] == ["corpus", "tokenizer", "encoded corpus"]
    kinds = sorted(path.name.split("-")[0] for path in (tmp_path / "arithmetic").iterdir())
    assert kinds == ["corpus", "locks", "sequences", "tokenizer"]
    Arithmetic.prepare([config()], said.append)
    assert len(said) == 3
    files = {path.name for path in (tmp_path / "arithmetic").glob("*/*")}
    assert {"manifest.json", "train.jsonl", "train-tokens.npy", "tokenizer.json"} <= files
    Arithmetic.prepare([config(corpus={**SMALL_EXPRESSIONS["corpus"], "seed": 1})], said.append)
    assert len(said) == 6


def test_too_long_items_are_told_or_refused_before_training() -> None:
    said: list[str] = []
    with pytest.raises(RungError, match=r"longer than context \(30 tokens\).*most_cut"):
        Arithmetic.prepare([config(context=30)], said.append)
    with pytest.raises(RungError, match="longer than context"):
        Arithmetic(config(context=30), 0).batches()
    Arithmetic.prepare([config(context=30, most_cut=0.9), config(context=30, most_cut=0.95)], said.append)
    assert sum("they are left out" in line for line in said) == 1


@pytest.mark.parametrize("batching", ["padded", "bucketed", "packed"])
def test_the_workload_is_estimated_before_there_is_data(
    batching: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(batching=batching, corpus={"samples": 300, "max_depth": 3}, context=400)
    exact = Arithmetic.workload(made) if Arithmetic.prepare([made], lambda line: None) is None else None
    monkeypatch.setenv("RUNG_DATA", str(tmp_path))
    guess = Arithmetic.workload(made)
    assert exact is not None
    assert not any(tmp_path.iterdir())
    assert guess.parameters == pytest.approx(exact.parameters, rel=0.1)
    assert guess.tokens_per_step == pytest.approx(exact.tokens_per_step, rel=0.15)
    assert guess.steps_per_epoch == pytest.approx(exact.steps_per_epoch, rel=0.15)


def test_only_buckets_count_tokens() -> None:
    assert len(Arithmetic(config(batch_tokens=64), 0).batches().at(0)) < 10
    with pytest.raises(ValidationError, match="batch_tokens is for batching: bucketed, and batching is packed"):
        config(batch_tokens=64, batching="packed")


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from trainables.arithmetic import Arithmetic, ArithmeticConfig; "
        "c = ArithmeticConfig(); Arithmetic.metrics(c); Arithmetic.workload(c); "
        "Arithmetic.inherited(c); print({'torch', 'peft', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_default_model_is_that_of_the_original() -> None:
    from trainables.models.decoder_config import parameter_count

    defaults = ArithmeticConfig()
    assert parameter_count(defaults.model, 258, defaults.context) == 4_936_192
