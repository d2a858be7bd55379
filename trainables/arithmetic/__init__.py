"""Arithmetic: a small decoder learns to work out expressions step by step (`5 + (10 - 3)`).

`Arithmetic` is the trainable; `ArithmeticGrpo` goes on with its models by reinforcement learning, and
`ArithmeticEvaluation` tests them. Corpus, tokenizer and token ids are made when they are needed, and kept under the
hash of what they are made from. Importing this package does not import torch.
"""

from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.evaluation_config import ArithmeticEvaluationConfig
from trainables.arithmetic.evaluation_trainable import ArithmeticEvaluation
from trainables.arithmetic.grpo_config import ArithmeticGrpoConfig
from trainables.arithmetic.grpo_trainable import ArithmeticGrpo
from trainables.arithmetic.trainable import Arithmetic

__all__ = [
    "Arithmetic",
    "ArithmeticConfig",
    "ArithmeticEvaluation",
    "ArithmeticEvaluationConfig",
    "ArithmeticGrpo",
    "ArithmeticGrpoConfig",
]
