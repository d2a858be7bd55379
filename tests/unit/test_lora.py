"""Adapters: fresh ones change nothing, training changes nothing else, merging and peft itself give the same numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rung.errors import RungError
from rung.plan import make_plan
from rung.study import Study
from rung.training.assignment import Goal
from rung.training.checkpoint_files import latest_checkpoint
from rung.training.checkpoints import read_weights, resume, save_checkpoint
from rung.training.loop import NullRecorder, train
from rung.training.packed import Member, train_together
from rung.training.run import Run
from trainables.arithmetic.corpus import ensure_corpus
from trainables.arithmetic.merge_lora_adapter import main as merge_command
from trainables.arithmetic.model_folder import load_model, save_model_folder
from trainables.arithmetic.preparation import ensure_tokenizer
from trainables.arithmetic.run_instruction_training_lora import main as train_command
from trainables.arithmetic.trainable import Arithmetic
from trainables.models.adapter_folder import CONFIG, TENSORS, apply_adapter, save_adapter, weights_sha256
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig
from trainables.models.generation import generate
from trainables.models.lora import adapters_off, add_adapters, base_weights, is_adapter, load_base, merged_weights
from trainables.models.lora_config import LoraConfig, adapter_parameters

VOCABULARY, LENGTH = 13, 24
SHAPE = DecoderConfig(layers=2, width=16, heads=2, bias=True)
BOTH = LoraConfig(rank=3, alpha=6.0, targets="attention,feedforward")
TOKENS = torch.arange(20).reshape(2, 10) % VOCABULARY

Weights = dict[str, torch.Tensor]


def plain(shape: DecoderConfig = SHAPE, seed: int = 0) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    return Decoder(shape, vocabulary=VOCABULARY, length=LENGTH, generator=generator).eval()


def weights_of(model: nn.Module) -> Weights:
    """As a checkpoint has them: the classifier is the embedding."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "classifier.weight"}


def adapted(config: LoraConfig = BOTH, shape: DecoderConfig = SHAPE, *, trained: bool = True) -> Decoder:
    model, generator = plain(shape), torch.Generator().manual_seed(1)
    add_adapters(model, config, generator)
    if trained:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_fresh_adapters_change_nothing(precision: torch.dtype) -> None:
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        assert torch.equal(adapted(trained=False)(TOKENS), plain()(TOKENS))


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("targets", ["attention", "feedforward", "attention,feedforward"])
def test_the_layers_that_are_named_have_adapters_and_they_alone_are_trained(mlp: Any, targets: Any) -> None:
    shape, config = SHAPE.model_copy(update={"mlp": mlp}), BOTH.model_copy(update={"targets": targets})
    trained = {name: p for name, p in adapted(config, shape).named_parameters() if p.requires_grad}
    layers = {name.split(".lora_")[0].split(".", 2)[2] for name in trained}
    attention, mlp_layers = {"attention.qkv", "attention.output"}, {"expand", "contract"}
    expected = (attention if "attention" in targets else set()) | (mlp_layers if "feedforward" in targets else set())
    assert layers == expected | ({"gate"} if mlp == "swiglu" and "feedforward" in targets else set())
    assert all(map(is_adapter, trained))
    assert sum(p.numel() for p in trained.values()) == adapter_parameters(config, shape)


def test_the_generator_draws_all_and_the_global_one_nothing() -> None:
    before = torch.get_rng_state()
    one, other = adapted(BOTH.model_copy(update={"dropout": 0.5})).train(), adapted().train()
    add_adapters(third := plain(), BOTH, torch.Generator().manual_seed(2))
    assert not torch.equal(one(TOKENS), one(TOKENS))  # dropout of its own
    assert torch.equal(before, torch.get_rng_state())
    fresh = adapted(trained=False).state_dict()
    name = "blocks.0.attention.qkv.lora_A.default.weight"
    assert not torch.equal(fresh[name], third.state_dict()[name])
    assert fresh[name].abs().max() <= 1 / math.sqrt(SHAPE.width)  # Kaiming uniform with a = sqrt(5)
    assert torch.equal(other(TOKENS), other(TOKENS))


