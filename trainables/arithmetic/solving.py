"""One problem, solved by a model and checked: what `rung solve` and `run_interactive` show.

    Reasoning Steps:
      Step 1: 10 - 3 = 7
      Expression now: 5 + 7
      Step 2: 5 + 7 = 12
      Expression now: 12

    Final Result: 12

A line that begins with `WRONG` follows if something in it is.
"""

from __future__ import annotations

import re

from rung.errors import RungError
from trainables.arithmetic.answers import Answer
from trainables.arithmetic.corpus_config import Format
from trainables.arithmetic.evaluation import evaluate_items
from trainables.arithmetic.evaluation_config import DecodingConfig
from trainables.arithmetic.questions import item_of
from trainables.arithmetic.tokenizer import Tokenizer
from trainables.arithmetic.trace import END_THINK, RESULT, THINK, expression_of
from trainables.models.decoder import Decoder

_LINES = re.compile(r"\s*\n\s*|\s+(?=Step \d+:|Expression now:)")


def solve(model: Decoder, tokenizer: Tokenizer, format: Format, problem: str) -> str:
    """What a model answers to an expression, greedily, and what is wrong in it.

    Args:
        model: evaluated as it is; its mode is restored.
        tokenizer: that it was trained with.
        format: how problem and solution are joined.
        problem: an expression, in any spelling; `Evaluate:` may stand before it.

    Raises:
        RungError: it has characters that no expression has, or model and solution have no room for it.
    """
    text = expression_of(problem)
    if not text:
        raise RungError("there is no expression: write one, for example 5 + (10 - 3)")
    item = item_of(text)
    answer = evaluate_items(model, tokenizer, [item], format=format, decoding=DecodingConfig()).answers[0]
    if not answer.solution_fits:
        raise RungError(
            f"{item.expression!r} with its solution is longer than the {model.length} tokens that the model has room "
            "for: ask for something shorter, or train a model with a longer context"
        )
    return shown(answer)


def shown(answer: Answer) -> str:
    """An answer in lines: steps, result, and what is wrong."""
    thought, _, _ = answer.response.partition(RESULT)
    steps = [line for line in _LINES.split(re.sub(f"{THINK}|{END_THINK}", "\n", thought)) if line]
    found = answer.verification
    lines = ["Reasoning Steps:", *(f"  {step}" for step in steps or ["none"]), "", f"{RESULT} {found.answer or 'none'}"]
    return "\n".join([*lines, *_remarks(answer)])


def _remarks(answer: Answer) -> list[str]:
    found = answer.verification
    if found.complaint is None:
        return []
    cut = f"it was cut off after {answer.tokens} tokens" if answer.outcome == "over_length" else found.complaint
    right = "" if found.is_right else f"; the right result is {answer.gold}"
    return ["", f"WRONG: {cut}{right}"]
