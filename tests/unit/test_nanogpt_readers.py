"""Files of nanoGPT and of transformers' GPT-2: read without running them, to the logits that their own blocks give."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from rung.errors import RungError
from trainables.character_streams.meta import PlainUnpickler, read_meta, read_pickled_meta
from trainables.character_streams.nanogpt.keys import Keys
from trainables.character_streams.nanogpt.sampling import load_trained
from trainables.character_streams.weights import gpt2_shape, load_weights, read_checkpoint
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig

LAYERS, HEADS, WIDTH, LENGTH, VOCABULARY = 2, 2, 8, 6, 5
SHAPE = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": LENGTH, "vocab_size": VOCABULARY}


def gpt2_tensors(*, bias: bool, prefix: str = "transformer.", turned: bool = False) -> dict[str, torch.Tensor]:
    """Random weights under GPT-2's names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {"wte.weight": draw(VOCABULARY, WIDTH), "wpe.weight": draw(LENGTH, WIDTH), "ln_f.weight": draw(WIDTH)}
    shapes = {"attn.c_attn": (3 * WIDTH, WIDTH), "attn.c_proj": (WIDTH, WIDTH), "mlp.c_fc": (4 * WIDTH, WIDTH)}
    shapes["mlp.c_proj"] = (WIDTH, 4 * WIDTH)
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            weight = draw(*shape) / 3
            tensors[f"h.{layer}.{name}.weight"] = weight.t().contiguous() if turned else weight
            if bias:
                tensors[f"h.{layer}.{name}.bias"] = draw(shape[0])
        for name in ("ln_1", "ln_2"):
            tensors[f"h.{layer}.{name}.weight"] = draw(WIDTH)
            if bias:
                tensors[f"h.{layer}.{name}.bias"] = draw(WIDTH)
    if bias:
        tensors["ln_f.bias"] = draw(WIDTH)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def oracle(tensors: dict[str, torch.Tensor], tokens_BS: torch.Tensor) -> torch.Tensor:
    """nanoGPT's forward pass from its formulas: pre-norm blocks, masked softmax, exact GELU, tied head."""
    given = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ given[f"{name}.weight"].t() + given.get(f"{name}.bias", torch.zeros(()))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * given[f"{name}.weight"] + given.get(f"{name}.bias", torch.zeros(()))

    length = tokens_BS.shape[1]
    future = torch.ones(length, length).triu(1).bool()
    x = given["wte.weight"][tokens_BS] + given["wpe.weight"][:length]
    for layer in range(LAYERS):
        q, k, v = linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn").split(WIDTH, dim=-1)
        heads = []
        for rows in torch.arange(WIDTH).chunk(HEADS):
            scores = q[..., rows] @ k[..., rows].transpose(1, 2) / math.sqrt(WIDTH // HEADS)
            heads.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v[..., rows])
        x = x + linear(torch.cat(heads, -1), f"h.{layer}.attn.c_proj")
        hidden = linear(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        x = x + linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), f"h.{layer}.mlp.c_proj")
    return norm(x, "ln_f") @ given["wte.weight"].t()


def decoder(*, bias: bool, length: int = LENGTH) -> Decoder:
    config = DecoderConfig(layers=LAYERS, heads=HEADS, width=WIDTH, bias=bias)
    return Decoder(config, vocabulary=VOCABULARY, length=length, generator=torch.Generator().manual_seed(1)).eval()


def save_checkpoint(path: Path, *, bias: bool, prefix: str = "transformer.", **more: Any) -> dict[str, torch.Tensor]:
    tensors = gpt2_tensors(bias=bias, prefix=prefix)
    model = {**tensors, prefix.replace("transformer.", "") + "lm_head.weight": tensors[f"{prefix}wte.weight"]}
    content = {"model": model, "model_args": {**SHAPE, "bias": bias, "dropout": 0.0}, "iter_num": 7}
    torch.save({**content, "best_val_loss": torch.tensor(1.5), "config": {"dataset": "letters"}, **more}, path)
    return gpt2_tensors(bias=bias)


TOKENS = torch.tensor([[0, 1, 2, 3, 4, 0], [4, 4, 1, 0, 3, 2]])


@pytest.mark.parametrize(("bias", "prefix"), [(False, "transformer."), (True, "_orig_mod.transformer.")])
def test_a_checkpoint_of_nanogpt_gives_its_logits(bias: bool, prefix: str, tmp_path: Path) -> None:
    tensors = save_checkpoint(tmp_path / "ckpt.pt", bias=bias, prefix=prefix)
    model = decoder(bias=bias)
    load_weights(model, tmp_path / "ckpt.pt")
    torch.testing.assert_close(model(TOKENS), oracle(tensors, TOKENS), rtol=1e-4, atol=1e-5)
    read = read_checkpoint(tmp_path / "ckpt.pt")
    assert (read.iteration, read.best_validation_loss, read.model_args["n_head"]) == (7, 1.5, HEADS)


