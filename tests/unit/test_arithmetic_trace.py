"""Expressions and their step-by-step solutions: read, written, and checked step by step."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import RungError
from tests.benchmarks.plain_arithmetic import parsed, solved
from trainables.arithmetic.corpus_config import ExpressionConfig
from trainables.arithmetic.expressions import (
    InvalidExpression,
    Number,
    Operation,
    OutsideLanguage,
    canonical,
    parse,
    render,
)
from trainables.arithmetic.generator import Item, items
from trainables.arithmetic.trace import (
    ERROR_SOLUTION,
    final_result,
    foundational_text,
    prompt,
    solution,
    target,
    verify,
)

EXAMPLE = "5 + (10 - 3)"
SOLUTION = """<think>
Step 1: 10 - 3 = 7
Expression now: 5 + 7
Step 2: 5 + 7 = 12
Expression now: 12
</think>
Final Result: 12"""
ITEMS = list(items(ExpressionConfig(invalid_rate=0.2), "train", 0, 300))
VALID = [item for item in ITEMS if item.error is None and item.operators]


def test_text_and_tree() -> None:
    tree = parse("5+(10-3)")
    assert tree == Operation("+", Number(5), Operation("-", Number(10), Number(3)))
    assert (tree.depth, tree.operators) == (2, 2)
    assert render(tree) == EXAMPLE
    assert parse("8 - 4 - 2") == Operation("-", Operation("-", Number(8), Number(4)), Number(2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 1+2 +3", "(1 + 2) + 3"),
        ("((7))", "7"),
        ("(1 + 2)", "1 + 2"),
        ("1 - (2 - (3))", "1 - (2 - 3)"),
        ("5 -7", "5 - 7"),
    ],
)
def test_one_spelling_for_each_tree(text: str, expected: str) -> None:
    assert canonical(text) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at character 1: it has no number"),
        ("5 +", "at character 4: nothing on the right of +"),
        ("- 5", "at character 1: the operator - with nothing on its left"),
        ("5 - -7", "at character 5: the operator - with another operator on its left"),
        ("5 ++ 7", "the operator + with another operator on its left"),
        ("(5 + 3", "at character 1: a bracket that is never closed"),
        ("(5 + ", "nothing on the right of"),
        ("5) + 3", "at character 2: a closing bracket that was never opened"),
        ("()", "at character 2: a closing bracket right after an opening one"),
        ("(5 +)", "a closing bracket right after the operator"),
        ("3 4", "at character 3: the number 4, where an operator should be"),
        ("3 (4)", "an opening bracket, where an operator should be"),
    ],
)
def test_what_is_no_expression_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidExpression, match=re.escape(message)):
        parse(text)
    assert solution(text) == ERROR_SOLUTION


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5 * 3 / 2", r"no '\*', '/' \(the first at character 3\)"),
        ("٣ + 1", "no '٣'"),
        ("1\n+ 2", r"no '\\n'"),
        ("1 + " + "9" * 101, "a number of 101 digits"),
    ],
)
def test_what_no_expression_has_is_named(text: str, message: str) -> None:
    with pytest.raises(OutsideLanguage, match=message):
        parse(text)


def test_an_expression_may_be_long_and_deep() -> None:
    long = parse(" - ".join(["1"] * 20_000))
    assert long.operators == long.depth == 19_999
    deep = "(" * 20_000 + "1" + ")" * 20_000
    assert canonical(deep) == "1"
    assert parse(render(long)).depth == 19_999


def test_the_solution_of_the_example() -> None:
    assert solution(EXAMPLE) == SOLUTION
    assert solution("7") == "<think>\n</think>\nFinal Result: 7"
    assert solution("5 + ") == "<think>Evaluation ERROR</think>\nFinal Result: ERROR"


def test_negative_numbers_lose_their_brackets() -> None:
    lines = solution("(3 - 10) - (2 - 9)").splitlines()
    assert lines[2] == "Expression now: -7 - (2 - 9)"
    assert lines[4] == "Expression now: -7 - -7"
    assert lines[5] == "Step 3: -7 - -7 = 0"


def test_solutions_are_those_of_an_evaluation_tree() -> None:
    for item in VALID:
        assert (solution(item.expression), item.answer) == solved(parsed(item.expression))


def test_formats() -> None:
    assert prompt(EXAMPLE, "v2") == "Evaluate: 5 + (10 - 3)\n"
    assert target(SOLUTION, "v2") == SOLUTION
    assert foundational_text(EXAMPLE, SOLUTION, "v2") == f"Evaluate: {EXAMPLE}\n{SOLUTION}"
    # As the README of the system that this one grew out of shows them.
    assert prompt(EXAMPLE, "v1") + target(SOLUTION, "v1") == f"Evaluate: {EXAMPLE} <think>\n{SOLUTION}"
    assert foundational_text(EXAMPLE, SOLUTION, "v1") == (
        "Evaluate: 5 + (10 - 3) <think> Step 1: 10 - 3 = 7 Expression now: 5 + 7 Step 2: 5 + 7 = 12 "
        "Expression now: 12 </think> Final Result: 12"
    )


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (SOLUTION, "12"),
        (ERROR_SOLUTION, "ERROR"),
        ("Final Result: -3\nFinal Result: 4", "-3"),
        ("Final Result:5", "5"),
        ("Final Result: ", None),
        ("Final Result: 1x", None),
        ("Final Result: - 3", None),
        ("12", None),
    ],
)
def test_the_final_result(response: str, expected: str | None) -> None:
    assert final_result(response) == expected


@pytest.mark.parametrize("item", ITEMS[:40], ids=str)
def test_the_solution_of_an_item_is_right(item: Item) -> None:
    text = solution(item.expression)
    for response in (text, " ".join(text.split())):
        found = verify(item.expression, response)
        steps = item.operators if item.error is None else 0
        assert (found.complaint, found.is_right, found.is_parsed) == (None, True, True)
        assert (found.steps, found.right_steps, found.first_wrong) == (steps, steps, None)


@pytest.mark.parametrize(
    ("before", "after", "complaint", "first_wrong", "right_steps"),
    [
        ("10 - 3 = 7", "10 - 3 = 8", "step 1: 10 - 3 is 7, not 8", 1, 1),
        ("now: 5 + 7", "now: 5 - 7", "step 1: the expression is now 5 + 7, not 5 - 7", 1, 0),
        ("now: 5 + 7", "now: 5 +", "step 1: the expression is now 5 + 7, not 5 +", 1, 0),
        ("Step 1: 10 - 3 = 7", "Step 1: 5 + 10 = 15", "step 1: what comes next is 10 - 3, not 5 + 10", 1, 1),
        ("Step 2", "Step 3", "step 2: it is numbered 3", 2, 1),
        ("Step 2: 5 + 7 = 12", "Step 2: 5 + = 12", "step 2: it does not have the form of a step", 2, 1),
        ("now: 12\n", "now: 12\nStep 3: 1 + 1 = 2\nExpression now: 2\n", "step 3: nothing is left", 3, 2),
        ("Step 2: 5 + 7 = 12\nExpression now: 12\n", "", "it ends with 5 + 7 not worked out", None, 1),
        ("Result: 12", "Result: 13", "its steps end with 12, and its result is 13", None, 2),
        ("Final Result: 12", "", "it has no final result", None, 2),
        ("</think>\n", "", "it has no reasoning between <think> and </think>", None, 2),
        ("<think>\n", "<think>\nwell, ", "there is more in it", None, 2),
    ],
)
def test_what_is_wrong_in_a_trace_is_found(
    before: str, after: str, complaint: str, first_wrong: int | None, right_steps: int
) -> None:
    assert before in SOLUTION
    found = verify(EXAMPLE, SOLUTION.replace(before, after, 1))
    assert found.complaint is not None
    assert found.complaint.startswith(complaint)
    assert (found.first_wrong, found.right_steps) == (first_wrong, right_steps)
    assert found.is_right == (found.answer == "12")


def test_one_mistake_counts_once() -> None:
    wrong = SOLUTION.replace("10 - 3 = 7", "10 - 3 = 8").replace("5 + 7", "5 + 8").replace("12", "13")
    found = verify(EXAMPLE, wrong)
    assert (found.steps, found.right_steps, found.first_wrong, found.is_right) == (2, 1, 1, False)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(VALID), st.data())
def test_no_change_goes_unnoticed(item: Item, data: st.DataObject) -> None:
    text = solution(item.expression)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from("0123456789+-() S"))
    changed = text[:place] + character + text[place + 1 :]
    if changed.split() != text.split():
        assert verify(item.expression, changed).complaint is not None


@pytest.mark.parametrize("response", ["", "<think>", SOLUTION, "Step 1: 1 + 1 = 2", "Final Result: 7"])
def test_an_invalid_expression_has_no_other_right_answer(response: str) -> None:
    found = verify("5 + ", response)
    assert not found.is_right
    assert found.complaint is not None


def test_an_invalid_expression_needs_no_more_than_an_error() -> None:
    found = verify("5 + ", ERROR_SOLUTION + "\nFinal Result: ERROR")
    assert found.is_right
    assert found.complaint == "it is more than an error"


def test_errors_are_for_users() -> None:
    assert issubclass(InvalidExpression, RungError)
