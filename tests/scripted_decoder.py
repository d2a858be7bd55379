"""A decoder that writes what it is told to: for tests of what is made of a model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from trainables.arithmetic.tokenizer import Tokenizer
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig
from trainables.models.key_value_cache import KeyValueCache


class ScriptedDecoder(Decoder):
    """Continues each prompt with one of its texts and the end token; where they part, each way is equally likely.

    A prompt without a script ends at once. The cache holds the tokens themselves, so mistakes in its use show.
    """

    def __init__(self, tokenizer: Tokenizer, scripts: Mapping[str, Sequence[str]], length: int) -> None:
        shape = DecoderConfig(layers=1, width=8, heads=2)
        super().__init__(shape, vocabulary=tokenizer.size, length=length, generator=torch.Generator().manual_seed(0))
        self.classifier = nn.Identity()
        self.end = tokenizer.end
        self.scripts = [
            [tokenizer.begin, *tokenizer.encode(prompt), *tokenizer.encode(text), tokenizer.end]
            for prompt, texts in scripts.items()
            for text in texts
        ]

    def hidden_states(
        self, tokens_BS: torch.Tensor, *, cache: KeyValueCache | None = None, padding_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, S, V)."""
        rows, columns = tokens_BS.shape
        all_BS = tokens_BS
        if cache is not None:
            seen_B1S1, _ = cache.extend(0, tokens_BS[:, None, :, None].float(), tokens_BS[:, None, :, None].float())
            cache.filled += columns
            all_BS = seen_B1S1[:, 0, :, 0].long()
        padding = [0] * rows if padding_B is None else padding_B.tolist()
        logits_BSV = torch.full((rows, columns, self.vocabulary), -1e9)
        for row, (tokens, begin) in enumerate(zip(all_BS.tolist(), padding, strict=True)):
            for place in range(columns):
                seen = tokens[begin : len(tokens) - columns + place + 1]
                logits_BSV[row, place, self._next(seen)] = 0.0
        return logits_BSV

    def _next(self, tokens: list[int]) -> list[int]:
        count = len(tokens)
        found = {script[count] for script in self.scripts if script[:count] == tokens and len(script) > count}
        return sorted(found) or [self.end]
