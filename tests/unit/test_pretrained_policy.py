"""Conversations as tokens, and a pretrained model as a policy: what it writes is as likely as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rung.errors import RungError
from tests.tiny_model import BEGIN, CHAT_TEMPLATE, END, PAD, SPECIAL, tiny_model_folder
from trainables.models.chat import Chat
from trainables.models.lora import adapters_off
from trainables.models.pretrained import kept, load
from trainables.models.pretrained_config import PretrainedConfig
from trainables.rl.pretrained_policy import PretrainedPolicy

PAD_ID, BEGIN_ID, END_ID = range(3)
MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 3?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("policy") / "tiny", std=0.1)


def config_of(folder: Path, **settings: Any) -> PretrainedConfig:
    return PretrainedConfig(model=str(folder), dtype="fp32", **settings)


def policy_of(folder: Path, **settings: Any) -> tuple[PretrainedPolicy, nn.Module]:
    """With adapters that do something."""
    generator = torch.Generator().manual_seed(0)
    model = load(config_of(folder, **settings), generator)
    for tensor in kept(model).values():
        nn.init.normal_(tensor, std=0.05, generator=generator)
    return PretrainedPolicy(Chat(config_of(folder))), model


# Conversations.


def test_a_prompt_is_the_template_as_tokens(folder: Path) -> None:
    chat = Chat(config_of(folder))
    text = f"{BEGIN}system\nBe short.{END}\n{BEGIN}user\n2 + 3?{END}\n{BEGIN}assistant\n"
    assert chat.text(MESSAGES) == text
    tokens = chat.prompt(MESSAGES)
    assert tokens == chat.encode(text)
    assert [token for token in tokens if token < 3] == [BEGIN_ID, END_ID, BEGIN_ID, END_ID, BEGIN_ID]
    assert chat.decode(tokens) == text


def test_a_response_is_decoded_without_its_end_token_only(folder: Path) -> None:
    chat = Chat(config_of(folder))
    tokens = chat.encode(f"a {BEGIN} {END} é\n")
    assert chat.decode([*tokens, END_ID]) == chat.decode(tokens) == f"a {BEGIN} {END} é\n"
    assert chat.decode([END_ID]) == chat.decode([]) == ""


@pytest.mark.parametrize(
    ("tokens", "config", "generation", "ends", "pad", "forbidden"),
    [
        ({"eos_token": END, "pad_token": PAD}, {}, None, {END_ID}, PAD_ID, {PAD_ID}),
        ({"eos_token": END, "pad_token": PAD, "bos_token": BEGIN}, {}, None, {END_ID}, PAD_ID, {PAD_ID, BEGIN_ID}),
        # As in Qwen: a second end token in generation_config.json, which is the padding token too.
        ({"eos_token": END, "pad_token": PAD}, {}, [END_ID, PAD_ID], {PAD_ID, END_ID}, PAD_ID, set()),
        # As in SmolLM2: padding is the end token.
        ({"eos_token": END, "pad_token": END, "bos_token": BEGIN}, {}, None, {END_ID}, END_ID, {BEGIN_ID}),
        # No padding token: the first end token serves.
        ({"eos_token": END}, {"eos_token_id": [END_ID, BEGIN_ID]}, None, {BEGIN_ID, END_ID}, BEGIN_ID, set()),
        ({"eos_token": END}, {"eos_token_id": None}, None, {END_ID}, END_ID, set()),
    ],
)
def test_end_tokens_and_padding(
    tmp_path: Path,
    tokens: dict[str, str],
    config: dict[str, Any],
    generation: Any,
    ends: set[int],
    pad: int,
    forbidden: set[int],
) -> None:
    folder = tiny_model_folder(tmp_path / "tiny", tokens=tokens, **config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    chat = Chat(config_of(folder))
    assert (set(chat.ends), chat.pad, chat.forbidden) == (ends, pad, forbidden)
    assert len(SPECIAL) == 3


def test_a_template_that_refuses_a_conversation_says_why(tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    chat = Chat(config_of(tiny_model_folder(tmp_path / "tiny", chat_template=template + CHAT_TEMPLATE)))
    assert chat.text(MESSAGES[1:])
    with pytest.raises(RungError, match=r"refuses a conversation of system, user: no system role"):
        chat.prompt(MESSAGES)


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "tiny", chat_template=None)
    with pytest.raises(RungError, match="no chat template"):
        Chat(config_of(folder))


# The policy.


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_logits_do_not_depend_on_padding(folder: Path, quantization: Any) -> None:
    policy, model = policy_of(folder, quantization=quantization)
    short, long = [5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15, 16, 17]
    padded_BS = torch.tensor([short + [policy.pad] * 3, long])
    both_BSV = policy.logits(model, padded_BS, 2)
    alone_BSV = policy.logits(model, torch.tensor([short]), 2)
    torch.testing.assert_close(both_BSV[0, :3], alone_BSV[0], atol=1e-5, rtol=1e-5)
    whole_BSV = model(input_ids=torch.tensor([long])).logits
    torch.testing.assert_close(both_BSV[1], whole_BSV[0, 2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_what_is_written_is_as_likely_as_the_writer_says(folder: Path, quantization: Any) -> None:
    policy, model = policy_of(folder, quantization=quantization, gradient_checkpointing=True)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    arguments: Any = {"tokens": 12, "top_k": None, "top_p": None, "seed": 3, "numbers": [0, 1], "batch_size": 3}
    written = policy.write(model, prompts, group=2, temperature=0.7, **arguments)
    assert model.training
    for prompt, group in zip(prompts, written, strict=True):
        for response in group:
            tokens_BS = torch.tensor([[*prompt, *response.tokens]])
            logits_SV = policy.logits(model, tokens_BS[:, :-1], len(prompt) - 1)[0] / 0.7
            found = logits_SV.log_softmax(-1).gather(-1, tokens_BS[0, len(prompt) :, None])[:, 0]
            torch.testing.assert_close(found.detach(), torch.tensor(response.log_probabilities), atol=1e-4, rtol=0)
            assert PAD_ID not in response.tokens
            assert response.has_ended == (response.tokens[-1] == END_ID)
            assert END_ID not in response.tokens[:-1]


def test_the_reference_is_the_model_with_its_adapters_off(folder: Path) -> None:
    policy, model = policy_of(folder)
    tokens_BS = torch.tensor([[5, 6, 7, 8]])
    with adapters_off(model), torch.no_grad():
        expected = policy.logits(model, tokens_BS, 0)
    with policy.reference(model) as reference:
        found = policy.logits(reference, tokens_BS, 0)
    assert torch.equal(found, expected)
    assert not torch.equal(policy.logits(model, tokens_BS, 0), expected)
    assert model.training
