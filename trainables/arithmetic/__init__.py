"""Arithmetic: a small decoder learns to work out expressions step by step (`5 + (10 - 3)`).

`Arithmetic` is the trainable; `ArithmeticEvaluation` tests its models and trains nothing. Corpus, tokenizer and token
ids are made when they are needed, and kept under the hash of what they are made from. Importing this package does not
import torch.
"""

from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.evaluation_config import ArithmeticEvaluationConfig
from trainables.arithmetic.evaluation_trainable import ArithmeticEvaluation
from trainables.arithmetic.trainable import Arithmetic

__all__ = ["Arithmetic", "ArithmeticConfig", "ArithmeticEvaluation", "ArithmeticEvaluationConfig"]
