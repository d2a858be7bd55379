"""Responses of a decoder: alone = in a batch = in parts, with the log-probabilities that training computes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from rung.errors import RungError
from tests.unit.test_generation import LENGTH, PROMPTS, VOCABULARY, make
from trainables.models import generation
from trainables.models.continuation import Continuation, write, writing
from trainables.models.generation import DecoderReader, generate, write_decoder
from trainables.models.lora import add_adapters
from trainables.models.lora_config import LoraConfig
from trainables.models.sampling import Sampler, uniform_numbers
from trainables.models.snapshot import of_decoder
from trainables.models.snapshot_reader import SnapshotReader
from trainables.rl.policy import Written

SETTINGS: dict[str, Any] = {
    "group": 3,
    "tokens": 6,
    "temperature": 0.9,
    "top_k": None,
    "top_p": None,
    "seed": 5,
    "numbers": range(len(PROMPTS)),
    "batch_size": None,
    "stop": (2, 7),
}
KINDS = [
    ("pre", "learned"),
    ("pre", "sinusoidal"),
    ("pre", "rope"),
    ("pre", "none"),
    ("post", "rope"),
    ("none", "learned"),
]
"""Those with the first norm have a snapshot."""


def ask(model: Any, prompts: Sequence[Sequence[int]] = PROMPTS, **changes: Any) -> list[list[Written]]:
    return write_decoder(model, prompts, **{**SETTINGS, **changes})


def tokens(groups: list[list[Written]]) -> list[list[list[int]]]:
    return [[response.tokens for response in group] for group in groups]


def kind(positions: str) -> dict[str, Any]:
    if positions == "rope":
        return {"norm_kind": "rms", "mlp": "swiglu"}
    return {"mlp": "silu" if positions == "none" else "gelu", "bias": positions == "learned"}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(("norm", "positions"), KINDS)
def test_groups_parts_and_rows_alone_are_the_same_and_log_probabilities_those_of_training(
    norm: str, positions: str, temperature: float
) -> None:
    model = make(norm=norm, positions=positions, **kind(positions))
    together = ask(model, temperature=temperature)
    for size in (1, 2, 5):
        assert tokens(ask(model, temperature=temperature, batch_size=size)) == tokens(together)
    for row, prompt in enumerate(PROMPTS):
        alone = ask(model, [prompt], numbers=[row], temperature=temperature)
        assert tokens(alone) == [tokens(together)[row]]
    numbered = [row * 3 for row in range(len(PROMPTS))]
    plain = generate(
        model, PROMPTS, max_new_tokens=6, temperature=temperature, seed=5, numbers=numbered, stop=SETTINGS["stop"]
    )
    assert [group[0].tokens for group in together] == [
        row[: LENGTH + 1 - len(PROMPTS[at])] for at, row in enumerate(plain)
    ]
    if temperature:
        assert len({tuple(response) for group in tokens(together) for response in group}) > 6
    for prompt, group in zip(PROMPTS, together, strict=True):
        for response in group:
            assert response.has_ended == (response.tokens[-1] in (2, 7))
            logits_SV = model(torch.tensor([[*prompt, *response.tokens[:-1]]]))[0, len(prompt) - 1 :]
            log_SV = (logits_SV / (temperature or 1.0)).log_softmax(-1)
            expected = log_SV.gather(1, torch.tensor(response.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(response.log_probabilities), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("positions", "adapted"),
    [("learned", False), ("sinusoidal", False), ("rope", False), ("none", False), ("rope", True)],
)
def test_a_snapshot_reads_what_the_decoder_reads(positions: str, adapted: bool) -> None:
    model = make(positions=positions, **kind(positions))
    if adapted:
        add_adapters(model, LoraConfig(rank=2), torch.Generator().manual_seed(1))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(2))
    snapshot = of_decoder(model, torch.float32)
    assert snapshot is not None
    columns = torch.arange(4 * 9).view(4, 9) * 5 % VOCABULARY
    with writing(model):
        for padding in ([0, 0, 0, 0], [0, 3, 1, 2]):
            tokens_BC, readers = columns, (DecoderReader(model), SnapshotReader(snapshot))
            for reader in readers:
                reader.begin(padding, 12)
            for end in range(4, 10):
                expected_BV, got_BV = (reader.logits(tokens_BC[:, :end]) for reader in readers)
                torch.testing.assert_close(got_BV, expected_BV, atol=1e-5, rtol=1e-5)
                if end == 6:  # some leave, one is doubled
                    kept = torch.tensor([3, 1, 1])
                    tokens_BC = tokens_BC[kept]
                    for reader in readers:
                        reader.keep(kept)


def test_other_decoders_have_no_snapshot() -> None:
    assert of_decoder(make(norm="post"), torch.float32) is None
    model = make()
    model.blocks[0].expand = torch.nn.Sequential(model.blocks[0].expand)
    assert of_decoder(model, torch.float32) is None
    assert len(ask(model)) == len(PROMPTS)


def test_in_bf16_log_probabilities_are_near_those_of_training() -> None:
    model = make(positions="rope", **kind("rope"))
    gaps: list[float] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for prompt, group in zip(PROMPTS, ask(model), strict=True):
            for response in group:
                logits_SV = model(torch.tensor([[*prompt, *response.tokens[:-1]]]))[0, len(prompt) - 1 :].float()
                log_SV = (logits_SV / SETTINGS["temperature"]).log_softmax(-1)
                expected = log_SV.gather(1, torch.tensor(response.tokens)[:, None])[:, 0]
                gaps += (torch.tensor(response.log_probabilities) - expected).abs().tolist()
    assert 0 < sum(gaps) / len(gaps) < 0.05


def test_a_prompt_is_read_once_for_its_group_and_rows_leave() -> None:
    model, rows = make(positions="rope", **kind("rope")), list[tuple[int, int]]()

    class Counting(DecoderReader):
        def logits(self, tokens_BC: torch.Tensor) -> torch.Tensor:
            rows.append((len(tokens_BC), tokens_BC.shape[1]))
            return super().logits(tokens_BC)

    asked = {key: value for key, value in SETTINGS.items() if key not in ("temperature", "top_k", "top_p", "tokens")}
    write(model, Counting(model), PROMPTS, tokens=6, length=LENGTH, sampler=Sampler(0.9), **asked)
    assert rows[0] == (len(PROMPTS), max(map(len, PROMPTS)))
    assert rows[1][0] <= len(PROMPTS) * 3
    assert rows[-1][0] < rows[1][0]
    rows.clear()
    write(model, Counting(model), PROMPTS, tokens=6, length=LENGTH, sampler=Sampler(0.9), **asked | {"batch_size": 4})
    longest_first = [width for count, width in rows if width in map(len, PROMPTS)]
    assert longest_first[0] == 7
    assert max(count for count, _ in rows) <= 4


def test_a_response_ends_where_the_decoder_has_no_room_and_a_prompt_must_have_some() -> None:
    model = make()
    groups = ask(model, [[1] * LENGTH, [1] * (LENGTH - 3)], numbers=[0, 1], tokens=99, stop=())
    assert {len(response.tokens) for response in groups[0]} == {1}
    assert {len(response.tokens) for response in groups[1]} == {4}
    assert not any(response.has_ended for group in groups for response in group)
    with pytest.raises(RungError, match="prompt 1 has 13 tokens: the model reads at most 12"):
        ask(model, [[1], [1] * (LENGTH + 1)], numbers=[0, 1])
    with pytest.raises(RungError, match="prompt 0 is empty"):
        ask(model, [[]], numbers=[0])
    assert ask(model, [], numbers=[]) == []


def test_forbidden_tokens_never_come_and_count_in_log_probabilities() -> None:
    model = make()
    free, bound = ask(model, stop=()), ask(model, stop=(), forbidden=(0, 4, 5))
    drawn = {token for group in tokens(bound) for response in group for token in response}
    assert not {0, 4, 5} & drawn
    assert {0, 4, 5} & {token for group in tokens(free) for response in group for token in response}
    sampler = Sampler(0.5, top_k=3, top_p=0.8, forbidden=(4,))
    logits_BV = torch.randn(7, 20, generator=torch.Generator().manual_seed(0)) * 30
    chosen_B = sampler.choose(logits_BV, torch.linspace(0, 0.99, 7))
    expected = (logits_BV / 0.5).log_softmax(-1).gather(1, chosen_B[:, None])[:, 0]
    torch.testing.assert_close(sampler.log_probabilities(logits_BV, chosen_B), expected)
    tiny = Sampler(1e-30).log_probabilities(logits_BV, logits_BV.argmax(-1))
    assert tiny.tolist() == [0.0] * 7


@pytest.mark.parametrize("autocast", [False, True])
def test_the_mode_and_the_generators_are_left_alone(autocast: bool) -> None:
    model = make(dropout=0.5, positions="rope", **kind("rope")).train()
    model.blocks[1].eval()
    before, state = torch.random.get_rng_state(), model.dropout.generator.get_state()
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        first = ask(model)
        assert tokens(ask(model)) == tokens(first)
    assert model.training
    assert not model.blocks[1].training
    assert model.blocks[0].training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(model.dropout.generator.get_state(), state)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # no cast of a weight without its gradient is left behind
        ask(model)
        model(torch.tensor([[1, 2, 3]])).float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_that_has_diverged_is_refused() -> None:
    model = make()
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
    for readers in (generation._reader(model), DecoderReader(model)):
        with pytest.raises(RungError, match="it has diverged"), writing(model):
            Continuation(readers, PROMPTS, [3] * 4).run(Sampler(), uniform_numbers(0, range(4), 3), ())
