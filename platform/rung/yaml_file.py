"""Reads a YAML file into plain Python data and remembers the line of every key.

Scalars follow YAML 1.2: `1e-4` and `1e3` are floats, `on`, `off`, `yes`, `no`, dates and `12:30` are text. PyYAML on
its own reads YAML 1.1, where `1e-4` is text and `on` is true. Refused, because they are nearly always a slip: a key
that stands twice, a number with a leading zero (octal in YAML 1.1), tags and merge keys.

**A dot in a key is nesting, everywhere**: `model.kind: gpt` is `model: {kind: gpt}`. Hence the path of an override is
never quoted: `space.model.kind=[gpt, lstm]` means the same dimension however the file spells it. An override replaces
what stands at its path, a whole mapping included; its value is YAML; intermediate mappings are made as needed. Its
text takes the place of a line number.

Left out: writing YAML, several documents in a file, keys that are not text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rung.errors import Problem, StudyError

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of mappings and positions in lists. The empty one is the whole file."""

Line = int | str
"""A line of the file, from 1, or the text of an override."""


def dotted(path: Sequence[str | int]) -> str:
    """A path as a user writes it: `space.model.kind.grid[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def leaves(values: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value of nested mappings with its path, each dot in a key being a level; an empty mapping is a value."""
    for key, value in values.items():
        inner = (*path, *str(key).split("."))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, inner)
        else:
            yield inner, value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings whose keys may be dotted, made nested.

    Raises:
        ValueError: a path has two values.
    """
    result: dict[str, Any] = {}
    for path, value in leaves(values):
        inner = result
        for part in path[:-1]:
            inner = inner.setdefault(str(part), {})
            if not isinstance(inner, dict):
                raise ValueError(f"{dotted(path)}: {part} has a value already")
        if path[-1] in inner:
            raise ValueError(f"{dotted(path)} has two values")
        inner[str(path[-1])] = value
    return result


@dataclass
class Document:
    """What a file says, after the overrides."""

    name: str
    """The file's name, for messages."""
    text: str
    """The file as it was given."""
    data: dict[str, Any] = field(default_factory=dict)
    """Nested mappings, lists and scalars; no key contains a dot."""
    lines: dict[KeyPath, Line] = field(default_factory=dict)
    """The line of every key and list item."""
    file_lines: dict[KeyPath, int] = field(default_factory=dict)
    """The same as it was before the overrides: in which order the file is written."""
    problems: list[Problem] = field(default_factory=list)
    """What could be read in spite of: repeated keys, malformed overrides."""

    def line(self, path: KeyPath) -> Line | None:
        """The line of a path, or of the nearest part of it that the file has."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def problem(self, message: str, path: KeyPath = (), hint: str = "") -> Problem:
        """A problem with its place in this document."""
        return Problem(message, dotted(path), self.line(path), hint)


def read_yaml(path: Path, overrides: Iterable[str] = ()) -> Document:
    """Reads a file and applies overrides (`a.b=value`) in the order given.

    Raises:
        StudyError: the file cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise StudyError([Problem(reason, hint=_neighbours(path))], str(path)) from error
    return parse_yaml(text, str(path), overrides)


def parse_yaml(text: str, name: str = "", overrides: Iterable[str] = ()) -> Document:
    """The same for text that has been read already.

    Raises:
        StudyError: it is not YAML.
    """
    try:
        node = _compose(text)
    except yaml.YAMLError as error:
        raise StudyError([_syntax_problem(error)], name) from error
    document = Document(name, text)
    if isinstance(node, yaml.MappingNode):
        document.data = _Builder(document).mapping(node, (), {})
    elif node is not None:
        document.problems.append(Problem("expected keys with values (`study: ...`)", line=node.start_mark.line + 1))
    document.file_lines = {path: line for path, line in document.lines.items() if isinstance(line, int)}
    for assignment in overrides:
        _override(document, assignment)
    return document


def _neighbours(path: Path) -> str:
    if path.suffix not in {".yaml", ".yml"} and path.with_suffix(".yaml").exists():
        return f"did you mean {path.with_suffix('.yaml')}?"
    files = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f"in {path.parent} there are {', '.join(files[:10])}" if files else ""


# Overrides.


def _override(document: Document, assignment: str) -> None:
    key, equals, value = assignment.partition("=")
    path: KeyPath = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        document.problems.append(
            Problem("an override is written path=value", line=assignment, hint="for example base.modulus=97")
        )
        return
    try:
        node = _compose(value)
    except yaml.YAMLError as error:
        problem = _syntax_problem(error)
        document.problems.append(Problem(problem.message, dotted(path), assignment, problem.hint))
        return
    parent = _parent(document, path, assignment)
    if parent is None:
        return
    for old in [known for known in document.lines if known[: len(path)] == path]:
        del document.lines[old]
    builder = _Builder(document, assignment)
    parent[str(path[-1])] = None if node is None else builder.value(node, path)
    builder.note(path, assignment)


