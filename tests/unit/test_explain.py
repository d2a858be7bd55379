"""Pydantic's errors in plain sentences, for the shapes that study files themselves do not have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from rung.explain import field_paths, findings, nearest, show, types_at


class Cat(BaseModel, extra="forbid"):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel, extra="forbid"):
    kind: Literal["dog"]
    tricks: list[Literal["sit", "roll"]] = []


class Zoo(BaseModel, extra="forbid"):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat(kind="cat")
    guests: tuple[Cat, ...] = ()
    either: int | list[int] = 1
    names: dict[str, float] = {}
    free: dict[str, Any] = {}
    few: list[int] = Field(default=[1], min_length=1, max_length=2)
    share: float = Field(default=0.5, ge=0, le=1)


@pytest.mark.parametrize(
    ("data", "path", "message", "hint"),
    [
        ({"pet": {"kind": "dog", "lives": 3}}, ("pet", "lives"), "unknown key", "there are kind, tricks"),
        ({"pet": {"kind": "cow"}}, ("pet", "kind"), "expected one of cat, dog", ""),
        ({"pet": {"kind": "dog", "tricks": ["sit", "rol"]}}, ("pet", "tricks", 1), 'sit, roll, got "rol"', "'roll'"),
        ({"guests": [{"kind": "cat"}, {}]}, ("guests", 1, "kind"), "is missing", ""),
        ({"either": "x"}, ("either",), 'expected a whole number or a list, got "x"', ""),
        ({"either": [1, "x"]}, ("either", 1), "expected a whole number", ""),
        ({"names": {"a": "b"}}, ("names", "a"), "expected a number", ""),
        ({"names": 5}, ("names",), "expected keys with values, got 5", "a mapping"),
        ({"few": []}, ("few",), "needs at least 1 item, got []", ""),
        ({"few": [1, 2, 3]}, ("few",), "takes at most 2 items", ""),
        ({"share": 2}, ("share",), "must be at most 1, got 2", ""),
        ({"share": -0.5}, ("share",), "must be at least 0, got -0.5", ""),
    ],
)
def test_an_error_is_put_at_the_user_s_own_keys(data: Any, path: tuple[Any, ...], message: str, hint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Zoo.model_validate(data)
    found = {finding.path: finding for finding in findings(caught.value, Zoo, data)}
    assert message in found[path].message
    assert hint in found[path].hint


@pytest.mark.parametrize(
    ("word", "names", "hint"),
    [
        ("widht", ["width", "heads"], "did you mean 'width'?"),
        ("Width", ["width"], "did you mean 'width'?"),
        ("lr", ["learning_rate", "loss"], "did you mean 'learning_rate'?"),
        ("loss", ["train/loss", "steps"], "did you mean 'train/loss'?"),
        ("xyz", ["width", "heads"], "there are width, heads"),
        ("xyz", [], ""),
    ],
)
def test_the_nearest_name(word: str, names: list[str], hint: str) -> None:
    assert nearest(word, names) == hint


def test_no_list_of_names_where_only_the_nearest_is_wanted() -> None:
    assert nearest("xyz", ["width"], rest=False) == ""
    assert nearest("xyz", map(str, range(100, 200))).endswith("123, ...")


def test_what_is_below_a_model() -> None:
    assert field_paths(Zoo)[:4] == ["pet", "pet.kind", "pet.lives", "pet.tricks"]
    assert types_at(Zoo, ("names", "anything")) == [float]
    assert types_at(Zoo, ("free", "anything", "deeper")) == [Any]
    assert types_at(Zoo, ("names", "anything", "deeper")) == []
    assert types_at(Zoo, ("guests", 3)) == [Cat]


def test_values_are_shown_as_they_are_written() -> None:
    assert [show(value) for value in (True, None, "é", 1e-4, [1, "a"])] == ["true", "null", '"é"', "0.0001", '[1, "a"]']
    assert len(show("x" * 100)) == 60
    assert show({1, 2}) == "{1, 2}"
