"""The weights of a transformer as they are now, laid out for writing on a CPU: few and large products, in one type.

Projections that read the same are one matrix, weights in 4 bits are unpacked once and not for every token, and what a
model of transformers does around its products (casts, masks, copies of keys, five operations for a norm) is left out.
Low-rank adapters stay beside the weights that they adapt: added to weights in bf16, small ones would be rounded away.
`snapshot_reader.py` computes with it.

Leaves out what is not a pre-norm decoder with full causal attention: `of_decoder` and `of_pretrained` say None.

Shape suffixes: O outputs, I inputs, R ranks of adapters, V vocabulary, D width, S positions, G heads of queries and
keys, E width of a head, C = E / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from trainables.models.blocks import Block, Projections, RMSNorm
from trainables.models.decoder import Decoder

MOST_PARAMETERS = 1_000_000_000
"""A model of more is not copied: memory counts for more than its speed on a CPU."""
FAMILIES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Classes of transformers that are known to compute what `of_pretrained` reads out of them."""

Activation = Literal["gelu", "silu", "swiglu"]


class Linear(NamedTuple):
    """x W^T + b, and the product with an adapter where there is one."""

    weight_OI: torch.Tensor
    bias_O: torch.Tensor | None = None
    down_RI: torch.Tensor | None = None
    up_OR: torch.Tensor | None = None
    """Scaled."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., O) of (..., I) in the weights' type."""
        y = F.linear(x, self.weight_OI, self.bias_O)
        if self.down_RI is None or self.up_OR is None:
            return y
        return y + F.linear(F.linear(x, self.down_RI), self.up_OR)

    def rows(self, order_O: torch.Tensor) -> Linear:
        """With the outputs in another order."""
        bias_O, up_OR = (None if each is None else each[order_O] for each in (self.bias_O, self.up_OR))
        return Linear(self.weight_OI[order_O], bias_O, self.down_RI, up_OR)

    def to(self, dtype: torch.dtype) -> Linear:
        """In another type, without gradients."""
        return Linear(*(None if each is None else each.detach().to(dtype) for each in self))  # type: ignore[arg-type]


class Norm(NamedTuple):
    """LayerNorm, or RMSNorm, in fp32."""

    weight_D: torch.Tensor
    bias_D: torch.Tensor | None
    epsilon: float
    is_rms: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """fp32 of fp32, any shape that ends in the width."""
        if self.is_rms:
            return F.rms_norm(x, self.weight_D.shape, self.weight_D, self.epsilon)
        return F.layer_norm(x, self.weight_D.shape, self.weight_D, self.bias_D, self.epsilon)


class Layer(NamedTuple):
    """A block."""

    attention_norm: Norm
    qkv: Linear
    """Heads of queries, then of keys, then of values."""
    heads_norm: tuple[torch.Tensor, float] | None
    """RMSNorm of each head of queries and keys: weights (G, E) and epsilon."""
    output: Linear
    mlp_norm: Norm
    expand: Linear
    """With `swiglu` the gate, then what it multiplies."""
    activation: Activation
    contract: Linear


class Snapshot(NamedTuple):
    """A decoder. Products are in the type of its `Linear`s, all else is fp32."""

    embedding_VD: torch.Tensor
    positions_SD: torch.Tensor | None
    """Added to the embedding, if not None."""
    rotary_SC2: torch.Tensor | None
    """See `rotary.rotary_table`, if not None; pairs are neighbours."""
    layers: Sequence[Layer]
    norm: Norm
    classifier: Linear
    heads: int
    key_heads: int


def product_type(model: nn.Module) -> torch.dtype | None:
    """The type that products of a model on a CPU are computed in around this call; None: not one for a snapshot."""
    parameters = list(model.parameters())
    # Two numbers of 4 bits are one byte.
    count = sum(each.numel() * (2 if each.dtype == torch.uint8 else 1) for each in parameters)
    if parameters[0].device.type != "cpu" or count > MOST_PARAMETERS:
        return None
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else parameters[0].dtype
    return dtype if dtype in (torch.float32, torch.bfloat16) else None


def of_decoder(model: Decoder, dtype: torch.dtype) -> Snapshot | None:
    """A decoder with products in this type; None if it is of another kind."""
    config = model.config
    if type(model) is not Decoder or config.norm != "pre":
        return None
    layers = []
    for block in model.blocks:
        assert isinstance(block, Block)
        assert isinstance(block.attention, Projections)
        named = {"qkv": block.attention.qkv, "output": block.attention.output, "contract": block.contract}
        read = {name: _linear(module) for name, module in named.items()}
        expands = [_linear(module) for module in (block.gate, block.expand) if module is not None]
        if None in read.values() or None in expands:
            return None
        linear = {name: each.to(dtype) for name, each in read.items() if each is not None}
        expand = _stacked([each for each in expands if each is not None]).to(dtype)
        norms = _norm(block.attention_norm), _norm(block.mlp_norm)
        layers.append(
            Layer(norms[0], linear["qkv"], None, linear["output"], norms[1], expand, config.mlp, linear["contract"])
        )
    classifier = _linear(model.classifier)
    if classifier is None:
        return None
    added = {"learned": lambda: model.positions.weight.detach().float(), "sinusoidal": lambda: model.positions_SD}
    return Snapshot(
        embedding_VD=model.embedding.weight.detach(),
        positions_SD=added[config.positions]() if config.positions in added else None,
        rotary_SC2=model.rotary_SC2 if config.positions == "rope" else None,
        layers=layers,
        norm=_norm(model.norm),
        classifier=classifier.to(dtype),
        heads=config.heads,
        key_heads=config.heads,
    )


