"""A tiny pretrained model in a folder, as transformers writes it: random weights, a tokenizer and a chat template.

It takes milliseconds to make and imports no transformers. The tokenizer has a token for each of the 256 bytes and a few
special ones, so every text has an encoding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

PAD, END, BEGIN = "<|endoftext|>", "<|im_end|>", "<|im_start|>"
SPECIAL = [PAD, BEGIN, END]
"""Tokens 0, 1 and 2; the bytes follow."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
CLASSES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}


def tiny_model_folder(
    path: Path,
    kind: Literal["qwen3", "llama"] = "qwen3",
    chat_template: str | None = CHAT_TEMPLATE,
    seed: int = 0,
    std: float = 0.05,
    tokens: dict[str, str] | None = None,
    **config: Any,
) -> Path:
    """Writes a model of about 100,000 parameters.

    Args:
        path: the folder; is made if it is not there.
        kind: its architecture.
        chat_template: None leaves it out.
        seed: of the weights.
        std: of the weights.
        tokens: in place of `eos_token` and `pad_token` of `tokenizer_config.json`.
        config: in place of values of `config.json`.

    Returns:
        `path`.
    """
    path.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(path, {"eos_token": END, "pad_token": PAD} if tokens is None else tokens)
    if chat_template is not None:
        (path / "chat_template.jinja").write_text(chat_template)
    described = CONFIG | {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": vocabulary,
        "eos_token_id": SPECIAL.index(END),
        "pad_token_id": SPECIAL.index(PAD),
    }
    described |= config
    (path / "config.json").write_text(json.dumps(described, indent=2))
    save_file(_weights(described, kind, seed, std), path / "model.safetensors", metadata={"format": "pt"})
    return path


def _write_tokenizer(path: Path, tokens: dict[str, str]) -> int:
    """Writes its two files. Returns how many tokens it has."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    texts = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={text: index for index, text in enumerate(texts)}, merges=[]))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024, **tokens}
    (path / "tokenizer_config.json").write_text(json.dumps(described, indent=2))
    return len(texts)


def _weights(config: dict[str, Any], kind: str, seed: int, std: float) -> dict[str, torch.Tensor]:
    width, hidden, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, config["dtype"])
    weights: dict[str, torch.Tensor] = {}

    def draw(name: str, *shape: int) -> None:
        drawn = torch.empty(shape).normal_(std=std, generator=generator) if len(shape) > 1 else torch.ones(shape)
        weights[f"{name}.weight"] = drawn.to(dtype)

    draw("model.embed_tokens", config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        for name, inputs, outputs in (
            ("self_attn.q_proj", width, queries),
            ("self_attn.k_proj", width, keys),
            ("self_attn.v_proj", width, keys),
            ("self_attn.o_proj", queries, width),
            ("mlp.gate_proj", width, hidden),
            ("mlp.up_proj", width, hidden),
            ("mlp.down_proj", hidden, width),
        ):
            draw(f"{block}.{name}", outputs, inputs)
        draw(f"{block}.input_layernorm", width)
        draw(f"{block}.post_attention_layernorm", width)
        if kind == "qwen3":
            draw(f"{block}.self_attn.q_norm", head)
            draw(f"{block}.self_attn.k_norm", head)
    draw("model.norm", width)
    if not config["tie_word_embeddings"]:
        draw("lm_head", config["vocab_size"], width)
    return weights