def gpt2_folder(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """What transformers writes: turned matrices, masks of old versions, its names in config.json."""
    folder.mkdir(exist_ok=True, parents=True)
    stored = gpt2_tensors(bias=True, prefix=prefix, turned=True)
    stored[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, LENGTH, LENGTH)
    save_file(stored, folder / "model.safetensors")
    names = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "n_positions": LENGTH, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **names}))
    return gpt2_tensors(bias=True)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_weights_of_transformers_give_the_same_logits_also_cut(prefix: str, tmp_path: Path) -> None:
    tensors = gpt2_folder(tmp_path, prefix)
    assert gpt2_shape(tmp_path) == {**SHAPE, "bias": True}
    for length in (LENGTH, 3):
        model = decoder(bias=True, length=length)
        load_weights(model, tmp_path)
        tokens = TOKENS[:, :length]
        torch.testing.assert_close(model(tokens), oracle(tensors, tokens), rtol=1e-4, atol=1e-5)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ckpt.pt", bias=False)
    with pytest.raises(RungError, match=r"another model: .*attention_norm.bias is missing"):
        load_weights(decoder(bias=True), tmp_path / "ckpt.pt")
    with pytest.raises(RungError, match=r"positions.weight is \(6, 8\) and should be \(9, 8\)"):
        load_weights(decoder(bias=False, length=9), tmp_path / "ckpt.pt")


def test_a_folder_without_gpt2_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RungError, match=r"lacks config\.json and model\.safetensors.*Nothing is downloaded"):
        gpt2_shape(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(RungError, match=r"no GPT-2 \(model_type llama\)"):
        gpt2_shape(tmp_path)


def test_a_model_of_nanogpt_can_be_sampled_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "letters").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    letters = tmp_path / "data" / "letters"
    for name in ("train.bin", "val.bin"):
        (np.arange(200, dtype=np.uint16) % VOCABULARY).tofile(letters / name)
    table = dict(enumerate("\nabcd"))
    meta = {"vocab_size": 5, "itos": table, "stoi": {character: token for token, character in table.items()}}
    (letters / "meta.pkl").write_bytes(pickle.dumps(meta))
    tensors = save_checkpoint(tmp_path / "out" / "ckpt.pt", bias=False)
    trained = load_trained(Keys(out_dir="out"), "cpu")
    assert trained.codec.encode("a\nd") == [1, 0, 4]
    torch.testing.assert_close(trained.model(TOKENS), oracle(tensors, TOKENS), rtol=1e-4, atol=1e-5)


# Pickles.


class Malicious:
    """Its pickle runs a program when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_plain_meta_is_read(tmp_path: Path) -> None:
    itos = {0: "\n", 1: " ", 2: "é"}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 3, "itos": itos, "stoi": {}}))
    meta = read_meta(tmp_path)
    assert meta is not None
    assert meta.characters == "\n é"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_something_is_refused(protocol: int, tmp_path: Path) -> None:
    victim = tmp_path / "made-by-a-pickle"
    path = tmp_path / "meta.pkl"
    path.write_bytes(pickle.dumps({"itos": {0: "a"}, "more": Malicious(victim)}, protocol=protocol))
    with pytest.raises(RungError, match=r"is refused: it wants to run (posix|nt|os)\.mkdir"):
        read_pickled_meta(path)
    assert not victim.exists()


def test_a_checkpoint_that_runs_something_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "made-by-a-checkpoint"
    save_checkpoint(tmp_path / "ckpt.pt", bias=False, more=Malicious(victim))
    with pytest.raises(RungError, match="is refused: it holds more than tensors"):
        read_checkpoint(tmp_path / "ckpt.pt")
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", pickle.dumps([1]), pickle.dumps({"itos": {0: "ab"}}), pickle.dumps({"itos": {1: "a"}})],
)
def test_a_pickle_that_is_no_meta_is_explained(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "meta.pkl").write_bytes(content)
    with pytest.raises(RungError, match=r"meta\.pkl"):
        read_pickled_meta(tmp_path / "meta.pkl")


def test_not_even_builtins_can_be_named() -> None:
    with pytest.raises(pickle.UnpicklingError, match="it wants to run"):
        PlainUnpickler(io.BytesIO(b"cbuiltins\neval\n(S'1'\ntR.")).load()


def test_the_oracle_is_causal() -> None:
    """Guards the oracle itself: a later token changes nothing before it."""
    tensors = gpt2_tensors(bias=True)
    changed = TOKENS.clone()
    changed[:, -1] = 0
    assert torch.equal(oracle(tensors, TOKENS)[:, :-1], oracle(tensors, changed)[:, :-1])
    assert not torch.equal(F.softmax(oracle(tensors, TOKENS), -1)[0, 0], F.softmax(oracle(tensors, TOKENS), -1)[1, 0])