def of_pretrained(model: Any, dtype: torch.dtype) -> Snapshot | None:
    """A model of transformers with products in this type; None if it is of another kind."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if type(model).__name__ not in FAMILIES or kinds != {"full_attention"} or config.hidden_act != "silu":
        return None
    if config.rope_parameters["rope_type"] not in ("default", "linear", "llama3"):
        return None  # its angles depend on the length of what is read
    width = model.model.layers[0].self_attn.head_dim
    layers = [_pretrained_layer(layer, config, width, dtype) for layer in model.model.layers]
    classifier = _linear(model.lm_head)
    if classifier is None or not all(layers):
        return None
    return Snapshot(
        embedding_VD=model.model.embed_tokens.weight.detach(),
        positions_SD=None,
        rotary_SC2=_rotary(model),
        layers=[layer for layer in layers if layer is not None],
        norm=_norm(model.model.norm),
        classifier=classifier.to(dtype),
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
    )


def _pretrained_layer(layer: Any, config: Any, width: int, dtype: torch.dtype) -> Layer | None:
    attention, mlp = layer.self_attn, layer.mlp
    modules = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    read = [_linear(module) for module in (*modules, mlp.gate_proj, mlp.up_proj, mlp.down_proj)]
    q, k, v, output, gate, up, contract = read
    if q is None or k is None or v is None or output is None or gate is None or up is None or contract is None:
        return None
    pairs_E = torch.arange(width).view(2, -1).t().flatten()  # transformers pairs the first and second half of a head
    q, k = (each.rows(_every_head(pairs_E, len(each.weight_OI) // width)) for each in (q, k))
    heads_norm = None
    if hasattr(attention, "q_norm"):
        counts = (attention.q_norm, config.num_attention_heads), (attention.k_norm, config.num_key_value_heads)
        weights = [norm.weight.detach().float()[pairs_E].expand(heads, -1) for norm, heads in counts]
        heads_norm = torch.cat(weights), attention.q_norm.variance_epsilon
    return Layer(
        attention_norm=_norm(layer.input_layernorm),
        qkv=_stacked([q, k, v]).to(dtype),
        heads_norm=heads_norm,
        output=output.to(dtype),
        mlp_norm=_norm(layer.post_attention_layernorm),
        expand=_stacked([gate, up]).to(dtype),
        activation="swiglu",
        contract=contract.to(dtype),
    )


def _rotary(model: Any) -> torch.Tensor:
    """Cosine and sine (S, C, 2) of all positions, as the model computes them."""
    positions = torch.arange(model.config.max_position_embeddings)[None]
    both = model.model.rotary_emb(torch.empty(0), positions)
    return torch.stack([each[0, :, : each.shape[-1] // 2] for each in both], dim=-1)


def _every_head(order_E: torch.Tensor, heads: int) -> torch.Tensor:
    """The order of the rows of a projection, from that within a head."""
    return (torch.arange(heads)[:, None] * len(order_E) + order_E).flatten()


def _linear(module: Any) -> Linear | None:
    """A linear layer, plain or in 4 bits, with or without a low-rank adapter of peft; None if it is anything else."""
    base = getattr(module, "base_layer", module)
    if type(base) is nn.Linear:
        weight_OI = base.weight
    elif type(base).__name__ == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        weight_OI = dequantize_4bit(base.weight.data, base.weight.quant_state)
    else:
        return None
    if base is module or module.disable_adapters:
        return Linear(weight_OI, base.bias)
    if module.lora_variant or module.merged or len(module.active_adapters) != 1:
        return None
    name = module.active_adapters[0]
    up_OR = module.lora_B[name].weight * module.scaling[name]
    return Linear(weight_OI, base.bias, module.lora_A[name].weight, up_OR)


def _stacked(parts: Sequence[Linear]) -> Linear:
    """One product in place of several that read the same."""
    adapted = [part for part in parts if part.up_OR is not None]
    weight_OI = torch.cat([part.weight_OI for part in parts])
    bias_O = None
    if any(part.bias_O is not None for part in parts):
        zero = weight_OI.new_zeros
        bias_O = torch.cat([zero(len(part.weight_OI)) if part.bias_O is None else part.bias_O for part in parts])
    if not adapted:
        return Linear(weight_OI, bias_O)
    down_RI = torch.cat([part.down_RI for part in adapted if part.down_RI is not None])
    ups = [down_RI.new_zeros(len(part.weight_OI), 0) if part.up_OR is None else part.up_OR for part in parts]
    return Linear(weight_OI, bias_O, down_RI, torch.block_diag(*ups))


def _norm(module: Any) -> Norm:
    """A LayerNorm, or an RMSNorm of ours or of transformers."""
    if isinstance(module, nn.LayerNorm):
        bias = None if module.bias is None else module.bias.detach().float()
        return Norm(module.weight.detach().float(), bias, module.eps, is_rms=False)
    epsilon = module.epsilon if isinstance(module, RMSNorm) else module.variance_epsilon
    return Norm(module.weight.detach().float(), None, epsilon, is_rms=True)
