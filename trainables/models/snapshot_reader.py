"""A snapshot of a transformer reads rows, column by column: what a model computes, in fewer operations.

Between products everything is in fp32. One query of each row looks at its keys by two batched products over the whole
memory of a layer, of which what has not been written yet is masked: a third of the time of torch's attention kernel on
a CPU, in fp32 as in bf16, and of the same products over the part that is filled, which is copied for them every time.

Shape suffixes: B rows, C columns (padding, prompt and new tokens), S columns that are read now, K columns that the
cache holds or has room for, D width, G heads of queries and keys, H heads of keys, N queries of each of them, E width
of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from trainables.models.attention import attend, padding_mask
from trainables.models.key_value_cache import KeyValueCache
from trainables.models.rotary import rotate
from trainables.models.snapshot import Layer, Snapshot

ROOM_STEP = 32
"""Columns by which the cache grows: on average half as many are looked at in vain."""


class SnapshotReader:
    """See `Reader`. Rows have at most as many tokens as the model has positions."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.device = snapshot.embedding_VD.device
        self.vocabulary = snapshot.embedding_VD.shape[0]

    def begin(self, padding: Sequence[int], columns: int) -> None:
        """See `Reader`."""
        self.is_padded = max(padding) > 0
        self.cache = KeyValueCache(columns - 1, ROOM_STEP)  # the last column is chosen, and not looked at
        self.padding_B = torch.tensor(padding)
        dtype = self.snapshot.classifier.weight_OI.dtype
        self.unseen_B11C = torch.full((len(padding), 1, 1, columns), -math.inf, dtype=dtype)
        """0 where a query may look, and minus infinity elsewhere."""

    def keep(self, rows: torch.Tensor) -> None:
        """See `Reader`."""
        self.padding_B, self.unseen_B11C = self.padding_B[rows], self.unseen_B11C[rows]
        self.cache.keep(rows)

    def logits(self, tokens_BC: torch.Tensor) -> torch.Tensor:
        """See `Reader`."""
        with torch.autocast("cpu", enabled=False):
            return self._logits(tokens_BC[:, self.cache.filled :])

    def _logits(self, tokens_BS: torch.Tensor) -> torch.Tensor:
        snapshot, begin, end = self.snapshot, self.cache.filled, self.cache.filled + tokens_BS.shape[1]
        is_seen_BS = torch.arange(begin, end) >= self.padding_B[:, None]
        self.unseen_B11C[:, 0, 0, begin:end].masked_fill_(is_seen_BS, 0.0)
        which: slice | torch.Tensor = slice(begin, end)
        if self.is_padded:
            which = (torch.arange(begin, end) - self.padding_B[:, None]).clamp(min=0)
        x_BSD = F.embedding(tokens_BS, snapshot.embedding_VD).float()
        if snapshot.positions_SD is not None:
            x_BSD = x_BSD + snapshot.positions_SD[which]
        rotation = None if snapshot.rotary_SC2 is None else snapshot.rotary_SC2[which]
        for index, layer in enumerate(snapshot.layers):
            dtype = layer.output.weight_OI.dtype
            mixed_BSD = self._attention(index, layer, layer.attention_norm(x_BSD).to(dtype), rotation)
            x_BSD = x_BSD + layer.output(mixed_BSD)
            x_BSD = x_BSD + _mlp(layer, layer.mlp_norm(x_BSD).to(dtype))
        self.cache.filled = end
        return snapshot.classifier(snapshot.norm(x_BSD[:, -1]).to(snapshot.classifier.weight_OI.dtype))

    def _attention(self, index: int, layer: Layer, x_BSD: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
        """The mixed values (B, S, D), before the output projection."""
        heads, key_heads = self.snapshot.heads, self.snapshot.key_heads
        qk_BSGE, v_BSHE = (
            layer.qkv(x_BSD).unflatten(-1, (heads + 2 * key_heads, -1)).split([heads + key_heads, key_heads], 2)
        )
        if layer.heads_norm is not None:
            weight_GE, epsilon = layer.heads_norm
            qk_BSGE = F.rms_norm(qk_BSGE.float(), weight_GE.shape[1:], None, epsilon) * weight_GE
        if rotation is not None:
            qk_BSGE = rotate(qk_BSGE, rotation)
        q_BSGE, k_BSHE = qk_BSGE.split([heads, key_heads], dim=2)
        k_BHKE, v_BHKE = self.cache.extend(index, k_BSHE.transpose(1, 2).to(x_BSD.dtype), v_BSHE.transpose(1, 2))
        if x_BSD.shape[1] == 1:
            return self._mixed(q_BSGE[:, 0], *self.cache.whole(index))[:, None]
        mask = padding_mask(self.padding_B, x_BSD.shape[1], k_BHKE.shape[2]) if self.is_padded else None
        q_BHSE, times = q_BSGE.transpose(1, 2).float(), heads // key_heads
        k_BHKE, v_BHKE = (each.float().repeat_interleave(times, dim=1) for each in (k_BHKE, v_BHKE))
        return attend(q_BHSE, k_BHKE, v_BHKE, mask).transpose(1, 2).flatten(2).to(x_BSD.dtype)

    def _mixed(self, q_BGE: torch.Tensor, k_BHKE: torch.Tensor, v_BHKE: torch.Tensor) -> torch.Tensor:
        """The values (B, D) that one query of each row mixes."""
        q_BHNE = (q_BGE * q_BGE.shape[-1] ** -0.5).to(k_BHKE.dtype).unflatten(1, (k_BHKE.shape[1], -1))
        scores_BHNK = q_BHNE @ k_BHKE.transpose(2, 3) + self.unseen_B11C[..., : k_BHKE.shape[2]]
        return (scores_BHNK.softmax(-1) @ v_BHKE).flatten(1)


def _mlp(layer: Layer, x_BSD: torch.Tensor) -> torch.Tensor:
    hidden = layer.expand(x_BSD)
    if layer.activation == "gelu":
        return layer.contract(F.gelu(hidden))
    if layer.activation == "silu":
        return layer.contract(F.silu(hidden))
    gate, hidden = hidden.chunk(2, dim=-1)
    return layer.contract(F.silu(gate) * hidden)
