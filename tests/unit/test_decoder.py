"""The decoder: against a written-out version, its counts, its initial weights, cache and padding, transforms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rung.settings import StrictModel
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig, flops_per_token, parameter_breakdown, parameter_count
from trainables.models.key_value_cache import KeyValueCache
from trainables.models.layers import sinusoidal_positions
from trainables.models.rotary import rotary_table, rotate

VOCABULARY, LENGTH, WIDTH, HEADS = 11, 9, 16, 2
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
NORMS, NORM_KINDS = ("none", "pre", "post"), ("layer", "rms")
POSITIONS, MLPS = ("learned", "sinusoidal", "rope", "none"), ("gelu", "silu", "swiglu")
SWITCHES = list(itertools.product(NORMS, NORM_KINDS, POSITIONS, MLPS, (True, False)))


def config(**changes: Any) -> DecoderConfig:
    return DecoderConfig.model_validate({"layers": 2, "width": WIDTH, "heads": HEADS, "feed_forward": 24, **changes})


def make(settings: DecoderConfig, seed: int = 0, away: float = 0.0) -> Any:
    """A decoder in evaluation mode; `away` moves every parameter, so that no gain is 1 and no bias 0."""
    model = Decoder(settings, vocabulary=VOCABULARY, length=LENGTH, generator=torch.Generator().manual_seed(seed))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(away * torch.randn(parameter.shape, generator=noise))
    return model.eval()


def switched(switches: tuple[Any, ...], **more: Any) -> DecoderConfig:
    norm, norm_kind, positions, mlp, bias = switches
    return config(norm=norm, norm_kind=norm_kind, positions=positions, mlp=mlp, bias=bias, **more)


def written_out(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """One row of the decoder, from its state dict, with nothing fused."""
    weights, settings = model.state_dict(), model.config

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ weights[f"{name}.weight"].T
        return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        if settings.norm_kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + settings.norm_epsilon).sqrt() * weights[f"{name}.weight"]
        return x + weights[f"{name}.bias"] if f"{name}.bias" in weights else x

    def mlp(name: str, x: torch.Tensor) -> torch.Tensor:
        hidden = linear(f"{name}.expand", x)
        if settings.mlp == "gelu":
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        elif settings.mlp == "silu":
            hidden = hidden / (1 + torch.exp(-hidden))
        else:
            gate = linear(f"{name}.gate", x)
            hidden = gate / (1 + torch.exp(-gate)) * hidden
        return linear(f"{name}.contract", hidden)

    x = weights["embedding.weight"][tokens]
    if settings.positions == "learned":
        x = x + weights["positions.weight"][: len(tokens)]
    elif settings.positions == "sinusoidal":
        x = x + sinusoidal_positions(len(tokens), settings.width, torch.device("cpu"))
    for layer in range(settings.layers):
        block = f"blocks.{layer}"
        for part, name in ((_attention, f"{block}.attention_norm"), (None, f"{block}.mlp_norm")):
            read = norm(name, x) if settings.norm == "pre" else x
            x = x + (mlp(block, read) if part is None else part(settings, linear, f"{block}.attention", read))
            x = norm(name, x) if settings.norm == "post" else x
    return linear("classifier", norm("norm", x) if settings.norm == "pre" else x)


def _attention(settings: DecoderConfig, linear: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    q, k, v = linear(f"{name}.qkv", x).split(settings.width, dim=1)
    size, mixed = settings.width // settings.heads, []
    for head in range(settings.heads):
        q_h, k_h, v_h = (each[:, head * size : (head + 1) * size] for each in (q, k, v))
        if settings.positions == "rope":
            q_h, k_h = (torch.stack([_turned(row, place) for place, row in enumerate(each)]) for each in (q_h, k_h))
        scores = q_h @ k_h.T / math.sqrt(size)
        later = torch.ones(len(x), len(x)).triu(1).bool()
        mixed.append(scores.masked_fill(later, -math.inf).softmax(-1) @ v_h)
    return linear(f"{name}.output", torch.cat(mixed, dim=1))


def _turned(row: torch.Tensor, place: int) -> torch.Tensor:
    """Equation 15 of arXiv 2104.09864: neighbours are turned by the angle place * 10000^(-2 c / width)."""
    blocks = []
    for c in range(len(row) // 2):
        angle = place * 10_000 ** (-2 * c / len(row))
        blocks.append(torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]))
    return torch.block_diag(*blocks) @ row


@pytest.mark.parametrize("norm", NORMS)
def test_every_combination_of_switches_is_the_written_out_model(norm: str) -> None:
    for switches in SWITCHES:
        if switches[0] == norm:
            model = make(switched(switches), away=0.2)
            assert torch.allclose(model(TOKENS)[1], written_out(model, TOKENS[1]), rtol=1e-4, atol=1e-4), switches


@pytest.mark.parametrize("tie", [True, False])
def test_the_breakdown_is_that_of_the_built_module_for_every_combination(tie: bool) -> None:
    for number, switches in enumerate(SWITCHES):
        settings = switched(switches, tie_embeddings=tie, feed_forward=None if number % 5 else 20)
        model, breakdown = make(settings), parameter_breakdown(settings, VOCABULARY, LENGTH)
        counted = dict.fromkeys(("token_embedding", "position_embedding", "attention", "mlp", "norms", "head"), 0)
        for name, parameter in model.named_parameters():
            counted[_part(name)] += parameter.numel()
        assert {part: breakdown[part] for part in counted} == counted
        assert breakdown["total"] == sum(parameter.numel() for parameter in model.parameters())


def _part(name: str) -> str:
    if name.startswith(("embedding", "positions")):
        return "token_embedding" if name.startswith("e") else "position_embedding"
    if "norm" in name:
        return "norms"
    if "attention" in name:
        return "attention"
    return "head" if name.startswith("classifier") else "mlp"


HANDOUT = DecoderConfig(
    layers=4,
    width=512,
    heads=16,
    norm_kind="rms",
    positions="rope",
    mlp="swiglu",
    tie_embeddings=False,
    initialisation="truncated_normal",
)
SEED_17M = HANDOUT.model_copy(update={"layers": 12, "width": 768, "heads": 12, "feed_forward": 3072})


def test_published_parameter_counts() -> None:
    arithmetic = DecoderConfig(layers=6, width=256, heads=8, feed_forward=1024, bias=True, dropout=0.1)
    assert parameter_count(arithmetic, 258, 512) == 4_936_192
    assert HANDOUT.hidden == 1344
    handout = parameter_breakdown(HANDOUT, 10_000, 256)
    assert handout["total"] == 22_696_448
    assert handout["total"] - handout["token_embedding"] == 17_576_448
    assert parameter_count(SEED_17M, 10_000, 512) == 128_625_408  # "128.6 M"
    basic = parameter_breakdown(DecoderConfig(), 8, 64)
    assert basic["without_positions"] == 788_608  # nanoGPT's count, "0.79 M"
    gpt2 = DecoderConfig(layers=12, width=768, heads=12, bias=True)
    assert parameter_count(gpt2, 50_257, 1024) == 124_439_808
    shakespeare = DecoderConfig(layers=6, width=384, heads=6)
    assert parameter_breakdown(shakespeare, 65, 256)["without_positions"] == 10_646_784  # "10.65 M"


def test_published_costs_of_training() -> None:
    budget = 327_680_000
    assert 3 * flops_per_token(HANDOUT, 10_000, 256) * budget == pytest.approx(36.6e15, rel=2e-3)
    assert 3 * flops_per_token(SEED_17M, 10_000, 512) * budget == pytest.approx(256e15, rel=2e-3)


@pytest.mark.parametrize("mlp", MLPS)
def test_flops_are_those_that_torch_counts(mlp: str) -> None:
    settings = config(mlp=mlp, positions="rope")
    # Of torch's kernels for attention only the written-out one is counted on a CPU.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        make(settings)(TOKENS)
    assert counter.get_total_flops() == TOKENS.numel() * flops_per_token(settings, VOCABULARY, TOKENS.shape[1])


def test_names_in_the_state_dict_are_the_documented_ones() -> None:
    block = [f"attention.{each}" for each in ("qkv.weight", "qkv.bias", "output.weight", "output.bias")]
    block += [f"{each}.{part}" for each in ("attention_norm", "mlp_norm") for part in ("weight", "bias")]
    block += [f"{each}.{part}" for each in ("expand", "gate", "contract") for part in ("weight", "bias")]
    names = {"embedding.weight", "positions.weight", "norm.weight", "norm.bias", "classifier.weight"}
    names |= {f"blocks.{layer}.{name}" for layer in (0, 1) for name in block}
    weights = make(config(mlp="swiglu", bias=True)).state_dict()
    assert set(weights) == names
    assert weights["blocks.0.attention.qkv.weight"].shape == (3 * WIDTH, WIDTH)
    assert weights["blocks.0.contract.weight"].shape == (WIDTH, 24)
    rotary = make(config(positions="rope", norm_kind="rms", norm="post")).state_dict()
    assert not [name for name in rotary if "position" in name or "rotary" in name or name.startswith("norm")]


def test_gpt2_initialisation_scales_what_is_added_to_the_residual_stream() -> None:
    model = make(DecoderConfig(layers=8, width=64, heads=4, bias=True))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            residual = name.endswith(("attention.output.weight", "contract.weight"))
            assert parameter.std().item() == pytest.approx(0.02 / 4 if residual else 0.02, rel=0.1), name
    assert model.classifier.weight is model.embedding.weight


@pytest.mark.parametrize("tie", [True, False])
def test_truncated_normal_initialisation_is_the_handouts(tie: bool) -> None:
    model = make(DecoderConfig(width=64, heads=4, mlp="swiglu", tie_embeddings=tie, initialisation="truncated_normal"))
    classifier = math.sqrt(2 / (VOCABULARY + 64))
    expected = {
        "embedding.weight": classifier if tie else 1.0,
        "classifier.weight": classifier,
        "positions.weight": 1.0,
        "blocks.0.attention.qkv.weight": math.sqrt(2 / 128),  # three matrices of 64 x 64
        "blocks.0.attention.output.weight": math.sqrt(2 / 128),
        "blocks.0.gate.weight": math.sqrt(2 / (64 + 192)),
        "blocks.0.contract.weight": math.sqrt(2 / (64 + 192)),
    }
    weights = model.state_dict()
    for name, std in expected.items():
        assert weights[name].std().item() == pytest.approx(0.9866 * std, rel=0.06), name
        assert weights[name].abs().max() <= 3 * std


def test_weights_and_masks_come_from_the_passed_generator_alone() -> None:
    before = torch.random.get_rng_state()
    for initialisation in ("gpt2", "truncated_normal"):
        models = [make(config(dropout=0.5, initialisation=initialisation), seed).train() for seed in (0, 0, 1)]
        first, same, other = (model.state_dict() for model in models)
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
        assert torch.equal(models[0](TOKENS), models[1](TOKENS))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_falls_on_the_embedding_and_on_what_attention_and_mlp_add() -> None:
    model = make(config(dropout=0.5, norm="none"), away=0.2).train()
    calls: list[tuple[int, ...]] = []
    for module in (model.dropout, *(block.dropout for block in model.blocks)):
        module.register_forward_hook(lambda module, given, dropped: calls.append(tuple(dropped.shape)))
    logits = model(TOKENS)
    assert calls == [(2, 7, WIDTH)] * (1 + 2 * 2)
    assert not torch.equal(logits, model(TOKENS))
    model.eval()
    assert torch.equal(model(TOKENS), model(TOKENS))
    nothing = make(config(dropout=0.9999999, norm="none"), away=0.2).train()
    assert (nothing(TOKENS) == 0).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_no_position_sees_a_later_one(positions: str) -> None:
    model, changed = make(config(positions=positions), away=0.2), TOKENS.clone()
    changed[:, 4:] = 0
    torch.testing.assert_close(model(changed)[:, :4], model(TOKENS)[:, :4])
    assert not torch.allclose(model(changed)[:, 4:], model(TOKENS)[:, 4:])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_and_a_cache_that_is_filled_in_parts_change_nothing(norm: str, positions: str) -> None:
    model, generator = make(config(norm=norm, positions=positions), away=0.2), torch.Generator().manual_seed(0)
    padding = torch.tensor([2, 0])
    padded = torch.randint(VOCABULARY, (2, 9), generator=generator)  # whatever stands in the padding
    padded[0, 2:] = TOKENS[0]
    cache = KeyValueCache(LENGTH)
    parts = [model(part, cache=cache, padding_B=padding) for part in padded.split([4, 1, 3, 1], dim=1)]
    for logits in (model(padded, padding_B=padding), torch.cat(parts, dim=1)):
        torch.testing.assert_close(logits[0, 2:], model(TOKENS)[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits[1], model(padded)[1], rtol=1e-4, atol=1e-5)
        assert logits.isfinite().all()
    assert cache.filled == 9


def test_more_positions_than_the_length_are_refused_with_or_without_a_cache() -> None:
    model = make(config())
    with pytest.raises(ValueError, match="10 positions are more than the model's length of 9"):
        model(torch.zeros(1, 10, dtype=torch.int64))
    cache = KeyValueCache(LENGTH)
    model(TOKENS, cache=cache)
    with pytest.raises(ValueError, match="14 positions"):
        model(TOKENS, cache=cache)


def test_rotation_makes_scores_depend_on_distances_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator).expand(2, 1, 20, 1, 8)
    table = rotary_table(20, 8, 100.0, torch.device("cpu"))
    scores = torch.einsum("bqhe,bkhe->qk", rotate(q, table), rotate(k, table))
    for distance in range(-3, 4):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert not torch.isclose(scores[0, 0], scores[0, 3])


def test_a_decoder_can_be_transformed_over_seeds() -> None:
    models = [make(config(positions="rope", norm_kind="rms", mlp="swiglu"), seed) for seed in range(3)]
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(parameters: Any, buffers: Any) -> torch.Tensor:
        logits = torch.func.functional_call(models[0], (parameters, buffers), (TOKENS,))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())

    gradients = torch.func.vmap(torch.func.grad(loss))(parameters, buffers)
    for seed, model in enumerate(models):
        F.cross_entropy(model(TOKENS)[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if name in gradients:
                torch.testing.assert_close(gradients[name][seed], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_under_bf16_attention_stays_in_fp32_and_the_result_is_near(
    positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = make(config(positions=positions, norm_kind="rms"), away=0.1), []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, *rest, **o: seen.append(q.dtype) or kernel(q, *rest, **o)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(TOKENS)
        cached = model(TOKENS, cache=KeyValueCache(LENGTH))
    assert logits.dtype == torch.bfloat16
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(logits.float(), model(TOKENS), rtol=0.1, atol=0.1)
    torch.testing.assert_close(logits, cached, rtol=0.02, atol=0.02)


def test_a_decoder_compiles_without_a_graph_break() -> None:
    model = make(config(layers=1, positions="rope", norm_kind="rms", mlp="swiglu"), away=0.2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "3 heads do not divide a width of 16: the nearest number of heads that does is 2"),
        ({"positions": "rope", "heads": 16}, "a head must have an even width: 16 / 16 heads is 1"),
        ({"norm": "both"}, "'none', 'pre' or 'post'"),
        ({"dropout": 1.0}, "less than 1"),
        ({"bias": 1.5}, "valid boolean"),
        ({"n_layer": 4}, "not permitted"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
    assert issubclass(DecoderConfig, StrictModel)


def test_the_default_width_of_the_mlp() -> None:
    assert DecoderConfig().hidden == 512
    assert {width: DecoderConfig(width=width, mlp="swiglu").hidden for width in (16, 64, 128, 512, 768)} == {
        16: 64,
        64: 192,
        128: 320,
        512: 1344,
        768: 2048,
    }
