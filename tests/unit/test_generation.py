"""Generation: alone = in a batch = without a cache, sliding past the length, stop tokens, how tokens are drawn."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from rung.errors import RungError
from trainables.models import continuation
from trainables.models.decoder import Decoder
from trainables.models.decoder_config import DecoderConfig
from trainables.models.drafts import generate_with_drafts
from trainables.models.generation import generate
from trainables.models.sampling import Sampler, uniform_numbers

VOCABULARY, LENGTH = 11, 12
PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5], [8, 10, 7, 9]]
SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_k": 8, "top_p": 0.95, "seed": 5}
SWITCHES = list(itertools.product(("none", "pre", "post"), ("learned", "sinusoidal", "rope", "none")))


def make(seed: int = 0, **changes: Any) -> Any:
    settings = DecoderConfig.model_validate({"layers": 2, "width": 16, "heads": 2, "tie_embeddings": False, **changes})
    generator = torch.Generator().manual_seed(seed)
    model = Decoder(settings, vocabulary=VOCABULARY, length=LENGTH, generator=generator)
    away = 0.15 if settings.norm == "none" else 0.3
    with torch.no_grad():  # away from the small initial weights, under which every position says much the same
        for parameter in model.parameters():
            parameter.add_(away * torch.randn(parameter.shape, generator=generator))
    return model


def like_nanogpt(model: Any, prompt: list[int], count: int) -> list[int]:
    """Greedy generation as nanoGPT writes it: the whole pass anew for every token, over the last `length` tokens."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens[-model.length :]]))[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("norm", "positions"), SWITCHES)
def test_in_a_batch_alone_and_without_the_cache_are_the_same_token_for_token(
    norm: str, positions: str, sampled: bool
) -> None:
    kind = "rms" if positions == "rope" else "layer"
    model = make(norm=norm, positions=positions, norm_kind=kind, mlp="swiglu" if kind == "rms" else "gelu")
    settings: dict[str, Any] = SAMPLED if sampled else {"temperature": 0.0}
    settings = {**settings, "max_new_tokens": 14}  # past the length of 12, from another place on in every row
    together = generate(model, PROMPTS, **settings)
    assert together == generate(model, PROMPTS, **settings, use_cache=False)
    assert together == [generate(model, [prompt], **settings, numbers=[row])[0] for row, prompt in enumerate(PROMPTS)]
    assert len({token for row in together for token in row}) > 3
    assert len({tuple(row) for row in together}) >= 3
    if not sampled:
        model.eval()
        assert together == [like_nanogpt(model, prompt, 14) for prompt in PROMPTS]


def test_a_prompt_longer_than_the_model_is_seen_from_its_last_tokens_on() -> None:
    model, prompt = make(), [token % VOCABULARY for token in range(30)]
    assert generate(model, [prompt, [3]], max_new_tokens=5, temperature=0)[0] == like_nanogpt(model.eval(), prompt, 5)


def test_a_row_ends_with_its_stop_token_whatever_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = make(positions="rope"), {**SAMPLED, "max_new_tokens": 20}
    prompts = [[row % VOCABULARY] * (1 + row % 3) for row in range(12)]
    free = generate(model, prompts, **settings)
    expected = [row[: next((i for i, token in enumerate(row) if token in (2, 7)), len(row)) + 1] for row in free]
    rows: list[int] = []
    choose = Sampler.choose
    monkeypatch.setattr(Sampler, "choose", lambda self, logits, u: rows.append(len(logits)) or choose(self, logits, u))
    assert generate(model, prompts, **settings, stop=(2, 7)) == expected
    assert len({len(row) for row in expected}) > 2
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0] == 12, "finished rows were not left behind"
    monkeypatch.setattr(continuation, "FINISHED_SHARE", 2.0)  # never
    assert generate(model, prompts, **settings, stop=(2, 7)) == expected


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_rows_may_have_limits_of_their_own_up_to_the_length_behind_their_padding(positions: str) -> None:
    model = make(positions=positions)
    limits = [LENGTH + 1 - len(prompt) for prompt in PROMPTS]  # the last token is not looked at
    asked = [*zip(PROMPTS, limits, strict=True), ([2, 2], 0), ([4], 3)]
    prompts, limits = [list(prompt) for prompt, _ in asked], [limit for _, limit in asked]
    together = generate(model, prompts, max_new_tokens=limits, **SAMPLED)
    assert list(map(len, together)) == limits
    alone = [
        generate(model, [prompt], max_new_tokens=limit, **SAMPLED, numbers=[row])[0]
        for row, (prompt, limit) in enumerate(asked)
    ]
    assert together == alone
    assert together == generate(model, prompts, max_new_tokens=limits, **SAMPLED, use_cache=False)


