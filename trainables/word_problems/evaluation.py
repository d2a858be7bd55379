"""Answers of a model to test questions: one greedy answer to each, and as many drawn ones as are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from trainables.rl.policy import Policy, Written
from trainables.rl.problems import Problem
from trainables.rl.rewards import Judgement
from trainables.word_problems.answers import Answer, Evaluation, QuestionAnswers
from trainables.word_problems.decoding_config import DecodingConfig
from trainables.word_problems.extraction import read_response

Judge = Callable[[Sequence[Problem], Sequence[str]], Judgement]


def evaluate_problems(
    policy: Policy, model: nn.Module, problems: Sequence[Problem], judge: Judge, decoding: DecodingConfig
) -> Evaluation:
    """The answers of a model to some questions.

    Args:
        policy: how it is asked.
        model: evaluated as it is, in the precision around this call; its mode is restored.
        problems: the questions.
        judge: what responses are worth in training.
        decoding: how answers are written.

    Raises:
        RungError: a reward fails, or a question is longer than the model can read.
    """
    greedy = _written(policy, model, problems, decoding, group=1, temperature=0.0)
    drawn = [[] for _ in problems] if decoding.samples == 0 else _drawn(policy, model, problems, decoding)
    answers = [
        _answers(problem, [*first, *others], policy, judge)
        for problem, first, others in zip(problems, greedy, drawn, strict=True)
    ]
    return Evaluation([QuestionAnswers(first, others) for first, *others in answers])


def _drawn(
    policy: Policy, model: nn.Module, problems: Sequence[Problem], decoding: DecodingConfig
) -> list[list[Written]]:
    return _written(policy, model, problems, decoding, group=decoding.samples, temperature=decoding.temperature)


def _written(
    policy: Policy,
    model: nn.Module,
    problems: Sequence[Problem],
    decoding: DecodingConfig,
    *,
    group: int,
    temperature: float,
) -> list[list[Written]]:
    """`group` responses to each question."""
    return policy.write(
        model,
        [problem.tokens for problem in problems],
        group=group,
        tokens=decoding.tokens,
        temperature=temperature,
        top_k=decoding.top_k if temperature else None,
        top_p=decoding.top_p if temperature else None,
        seed=decoding.seed,
        numbers=range(len(problems)),
        batch_size=decoding.batch_size,
    )


def _answers(problem: Problem, written: Sequence[Written], policy: Policy, judge: Judge) -> list[Answer]:
    """The answers to one question, judged."""
    responses = [policy.decode(each.tokens) for each in written]
    rewards = judge([problem] * len(responses), responses).total
    return [
        _answer(problem, each, response, reward)
        for each, response, reward in zip(written, responses, rewards, strict=True)
    ]


def _answer(problem: Problem, written: Written, response: str, reward: float) -> Answer:
    reading = read_response(response, problem.answer)
    return Answer(problem.prompt, problem.answer, response, reading, reward, len(written.tokens), written.has_ended)
