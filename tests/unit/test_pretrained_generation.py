"""Responses of transformers' models: like its `generate`, alone as in a batch, with the probabilities of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.errors import RungError
from tests.tiny_model import tiny_model_folder
from trainables.models.continuation import write, writing
from trainables.models.lora import inject_adapters
from trainables.models.lora_config import LoraConfig
from trainables.models.pretrained import load
from trainables.models.pretrained_attention import attend_in_fp32
from trainables.models.pretrained_config import PretrainedConfig
from trainables.models.pretrained_generation import PretrainedReader, _reader, write_pretrained
from trainables.models.sampling import Sampler
from trainables.models.snapshot import of_pretrained
from trainables.models.snapshot_reader import SnapshotReader
from trainables.rl.policy import Written

VOCABULARY, LENGTH = 37, 24
PAD, END = 0, (3, 5)
PROMPTS = [[7, 9, 4], [8], [10, 11, 30, 12, 31, 13], [9, 9, 36, 14], [20, 21, 22, 23, 24, 25]]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "eos_token_id": list(END),
    "bos_token_id": 1,
}
KINDS: dict[str, dict[str, Any]] = {
    "Qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "Qwen2": {},
    "Llama": {
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 2.0,
            "original_max_position_embeddings": 8,
        },
    },
    "Mistral": {"sliding_window": 5},
}


def make(kind: str, seed: int = 0) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZES, **KINDS[kind])
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # biases and norms as well
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
    return model.train()


def ask(model: Any, prompts: Any = PROMPTS, **changes: Any) -> list[list[Written]]:
    settings = {
        "group": 3,
        "tokens": 9,
        "temperature": 0.8,
        "top_k": None,
        "top_p": None,
        "seed": 4,
        "numbers": range(len(prompts)),
        "batch_size": None,
        "stop": END,
        "forbidden": (PAD, 1),
    }
    return write_pretrained(model, prompts, **settings | changes)


def tokens(groups: list[list[Written]]) -> list[list[list[int]]]:
    return [[response.tokens for response in group] for group in groups]


def log_probabilities(model: Any, prompt: list[int], response: Written, temperature: float) -> torch.Tensor:
    """As training computes them: the whole row at once, from position 0 on, without a mask."""
    with torch.no_grad():
        logits_SV = model(input_ids=torch.tensor([[*prompt, *response.tokens[:-1]]])).logits[0, len(prompt) - 1 :]
    log_SV = (logits_SV.float() / temperature).log_softmax(-1)
    return log_SV.gather(1, torch.tensor(response.tokens)[:, None])[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_what_transformers_generates_alone_and_in_a_batch(kind: str) -> None:
    model = make(kind)
    assert isinstance(_reader(model), PretrainedReader if kind == "Mistral" else SnapshotReader)
    together = ask(model, temperature=0.0, group=1)
    assert tokens(ask(model, temperature=0.0, group=1, batch_size=2)) == tokens(together)
    model.eval()
    for prompt, (response,) in zip(PROMPTS, together, strict=True):
        assert tokens(ask(model, [prompt], temperature=0.0, group=1)) == [[response.tokens]]
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=9,
            suppress_tokens=[PAD, 1],
        )
        assert response.tokens == expected[0, len(prompt) :].tolist()
    assert len({token for group in together for token in group[0].tokens}) > 8


@pytest.mark.parametrize("kind", ["Qwen3", "Mistral"])
def test_groups_do_not_depend_on_their_batch_and_log_probabilities_are_those_of_training(kind: str) -> None:
    model = make(kind)
    before = torch.random.get_rng_state()
    together = ask(model)
    for size in (1, 4, 7):
        assert tokens(ask(model, batch_size=size)) == tokens(together)
    assert tokens(ask(model, [PROMPTS[3]], numbers=[3])) == [tokens(together)[3]]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    drawn = [token for group in tokens(together) for response in group for token in response]
    assert not {PAD, 1} & set(drawn)
    assert len({response.has_ended for group in together for response in group}) == 2
    for prompt, group in zip(PROMPTS, together, strict=True):
        for response in group:
            assert response.has_ended == (response.tokens[-1] in END)
            expected = log_probabilities(model, prompt, response, 0.8)
            torch.testing.assert_close(torch.tensor(response.log_probabilities), expected, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Qwen3", "Qwen2", "Llama"])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_snapshot_reads_what_the_model_reads(kind: str, adapted: bool) -> None:
    model = make(kind)
    if adapted:
        generator = torch.Generator().manual_seed(1)
        inject_adapters(model, LoraConfig(rank=2), ["q_proj", "v_proj", "up_proj", "down_proj"], generator)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(generator=generator)
    snapshot = of_pretrained(model, torch.float32)
    assert snapshot is not None
    tokens_BC = torch.arange(4 * 9).view(4, 9) * 5 % VOCABULARY
    readers = PretrainedReader(model), SnapshotReader(snapshot)
    with writing(model):
        for reader in readers:
            reader.begin([0, 3, 1, 2], 12)
        for end in range(4, 10):
            expected_BV, got_BV = (reader.logits(tokens_BC[:, :end]) for reader in readers)
            torch.testing.assert_close(got_BV, expected_BV, atol=2e-5, rtol=1e-5)
            if end == 6:  # some leave, one is doubled
                kept = torch.tensor([3, 1, 1])
                tokens_BC = tokens_BC[kept]
                for reader in readers:
                    reader.keep(kept)


@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_in_bf16_log_probabilities_are_near_those_of_training(way: str) -> None:
    model = make("Qwen3")
    if way == "weights":
        model.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
        gaps = [
            (torch.tensor(response.log_probabilities) - log_probabilities(model, prompt, response, 0.8)).abs().mean()
            for prompt, group in zip(PROMPTS, ask(model), strict=True)
            for response in group
        ]
    assert 0 < torch.stack(gaps).mean() < 0.1


@pytest.mark.parametrize("kind", ["Qwen3", "Mistral"])
def test_attention_in_fp32_changes_nothing_in_fp32_and_little_in_bf16(kind: str) -> None:
    plain, ours = make(kind), make(kind)
    attend_in_fp32(ours)
    rows_BS = torch.arange(60).view(5, 12) % (VOCABULARY - 1) + 1
    padded_BS = (torch.arange(12) >= torch.tensor([0, 2, 5, 1, 0])[:, None]).long()
    for mask in (None, padded_BS):
        expected, got = (model(input_ids=rows_BS, attention_mask=mask).logits for model in (plain, ours))
        assert torch.equal(got, expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            near = ours(input_ids=rows_BS, attention_mask=mask).logits
        kept = padded_BS.bool() if mask is not None else torch.ones_like(padded_BS).bool()
        assert (near - expected)[kept].abs().mean() < 0.05 * expected[kept].abs().mean()
    near.float().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    assert tokens(ask(ours, temperature=0.0)) == tokens(ask(plain, temperature=0.0))


def test_a_model_in_4_bits_is_unpacked_once(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    folder = tiny_model_folder(tmp_path / "model")
    config = PretrainedConfig(model=str(folder), quantization="nf4", dtype="fp32")
    model = load(config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    assert isinstance(_reader(model), SnapshotReader)
    for prompt, group in zip(PROMPTS, ask(model), strict=True):
        for response in group:
            expected = log_probabilities(model, prompt, response, 0.8)
            torch.testing.assert_close(torch.tensor(response.log_probabilities), expected, atol=3e-5, rtol=1e-5)


def test_a_response_ends_where_the_model_has_no_room_and_a_prompt_must_have_some() -> None:
    model = make("Qwen3")
    assert [len(row.tokens) for row in ask(model, [[9] * (LENGTH - 2)], tokens=99, stop=())[0]] == [3] * 3
    with pytest.raises(RungError, match="prompt 0 has 25 tokens: the model reads at most 24"):
        ask(model, [[9] * (LENGTH + 1)])
    with pytest.raises(RungError, match="tokens lie between 0 and 36, got 37"):
        ask(model, [[37]])


def test_rows_that_have_ended_leave_transformers_cache_too() -> None:
    model, rows = make("Mistral"), list[int]()
    model.register_forward_pre_hook(lambda *given: rows.append(len(given[2]["input_ids"])), with_kwargs=True)
    sampler = Sampler(0.8, forbidden=(PAD, 1))
    write(
        model,
        PretrainedReader(model),
        PROMPTS,
        group=4,
        tokens=9,
        length=LENGTH,
        sampler=sampler,
        seed=0,
        numbers=range(5),
        batch_size=None,
        stop=range(2, 12),
    )
    assert rows[0] == len(PROMPTS)
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < rows[1] <= 4 * len(PROMPTS)
