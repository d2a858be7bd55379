"""nanoGPT's configuration files and `--key=value`, read without running them. Imports no torch.

A configuration file is Python that assigns plain values:

    # comments, and a docstring
    batch_size = 12
    max_iters = 20 * 100          # arithmetic on numbers
    lr_decay_iters = max_iters    # and names assigned above

nanoGPT runs such files; this reader knows these forms and refuses everything else by its line. All that is wrong, in
files and on the command line, comes in one message.
"""

from __future__ import annotations

import ast
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rung.errors import Problem, RungError
from rung.explain import Finding, findings, nearest
from trainables.character_streams.nanogpt.experiment import device_complaints
from trainables.character_streams.nanogpt.keys import Keys, refusals

VARIABLE = "NANOGPT_CONFIG"

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LARGEST_POWER = 64
"""So that 9**9**9 does not keep the machine busy."""


@dataclass
class Given:
    """What files and command line say, before it is checked."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """Where each key was last given: a file and its line, or an argument."""
    problems: list[str] = field(default_factory=list)


def read_keys(arguments: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Keys:
    """The settings of a command line: configuration files and `--key=value`, the later ones winning.

    Args:
        arguments: as nanoGPT takes them: `config/basic.py --max_iters=200`.
        defaults: of a command that has others than train.py.

    Raises:
        RungError: everything that is wrong with them.
    """
    given = Given(dict(defaults or {}))
    for argument in arguments:
        if argument.startswith("--"):
            _take_argument(argument, given)
        else:
            _take_file(Path(argument), given)
    _complain_about_unknown(given)
    known = {key: value for key, value in given.values.items() if key in Keys.model_fields}
    try:
        keys = Keys.model_validate(known)
    except ValidationError as error:
        wrong = findings(error, Keys, known)
        given.problems += [_described(given, finding) for finding in wrong]
        places = {finding.path[:1] for finding in wrong}
        keys = Keys.model_validate({key: value for key, value in known.items() if (key,) not in places})
    given.problems += [_placed(given, text) for text in (*refusals(keys), *device_complaints(keys))]
    if given.problems:
        raise RungError("\n".join(given.problems))
    return keys


def explain_variable() -> str | None:
    """What to tell somebody who sets NANOGPT_CONFIG; None: it is not set."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    return f"{VARIABLE} is {path}: the configurator of nanoGPT is a program, and is not run; files are read without it"


def _take_argument(argument: str, given: Given) -> None:
    key, equals, text = argument[2:].partition("=")
    if not equals:
        given.problems.append(f"{argument}: write --{key or 'key'}=value")
        return
    given.values[key], given.places[key] = _value_of(key, text), (argument, None)


def _value_of(key: str, text: str) -> Any:
    """A literal; text where the key takes text, or where it is no literal."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    kind = Keys.model_fields[key].annotation if key in Keys.model_fields else None
    if kind in (str, str | None) and not isinstance(value, kind):  # type: ignore[arg-type]
        return text
    return value


def _take_file(path: Path, given: Given) -> None:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        given.problems.append(f"{path}: cannot be read: {error.strerror}. Options are written --key=value")
        return
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        given.problems.append(Problem(f"is not Python: {getattr(error, 'msg', error)}", line=line).describe(str(path)))
        return
    scope: dict[str, Any] = {}
    for statement in tree.body:
        try:
            _take_statement(statement, scope)
        except _Refused as refused:
            given.problems.append(Problem(str(refused), line=refused.line).describe(str(path)))
            continue
        for key in _targets(statement):
            given.values[key], given.places[key] = scope[key], (str(path), statement.lineno)


class _Refused(Exception):
    """A statement that is not read."""

    def __init__(self, text: str, node: ast.stmt | ast.expr) -> None:
        super().__init__(text)
        self.line = node.lineno


def _targets(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _take_statement(statement: ast.stmt, scope: dict[str, Any]) -> None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a docstring
    names = _targets(statement)
    value = getattr(statement, "value", None)
    is_plain = isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(value, ast.expr)
    if not is_plain or len(names) != len(getattr(statement, "targets", [None])):
        raise _Refused(
            "only assignments of plain values are read (key = value); this line would have to be run", statement
        )
    assert isinstance(value, ast.expr)
    result = _evaluated(value, scope)
    scope.update(dict.fromkeys(names, result))


def _evaluated(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name) and node.id in scope:
        return scope[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _number(node.operand, scope)
        return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _number(node.left, scope), _number(node.right, scope)
        if isinstance(node.op, ast.Pow) and abs(right) > _LARGEST_POWER:
            raise _Refused(f"the power {ast.unparse(node)} is too large", node)
        try:
            return _OPERATORS[type(node.op)](left, right)
        except (ArithmeticError, ValueError) as error:
            raise _Refused(f"{ast.unparse(node)}: {error}", node) from error
    raise _Refused(f"{ast.unparse(node)} is no plain value: numbers, texts, True, False, None and arithmetic are", node)


def _number(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    value = _evaluated(node, scope)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"{ast.unparse(node)} is no number to reckon with", node)
    return value


def _complain_about_unknown(given: Given) -> None:
    for key in given.values.keys() - Keys.model_fields.keys():
        finding = Finding((key,), "unknown key", nearest(key, Keys.model_fields, rest=False))
        given.problems.append(_described(given, finding))
    given.problems.sort()


def _described(given: Given, finding: Finding) -> str:
    key = str(finding.path[0]) if finding.path else ""
    place, line = given.places.get(key, ("", None))
    if line is None:
        text = f"{finding.message} ({finding.hint})" if finding.hint else finding.message
        return f"{place}: {text}" if place else f"{key}: {text}"
    return Problem(finding.message, key, line, finding.hint).describe(place)


def _placed(given: Given, text: str) -> str:
    """A refusal with the place of the key that it begins with."""
    place, line = given.places.get(text.partition(":")[0], ("", None))
    return (
        text if not place else f"{place}:{line}: {text}" if line is not None else f"{place}: {text.partition(': ')[2]}"
    )