@pytest.mark.parametrize("stop", [(), (2, 7)])
@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_drafts_change_nothing(positions: str, stop: tuple[int, ...]) -> None:
    model = make(positions=positions).train()
    prompts = [[row % VOCABULARY, 5][: 1 + row % 2] for row in range(24)]
    limits = [LENGTH + 1 - len(prompt) - row % 3 for row, prompt in enumerate(prompts)]
    settings: dict[str, Any] = {"stop": stop, "forbidden": (4,)}
    expected = generate(model, prompts, max_new_tokens=limits, temperature=0, **settings)
    # Wrong from another place on in every row, right to the end, too long, too short, none at all.
    drafts = [[*row[: place % 14], 4, *row[place % 14 + 1 :]] for place, row in enumerate(expected)]
    drafts[:4] = [expected[0], [*expected[1], 3, 3], expected[2][:2], []]
    finished: list[int] = []
    written = generate_with_drafts(
        model, prompts, drafts, max_new_tokens=limits, batch_size=7, on_batch=finished.append, **settings
    )
    assert written == expected
    assert len({tuple(row) for row in written}) > 5
    assert finished == sorted(finished)
    assert finished[-1] == len(prompts)
    assert model.training
    with torch.no_grad():
        model.classifier.weight.fill_(math.nan)
    with pytest.raises(RungError, match="it has diverged"):
        generate_with_drafts(model, prompts, drafts, max_new_tokens=limits, batch_size=7)


def test_forbidden_tokens_never_come() -> None:
    model = make()
    for temperature in (0.0, 3.0):
        rows = generate(model, [[1]] * 8, max_new_tokens=20, temperature=temperature, forbidden=(0, 4, 5))
        assert not {0, 4, 5} & {token for row in rows for token in row}


def test_rows_have_generators_of_their_own_so_parts_and_lengths_do_not_matter() -> None:
    model = make()
    before = torch.random.get_rng_state()
    whole = generate(model, [[1]] * 6, max_new_tokens=9, seed=3)
    assert len({tuple(row) for row in whole}) > 1
    mixed = [5, 0, 3, 1, 4, 2]
    parts = [generate(model, [[1]] * 3, max_new_tokens=9, seed=3, numbers=three) for three in (mixed[:3], mixed[3:])]
    assert parts[0] + parts[1] == [whole[row] for row in mixed]
    assert [row[:4] for row in whole] == generate(model, [[1]] * 6, max_new_tokens=4, seed=3)
    assert whole != generate(model, [[1]] * 6, max_new_tokens=9, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_restored(training: bool) -> None:
    model = make(dropout=0.5).train(training)
    state = model.dropout.generator.get_state()
    assert generate(model, PROMPTS, max_new_tokens=3) == generate(model, PROMPTS, max_new_tokens=3)
    assert all(module.training == training for module in model.modules())
    assert torch.equal(model.dropout.generator.get_state(), state)
    model.classifier.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="broken"):
        generate(model, PROMPTS, max_new_tokens=3)
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())


def _fail(*_: Any) -> None:
    raise RuntimeError("broken")


