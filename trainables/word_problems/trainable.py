"""Word problems as a trainable: a pretrained model writes answers to questions, is rewarded for them, and is tested
with questions that it has not been rewarded for.

Importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rung.errors import RungError
from rung.settings import TrainableConfig
from rung.trainable import Generation, Metric, Sampling, Workload
from trainables.models import pretrained_files
from trainables.rl import rewards
from trainables.rl.problems import Problem
from trainables.rl.rewards import Judgement
from trainables.rl.trainable import GroupRelative
from trainables.word_problems.answers import described
from trainables.word_problems.config import WordProblemsConfig
from trainables.word_problems.dataset import ProblemSets, load_problems
from trainables.word_problems.extraction import read_response
from trainables.word_problems.problem_files import WordProblem
from trainables.word_problems.prompts import chat

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainables.language.remembered import Remembered
    from trainables.models.chat import Chat
    from trainables.rl.pretrained_policy import PretrainedPolicy
    from trainables.word_problems.answers import Evaluation


class WordProblems(GroupRelative[WordProblemsConfig]):
    """A pretrained causal language model that learns to answer word problems."""

    Config: ClassVar[type[TrainableConfig]] = WordProblemsConfig

    # Asked before anything starts.

    @classmethod
    def metrics(cls, config: WordProblemsConfig) -> Mapping[str, Metric]:
        """Of the test questions."""
        decoding = config.decoding
        return {f"test/{name}": metric for name, metric in described(decoding.ks, decoding.samples).items()}

    @classmethod
    def workload(cls, config: WordProblemsConfig) -> Workload:
        """An upper bound: every response counts as long as it may become."""
        from trainables.word_problems.workload import workload

        return workload(config)

    @classmethod
    def missing(cls, config: WordProblemsConfig) -> str | None:
        """The model or a package, the questions, a reward function, the system prompt."""
        lacking = [text for text in (pretrained_files.missing(config.model), config.data.missing()) if text]
        if lacking:
            return "; ".join(lacking)
        try:
            config.rewards.functions()
            config.prompt.text()
        except RungError as error:
            return str(error)
        return None

    @classmethod
    def data_files(cls, config: WordProblemsConfig) -> Sequence[Path]:
        """Questions, system prompt, model and tokenizer."""
        prompt = [] if config.prompt.file is None else [config.prompt.file]
        return [*config.data.files, *prompt, *pretrained_files.data_files(config.model)]

    @classmethod
    def inherited(cls, config: Any) -> Mapping[str, Any]:
        """The model with its adapters, the questions and how they are put."""
        if not isinstance(config, WordProblemsConfig):
            raise RungError("what was trained there answers no word problems (trainable: word_problems)")
        values = config.model_dump(mode="json")
        return {name: values[name] for name in ("model", "data", "prompt")}

    @classmethod
    def tracked_as(cls, config: WordProblemsConfig) -> Mapping[str, str]:
        """The names of the system that this family grew out of."""
        reported = ("mean", "std", "min", "max", *config.rewards.own, *config.rewards.weights)
        rewards = {f"batch/rewards/{name}": f"rewards/{name}" for name in reported}
        epoch = {f"batch/epoch/{name}": f"epoch/{name}" for name in ("accumulated_reward", "mean_reward")}
        test = {name: f"eval/{name.removeprefix('test/')}" for name in cls.metrics(config)}
        return {"batch/loss": "grpo_loss", **rewards, **epoch, **test}

    # What group-relative policy optimization asks.

    def fresh(self, generator: torch.Generator) -> nn.Module:
        """The pretrained model, with fresh adapters."""
        from trainables.models.pretrained import load

        return load(self.config.model, generator)

    @cached_property
    def chat(self) -> Chat:
        """The tokenizer."""
        from trainables.models.chat import Chat

        return Chat(self.config.model)

    @cached_property
    def policy(self) -> PretrainedPolicy:
        """How the model is asked."""
        from trainables.rl.pretrained_policy import PretrainedPolicy

        return PretrainedPolicy(self.chat)

    def problems(self) -> Sequence[Problem]:
        """The training questions."""
        return [self._problem(each) for each in self._sets.train]

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> Judgement:
        """By the configured rewards, which see questions and not prompts."""
        questions = [problem.prompt for problem in problems]
        answers = [problem.answer for problem in problems]
        return rewards.judge(self._rewards, questions, responses, answers)

    @cached_property
    def _rewards(self) -> Sequence[rewards.Reward]:
        return self.config.rewards.functions()

    @cached_property
    def _sets(self) -> ProblemSets:
        return load_problems(self.config.data, self.config.prompt.examples)

    @cached_property
    def _system(self) -> str:
        return self.config.prompt.text()

    def _problem(self, asked: WordProblem) -> Problem:
        return Problem(self._prompt(asked.question), asked.question, asked.answer)

    def _prompt(self, question: str) -> list[int]:
        """Tokens of a conversation that ends where the answer to a question begins."""
        return self.chat.prompt(chat(self._system, self._sets.examples, question))

    # Checkpoints.

    def kept(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """The adapters, or all weights of a model without."""
        from trainables.models.pretrained import kept

        return kept(model)

    def begin_from(self, model: nn.Module, weights: Mapping[str, torch.Tensor], config: Any) -> None:
        """Goes on with the adapters, or all weights, of another run."""
        from trainables.models.pretrained import load_kept
        from trainables.rl.reference import copy_apart, without_reference

        with copy_apart(model):
            load_kept(model, without_reference(weights))

    # What is tested and shown.

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Every test question is answered; a model that has diverged answers nothing."""
        from trainables.language.remembered import is_finite

        if not is_finite(model):
            return dict.fromkeys(self.metrics(self.config), math.nan)
        measured = self.evaluation(model).metrics(self.config.decoding.ks)
        return {f"test/{name}": value for name, value in measured.items()}

    def generations(self, model: nn.Module) -> Sequence[Generation]:
        """Every answer to every test question, the greedy one first; the question stands for the whole prompt."""
        from trainables.language.remembered import is_finite

        return list(self.evaluation(model).generations()) if is_finite(model) else ()

    @cached_property
    def evaluation(self) -> Remembered[Evaluation]:
        """The answers of a model as it is; asked twice, they are written once."""
        from trainables.language.remembered import Remembered
        from trainables.word_problems.evaluation import evaluate_problems

        def ask(model: nn.Module) -> Evaluation:
            return evaluate_problems(self.policy, model, self._test, self.judge, self.config.decoding)

        return Remembered(ask)

    @cached_property
    def _test(self) -> Sequence[Problem]:
        return [self._problem(each) for each in self._sets.test]

    def complete(self, model: nn.Module, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the model answers to each question."""
        asked = [self._prompt(prompt) for prompt in prompts]
        written = self.policy.write(
            model,
            asked,
            group=1,
            tokens=sampling.tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seed=sampling.seed,
            numbers=range(len(asked)),
            batch_size=self.config.decoding.batch_size,
        )
        return [self.policy.decode(response.tokens) for (response,) in written]

    def solve(self, model: nn.Module, problem: str) -> str:
        """The greedy answer to a question as the model wrote it, and the number in it."""
        if not problem.strip():
            raise RungError("there is no question: write one, for example What is 7 plus 5?")
        sampling = Sampling(tokens=self.config.decoding.tokens, temperature=0.0)
        (response,) = self.complete(model, [problem.strip()], sampling)
        reading = read_response(response, "")
        return f"{response.strip()}\n\nAnswer: {reading.normalised if reading.is_number else 'none that can be read'}"
