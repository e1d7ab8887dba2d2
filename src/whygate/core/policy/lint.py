"""What compiles and is refused all the same: expressions whose cost the caller's arguments could drive up.

A condition runs while every other call waits, on lists and texts of the agent's choosing.
"""

from collections.abc import Iterator
from typing import Final

from whygate.core.policy.cel import Checked, Wrong, constant_fails
from whygate.core.policy.tree import Node

_CONSTANT_ARGUMENT: Final = {"matches": 1, "replace": 2}
"""Functions, and how many of their arguments must be constants: a pattern of the agent's choosing is compiled at each
evaluation, and a replacement of its choosing multiplies a text by another."""
_ZONED: Final = (
    *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
    *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
)
_PARSED: Final = frozenset({"matches", "timestamp", "duration", *_ZONED})
"""Functions that read a text: a constant that they can't read would fail on every call, so it fails at load."""


def lint(checked: Checked, constants: frozenset[str] = frozenset()) -> tuple[Wrong, ...]:
    """Everything refused in one expression. ``constants`` are ``let`` names known to be constant lists."""
    return tuple(_loops(checked.tree, constants, inside=False)) + tuple(_calls(checked.tree))


def is_constant_list(checked: Checked) -> bool:
    """Whether the expression is a list (of lists) of constants."""
    return _constant(checked.tree, frozenset()) and checked.tree.kind == "list"


def _loops(node: Node, constants: frozenset[str], *, inside: bool) -> Iterator[Wrong]:
    if node.kind != "loop" or node.binds:
        for child in node.children:
            yield from _loops(child, constants, inside=inside)
        return
    over, start, *body = node.children
    if start.kind == "list":
        # Each element copies the list built so far: 9,000 of them take seconds.
        yield Wrong(
            node.offset, "map() and filter() are refused (quadratic): say it with all(), exists() or exists_one()"
        )
    if inside and not _constant(over, constants):
        yield Wrong(node.offset, "a loop within a loop is refused, unless the inner one is over a constant list")
    yield from _loops(over, constants, inside=inside)
    for child in body:
        yield from _loops(child, constants, inside=True)


def _constant(node: Node, constants: frozenset[str]) -> bool:
    if node.kind == "ident":
        return node.name in constants
    return node.kind == "const" or (node.kind == "list" and all(_constant(child, constants) for child in node.children))


def _calls(root: Node) -> Iterator[Wrong]:
    for node in root.walk():
        if node.kind != "call":
            continue
        arguments = node.children[1:] if node.member else node.children
        if node.name in _CONSTANT_ARGUMENT:
            values = arguments[-_CONSTANT_ARGUMENT[node.name] :] if node.name == "matches" else arguments[:2]
            for value in values:
                if not value.is_text:
                    yield Wrong(node.offset, f"what {node.name}() looks for must be written in the rule as a text")
        for value in arguments:
            if node.name in _PARSED and value.is_text and constant_fails(node.name, value.name):
                yield Wrong(value.offset, f"{node.name}() can't read this text: it would fail on every call")