def _parent(document: Document, path: KeyPath, assignment: str) -> dict[str, Any] | None:
    """The mapping that the last key of an override goes into; makes it where nothing stands."""
    parent = document.data
    for length, key in enumerate(path[:-1], start=1):
        child = parent.get(str(key))
        if child is None:
            child = parent[str(key)] = {}
            document.lines.setdefault(path[:length], assignment)
        if not isinstance(child, dict):
            message = f"cannot set {dotted(path)}: {dotted(path[:length])} is not a mapping"
            hint = f"give it whole: {dotted(path[:length])}=..."
            document.problems.append(Problem(message, dotted(path), assignment, hint))
            return None
        parent = child
    return parent


# From YAML's nodes to data.

_INTEGER = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOLEAN = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_TEXT = "tag:yaml.org,2002:str"
_LEADING_ZERO = "tag:leading-zero"


class _Loader(yaml.SafeLoader):
    """Composes nodes only; which scalar is what is decided here, and values are made by `_Builder`."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's own protocol)


for _tag, _pattern in (
    (_NULL, r"~|null|Null|NULL|"),
    (_BOOLEAN, r"true|True|TRUE|false|False|FALSE"),
    (_INTEGER, r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)|0x[0-9a-fA-F]+|0o[0-7]+"),
    (_LEADING_ZERO, r"[-+]?0[0-9_]+"),
    (
        _FLOAT,
        r"[-+]?([0-9]+(_[0-9]+)*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), None)


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Builder:
    """Makes values from nodes, and writes lines and problems into a document."""

    def __init__(self, document: Document, override: str | None = None) -> None:
        self.document = document
        self.override = override
        self.open: list[yaml.Node] = []

    def note(self, path: KeyPath, line: Line) -> None:
        self.document.lines.setdefault(path, self.override or line)

    def complain(self, message: str, path: KeyPath, node: yaml.Node, hint: str = "") -> None:
        line = self.override or node.start_mark.line + 1
        self.document.problems.append(Problem(message, dotted(path), line, hint))

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if any(node is outer for outer in self.open):
            return self.complain("an alias inside its own anchor", path, node)
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path, {})
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node, path)
            return self.scalar(node, path)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, path: KeyPath, into: dict[str, Any]) -> dict[str, Any]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.complain("a key must be text", path, key_node)
                continue
            key = key_node.value
            inner = (*path, *key.split("."))
            if key == "<<" or not all(key.split(".")):
                self.complain(f"{key!r} cannot be a key", path, key_node)
            elif key in seen:
                first = self.document.lines.get(inner)
                self.complain(f"the key stands twice, first in line {first}", inner, key_node, "keep one")
            else:
                self.entry(key_node, value_node, path, into)
            seen.add(key)
        return into

    def entry(self, key_node: yaml.Node, value_node: yaml.Node, path: KeyPath, into: dict[str, Any]) -> None:
        """Puts one value under its key, of which each dot is a level of nesting."""
        *outer, last = str(key_node.value).split(".")
        line = key_node.start_mark.line + 1
        for part in outer:
            path = (*path, part)
            self.note(path, line)
            child = into.setdefault(part, {})
            if not isinstance(child, dict):
                return self.conflict(path, key_node)
            into = child
        path = (*path, last)
        self.note(path, line)
        if last not in into:
            into[last] = self.value(value_node, path)
        elif isinstance(into[last], dict) and isinstance(value_node, yaml.MappingNode):
            self.mapping(value_node, path, into[last])  # `model.kind` and `model:` side by side: one mapping
        else:
            self.conflict(path, key_node)
        return None

    def conflict(self, path: KeyPath, node: yaml.Node) -> None:
        first = self.document.lines.get(path)
        self.complain(f"already has a value, from line {first}", path, node, "a dot in a key is nesting; keep one")

    def sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.note((*path, index), item.start_mark.line + 1)
            items.append(self.value(item, (*path, index)))
        return items

    def scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        text = str(node.value)
        if node.tag == _LEADING_ZERO:
            plain = int(text.replace("_", ""))
            self.complain(f"{text} begins with 0", path, node, f'write {plain}, or "{text}" if it is text')
            return plain
        try:
            return _VALUES[node.tag](text)
        except (KeyError, ValueError):
            self.complain(f"the tag {node.tag} cannot be used here", path, node, "write the value without a tag")
            return text


_VALUES: dict[str, Callable[[str], Any]] = {
    _TEXT: str,
    _NULL: lambda text: None,
    _BOOLEAN: lambda text: {"true": True, "false": False}[text.lower()],
    _INTEGER: lambda text: int(text, 0),
    _FLOAT: lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
}

_HINTS = {
    "\\t": "indent with spaces, not with tabs",
    "sequence entries are not allowed here": 'quote a text that begins with "-"',
    "alias": 'quote a text that begins with "*" or "&"',
    "anchor": 'quote a text that begins with "*" or "&"',
    "mapping values are not allowed here": 'a ": " inside a value needs quotes around the value',
    "cannot start any token": "quote a text that begins with @, ` or %",
}


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(f"not valid YAML: {error}".splitlines()[0])
    parts = [part for part in (error.context, error.problem) if part]
    message = ", ".join(parts) or "cannot be parsed"
    mark = error.problem_mark or error.context_mark
    hint = next((hint for text, hint in _HINTS.items() if text in message), "")
    return Problem(f"not valid YAML: {message}", line=None if mark is None else mark.line + 1, hint=hint)
