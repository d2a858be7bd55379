"""How large a pretrained model is and what it costs, from its `config.json` or from a table of published ones. Imports
no torch.

Knows the models whose blocks are those of Llama (RMSNorm, rotary positions, grouped queries, SwiGLU): Llama, Mistral,
SmolLM2, Qwen2, Qwen2.5 and Qwen3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rung.errors import RungError
from trainables.models.pretrained_config import PretrainedConfig, PretrainedLoraConfig
from trainables.models.pretrained_files import CONFIG, PretrainedFolder

KINDS = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model."""

    kind: str
    """`model_type` of `config.json`; qwen3 has norms of each head's queries and keys."""
    layers: int
    width: int
    heads: int
    """Of queries."""
    key_value_heads: int
    head_width: int
    hidden: int
    """Width of the MLP."""
    vocabulary: int
    tied: bool
    """Whether the classifier's weight is the token embedding."""
    biased: tuple[str, ...] = ()
    """Names of the matrices that have biases."""

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the matrices of a block, by name."""
        width, hidden = self.width, self.hidden
        queries, keys = self.heads * self.head_width, self.key_value_heads * self.head_width
        return {
            "q_proj": (width, queries),
            "k_proj": (width, keys),
            "v_proj": (width, keys),
            "o_proj": (queries, width),
            "gate_proj": (width, hidden),
            "up_proj": (width, hidden),
            "down_proj": (hidden, width),
        }

    @property
    def block_matrices(self) -> int:
        """Numbers in the matrices of all blocks: what `quantization` packs."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_layers.values())

    @property
    def parameters(self) -> int:
        """Numbers in the whole model."""
        norms = 2 * self.width + (2 * self.head_width if self.kind == "qwen3" else 0)
        block = norms + sum(self.linear_layers[name][1] for name in self.biased)
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.block_matrices + self.layers * block + self.width + embeddings


def shape_of(config: PretrainedConfig) -> ModelShape:
    """The sizes of a model that lies on this machine, else those of a published one.

    Raises:
        RungError: it is neither, or of another family.
    """
    try:
        folder = PretrainedFolder.of(config)
    except RungError:
        published = PUBLISHED.get(config.model.lower())
        if published is None:
            raise
        return published
    return read_shape(folder.read(CONFIG), str(folder.path / CONFIG))


