"""Word problems: a pretrained language model learns to answer them from rewards (GRPO).

`WordProblems` is the trainable. `python -m trainables.word_problems.prepare` fetches the questions,
`python -m trainables.word_problems.run_experiment` takes experiment files with flat keys. Importing this package does
not import torch.
"""

from trainables.word_problems.config import WordProblemsConfig
from trainables.word_problems.trainable import WordProblems

__all__ = ["WordProblems", "WordProblemsConfig"]