def test_without_its_adapters_a_model_is_its_base() -> None:
    model = adapted()
    with_adapters = model(TOKENS)
    assert (with_adapters - plain()(TOKENS)).abs().max() > 0.1
    with adapters_off(model):
        assert torch.equal(model(TOKENS), plain()(TOKENS))
    with pytest.raises(KeyError), adapters_off(model):
        raise KeyError
    assert torch.equal(model(TOKENS), with_adapters)
    assert all(parameter.requires_grad == is_adapter(name) for name, parameter in model.named_parameters())


def test_merged_weights_compute_the_same() -> None:
    model, merged = adapted(), plain(seed=5)
    load_base(merged, merged_weights(weights_of(model), BOTH))
    torch.testing.assert_close(merged(TOKENS), model(TOKENS), rtol=0, atol=1e-6)
    prompts = [[1, 2, 3], [4], [5, 6]]
    assert generate(merged, prompts, max_new_tokens=12, temperature=0) == generate(
        model, prompts, max_new_tokens=12, temperature=0
    )


def test_weights_go_from_a_plain_decoder_into_one_with_adapters_and_back() -> None:
    model, base = adapted(), plain(seed=7)
    adapters = {name: tensor.clone() for name, tensor in model.state_dict().items() if is_adapter(name)}
    load_base(model, weights_of(base))
    with adapters_off(model):
        assert torch.equal(model(TOKENS), base(TOKENS))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in adapters.items())
    assert base_weights(weights_of(model)).keys() == weights_of(base).keys()
    with pytest.raises(RungError, match=r"another shape: embedding\.weight is 13 x 8 there and 13 x 16 here"):
        load_base(model, weights_of(plain(DecoderConfig(layers=2, width=8, heads=2, bias=True))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(weights_of(adapted()), BOTH, tmp_path / "adapter", "the base")
    return tmp_path / "adapter"


def test_peft_loads_what_is_saved_and_what_peft_saves_can_be_merged(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(plain(), folder).eval()
    assert torch.equal(theirs(TOKENS), adapted()(TOKENS))
    theirs.save_pretrained(tmp_path / "theirs")
    for path in (folder, folder / TENSORS, tmp_path / "theirs"):
        merged = plain(seed=5)
        load_base(merged, apply_adapter(path, weights_of(plain()), "the base"))
        torch.testing.assert_close(merged(TOKENS), theirs(TOKENS), rtol=0, atol=1e-6)


def test_an_adapter_of_another_base_is_refused(folder: Path) -> None:
    hashes = [weights_sha256(weights_of(plain(seed=seed)))[:12] for seed in (0, 1)]
    with pytest.raises(
        RungError, match=rf"of another base: .* SHA-256 {hashes[0]}, and those of that one have {hashes[1]}"
    ):
        apply_adapter(folder, weights_of(plain(seed=1)), "that one")
    assert weights_sha256(dict(plain().state_dict())) == weights_sha256(dict(reversed(weights_of(plain()).items())))
    narrow = weights_of(plain(DecoderConfig(layers=2, width=8, heads=2, bias=True)))
    with pytest.raises(RungError, match=r"another shape than that one: .*lora_A.* is \(3, 16\) and must be \(3, 8\)"):
        apply_adapter(folder, narrow, "that one")
    with pytest.raises(RungError, match=r"another shape than that one: .* there is no blocks\.1"):
        apply_adapter(folder, weights_of(plain(DecoderConfig(layers=1, width=16, heads=2, bias=True))), "that one")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "not plain LoRA .use_dora: True"),
        ({"peft_type": "IA3"}, "not plain LoRA .peft_type: IA3"),
        ({"r": 0}, "does not describe adapters of a decoder: .*greater than 0"),
        ({"r": 4}, r"is \(3, 16\) and must be \(4, 16\)"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    described = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(described | changes))
    with pytest.raises(RungError, match=message):
        apply_adapter(folder, weights_of(plain()), "the base")


def test_a_damaged_adapter_is_refused(folder: Path) -> None:
    base, tensors = weights_of(plain()), load_file(folder / TENSORS)
    save_file({name: tensor for name, tensor in tensors.items() if "lora_A" in name}, folder / TENSORS)
    with pytest.raises(RungError, match=r"is not whole: every layer must have an A and a B"):
        apply_adapter(folder, base, "the base")
    (folder / TENSORS).write_bytes(b"no tensors")
    with pytest.raises(RungError, match=rf"{TENSORS} cannot be read"):
        apply_adapter(folder, base, "the base")
    (folder / TENSORS).unlink()
    with pytest.raises(RungError, match=rf"holds no adapter: {TENSORS} is missing"):
        apply_adapter(folder, base, "the base")
    with pytest.raises(RungError, match=rf"holds no adapter: there must be {CONFIG} and {TENSORS} in it"):
        apply_adapter(folder / "elsewhere", base, "the base")


# In the engine.

SMALL: dict[str, Any] = {
    "mode": "instruction",
    "corpus": {"samples": 40, "validation_samples": 8, "max_depth": 1},
    "model": {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32, "bias": True, "dropout": 0.0},
    "context": 96,
    "batch_size": 8,
    "batching": "padded",
    "data_seed": 0,
    "evaluation_items": 4,
    "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1},
    "gradient_clip": 0.05,
    "adapter": {"rank": 2, "targets": "attention,feedforward"},
}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def make(seed: int = 0, dropout: float = 0.0) -> Run:
    values = {**SMALL, "adapter": {**SMALL["adapter"], "dropout": dropout}}
    config = Arithmetic.Config.model_validate(values)
    return Run(Arithmetic(config, seed), f"c-s{seed}", Goal("steps", 6, "validation/loss", "min"))


def whole(run: Run) -> int:
    return sum(parameter.numel() for parameter in run.model.parameters())


def state(run: Run) -> Weights:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def test_training_changes_every_adapter_and_nothing_else() -> None:
    run = make(dropout=0.2)
    before = state(run)
    assert run.parameters == adapter_parameters(run.config.adapter, run.config.model)
    assert run.parameters == sum(p.numel() for group in run.optimizer.param_groups for p in group["params"])
    workload = run.trainable.workload(run.config)
    assert (run.parameters, whole(run)) == (workload.parameters, workload.parameters + workload.frozen)
    train(run, math.inf, NullRecorder())
    changed = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if is_adapter(name)}
    clipped = torch.stack([p.grad.norm() for p in run.model.parameters() if p.grad is not None]).norm()
    assert run.step_metrics["gradient_norm"] > 0.05
    torch.testing.assert_close(clipped.item(), 0.05, rtol=1e-3, atol=0)


def test_an_interrupted_run_with_adapters_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    straight, interrupted = make(dropout=0.2), make(dropout=0.2)
    train(straight, math.inf, NullRecorder())
    train(interrupted, 3, NullRecorder())
    save_checkpoint(interrupted, tmp_path)
    resumed, _ = resume(lambda: make(dropout=0.2), tmp_path)
    train(resumed, math.inf, NullRecorder())
    assert all(torch.equal(tensor, state(resumed)[name]) for name, tensor in state(straight).items())


def test_a_plan_knows_what_a_checkpoint_takes(tmp_path: Path) -> None:
    run = make()
    train(run, 1, NullRecorder())
    tensors = load_file(save_checkpoint(run, tmp_path) / "tensors.safetensors")
    written = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith("model/") or "/exp_avg" in name)
    study = {"study": "adapters", "trainable": "trainables.arithmetic.trainable:Arithmetic", "base": SMALL, "seeds": 1}
    study |= {"budget": {"steps": 6}, "metric": {"name": "validation/loss", "mode": "min"}}
    assert make_plan(Study.model_validate(study)).cost.checkpoint_bytes == written


