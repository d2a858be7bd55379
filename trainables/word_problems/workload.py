"""What a run costs, from the sizes of its model and of its rollouts. Imports no torch.

Everything is an upper bound: every response counts as long as it may become. Prompts are not tokenised for a plan;
their length is estimated from the number of characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rung.errors import RungError
from rung.trainable import Workload
from trainables.models.pretrained_memory import memory
from trainables.models.pretrained_shape import (
    ModelShape,
    flops_per_token,
    shape_of,
    trained_parameters,
    training_flops_per_token,
)
from trainables.rl.problems import Timetable, flops_per_step, tokens_per_step
from trainables.word_problems.config import WordProblemsConfig
from trainables.word_problems.dataset import DatasetConfig, load_problems, sizes
from trainables.word_problems.prompts import PromptConfig, chat

_CHARACTERS_A_TOKEN = 3.5
"""Of questions, at least: those of GSM8K and SVAMP have 3.9 with SmolLM2's tokenizer, which splits numbers into digits.
"""

_TEMPLATE_TOKENS = 8
"""What a chat template adds to a message, about."""

_USUAL_QUESTION, _LONG_QUESTION = 235, 985
"""Characters of a mean question of GSM8K, and of its longest one, for where no files are at hand."""


@dataclass(frozen=True)
class _Questions:
    """What a plan needs to know of the problems."""

    train: int | None
    """How many are trained on; None: that is not known."""
    test: int
    usual: float
    """Characters of a mean prompt."""
    longest: float


def workload(config: WordProblemsConfig) -> Workload:
    """See the module. Raises RungError if the model is neither here nor among the published ones that are known."""
    shape = shape_of(config.model)
    questions = _questions(config.data, config.prompt, tuple(map(_stamp, config.data.files)))
    usual, longest = (_tokens(count, config) for count in (questions.usual, questions.longest))
    length = round(usual) + config.rollout.tokens
    forward = flops_per_token(shape, length)
    answers = 1 + config.decoding.samples
    return Workload(
        parameters=trained_parameters(config.model, shape),
        tokens_per_step=round(tokens_per_step(config.rollout, usual)),
        flops_per_step=flops_per_step(
            config.rollout,
            config.objective,
            usual,
            forward,
            training_flops_per_token(config.model, shape, length),
        ),
        steps_per_epoch=Timetable(questions.train, config.rollout).steps_per_epoch,
        evaluation_flops=questions.test * (usual + answers * config.decoding.tokens) * forward,
        frozen=shape.parameters if _carries_reference(config) else 0,
        memory=_memory(config, shape, round(longest), questions.test * max(1, config.decoding.samples)),
    )


@lru_cache(maxsize=64)
def _questions(data: DatasetConfig, prompt: PromptConfig, stamps: tuple[object, ...]) -> _Questions:
    """Reads the files, if they are there; `stamps` tell whether they have changed."""
    train, test = sizes(data, prompt.examples) or (None, 0)
    if data.missing() is not None:
        around = len(prompt.system) + prompt.examples * 3 * _USUAL_QUESTION
        return _Questions(train, test, around + _USUAL_QUESTION, around + _LONG_QUESTION)
    sets = load_problems(data, prompt.examples)
    around = sum(len(message["content"]) for message in chat(_system(prompt), sets.examples, ""))
    lengths = [len(problem.question) for problem in (*sets.train, *sets.test)]
    return _Questions(train, test, around + sum(lengths) / len(lengths), around + max(lengths))


def _system(prompt: PromptConfig) -> str:
    """The system prompt; the default one where its file is not there, which `WordProblems.missing` says."""
    try:
        return prompt.text()
    except RungError:
        return prompt.system


def _stamp(file: Path) -> object:
    """Changes with a file."""
    return (file, file.stat().st_mtime_ns) if file.exists() else file


def _tokens(characters: float, config: WordProblemsConfig) -> float:
    """Of a prompt with so many characters."""
    messages = 3 + 2 * config.prompt.examples  # with the one that is to be written
    return characters / _CHARACTERS_A_TOKEN + messages * _TEMPLATE_TOKENS


def _memory(config: WordProblemsConfig, shape: ModelShape, prompt: int, answers: int) -> float:
    """Bytes at the peak, in training or in an evaluation with so many answers of a kind."""
    rollout, decoding = config.rollout, config.decoding
    written = min(rollout.generation_batch_size or rollout.responses, rollout.responses)
    return memory(
        config.model,
        shape,
        config.precision,
        rows=-(-rollout.responses // (rollout.minibatches * config.accumulation)),
        written_rows=max(written, min(decoding.batch_size or answers, answers)),
        prompt=prompt,
        response=max(rollout.tokens, decoding.tokens),
        carries_reference=_carries_reference(config),
    ).peak


def _carries_reference(config: WordProblemsConfig) -> bool:
    """Whether there is a frozen copy of the model: a model with adapters has it within itself."""
    return config.objective.kl != "none" and config.model.adapter is None
