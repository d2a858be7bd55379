"""Numbers that must not change: transformers' GPT-2 and Llama with the same weights, and modular arithmetic's GPT.

The golden logits are those of transformers 5.23.0; those of the GPT were computed when it had blocks of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig
from trainables.models.generation import generate
from trainables.models.gpt import GPT
from trainables.models.layers import Prefix

STORIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "stories260k" / "hf"
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
SMALL = {"layers": 2, "width": 16, "heads": 2}


def filled(settings: DecoderConfig) -> Decoder:
    """A decoder whose weights are a formula of their place: tensor n by name, element i: 0.4 sin(0.1 (n + 1) i^2)."""
    model = Decoder(settings, vocabulary=11, length=9, generator=torch.Generator())
    weights = model.state_dict()
    for number, name in enumerate(sorted(weights)):
        place = torch.arange(weights[name].numel(), dtype=torch.float64)
        values = (place.square() * 0.1 * (number + 1)).sin() * 0.4
        is_gain = "norm" in name and name.endswith("weight")
        weights[name] = (values + is_gain).view(weights[name].shape).float()
    if settings.tie_embeddings:
        weights["classifier.weight"] = weights["embedding.weight"]
    model.load_state_dict(weights)
    return model.eval()


LLAMA = {"norm_kind": "rms", "positions": "rope", "rope_theta": 100.0, "mlp": "swiglu", "tie_embeddings": False}
TRANSFORMERS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "gpt2": ({"bias": True}, [0.9947, 1.81301, 0.74288, -2.15106, 0.06404, 2.63511, -1.33672]),
    "llama": ({**LLAMA, "feed_forward": 24}, [-1.18546, 1.73741, 0.64013, 1.38826, 0.25594, -0.5407, 0.78068]),
}


@pytest.mark.parametrize("kind", list(TRANSFORMERS))
def test_the_decoder_is_transformers_model(kind: str) -> None:
    switches, logits = TRANSFORMERS[kind]
    model = filled(DecoderConfig.model_validate({**SMALL, **switches}))
    with torch.no_grad():
        assert model(TOKENS)[1, -1, : len(logits)].tolist() == pytest.approx(logits, abs=2e-5)


def stories260k() -> Decoder:
    """karpathy's stories260K: a Llama with half as many key and value heads, each of which two query heads share."""
    settings = DecoderConfig.model_validate(
        {"layers": 5, "width": 64, "heads": 8, "feed_forward": 172, **LLAMA, "rope_theta": 10_000.0}
    )
    model = Decoder(settings, vocabulary=512, length=512, generator=torch.Generator())
    model.load_state_dict(_renamed(load_file(STORIES / "model.safetensors"), settings.layers))
    return model.eval()


def _renamed(theirs: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    embedding = theirs["model.embed_tokens.weight"]
    ours = {"embedding.weight": embedding, "classifier.weight": embedding, "norm.weight": theirs["model.norm.weight"]}
    names = {"o_proj": "attention.output", "gate_proj": "gate", "up_proj": "expand", "down_proj": "contract"}
    names |= {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    for layer in range(layers):
        before, block = f"model.layers.{layer}.", f"blocks.{layer}."
        q, k, v = (theirs[f"{before}self_attn.{part}_proj.weight"].unflatten(0, (-1, 8)) for part in "qkv")
        heads = [_neighbours(q), _neighbours(k).repeat_interleave(2, dim=0), v.repeat_interleave(2, dim=0)]
        ours[f"{block}attention.qkv.weight"] = torch.cat(heads).flatten(0, 1)
        for name, weight in theirs.items():
            if name.startswith(before) and (part := name.split(".")[-2]) in names:
                ours[f"{block}{names[part]}.weight"] = weight
    return ours


def _neighbours(weight: torch.Tensor) -> torch.Tensor:
    """Rows of heads (heads, 8, width) that pair the halves, so that they pair neighbours."""
    return weight.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)


@pytest.mark.skipif(not STORIES.is_dir(), reason="the pretrained stories260K is not beside the repository")
def test_a_pretrained_llama_writes_what_it_writes_in_transformers() -> None:
    model = stories260k()
    tokens = torch.arange(1, 65)[None] * 7 % 512
    with torch.no_grad():
        logits = model(tokens)
    expected = [-13.27038, 4.7289, -13.27119, -13.27156, -13.27074, -13.27102, -13.27113, -13.27162]
    assert logits[0, -1, :8].tolist() == pytest.approx(expected, abs=1e-3)
    greedy = generate(model, [[1], [1, 403, 407, 261]], max_new_tokens=27, temperature=0)
    story = [403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337, 410]
    assert greedy[0][:21] == story  # "Once upon a time, there was a little girl named Lily."
    assert greedy[1][:18] == story[3:]


def gpt(length: int = 6, **changes: Any) -> GPT:
    settings = {"vocabulary": 12, "layers": 2, "width": 32, "heads": 4, "padding": 11, **changes}
    return GPT(**settings, length=length, generator=torch.Generator().manual_seed(3))


def losses(model: GPT, precision: str = "fp32", shared: bool = False) -> list[float]:
    """Of three steps on 40 rows, of which the last two positions count."""
    tokens = torch.randint(11, (40, 6), generator=torch.Generator().manual_seed(5))
    begins, index = tokens[:, :2].unique(dim=0, return_inverse=True)
    optimizer, curve = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1.0), []
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            logits = model(tokens, 4, Prefix(begins, index) if shared else None)
        loss = F.cross_entropy(logits.float().flatten(0, 1), (tokens[:, 4:] + 1).flatten() % 11)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        curve.append(loss.item())
    return curve


def test_the_initial_weights_of_the_gpt_and_their_names_are_the_first_versions() -> None:
    model = gpt()
    drawn = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert (
        hashlib.sha256((drawn * 2**20).round().to(torch.int64).numpy().tobytes()).hexdigest()[:16] == "31834a50f7881b03"
    )
    block = ["attention.qkv", "attention.output", "attention_norm", "expand", "contract", "mlp_norm"]
    names = [f"blocks.{layer}.{part}" for layer in (0, 1) for part in block]
    assert list(dict.fromkeys(name.rsplit(".", 1)[0] for name in model.state_dict())) == [
        "embedding",
        *names,
        "classifier",
    ]


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({}, {}, [2.56626, 1.611772, 1.003819]),
        ({"dropout": 0.3}, {}, [2.537539, 1.659292, 1.074384]),
        ({}, {"shared": True}, [2.56626, 1.611772, 1.003819]),
        ({"tie_embeddings": True, "classifier_bias": False}, {}, [21.758299, 8.051166, 4.787164]),
        ({}, {"precision": "bf16"}, [2.566128, 1.612022, 1.003868]),
    ],
)
def test_losses_of_the_gpt(changes: dict[str, Any], options: dict[str, Any], expected: list[float]) -> None:
    tolerance = 1e-2 if options.get("precision") == "bf16" else 1e-5
    assert losses(gpt(**changes), **options) == pytest.approx(expected, rel=tolerance)
