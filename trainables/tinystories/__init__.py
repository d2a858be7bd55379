"""TinyStories: a small decoder learns to write children's stories (Eldan & Li 2023, arXiv 2305.07759).

`TinyStories` is the trainable; any text whose documents end with `<|endoftext|>` serves it, and `python -m
trainables.tinystories.prepare --help` says how text becomes data. Importing this package does not import torch.
"""

from trainables.tinystories.config import TinyStoriesConfig
from trainables.tinystories.trainable import TinyStories

__all__ = ["TinyStories", "TinyStoriesConfig"]