def read_shape(described: Mapping[str, Any], source: str) -> ModelShape:
    """The sizes that the content of a `config.json` says; `source` is where it stands.

    Raises:
        RungError: it is that of another family, or a size is missing.
    """
    kind = described.get("model_type")
    if kind not in KINDS:
        raise RungError(f"{source} describes a model of type {kind!r}, and known are {', '.join(KINDS)}")
    try:
        heads, width = int(described["num_attention_heads"]), int(described["hidden_size"])
        head_width = described.get("head_dim") or (128 if kind == "qwen3" else width // heads)
        return ModelShape(
            kind=kind,
            layers=int(described["num_hidden_layers"]),
            width=width,
            heads=heads,
            key_value_heads=int(described.get("num_key_value_heads") or heads),
            head_width=int(head_width),
            hidden=int(described["intermediate_size"]),
            vocabulary=int(described["vocab_size"]),
            tied=bool(described.get("tie_word_embeddings", False)),
            biased=_biased(kind, bool(described.get("attention_bias")), bool(described.get("mlp_bias"))),
        )
    except KeyError as error:
        raise RungError(f"{source} does not say {error.args[0]}") from None


def _biased(kind: str, attention: bool = False, mlp: bool = False) -> tuple[str, ...]:
    """Which matrices have biases: `attention_bias` is an option of llama and qwen3, `mlp_bias` one of llama."""
    if kind == "qwen2":
        return ("q_proj", "k_proj", "v_proj")
    names = ("q_proj", "k_proj", "v_proj", "o_proj") if attention and kind in ("llama", "qwen3") else ()
    return (*names, "gate_proj", "up_proj", "down_proj") if mlp and kind == "llama" else names


def adapted_layers(adapter: PretrainedLoraConfig, shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the layers of a block that have adapters, by name."""
    layers = shape.linear_layers
    return {name: sizes for name, sizes in layers.items() if adapter.targets == "all-linear" or name in adapter.targets}


def adapter_parameters(adapter: PretrainedLoraConfig, shape: ModelShape) -> int:
    """Numbers in all adapters of a model."""
    return shape.layers * adapter.rank * sum(map(sum, adapted_layers(adapter, shape).values()))


def trained_parameters(config: PretrainedConfig, shape: ModelShape) -> int:
    """Numbers that are trained."""
    return shape.parameters if config.adapter is None else adapter_parameters(config.adapter, shape)


def flops_per_token(shape: ModelShape, length: int) -> float:
    """Floating-point operations of a forward pass over a sequence of `length`, divided by its tokens.

    2 for every weight of a matrix product, and 4 `length` for every number of a layer's queries (Chowdhery et al. 2022,
    arXiv 2204.02311, appendix B). An upper bound where logits of some positions only are computed.
    """
    attention = 4 * shape.layers * length * shape.heads * shape.head_width
    return float(2 * (shape.block_matrices + shape.vocabulary * shape.width) + attention)


def training_flops_per_token(config: PretrainedConfig, shape: ModelShape, length: int) -> float:
    """Those of a training step. Backward costs trained weights twice what forward does, and frozen ones once; gradient
    checkpointing computes the blocks' forward pass once more."""
    forward = flops_per_token(shape, length)
    again = forward - 2 * shape.vocabulary * shape.width if config.gradient_checkpointing else 0.0
    if config.adapter is None:
        return 3 * forward + again
    return 2 * forward + again + 6.0 * adapter_parameters(config.adapter, shape)


def _published(
    kind: str, layers: int, width: int, heads: tuple[int, int, int], hidden: int, vocabulary: int, *, tied: bool = True
) -> ModelShape:
    return ModelShape(kind, layers, width, *heads, hidden, vocabulary, tied, _biased(kind))


QWEN, SMOL, LLAMA = 151_936, 49_152, 128_256
"""Tokens of their vocabularies."""

_QWEN3_4B = _published("qwen3", 36, 2560, (32, 8, 128), 9728, QWEN)
_PUBLISHED = {
    "Qwen/Qwen3-0.6B": _published("qwen3", 28, 1024, (16, 8, 128), 3072, QWEN),
    "Qwen/Qwen3-1.7B": _published("qwen3", 28, 2048, (16, 8, 128), 6144, QWEN),
    "Qwen/Qwen3-4B": _QWEN3_4B,
    "Qwen/Qwen3-4B-Instruct-2507": _QWEN3_4B,
    "Qwen/Qwen3-8B": _published("qwen3", 36, 4096, (32, 8, 128), 12_288, QWEN, tied=False),
    "Qwen/Qwen2.5-0.5B-Instruct": _published("qwen2", 24, 896, (14, 2, 64), 4864, QWEN),
    "Qwen/Qwen2.5-1.5B-Instruct": _published("qwen2", 28, 1536, (12, 2, 128), 8960, QWEN),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _published("llama", 30, 576, (9, 3, 64), 1536, SMOL),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _published("llama", 32, 960, (15, 5, 64), 2560, SMOL),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _published("llama", 24, 2048, (32, 32, 64), 8192, SMOL),
    "meta-llama/Llama-3.2-1B-Instruct": _published("llama", 16, 2048, (32, 8, 64), 8192, LLAMA),
}
PUBLISHED = {name.lower(): shape for name, shape in _PUBLISHED.items()}
"""Sizes by name on the Hugging Face Hub in lower case, as its `config.json` there says: `https://huggingface.co/<name>`.
Of use for plans on machines that do not have the model."""
