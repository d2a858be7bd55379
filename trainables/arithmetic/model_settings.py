"""`model_config.json`: a decoder and how it reads text, under the names of the original's files. Imports no torch.

    {"d_model": 512, "nhead": 8, "num_layers": 8, "dim_feedforward": 2048, "dropout": 0.1, "max_seq_length": 512,
     "decoder": {"positions": "rope"}}

A training command reads it (`--model-config`), and writes it beside the weights, with which vocabulary they go.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, JsonValue, ValidationError, model_validator

from rung.explain import findings
from rung.settings import StrictModel
from trainables.arithmetic.config import ArithmeticConfig
from trainables.arithmetic.corpus_config import Format
from trainables.language.settings_command import settled
from trainables.models.decoder_config import DecoderConfig
from trainables.models.lora_config import LoraConfig

FILE = "model_config.json"

_NAMES = {
    "d_model": "width",
    "nhead": "heads",
    "num_layers": "layers",
    "dim_feedforward": "feed_forward",
    "dropout": "dropout",
}
"""What the original calls the fields of `DecoderConfig`."""


class ModelSettings(StrictModel):
    """Shape and format of a model; the defaults are those of the original."""

    d_model: int = Field(default=256, gt=0)
    """Width of embedding and residual stream."""
    nhead: int = Field(default=8, gt=0)
    """Attention heads; they divide d_model."""
    num_layers: int = Field(default=6, gt=0)
    """Blocks."""
    dim_feedforward: int = Field(default=1_024, gt=0)
    """Width of the MLP's hidden layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability."""
    max_seq_length: int = Field(default=512, gt=0)
    """Longest sequence, in tokens; learned positions have as many rows."""
    decoder: dict[str, JsonValue] = Field(default_factory=dict)
    """Further settings of the decoder, by their names in a study (`positions`, `norm`, `mlp`, ...). `bias` is on unless
    it is said otherwise."""
    format: Format = "v2"
    """How problem and solution are joined."""
    vocab_size: int | None = Field(default=None, gt=0)
    """Tokens of the tokenizer. Empty: whatever the tokenizer has."""
    tokenizer_sha256: str | None = None
    """Of its file. Empty: any."""
    adapter: LoraConfig | None = None
    """The adapters that are among the weights, if any."""

    @model_validator(mode="after")
    def _decoder_is_possible(self) -> ModelSettings:
        theirs = {ours: name for name, ours in _NAMES.items()}
        wrong = [f"decoder.{name} is {theirs[name]} here" for name in self.decoder if name in theirs]
        values = self._decoder_values()
        try:
            DecoderConfig.model_validate(values)
        except ValidationError as error:
            for found in findings(error, DecoderConfig, values):
                place = "".join(f"decoder.{found.path[0]}: " for _ in found.path[:1])
                wrong.append(f"{place}{found.message}" + (f" ({found.hint})" if found.hint else ""))
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _decoder_values(self) -> dict[str, JsonValue]:
        return {"bias": True, **self.decoder, **{ours: getattr(self, name) for name, ours in _NAMES.items()}}

    def to_decoder(self) -> DecoderConfig:
        """The decoder that is described."""
        return DecoderConfig.model_validate(self._decoder_values())

    def to_config(self) -> ArithmeticConfig:
        """The configuration of a model of this description, as far as it is one of the model."""
        return ArithmeticConfig(
            model=self.to_decoder(), context=self.max_seq_length, format=self.format, adapter=self.adapter
        )

    @classmethod
    def of(cls, config: ArithmeticConfig, vocabulary: int, tokenizer_sha256: str) -> ModelSettings:
        """The description of a configuration's model."""
        values = config.model.model_dump() | {"feed_forward": config.model.hidden}
        theirs = {name: values.pop(ours) for name, ours in _NAMES.items()}
        return cls(
            **theirs,
            max_seq_length=config.context,
            decoder=values,
            format=config.format,
            vocab_size=vocabulary,
            tokenizer_sha256=tokenizer_sha256,
            adapter=config.adapter,
        )

    @classmethod
    def read(cls, path: Path) -> ModelSettings:
        """The description in a file.

        Raises:
            RungError: it describes no model; the text names every problem.
            StorageError: it cannot be read.
        """
        return settled(cls, {}, path)
