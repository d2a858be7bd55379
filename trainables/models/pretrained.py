"""Pretrained causal language models through transformers, with adapters on full or 4-bit weights, or trained whole.

    model = load(config, generator)          # a model of transformers, in training mode
    kept(model)                              # what a checkpoint holds: adapters, or all weights
    load_kept(model, kept(other))

Nothing is downloaded here and nothing draws from torch's global generator: dropout that a model brings along is
switched off (attention's own cannot be given a generator), and that of adapters draws from the run's.

Imports torch and transformers; what a plan asks is in `pretrained_config.py`, `pretrained_files.py`,
`pretrained_shape.py` and `pretrained_memory.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from rung.errors import RungError
from rung.trainable import fill, weights_of
from trainables.models.lora import inject_adapters, is_adapter
from trainables.models.pretrained_attention import attend_in_fp32
from trainables.models.pretrained_config import PretrainedConfig
from trainables.models.pretrained_files import CONFIG, PretrainedFolder, missing
from trainables.models.pretrained_shape import adapted_layers, read_shape
from trainables.models.quantization import keep_layout, nf4

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(config: PretrainedConfig, generator: torch.Generator) -> PreTrainedModel:
    """A model with fresh adapters, in training mode, on the device of `generator`.

    Args:
        config: which model, and what of it is trained.
        generator: draws the adapters, and their dropout.

    Raises:
        RungError: the model or a package is missing, or its files are not those of a whole model.
    """
    lacking = missing(config)
    if lacking is not None:
        raise RungError(lacking)
    folder = PretrainedFolder.of(config)
    model = _read(config, folder, generator.device)
    if config.adapter is not None:
        shape = read_shape(folder.read(CONFIG), str(folder.path / CONFIG))
        inject_adapters(model, config.adapter, list(adapted_layers(config.adapter, shape)), generator)
    if config.gradient_checkpointing:
        _checkpoint_blocks(model, generator)
    _check_trained(model, config)
    return model.train()


def load_plain(config: PretrainedConfig, device: torch.device | str = "cpu") -> PreTrainedModel:
    """The model as it was published, in evaluation mode: without adapters and quantization. Raises RungError."""
    plain = config.model_copy(update={"quantization": "none"})
    return _read(plain, PretrainedFolder.of(plain), torch.device(device)).eval()


def kept(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, by names of the state dict: the adapters, or all weights of a model without."""
    adapters = {name: tensor for name, tensor in model.named_parameters() if is_adapter(name)}
    return adapters or weights_of(model)


def load_kept(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Puts what another run has kept into a model, in place.

    Raises:
        RungError: that run's model or adapters had another shape.
    """
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        fill(model, weights)
        return
    own = kept(model)
    wrong = sorted(
        name
        for name in own.keys() | weights.keys()
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    )
    if wrong:
        raise RungError(
            f"the weights to start from are those of other adapters: {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            + " differ in name or shape. Adapters start from a run with the same model, rank and targets"
        )
    model.load_state_dict(dict(weights), strict=False)


def _read(config: PretrainedConfig, folder: PretrainedFolder, device: torch.device) -> PreTrainedModel:
    """The model of a folder, without adapters."""
    dtype = DTYPES[config.weights_dtype]
    options: dict[str, Any] = {}
    if config.quantization == "nf4":
        options["quantization_config"] = nf4(dtype, double=config.double_quantization)
    try:
        with quiet():
            described = AutoConfig.from_pretrained(folder.path, local_files_only=True)
            _switch_dropout_off(described)
            model, found = AutoModelForCausalLM.from_pretrained(
                folder.path,
                config=described,
                dtype=dtype,
                device_map={"": device},
                attn_implementation=config.attention,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **options,
            )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError) as error:
        raise RungError(f"transformers cannot load {folder.path}: {type(error).__name__}: {error}") from error
    _check_whole(found, folder)
    attend_in_fp32(model)
    if config.quantization == "nf4":
        keep_layout(model)
    return model


def _switch_dropout_off(described: Any) -> None:
    for name, value in described.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(described, name, 0.0)


def _check_whole(found: Mapping[str, Any], folder: PretrainedFolder) -> None:
    """Refuses files that lack weights, which transformers would draw at random."""
    lacking = sorted([*found.get("missing_keys", ()), *(key for key, *_ in found.get("mismatched_keys", ()))])
    if lacking:
        raise RungError(
            f"{folder.path} is not a whole model: {', '.join(lacking[:3])}"
            + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
            + f" are not in its weights, or not in the shape that {CONFIG} says"
        )


def _check_trained(model: nn.Module, config: PretrainedConfig) -> None:
    """Something is trained: adapters alone if there are any, else everything."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained or (config.adapter is not None and not all(map(is_adapter, trained))):
        raise AssertionError(f"of {config.model} {len(trained)} tensors are trained, among them {trained[:3]}")


def _checkpoint_blocks(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Blocks are computed anew in the backward pass, with the dropout masks of the forward pass."""
    model.activation_checkpointing_enable(
        {
            "use_reentrant": False,
            "preserve_rng_state": False,  # that of the global generators, from which nothing draws
            "context_fn": partial(_same_draws, generator),
        }
    )
    model.disable_input_require_grads()  # only the reentrant kind needs it


def _same_draws(generator: torch.Generator) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for computing something and computing it anew with the same draws from a generator."""
    states: list[torch.Tensor] = []

    @contextmanager
    def first() -> Iterator[None]:
        states.append(generator.get_state())
        yield

    @contextmanager
    def again() -> Iterator[None]:
        present = generator.get_state()
        generator.set_state(states[0])
        try:
            yield
        finally:
            generator.set_state(present)

    return first(), again()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers says nothing but errors, and draws no progress bars."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
