"""The LSTM and the GPT: against written-out versions, parameter counts, and what they return on request."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.models import lstm
from trainables.models.gpt import GPT
from trainables.models.layers import Dropout, Prefix, sinusoidal_positions
from trainables.models.lstm import LSTM
from trainables.modular_arithmetic import ModularArithmeticConfig
from trainables.modular_arithmetic.build import build_model
from trainables.modular_arithmetic.workload import parameter_count

VOCABULARY, PAD = 12, 11
TOKENS = torch.tensor([[9, 0, 7, 1, 8, 2], [9, 0, 7, 3, 8, 4], [9, 2, 7, 6, 8, 5]])
PREFIX = Prefix(torch.tensor([[9, 2, 7], [9, 5, 7], [9, 0, 7]]), torch.tensor([2, 2, 0]))


@pytest.fixture(autouse=True)
def own_recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The LSTM's own recurrence even for the few rows that are enough here."""
    monkeypatch.setattr(lstm, "FEWEST_ROWS", 0)


def make(kind: str, seed: int = 0, **changes: Any) -> Any:
    shared: dict[str, Any] = {"vocabulary": VOCABULARY, "layers": 2, "width": 16, "padding": PAD, **changes}
    generator = torch.Generator().manual_seed(seed)
    if kind == "lstm":
        return LSTM(**shared, generator=generator)
    return GPT(**{"length": 6, "heads": 4, **shared}, generator=generator)


