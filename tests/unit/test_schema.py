"""The JSON Schema accepts what `load_study` accepts and underlines what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rung.errors import RungError
from rung.space import WORDS
from rung.study import Study
from rung.study_schema import json_schema
from rung.yaml_file import parse_yaml, read_yaml
from tests.shipped import STUDIES

TOY = "tests.toy_arithmetic:ToyArithmetic"

jsonschema = pytest.importorskip("jsonschema")


def errors(text: str, trainable: str | None = TOY) -> list[str]:
    """What an editor would underline in a whole study with `text` in it, keys as they are written."""
    import yaml

    rest = "study: toy\ntrainable: x\nseeds: 2\nbudget: {steps: 5}\nmetric: {name: validation/loss}\n"
    validator = jsonschema.Draft202012Validator(json_schema(trainable))
    return [error.message for error in validator.iter_errors(yaml.safe_load(rest + text))]


@pytest.mark.parametrize("trainable", [None, TOY, "modular_arithmetic"])
def test_it_is_a_schema(trainable: str | None) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(trainable))


def test_every_key_has_its_meaning() -> None:
    properties = json_schema(TOY)["properties"]
    assert list(properties) == list(Study.model_fields)
    assert all(described.get("description") for described in properties.values())
    assert properties["base"]["properties"]["modulus"]["description"] == "Must be prime for `/`."
    assert properties["base"]["properties"]["model.layers"]["description"] == "How many."
    assert properties["space"]["properties"]["model.layers"]["description"] == "How many."


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_shipped_studies_are_valid(path: Path) -> None:
    document = read_yaml(path)
    trainable = document.data["trainable"]
    assert not list(jsonschema.Draft202012Validator(json_schema(trainable)).iter_errors(document.data))


@pytest.mark.parametrize(
    "text",
    [
        "base: {modulus: 5, model: {layers: 3}, optimizer.learning_rate: 0.1}",
        "base:",
        "space: {modulus: [5], model.layers: {grid: [1]}, model: {kind: [gpt], heads: {choice: [2, 4]}}}",
        "space: {model.heads: {grid: [2], when: {model.kind: gpt}}, optimizer: {learning_rate: {uniform: [0, 1]}}}",
        "space: {early_stopping: [null, {patience: 3}], early_stopping.patience: [3]}",
        "scheduler: {name: asha, grace: 2}\nresources: {gpus: 0.5}",
    ],
)
def test_what_is_right_is_accepted(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "base: {modulos: 5}",
        "base: {model: {layer: 3}}",
        "base: {modulus: x}",
        "space: {model.knid: [gpt]}",
        "space: {modulus: 5}",
        "space: {modulus: {gird: [5]}}",
        "space: {modulus: {grid: [5], choice: [5]}}",
        "space: {modulus: {uniform: [5]}}",
        "sample: 3",
        "confirm: {best: 2}",
        "seeds: {start: 2}",
        "scheduler: {name: ahsa}",
    ],
)
def test_what_is_wrong_is_underlined(text: str) -> None:
    assert errors(text)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_known(word: str) -> None:
    arguments = {"values": "[1]", "float": "[1, 2]", "integer": "[1, 2]", "normal": "[1, 2]"}[WORDS[word].kind]
    if WORDS[word].quantised:
        arguments = arguments.replace("]", ", 1]")
    assert errors(f"space: {{modulus: {{{word}: {arguments}}}}}") == []


def test_without_a_trainable_any_configuration_will_do() -> None:
    assert errors("base: {anything: 5}\nspace: {anything.else: [1]}", trainable=None) == []


def test_seeds_are_a_number_or_a_list() -> None:
    schema: Any = json_schema()["properties"]["seeds"]
    for text, is_right in (("4", True), ("[0, 42]", True), ("0", False), ("[1, 1]", False), ("many", False)):
        value = parse_yaml(f"a: {text}").data["a"]
        assert jsonschema.Draft202012Validator(schema).is_valid(value) is is_right


def test_no_such_trainable() -> None:
    with pytest.raises(RungError, match="no trainable is called"):
        json_schema("nothing")
