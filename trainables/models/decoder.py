"""The decoder-only transformer behind TinyStories, character streams and the arithmetic language model.

One model with switches (`DecoderConfig`): norm none, pre or post, LayerNorm or RMSNorm; positions learned, sinusoidal,
rotary or none; MLP with GELU, SiLU or SwiGLU; biases, tied embeddings, dropout. Attention is
`scaled_dot_product_attention`, in fp32 on a CPU. Leaves out dropout of attention weights and grouped keys and values.
`torch.compile` takes it whole; with dropout, whose generator it cannot trace, in pieces. Generation is in
`generation.py`, counts and FLOPs in `decoder_config.py`.

Names in the state dict, weights as (outputs, inputs):
    embedding.weight (V, D); positions.weight (length, D) if learned;
    blocks.N.attention_norm, blocks.N.mlp_norm, norm: weight, and bias with LayerNorm and `bias`;
    blocks.N.attention.qkv (3 D, D): rows of Q, then K, then V, each head by head; blocks.N.attention.output (D, D);
    blocks.N.expand (F, D), blocks.N.gate (F, D) with SwiGLU, blocks.N.contract (D, F);
    classifier.weight (V, D), the same tensor as embedding.weight if tied.
GPT-2's c_attn, c_proj, c_fc and c_proj are qkv, output, expand and contract, transposed; its GELU is the tanh
approximation, here as in nanoGPT it is the exact one. Llama's gate_proj, up_proj and down_proj are gate, expand and
contract; for the rows of its q_proj and k_proj see `rotary.py`.

Shape suffixes: B rows, S positions, K keys, D width, V vocabulary, H heads, E = D / H, C = E / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from trainables.models.attention import attend, attention_precision, padding_mask
from trainables.models.blocks import Block, Projections, norm
from trainables.models.decoder_config import DecoderConfig
from trainables.models.initialisation import GPT2, Initialiser, TruncatedNormal
from trainables.models.key_value_cache import KeyValueCache
from trainables.models.layers import Dropout, sinusoidal_positions
from trainables.models.rotary import rotary_table, rotate

Extend = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From keys and values of new positions to those of all (`KeyValueCache.extend` of a layer)."""


class _Context(NamedTuple):
    """What the attention of every layer needs beside its input."""

    rotation: torch.Tensor | None = None
    """(S, C, 2) or (B, S, C, 2): cosine and sine of the positions' angles, if rotary."""
    mask: torch.Tensor | None = None
    """(B, 1, S, K) bool: which keys a query may look at; None: the causal ones."""


class Attention(Projections):
    """Causal multi-head self-attention, softmax(Q K^T / sqrt(E)) V."""

    def forward(self, x_BSD: torch.Tensor, context: _Context, extend: Extend | None = None) -> torch.Tensor:
        """The attention output (B, S, D) of normalised positions."""
        qkv_BSGE = attention_precision(self.qkv(x_BSD)).unflatten(-1, (3 * self.heads, -1))
        if context.rotation is None:
            q_BSHE, k_BSHE, v_BSHE = qkv_BSGE.chunk(3, dim=2)
        else:
            qk_BSGE, v_BSHE = qkv_BSGE.split([2 * self.heads, self.heads], dim=2)
            q_BSHE, k_BSHE = rotate(qk_BSGE, context.rotation).chunk(2, dim=2)
        q_BHSE, k_BHSE, v_BHSE = (each.transpose(1, 2) for each in (q_BSHE, k_BSHE, v_BSHE))
        if extend is not None:
            k_BHSE, v_BHSE = extend(k_BHSE, v_BHSE)
        mixed_BHSE = attend(q_BHSE, k_BHSE, v_BHSE, context.mask)
        attended_BSD: torch.Tensor = self.output(mixed_BHSE.transpose(1, 2).flatten(2))
        return attended_BSD


