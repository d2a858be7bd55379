"""What is asked of a model once, as long as its weights stay as they are."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from trainables.language.remembered import Remembered


class Counter:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, model: nn.Module) -> int:
        self.asked += 1
        return self.asked


def test_it_is_asked_again_once_the_weights_have_changed() -> None:
    model, ask = nn.Linear(3, 2), Counter()
    remembered = Remembered(ask)
    assert [remembered(model), remembered(model)] == [1, 1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    assert [remembered(model), remembered(model)] == [2, 2]


def test_other_signs_are_other_weights() -> None:
    """The hash of torch does not see them."""
    model, remembered = nn.Linear(3, 2), Remembered(Counter())
    with torch.no_grad():
        for change in (torch.zeros_like, torch.ones_like, torch.neg):
            for weight in model.parameters():
                weight.copy_(change(weight))
            remembered(model)
    assert remembered(model) == 3


def test_another_model_with_the_same_weights_is_asked_too() -> None:
    first, second, remembered = nn.Linear(3, 2), nn.Linear(3, 2), Remembered(Counter())
    second.load_state_dict(first.state_dict())
    assert [remembered(first), remembered(second)] == [1, 2]


def test_it_lets_the_model_go() -> None:
    model, remembered = nn.Linear(3, 2), Remembered(Counter())
    remembered(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
