"""The configuration of word problems. Imports no torch."""

from __future__ import annotations

from rung.settings import EvaluationConfig, OptimizerConfig
from trainables.models.pretrained_config import PretrainedConfig
from trainables.rl.config import GroupRelativeConfig, RolloutConfig
from trainables.word_problems.dataset import DatasetConfig
from trainables.word_problems.decoding_config import DecodingConfig
from trainables.word_problems.prompts import PromptConfig
from trainables.word_problems.rewards import WordProblemRewards

DEFAULT_MODEL = "Qwen/Qwen3-4B-Instruct-2507"


class WordProblemsConfig(GroupRelativeConfig):
    """A pretrained model that learns to answer word problems from rewards."""

    model: PretrainedConfig = PretrainedConfig(model=DEFAULT_MODEL)
    """The model, and what of it is trained."""
    data: DatasetConfig = DatasetConfig()
    """The questions."""
    prompt: PromptConfig = PromptConfig()
    """How a question is put to the model."""
    rewards: WordProblemRewards = WordProblemRewards()
    """What a response is worth."""
    rollout: RolloutConfig = RolloutConfig(prompts=4, group=4)
    """What the policy writes, and how often it learns from it."""
    decoding: DecodingConfig = DecodingConfig()
    """How test questions are answered."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", learning_rate=5e-5)
    """Optimizer and its constants."""
    evaluation: EvaluationConfig = EvaluationConfig(every=50, log_every=1, generations="every")
    """When test questions are answered; every answer is recorded."""
