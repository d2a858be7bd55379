"""The files that an evaluation leaves: measures, sample outputs, a summary to read. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from rung.results.files import replace_file
from rung.results.statistics import wilson_interval
from trainables.arithmetic.answers import OUTCOMES, Answer, Evaluation
from trainables.arithmetic.breakdown import KEYS, breakdown, group, percent, table

SHOWN = 10
"""Answers in the file of samples."""

VERDICTS = ((0.8, "excellent"), (0.6, "good"), (0.4, "moderate"), (0.0, "poor"))
"""Exact match from which on a model is called so; the limits are those of the system that this one grew out of."""

PARSED = 0.9
"""Parse success that is asked for, from the same source."""


class Files(NamedTuple):
    """Where everything was written."""

    metrics: Path
    samples: Path
    summary: Path


def write_files(
    folder: Path, evaluation: Evaluation, settings: Mapping[str, Any], seconds: float, ks: Sequence[int] = ()
) -> Files:
    """Writes the three files of an evaluation.

    Args:
        folder: made if it is not there.
        evaluation: all answers.
        settings: what was asked for, for the record.
        seconds: that it took.
        ks: of every pass@k.

    Raises:
        StorageError: they cannot be written.
    """
    stamp = f"{datetime.now():%Y%m%d_%H%M%S}"
    files = Files(
        folder / f"evaluation_metrics_{stamp}.json",
        folder / f"sample_outputs_{stamp}.json",
        folder / f"evaluation_summary_{stamp}.txt",
    )
    measures = {**_measures(evaluation, ks), "seconds": seconds, "settings": dict(settings)}
    replace_file(files.metrics, json.dumps(measures, indent=2).encode())
    samples = [_sample(answer) for answer in evaluation.answers[:SHOWN]]
    replace_file(files.samples, json.dumps(samples, indent=2).encode())
    replace_file(files.summary, summary(evaluation, seconds, ks).encode())
    return files


def _measures(evaluation: Evaluation, ks: Sequence[int]) -> dict[str, Any]:
    values = evaluation.metrics(ks)
    whole = group("all", evaluation.by_item)
    return {
        "items": len(evaluation.by_item),
        "answers_per_item": evaluation.samples,
        **{name: None if math.isnan(value) else value for name, value in values.items()},
        "exact_match_interval": whole.interval,
        "outcomes": {outcome: evaluation.share(outcome) for outcome in OUTCOMES},
        **{f"by_{key}": [dataclasses.asdict(each) for each in breakdown(evaluation, key)] for key in KEYS},
    }


def _sample(answer: Answer) -> dict[str, Any]:
    found = answer.verification
    return {
        "expression": answer.item.expression,
        "prompt": answer.prompt,
        "response": answer.response,
        "answer": found.answer,
        "right_answer": answer.gold,
        "outcome": answer.outcome,
        "generated_tokens": answer.tokens,
        "steps": found.steps,
        "right_steps": found.right_steps,
        "complaint": found.complaint,
    }


def summary(evaluation: Evaluation, seconds: float, ks: Sequence[int] = ()) -> str:
    """The measures in lines, with a verdict and the breakdown by operators."""
    values, items = evaluation.metrics(ks), len(evaluation.by_item)
    right = values["exact_match"]
    low, high = wilson_interval(right * items, items)
    room = values["solution_over_length"]
    ceiling = f" (of {percent(room)} of the items the taught solution has no room)" if room else ""
    several = f", {evaluation.samples} answers to each" if evaluation.samples > 1 else ""
    lines = [
        f"items                {items:,}{several}",
        f"exact match          {percent(right)} (95 % interval {percent(low)} to {percent(high)})",
        f"parse success        {percent(values['parse_success'])}",
        f"cut off              {percent(values['over_length'])}{ceiling}",
        f"steps without error  {_or_none(values['step_accuracy'])}",
        f"whole solution       {percent(values['trace_accuracy'])}",
        f"tokens written       {values['generated_tokens']:.1f} on average",
        *(f"{f'pass@{k}':<20} {percent(values[f'pass@{k}'])}" for k in ks if evaluation.samples > 1),
        f"seconds              {seconds:.1f}",
        "",
        f"verdict: {verdict(right, values['parse_success'])}",
        "",
        table(breakdown(evaluation, "operators"), "operators"),
    ]
    return "\n".join(lines) + "\n"


def verdict(exact_match: float, parse_success: float) -> str:
    """A word for it, and whether enough answers can be read."""
    word = next(word for limit, word in VERDICTS if exact_match >= limit)
    return word if parse_success > PARSED else f"{word}, but less than {percent(PARSED)} of the answers can be read"


def _or_none(rate: float) -> str:
    return "none shown" if math.isnan(rate) else percent(rate)
