"""Rewards: functions of what was asked, what was answered and what is right, added up with weights. Imports no torch.

    def brevity(prompts, responses, answers):
        return [1.0 if len(response) < 400 else 0.0 for response in responses]

A family's own rewards are the fields of its `RewardsConfig`; those of a user are found by `package.module:function`.
Every reward is logged by itself, as the function returned it; the weights only enter the total.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from rung.errors import RungError
from rung.explain import nearest
from rung.settings import StrictModel

RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[float]]
"""(prompts, responses, answers) to what each response is worth, in points; all of the same length, responses without
their prompts."""

SUMMARIES = ("mean", "std", "min", "max")
"""Of the total, logged as `rewards/<name>`: no reward has such a name."""

_NAME = re.compile(r"[A-Za-z_]\w*")
_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Judgement:
    """What responses are worth."""

    total: Sequence[float]
    """Of each response: its rewards times their weights, added up."""
    parts: Mapping[str, Sequence[float]]
    """Of each response by each reward, before the weight."""


@dataclass(frozen=True)
class Reward:
    """A reward that counts."""

    name: str
    """Under which it is logged, as `rewards/<name>`."""
    function: RewardFunction
    weight: float = 1.0

    def of(self, prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
        """What each response is worth, before the weight.

        Raises:
            RungError: the function raised an exception, or returned anything but a finite number for each response.
        """
        try:
            values = [float(value) for value in self.function(prompts, responses, answers)]
        except RungError:
            raise
        except Exception as error:
            raise RungError(
                f"reward {self.name!r} failed with {type(error).__name__}: {error}{_line(error)}. It is called as "
                "function(prompts, responses, answers), three lists of strings, and returns a number for each response"
            ) from error
        if len(values) != len(responses):
            raise RungError(
                f"reward {self.name!r} returned {len(values)} numbers for {len(responses)} responses: it must return "
                "one for each, in their order"
            )
        for value, response, answer in zip(values, responses, answers, strict=True):
            if not math.isfinite(value):
                raise RungError(
                    f"reward {self.name!r} returned {value} for the response {_shortened(response)} (the right answer "
                    f"is {_shortened(answer)}): rewards must be finite numbers"
                )
        return values


def judge(
    rewards: Sequence[Reward], prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]
) -> Judgement:
    """What each response is worth; errors as of `Reward.of`."""
    parts = {reward.name: reward.of(prompts, responses, answers) for reward in rewards}
    weighted = [[reward.weight * value for value in parts[reward.name]] for reward in rewards]
    total = [math.fsum(values) for values in zip(*weighted, strict=True)] if rewards else [0.0] * len(responses)
    return Judgement(total, parts)


class OwnReward(StrictModel):
    """A reward function of your own."""

    function: str
    """Where it is: `package.module:function`."""
    weight: float = 1.0
    """What its points are multiplied by."""

    @field_validator("function")
    @classmethod
    def _is_a_place(cls, function: str) -> str:
        if not _PLACE.fullmatch(function):
            raise ValueError(f"a reward function of your own is written as package.module:function, got {function!r}")
        return function


class RewardsConfig(StrictModel):
    """Which rewards count, and how much.

    A family derives its own class from this one, with a field for each reward in `built_in`: its value is the weight,
    and 0 leaves the reward out.
    """

    built_in: ClassVar[Mapping[str, RewardFunction]] = {}
    """The family's rewards by name."""
    own: dict[str, OwnReward] = Field(default={})
    """Rewards of your own by the name that they are logged under, as in `{brevity: {function: my_rewards:brevity}}`."""

    @field_validator("own")
    @classmethod
    def _names_are_free(cls, own: dict[str, OwnReward]) -> dict[str, OwnReward]:
        for name in own:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a reward's name consists of letters, digits and _, got {name!r}")
            if name in (*cls.built_in, *SUMMARIES):
                raise ValueError(f"rewards/{name} is logged already: give your own reward another name")
        return own

    @model_validator(mode="after")
    def _something_counts(self) -> RewardsConfig:
        if not any(self.weights.values()):
            names = ", ".join((*self.built_in, *self.own)) or "none"
            raise ValueError(f"no reward has a weight other than 0, so there is nothing to learn; there are: {names}")
        return self

    def weight_where_empty(self, name: str) -> float:
        """The weight of one of the family's rewards where its field is empty."""
        return 0.0

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each reward that counts."""
        given = {name: getattr(self, name) for name in self.built_in}
        found = {name: self.weight_where_empty(name) if weight is None else weight for name, weight in given.items()}
        found |= {name: own.weight for name, own in self.own.items()}
        return {name: weight for name, weight in found.items() if weight}

    def functions(self) -> list[Reward]:
        """The rewards that are computed: those that count, and your own with a weight of 0, to compare with.

        Raises:
            RungError: one of your own cannot be found.
        """
        weights = {name: own.weight for name, own in self.own.items()} | self.weights
        return [
            Reward(name, self.built_in.get(name) or find_reward(self.own[name].function), weight)
            for name, weight in weights.items()
        ]


def find_reward(place: str) -> RewardFunction:
    """The function at `package.module:function`.

    Raises:
        RungError: it cannot be imported, or there is no such function.
    """
    module_name, _, name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module of a user's may fail with anything
        raise RungError(
            f"reward function {place!r} cannot be imported: {type(error).__name__}: {error}{_line(error)}. Its folder "
            "must be on the import path: install it, or set PYTHONPATH"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = nearest(name, names)
        raise RungError(
            f"reward function {place!r}: {module_name} has no function {name!r}{f' ({hint})' if hint else ''}"
        )
    found: RewardFunction = function
    return found


def _line(error: Exception) -> str:
    """Where in the user's code an exception comes from."""
    ours = (__file__, importlib.__file__)
    frames = [
        each for each in extract_tb(error.__traceback__) if each.filename[:1] != "<" and each.filename not in ours
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _shortened(text: str, most: int = 80) -> str:
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")
