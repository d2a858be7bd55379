"""Where a pretrained model lies and what its JSON files say. Imports neither torch nor transformers, so that a plan can
ask what is missing.

    <folder>/config.json                   architecture and sizes
             generation_config.json        end tokens, of which there may be several
             tokenizer.json, tokenizer_config.json
             chat_template.jinja           or a key of tokenizer_config.json
             model.safetensors             or model.safetensors.index.json and the files that it names
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError
from trainables.language.tokens import data_root
from trainables.models.pretrained_config import PretrainedConfig

CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
TEMPLATE = "chat_template.jinja"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class PretrainedFolder:
    """A folder with a model."""

    path: Path

    @classmethod
    def of(cls, config: PretrainedConfig) -> PretrainedFolder:
        """The folder of a model.

        Raises:
            RungError: there is none on this machine, with what to do about it.
        """
        path = _find(config)
        if path is None:
            raise RungError(_not_there(config))
        return cls(path)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file; empty if it is not there.

        Raises:
            RungError: it is not JSON.
        """
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise RungError(f"{self.path / name} cannot be read: {error}") from error

    def weight_files(self) -> list[Path]:
        """The files with weights; empty if they are not all there."""
        if (self.path / WEIGHTS).is_file():
            return [self.path / WEIGHTS]
        files = [self.path / name for name in dict.fromkeys(self.read(INDEX).get("weight_map", {}).values())]
        return files if all(file.is_file() for file in files) else []

    def files(self) -> list[Path]:
        """All files that a run reads."""
        names = (CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE)
        return [*(self.path / name for name in names if (self.path / name).is_file()), *self.weight_files()]

    @property
    def has_chat_template(self) -> bool:
        """Whether it says how a conversation is written for it."""
        return (self.path / TEMPLATE).is_file() or bool(self.read(TOKENIZER_CONFIG).get("chat_template"))

    def end_tokens(self) -> list[int]:
        """Ids of the tokens that end a response, as far as they are given as ids."""
        ends: list[int] = []
        for name in (CONFIG, GENERATION):
            found = self.read(name).get("eos_token_id")
            ends += [] if found is None else [found] if isinstance(found, int) else list(found)
        return sorted(set(ends))

    @property
    def has_end_token(self) -> bool:
        """Whether anything says how a response ends."""
        return bool(self.end_tokens() or self.read(TOKENIZER_CONFIG).get("eos_token"))


def missing(config: PretrainedConfig) -> str | None:
    """What it takes to train this model in conversations and this machine lacks, with what to do; None: nothing."""
    path = _find(config)
    if path is None:
        return _not_there(config)
    try:
        return _lacks(config, PretrainedFolder(path)) or _lacks_package(config)
    except RungError as error:
        return str(error)


def data_files(config: PretrainedConfig) -> Sequence[Path]:
    """The files that a run reads; none if the model is not there."""
    path = _find(config)
    return () if path is None else PretrainedFolder(path).files()


def _find(config: PretrainedConfig) -> Path | None:
    """A local folder first, then the Hub's cache."""
    local: Path = data_root() / Path(config.model).expanduser()
    if (local / CONFIG).is_file():
        return local.resolve()
    if not _HUB_NAME.fullmatch(config.model):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.model, CONFIG, revision=config.revision)
    return Path(found).parent if isinstance(found, str) else None


def _not_there(config: PretrainedConfig) -> str:
    local = (data_root() / Path(config.model).expanduser()).absolute()
    if not _HUB_NAME.fullmatch(config.model):
        return (
            f"there is no model in {local}: a folder with {CONFIG}, tokenizer and safetensors is needed there, as "
            "`save_pretrained` of transformers writes it (RUNG_DATA says where data lies)"
        )
    return (
        f"the model {config.model} is neither in the Hugging Face cache nor in {local}: {_fetch(config)} fetches it. "
        f"For a machine without network do so elsewhere, with `--local-dir`, and copy that folder to {local}"
    )


def _fetch(config: PretrainedConfig) -> str:
    revision = "" if config.revision is None else f" --revision {config.revision}"
    return f"`hf download {config.model}{revision}`"


def _lacks(config: PretrainedConfig, folder: PretrainedFolder) -> str | None:
    """What a model's folder lacks."""
    if not folder.weight_files():
        fetch = f": {_fetch(config)} fetches what is missing" if _HUB_NAME.fullmatch(config.model) else ""
        return f"{folder.path} has no whole set of weights as safetensors ({WEIGHTS}, or {INDEX} and its files){fetch}"
    if not (folder.path / TOKENIZER).is_file() and not folder.read(TOKENIZER_CONFIG):
        return f"{folder.path} has no tokenizer ({TOKENIZER} and {TOKENIZER_CONFIG})"
    if not folder.has_chat_template:
        return (
            f"{folder.path} has no chat template, so it is a base model that was not taught to answer: take its "
            f"instruct version, or say in {TEMPLATE} in that folder how a conversation is written for it"
        )
    if not folder.has_end_token:
        return (
            f"{folder.path} names no end token, so its responses would never end: set eos_token in {TOKENIZER_CONFIG}"
        )
    return None


def _lacks_package(config: PretrainedConfig) -> str | None:
    """Which package is not installed."""
    if config.quantization == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        return "quantization nf4 needs bitsandbytes: `pip install -e '.[qlora]'`, or quantization none"
    if config.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        return "attention flash_attention_2 needs the package flash-attn: install it, or use attention sdpa"
    return None
