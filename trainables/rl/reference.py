"""The policy that training began with, from which the distance is measured.

A model with adapters has it within itself: with the adapters off. Any other model carries a frozen copy of itself along
as its submodule `reference`, so that it is in every checkpoint and a resumed run keeps it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from rung.errors import RungError
from trainables.models.lora import adapters_off, is_adapter
from trainables.rl.config import ObjectiveConfig

COPY = "reference"
"""Name of the submodule."""


def needs_copy(model: nn.Module, objective: ObjectiveConfig) -> bool:
    """Whether the distance from the reference is asked for, and the model does not have it within itself."""
    return objective.kl != "none" and not _has_adapters(model)


def _has_adapters(model: nn.Module) -> bool:
    return any(is_adapter(name) for name, _ in model.named_parameters())


def carry_copy(model: nn.Module, generator: torch.Generator) -> None:
    """Gives a model a frozen copy of itself. `generator` is the one that its dropout draws from."""
    frozen = copy.deepcopy(model, {id(generator): generator})
    model.add_module(COPY, frozen.requires_grad_(False))


@contextmanager
def copy_apart(model: nn.Module) -> Iterator[None]:
    """Inside, the model is without its copy; afterwards, the copy is one of the model as it is then."""
    frozen = model._modules.pop(COPY, None)
    try:
        yield
    finally:
        if frozen is not None:
            frozen.load_state_dict(model.state_dict())
            model.add_module(COPY, frozen)


def without_reference(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the policy itself, for whoever starts from those of a run that carried a copy along."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(f"{COPY}.")}


@contextmanager
def reference_policy(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the reference policy of a model, in evaluation mode and without gradients; the mode is restored.

    Raises:
        RungError: the model has neither adapters nor a copy.
    """
    frozen = getattr(model, COPY, None)
    if frozen is None and not _has_adapters(model):
        raise RungError("the model has no reference policy: it was made for an objective without kl")
    found, training = (model if frozen is None else frozen), model.training
    found.eval()
    try:
        with torch.no_grad(), adapters_off(model) if frozen is None else nullcontext():
            yield found
    finally:
        if frozen is None:
            model.train(training)
