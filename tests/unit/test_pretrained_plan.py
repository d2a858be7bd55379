"""What a plan knows of a pretrained model without loading it: where it is, what it lacks, how large it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM

from rung.errors import RungError
from tests.tiny_model import tiny_model_folder
from trainables.models.pretrained import load
from trainables.models.pretrained_config import PretrainedConfig, PretrainedLoraConfig
from trainables.models.pretrained_files import data_files, missing
from trainables.models.pretrained_memory import Memory, activation_bytes, memory, weight_bytes
from trainables.models.pretrained_shape import (
    PUBLISHED,
    flops_per_token,
    read_shape,
    shape_of,
    trained_parameters,
    training_flops_per_token,
)

PARAMETERS = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
}
"""As their pages on the Hub say."""

SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "tiny")


def config_of(folder: Path, **settings: Any) -> PretrainedConfig:
    return PretrainedConfig(model=str(folder), **settings)


# Sizes.


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 8}),
        ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
        ("mistral", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
        ("qwen3", {"attention_bias": True, "head_dim": 10}),
    ],
)
def test_parameters_are_those_that_transformers_builds(kind: str, more: dict[str, Any]) -> None:
    described = AutoConfig.for_model(kind, **SIZES | more)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described)
    shape = read_shape({"model_type": kind} | SIZES | more, "here")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name: str) -> None:
    assert shape_of(PretrainedConfig(model=name)).parameters == PARAMETERS[name]


def test_sizes_come_from_the_folder_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_DATA", str(folder.parent))
    name = next(iter(PARAMETERS))
    (folder.parent / name).parent.mkdir()
    (folder.parent / name).symlink_to(folder)
    assert shape_of(PretrainedConfig(model=name)) == shape_of(config_of(folder)) != PUBLISHED[name.lower()]


def test_models_of_unknown_size_are_refused(folder: Path) -> None:
    with pytest.raises(RungError, match="hf download nobody/nothing"):
        shape_of(PretrainedConfig(model="nobody/nothing"))
    with pytest.raises(RungError, match="type 'gpt2', and known are llama"):
        read_shape({"model_type": "gpt2"}, "there")
    with pytest.raises(RungError, match="does not say vocab_size"):
        read_shape({key: value for key, value in SIZES.items() if key != "vocab_size"} | {"model_type": "llama"}, "x")


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj",), ("k_proj", "down_proj")])
def test_adapter_parameters_are_those_of_the_model(folder: Path, targets: Any) -> None:
    config = config_of(folder, adapter={"rank": 3, "targets": targets})
    model = load(config, torch.Generator())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained_parameters(config, shape_of(config)) == trained


def test_flops() -> None:
    config = PretrainedConfig(model="Qwen/Qwen3-4B", adapter=None)
    shape = shape_of(config)
    # All parameters but norms take part in one product; attention at length 512 adds 4 * 36 * 512 * 4096.
    forward = flops_per_token(shape, 512)
    assert forward == pytest.approx(2 * shape.parameters + 4 * 36 * 512 * 4096, rel=1e-4)
    assert training_flops_per_token(config, shape, 512) == 3 * forward
    adapters = config.model_copy(update={"adapter": PretrainedLoraConfig()})
    assert 2 < training_flops_per_token(adapters, shape, 512) / forward < 2.05
    again = adapters.model_copy(update={"gradient_checkpointing": True})
    assert 2.9 < training_flops_per_token(again, shape, 512) / forward < 3.05


# Memory.


@pytest.mark.parametrize("settings", [{}, {"dtype": "fp32"}, {"quantization": "nf4"}, {"adapter": None}])
def test_weight_bytes_are_those_of_the_tensors(folder: Path, settings: dict[str, Any]) -> None:
    config = config_of(folder, **settings)
    model = load(config, torch.Generator())
    base = [tensor for name, tensor in model.state_dict().items() if "lora_" not in name and name != "lm_head.weight"]
    # Quantized, the code book of each matrix is there as well, 300 to 1,500 bytes: much for a matrix of 4,096.
    assert weight_bytes(config, shape_of(config)) == pytest.approx(
        sum(tensor.nbytes for tensor in base), rel=0.2 if config.quantization == "nf4" else 1e-9
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("settings", [{}, {"dtype": "fp32"}, {"adapter": None}, {"attention": "eager"}])
def test_activations_are_what_a_forward_pass_keeps(folder: Path, settings: dict[str, Any], precision: Any) -> None:
    config = config_of(folder, **settings)
    model = load(config, torch.Generator().manual_seed(0))
    model.set_attn_implementation(config.attention)  # as on a GPU: on a CPU attention is in fp32 where it is sdpa
    rows, length, shape = 3, 35, shape_of(config)
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() % (rows * length) == 0:  # which is true of no weight
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model.model(input_ids=torch.ones(rows, length, dtype=torch.int64), use_cache=False)
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (rows * length * shape.layers)
    assert activation_bytes(config, shape, precision, length) == pytest.approx(found, rel=0.15)


def test_memory_of_the_four_billion_model() -> None:
    def peak(**settings: Any) -> Memory:
        config = PretrainedConfig(model="Qwen/Qwen3-4B-Instruct-2507", **settings)
        return memory(config, shape_of(config), "bf16", rows=4, written_rows=16, prompt=256, response=256)

    small = peak(quantization="nf4", gradient_checkpointing=True)
    assert small.peak == small.weights + small.optimizer + max(small.learning, small.writing)
    assert 2.5e9 < small.weights < 3e9  # 3.6 billion numbers of 4.13 bits, the embedding of bf16, adapters
    assert 4e9 < small.peak < 8e9
    assert peak(gradient_checkpointing=True).weights == pytest.approx(2 * 4_022_468_096 + 4 * 33_030_144)
    assert peak().learning > 4 * small.learning  # without checkpointing
    whole = peak(adapter=None, gradient_checkpointing=True)
    assert whole.weights + whole.optimizer == 16 * 4_022_468_096


# What is missing.


def test_a_whole_folder_lacks_nothing(folder: Path) -> None:
    assert missing(config_of(folder)) is None
    names = {file.name for file in data_files(config_of(folder))}
    assert names == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nowhere", "no model in .*nowhere: a folder with config.json"),
        ("/no/such/folder", "no model in /no/such/folder"),
        ("Qwen/Qwen3-0.6B", "neither in the Hugging Face cache nor in .*`hf download Qwen/Qwen3-0.6B` fetches it"),
    ],
)
def test_a_missing_model_says_what_to_do(
    model: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = PretrainedConfig(model=model)
    with pytest.raises(RungError, match=expected) as raised:
        load(config, torch.Generator())
    assert missing(config) == str(raised.value)
    assert data_files(config) == ()


def test_the_cache_of_the_hub_is_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    home = cache / "models--nobody--tiny"
    (home / "snapshots").mkdir(parents=True)
    (home / "snapshots" / commit).symlink_to(folder)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert missing(PretrainedConfig(model="nobody/tiny")) is None
    assert missing(PretrainedConfig(model="nobody/tiny", revision=commit)) is None
    message = missing(PretrainedConfig(model="nobody/tiny", revision="v2"))
    assert message is not None
    assert "`hf download nobody/tiny --revision v2`" in message


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def change(name: str, **values: Any) -> Any:
    def write(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))

    return write


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (without("model.safetensors"), "no whole set of weights as safetensors"),
        (without("chat_template.jinja"), "no chat template, so it is a base model .* take its instruct version"),
        (lambda folder: [without(f"tokenizer{end}.json")(folder) for end in ("", "_config")], "has no tokenizer"),
        (
            lambda folder: [
                change("config.json", eos_token_id=None)(folder),
                change("tokenizer_config.json", eos_token=None)(folder),
            ],
            "names no end token, so its responses would never end",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    ],
)
def test_what_a_folder_lacks_is_known_before_it_is_loaded(folder: Path, damage: Any, expected: str) -> None:
    damage(folder)
    with pytest.raises(RungError, match=expected):
        raise RungError(str(missing(config_of(folder))))


def test_a_template_may_stand_in_the_tokenizer_s_settings(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    without("chat_template.jinja")(folder)
    change("tokenizer_config.json", chat_template=template)(folder)
    assert missing(config_of(folder)) is None


def test_missing_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert "pip install -e '.[qlora]'" in str(missing(config_of(folder, quantization="nf4")))
    assert "flash-attn" in str(missing(config_of(folder, attention="flash_attention_2")))
    assert missing(config_of(folder)) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"quantization": "nf4", "adapter": None}, "nothing is left to train"),
        ({"attention": "flash_attention_2", "dtype": "fp32"}, "knows no fp32"),
        ({"adapter": {"targets": ["q_prj"]}}, "q_proj"),
        ({"adapter": {"targets": []}}, "at least 1 item"),
        ({"model": ""}, "at least 1 character"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        PretrainedConfig(**{"model": "somewhere"} | settings)


def test_a_plan_needs_neither_torch_nor_transformers(folder: Path) -> None:
    code = f"""
import sys
from trainables.models.pretrained_config import PretrainedConfig
from trainables.models.pretrained_files import missing
from trainables.models.pretrained_memory import memory
from trainables.models.pretrained_shape import shape_of
config = PretrainedConfig(model={str(folder)!r}, quantization="nf4")
assert missing(config) is None and missing(PretrainedConfig(model="nobody/nothing"))
memory(config, shape_of(config), rows=1, written_rows=1, prompt=1, response=1)
print([name for name in ("torch", "transformers", "peft", "bitsandbytes") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
