"""Arithmetic items as one would write them down first: a tree of objects, written out anew after each step.

The yardstick of `tests.benchmarks.arithmetic_corpus`, and an independent opinion on what a solution is.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass


@dataclass
class Node:
    """A number, or an operator with two nodes; an operator becomes a number when it is worked out."""

    value: int | None = None
    operator: str = ""
    left: Node | None = None
    right: Node | None = None

    def text(self, is_root: bool = False) -> str:
        """With brackets around every operation but the root."""
        if self.value is not None:
            return str(self.value)
        assert self.left is not None
        assert self.right is not None
        inner = f"{self.left.text()} {self.operator} {self.right.text()}"
        return inner if is_root else f"({inner})"


def random_tree(rng: random.Random, room: int, smallest: int = 1, largest: int = 20) -> Node:
    """A number with probability 0.3, and always where there is no room below it."""
    if room == 0 or rng.random() < 0.3:
        return Node(rng.randint(smallest, largest))
    operator = rng.choice("+-")
    left = random_tree(rng, room - 1, smallest, largest)
    return Node(None, operator, left, random_tree(rng, room - 1, smallest, largest))


def parsed(text: str) -> Node:
    """The tree of a valid expression."""
    tokens = re.findall(r"\d+|[-+()]", text)

    def operand() -> Node:
        token = tokens.pop(0)
        if token != "(":
            return Node(int(token))
        inner = expression()
        tokens.pop(0)
        return inner

    def expression() -> Node:
        node = operand()
        while tokens and tokens[0] in "+-":
            node = Node(None, tokens.pop(0), node, operand())
        return node

    return expression()


def solved(root: Node) -> tuple[str, int]:
    """Solution and value of a tree, whose nodes become numbers."""
    lines = ["<think>"]
    steps = 0

    def work_out(node: Node) -> int:
        nonlocal steps
        if node.value is not None:
            return node.value
        assert node.left is not None
        assert node.right is not None
        left, right = work_out(node.left), work_out(node.right)
        node.value = left + right if node.operator == "+" else left - right
        steps += 1
        lines.append(f"Step {steps}: {left} {node.operator} {right} = {node.value}")
        lines.append(f"Expression now: {root.text(is_root=True)}")
        return node.value

    value = work_out(root)
    return "\n".join([*lines, "</think>", f"Final Result: {value}"]), value


def plain_lines(seed: int, count: int, max_depth: int) -> list[str]:
    """Lines of a corpus of valid items."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        tree = random_tree(rng, max_depth)
        text = tree.text(is_root=True)
        solution, answer = solved(tree)
        line = {"expression": text, "problem": f"Evaluate: {text}", "solution": solution, "answer": answer}
        lines.append(json.dumps(line) + "\n")
    return lines
