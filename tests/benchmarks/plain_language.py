"""What a user would write instead: a small GPT on characters and its loop, of the kind that nanoGPT made common.

Competent and ordinary: learned positions, pre-norm blocks, `scaled_dot_product_attention`, weights tied, no biases;
random windows cut from a memory-mapped file of uint16 characters; AdamW in two groups (matrices are decayed, the rest
is not), as torch makes it on a CPU; warm-up and cosine; the gradient clipped; the loss read at every step, because it
is printed. Leaves out dropout, checkpoints and everything that has to do with several devices.

Shapes: B rows, S positions, W width, V characters.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Constants:
    """nanoGPT's configuration for characters of Shakespeare on a CPU (README of karpathy/nanoGPT)."""

    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    batch_size: int = 12
    steps: int = 2000
    warmup: int = 100
    learning_rate: float = 1e-3
    minimum: float = 1e-4
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.batch_size * self.context

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then cosine."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / (self.warmup + 1)
        done = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.minimum + 0.5 * (1 + math.cos(math.pi * done)) * (self.learning_rate - self.minimum)


class PlainBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BSW: torch.Tensor) -> torch.Tensor:
        B, S, W = x_BSW.shape
        q, k, v = (
            part.view(B, S, self.heads, W // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x_BSW)).split(W, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BSW = x_BSW + self.output(mixed.transpose(1, 2).contiguous().view(B, S, W))
        return x_BSW + self.contract(F.gelu(self.expand(self.norm2(x_BSW))))


class PlainDecoder(nn.Module):
    """Logits of all positions."""

    def __init__(self, vocabulary: int, constants: Constants) -> None:
        super().__init__()
        width = constants.width
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(constants.context, width)
        self.blocks = nn.ModuleList(PlainBlock(width, constants.heads) for _ in range(constants.layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.classifier = nn.Linear(width, vocabulary, bias=False)
        self.classifier.weight = self.embedding.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("output.weight", "contract.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * constants.layers) if residual else 1))

    def forward(self, tokens_BS: torch.Tensor) -> torch.Tensor:
        x_BSW = self.embedding(tokens_BS) + self.positions(torch.arange(tokens_BS.shape[1]))
        for block in self.blocks:
            x_BSW = block(x_BSW)
        return self.classifier(self.norm(x_BSW))


class PlainLoop:
    """The training loop over `folder`/train.bin, one `step` at a time.

    Args:
        bf16: the forward pass runs under torch.autocast.
        fused: AdamW in one kernel, which nanoGPT asks for on a GPU only.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary: int,
        constants: Constants,
        *,
        bf16: bool = False,
        fused: bool = False,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.folder, self.constants = folder, constants
        self.model = PlainDecoder(vocabulary, constants)
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": constants.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=constants.learning_rate, betas=constants.betas, fused=fused or None
        )
        self.autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
        self.steps = 0

    def step(self) -> float:
        """One step; returns the loss, as a loop that prints it would."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.constants.rate(self.steps)
        inputs, targets = self._windows()
        with self.autocast:
            loss = mean_loss(self.model, inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.constants.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return loss.item()

    def _windows(self) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = np.memmap(self.folder / "train.bin", dtype=np.uint16, mode="r")
        context = self.constants.context
        starts = torch.randint(len(tokens) - context, (self.constants.batch_size,)).tolist()
        inputs = torch.stack([torch.from_numpy(tokens[i : i + context].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(tokens[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        return inputs, targets


def mean_loss(model: nn.Module, inputs_BS: torch.Tensor, targets_BS: torch.Tensor) -> torch.Tensor:
    """Nats per character."""
    logits_BSV = model(inputs_BS)
    return F.cross_entropy(logits_BSV.view(-1, logits_BSV.shape[-1]), targets_BS.reshape(-1))


@torch.no_grad()
def validation_loss(model: nn.Module, tokens: np.ndarray, context: int, windows: int) -> float:
    """Mean loss (nats per character) over `windows` evenly spaced windows."""
    starts = np.linspace(0, len(tokens) - context - 1, windows).astype(np.int64)
    rows = torch.from_numpy(tokens[starts[:, None] + np.arange(context + 1)].astype(np.int64))
    model.eval()
    return sum(mean_loss(model, part[:, :-1], part[:, 1:]).item() * len(part) for part in rows.split(50)) / len(rows)


def write_characters(text: str, folder: Path) -> int:
    """`train.bin` (the first nine tenths) and `validation.bin` of a text in `folder`; returns the vocabulary's size."""
    symbols = sorted(set(text))
    numbers = {symbol: index for index, symbol in enumerate(symbols)}
    tokens = np.array([numbers[symbol] for symbol in text], dtype=np.uint16)
    split = int(0.9 * len(tokens))
    tokens[:split].tofile(folder / "train.bin")
    tokens[split:].tofile(folder / "validation.bin")
    return len(symbols)
