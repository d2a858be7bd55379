"""Experiment files with flat keys (`model_name`, `num_generations`, `load_in_4bit`), turned into studies. Imports no
torch.

The keys and defaults are those of the GRPO experiments on GSM8K that this family grew out of (docs/word-problems.md has
them in a table). What such a key says is said by a study's paths; what cannot be meant here is a note, and what would
change the result in silence is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from rung.errors import StudyError
from rung.explain import findings
from rung.settings import StrictModel
from rung.yaml_file import read_yaml
from trainables.rl.config import RolloutConfig
from trainables.rl.problems import Timetable

MODELS = {"qwen3": "Qwen/Qwen3-4B-Instruct-2507"}
"""The model of a `model_type` where `model_name` is left out."""

SAMPLES, KS = 10, (1, 5, 10)
"""Drawn answers to each test question, and the k of pass@k."""

_IN_A_NAME = r"^[A-Za-z0-9._-]*$"


class ExperimentFile(StrictModel):
    """One experiment."""

    remark: str = Field(default="", pattern=_IN_A_NAME)
    """Ends the run's name, which is also that of a folder: letters, digits, `-`, `_` and `.`."""
    model_type: str = Field(default="qwen3", pattern=_IN_A_NAME)
    """Begins the run's name."""
    model_name: str | None = None
    """A folder or a name on the Hugging Face Hub; empty: that of `model_type`."""
    dataset_name: Literal["gsm8k", "svamp"] = "gsm8k"
    """Which questions."""
    dataset_path: str | None = None
    """Folder of their files; empty: where `python -m trainables.word_problems.prepare` puts them."""
    max_samples: int = Field(default=50, gt=0)
    """Training questions, where `train_samples` is left out."""
    train_samples: int | None = Field(default=None, gt=0)
    """Training questions."""
    test_samples: int | None = Field(default=None, gt=0)
    """Test questions, of the official test split; empty: all of it."""
    dataloader_seed: int = Field(default=42, ge=0)
    """Which questions are chosen, and their order."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Of Adam, constant."""
    batch_size: int = Field(default=1, gt=0)
    """Questions in a part of a step."""
    num_epochs: int = Field(default=50, gt=0)
    """Passes over the training questions."""
    gradient_accumulation_steps: int = Field(default=4, gt=0)
    """Parts of a step."""
    num_generations: int = Field(default=3, ge=2)
    """Responses to each question."""
    max_prompt_length: int = Field(default=512, gt=0)
    """Has no effect: prompts are never cut."""
    max_generate_length: int = Field(default=512, gt=0)
    """Most tokens of a response, in training and evaluation."""
    temperature: float = Field(default=0.7, gt=0)
    """Of the responses in training."""
    eval_temperature: float = Field(default=0.75, gt=0)
    """Of the drawn answers of pass@5 and pass@10."""
    beta: float = Field(default=0.1, ge=0)
    """Of the distance from the reference policy; 0: it is not computed."""
    clip_eps: float = Field(default=0.2, ge=0, le=1)
    """How far a ratio may be from 1."""
    load_in_4bit: bool = True
    """Whether the frozen weights have 4 bits (QLoRA)."""
    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the frozen weights, or of what they are unpacked to."""
    use_flash_attention: bool = True
    """Has no effect: torch's attention takes FlashAttention kernels where it has them."""
    use_gradient_checkpointing: bool = True
    """Less memory, a third more work."""
    device_map: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU if there is one."""
    use_wandb: bool = True
    """Whether the runs are shown in Weights & Biases."""
    wandb_project: str = "grpo-qwen3-experiments"
    """Where."""
    wandb_tags: tuple[str, ...] | None = None
    """Empty: made of the settings."""
    hf_token: None = None
    """A token does not belong into a file."""
    eval_every_epochs: int = Field(default=50, gt=0)
    """Epochs between two evaluations; there is always one before training and one at the end."""
    system_prompt: str | None = None
    """In place of the default one."""
    system_prompt_path: str | None = None
    """A file that holds it."""
    output_dir: str | None = None
    """Where the study and its results go; empty: where those of all studies go."""
    logs_dir: str | None = None
    """Has no effect: what is logged is in the study's tables."""
    random_seed: int = Field(default=42, ge=0)
    """The seed of the run."""

    @field_validator("hf_token", mode="before")
    @classmethod
    def _no_secrets(cls, token: Any) -> None:
        if token is not None:
            raise ValueError(
                "a token in this file would be copied into every launch record: use `hf auth login`, or the variable "
                "HF_TOKEN, when you download the model"
            )

    @model_validator(mode="after")
    def _model_is_known(self) -> ExperimentFile:
        if self.model_name is None and self.model_type not in MODELS:
            known = ", ".join(MODELS)
            raise ValueError(f"model_name is needed for model_type {self.model_type} (it is known for {known})")
        return self

    @property
    def name(self) -> str:
        """The run's name, made of what is usually varied."""
        parts = (
            self.model_type,
            "grpo",
            f"bs{self.batch_size}",
            f"lr{_short(self.learning_rate)}",
            f"ng{self.num_generations}",
            f"ga{self.gradient_accumulation_steps}",
            f"seed{self.random_seed}",
            self.remark,
        )
        return "_".join(part for part in parts if part)

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find the run by."""
        return (*self.name.removesuffix(f"_{self.remark}").split("_"), self.dataset_name)

    @property
    def questions(self) -> int:
        """To train on."""
        return self.train_samples or self.max_samples

    def notes(self) -> Iterator[str]:
        """What the file asks for and does not get, or gets in another way."""
        given = self.model_fields_set
        if "max_prompt_length" in given:
            yield "max_prompt_length has no effect: prompts are never cut"
        if "logs_dir" in given and self.logs_dir is not None:
            yield "logs_dir has no effect: everything is in the study's folder"
        if self.use_flash_attention and "use_flash_attention" in given:
            yield "use_flash_attention: torch's own attention is used, which has FlashAttention kernels on GPUs"

    def study(self, *, has_gpu: bool) -> dict[str, Any]:
        """The study, as its file says it."""
        return {
            "study": self.name,
            "trainable": "word_problems",
            "base": self._base(),
            "seeds": [self.random_seed],
            "budget": {"epochs": self.num_epochs},
            "metric": {"name": "test/pass@1", "mode": "max"},
            "resources": {"gpus": int(has_gpu and self.device_map != "cpu")},
            **({} if self.output_dir is None else {"storage": self.output_dir}),
            **self._tracking(),
        }

    def _base(self) -> dict[str, Any]:
        rollout = {
            "prompts": self.batch_size * self.gradient_accumulation_steps,
            "group": self.num_generations,
            "tokens": self.max_generate_length,
            "temperature": self.temperature,
        }
        dtype = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[self.compute_dtype]
        steps = Timetable(self.questions, RolloutConfig.model_validate(rollout)).steps_per_epoch
        assert steps is not None
        return {
            "model": {
                "model": self.model_name or MODELS[self.model_type],
                "dtype": dtype,
                "quantization": "nf4" if self.load_in_4bit else "none",
                "gradient_checkpointing": self.use_gradient_checkpointing,
            },
            "data": self._data(),
            "prompt": self._prompt(),
            "rollout": rollout,
            "objective": {
                "aggregation": "sequence",
                "clip_low": self.clip_eps,
                "clip_high": self.clip_eps,
                **({"kl": "k3", "kl_coefficient": self.beta} if self.beta else {"kl": "none"}),
            },
            "decoding": {
                "tokens": self.max_generate_length,
                "samples": SAMPLES,
                "temperature": self.eval_temperature,
                "ks": list(KS),
            },
            "accumulation": self.gradient_accumulation_steps,
            "precision": "fp32" if dtype == "fp16" else dtype,
            "optimizer": {"kind": "adam", "learning_rate": self.learning_rate},
            "gradient_clip": None,
            "data_seed": self.dataloader_seed,
            "evaluation": {"every": self.eval_every_epochs * steps, "log_every": 1},
        }

    def _data(self) -> dict[str, Any]:
        chosen = {
            "name": self.dataset_name,
            "path": self.dataset_path,
            "train_samples": self.questions,
            "test_samples": self.test_samples,
            "seed": self.dataloader_seed,
        }
        return {key: value for key, value in chosen.items() if value is not None}

    def _prompt(self) -> dict[str, Any]:
        chosen = {"system": self.system_prompt, "system_path": self.system_prompt_path}
        return {key: value for key, value in chosen.items() if value is not None}

    def _tracking(self) -> dict[str, Any]:
        if not self.use_wandb:
            return {}
        return {"tracking": {"wandb": {"project": self.wandb_project, "tags": list(self.wandb_tags or self.tags)}}}


def read_experiment(path: Path) -> ExperimentFile:
    """The experiment that a YAML file describes.

    Raises:
        StudyError: all that is wrong with it, with lines.
    """
    document = read_yaml(path)
    problems = list(document.problems)
    try:
        found = ExperimentFile.model_validate(document.data)
    except ValidationError as error:
        for each in findings(error, ExperimentFile, document.data):
            problems.append(document.problem(each.message, each.path, each.hint))
    if problems:
        raise StudyError(problems, document.name)
    return found


def _short(value: float) -> str:
    """5e-05 as 5e-5, and no digit lost: two learning rates have two names."""
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
