"""Step-by-step solutions: how they are written, how they are read back, and a verifier that checks every step.

    >>> print(solution("5 + (10 - 3)"))
    <think>
    Step 1: 10 - 3 = 7
    Expression now: 5 + 7
    Step 2: 5 + 7 = 12
    Expression now: 12
    </think>
    Final Result: 12

A step works out the operation that is next in post-order: the first one from the left whose operands are both numbers
(for an operation in brackets; the root, which has none, comes last). Brackets vanish when a number is left in them, and
a negative number is written -7, so `5 - -7` may occur. The think block of a bare number is empty, which is to say
`<think>` and `</think>` on two lines; that of an invalid expression is `<think>Evaluation ERROR</think>`, and its
result is ERROR. Imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.expressions import InvalidExpression, canonical, parse, render

THINK = "<think>"
END_THINK = "</think>"
RESULT = "Final Result:"
ERROR = "ERROR"
ERROR_SOLUTION = f"{THINK}Evaluation ERROR{END_THINK}\n{RESULT} {ERROR}"

_STEPS = re.compile(r"(?=\bStep )")
_STEP = re.compile(
    r"Step (?P<number>[0-9]+): (?P<operation>-?[0-9]+ [+-] -?[0-9]+) = (?P<value>-?[0-9]+)\s+"
    r"Expression now: (?P<now>[0-9+\-() ]+)"
)
_RESULT = re.compile(rf"{RESULT}\s*(-?[0-9]+|{ERROR})(?![0-9A-Za-z]|\.[0-9])")


def solution(expression: str) -> str:
    """The solution of an expression, valid or not, in any spelling; it works on the canonical one."""
    try:
        return solution_of_canonical(canonical(expression))
    except InvalidExpression:
        return ERROR_SOLUTION


def solution_of_canonical(expression: str) -> str:
    """`solution` of a valid expression in canonical form, faster."""
    text, number = THINK, 0
    while " " in expression:
        step, expression = next_step(expression)
        number += 1
        text += f"\nStep {number}: {step}\nExpression now: {expression}"
    return f"{text}\n{END_THINK}\n{RESULT} {expression}"


def next_step(expression: str) -> tuple[str, str]:
    """The next step of a canonical expression that is no number, as `10 - 3 = 7`, and the expression after it.

    The first closing bracket belongs to the operation that is next in post-order, so the running text is changed in
    one place and never taken apart. Where there is no bracket, only the root is left.
    """
    before, _, after = expression.partition(")")
    before, _, operation = before.rpartition("(")
    step, value = _worked_out(operation)
    return step, f"{before}{value}{after}"


@lru_cache(maxsize=2**16)
def _worked_out(operation: str) -> tuple[str, str]:
    """`10 - 3` as `10 - 3 = 7`, and its value."""
    left, operator, right = operation.split(" ")
    value = str(int(left) + int(right) if operator == "+" else int(left) - int(right))
    return f"{operation} = {value}", value


def problem(expression: str) -> str:
    """What is asked: `Evaluate: 5 + (10 - 3)`."""
    return f"Evaluate: {expression}"


def prompt(expression: str, format: Format) -> str:
    """What a model is given; `target` follows without anything between them."""
    return f"{problem(expression)}\n" if format == "v2" else f"{problem(expression)} {THINK}"


def expression_of(prompt: str) -> str:
    """The expression that a prompt of either format asks for."""
    return prompt.strip().removeprefix(problem("").strip()).removesuffix(THINK).strip()


def target(solution: str, format: Format) -> str:
    """What a model has to write behind the prompt."""
    return solution if format == "v2" else f"\n{solution}"


def foundational_text(expression: str, solution: str, format: Format) -> str:
    """Problem and solution as one text to learn from."""
    if format == "v2":
        return prompt(expression, format) + target(solution, format)
    return f"{problem(expression)} {one_line(solution)}"


def one_line(text: str) -> str:
    """The text with single spaces in place of line ends."""
    return " ".join(text.split())


def final_result(response: str) -> str | None:
    """What stands behind the first `Final Result:`, a whole number or ERROR; None: there is no such thing."""
    found = _RESULT.search(response)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Verification:
    """What is right in a response."""

    answer: str | None
    """Its final result; None: it has none that can be read."""
    is_right: bool
    """Whether that is the value of the expression, or ERROR if it has none."""
    steps: int
    """Steps that it shows."""
    right_steps: int
    """Those of them that work out, without a mistake, what is next in the expression as it stood before."""
    first_wrong: int | None
    """Number of the first other one, counted from 1."""
    complaint: str | None
    """The first thing that is wrong anywhere, as half a sentence; None: it is the solution, word for word."""

    @property
    def is_parsed(self) -> bool:
        """Whether a final result can be read."""
        return self.answer is not None


def verify(expression: str, response: str) -> Verification:
    """Checks a response to an expression step by step.

    A step is judged by the expression that stands before it in the response, so that one mistake counts once. Line
    ends and spaces are taken for the same, so texts of either format can be checked.
    """
    try:
        start = canonical(expression)
        wanted = solution_of_canonical(start)
    except InvalidExpression:
        start, wanted = None, ERROR_SOLUTION
    answer = final_result(response)
    is_right = answer == wanted.rpartition(" ")[2]
    if one_line(response) == one_line(wanted):
        count = wanted.count("Step ")
        return Verification(answer, is_right, count, count, None, None)
    return _verify_steps(start, response, answer, is_right)


def _verify_steps(start: str | None, response: str, answer: str | None, is_right: bool) -> Verification:
    """`verify` for a response that is not the solution, to an expression in canonical form; None: an invalid one."""
    shown = _STEPS.split(response.partition(RESULT)[0].partition(END_THINK)[0])[1:]
    running, right, first_wrong, complaint = start, 0, None, None
    for number, step in enumerate(shown, 1):
        wrong, running = _judged(number, step, running)
        right += wrong is None
        if wrong is not None and first_wrong is None:
            first_wrong, complaint = number, f"step {number}: {wrong}"
    if complaint is None:
        complaint = _complaint(response, start, running, answer)
    return Verification(answer, is_right, len(shown), right, first_wrong, complaint)


def _judged(number: int, step: str, running: str | None) -> tuple[str | None, str | None]:
    """What is wrong with a step, None if nothing is, and the expression that it leaves, None if that cannot be read."""
    found = _STEP.fullmatch(step.strip())
    if not found:
        return "it does not have the form of a step", None
    after = _readable(found["now"])
    if found["number"] != str(number):
        return f"it is numbered {found['number']}", after
    if running is None:
        return "there is no valid expression before it", after
    if " " not in running:
        return f"nothing is left to work out in {running}", after
    expected, expected_after = next_step(running)
    operation, _, value = expected.partition(" = ")
    if found["operation"] != operation:
        return f"what comes next is {operation}, not {found['operation']}", after
    if found["value"] != value:
        return f"{operation} is {value}, not {found['value']}", after
    if found["now"] != expected_after:
        return f"the expression is now {expected_after}, not {found['now']}", after
    return None, after


def _readable(running: str) -> str | None:
    try:
        return render(parse(running, signed=True))
    except InvalidExpression:
        return None


def _complaint(response: str, start: str | None, running: str | None, answer: str | None) -> str:
    """What is wrong outside the steps of a response that is not the solution."""
    if answer is None:
        return "it has no final result that can be read"
    if start is None:
        return f"the expression is invalid, and the result {answer}" if answer != ERROR else "it is more than an error"
    if running is not None and " " in running:
        return f"it ends with {running} not worked out"
    if answer != running:
        return f"its steps end with {running}, and its result is {answer}"
    if not response.lstrip().startswith(THINK) or END_THINK not in response.partition(RESULT)[0]:
        return f"it has no reasoning between {THINK} and {END_THINK}"
    return "there is more in it than steps and a result"