def plain_gpt(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The GPT written out position by position, without anything fused, skipped or shared."""
    width = model.embedding.weight.shape[1]
    outputs = []
    for row in tokens:
        x = model.embedding.weight[row] + sinusoidal_positions(len(row), width, torch.device("cpu"))
        for block in model.blocks:
            attention = block.attention
            q, k, v = (
                each.view(len(row), attention.heads, -1)
                for each in (x @ attention.qkv.weight.T + attention.qkv.bias).split(width, dim=1)
            )
            mixed = torch.zeros(len(row), attention.heads, width // attention.heads)
            for position in range(len(row)):
                for head in range(attention.heads):
                    scores = k[: position + 1, head] @ q[position, head] / math.sqrt(width // attention.heads)
                    mixed[position, head] = scores.softmax(0) @ v[: position + 1, head]
            x = normalised(
                x + mixed.flatten(1) @ attention.output.weight.T + attention.output.bias, block.attention_norm
            )
            hidden = x @ block.expand.weight.T
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            x = normalised(x + hidden @ block.contract.weight.T, block.mlp_norm)
        outputs.append(x @ model.classifier.weight.T + model.classifier.bias)
    return torch.stack(outputs)


def normalised(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def plain_lstm(model: Any, tokens: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The LSTM written out step by step, with one linear map of [x, h] per gate."""
    x = model.embedding.weight[tokens]
    last_h, last_c = [], []
    for layer, h_now, c_now in zip(model.layers, h, c, strict=True):
        gates = [(weight, bias) for weight, bias in zip(layer.weight.chunk(4), layer.bias.chunk(4), strict=True)]
        outputs = []
        for x_now in x.unbind(1):
            both = torch.cat([x_now, h_now], dim=1)
            into, forget, cell, out = (both @ weight.T + bias for weight, bias in gates)
            c_now = forget.sigmoid() * c_now + into.sigmoid() * cell.tanh()
            h_now = out.sigmoid() * c_now.tanh()
            outputs.append(h_now)
        x = torch.stack(outputs, dim=1)
        last_h.append(h_now)
        last_c.append(c_now)
    logits = x @ model.classifier.weight.T + model.classifier.bias
    return logits, torch.stack(last_h), torch.stack(last_c)


def gradients(model: nn.Module, logits: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(logits.flatten(0, 1), torch.arange(logits.shape[0] * logits.shape[1]) % VOCABULARY).backward()  # type: ignore[no-untyped-call]
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kernel", ["own", "torch's", "written out"])
def test_lstm_is_one_linear_map_of_input_and_state_per_gate_and_carries_its_state(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("lstm")
    model.fused = kernel != "written out"
    monkeypatch.setattr(lstm, "FEWEST_ROWS", 0 if kernel == "own" else 100)
    generator = torch.Generator().manual_seed(1)
    state = (torch.randn(2, 3, 16, generator=generator), torch.randn(2, 3, 16, generator=generator))
    logits, (h, c) = model.run(TOKENS, state)
    for got, expected in zip((logits, h, c), plain_lstm(model, TOKENS, *state), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    first, middle = model.run(TOKENS[:, :2])
    second, end = model.run(TOKENS[:, 2:], middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), model.run(TOKENS)[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(end, model.run(TOKENS)[1], rtol=1e-5, atol=1e-6)


def test_lstm_starts_with_xavier_weights_per_gate_and_zero_biases() -> None:
    model = make("lstm", width=64)
    for layer in model.layers:
        bound = math.sqrt(6 / (64 + 64 + 64))
        assert layer.bias.abs().max() == 0
        for gate in layer.weight.chunk(4):
            assert gate.shape == (64, 128)
            assert 0.98 * bound < gate.abs().max() <= bound
            assert gate.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_lstm_drops_between_layers_only() -> None:
    model = make("lstm", dropout=0.5)
    assert not torch.equal(model(TOKENS), model(TOKENS))
    single = make("lstm", dropout=0.5, layers=1)
    assert torch.equal(single(TOKENS), single(TOKENS))


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("layers", [1, 3])
def test_gpt_is_post_norm_with_sinusoidal_positions_and_a_biasless_gelu_mlp(heads: int, layers: int) -> None:
    model = make("gpt", heads=heads, layers=layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # away from 1 and 0, or a forgotten gain would go unseen
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(model(TOKENS), plain_gpt(model, TOKENS), rtol=1e-4, atol=1e-5)
    names = [name for name, _ in model.named_parameters()]
    assert not any(name.endswith(("expand.bias", "contract.bias")) for name in names)


def test_gpt_drops_after_the_mlp_only() -> None:
    model = make("gpt", dropout=0.999999)
    found = [name for name, module in model.named_modules() if isinstance(module, Dropout)]
    assert found == ["blocks.0.dropout", "blocks.1.dropout"]
    # With (almost) every MLP output dropped, what is left is attention and the norms.
    block: Any = model.blocks[1]
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    attended = block.attention.mix(*block.attention.project(x))
    expected = block.mlp_norm(block.attention_norm(x + attended))
    torch.testing.assert_close(block(x, attended), expected, rtol=1e-5, atol=1e-5)


def test_sinusoidal_positions() -> None:
    table = sinusoidal_positions(6, 10, torch.device("cpu"))
    for position in range(6):
        for i in range(10):
            angle = position / 10_000 ** (2 * (i // 2) / 10)
            assert table[position, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-6)


def test_attention_weights_are_causal_rows_that_sum_to_one_and_come_on_request_only() -> None:
    model = make("gpt")
    assert isinstance(model(TOKENS), torch.Tensor)
    seen = model.inspect(TOKENS)
    assert seen.attention.shape == (3, 2, 4, 6, 6)
    assert seen.hidden_states.shape == (3, 2, 6, 16)
    torch.testing.assert_close(seen.attention.sum(-1), torch.ones(3, 2, 4, 6))
    assert (seen.attention.triu(1) == 0).all()
    assert (seen.attention.tril() >= 0).all()
    torch.testing.assert_close(seen.logits, model(TOKENS), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.classifier(seen.hidden_states[:, -1]), seen.logits)
    assert model.training


PUBLISHED = {
    ("gpt", 64): (52_004, 101_668, 151_332),
    ("gpt", 128): (202_276, 399_908, 597_540),
    ("gpt", 256): (797_732, 1_586_212, 2_374_692),
    ("lstm", 64): (35_364, 68_388, 101_412),
    ("lstm", 128): (136_228, 267_812, 399_396),
    ("lstm", 256): (534_564, 1_059_876, 1_585_188),
}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_parameter_counts_without_embeddings_are_the_published_ones(kind: str, width: int, layers: int) -> None:
    config = ModularArithmeticConfig.model_validate({"model": {"kind": kind, "width": width, "layers": layers}})
    model = build_model(config, torch.Generator())
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted - model.embedding.weight.numel() == PUBLISHED[kind, width][layers - 1]
    assert parameter_count(config) == counted
    assert parameter_count(config, embeddings=False) == PUBLISHED[kind, width][layers - 1]


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_embedding_and_classifier_can_be_tied_and_the_classifier_can_go_without_bias(
    kind: str, tie: bool, bias: bool
) -> None:
    config = ModularArithmeticConfig.model_validate(
        {"modulus": 7, "model": {"kind": kind, "width": 8, "tie_embeddings": tie, "classifier_bias": bias}}
    )
    model = build_model(config, torch.Generator())
    assert (model.classifier.weight is model.embedding.weight) == tie
    assert (model.classifier.bias is not None) == bias
    assert parameter_count(config) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "rows"), [("gpt", 0), ("lstm", 0), ("lstm", 100)])
@pytest.mark.parametrize("start", [3, 4, 5])
def test_skipping_positions_and_sharing_beginnings_change_neither_logits_nor_gradients(
    kind: str, rows: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lstm, "FEWEST_ROWS", rows)
    model = make(kind)
    whole = model(TOKENS)[:, start:]
    expected = gradients(model, whole)
    for logits in (model(TOKENS, start), model(TOKENS, start, PREFIX)):
        torch.testing.assert_close(logits, whole, rtol=1e-5, atol=1e-5)
        for got, wanted in zip(gradients(model, logits), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_a_start_inside_the_shared_beginning_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="lies inside the shared prefix"):
        make(kind)(TOKENS, 2, PREFIX)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_no_position_sees_a_later_one(kind: str) -> None:
    model = make(kind)
    changed = TOKENS.clone()
    changed[:, 4:] = 3
    torch.testing.assert_close(model(changed)[:, :4], model(TOKENS)[:, :4])
    assert not torch.allclose(model(changed)[:, 4:], model(TOKENS)[:, 4:])


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_initial_weights_and_masks_come_from_the_passed_generator_alone(kind: str) -> None:
    before = torch.random.get_rng_state()
    weights = [make(kind, seed, dropout=0.5).state_dict() for seed in (0, 0, 1)]
    make(kind, dropout=0.5)(TOKENS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_embedding_and_linear_layers_start_like_torchs(kind: str) -> None:
    model = make(kind, width=64, vocabulary=400, padding=399)
    table = model.embedding.weight
    assert (table[399] == 0).all()
    assert table[:399].mean().item() == pytest.approx(0, abs=0.02)
    assert table[:399].std().item() == pytest.approx(1, abs=0.02)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert linears
    for layer in linears:
        bound = 1 / math.sqrt(layer.in_features)
        parts = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        for part in parts:
            assert 0.9 * bound < part.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_the_padding_row_stays_zero(kind: str) -> None:
    model = make(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=1.0)
    tokens = TOKENS.clone()
    tokens[0, 5] = PAD
    for _ in range(3):
        model(tokens).square().mean().backward()
        optimizer.step()
    assert (model.embedding.weight[PAD] == 0).all()


def test_dropout_scales_what_it_keeps_and_is_the_identity_in_evaluation() -> None:
    dropout = Dropout(0.25, torch.Generator().manual_seed(0))
    x = torch.ones(100, 100)
    dropped = dropout(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    state = dropout.generator.get_state()
    assert dropout.eval()(x) is x
    assert torch.equal(dropout.generator.get_state(), state)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        make("gpt", heads=3)


def test_written_out_lstm_can_be_transformed_over_seeds() -> None:
    models = [make("lstm", seed) for seed in range(3)]
    for model in models:
        model.fused = False
    parameters, buffers = torch.func.stack_module_state(models)

    def logits(parameters: Any, buffers: Any) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(models[0], (parameters, buffers), (TOKENS, 4))
        return result

    together = torch.func.vmap(logits)(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([model(TOKENS, 4) for model in models]), rtol=1e-5, atol=1e-5)


def test_tokens_outside_the_vocabulary_are_refused_however_many_rows_there_are() -> None:
    model = make("gpt")
    for rows in (1, 20):  # with more rows than tokens, the first layer looks products up
        for token in (-1, VOCABULARY):
            tokens = TOKENS[:1].repeat(rows, 1)
            tokens[0, 2] = token
            with pytest.raises(IndexError):
                model(tokens)


@pytest.mark.parametrize("heads", [1, 16])
def test_looking_up_distinct_tokens_changes_nothing(heads: int) -> None:
    model = make("gpt", heads=heads).double()
    tokens = TOKENS.repeat(7, 1)
    torch.testing.assert_close(model(tokens, 2)[:3], model(TOKENS, 2), rtol=1e-6, atol=1e-6)
    model.fused = False
    torch.testing.assert_close(model(tokens, 2)[:3], model(TOKENS, 2), rtol=1e-6, atol=1e-6)
