"""A small post-norm GPT: each block is x = LN(x + attention(x)); x = LN(x + dropout(MLP(x))), with no final norm.

Token embedding plus fixed sinusoidal positions without scaling, attention projections with bias, an MLP of 4
x width with exact GELU and no bias, dropout after the MLP only. `forward` computes what a loss on the last
positions needs and no more; `inspect` shows hidden states and attention weights. Leaves out generation and a
key-value cache.

Shape suffixes: B rows, S positions, Q positions from `start` on, D width, H heads, E = D / H, P prefixes, L
their length, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from trainables.models.attention import attend, causal_mask
from trainables.models.layers import Dropout, Prefix, embedding, linear, sinusoidal_positions


class Inspection(NamedTuple):
    """What a GPT computed on the way to its logits."""

    logits: torch.Tensor
    """(B, S, V)."""
    hidden_states: torch.Tensor
    """(B, layers, S, D): the output of every block."""
    attention: torch.Tensor
    """(B, layers, H, S, S): weights of every query (row) on every key; causal rows that sum to 1."""


class _Past(NamedTuple):
    """Keys and values of what stands before the given positions, one per prefix."""

    k_PHLE: torch.Tensor
    v_PHLE: torch.Tensor
    index_B: torch.Tensor


class Attention(nn.Module):
    """Causal multi-head self-attention, softmax(Q K^T / sqrt(E)) V, with one fused projection to Q, K and V."""

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        # Q, K and V have the same fan-in, so one draw for the stacked matrix is a draw for each of the three.
        self.qkv = linear(width, 3 * width, bias=True, generator=generator)
        self.output = linear(width, width, bias=True, generator=generator)

    def forward(
        self, x_BSD: torch.Tensor, start: int = 0, past: _Past | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The attention output (B, Q, D), and the keys and values (B, H, S, E) of the given positions."""
        q_BHQE, k_BHSE, v_BHSE = self.project(x_BSD, start)
        k, v = k_BHSE, v_BHSE
        if past is not None:
            k = torch.cat([past.k_PHLE[past.index_B], k], dim=2)
            v = torch.cat([past.v_PHLE[past.index_B], v], dim=2)
        mixed = attend(q_BHQE, k, v)
        return self.output(mixed.transpose(1, 2).flatten(2)), k_BHSE, v_BHSE

    def project(self, x_BSD: torch.Tensor, start: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (B, H, Q, E) of the positions from `start` on, keys and values (B, H, S, E) of all."""
        if start == 0:
            q, k, v = self.qkv(x_BSD).chunk(3, dim=-1)
        else:
            width = x_BSD.shape[-1]
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(x_BSD[:, start:], weight[:width], bias[:width])
            k, v = F.linear(x_BSD, weight[width:], bias[width:]).chunk(2, dim=-1)
        return self._split(q), self._split(k), self._split(v)

    def weights(self, x_BSD: torch.Tensor) -> torch.Tensor:
        """The attention weights (B, H, S, S), written out."""
        q_BHSE, k_BHSE, _ = self.project(x_BSD)
        scores_BHSS = q_BHSE @ k_BHSE.transpose(-2, -1) / math.sqrt(q_BHSE.shape[-1])
        mask = causal_mask(q_BHSE.shape[2], k_BHSE.shape[2], x_BSD.device)
        return scores_BHSS.masked_fill(~mask, -math.inf).softmax(dim=-1)

    def _split(self, x_BSD: torch.Tensor) -> torch.Tensor:
        return x_BSD.view(*x_BSD.shape[:-1], self.heads, x_BSD.shape[-1] // self.heads).transpose(1, 2)


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream and normalised after the sum (post-norm)."""

    def __init__(self, width: int, heads: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.attention = Attention(width, heads, generator)
        self.attention_norm = nn.LayerNorm(width, device=generator.device)
        self.expand = linear(width, 4 * width, bias=False, generator=generator)
        self.contract = linear(4 * width, width, bias=False, generator=generator)
        self.dropout = Dropout(dropout, generator)
        self.mlp_norm = nn.LayerNorm(width, device=generator.device)

    def forward(self, x_BSD: torch.Tensor, start: int = 0, past: _Past | None = None) -> torch.Tensor:
        """The block's output (B, Q, D) for the positions from `start` on."""
        return self.with_keys_and_values(x_BSD, start, past)[0]

    def with_keys_and_values(
        self, x_BSD: torch.Tensor, start: int = 0, past: _Past | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The output (B, Q, D) with the keys and values (B, H, S, E) that later positions need."""
        attended, k, v = self.attention(x_BSD, start, past)
        x_BQD = self.attention_norm(x_BSD[:, start:] + attended)
        mlp = self.contract(F.gelu(self.expand(x_BQD)))
        return self.mlp_norm(x_BQD + self.dropout(mlp)), k, v


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
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.embedding = embedding(vocabulary, width, padding=padding, generator=generator)
        positions = sinusoidal_positions(length, width, generator.device)
        self.register_buffer("positions_SD", positions, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, generator) for _ in range(layers))
        self.classifier = linear(width, vocabulary, bias=classifier_bias, generator=generator)
        if tie_embeddings:
            self.classifier.weight = self.embedding.weight

    def forward(self, tokens_BS: torch.Tensor, start: int = 0, prefix: Prefix | None = None) -> torch.Tensor:
        """Logits (B, S - start, V) of the token after each position from `start` on.

        The last block computes queries, MLP, norms and the classifier for those positions only. With a
        `prefix` of length L <= start, what stands before L is computed once for each distinct beginning.
        """
        x = self._embed(tokens_BS, 0 if prefix is None else prefix.length)
        pasts = [None] * len(self.blocks) if prefix is None else self._pasts(prefix)
        skipped = start if prefix is None else start - prefix.length
        if skipped < 0:
            raise ValueError(f"start {start} lies inside the shared prefix")
        last = len(self.blocks) - 1
        for layer, (block, past) in enumerate(zip(self.blocks, pasts, strict=True)):
            x = block(x, skipped if layer == last else 0, past)
        logits_BQV: torch.Tensor = self.classifier(x)
        return logits_BQV

    def inspect(self, tokens_BS: torch.Tensor) -> Inspection:
        """Logits of all positions with the hidden states and attention weights of every layer, in evaluation mode."""
        training = self.training
        self.eval()
        hidden, attention = [], []
        with torch.no_grad():
            x_BSD = self._embed(tokens_BS)
            for block in self.blocks:
                assert isinstance(block, Block)
                attention.append(block.attention.weights(x_BSD))
                x_BSD = block(x_BSD)
                hidden.append(x_BSD)
            logits = self.classifier(x_BSD)
        self.train(training)
        return Inspection(logits, torch.stack(hidden, dim=1), torch.stack(attention, dim=1))

    def _embed(self, tokens_BS: torch.Tensor, begin: int = 0) -> torch.Tensor:
        """Embeddings (B, S - begin, D) of the positions from `begin` on."""
        end = tokens_BS.shape[1]
        x_BSD: torch.Tensor = self.embedding(tokens_BS[:, begin:])
        return x_BSD + self.positions_SD[begin:end]

    def _pasts(self, prefix: Prefix) -> list[_Past | None]:
        """Keys and values of the distinct beginnings, in every layer."""
        pasts: list[_Past | None] = []
        x_PLD = self._embed(prefix.tokens)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if layer < len(self.blocks) - 1:
                x_PLD, k, v = block.with_keys_and_values(x_PLD)
            else:
                _, k, v = block.attention.project(x_PLD, start=prefix.length)
            pasts.append(_Past(k, v, prefix.index))
        return pasts