def test_runs_with_adapters_can_be_trained_in_a_pack() -> None:
    assert Arithmetic.packing_obstacle(make().config) is None
    assert "dropout" in str(Arithmetic.packing_obstacle(make(dropout=0.1).config))
    alone, *runs = make(), make(), make(seed=1)
    before = state(alone)
    train(alone, math.inf, NullRecorder())
    train_together([Member(run, NullRecorder()) for run in runs], math.inf)
    for name, tensor in state(runs[0]).items():
        torch.testing.assert_close(tensor, state(alone)[name], rtol=0, atol=1e-5)
        assert is_adapter(name) or torch.equal(tensor, before[name])


def test_a_stage_begins_from_a_stage_with_adapters_merged(tmp_path: Path) -> None:
    run, following = make(), make(seed=1)
    train(run, math.inf, NullRecorder())
    save_checkpoint(run, tmp_path)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    following.trainable.begin_from(following.model, read_weights(checkpoint)[0], run.config)
    tokens = torch.arange(12)[None]
    torch.testing.assert_close(following.model(tokens), run.model(tokens), rtol=0, atol=1e-6)


def test_the_training_command(tmp_path: Path) -> None:
    config = make().config
    model, tokenizer = make().model, ensure_tokenizer(config)
    shape = config.model_copy(update={"adapter": None})
    base = tmp_path / "base" / "best_model.safetensors"
    save_model_folder(base, base_weights(weights_of(model)), shape, tokenizer)
    inputs = ["--instruction-corpus-path", ensure_corpus(config.corpus), "--tokenizer-path", tokenizer]
    paths = [*inputs, "--foundational-checkpoint", base, "--output-dir", tmp_path / "models"]
    settings = ["--num-epochs", 1, "--warmup-steps", 1, "--learning-rate", 0.01, "--save-merged-model"]
    lora = ["--lora-rank", 3, "--lora-alpha", 6, "--lora-target-modules", "attention,feedforward"]
    assert train_command([str(each) for each in [*paths, *settings, *lora]]) == 0

    (folder,) = (tmp_path / "models").glob("instruction_lora_*")
    trained, merged = (load_model(path).decoder(TOKENS) for path in (folder, folder / "merged_model.safetensors"))
    applied = load_model(base).decoder
    load_base(applied, apply_adapter(folder / "lora_adapter", weights_of(applied), "the base"))
    torch.testing.assert_close(merged, trained, rtol=0, atol=0)
    torch.testing.assert_close(applied(TOKENS), trained, rtol=0, atol=1e-6)
    assert not torch.equal(trained, load_model(base).decoder(TOKENS))
    summary = json.loads((folder / "training_summary.json").read_text())
    assert summary["trainable_parameters"] == adapter_parameters(BOTH, config.model)


