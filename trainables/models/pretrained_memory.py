"""How much device memory it takes to train a pretrained model by reinforcement, estimated from sizes. Imports no torch.

What is counted: weights; gradients and Adam's two moments; what a forward pass keeps for the backward pass, tensor by
tensor as the code of transformers and peft has it; logits; the cache of keys and values while responses are written.
What is not: the CUDA context (about half a gigabyte), fragmentation, and single small tensors.

Shape letters of the formulas: w width, q and k widths of all queries and of all keys, f width of the MLP; s bytes of a
number in the forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from rung.settings import Precision
from trainables.models.pretrained_config import PretrainedConfig
from trainables.models.pretrained_shape import ModelShape, trained_parameters

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
BLOCK, SECOND_BLOCK = 64, 256
"""bitsandbytes: numbers that share a scale, and scales that share one where they are quantized as well."""


@dataclass(frozen=True)
class Memory:
    """Bytes of device memory, by what they are for."""

    weights: float
    """The model, its adapters, and the copy of it if a reference policy is carried along."""
    optimizer: float
    """Gradients and Adam's moments."""
    learning: float
    """At the peak of a step beside those: activations and logits."""
    writing: float
    """While responses are written, beside those: keys, values and logits."""

    @property
    def peak(self) -> float:
        """Writing and learning take turns."""
        return self.weights + self.optimizer + max(self.learning, self.writing)


def memory(
    config: PretrainedConfig,
    shape: ModelShape,
    precision: Precision = "fp32",
    *,
    rows: int,
    written_rows: int,
    prompt: int,
    response: int,
    carries_reference: bool = False,
) -> Memory:
    """What one run needs.

    Args:
        config, shape: the model.
        precision: of the run: whether matrix products are autocast.
        rows: responses in one forward and backward pass: of a step, divided by `accumulation`.
        written_rows: responses that are written at once.
        prompt: tokens of a long prompt.
        response: most tokens of a response.
        carries_reference: whether a frozen copy of all weights is there as well (`kl` without adapters).
    """
    own, trained = BYTES[config.weights_dtype], trained_parameters(config, shape)
    weights = weight_bytes(config, shape) * (2 if carries_reference else 1)
    trained_bytes = own if config.adapter is None else 4
    # Gradients and moments have the type of what is trained; adapters are trained beside the weights.
    optimizer = 3.0 * trained_bytes * trained
    weights += 0 if config.adapter is None else trained_bytes * trained
    number = 2 if precision != "fp32" else own
    # Logits, unless they are fp32 a copy in it, log-probabilities and two gradients in fp32.
    logits = shape.vocabulary * (16.0 if number == 4 else 16.0 + number)
    learning = _kept_for_backward(config, shape, precision, rows, prompt + response, rows * response * logits)
    # Logits in the model's type, and fp32 copies for scaling, sorting and choosing.
    keys = 2 * shape.layers * shape.key_value_heads * shape.head_width * number * (prompt + response)
    return Memory(weights, optimizer, learning, written_rows * (keys + logits))


def weight_bytes(config: PretrainedConfig, shape: ModelShape) -> float:
    """Bytes of the model's own weights. In 4 bits, each block of 64 numbers has a scale, of 32 bits or of 8 bits and
    its share of another one (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""
    own = BYTES[config.weights_dtype]
    if config.quantization == "none":
        return float(own * shape.parameters)
    scale = (1 + 4 / SECOND_BLOCK) / BLOCK if config.double_quantization else 4 / BLOCK
    return shape.block_matrices * (0.5 + scale) + own * (shape.parameters - shape.block_matrices)


def activation_bytes(config: PretrainedConfig, shape: ModelShape, precision: Precision, length: int) -> float:
    """Bytes that one block keeps of one token for the backward pass, without gradient checkpointing.

    RMSNorm reads fp32: 8 w for two of them, 4 (q + k) more where heads have theirs (qwen3). Attention keeps queries,
    keys, values and its result: s (2 q + 2 k); computed as it is written (`eager`), also its probabilities. The MLP
    keeps its two projections and the gate: 3 s f. What the seven matrices read is shared, s (2 w + f), but where it is
    cast each keeps a copy of its own: 5 w in place of 2 w, and adapters, which are fp32, also of q and f. Norms that
    are trained keep their results.
    """
    own, is_cast = BYTES[config.weights_dtype], precision != "fp32"
    number = 2 if is_cast else own
    width, hidden = shape.width, shape.hidden
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    normed = 2 * width + (queries + keys if shape.kind == "qwen3" else 0)
    attention = number * (2 * queries + 2 * keys)
    if config.attention == "eager":
        attention += (4 + number) * shape.heads * length
    if config.adapter is None:
        read = number * ((2 if number == own else 5) * width + hidden) + own * normed
    elif is_cast or own < 4:
        read = (2 if is_cast else 4) * (5 * width + queries + hidden)
    else:
        read = number * (2 * width + hidden)
    return float(4 * normed + attention + read + 3 * number * hidden)


def _kept_for_backward(
    config: PretrainedConfig, shape: ModelShape, precision: Precision, rows: int, length: int, logits: float
) -> float:
    """Bytes at the peak of a step: everything and the logits; with gradient checkpointing the inputs of the blocks, and
    either the logits or one block computed anew."""
    number = 2 if precision != "fp32" else BYTES[config.weights_dtype]
    matrices = shape.block_matrices + shape.vocabulary * shape.width
    # Weights in fp32 are cast for every matrix product. The copies are kept for the backward pass; those of trained
    # weights in any case, since autocast remembers them until the loss is there.
    casts = 2.0 * matrices if precision != "fp32" and config.weights_dtype == "fp32" else 0.0
    unpacked = 2.0 * shape.width * shape.hidden if config.quantization != "none" else 0.0
    tokens = rows * length
    block = tokens * activation_bytes(config, shape, precision, length)
    if config.gradient_checkpointing:
        inputs = tokens * shape.layers * shape.width * number
        remembered = casts if config.adapter is None else 0.0
        return inputs + remembered + max(logits, block + casts / shape.layers) + unpacked
    return shape.layers * block + logits + casts + unpacked
