"""Pretrained models: adapters on full and 4-bit weights train, nothing else does, and what was trained comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rung.errors import RungError
from tests.tiny_model import tiny_model_folder
from trainables.models.layers import Dropout
from trainables.models.lora import adapters_off, is_adapter
from trainables.models.pretrained import kept, load, load_kept, load_plain
from trainables.models.pretrained_config import PretrainedConfig

TOKENS = torch.arange(3, 51).reshape(3, 16)
MODES: dict[str, dict[str, Any]] = {
    "full weights": {"dtype": "fp32"},
    "nf4": {"dtype": "fp32", "quantization": "nf4"},
    "nf4, scales in 32 bits": {"dtype": "fp32", "quantization": "nf4", "double_quantization": False},
    "nf4, bf16": {"quantization": "nf4"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("pretrained") / "tiny")


def made(folder: Path, seed: int = 0, **settings: Any) -> nn.Module:
    return load(PretrainedConfig(model=str(folder), **settings), torch.Generator().manual_seed(seed))


def logits(model: nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return found


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(logits(model)[:, :-1].flatten(0, 1).float(), TOKENS[:, 1:].flatten()).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def train(model: nn.Module, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(steps):
        gradients(model)
        optimizer.step()
    return model


def bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    return {
        name: tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        for name, tensor in tensors.items()
    }


def test_the_generator_draws_the_adapters_and_nothing_else_is_drawn(folder: Path) -> None:
    before = torch.random.get_rng_state()
    first, again, other = made(folder), made(folder), made(folder, seed=1)
    assert bits(kept(first)) == bits(kept(again)) != bits(kept(other))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("mode", MODES)
def test_only_adapters_are_trained_and_fresh_ones_change_nothing(folder: Path, mode: str) -> None:
    model = made(folder, **MODES[mode])
    assert model.training
    with torch.no_grad(), adapters_off(model):
        base = logits(model)
    assert torch.equal(logits(model), base)
    if mode == "full weights":
        assert torch.equal(base, logits(load_plain(PretrainedConfig(model=str(folder), dtype="fp32"))))
    frozen = bits({name: tensor for name, tensor in model.state_dict().items() if not is_adapter(name)})
    adapters = bits(kept(model))
    train(model)
    after = bits(model.state_dict())
    assert all(after[name] == found for name, found in frozen.items())
    assert len(adapters) == 2 * 7 * 2
    assert all(after[name] != found for name, found in adapters.items())
    assert {tensor.dtype for tensor in kept(model).values()} == {torch.float32}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_computed_between_two_steps_does_not_disturb_training(folder: Path, mode: str) -> None:
    # On processors with AVX-512 BF16, bitsandbytes repacks weights in evaluation mode and trains on with them.
    model = train(made(folder, **MODES[mode]))
    with torch.no_grad():
        training = logits(model)
    before = gradients(model)
    with torch.no_grad():
        evaluated = logits(model.eval())
    assert torch.equal(evaluated, training)
    assert bits(gradients(model.train())) == bits(before)


def test_without_adapters_everything_is_trained_in_fp32(folder: Path) -> None:
    model = made(folder, adapter=None)
    assert all(parameter.requires_grad and parameter.dtype is torch.float32 for parameter in model.parameters())
    before = bits(kept(model))
    after = bits(kept(train(model)))
    assert "lm_head.weight" not in after  # it is the embedding
    assert all(after[name] != found for name, found in before.items())


@pytest.mark.parametrize("settings", [{}, {"adapter": None}, {"quantization": "nf4"}, {"adapter": {"dropout": 0.5}}])
def test_gradient_checkpointing_changes_no_gradient(folder: Path, settings: dict[str, Any]) -> None:
    kept_bytes, found, states = [], [], []
    for checkpointing in (False, True):
        generator = torch.Generator().manual_seed(0)
        config = PretrainedConfig(
            model=str(folder), gradient_checkpointing=checkpointing, **{"dtype": "fp32"} | settings
        )
        model = load(config, generator)
        for name, tensor in kept(model).items():
            if ".lora_B." in name:  # else no gradient reaches A
                nn.init.normal_(tensor, std=0.1, generator=generator)
        generator.manual_seed(7)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.nbytes) or t, lambda t: t):
            found.append(gradients(model))
        kept_bytes.append(sum(sizes))
        states.append(generator.get_state())
    assert bits(found[0]) == bits(found[1])
    assert torch.equal(states[0], states[1])
    assert kept_bytes[1] < kept_bytes[0] / 2


def test_dropout_that_a_model_brings_along_is_off(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny", attention_dropout=0.5)
    model = made(folder, dtype="fp32")
    assert torch.equal(logits(model), logits(model))
    dropout = [each for each in made(folder, adapter={"dropout": 0.5}).modules() if isinstance(each, Dropout)]
    assert len(dropout) == 2 * 7


@pytest.mark.parametrize("settings", [{}, {"quantization": "nf4"}, {"adapter": None}])
def test_what_is_kept_makes_the_same_model_again(folder: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    trained = train(made(folder, **settings))
    save_file({name: tensor.detach().contiguous() for name, tensor in kept(trained).items()}, tmp_path / "kept")
    other = made(folder, seed=1, **settings)
    load_kept(other, load_file(tmp_path / "kept"))
    assert torch.equal(logits(other), logits(trained))


def test_adapters_of_another_shape_are_refused(folder: Path) -> None:
    model = made(folder, adapter={"rank": 2})
    for other in ({"adapter": {"rank": 4}}, {"adapter": None}, {"adapter": {"rank": 2, "targets": ["q_proj"]}}):
        with pytest.raises(RungError, match=r"those of other adapters: .* and .* more differ in name or shape"):
            load_kept(model, kept(made(folder, **other)))
    with pytest.raises(RungError, match="of another shape"):
        load_kept(made(folder, adapter=None), kept(model))


def test_files_that_are_no_whole_model_are_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    gone = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RungError, match=r"not a whole model: model.layers.1.mlp.up_proj.weight"):
        made(folder)
    save_file(
        {**weights, "model.layers.1.mlp.up_proj.weight": gone[:5].clone()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(RungError, match=r"model.layers.1.mlp.up_proj.weight"):
        made(folder)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(RungError, match="transformers cannot load"):
        made(folder)
