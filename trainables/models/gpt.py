"""A small post-norm GPT for modular arithmetic: each block is x = LN(x + attention(x)); x = LN(x + dropout(MLP(x))),
with no final norm.

The blocks are the decoder's (`blocks.py`). Here is what short items and many like rows are worth: only the positions
that a loss reads, beginnings computed once, look-ups instead of products, a kernel for few keys; and `inspect`, which
shows hidden states and attention weights. Token embedding plus fixed sinusoidal positions without scaling, attention
projections with bias, an MLP of 4 x width with exact GELU and no bias, dropout after the MLP only. `fused = False`
keeps to operations that torch.func can transform. Leaves out generation and a key-value cache: see `decoder.py`.

Shape suffixes: B rows, S positions, Q positions from `start` on, D width, H heads, E = D / H, P distinct
beginnings, L their length, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from trainables.models.attention import attend, causal_mask, split_heads
from trainables.models.blocks import Block, Projections
from trainables.models.decoder_config import DecoderConfig
from trainables.models.initialisation import Uniform
from trainables.models.layers import Prefix, embedding, sinusoidal_positions
from trainables.models.short_attention import ShortAttention, is_short

Projection = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
"""From a first position to the queries from there on (B, Q, D), and the keys and values of all (B, S, 2 D)."""


class Inspection(NamedTuple):
    """What a GPT computed on the way to its logits."""

    logits: torch.Tensor
    """(B, S, V)."""
    hidden_states: torch.Tensor
    """(B, layers, S, D): the output of every block."""
    attention: torch.Tensor
    """(B, layers, H, S, S): weights of every query (row) on every key; causal rows that sum to 1."""


class _Past(NamedTuple):
    """What the attention of a layer needs of the beginnings that rows share."""

    kv_PL2D: torch.Tensor
    index_B: torch.Tensor


class Attention(Projections):
    """Causal multi-head self-attention, softmax(Q K^T / sqrt(E)) V, whose projections can be had apart."""

    def project(self, x_BSD: torch.Tensor, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (B, Q, D) of the positions from `start` on; keys and values (B, S, 2 D) of all."""
        width = x_BSD.shape[-1]
        if start == 0:
            return self.split(self.qkv(x_BSD))
        weight, bias = self.qkv.weight, self.qkv.bias
        q_BQD = F.linear(x_BSD[:, start:], weight[:width], bias[:width])
        return q_BQD, F.linear(x_BSD, weight[width:], bias[width:])

    def split(self, qkv_BS3D: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (B, S, D), and keys and values (B, S, 2 D), as views."""
        width = qkv_BS3D.shape[-1] // 3
        q_BSD, kv_BS2D = qkv_BS3D.split([width, 2 * width], dim=-1)
        return q_BSD, kv_BS2D

    def mix(
        self, q_BQD: torch.Tensor, kv_BS2D: torch.Tensor, past: _Past | None = None, fused: bool = True
    ) -> torch.Tensor:
        """The attention output (B, Q, D) of projected positions."""
        keys = kv_BS2D.shape[1] + (0 if past is None else past.kv_PL2D.shape[1])
        if fused and q_BQD.device.type == "cpu" and is_short(keys, q_BQD.shape[-1] // self.heads):
            mixed_BQD = ShortAttention.apply(q_BQD, kv_BS2D, *(past or (None, None)), self.heads)  # type: ignore[no-untyped-call]
        else:
            if past is not None:
                kv_BS2D = torch.cat([past.kv_PL2D[past.index_B], kv_BS2D], dim=1)
            k_BKD, v_BKD = kv_BS2D.chunk(2, dim=-1)
            mixed_BHQE = attend(*(split_heads(each, self.heads) for each in (q_BQD, k_BKD, v_BKD)))
            mixed_BQD = mixed_BHQE.transpose(1, 2).flatten(2)
        return self.output(mixed_BQD)

    def weights(self, q_BSD: torch.Tensor, kv_BS2D: torch.Tensor) -> torch.Tensor:
        """The attention weights (B, H, S, S) of projected positions, written out."""
        q_BHSE, k_BHSE = (split_heads(each, self.heads) for each in (q_BSD, kv_BS2D.chunk(2, dim=-1)[0]))
        scores_BHSS = q_BHSE @ k_BHSE.transpose(-2, -1) / math.sqrt(q_BHSE.shape[-1])
        mask = causal_mask(q_BHSE.shape[2], k_BHSE.shape[2], q_BSD.device)
        return scores_BHSS.masked_fill(~mask, -math.inf).softmax(dim=-1)


class GPT(nn.Module):
    """The model.

    Args:
        vocabulary: tokens V.
        length: longest sequence S.
        layers, width, heads: its size; `heads` divides `width`.
        dropout: probability, after each MLP.
        padding: the token whose embedding is zero, if any.
        tie_embeddings: whether the classifier's weight is the embedding.
        classifier_bias: whether the classifier has a bias.
        generator: draws the initial weights and the dropout masks; its device is the model's.
    """

    positions_SD: torch.Tensor

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        layers: int,
        width: int,
        heads: int,
        dropout: float = 0.0,
        padding: int | None = None,
        tie_embeddings: bool = False,
        classifier_bias: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        config = DecoderConfig(layers=layers, width=width, heads=heads, norm="post", bias=True, dropout=dropout)
        draw = Uniform(generator)
        self.fused = True
        self.embedding = embedding(vocabulary, width, padding=padding, generator=generator)
        positions = sinusoidal_positions(length, width, generator.device)
        self.register_buffer("positions_SD", positions, persistent=False)
        blocks = (Block(config, Attention(config, draw), draw, mlp_bias=False) for _ in range(layers))
        self.blocks = nn.ModuleList(blocks)
        self.classifier = draw.linear(width, vocabulary, bias=classifier_bias)
        if tie_embeddings:
            self.classifier.weight = self.embedding.weight

    def forward(self, tokens_BS: torch.Tensor, start: int = 0, prefix: Prefix | None = None) -> torch.Tensor:
        """Logits (B, S - start, V) of the token after each position from `start` on.

        The last block computes queries, MLP, norms and the classifier for those positions only. With a
        `prefix` of length L <= start, what stands before L is computed once for each distinct beginning.
        """
        begin = 0 if prefix is None else prefix.length
        if start < begin:
            raise ValueError(f"start {start} lies inside the shared prefix")
        pasts = [None] * len(self.blocks) if prefix is None else self._pasts(prefix)
        x_BQD, projected = self._embed(tokens_BS[:, begin:], begin)
        last = len(self.blocks) - 1
        for layer, (block, past) in enumerate(zip(self.blocks, pasts, strict=True)):
            assert isinstance(block, Block)
            skipped = start - begin if layer == last else 0
            q_BQD, kv_BS2D = projected(skipped) if layer == 0 else block.attention.project(x_BQD, skipped)
            x_BQD = block(x_BQD[:, skipped:], block.attention.mix(q_BQD, kv_BS2D, past, self.fused))
        logits_BQV: torch.Tensor = self.classifier(x_BQD)
        return logits_BQV

    def inspect(self, tokens_BS: torch.Tensor) -> Inspection:
        """Logits of all positions with the hidden states and attention weights of every layer, in evaluation mode."""
        training = self.training
        self.eval()
        hidden, attention = [], []
        with torch.no_grad():
            x_BSD, _ = self._embed(tokens_BS)
            for block in self.blocks:
                assert isinstance(block, Block)
                q_BSD, kv_BS2D = block.attention.project(x_BSD)
                attention.append(block.attention.weights(q_BSD, kv_BS2D))
                x_BSD = block(x_BSD, block.attention.mix(q_BSD, kv_BS2D))
                hidden.append(x_BSD)
            logits = self.classifier(x_BSD)
        self.train(training)
        return Inspection(logits, torch.stack(hidden, dim=1), torch.stack(attention, dim=1))

    def _embed(self, tokens_BS: torch.Tensor, begin: int = 0) -> tuple[torch.Tensor, Projection]:
        """Embeddings (B, S, D) of tokens that stand from position `begin` on, and the first layer's projection of them.

        On a CPU, where there are more rows than tokens, every token at every position is projected once and rows
        look up what they need.
        """
        vocabulary, (rows, length) = self.embedding.num_embeddings, tokens_BS.shape
        attention, positions_SD = self.blocks[0].attention, self.positions_SD[begin : begin + length]
        if not self.fused or tokens_BS.device.type != "cpu" or vocabulary >= rows:
            x_BSD = self.embedding(tokens_BS) + positions_SD
            return x_BSD, partial(attention.project, x_BSD)
        if tokens_BS.numel() and not 0 <= tokens_BS.min() <= tokens_BS.max() < vocabulary:
            raise IndexError(f"tokens lie between 0 and {vocabulary - 1}, got {tokens_BS.min()} to {tokens_BS.max()}")
        every_V, every_S = torch.arange(vocabulary), torch.arange(length)
        table_MD = (self.embedding(every_V) + positions_SD[:, None]).flatten(0, 1)  # M = S V
        index_BS = tokens_BS + vocabulary * every_S
        q_BSD, kv_BS2D = attention.split(F.embedding(index_BS, attention.qkv(table_MD)))
        return F.embedding(index_BS, table_MD), lambda start: (q_BSD[:, start:], kv_BS2D)

    def _pasts(self, prefix: Prefix) -> list[_Past | None]:
        """Keys and values of the distinct beginnings, in every layer."""
        pasts: list[_Past | None] = []
        x_PLD, _ = self._embed(prefix.tokens)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            is_last = layer == len(self.blocks) - 1
            q_PLD, kv_PL2D = block.attention.project(x_PLD, start=prefix.length if is_last else 0)
            pasts.append(_Past(kv_PL2D, prefix.index))
            if not is_last:
                x_PLD = block(x_PLD, block.attention.mix(q_PLD, kv_PL2D, fused=self.fused))
        return pasts
