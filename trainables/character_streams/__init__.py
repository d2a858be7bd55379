"""Character streams: a small decoder learns lines that a function makes, or any text, character by character.

`CharacterStreams` is the trainable, `stream` marks a stream function of your own; `python -m
trainables.character_streams` is the workflow of nanoGPT (https://github.com/karpathy/nanoGPT): prepare, train, sample,
compare. Importing this package does not import torch.
"""

from trainables.character_streams.config import CharacterStreamsConfig, StreamConfig
from trainables.character_streams.stream import stream
from trainables.character_streams.trainable import CharacterStreams

__all__ = ["CharacterStreams", "CharacterStreamsConfig", "StreamConfig", "stream"]
