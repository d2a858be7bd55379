"""Every key of nanoGPT's `train.py`, `sample.py` and `bench.py`, with its default, and a few more. Imports no torch.

Defaults are those of nanoGPT where it has one. Where rung does something else with a key, its docstring says so.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field

from rung.settings import StrictModel


class Keys(StrictModel):
    """The settings of one command; each command looks at those that concern it."""

    out_dir: str = "out"
    """Folder of the run's files."""
    eval_interval: int = Field(default=2000, gt=0)
    """Iterations between two evaluations."""
    log_interval: int = Field(default=1, gt=0)
    """Iterations between two rows and lines about the batch."""
    eval_iters: int = Field(default=200, gt=0)
    """Batches in an evaluation: here the size of a fixed, evenly spaced part of the split, not of a random one."""
    eval_only: bool = False
    """Evaluate once and stop."""
    always_save_checkpoint: bool = True
    """Whether `model.safetensors` is written at every evaluation, or only when the validation loss is the best so
    far."""
    init_from: str = "scratch"
    """`scratch` (whatever run is in out_dir is begun anew), `resume`, or GPT-2's weights: `gpt2`, `gpt2-medium`,
    `gpt2-large` and `gpt2-xl` below `<data root>/models`, or a folder of your own."""
    wandb_log: bool = False
    """Weights & Biases; refused, studies have it (`tracking`)."""
    wandb_project: str | None = "owt"
    """Without effect while wandb_log is False, as in nanoGPT."""
    wandb_run_name: str | None = "gpt2"
    """Without effect while wandb_log is False, as in nanoGPT."""
    dataset: str = "openwebtext"
    """Folder below `data` (of the working directory, or of RUNG_DATA) with train.bin and val.bin; or the path of a
    folder or text file."""
    gradient_accumulation_steps: int = Field(default=40, gt=0)
    """Parts in which a batch of so many times batch_size is computed."""
    batch_size: int = Field(default=12, gt=0)
    """Windows in a part of a batch."""
    block_size: int = Field(default=1024, gt=0)
    """Tokens that the model reads at once."""
    n_layer: int = Field(default=12, gt=0)
    """Blocks."""
    n_head: int = Field(default=12, gt=0)
    """Attention heads."""
    n_embd: int = Field(default=768, gt=0)
    """Width."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the embedding and on what attention and MLP add; nanoGPT drops attention weights, too."""
    bias: bool = False
    """Biases in linear layers and norms."""
    learning_rate: float = Field(default=6e-4, gt=0)
    """At its peak."""
    max_iters: int = Field(default=600_000, gt=0)
    """Optimizer steps: exactly so many, where nanoGPT takes one more."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On tensors of two and more dimensions."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0: no clipping."""
    decay_lr: bool = True
    """Warm-up and cosine decay; False: a constant learning rate without warm-up."""
    warmup_iters: int = Field(default=2000, ge=0)
    """Iterations of linear warm-up."""
    lr_decay_iters: int = Field(default=600_000, gt=0)
    """Where the decay ends, counted from the first iteration."""
    min_lr: float = Field(default=6e-5, ge=0)
    """What the learning rate decays to."""
    backend: str = "nccl"
    """Of torchrun's workers: refused, because workers are `resources.workers` of a study."""
    device: str | None = None
    """A torch device. Not given: `cuda` where there is one (nanoGPT's default), else `cpu`."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Not given: on a GPU bfloat16, or float16 where it has none, as in nanoGPT; on a CPU float32, which is what
    nanoGPT trains there whatever it is told."""
    compile: bool = True
    """torch.compile."""

    start: str = "\n"
    """sample: what the text begins with, or `FILE:` and the path of a file that says so."""
    num_samples: int = Field(default=10, gt=0)
    """sample: texts."""
    max_new_tokens: int = Field(default=500, ge=0)
    """sample: tokens of each."""
    temperature: float = Field(default=0.8, ge=0)
    """sample: what logits are divided by; 0: always the likeliest token."""
    top_k: int | None = Field(default=200, gt=0)
    """sample: only so many of the likeliest tokens."""
    seed: int = Field(default=1337, ge=0)
    """Of initial weights, windows and samples. nanoGPT's train.py has 1337 built in."""

    real_data: bool = True
    """bench: whether batches are those of the data set, or one batch again and again."""
    profile: bool = False
    """bench: writes a trace for the torch profiler's viewers into out_dir."""

    loss_on: Literal["all", "answer"] = "all"
    """Not nanoGPT's: which characters are learnt, see `CharacterStreamsConfig`."""
    windows: Literal["random", "lines"] = "random"
    """Not nanoGPT's: where training windows begin."""
    positions: Literal["learned", "sinusoidal", "rope", "none"] = "learned"
    """Not nanoGPT's: how the model knows where a token stands, see `DecoderConfig`."""
    initialisation: Literal["gpt2", "truncated_normal"] = "gpt2"
    """Not nanoGPT's: how weights begin, see `DecoderConfig`."""
    answers: int = Field(default=200, gt=0)
    """Not nanoGPT's: validation lines whose answers are checked at every evaluation."""


BENCH_DEFAULTS: dict[str, Any] = {"gradient_accumulation_steps": 1, "eval_iters": 1}
"""bench.py has no accumulation."""


def refusals(keys: Keys) -> list[str]:
    """The keys, and variables of torchrun, that ask for something which is not there."""
    found = []
    if keys.wandb_log:
        found.append(
            "wandb_log: these commands write no W&B run; metrics.csv in out_dir has every number, and a study file has "
            "`tracking`"
        )
    if "backend" in keys.model_fields_set:
        found.append("backend: this command trains in one process; several workers are resources.workers of a study")
    if int(os.environ.get("RANK", -1)) != -1:
        found.append("RANK is set, as torchrun does: several workers are resources.workers of a study (rung run)")
    if keys.decay_lr and keys.warmup_iters >= keys.lr_decay_iters:
        text = f"warmup_iters ({keys.warmup_iters}) must be below lr_decay_iters ({keys.lr_decay_iters})"
        found.append(f"{text}; for a constant learning rate set decay_lr=False")
    if keys.n_embd % keys.n_head:
        found.append(f"n_head: {keys.n_head} heads do not divide n_embd {keys.n_embd}")
    return found
