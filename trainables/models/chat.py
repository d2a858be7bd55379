"""Conversations with a pretrained model as tokens: its chat template, its end tokens, its padding.

    chat = Chat(config)
    chat.prompt([{"role": "user", "content": "What is 7 + 5?"}])     # ends where the model's answer begins

A prompt is never cut off, and is padded by whoever puts several into one batch: at the left where a model goes on
writing, at the right where it learns.

Where a model says less than it should: a model without a chat template or without an end token is refused
(`pretrained_files.missing`); without a padding token the first end token fills rows up, which changes nothing, since
nothing is read from padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from rung.errors import RungError
from trainables.models.pretrained_config import PretrainedConfig
from trainables.models.pretrained_files import PretrainedFolder, missing

Message = Mapping[str, str]
"""`role` (`system`, `user`, `assistant`) and `content`."""


class Chat:
    """The tokenizer of a pretrained model.

    Args:
        config: which model.

    Raises:
        RungError: it is not on this machine, or lacks a tokenizer, a chat template or an end token.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        from transformers import AutoTokenizer

        lacking = missing(config)
        if lacking is not None:
            raise RungError(lacking)
        folder = PretrainedFolder.of(config)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise RungError(f"transformers cannot read the tokenizer of {folder.path}: {error}") from error
        own = self._tokenizer.eos_token_id
        self.ends = tuple(sorted({*folder.end_tokens(), *([] if own is None else [own])}))
        """Tokens after which a response is over."""
        if not self.ends:
            raise RungError(f"the tokenizer of {folder.path} does not know the end token that its settings name")
        padding, begin = self._tokenizer.pad_token_id, self._tokenizer.bos_token_id
        self.pad: int = self.ends[0] if padding is None else padding
        """Token that fills rows up; may be an end token."""
        self.forbidden = frozenset(token for token in (padding, begin) if token is not None) - {*self.ends}
        """Tokens that a model must not write: padding and the beginning of a text, unless they are end tokens."""
        self._folder = folder.path

    def text(self, messages: Sequence[Message]) -> str:
        """A conversation as the model reads it, up to where its answer begins.

        Raises:
            RungError: the template refuses it; some know no system message, or want user and assistant in turn.
        """
        try:
            text: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(message.get("role", "?") for message in messages)
            hint = '. Some know no system message: leave it empty (prompt.system: "")' if "system" in roles else ""
            raise RungError(
                f"the chat template of {self._folder} refuses a conversation of {roles}: {error}{hint}"
            ) from error
        return text

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Likewise, as tokens. What looks like a special token in a message becomes one. Raises RungError."""
        return self.encode(self.text(messages))

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which the template's tokens stand already."""
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a response without the end token. Other special tokens stay: `<think>` may be one."""
        last = -1 if tokens and tokens[-1] in self.ends else None
        text: str = self._tokenizer.decode(
            list(tokens[:last]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text