class Decoder(nn.Module):
    """The model.

    Args:
        config: its switches and sizes.
        vocabulary: tokens V.
        length: longest sequence.
        generator: draws the initial weights and the dropout masks; its device is the model's.
    """

    positions: nn.Embedding
    positions_SD: torch.Tensor
    rotary_SC2: torch.Tensor

    def __init__(self, config: DecoderConfig, *, vocabulary: int, length: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.vocabulary, self.length = config, vocabulary, length
        device, width, draw = generator.device, config.width, _initialiser(config, generator)
        classifier = draw.linear(width, vocabulary, bias=False)
        self.embedding = _tied(classifier) if config.tie_embeddings else draw.embedding(vocabulary, width)
        if config.positions == "learned":
            self.positions = draw.embedding(length, width)
        elif config.positions == "sinusoidal":
            self.register_buffer("positions_SD", sinusoidal_positions(length, width, device), persistent=False)
        elif config.positions == "rope":
            table = rotary_table(length, width // config.heads, config.rope_theta, device)
            self.register_buffer("rotary_SC2", table, persistent=False)
        self.dropout = Dropout(config.dropout, generator)
        self.blocks = nn.ModuleList(
            Block(config, Attention(config, draw), draw, config.bias) for _ in range(config.layers)
        )
        self.norm = norm(config, device) if config.norm == "pre" else nn.Identity()
        self.classifier = classifier

    def forward(
        self, tokens_BS: torch.Tensor, *, cache: KeyValueCache | None = None, padding_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, S, V) of the token after each position.

        Args:
            tokens_BS: int64 tokens; with a cache, those that follow what it holds.
            cache: holds keys and values of the positions before, and takes those of these positions.
            padding_B: how many tokens at the left of each row, those in the cache counted, are padding; the positions
                of a row begin after it. The logits of padding mean nothing.

        Raises:
            ValueError: more positions than the model's length.
        """
        logits_BSV: torch.Tensor = self.classifier(self.hidden_states(tokens_BS, cache=cache, padding_B=padding_B))
        return logits_BSV

    def hidden_states(
        self, tokens_BS: torch.Tensor, *, cache: KeyValueCache | None = None, padding_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the classifier reads, (B, S, D); arguments and errors as in `forward`."""
        begin = 0 if cache is None else cache.filled
        end = begin + tokens_BS.shape[1]
        if end > self.length and (padding_B is None or end - int(padding_B.min()) > self.length):
            raise ValueError(f"{end} positions are more than the model's length of {self.length}")
        x_BSD, context = self._begin(tokens_BS, begin, padding_B)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            extend = None if cache is None else partial(cache.extend, layer)
            attended_BSD = block.attention(block.attention_input(x_BSD), context, extend)
            x_BSD = block(x_BSD, self.dropout(attended_BSD))
        if cache is not None:
            cache.filled = end
        normalised_BSD: torch.Tensor = self.norm(x_BSD)
        return normalised_BSD

    def _begin(
        self, tokens_BS: torch.Tensor, begin: int, padding_B: torch.Tensor | None
    ) -> tuple[torch.Tensor, _Context]:
        """Embeddings (B, S, D) of tokens that stand from column `begin` on, and what attention needs of positions."""
        kind, end = self.config.positions, begin + tokens_BS.shape[1]
        which: slice | torch.Tensor = slice(begin, end)
        mask = None
        if padding_B is not None:
            which = (torch.arange(begin, end, device=tokens_BS.device) - padding_B[:, None]).clamp(min=0)
            mask = padding_mask(padding_B, end - begin, end)
        x_BSD = self.embedding(tokens_BS)
        if kind == "learned":
            x_BSD = x_BSD + self.positions.weight[which]
        elif kind == "sinusoidal":
            x_BSD = x_BSD + self.positions_SD[which]
        return self.dropout(x_BSD), _Context(self.rotary_SC2[which] if kind == "rope" else None, mask)


def _initialiser(config: DecoderConfig, generator: torch.Generator) -> Initialiser:
    if config.initialisation == "gpt2":
        return GPT2(generator, config.layers)
    return TruncatedNormal(generator)


def _tied(classifier: nn.Linear) -> nn.Embedding:
    """An embedding with the classifier's weight."""
    embedding = nn.Embedding(classifier.out_features, classifier.in_features, device="meta")
    embedding.weight = classifier.weight
    return embedding
