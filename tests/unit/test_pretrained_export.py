"""Trained pretrained models as files that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from rung.errors import RungError
from rung.training.checkpoints import read_weights
from tests.launching import launch
from tests.tiny_model import tiny_model_folder
from tests.word_problems import small_word_problems
from trainables.models.adapter_folder import TENSORS
from trainables.models.pretrained import kept, load, load_kept, load_plain
from trainables.models.pretrained_config import PretrainedConfig
from trainables.models.pretrained_export import export_merged, main, save_adapter

TOKENS = torch.arange(3, 51).reshape(3, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("export") / "tiny")


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return found


def trained(config: PretrainedConfig) -> nn.Module:
    """A model whose trained weights are not those that it began with."""
    generator = torch.Generator().manual_seed(0)
    model = load(config, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.empty_like(parameter).normal_(std=0.02, generator=generator)
    return model


@pytest.mark.parametrize("adapter", [{"rank": 4}, None])
def test_a_merged_model_computes_what_was_trained(folder: Path, adapter: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = PretrainedConfig(model=str(folder), dtype="fp32", adapter=adapter)
    model = trained(config)
    export_merged(config, kept(model), tmp_path / "merged", dtype="fp32")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    torch.testing.assert_close(logits(read), logits(model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(read), logits(load_plain(config)), atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged", local_files_only=True).chat_template is not None
    with pytest.raises(RungError, match="is there already"):
        export_merged(config, kept(model), tmp_path / "merged")


def test_a_quantized_model_is_merged_into_the_full_base(folder: Path, tmp_path: Path) -> None:
    config = PretrainedConfig(model=str(folder), quantization="nf4")
    model = trained(config)
    export_merged(config, kept(model), tmp_path / "merged")
    merged, base = (load_file(path / "model.safetensors") for path in (tmp_path / "merged", folder))
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    name = "model.layers.0.mlp.up_proj"
    down, up = (kept(model)[f"{name}.lora_{half}.default.weight"] for half in "AB")
    expected = base[f"{name}.weight"].bfloat16().float() + 2.0 * (up @ down)
    assert torch.equal(merged[f"{name}.weight"], expected.bfloat16())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_peft_reads_a_saved_adapter(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    config = PretrainedConfig(model=str(folder), dtype="fp32", adapter={"rank": 4, "targets": ["q_proj", "up_proj"]})
    model = trained(config)
    save_adapter(config, kept(model), tmp_path / "adapter")
    assert len(load_file(tmp_path / "adapter" / TENSORS)) == 2 * 2 * 2
    read = PeftModel.from_pretrained(load_plain(config), tmp_path / "adapter")
    torch.testing.assert_close(logits(read), logits(model), atol=1e-6, rtol=1e-6)


def test_weights_of_another_kind_of_run_are_refused(folder: Path, tmp_path: Path) -> None:
    adapted, whole = (PretrainedConfig(model=str(folder), adapter=adapter) for adapter in ({}, None))
    with pytest.raises(RungError, match="no adapter to write"):
        save_adapter(whole, kept(trained(adapted)), tmp_path / "none")
    with pytest.raises(RungError, match="has adapters, and these weights are those of a run without"):
        export_merged(adapted, kept(trained(whole)), tmp_path / "none")
    with pytest.raises(RungError, match="has none, and these weights are those of a run with adapters"):
        export_merged(whole, kept(trained(adapted)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command_exports_a_run_of_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNG_DATA", str(tmp_path / "data"))
    study = {
        "study": "sums",
        "trainable": "trainables.word_problems:WordProblems",
        "base": small_word_problems(tmp_path / "data"),
        "seeds": 1,
        "budget": {"steps": 1},
        "metric": {"name": "test/pass@1", "mode": "max"},
        "storage": str(tmp_path),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    launch(tmp_path / "study.yaml")
    (checkpoint,) = (tmp_path / "sums" / "checkpoints").glob("*/step-*")
    config = PretrainedConfig(model="tiny", adapter={"rank": 2})
    expected = load(config, torch.Generator())
    load_kept(expected, read_weights(checkpoint)[0])

    assert main([str(checkpoint.parent), str(tmp_path / "merged"), "--dtype", "fp32"]) == 0
    merged = load_plain(PretrainedConfig(model=str(tmp_path / "merged"), dtype="bf16"))
    torch.testing.assert_close(logits(merged), logits(expected), atol=0.05, rtol=0)
    assert main([str(checkpoint), str(tmp_path / "adapter"), "--adapter"]) == 0
    assert (tmp_path / "adapter" / TENSORS).is_file()
    assert f"{tmp_path / 'adapter'} is what {checkpoint} has made of tiny" in capsys.readouterr().out
    with pytest.raises(RungError, match="no checkpoint of a study's run"):
        main([str(tmp_path / "data"), str(tmp_path / "none")])
