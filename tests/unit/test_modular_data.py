"""Modular arithmetic: vocabulary, items, split and batches. Each test is named after what it checks."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rung.errors import RungError
from trainables.modular_arithmetic import ModularArithmetic, ModularArithmeticConfig
from trainables.modular_arithmetic.data import Batches, Items, as_items, equations, split, tokenize
from trainables.modular_arithmetic.vocabulary import Vocabulary


def config(**fields: Any) -> ModularArithmeticConfig:
    return ModularArithmeticConfig.model_validate(fields)


def training_items(seed: int = 0, **fields: Any) -> Items:
    return ModularArithmetic(config(**fields), seed).training_items


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        config(**fields)
    return str(caught.value)


def test_vocabulary_is_numbers_operator_equals_bos_eos_pad() -> None:
    vocabulary = Vocabulary(31, "+")
    assert len(vocabulary) == config().vocabulary_size == 36
    assert vocabulary.tokens == [*map(str, range(31)), "+", "=", "BOS", "EOS", "PAD"]
    special = (vocabulary.operator, vocabulary.equals, vocabulary.bos, vocabulary.eos, vocabulary.pad)
    assert [vocabulary.tokens[index] for index in special] == ["+", "=", "BOS", "EOS", "PAD"]


def test_samples_have_seven_and_nine_tokens_and_inputs_leave_out_the_last() -> None:
    vocabulary = Vocabulary(7, "*")
    binary = tokenize(config(modulus=7, operator="*"), np.array([[3, 5, 1]]))[0]
    ternary = tokenize(config(modulus=7, operator="*", orders=[3]), np.array([[3, 5, 2, 2]]))[0]
    assert vocabulary.labels(binary.tolist()) == ["BOS", "3", "*", "5", "=", "1", "EOS"]
    assert vocabulary.labels(ternary.tolist()) == ["BOS", "3", "*", "5", "*", "2", "=", "2", "EOS"]
    for orders, length in (([2], 6), ([3], 8), ([2, 3], 8)):
        settings = config(modulus=7, orders=orders)
        assert training_items(modulus=7, orders=orders).inputs_BS.shape[1] == settings.length == length


def test_mixed_orders_are_padded_and_scored_after_their_own_equals_sign() -> None:
    settings = config(modulus=5, orders=[2, 3])
    vocabulary = Vocabulary(5, "+")
    items = as_items(settings, np.array([[3, 4, 2]]), np.array([[1, 2, 3, 1]]), batch=2, device="cpu")
    assert items.weights_BT is not None
    binary, ternary = items.inputs_BS.tolist()
    assert vocabulary.labels(binary) == ["BOS", "3", "+", "4", "=", "2", "EOS", "PAD"]
    assert vocabulary.labels(ternary) == ["BOS", "1", "+", "2", "+", "3", "=", "1"]
    # In the target, which is one token ahead, `=` stands at 3 and 5; what is scored begins right after it.
    assert items.start == 4
    assert items.weights_BT.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    scored = [row[weight > 0].tolist() for row, weight in zip(items.targets_BT, items.weights_BT, strict=True)]
    assert [vocabulary.labels(each) for each in scored] == [["2", "EOS"], ["1", "EOS"]]


@pytest.mark.parametrize("order", [2, 3])
def test_operators_are_computed_modulo_p_and_division_undoes_multiplication(order: int) -> None:
    p = 7
    for operator, python in (("+", int.__add__), ("-", int.__sub__), ("*", int.__mul__)):
        rows = equations(config(modulus=p, operator=operator, orders=[order]), order).tolist()
        assert len(rows) == p**order
        for *operands, result in rows:
            expected = operands[0]
            for operand in operands[1:]:
                expected = python(expected, operand)
            assert expected % p == result
    rows = equations(config(modulus=p, operator="/", orders=[order]), order).tolist()
    assert len({tuple(row[:-1]) for row in rows}) == len(rows) == p * (p - 1) ** (order - 1)
    for dividend, *divisors, quotient in rows:
        assert 0 not in divisors
        assert (int(np.prod(divisors)) * quotient - dividend) % p == 0
    assert "32 is not prime, 31 is" in refusal(modulus=32, operator="/")


@pytest.mark.parametrize(
    ("modulus", "orders", "expected"),
    [(31, [2], 961), (11, [3], 1331), (11, [2, 3], 1452), (5, [2, 3], 150)],
)
def test_sizes_of_the_tables(modulus: int, orders: list[int], expected: int) -> None:
    settings = config(modulus=modulus, orders=orders)
    assert settings.items() == expected
    assert sum(len(equations(settings, order)) for order in orders) == expected


@pytest.mark.parametrize("order", [2, 3])
def test_symmetric_keeps_the_sorted_items_of_commutative_operators(order: int) -> None:
    for operator in "+*":
        settings = config(modulus=6, operator=operator, orders=[order], symmetric=True)
        rows = equations(settings, order)
        expected = list(itertools.combinations_with_replacement(range(6), order))
        assert [tuple(row[:-1]) for row in rows.tolist()] == expected
        assert settings.items() == len(expected)
    for operator in "-/":
        assert "different items" in refusal(modulus=7, operator=operator, symmetric=True)


def test_train_fraction_holds_within_each_order_and_orders_are_evaluated_apart_and_together() -> None:
    assert config().train_items() == 481  # and 480 for validation
    settings = config(modulus=11, orders=[2, 3], train_fraction=0.3, model={"width": 8, "heads": 2})
    trainable = ModularArithmetic(settings, 0)
    assert {name: {order: len(items) for order, items in sides.items()} for name, sides in trainable.items.items()} == {
        "train": {2: 36, 3: 399},
        "validation": {2: 85, 3: 932},
    }
    assert len(trainable.training_items) == 36 + 399
    model = trainable.model(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        metrics = trainable.evaluate(model)
    assert metrics.keys() == ModularArithmetic.metrics(settings).keys()
    pooled = (85 * metrics["validation/order_2/loss"] + 932 * metrics["validation/order_3/loss"]) / (85 + 932)
    assert metrics["validation/loss"] == pytest.approx(pooled, rel=1e-12)
    pooled = (36 * metrics["train/order_2/accuracy"] + 399 * metrics["train/order_3/accuracy"]) / (36 + 399)
    assert metrics["train/accuracy"] == pytest.approx(pooled, rel=1e-12)


def test_split_and_batches_depend_on_the_data_seed_alone() -> None:
    def numbers(seed: int, **fields: Any) -> list[bytes]:
        stream = ModularArithmetic(config(modulus=7, orders=[2, 3], batch_size=64, **fields), seed).batches()
        return [stream.at(position).inputs_BS.numpy().tobytes() for position in range(9)]

    assert numbers(3) == numbers(3)
    assert numbers(3) != numbers(4)
    assert numbers(3, data_seed=9) == numbers(4, data_seed=9)
    assert numbers(3, data_seed=3) == numbers(3)
    assert numbers(3, model={"kind": "lstm", "width": 4}) == numbers(3)


def test_split_leaves_nothing_out_and_takes_nothing_twice() -> None:
    settings = config(modulus=11, train_fraction=0.3)
    train, validation = split(settings, 2, data_seed=5)
    together = Counter(map(tuple, np.concatenate([train, validation]).tolist()))
    assert together == Counter(map(tuple, equations(settings, 2).tolist()))
    assert len(train) == 36


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_train_fractions_of_0_and_1_are_refused_with_a_reason(fraction: float) -> None:
    assert "must lie strictly between 0 and 1" in refusal(train_fraction=fraction)


def test_a_fraction_that_leaves_one_side_of_an_order_empty_is_refused() -> None:
    assert "0.001 of the 25 items of order 2 leaves nothing to train on" in refusal(modulus=5, train_fraction=1e-3)
    assert "leaves nothing to validate on: it must lie between 0.02 and 0.98" in refusal(
        modulus=5, train_fraction=0.999
    )
    assert config(modulus=2, operator="/").train_items() == 1


def test_whatever_else_cannot_be_is_refused_with_a_reason() -> None:
    assert "the nearest number of heads that does is 4" in refusal(model={"heads": 5})
    assert config(model={"kind": "lstm", "heads": 5}).model.width == 128
    assert "at least one order" in refusal(orders=[])
    assert "may stand once" in refusal(orders=[2, 2])
    assert "orders" in refusal(orders=[4])
    assert "more than the 20,000,000" in refusal(modulus=499, orders=[3])
    assert "operator" in refusal(operator="%")
    assert "data_seed" in refusal(data_seed=-1)
    assert config(orders=[3, 2]).orders == (2, 3)


def test_epochs_are_permutations_with_a_smaller_last_batch_and_at_is_a_pure_function() -> None:
    items = training_items(modulus=7, batch_size=10)  # 25 items
    settings = config(modulus=7, batch_size=10)
    stream = Batches(items, 10, data_seed=0)
    sizes = [len(stream.at(position)) for position in range(6)]
    assert sizes == [10, 10, 5, 10, 10, 5]
    assert settings.steps_per_epoch == 3

    def rows(position: int) -> list[tuple[int, ...]]:
        return [tuple(row) for row in stream.at(position).inputs_BS.tolist()]

    everything = Counter(tuple(row) for row in items.inputs_BS.tolist())
    first, second = ([row for position in epoch for row in rows(position)] for epoch in (range(3), range(3, 6)))
    assert Counter(first) == Counter(second) == everything
    assert first != second
    backwards = [rows(position) for position in (5, 0, 4, 1)]
    assert backwards == [rows(position) for position in (5, 0, 4, 1)]
    assert first[:10] == rows(0)


@pytest.mark.parametrize("batch_size", [25, 512])
def test_a_batch_size_from_the_number_of_items_on_gives_the_whole_set_without_copying(
    batch_size: int,
) -> None:
    items = training_items(modulus=7, batch_size=batch_size)
    stream = Batches(items, batch_size, data_seed=0)
    assert stream.at(0) is stream.at(17) is items


@pytest.mark.parametrize("orders", [[2], [3], [2, 3]])
def test_shared_beginnings_are_those_of_their_rows(orders: list[int]) -> None:
    items = training_items(modulus=7, orders=orders, operator="-")
    assert items.prefix is not None
    length = items.prefix.length
    assert length <= items.start
    assert torch.equal(items.prefix.tokens[items.prefix.index], items.inputs_BS[:, :length])
    some = items.at(torch.tensor([5, 1]))
    assert some.prefix is not None
    assert torch.equal(some.prefix.tokens[some.prefix.index], some.inputs_BS[:, :length])


def test_beginnings_are_shared_only_where_it_pays_and_never_under_dropout() -> None:
    assert training_items(batch_size=16).prefix is None  # 31 beginnings for 16 rows
    assert training_items(model={"dropout": 0.1}).prefix is None
    trainable = ModularArithmetic(config(model={"dropout": 0.1}), 0)
    assert trainable.items["validation"][2].prefix is not None


def test_text_and_tokens_are_each_others_inverse() -> None:
    vocabulary = Vocabulary(31, "+")
    assert vocabulary.decode(vocabulary.encode("3 + 5 = 8")) == "3 + 5 = 8"
    assert vocabulary.decode(vocabulary.encode("30+5+7=11")) == "30 + 5 + 7 = 11"
    assert vocabulary.encode("3 + 5 =")[-1] == vocabulary.equals
    assert vocabulary.encode("3 + 5 = 8")[-1] == vocabulary.eos
    items = training_items(orders=[2, 3], modulus=5)
    text = {Vocabulary(5, "+").decode(row) for row in items.inputs_BS.tolist()}
    assert len(text) == len(items)


@pytest.mark.parametrize("text", ["", "3 + = 8", "3 - 5 = 8", "3 + 5", "31 + 5 = 5", "three + 5 = 8"])
def test_text_that_is_no_item_is_refused(text: str) -> None:
    with pytest.raises(RungError, match=r"not of the form|not a number below 31"):
        Vocabulary(31, "+").encode(text)
