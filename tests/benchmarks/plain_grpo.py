"""The model, the prompts and the reward of the GRPO benchmarks, and the step that a user of TRL takes.

A Qwen3 of 4.8 million parameters with random weights and a vocabulary of 290. Responses come to their end by chance:
with four end tokens their length is geometric with a mean of 72, and 95 % are below 216; that is the shape of the
answers of arithmetic of depth 4 (mean 166, 95 % below 470) at half their length. The reward asks for an even first
token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

VOCABULARY, PAD, BEGIN, ENDS = 290, 0, 2, (3, 4, 5, 6)
PROMPT = 16


@dataclass(frozen=True)
class Task:
    """What is written, and with which step it is learnt from."""

    prompts: int
    group: int
    tokens: int
    accumulation: int
    is_full: bool
    """Whether responses come to no end before `tokens`."""

    @property
    def ends(self) -> tuple[int, ...]:
        return () if self.is_full else ENDS


@dataclass
class Turn:
    """What steps took, in CPU seconds, and how many tokens they wrote."""

    steps: list[float] = field(default_factory=list)
    writing: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def tiny_qwen3() -> Any:
    """The model, in training mode."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=list(ENDS),
    )
    model = Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(0.0, 0.02, generator=generator)
    return model.train()


def prompt(number: int) -> list[int]:
    """The tokens of a prompt; all have the same length."""
    return [7 + (number * 7 + place) % (VOCABULARY - 7) for place in range(PROMPT)]


def reward(tokens: Sequence[int]) -> float:
    """1 for an even first token."""
    return float(tokens[0] % 2 == 0)


def trl_turn(task: Task, bf16: bool, steps: int) -> Turn:
    """Steps of TRL's GRPOTrainer from the model's first weights on; the first step is not counted."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    turn, model = Turn(), tiny_qwen3()
    model.generation_config.eos_token_id = list(ENDS)

    def judged(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        turn.tokens.append(sum(map(len, completion_ids)))
        return [reward(tokens) for tokens in completion_ids]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begin = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turn.steps.append(time.process_time() - self.begin)

    with tempfile.TemporaryDirectory(prefix="rung-trl-") as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=task.prompts * task.group // task.accumulation,
            gradient_accumulation_steps=task.accumulation,
            num_generations=task.group,
            max_completion_length=task.tokens,
            generation_kwargs={"min_new_tokens": task.tokens} if task.is_full else None,
            max_steps=steps + 1,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            beta=0.0,
            bf16=bf16,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        texts = [" ".join(f"w{token}" for token in prompt(number)) for number in range(task.prompts * (steps + 1))]
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=judged,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=_tokenizer(),
            callbacks=[Clock()],
        )
        _time(model, "generate", turn)
        trainer.train()
    return Turn(turn.steps[1:], turn.writing[1:], turn.tokens[1:])


def _time(model: Any, name: str, turn: Turn) -> None:
    """Has a method's CPU seconds noted."""
    plain: Callable[..., Any] = getattr(model, name)

    def timed(*positional: Any, **named: Any) -> Any:
        begin = time.process_time()
        result = plain(*positional, **named)
        turn.writing.append(time.process_time() - begin)
        return result

    setattr(model, name, timed)


def _tokenizer() -> Any:
    """A word for each token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    special = {"<pad>": PAD, "<unk>": 1, "<bos>": BEGIN, "<eos>": ENDS[0]}
    words = {f"w{token}": token for token in range(VOCABULARY) if token not in special.values()}
    tokenizer = Tokenizer(WordLevel(special | words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="left",
    )
