"""YAML as study files use it: scalars, lines, dots in keys, overrides, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import StudyError
from rung.yaml_file import dotted, leaves, nested, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e-3", -0.0015),
        ("7", 7),
        ("-7", -7),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        (".inf", math.inf),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2026-01-02", "2026-01-02"),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("+", "+"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("e5", "e5"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}").data["a"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_yaml_wrote_is_read_as_that_number(number: float) -> None:
    assert parse_yaml(yaml.safe_dump({"a": number})).data["a"] == number
    assert parse_yaml(f"a: {number!r}").data["a"] == number


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a: 010", "010 begins with 0", "write 10"),
        ("a: -007", "-007 begins with 0", "write -7"),
        ("a: !!int x", "cannot be used here", "without a tag"),
        ("a: !!python/name:os.system x", "cannot be used here", "without a tag"),
        ("a..b: 1", "'a..b' cannot be a key", ""),
        ("<<: {b: 1}", "'<<' cannot be a key", ""),
        ("[1]: 2", "a key must be text", ""),
        ("- 1", "expected keys with values", ""),
        ("a: &x [*x]", "an alias inside its own anchor", ""),
    ],
)
def test_slips_are_reported_with_their_line(text: str, message: str, hint: str) -> None:
    (problem,) = parse_yaml(f"# first line\n{text}").problems
    assert problem.line == 2
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\tb: 1", "tabs"),
        ("a: -\nb: 1", "quote"),
        ("a: *", "quote"),
        ("a: @b", "quote"),
        ("a: b: c", "quotes"),
        ("a: [1", ""),
    ],
)
def test_what_is_not_yaml_is_one_error_with_a_line_and_a_hint(text: str, hint: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_yaml(text, "x.yaml")
    (problem,) = caught.value.problems
    assert problem.line in (1, 2)
    assert problem.message.startswith("not valid YAML: ")
    assert hint in problem.hint


def test_a_key_that_stands_twice_names_both_lines() -> None:
    document = parse_yaml("a: 1\nb: 2\na: 3")
    assert document.data == {"a": 1, "b": 2}
    (problem,) = document.problems
    assert (problem.path, problem.line) == ("a", 3)
    assert "line 1" in problem.message


def test_a_dot_in_a_key_is_nesting() -> None:
    assert parse_yaml("a.b.c: 1\na: {d: 2}\na.e: 3").data == {"a": {"b": {"c": 1}, "d": 2, "e": 3}}


@pytest.mark.parametrize("text", ["a.b: 1\na: {b: 2}", "a: {b: 1}\na.b: 2", "a: 1\na.b: 2", "a.b: 1\na: 2"])
def test_a_value_given_both_dotted_and_nested_is_a_problem(text: str) -> None:
    (problem,) = parse_yaml(text).problems
    assert problem.line == 2
    assert "line 1" in problem.message


def test_every_key_and_item_has_its_line() -> None:
    document = parse_yaml("a: 1\nb:\n  c.d:\n    - x\n    - {e: 1}\n")
    assert document.lines[("b",)] == 2
    assert document.lines[("b", "c", "d")] == 3
    assert document.lines[("b", "c", "d", 0)] == 4
    assert document.lines[("b", "c", "d", 1, "e")] == 5
    assert document.line(("b", "c", "nothing")) == 3  # the nearest that is there
    assert document.line(("nothing",)) is None
    assert dotted(("b", "c", 1, "e")) == "b.c[1].e"


def test_an_anchor_can_be_used_twice() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x").data == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=2", {"a": 2, "b": {"c": 1}}),
        ("b.c=1e-3", {"a": 1, "b": {"c": 0.001}}),
        ("b.d=on", {"a": 1, "b": {"c": 1, "d": "on"}}),
        ("b={d: 2}", {"a": 1, "b": {"d": 2}}),
        ("b={d.e: 2}", {"a": 1, "b": {"d": {"e": 2}}}),
        ("x.y.z=[1, gpt]", {"a": 1, "b": {"c": 1}, "x": {"y": {"z": [1, "gpt"]}}}),
        ("a=", {"a": None, "b": {"c": 1}}),
        ("a=b=c", {"a": "b=c", "b": {"c": 1}}),
    ],
)
def test_an_override_replaces_what_stands_at_its_path(override: str, expected: dict[str, Any]) -> None:
    document = parse_yaml("a: 1\nb: {c: 1}", overrides=[override])
    assert document.data == expected
    assert not document.problems


def test_later_overrides_win_and_their_text_is_the_line() -> None:
    document = parse_yaml("b: {c: 1, d: 2}", overrides=["b.c=2", "b.c=[5]"])
    assert document.data == {"b": {"c": [5], "d": 2}}
    assert document.line(("b", "c")) == "b.c=[5]"
    assert document.line(("b", "c", 0)) == "b.c=[5]"
    assert document.line(("b", "d")) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a", "path=value"),
        ("=1", "path=value"),
        ("a..b=1", "path=value"),
        ("a.b=1", "a is not a mapping"),
        ("b=[1", "not valid YAML"),
        ("b=010", "begins with 0"),
    ],
)
def test_a_wrong_override_is_a_problem_at_its_own_text(override: str, message: str) -> None:
    document = parse_yaml("a: 1", overrides=[override])
    assert [problem.line for problem in document.problems] == [override]
    assert message in document.problems[0].message
    assert document.problems[0].describe("x.yaml").startswith(f"--set {override}: ")


def test_a_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("a: 1")
    with pytest.raises(StudyError, match=r"no such file \(did you mean .*demo\.yaml\?\)"):
        read_yaml(tmp_path / "demo")
    with pytest.raises(StudyError, match=r"no such file \(in .* there are demo\.yaml\)"):
        read_yaml(tmp_path / "demmo.yaml")
    with pytest.raises(StudyError, match="cannot be read"):
        read_yaml(tmp_path)


def test_the_text_is_kept_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# comment\na: 1\n")
    document = read_yaml(path, ["a=2"])
    assert document.text == "# comment\na: 1\n"
    assert document.data == {"a": 2}


def test_dotted_keys_made_in_python_are_nested_too() -> None:
    values = {"a.b": 1, "a": {"c.d": [2], "e": {}}}
    assert nested(values) == {"a": {"b": 1, "c": {"d": [2]}, "e": {}}}
    assert list(leaves(values)) == [(("a", "b"), 1), (("a", "c", "d"), [2]), (("a", "e"), {})]


@pytest.mark.parametrize("values", [{"a.b": 1, "a": {"b": 2}}, {"a": 1, "a.b": 2}, {"a.b": 1, "a": 2}])
def test_a_path_with_two_values_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="value"):
        nested(values)