def test_the_merge_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, tokens = make(), torch.arange(12)[None]
    train(run, math.inf, NullRecorder())
    config, weights, tokenizer = run.config, weights_of(run.model), ensure_tokenizer(run.config)
    base, trained = tmp_path / "base" / "best_model.safetensors", tmp_path / "lora" / "best_model.safetensors"
    save_model_folder(base, base_weights(weights), config.model_copy(update={"adapter": None}), tokenizer)
    save_model_folder(trained, weights, config, tokenizer)
    save_adapter(weights, config.adapter, tmp_path / "lora" / "lora_adapter", str(base))

    def merge(output: Path, base: Path = base) -> int:
        adapter = str(tmp_path / "lora" / "lora_adapter")
        return merge_command(["--base-checkpoint", str(base), "--adapter-path", adapter, "--output-path", str(output)])

    beside, apart = tmp_path / "lora" / "merged_model.safetensors", tmp_path / "new" / "model.safetensors"
    assert merge(beside) == merge(apart) == 0
    assert str(beside) in capsys.readouterr().out
    for path in (beside, apart, trained):  # the last has its adapters still
        torch.testing.assert_close(load_model(path).decoder(tokens), run.model(tokens), rtol=0, atol=1e-6)
    with pytest.raises(RungError, match="is an adapter of another base"):
        merge(apart, base=apart)
    other = config.model_copy(update={"context": 7})
    save_model_folder(tmp_path / "other" / "best_model.safetensors", weights, other, tokenizer)
    with pytest.raises(RungError, match="describes another model than the one to be merged: choose another folder"):
        merge(tmp_path / "other" / "merged_model.safetensors")