def test_nothing_to_do() -> None:
    assert generate(make(), [], max_new_tokens=3) == []
    assert generate(make(), [[1], [2]], max_new_tokens=0) == [[], []]


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1, 11]], {}, "prompt 0: tokens lie between 0 and 10, got 11"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens must be 0 or more, got -1"),
        ([[1]], {"max_new_tokens": [1, 2]}, "max_new_tokens has 2 numbers for 1 prompts"),
        ([[1]], {"temperature": -0.5}, "temperature must be 0"),
        ([[1]], {"temperature": math.nan}, "temperature must be 0"),
        ([[1]], {"top_k": 0}, "top_k must be at least 1"),
        ([[1]], {"top_p": 0.0}, "top_p must lie in"),
        ([[1]], {"stop": (12,)}, "stop: tokens lie between 0 and 10, got 12"),
        ([[1]], {"forbidden": range(11)}, "all 11 tokens are forbidden"),
        ([[1]], {"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(prompts: list[list[int]], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RungError, match=message):
        generate(make(), prompts, **{"max_new_tokens": 2, **settings})


def test_a_model_that_has_diverged_is_refused() -> None:
    model = make()
    with torch.no_grad():
        model.classifier.weight.fill_(math.nan)
    with pytest.raises(RungError, match="it has diverged"):
        generate(model, [[1]], max_new_tokens=2)


LOGITS = torch.tensor([[1.0, 3.0, 2.0, 2.0, -1.0, 0.0]])


def frequencies(sampler: Sampler, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    """How often each token comes over an even grid of uniform numbers."""
    count = 10_000
    uniform = (torch.arange(count) + 0.5) / count
    return sampler.choose(logits.expand(count, -1), uniform).bincount(minlength=6) / count


def expected(logits: list[float]) -> torch.Tensor:
    return torch.tensor(logits).softmax(-1)


@pytest.mark.parametrize(
    ("sampler", "logits"),
    [
        (Sampler(), [1.0, 3.0, 2.0, 2.0, -1.0, 0.0]),
        (Sampler(temperature=2.0), [0.5, 1.5, 1.0, 1.0, -0.5, 0.0]),
        (Sampler(temperature=1e-42), [-math.inf, 3.0, *[-math.inf] * 4]),
        (Sampler(top_k=1), [-math.inf, 3.0, *[-math.inf] * 4]),
        (Sampler(top_k=2), [-math.inf, 3.0, 2.0, 2.0, -math.inf, -math.inf]),  # ties stay
        (Sampler(top_k=99), [1.0, 3.0, 2.0, 2.0, -1.0, 0.0]),
        (Sampler(top_p=1.0), [1.0, 3.0, 2.0, 2.0, -1.0, 0.0]),
        (Sampler(top_p=0.01), [-math.inf, 3.0, *[-math.inf] * 4]),
        (Sampler(top_p=0.9), [1.0, 3.0, 2.0, 2.0, -math.inf, -math.inf]),  # .54 .20 .20 .07: .87 is not enough
        (Sampler(top_p=0.8), [-math.inf, 3.0, 2.0, 2.0, -math.inf, -math.inf]),
        (Sampler(forbidden=(1,)), [1.0, -math.inf, 2.0, 2.0, -1.0, 0.0]),
        (Sampler(top_k=1, forbidden=(1,)), [-math.inf, -math.inf, 2.0, 2.0, -math.inf, -math.inf]),
        (Sampler(temperature=2.0, top_k=4, top_p=0.75), [-math.inf, 1.5, 1.0, 1.0, -math.inf, -math.inf]),
    ],
)
def test_tokens_come_as_often_as_they_are_likely(sampler: Sampler, logits: list[float]) -> None:
    torch.testing.assert_close(frequencies(sampler), expected(logits), rtol=0, atol=2e-4)


def test_greedy_takes_the_likeliest_that_is_not_forbidden() -> None:
    uniform = torch.zeros(1)
    assert Sampler(temperature=0).choose(LOGITS, uniform).item() == 1
    assert Sampler(temperature=0, forbidden=(1, 2)).choose(LOGITS, uniform).item() == 3
    assert Sampler(temperature=0, top_k=3, top_p=0.5).choose(LOGITS, uniform).item() == 1


def test_the_largest_uniform_number_finds_a_token_that_is_possible() -> None:
    largest = torch.full((200,), 1 - 2**-24)
    logits = torch.randn(200, 1000, generator=torch.Generator().manual_seed(0))
    logits[:, -1] = -math.inf
    chosen = Sampler().choose(logits, largest)
    assert (chosen < 999).all()
    assert (Sampler(top_k=3).choose(logits, largest) < 999).all()


def test_uniform_numbers_are_a_function_of_seed_row_and_place() -> None:
    many = uniform_numbers(7, range(40), 50)
    assert ((many >= 0) & (many < 1)).all()
    assert many.mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(uniform_numbers(7, [3, 12], 5), many[[3, 12], :5])
    assert not torch.equal(uniform_numbers(8, [3], 50)[0], many[3])
    assert many.unique().numel() == many.numel()


def test_logits_that_are_no_numbers_still_choose_a_token() -> None:
    """One outside the vocabulary would break what reads it; the loss then says that the model has diverged."""
    logits_BV = torch.full((2, 5), math.nan)
    chosen_B = Sampler(temperature=1.0).choose(logits_BV, torch.tensor([0.0, 0.999]))
    assert chosen_B.max() < 5
